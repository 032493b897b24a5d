"""The two recursions compiled by numba: the same equations, without the cost of a call in Python.

A NumPy operation costs a third of a microsecond before it computes anything, a time step takes six
of them, and each goes through the states once more. The functions here take the place of
``forward_block`` and ``backward_block`` for the lab's cell, and of nothing else. Within a step they
make one product, by BLAS or, for one sequence of few units, by a loop; then one pass over the
states.

A product and the addition that follows may be fused, which rounds once instead of twice; nothing
else of what is called fast mathematics is allowed.
"""

import math

import numpy as np
from numba import njit
from scipy.linalg import cython_blas  # noqa: F401 (it is numba's np.dot)

from manual_bptt.arrays import AnyParams, Array, rows, sum_of_squares
from manual_bptt.engine import blocks
from manual_bptt.engine.blocks import Kernel
from manual_bptt.products import Sides

FEW = 64  # units of a single sequence up to which a loop is faster than BLAS

compiled = njit(cache=True, nogil=True, error_model="numpy", fastmath={"contract"})


def forward_block(params: AnyParams, x: Array, h: Array) -> None:
    """Write the states that follow h[0] to h[1:] (Eq. 1); what may overflow is left to NumPy."""
    W, b = params.W, params.b
    np.matmul(rows(x), np.ascontiguousarray(params.U.T), out=rows(h[1:]))  # U x[t]
    of_states = sum_of_squares(W) * (len(b) + sum_of_squares(h[0]))
    if sum_of_squares(h[1:]) + sum_of_squares(b) + of_states < float(np.finfo(W.dtype).max):
        _states(np.ascontiguousarray(W.T), b, _batch(h))
    else:
        blocks.forward_block(params, x, h)


def backward_block(
    params: AnyParams, x: Array, h: Array, dh: Array, da: Array, carried: Array
) -> Sides:
    """Make da of V' dy, which dh holds in the same memory, and leave in carried that in h[0]."""
    _da(params.W, _batch(h), _batch(da), carried if carried.ndim == 2 else carried[None])
    return {}


KERNEL = Kernel(forward_block, backward_block, own_blas=True)


def _batch(array: Array) -> Array:
    """View (T, N) as a batch of one sequence."""
    return array if array.ndim == 3 else array[:, None]


# mypy: disable-error-code="no-untyped-def, no-untyped-call"


@compiled
def _states(Wt, b, h):
    steps, B, H = h.shape
    Wh, bias = np.empty((B, H), h.dtype), np.empty((B, H), h.dtype)
    bias[:] = b
    Wh_of_all, b_of_all = Wh.reshape(-1), bias.reshape(-1)
    for t in range(1, steps):
        _product(h[t - 1], Wt, Wh)
        of_all = h[t].reshape(-1)  # U x[t]
        for i in range(len(of_all)):
            of_all[i] = _tanh((of_all[i] + b_of_all[i]) + Wh_of_all[i])  # Eq. 1


@compiled
def _da(W, h, da, carried):
    carried_of_all = carried.reshape(-1)
    for t in range(len(da) - 1, -1, -1):
        of_all, h_of_all = da[t].reshape(-1), h[t + 1].reshape(-1)
        for i in range(len(of_all)):
            dh = of_all[i] + carried_of_all[i]  # Eq. 4 at T, then Eq. 5
            of_all[i] = (1 - h_of_all[i] * h_of_all[i]) * dh  # da[t]
        _product(da[t], W, carried)  # W' da[t], what h[t-1] receives


@compiled
def _product(left, right, out):
    """Write left right to out."""
    H = len(right)
    if len(left) > 1 or H > FEW:
        np.dot(left, right, out)
        return
    row, sums = left[0], out[0]
    sums[:] = 0
    four = H - H % 4
    for j in range(0, four, 4):  # each pass over the sums costs more than what it adds
        z0, z1, z2, z3 = row[j], row[j + 1], row[j + 2], row[j + 3]
        M0, M1, M2, M3 = right[j], right[j + 1], right[j + 2], right[j + 3]
        for i in range(H):
            sums[i] += (M0[i] * z0 + M1[i] * z1) + (M2[i] * z2 + M3[i] * z3)
    for j in range(four, H):
        z0, M0 = row[j], right[j]
        for i in range(H):
            sums[i] += M0[i] * z0


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
