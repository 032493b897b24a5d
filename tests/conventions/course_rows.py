"""As in courses: vectors are rows, names are Wxh and dWxh, and the target are class labels."""

import numpy as np

import reference


def rnn_loss(Wxh, Whh, Why, bh, by, xs, labels, h0):
    """xs (T, D), labels (T,); returns a dict of gradients."""
    h = [h0]
    for x_t in xs:
        h.append(np.tanh(x_t @ Wxh + h[-1] @ Whh + bh))
    h = np.array(h)
    scores = h[1:] @ Why + by
    probs = np.exp(scores - scores.max(axis=1, keepdims=True))
    dscores = probs / probs.sum(axis=1, keepdims=True)
    dscores[np.arange(len(labels)), labels] -= 1
    dWxh, dWhh, dbh = np.zeros_like(Wxh), np.zeros_like(Whh), np.zeros_like(bh)
    dhnext = np.zeros_like(h0)
    for t in reversed(range(len(xs))):
        dh = dscores[t] @ Why.T + dhnext
        draw = (1 - h[t + 1] ** 2) * dh
        dWxh += np.outer(xs[t], draw)
        dWhh += np.outer(h[t], draw)
        dbh += draw
        dhnext = draw @ Whh.T
    dWhy, dby = h[1:].T @ dscores, dscores.sum(axis=0)
    return {"dWxh": dWxh, "dWhh": dWhh, "dWhy": dWhy, "dbh": dbh, "dby": dby}


# adapting
check = reference.adapt(rnn_loss, layout="rows", loss="cross_entropy", batched=False)
