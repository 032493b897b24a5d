"""This package's gradients in the form in which a comparison with autodiff takes any gradients."""

from collections.abc import Callable
from typing import Any

from manual_bptt.arrays import Array
from manual_bptt.backward import backward, hidden_gradients
from manual_bptt.cells import cell_named
from manual_bptt.forward import forward
from manual_bptt.gradients import Loss, loss_and_gradients
from manual_bptt.losses import last_step_squared_error, squared_error
from manual_bptt.validation import parameters_in


def candidate(
    loss: Loss = squared_error, cell: str = "tanh", **options: Any
) -> Callable[[Any, Any, Any, Any], dict[str, Array]]:
    """Return a function ``(params, x, h0, target)`` that returns every gradient of the loss.

    ``params`` is any object with the attributes ``W U b V c``, and those of the cell beside them.
    The result holds the arrays that ``loss_and_gradients`` returns with these options, by name:
    those of params, ``x`` and ``h0``. Without options it also holds ``states``, those of the trace,
    and ``h``, the gradient in every state: what ``forward`` and ``hidden_gradients`` return.

    Examples
    --------
    >>> import numpy as np
    >>> from manual_bptt import init_params
    >>> gradients_of = candidate()
    >>> grads = gradients_of(init_params(3, 4, 2), np.ones((5, 3)), np.ones(4), np.zeros((5, 2)))
    >>> sorted(grads), grads["h"].shape
    (['U', 'V', 'W', 'b', 'c', 'h', 'h0', 'states', 'x'], (6, 4))
    """

    kind = cell_named(cell).Params

    def gradients_of(params: Any, x: Any, h0: Any, target: Any) -> dict[str, Array]:
        params = parameters_in(params, kind)
        _, grads = loss_and_gradients(params, x, target, h0=h0, loss=loss, **options)
        if options:
            return grads._asdict()
        trace = forward(params, x, h0)
        _, dy = loss(trace.y, target)
        dh = hidden_gradients(params, trace, dy)
        return {**grads._asdict(), "h": dh, "states": trace.h}

    return gradients_of


def from_the_last_state(cell: str = "tanh") -> Callable[[Any, Any, Any, Any], dict[str, Array]]:
    """Return a candidate for the squared error of the last output that begins at the last state.

    The gradient in h[T] is given to ``backward`` as ``dh_last``, and nothing arrives from the
    outputs, so V and c are left out.

    Examples
    --------
    >>> import numpy as np
    >>> from manual_bptt import init_params
    >>> gradients_of = from_the_last_state()
    >>> grads = gradients_of(init_params(3, 4, 2), np.ones((5, 3)), np.ones(4), np.zeros(2))
    >>> sorted(grads)
    ['U', 'W', 'b', 'h', 'h0', 'x']
    """
    kind = cell_named(cell).Params

    def gradients_of(params: Any, x: Any, h0: Any, target: Any) -> dict[str, Array]:
        params = parameters_in(params, kind)
        trace = forward(params, x, h0)
        _, dy = last_step_squared_error(trace.y, target)
        dh_last = dy[-1] @ params.V  # the part of Eq. 8 that comes from y[T]
        grads = backward(params, trace, 0 * dy, dh_last=dh_last)._asdict()
        grads["h"] = hidden_gradients(params, trace, 0 * dy, dh_last=dh_last)
        return {k: grad for k, grad in grads.items() if k not in ("V", "c")}

    return gradients_of
