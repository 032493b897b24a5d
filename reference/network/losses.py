"""Losses: each one function of the outputs and the target in JAX, and what must be known of it."""

import re
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

AnyLoss = str | Callable[[Any, Any], Any]
DIVISOR = re.compile(r"\d+|[TBO]")  # of a loss that is divided: a number, or a size


class Loss(NamedTuple):
    """A loss and its facts.

    ``axes`` are those of the target: ``"TBO"`` like the outputs, ``"BO"`` where the loss looks at
    the last output alone, ``"BH"`` where it looks at the last state, and the function takes the
    states (T+1, B, H) in the place of the outputs. ``weighted``: the function takes weights.
    ``separable``: it is a sum over entries of what is least at the target. ``labels``: the target
    has no axis of outputs, but the number of one of them, from 0 on. ``divisors`` are what a loss
    with a scale is divided by: numbers, and the letters of sizes.
    """

    function: Callable[..., Any]
    axes: str = "TBO"
    weighted: bool = False
    separable: bool = False
    labels: bool = False
    divisors: tuple[str, ...] = ()

    @property
    def over_time(self) -> bool:
        """Whether the target has an axis of time."""
        return "T" in self.axes

    @property
    def of_states(self) -> bool:
        """Whether the loss is one of the states, and not of the outputs."""
        return "H" in self.axes

    def scale(self, sizes: Mapping[str, int]) -> float:
        """Return what the sum over all entries is multiplied by, for problems of these sizes."""
        divisors = (int(d) if d.isdigit() else sizes.get(d, 1) for d in self.divisors)
        return 1.0 / float(np.prod([float(d) for d in divisors]))

    def checked_labels(self, target: Any, outputs: int) -> np.ndarray:
        """Return the target as integers.

        Raises
        ------
        ValueError
            If an entry is no integer from 0 to the number of outputs.
        """
        labels = np.asarray(target)
        whole = labels.dtype.kind in "iuf" and np.array_equal(labels, np.round(labels))
        if not whole or (labels < 0).any() or (labels >= outputs).any():
            raise ValueError(
                f"target has other entries than the integers from 0 to {outputs - 1}; expected the "
                "label of a class, the number of an output"
            )
        return labels.astype(np.int64)


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


def cross_entropy(y: Any, target: Any, weights: Any = None) -> Any:
    """Sum of weighted -log p, with p the softmax of the outputs at the labels, (T,) or (T, B)."""
    shifted = y - jax.lax.stop_gradient(jnp.max(y, axis=-1, keepdims=True))
    log_p = shifted - jnp.log(jnp.sum(jnp.exp(shifted), axis=-1, keepdims=True))
    there = jnp.asarray(target)[..., None] == jnp.arange(y.shape[-1])
    losses = -jnp.where(there, log_p, 0).sum(-1)
    if weights is None:
        return jnp.sum(losses)
    return jnp.sum(
        jnp.reshape(weights, weights.shape + (1,) * (y.ndim - 1 - weights.ndim)) * losses
    )


LOSSES = {
    "squared_error": Loss(squared_error, weighted=True, separable=True),
    "last_step_squared_error": Loss(last_step_squared_error, "BO", separable=True),
    "final_state_squared_error": Loss(final_state_squared_error, "BH", separable=True),
    "cross_entropy": Loss(cross_entropy, "TB", weighted=True, labels=True),
}
"""The losses that have a name."""


@cache
def _divided(name: str, divisors: tuple[str, ...]) -> Loss:
    """Return a loss of LOSSES, divided."""
    known = LOSSES[name]

    def divided(seen: Any, target: Any) -> Any:
        T = len(seen) - known.of_states
        B = seen.shape[1] if seen.ndim == 3 else 1
        sizes = {"T": T, "B": B, "O": seen.shape[-1]}
        return scaled.scale(sizes) * known.function(seen, target)

    scaled = known._replace(function=divided, weighted=False, divisors=divisors)
    return scaled


def named_loss(loss: AnyLoss) -> Loss:
    """Return the loss of this name; of a function that has none, nothing is known.

    A name may be followed by what the loss is divided by, each after a stroke: sizes of the problem
    and numbers. ``"squared_error/TBO"`` is the mean, ``"cross_entropy/T"`` that over the steps,
    ``"squared_error/2"`` has the one half in front.

    Raises
    ------
    ValueError
        If loss is neither a function nor one of ``LOSSES``, or it is divided by something else.

    Examples
    --------
    >>> named_loss("last_step_squared_error").over_time, named_loss(squared_error).weighted
    (False, True)
    >>> named_loss(lambda y, target: (y - target).sum()).over_time
    True
    >>> named_loss("squared_error/2/TB").scale({"T": 5, "B": 2, "O": 3})
    0.05
    """
    if callable(loss):
        return next((known for known in LOSSES.values() if known.function is loss), Loss(loss))
    name, *divided = str(loss).split("/")
    if not isinstance(loss, str) or name not in LOSSES:
        raise ValueError(f"loss is {loss!r}; expected one of {sorted(LOSSES)} or a JAX callable")
    if not divided:
        return LOSSES[name]
    divisors = tuple(d for text in divided for d in DIVISOR.findall(text))
    letters = "TB" if LOSSES[name].of_states else "TBO"
    strange = {d for d in divisors if not d.isdigit() and d not in letters} or "0" in divisors
    if "".join(divisors) != "".join(divided) or not all(divided) or strange:
        raise ValueError(
            f"loss is {loss!r}; expected what it is divided by after a stroke, numbers and any of "
            f"{' '.join(letters)}, such as '{name}/2' or '{name}/{letters}'"
        )
    return _divided(name, divisors)
