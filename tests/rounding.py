"""How far rounding may move each gradient: a running error bound, written without JAX.

Every operation rounds by at most u relative to its result, tanh by a few units (4 are allowed), and
an inner product of n terms by gamma_n = n u / (1 - n u) times its sum of magnitudes (Higham, 2002,
section 3.1). The bounds on the errors of h, dh and da are carried along the two recursions, with
first-order terms and products of errors; so they hold in every regime, though in a chaotic one they
are too large to tell anything.
"""

import numpy as np


def gamma(n, u):
    return n * u / (1 - n * u)


def rounding_bounds(params, x, h0, dy, dh_last=None, u=2.0**-53):
    """Return {gradient: bound on the error of each entry} for one computation in roundoff u."""
    batched = x.ndim == 3
    if not batched:
        x, h0, dy = x[:, None], h0[None], dy[:, None]
        dh_last = None if dh_last is None else dh_last[None]
    T, B, _ = x.shape
    H, U = len(params.b), np.abs(params.U)
    h, e_h = _forward(params, x, h0, u)
    da, e_da, e_dh0 = _backward(params, h, e_h, dy, dh_last, u)
    n = gamma(B * T + 1, u)
    h, x, dy = np.abs(h), np.abs(x), np.abs(dy)

    def outer(left, right):
        return np.einsum("tbi,tbj->ij", left, right)

    bounds = {
        "W": outer(e_da, h[:-1] + e_h[:-1]) + outer(da, e_h[:-1]) + n * outer(da, h[:-1]),
        "U": outer(e_da, x) + n * outer(da, x),
        "b": e_da.sum((0, 1)) + n * da.sum((0, 1)),
        "V": outer(dy, e_h[1:]) + n * outer(dy, h[1:]),
        "c": n * dy.sum((0, 1)),
        "x": e_da @ U + gamma(H, u) * da @ U,
        "h0": e_dh0,
    }
    return bounds if batched else bounds | {"x": bounds["x"][:, 0], "h0": bounds["h0"][0]}


def forward_bounds(params, x, h0, tanh, u=2.0**-53):
    """Return bounds on the errors of h and of y, if tanh rounds by at most this many u."""
    batched = x.ndim == 3
    if not batched:
        x, h0 = x[:, None], h0[None]
    h, e_h = _forward(params, x, h0, u, tanh)
    terms = (np.abs(h) + e_h)[1:] @ np.abs(params.V).T + np.abs(params.c)
    e_y = e_h[1:] @ np.abs(params.V).T + gamma(len(params.b) + 2, u) * terms
    return (e_h, e_y) if batched else (e_h[:, 0], e_y[:, 0])


def _forward(params, x, h0, u, tanh=4):
    (T, B, D), H = x.shape, len(params.b)
    h, e_h = np.empty((T + 1, B, H)), np.zeros((T + 1, B, H))
    h[0] = h0
    W, U, b = np.abs(params.W), np.abs(params.U), np.abs(params.b)
    for t in range(T):
        a = h[t] @ params.W.T + x[t] @ params.U.T + params.b
        terms = np.abs(h[t]) @ W.T + np.abs(x[t]) @ U.T + b
        e_a = e_h[t] @ W.T + gamma(D + H + 2, u) * (terms + e_h[t] @ W.T)
        steepest = 1 - np.tanh(np.maximum(np.abs(a) - e_a, 0)) ** 2
        h[t + 1] = np.tanh(a)
        e_h[t + 1] = steepest * e_a + tanh * u * np.abs(h[t + 1])
    return h, e_h


def _backward(params, h, e_h, dy, dh_last, u):
    (T, B, O), H = dy.shape, len(params.b)
    W, V = np.abs(params.W), np.abs(params.V)
    da, e_da = np.zeros((T, B, H)), np.zeros((T, B, H))
    carried = np.zeros((B, H)) if dh_last is None else dh_last
    e_carried, terms = np.zeros((B, H)), np.abs(carried)
    for t in reversed(range(T)):
        dh = dy[t] @ params.V + carried
        e_dh = e_carried + gamma(H + O + 2, u) * (np.abs(dy[t]) @ V + terms + e_carried)
        slope = 1 - h[t + 1] ** 2
        e_slope = (2 * np.abs(h[t + 1]) + e_h[t + 1]) * e_h[t + 1] + 2 * u
        da[t] = slope * dh
        e_da[t] = slope * e_dh + np.abs(dh) * e_slope + e_dh * e_slope + u * np.abs(da[t])
        carried, e_carried, terms = da[t] @ params.W, e_da[t] @ W, np.abs(da[t]) @ W
    return np.abs(da), e_da, e_carried + gamma(H + 1, u) * (terms + e_carried)
