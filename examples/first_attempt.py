"""A first attempt at backpropagation through time, for one sequence, as people write it."""

import numpy as np


def gradients(params, x, h0, target):
    """Return the gradients of the sum of squared errors; x is (T, D), target (T, O)."""
    W, U, b, V, c = params
    T = len(x)

    h = []
    previous = h0
    for t in range(T):
        previous = np.tanh(W @ previous + U @ x[t] + b)
        h.append(previous)

    dW, dU, db = np.zeros_like(W), np.zeros_like(U), np.zeros_like(b)
    dV, dc = np.zeros_like(V), np.zeros_like(c)
    dh_after = np.zeros_like(h0)
    for t in reversed(range(T)):
        dy = 2 * (V @ h[t] + c - target[t])
        dV += np.outer(dy, h[t])
        dc += dy
        dh = V.T @ dy + W.T @ ((1 - h[t] ** 2) * dh_after)  # as Eq. 15 of the lab has it
        da = (1 - h[t] ** 2) * dh
        dW += np.outer(da, h[t - 1])
        dU += np.outer(da, x[t])
        db += dh
        dh_after = dh
    return {"dW": dW, "dU": dU, "db": db, "dV": dV, "dc": dc}
