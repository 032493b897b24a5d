"""Losses: each one function of the outputs and the target in JAX, and what must be known of it."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp

AnyLoss = str | Callable[[Any, Any], Any]


class Loss(NamedTuple):
    """A loss and its facts.

    ``over_time``: the target has an axis of time, as the outputs have; else the loss looks at the
    last output alone. ``weighted``: the function takes weights. ``separable``: it is a sum over
    entries of what is least where the output is the target.
    """

    function: Callable[..., Any]
    over_time: bool = True
    weighted: bool = False
    separable: bool = False


def squared_error(y: Any, target: Any, weights: Any = None) -> Any:
    """Sum of weighted squared errors (Eq. 3); a zero weight ignores its target, NaN included."""
    if weights is None:
        return jnp.sum((y - target) ** 2)
    weights = jnp.reshape(weights, weights.shape + (1,) * (y.ndim - weights.ndim))
    error = jnp.where(weights == 0, 0, y - jnp.where(weights == 0, 0, target))
    return jnp.sum(weights * error**2)


def last_step_squared_error(y: Any, target: Any) -> Any:
    """Squared error of the last output (the lab's Exercise 2)."""
    return jnp.sum((y[-1] - target) ** 2)


LOSSES = {
    "squared_error": Loss(squared_error, weighted=True, separable=True),
    "last_step_squared_error": Loss(last_step_squared_error, over_time=False, separable=True),
}
"""The losses that have a name."""


def named_loss(loss: AnyLoss) -> Loss:
    """Return the loss of this name; of a function that has none, nothing is known.

    Raises
    ------
    ValueError
        If loss is neither a function nor one of ``LOSSES``.

    Examples
    --------
    >>> named_loss("last_step_squared_error").over_time, named_loss(squared_error).weighted
    (False, True)
    >>> named_loss(lambda y, target: (y - target).sum()).over_time
    True
    """
    if callable(loss):
        return next((known for known in LOSSES.values() if known.function is loss), Loss(loss))
    if not isinstance(loss, str) or loss not in LOSSES:
        raise ValueError(f"loss is {loss!r}; expected one of {sorted(LOSSES)} or a JAX callable")
    return LOSSES[loss]
