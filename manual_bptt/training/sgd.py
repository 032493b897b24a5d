"""Plain stochastic gradient descent.

At every step, for each of W, U, b, V, c and a batch of sequences drawn at random:

    parameter <- parameter - rate * gradient of the batch's loss in it
"""

from collections.abc import Callable
from itertools import islice
from typing import Any, NamedTuple

import numpy as np

from manual_bptt.gradients import Loss, loss_and_gradients
from manual_bptt.params import Array, Gradients, Params
from manual_bptt.training.batches import shuffled_batches
from manual_bptt.validation import as_array, require_finite

OnStep = Callable[[int, float], object]


class DivergenceError(ArithmeticError):
    """Training left the finite numbers. ``.step`` and ``.rate`` say where and how fast."""

    def __init__(self, step: int, rate: float, what: str) -> None:
        super().__init__(
            f"{what} at step {step} with learning rate {rate:g}; a smaller rate may help"
        )
        self.step = step
        self.rate = rate


class Trained(NamedTuple):
    """What training leaves: the last parameters, and ``losses (steps,)`` of the batches it saw.

    ``losses[k]`` was measured before the update of step k + 1.
    """

    params: Params
    losses: Array


def sgd(
    params: Params,
    x: Any,
    target: Any,
    *,
    loss: Loss,
    rate: float,
    batch_size: int,
    steps: int,
    rng: int | np.random.Generator | None = None,
    on_step: OnStep | None = None,
) -> Trained:
    """Train by plain stochastic gradient descent on shuffled batches.

    Parameters
    ----------
    params : Params
        Where to start; left untouched.
    x : array_like, (T, N, D)
        N sequences, time first.
    target : array_like, (N, O) or (T, N, O)
        What the loss compares the outputs with, for every sequence.
    loss : callable
        ``(y, target) -> (value, dy)`` on a batch. A loss that is a mean over the batch makes the
        step independent of batch_size.
    rate : float
        The learning rate.
    batch_size, steps : int
        Sequences a step, and how many steps.
    rng : int, numpy.random.Generator or None
        Where the shuffling comes from; an int seeds a new generator.
    on_step : callable, optional
        Called as ``on_step(step, loss)`` after every step, from 1.

    Raises
    ------
    DivergenceError
        If a loss or a parameter is no longer finite.
    ValueError
        If shapes disagree, x or target is not finite, or rate, batch_size or steps is out of range.

    Examples
    --------
    >>> from manual_bptt import init_params, last_step_squared_error
    >>> x = np.random.default_rng(0).standard_normal((5, 64, 2))
    >>> trained = sgd(init_params(2, 4, 1, rng=0), x, x[-1, :, :1], rate=0.01, batch_size=8,
    ...               steps=100, loss=last_step_squared_error, rng=0)
    >>> bool(trained.losses[-10:].mean() < trained.losses[:10].mean() / 10)
    True
    """
    x, target = _sequences(x, target)
    if not (np.isfinite(rate) and rate > 0):
        raise ValueError(f"rate is {rate}; expected a finite number above 0")
    if steps < 1:
        raise ValueError(f"steps is {steps}; expected at least 1")
    losses = np.empty(steps)
    batches = shuffled_batches(x.shape[1], batch_size, np.random.default_rng(rng))
    for step, batch in enumerate(islice(batches, steps), start=1):
        with np.errstate(over="ignore", invalid="ignore"):  # what overflows ends in an exception
            value, grads = loss_and_gradients(
                params, x[:, batch], target[..., batch, :], loss=loss, check_finite=False
            )
            params = _descend(params, grads, rate)
        if not np.isfinite(value):
            raise DivergenceError(step, rate, f"the loss is {value}")
        if not all(np.isfinite(p).all() for p in params):
            raise DivergenceError(step, rate, "a parameter is not finite")
        losses[step - 1] = value
        if on_step is not None:
            on_step(step, float(value))
    return Trained(params, losses)


def _descend(params: Params, grads: Gradients, rate: float) -> Params:
    """Return parameter - rate * gradient for each of W, U, b, V, c."""
    return Params(*(p - rate * g for p, g in zip(params, grads[: len(params)], strict=True)))


def _sequences(x: Any, target: Any) -> tuple[Array, Array]:
    """Return x (T, N, D) and target (..., N, O), finite."""
    x, target = as_array("x", x), as_array("target", target)
    if x.ndim != 3:
        raise ValueError(f"x has shape {x.shape}; expected (T, N, D)")
    T, N, _ = x.shape
    if target.ndim not in (2, 3) or target.shape[:-1] not in ((N,), (T, N)):
        raise ValueError(
            f"target has shape {target.shape}; expected (N, O) or (T, N, O) with T = {T}, N = {N}"
        )
    return require_finite("x", x), require_finite("target", target)
