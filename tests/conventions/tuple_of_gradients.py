"""Everything in a tuple, the loss first, with one half before the squared errors."""

import numpy as np

import reference


def bptt(U, W, V, b, c, xs, ys, h0):
    T = len(xs)
    hs = {-1: h0}
    loss, errors = 0.0, {}
    for t in range(T):
        hs[t] = np.tanh(U @ xs[t] + W @ hs[t - 1] + b)
        errors[t] = V @ hs[t] + c - ys[t]
        loss += 0.5 * (errors[t] ** 2).sum()
    dU, dW, dV = np.zeros_like(U), np.zeros_like(W), np.zeros_like(V)
    db, dc, delta = np.zeros_like(b), np.zeros_like(c), np.zeros_like(h0)
    for t in range(T - 1, -1, -1):
        dV += np.outer(errors[t], hs[t])
        dc += errors[t]
        delta = (V.T @ errors[t] + W.T @ delta) * (1 - hs[t] ** 2)
        dU += np.outer(delta, xs[t])
        dW += np.outer(delta, hs[t - 1])
        db += delta
    return loss, dU, dW, dV, db, dc


# adapting
returns = ("loss", "dU", "dW", "dV", "db", "dc")
check = reference.adapt(bptt, returns=returns, loss="squared_error/2", batched=False)
