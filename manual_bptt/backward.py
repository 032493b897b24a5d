"""Backpropagation through time, Eqs. 4-10 of the lab, for any loss.

With dy[t] the gradient of the loss in y[t], from the last step to the first:

    dh[T] = V' dy[T] + dh_last                                      (Eq. 4)
    dh[t] = V' dy[t] + W' da[t+1]                                   (Eq. 5)
    da[t] = diag(1 - h[t]^2) dh[t]                the gradient in a[t] = W h[t-1] + U x[t] + b

and with every da[t] known, each remaining gradient is one sum over time:

    dc = sum dy[t]            db = sum da[t]                        (Eqs. 6, 7)
    dV = sum dy[t] h[t]'      dW = sum da[t] h[t-1]'                (Eqs. 8, 9)
    dU = sum da[t] x[t]'                                            (Eq. 10)

Beyond the lab: dx[t] = U' da[t] and dh[0] = W' da[1], the chain rule once more; dh_last, the
gradient that reaches h[T] from steps after the end, zero unless a longer sequence was cut; and
batches, where the parameter gradients are summed over the sequences as well. Arrays keep one
sequence per row, so that ``W' da`` for the whole batch is ``da @ W``.
"""

from typing import Any

import numpy as np

from manual_bptt.arithmetic import reports_overflow
from manual_bptt.arrays import AnyParams, Array
from manual_bptt.engine.blocks import backward_block, backward_blocks, blocks
from manual_bptt.forward import Trace
from manual_bptt.params import Gradients, gradients_of, no_gradients
from manual_bptt.products import from_outputs
from manual_bptt.validation import (
    as_array,
    as_inputs,
    as_outputs,
    as_params,
    as_state,
    attributes,
    require_finite,
    require_shape,
)


def backward(
    params: AnyParams, trace: Trace, dy: Any, *, dh_last: Any = None, check_finite: bool = True
) -> Gradients:
    """Return the exact gradient in every parameter, every input and the initial state (Eqs. 4-10).

    Parameters
    ----------
    params : Params
        The parameters that the trace was computed with; their dtype is that of the result.
    trace : Trace
        What ``forward`` returned.
    dy : array_like, (T, B, O) or (T, O)
        The gradient of the loss in the outputs; a loss returns it beside its value.
    dh_last : array_like, (B, H) or (H,), optional
        The gradient that arrives at h[T] from beyond the sequence; zeros if None. Cut a long
        sequence in two, give the second half's ``h0`` gradient to the first half as ``dh_last``,
        and the two halves' gradients add up to the gradient of the whole.
    check_finite : bool
        Whether to look for NaN and infinity in the arguments.

    Returns
    -------
    Gradients
        The parameters' own fields, ``W U b V c`` first, summed over time and batch, ``x`` and
        ``h0``.

    Raises
    ------
    TypeError
        If an argument is of the wrong kind.
    ValueError
        If shapes disagree or a value is not finite.

    Examples
    --------
    >>> from manual_bptt import forward, init_params, squared_error
    >>> params = init_params(3, 4, 2, rng=0)
    >>> trace = forward(params, np.ones((5, 3)))
    >>> loss, dy = squared_error(trace.y, np.zeros((5, 2)))
    >>> grads = backward(params, trace, dy)
    >>> bool(np.allclose(grads.c, dy.sum(axis=0)))  # Eq. 6
    True
    """
    params, x, h, dy, dh_last = _checked(params, trace, dy, dh_last, check_finite)
    sums, dx, dh0 = no_gradients(params), np.empty_like(x), dh_last.copy()
    backward_blocks(params, x, h, dy, sums, dx, dh0)
    return gradients_of(params, *sums, dx, dh0)


@reports_overflow
def hidden_gradients(
    params: AnyParams, trace: Trace, dy: Any, *, dh_last: Any = None, check_finite: bool = True
) -> Array:
    """Return dh, the gradient of the loss in every state: dh[t] is that in h[t] (Eqs. 4-5).

    Arguments and errors are those of ``backward``. The result is ``(T+1, B, H)`` or ``(T+1, H)``;
    dh[0] is the gradient in h0 and dh[T] includes dh_last. The norm of dh[t] against t shows how
    gradients vanish or explode.

    Examples
    --------
    >>> from manual_bptt import forward, init_params, last_step_squared_error
    >>> params = init_params(3, 4, 2, rng=0)
    >>> trace = forward(params, np.ones((5, 3)))
    >>> loss, dy = last_step_squared_error(trace.y, np.zeros(2))
    >>> dh = hidden_gradients(params, trace, dy)
    >>> bool(np.allclose(dh[5], params.V.T @ dy[-1]))  # Eq. 4
    True
    """
    params, x, h, dy, dh_last = _checked(params, trace, dy, dh_last, check_finite)
    dh = np.empty_like(h)
    dh[0] = dh_last  # dh[0] is what is carried back
    for block in reversed(blocks(dy)):
        dh_now = dh[1:][block]
        da = np.empty((*dh_now.shape[:-1], len(params.b)), dh.dtype)
        from_outputs(params, dy[block], dh_now)
        backward_block(params, x[block], h[block.start : block.stop + 1], dh_now, da, dh[0])
    return dh


def _checked(
    params: Any, trace: Any, dy: Any, dh_last: Any, check_finite: bool
) -> tuple[Any, Array, Array, Array, Array]:
    """Return (params, x, h, dy, dh_last), all of them good."""
    params = as_params(params, check_finite=check_finite)
    trace = Trace(**attributes("trace", trace, Trace._fields, "what forward returned"))
    x = as_inputs(params, trace.x, check_finite=check_finite, name="trace.x")
    T, *batch = x.shape[:-1]
    h = as_array("trace.h", trace.h, params.W.dtype)
    meaning = "(T+1, B, H)" if batch else "(T+1, H)"
    require_shape("trace.h", h, (T + 1, *batch, params.V.shape[1]), meaning)
    if check_finite:
        require_finite("trace.h", h)
    dy = as_outputs("dy", dy, params, x, check_finite=check_finite)
    dh_last = as_state("dh_last", dh_last, params, tuple(batch), check_finite=check_finite)
    return params, x, h, dy, dh_last
