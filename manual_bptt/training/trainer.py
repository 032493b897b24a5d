"""The loop of training: batch, gradients, clipping, optimiser, validation, checkpoint.

All that the loop knows is in a ``Training``; a step is a function of it, of the sequences and of
the settings. So a run that stops at any step and goes on from what was kept is the run that never
stopped, bit for bit.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from math import inf
from numbers import Integral
from typing import Any, NamedTuple

import numpy as np

from manual_bptt.arithmetic import reports_overflow
from manual_bptt.engine.workers import Workers
from manual_bptt.gradients import Loss, loss_and_gradients
from manual_bptt.params import Params
from manual_bptt.training.batches import Sequences, shuffled_batches
from manual_bptt.training.optimizers import (
    Adam,
    Constant,
    Optimizer,
    Schedule,
    State,
    clip_by_global_norm,
)
from manual_bptt.validation import as_params


class Step(NamedTuple):
    """One step: its number from 1, the loss of its batch before the update, the learning rate,
    the global norm of the gradient before clipping, and the validation error after it, if taken.
    """

    number: int
    loss: float
    rate: float
    gradient_norm: float
    validation: float | None = None


@dataclass(frozen=True)
class Training:
    """Where training stands: after ``len(steps)`` steps.

    ``best`` are the parameters of the lowest validation error so far, ``best_error``; where nothing
    is validated they are the last.
    """

    params: Params
    memory: State
    best: Params
    best_error: float = inf
    steps: tuple[Step, ...] = ()
    finished: bool = False

    @property
    def losses(self) -> list[float]:
        """The loss of every step."""
        return [step.loss for step in self.steps]


class DivergenceError(ArithmeticError):
    """Training left the finite numbers. ``.step`` and ``.rate`` say where and how fast."""

    def __init__(self, step: int, rate: float, what: str) -> None:
        super().__init__(step, rate, what)  # these, so that another process can make it anew
        self.step = step
        self.rate = rate
        self.what = what

    def __str__(self) -> str:
        return (
            f"{self.what} at step {self.step} with learning rate {self.rate:g}; a smaller rate, a "
            "longer warm-up or clipping the gradient at a smaller norm may help"
        )


@dataclass(frozen=True)
class Settings:
    """How to train.

    ``steps`` of ``batch_size`` sequences; ``seed`` shuffles them. The gradient is clipped to
    ``max_norm``. Every ``every`` steps, the last one too, the validation error is taken if there
    is one and the state of training is kept; after ``patience`` validation errors in a row that
    are no improvement, training ends.

    Raises
    ------
    ValueError
        If a number is out of range.
    """

    steps: int
    batch_size: int
    optimizer: Optimizer = field(default_factory=Adam)
    schedule: Schedule = field(default_factory=lambda: Constant(1e-3))
    max_norm: float = inf
    seed: int = 0
    every: int = 100
    patience: int | None = None

    def __post_init__(self) -> None:
        least = {"steps": 1, "batch_size": 1, "every": 1, "seed": 0}
        if self.patience is not None:
            least["patience"] = 1
        for name, low in least.items():
            value = getattr(self, name)
            if not isinstance(value, Integral) or int(value) < low:
                raise ValueError(f"{name} is {value}; expected an integer of at least {low}")
        if not self.max_norm > 0:
            raise ValueError(f"max_norm is {self.max_norm}; expected a number above 0")


def begin(params: Params, settings: Settings) -> Training:
    """Return the state of training before the first step."""
    params = as_params(params, check_finite=True)
    return Training(params, settings.optimizer.start(params), best=params)


def train(
    start: Params | Training,
    sequences: Sequences,
    settings: Settings,
    *,
    loss: Loss,
    validate: Callable[[Params], float] | None = None,
    keep: Callable[[Training], object] | None = None,
    on_step: Callable[[Step], object] | None = None,
    stop: Callable[[], bool] = lambda: False,
    workers: Workers = None,
) -> Training:
    """Train on shuffled batches and return where training stands at its end.

    Parameters
    ----------
    start : Params or Training
        Where to start, or what ``keep`` was given earlier, to go on from there; left untouched.
    sequences : Sequences
        What to train on, such as ``ArraySequences(x, target)``.
    settings : Settings
        How.
    loss : callable
        ``(y, target) -> (value, dy)`` on a batch. A loss that is a mean over the batch makes the
        step independent of the batch size.
    validate : callable, optional
        The error of parameters on sequences that are not trained on. The parameters with the
        lowest are ``best``.
    keep : callable, optional
        Called with the state of training before the first step, every ``settings.every`` steps and
        at the end: the place for a checkpoint.
    on_step : callable, optional
        Called with every ``Step``.
    stop : callable, optional
        Asked after every step whether to end here; the result is then not ``finished``.
    workers : int or concurrent.futures.Executor, optional
        Where the gradients are computed; see ``loss_and_gradients``.

    Raises
    ------
    DivergenceError
        If a loss, a gradient or a validation error is no longer finite.
    ValueError
        If shapes disagree, or ``start`` cannot be gone on from with these settings.

    Examples
    --------
    >>> from manual_bptt import init_params, last_step_squared_error
    >>> from manual_bptt.training import ArraySequences, Constant, Settings
    >>> x = np.random.default_rng(0).standard_normal((5, 64, 2))
    >>> settings = Settings(steps=100, batch_size=8, schedule=Constant(0.01))
    >>> training = train(init_params(2, 4, 1, rng=0), ArraySequences(x, x[-1, :, :1]), settings,
    ...                  loss=last_step_squared_error)
    >>> bool(np.mean(training.losses[-10:]) < np.mean(training.losses[:10]) / 10)
    True
    """
    now = _resumed(start, settings) if isinstance(start, Training) else begin(start, settings)
    keep = keep or (lambda _: None)
    gradients = partial(loss_and_gradients, loss=loss, workers=workers, check_finite=False)
    batches = shuffled_batches(
        len(sequences), settings.batch_size, seed=settings.seed, start=len(now.steps)
    )
    if not now.steps:
        keep(now)
    steps = [*now.steps]  # a tuple of them is made when somebody is to see it
    while not now.finished:
        batch = sequences.batch(next(batches))
        now, step = _one_step(now, len(steps) + 1, *batch, gradients, settings)
        at_end = step.number == settings.steps
        due = at_end or step.number % settings.every == 0
        if validate is None:
            now = replace(now, best=now.params, finished=at_end)
        elif due:
            now, step = _validated(now, step, validate)
            now = replace(now, finished=at_end or _in_vain(now, [*steps, step], settings.patience))
        steps.append(step)
        if on_step is not None:
            on_step(step)
        stopped = not now.finished and stop()
        if due or stopped:
            now = replace(now, steps=tuple(steps))
            keep(now)
        if stopped:
            break
    return now


def _resumed(start: Training, settings: Settings) -> Training:
    """Return start, if the settings can go on from it."""
    if not start.finished and len(start.steps) >= settings.steps:
        raise ValueError(
            f"start has {len(start.steps)} steps and is not finished; expected fewer than the "
            f"{settings.steps} of the settings"
        )
    expected = len(settings.optimizer.start(start.params))
    if len(start.memory) != expected:
        raise ValueError(
            f"start remembers {len(start.memory)} moments of the gradient; expected {expected}, "
            f"as many as {settings.optimizer}"
        )
    return start


@reports_overflow
def _one_step(
    now: Training,
    number: int,
    x: Any,
    target: Any,
    gradients: Callable[..., Any],
    settings: Settings,
) -> tuple[Training, Step]:
    """Return the state after the step of this number, and the step, not yet among its steps."""
    rate = float(settings.schedule(number))
    with np.errstate(over="ignore"):  # what overflows ends in an exception
        value, grads = gradients(now.params, x, target)
        clipped, norm = clip_by_global_norm(grads[: len(now.params)], settings.max_norm)
        params, memory = settings.optimizer.update(
            now.params, clipped, now.memory, rate=rate, step=number
        )
    if not np.isfinite(value):
        raise DivergenceError(number, rate, f"the loss is {value}")
    if not np.isfinite(norm):
        raise DivergenceError(number, rate, f"the norm of the gradient is {norm}")
    if not all(np.isfinite(p).all() for p in params):
        raise DivergenceError(number, rate, "a parameter is not finite")
    return replace(now, params=params, memory=memory), Step(number, float(value), rate, norm)


def _validated(
    now: Training, step: Step, validate: Callable[[Params], float]
) -> tuple[Training, Step]:
    """Return the state and its last step with the validation error taken."""
    error = float(validate(now.params))
    if not np.isfinite(error):
        raise DivergenceError(step.number, step.rate, f"the validation error is {error}")
    if error < now.best_error:
        now = replace(now, best=now.params, best_error=error)
    return now, step._replace(validation=error)


def _in_vain(now: Training, steps: Sequence[Step], patience: int | None) -> bool:
    """Return whether as many validation errors in a row as patience has were no improvement."""
    errors = [step.validation for step in steps if step.validation is not None]
    since_best = len(errors) - 1 - errors.index(now.best_error)
    return patience is not None and since_best >= patience
