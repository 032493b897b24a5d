"""The two recursions compiled by numba: the same equations for steps that are small for NumPy.

A NumPy operation costs a third of a microsecond before it computes anything, and a step takes six
of them. For single sequences, and for small batches of few units, that is most of the time. The
functions here take the place of ``states_of_block`` and ``da_of_block``, and of nothing else: the
sums over time and what is computed once for a block stay in NumPy.

Each step is one product, with the matrices stacked:

    a[t] = [W U b] [h[t-1]; x[t]; 1]                     dh[t] = [W; V]' [da[t+1]; dy[t]]

A product and the addition that follows may be fused, which rounds once instead of twice; nothing
else of what is called fast mathematics is allowed.
"""

import math

import numpy as np
from numba import njit

from manual_bptt.checkpointing import Kernel
from manual_bptt.forward import states_of_block
from manual_bptt.params import Array, Params
from manual_bptt.validation import sum_of_squares

compiled = njit(cache=True, nogil=True, error_model="numpy", fastmath={"contract"})


def states(params: Params, x: Array, h: Array) -> None:
    """Write the states that follow h[0] to h[1:] (Eq. 1); what may overflow is left to NumPy."""
    W, U, b, _, _ = params
    largest = np.finfo(W.dtype).max
    of_inputs = sum_of_squares(U) * sum_of_squares(x) + sum_of_squares(b)
    of_states = sum_of_squares(W) * (len(b) + sum_of_squares(h[0]))
    if of_inputs + of_states < largest:  # by Cauchy and Schwarz no sum comes near its square root
        _states(W, U, b, _batch(x), _batch(h))
    else:
        states_of_block(params, x, h)


def da(params: Params, h: Array, dy: Array, da: Array, carried: Array) -> None:
    """Write the gradients in the pre-activations to da, and leave that in h[0] in carried."""
    carried = carried if carried.ndim == 2 else carried[None]
    _da(params.W, params.V, _batch(h), _batch(dy), _batch(da), carried)


KERNEL = Kernel(states, da)


def _batch(array: Array) -> Array:
    """View (T, N) as a batch of one sequence."""
    return array if array.ndim == 3 else array[:, None]


# mypy: disable-error-code="no-untyped-def, no-untyped-call"


@compiled
def _states(W, U, b, x, h):
    steps, B, H = h.shape
    D = x.shape[2]
    M = _rows_for(H + D + 1, H, h)
    for j in range(H):
        for i in range(H):
            M[j, i] = W[i, j]
    for j in range(D):
        for i in range(H):
            M[H + j, i] = U[i, j]
    M[H + D] = b
    z = np.zeros(len(M), h.dtype)
    z[H + D] = 1
    for t in range(1, steps):
        for k in range(B):
            for i in range(H):
                z[i] = h[t - 1, k, i]
            for i in range(D):
                z[H + i] = x[t - 1, k, i]
            _product(M, z, h[t, k])  # a[t]
        of_all = h[t].reshape(-1)
        for i in range(len(of_all)):
            of_all[i] = _tanh(of_all[i])  # Eq. 1


@compiled
def _da(W, V, h, dy, da, carried):
    steps, B, H = da.shape
    O = len(V)
    M = _rows_for(H + O, H, h)
    M[:H] = W
    M[H : H + O] = V
    z, dh = np.zeros(len(M), h.dtype), np.empty(H, h.dtype)
    for k in range(B):
        for t in range(steps, 0, -1):
            for i in range(O):
                z[H + i] = dy[t - 1, k, i]
            _product(M, z, dh)  # V' dy[t], and at T all; before it + W' da[t+1]
            if t == steps:
                for i in range(H):
                    dh[i] += carried[k, i]  # Eq. 4; otherwise Eq. 5
            for i in range(H):
                da[t - 1, k, i] = z[i] = (1 - h[t, k, i] * h[t, k, i]) * dh[i]  # da[t]
        for i in range(O):
            z[H + i] = 0
        _product(M, z, carried[k])  # W' da[1]
        for i in range(H):
            z[i] = 0


@compiled
def _rows_for(rows, columns, like):
    """Return a matrix of zeros for so many rows, and up to three more for _product."""
    return np.zeros((-(-rows // 4) * 4, columns), like.dtype)


@compiled
def _product(M, z, a):
    """Write M' z to a, four rows of M at a time: every pass over a costs more than its sums."""
    a[:] = 0
    for j in range(0, len(M), 4):
        z0, z1, z2, z3 = z[j], z[j + 1], z[j + 2], z[j + 3]
        M0, M1, M2, M3 = M[j], M[j + 1], M[j + 2], M[j + 3]
        for i in range(len(a)):
            a[i] += (M0[i] * z0 + M1[i] * z1) + (M2[i] * z2 + M3[i] * z3)


# The hyperbolic tangent -------------------------------------------------------------------------
#
# That of the C library is computed one number at a time, ten times as long as all the rest.

LOG2_E = 1 / math.log(2)
LN2_HIGH = float.fromhex("0x1.62e42fefa38p-1")  # 42 bits, so that n LN2_HIGH is exact; the rest of
LN2_LOW = float.fromhex("0x1.ef35793c7673p-45")  # ln 2 (Cody and Waite, 1980)
C2, C3, C4, C5, C6, C7, C8, C9, C10, C11, C12, C13 = (1 / math.factorial(k) for k in range(2, 14))


@compiled
def _tanh(x):
    """Return tanh x = e / (e + 2) with e = exp(2 |x|) - 1, within 4 units of 2^-53.

    2 |x| = n ln 2 + r, |r| <= ln 2 / 2, so e = 2^n (exp(r) - 1) + (2^n - 1), of which Taylor's
    series gives the first part. From 20 on the result is 1.
    """
    z = 2 * min(abs(np.float64(x)), 20.0)  # NaN stays NaN
    n = np.floor(z * LOG2_E + 0.5)
    r = (z - n * LN2_HIGH) - n * LN2_LOW
    s = C10 + r * (C11 + r * (C12 + r * C13))
    s = C6 + r * (C7 + r * (C8 + r * (C9 + r * s)))
    s = C2 + r * (C3 + r * (C4 + r * (C5 + r * s)))
    two_to_n = np.int64((np.int64(n) + 1023) << 52).view(np.float64)  # its exponent, as bits
    e = two_to_n * (r + r * r * s) + (two_to_n - 1)
    return math.copysign(e / (e + 2), x)
