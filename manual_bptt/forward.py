"""The forward pass, Eqs. 1-2 of the lab, for one sequence or a batch of them.

    a[t] = W h[t-1] + U x[t] + b
    h[t] = tanh(a[t])                  (Eq. 1, or that of another cell)
    y[t] = V h[t] + c                  (Eq. 2)        t = 1 .. T

Arrays keep one sequence per row, so that ``W h`` for the whole batch is ``h @ W.T``. Only the
recursion runs step by step; what the inputs contribute to a block of steps, and its outputs, are
one matrix product each.
"""

from typing import Any, NamedTuple

import numpy as np

from manual_bptt.arrays import AnyParams, Array
from manual_bptt.engine.blocks import forward_blocks
from manual_bptt.validation import as_inputs, as_params, as_state


class Trace(NamedTuple):
    """What one forward pass leaves for the backward pass.

    ``x`` (T, B, D) or (T, D) is a copy of the inputs, x^[t] at ``x[t-1]``; ``h`` (T+1, B, H) or
    (T+1, H) holds the states, h^[t] at ``h[t]`` and the initial state at ``h[0]``; ``y``
    (T, B, O) or (T, O) holds the outputs, y^[t] at ``y[t-1]``.
    """

    x: Array
    h: Array
    y: Array


def forward(params: AnyParams, x: Any, h0: Any = None, *, check_finite: bool = True) -> Trace:
    """Run the network over x and return everything the backward pass needs (Eqs. 1-2).

    Parameters
    ----------
    params : Params
        The parameters, whose type is the cell; their dtype is that of the result.
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
    h = np.empty((T + 1, *batch, params.V.shape[1]), params.W.dtype)
    y = np.empty((T, *batch, len(params.c)), params.W.dtype)
    h[0] = h0
    forward_blocks(params, x, h, y)
    return Trace(np.array(x, order="C"), h, y)  # the trace owns its inputs
