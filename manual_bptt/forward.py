"""The forward pass, Eqs. 1-2 of the lab, for one sequence or a batch of them.

    a[t] = W h[t-1] + U x[t] + b
    h[t] = tanh(a[t])                  (Eq. 1)
    y[t] = V h[t] + c                  (Eq. 2)        t = 1 .. T

Arrays keep one sequence per row, so that ``W h`` for the whole batch is ``h @ W.T``. Only the
recursion runs step by step; what the inputs contribute to a block of steps, and its outputs, are
one matrix product each.
"""

from collections.abc import Callable
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

from manual_bptt.arithmetic import reports_overflow
from manual_bptt.params import Array, Params
from manual_bptt.validation import as_inputs, as_params, as_state, sum_of_squares

StatesOfBlock = Callable[[Params, Array, Array], None]
BLOCK_STEPS, BLOCK_ROWS = 256, 1024


class Trace(NamedTuple):
    """What one forward pass leaves for the backward pass.

    ``x`` (T, B, D) or (T, D) is a copy of the inputs, x^[t] at ``x[t-1]``; ``h`` (T+1, B, H) or
    (T+1, H) holds the states, h^[t] at ``h[t]`` and the initial state at ``h[0]``; ``y``
    (T, B, O) or (T, O) holds the outputs, y^[t] at ``y[t-1]``.
    """

    x: Array
    h: Array
    y: Array


def forward(params: Params, x: Any, h0: Any = None, *, check_finite: bool = True) -> Trace:
    """Run the network over x and return everything the backward pass needs (Eqs. 1-2).

    Parameters
    ----------
    params : Params
        The parameters; their dtype is that of the result.
    x : array_like, (T, B, D) or (T, D)
        The inputs, time first.
    h0 : array_like, (B, H) or (H,), optional
        The state before the first step; zeros if None.
    check_finite : bool
        Whether to look for NaN and infinity in the arguments.

    Raises
    ------
    TypeError
        If an argument does not hold numbers, or the parameters are not of a floating type of at
        least 32 bits.
    ValueError
        If shapes disagree, T or B is 0, or a value is not finite.

    Examples
    --------
    >>> from manual_bptt import init_params
    >>> trace = forward(init_params(3, 4, 2, rng=0), np.ones((5, 3)))
    >>> trace.x.shape, trace.h.shape, trace.y.shape
    ((5, 3), (6, 4), (5, 2))
    """
    params = as_params(params, check_finite=check_finite)
    x = as_inputs(params, x, check_finite=check_finite)
    h0 = as_state("h0", h0, params, x.shape[1:-1], check_finite=check_finite)
    T, *batch = x.shape[:-1]
    h = np.empty((T + 1, *batch, len(params.W)), params.W.dtype)
    y = np.empty((T, *batch, len(params.c)), params.W.dtype)
    h[0] = h0
    run_forward(params, x, h, y)
    return Trace(np.array(x, order="C"), h, y)  # the trace owns its inputs


@reports_overflow
def run_forward(
    params: Params, x: Array, h: Array, y: Array | None = None, states: StatesOfBlock | None = None
) -> None:
    """Eqs. 1-2 on arguments that are known to be good: from h[0], write h[1:], and y if given.

    ``states`` computes what ``states_of_block`` does, if given.
    """
    states = states or states_of_block
    Vt = np.ascontiguousarray(params.V.T)
    for block in blocks(x):
        h_of_block = h[block.start : block.stop + 1]
        states(params, x[block], h_of_block)  # Eq. 1
        if y is not None:
            Vh = rows(h_of_block[1:]) @ Vt
            np.add(Vh.reshape(y[block].shape), params.c, out=y[block])  # Eq. 2


def states_of_block(params: Params, x: Array, h: Array) -> None:
    """Write the states that follow h[0] to h[1:] (Eq. 1)."""
    W, U, b, _, _ = params
    Wt, Ut = np.ascontiguousarray(W.T), np.ascontiguousarray(U.T)
    np.matmul(rows(x), Ut, out=rows(h[1:]))  # h[t] holds U x[t] for now,
    h[1:] += b  # then U x[t] + b
    _mark_overflow(W, h)
    Wh = np.empty_like(h[0])
    for h_before, h_now in pairwise(h):
        h_before.dot(Wt, Wh)
        np.add(h_now, Wh, h_now)  # a[t]
        np.tanh(h_now, h_now)  # Eq. 1


def blocks(x: Array) -> list[slice]:
    """Return the steps of x in blocks: whatever is done to all of a block finds it in the cache.

    A block is up to 256 steps, and up to 1,024 rows of x unless a single step has more. Everything
    is computed block by block from the first step on, so that a sequence that is continued at the
    end of a block gives the same bits.
    """
    T, *batch = x.shape[:-1]
    length = block_length(*batch)
    return [slice(start, min(start + length, T)) for start in range(0, T, length)]


def block_length(B: int = 1) -> int:
    """Return the number of steps in a block of B sequences."""
    return max(1, min(BLOCK_STEPS, BLOCK_ROWS // B))


def rows(array: Array) -> Array:
    """View (T, B, N) or (T, N) as one row per step and sequence: (T B, N)."""
    return array if array.ndim == 2 else array.reshape(-1, array.shape[-1])


def _mark_overflow(W: Array, h: Array) -> None:
    """Set to NaN what has overflowed, or may: tanh would make a plausible 1 of an infinity.

    h[1:] holds U x[t] + b. In ``W h``, where the magnitudes of all terms add up to infinity, so may
    a partial sum of terms that cancel.
    """
    inputs, largest = h[1:], float(np.finfo(W.dtype).max)
    if sum_of_squares(inputs) + sum_of_squares(W) * (len(W) + sum_of_squares(h[0])) < largest:
        return  # |W h| <= |W| |h| (Cauchy, Schwarz), and |h[t]|^2 <= H for real numbers
    finite = np.isfinite(inputs)
    if not finite.all():
        inputs[~finite] = np.nan
    steepest = np.abs(W).sum() * np.maximum(1, np.abs(h[0]).max(axis=-1))  # in each sequence
    inputs[:, ~(steepest < largest)] = np.nan
