"""Layers as a list of dictionaries, for a batch, with no initial state."""

import numpy as np

import reference


def backpropagate(model, x, target):
    rnn, out = model
    h = [np.zeros((x.shape[1], len(rnn["b"])))]
    for x_t in x:
        h.append(np.tanh(h[-1] @ rnn["W"].T + x_t @ rnn["U"].T + rnn["b"]))
    h = np.array(h)
    dy = 2 * (h[1:] @ out["W"].T + out["b"] - target)
    da = np.zeros_like(h)
    for t in range(len(x), 0, -1):
        arriving = da[t + 1] @ rnn["W"] if t < len(x) else 0
        da[t] = (1 - h[t] ** 2) * (dy[t - 1] @ out["W"] + arriving)
    return [
        {"W": np.einsum("tbi,tbj->ij", da[1:], h[:-1]), "U": np.einsum("tbi,tbj->ij", da[1:], x),
         "b": da.sum(axis=(0, 1))},
        {"W": np.einsum("tbi,tbj->ij", dy, h[1:]), "b": dy.sum(axis=(0, 1))},
    ]  # fmt: skip


# adapting
names = [{"W": "W", "U": "U", "b": "b"}, {"W": "V", "b": "c"}]
check = reference.adapt(backpropagate, names=names)
