"""Losses: each one function of the outputs and the target in JAX, and what must be known of it."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp

AnyLoss = str | Callable[[Any, Any], Any]


class Loss(NamedTuple):
    """A loss and its facts.

    ``axes`` are those of the target: ``"TBO"`` like the outputs, ``"BO"`` where the loss looks at
    the last output alone, ``"BH"`` where it looks at the last state, and the function takes the
    states (T+1, B, H) in the place of the outputs. ``weighted``: the function takes weights.
    ``separable``: it is a sum over entries of what is least at the target.
    """

    function: Callable[..., Any]
    axes: str = "TBO"
    weighted: bool = False
    separable: bool = False

    @property
    def over_time(self) -> bool:
        """Whether the target has an axis of time."""
        return "T" in self.axes

    @property
    def of_states(self) -> bool:
        """Whether the loss is one of the states, and not of the outputs."""
        return "H" in self.axes


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


def final_state_squared_error(h: Any, target: Any) -> Any:
    """Squared error of the last state: its gradient arrives from beyond the end of the sequence."""
    return jnp.sum((h[-1] - target) ** 2)


LOSSES = {
    "squared_error": Loss(squared_error, weighted=True, separable=True),
    "last_step_squared_error": Loss(last_step_squared_error, "BO", separable=True),
    "final_state_squared_error": Loss(final_state_squared_error, "BH", separable=True),
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
