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

from collections.abc import Iterable
from itertools import repeat
from typing import Any

import numpy as np

from manual_bptt.forward import Trace, rows
from manual_bptt.params import Array, Gradients, Params
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
    params: Params, trace: Trace, dy: Any, *, dh_last: Any = None, check_finite: bool = True
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
        ``W U b V c``, summed over time and batch, ``x`` and ``h0``.

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
    return run_backward(*_checked(params, trace, dy, dh_last, check_finite))


def hidden_gradients(
    params: Params, trace: Trace, dy: Any, *, dh_last: Any = None, check_finite: bool = True
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
    params, trace, dy, dh_last = _checked(params, trace, dy, dh_last, check_finite)
    dh = np.empty_like(trace.h)
    _, dh[0] = _recursion(params, trace.h, dy, dh_last, dh=dh[:0:-1])
    return dh


def run_backward(params: Params, trace: Trace, dy: Array, dh_last: Array) -> Gradients:
    """Eqs. 4-10 on arguments that are known to be good."""
    x, h = trace.x, trace.h
    da, dh0 = _recursion(params, h, dy, dh_last, dh=repeat(np.empty_like(dh_last)))
    over_time = np.ones(len(rows(da)), da.dtype)  # and the batch; rounds less than .sum(axis=0)
    return Gradients(
        W=rows(da).T @ rows(h[:-1]),  # Eq. 9
        U=rows(da).T @ rows(x),  # Eq. 10
        b=over_time @ rows(da),  # Eq. 7
        V=rows(dy).T @ rows(h[1:]),  # Eq. 8
        c=over_time @ rows(dy),  # Eq. 6
        x=(rows(da) @ params.U).reshape(x.shape),
        h0=dh0,
    )


def _recursion(
    params: Params, h: Array, dy: Array, dh_last: Array, dh: Iterable[Array]
) -> tuple[Array, Array]:
    """Return (da, dh[0]): the gradient in a[1..T], and in the initial state.

    dh[T], ..., dh[1] are written to the arrays that the iterable dh yields, in this order.
    """
    W, V = params.W, params.V
    da = np.empty(h[1:].shape, h.dtype)
    np.matmul(rows(dy), V, out=rows(da))  # da[t] holds V' dy[t] for now
    slope = h[1:] * h[1:]
    np.subtract(1, slope, out=slope)  # 1 - h[t]^2
    carried = dh_last.copy()
    for dh_now, da_now, slope_now in zip(dh, da[::-1], slope[::-1]):  # noqa: B905 (dh may repeat)
        np.add(da_now, carried, dh_now)  # Eq. 4 at T, then Eq. 5
        np.multiply(dh_now, slope_now, da_now)  # da[t]
        da_now.dot(W, carried)  # W' da[t], what h[t-1] receives
    return da, carried


def _checked(
    params: Any, trace: Any, dy: Any, dh_last: Any, check_finite: bool
) -> tuple[Params, Trace, Array, Array]:
    params = as_params(params, check_finite=check_finite)
    trace = Trace(**attributes("trace", trace, Trace._fields, "what forward returned"))
    x = as_inputs(params, trace.x, check_finite=check_finite, name="trace.x")
    T, *batch = x.shape[:-1]
    h = as_array("trace.h", trace.h, params.W.dtype)
    meaning = "(T+1, B, H)" if batch else "(T+1, H)"
    require_shape("trace.h", h, (T + 1, *batch, len(params.W)), meaning)
    if check_finite:
        require_finite("trace.h", h)
    dy = as_outputs("dy", dy, params, x, check_finite=check_finite)
    dh_last = as_state("dh_last", dh_last, params, tuple(batch), check_finite=check_finite)
    return params, Trace(x, h, trace.y), dy, dh_last
