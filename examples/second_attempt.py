"""The same with its three mistakes mended, and with the gradient in every state."""

import numpy as np


def gradients(params, x, h0, target):
    """Return the gradients of the sum of squared errors; x is (T, D), target (T, O)."""
    W, U, b, V, c = params
    T = len(x)

    h = [h0]
    for t in range(T):
        h.append(np.tanh(W @ h[t] + U @ x[t] + b))

    dW, dU, db = np.zeros_like(W), np.zeros_like(U), np.zeros_like(b)
    dV, dc = np.zeros_like(V), np.zeros_like(c)
    dh = np.zeros((T + 1, len(h0)))
    for t in range(T, 0, -1):
        dy = 2 * (V @ h[t] + c - target[t - 1])
        dV += np.outer(dy, h[t])
        dc += dy
        dh[t] += V.T @ dy
        da = (1 - h[t] ** 2) * dh[t]
        dW += np.outer(da, h[t - 1])
        dU += np.outer(da, x[t - 1])
        db += da
        dh[t - 1] = W.T @ da
    return {"dW": dW, "dU": dU, "db": db, "dV": dV, "dc": dc, "dh": dh, "states": h}
