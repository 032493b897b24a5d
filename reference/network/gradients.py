"""``jax.grad`` of everything: the parameters, the inputs, and every state."""

from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any

import jax
import numpy as np

from reference.devices import float64_on_cpu
from reference.jaxprs import Tiered
from reference.network import named_cell
from reference.network.cell import Cell
from reference.network.losses import LOSSES, AnyLoss, named_loss
from reference.network.sequence import (
    Probes,
    arguments,
    as_real,
    require_shape,
    run,
    sizes_of,
    zero_probes,
)

GRADIENTS = ("W", "U", "b", "V", "c", "x", "h0", "h")  # of the lab's network


def gradients(
    params: Any,
    x: Any,
    target: Any,
    *,
    h0: Any = None,
    loss: AnyLoss = "squared_error",
    weights: Any = None,
    cell: str | Cell = "tanh",
) -> dict[str, np.ndarray]:
    """Differentiate the loss of the network with ``jax.grad``.

    Everything is computed in the dtype of the parameters.

    Parameters
    ----------
    params : object
        Anything with the parameters of the cell as attributes, for the lab's W (H, H), U (H, D) and
        b (H,), and with V (O, H) and c (O,).
    x : array, (T, D) or (T, B, D)
        The inputs.
    target : array
        What the loss compares the outputs with.
    h0 : array, (H,) or (B, H), optional
        The initial state; zeros if None. Where that of the cell has several arrays, h0 and the
        gradients in h0 and h are arranged so too.
    loss : str or callable
        One of ``reference.network.losses.LOSSES``, which may be followed by what it is divided by,
        as ``"cross_entropy/T"``, or a JAX function ``(y, target)`` that returns a scalar.
    weights : array, optional
        For ``"squared_error"``: (T,), (T, B) or like the outputs. For ``"cross_entropy"``: like the
        labels, (T,) or (T, B).
    cell : str or Cell
        The cell.

    Returns
    -------
    dict
        The gradients in every parameter, in x, h0, and in every state: ``h`` is (T+1, H) or
        (T+1, B, H).

    Raises
    ------
    ValueError
        If shapes disagree, loss or cell is an unknown name, or weights come with a loss that takes
        none.

    Examples
    --------
    >>> from reference import random_problem
    >>> problem = random_problem(T=5, B=None, D=2, H=4, O=1, regime="contracting", seed=0)
    >>> grads = gradients(problem.params, problem.x, problem.target, h0=problem.h0)
    >>> {k: g.shape for k, g in grads.items() if k in "Wh"}
    {'W': (4, 4), 'h': (6, 4)}
    """
    known, cell = named_loss(loss), named_cell(cell)
    if weights is not None and not known.weighted:
        raise ValueError(f"weights was given, but the loss {loss!r} takes none")
    values, x, h0 = arguments(params, x, h0, cell)
    target = as_real("target", target, x.dtype)
    outputs = (*x.shape[:-1], len(values["c"]))
    if isinstance(loss, str) or known in LOSSES.values():
        shape = h0.shape if known.of_states else outputs[1:]
        of_outputs = outputs[:-1] if known.labels else outputs
        require_shape("target", target, of_outputs if known.over_time else shape)
    if known.labels:
        target = known.checked_labels(target, outputs[-1])
    given = [target]
    if weights is not None:
        shapes = [outputs[:n] for n in range(1, len(outputs) + (not known.labels))]
        given.append(require_shape("weights", as_real("weights", weights, x.dtype), *shapes))
    variables = (values, x, h0, zero_probes(values, x, h0))
    with float64_on_cpu():
        options = {"loss": known.function, "cell": cell, "of_states": known.of_states}
        grads = _autodiff(variables, tuple(given), **options)
        found = {k: np.array(grads[k]) for k in cell.gradients}
    sizes = sizes_of(values, x)
    return found | {k: cell.unpacked(found[k], sizes) for k in ("h0", "h")}


def loss_gradient(loss: Callable[[Any, Any], Any], y: Any, target: Any) -> np.ndarray:
    """Return the gradient of a loss in the outputs."""
    y, target = np.asarray(y), np.asarray(target)
    slope = _slope(loss, *((a.shape, a.dtype) for a in (y, target)))
    return np.asarray(slope(y, target))


@lru_cache(maxsize=64)
def _slope(loss: Callable[[Any, Any], Any], *like: tuple[tuple[int, ...], Any]) -> Tiered:
    """Return the gradient of a loss in the outputs, for arrays of these shapes and dtypes."""
    return Tiered(jax.grad(loss), *(np.zeros(*outline) for outline in like))


def autodiff(
    variables: Any, given: Any, loss: Callable[..., Any], cell: Cell, *, of_states: bool = False
) -> dict[str, Any]:
    """Return every gradient, ``y``, that in the outputs, and the ``states``, by one ``jax.grad``.

    variables are (params as a dict, x, h0, probes); the loss is called with the outputs, or the
    states, and what is given.
    """

    def total(params: Any, x: Any, h0: Any, probes: Probes) -> Any:
        h, y = run(cell, params, x, h0, probes)
        return loss(h if of_states else y, *given), h

    grads, h = jax.grad(total, argnums=(0, 1, 2, 3), has_aux=True)(*variables)
    params, x, h0, probes = grads
    return {**params, "x": x, "h0": h0, "h": probes.h, "y": probes.y, "states": h}


_autodiff = partial(jax.jit, static_argnames=("loss", "cell", "of_states"))(autodiff)
