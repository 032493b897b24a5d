"""Named ways to train a forecaster of the next hour's temperature.

lab9 is the lab's own: 10 hidden units, every weight drawn from N(0, 0.001^2), biases zero, and 500
steps of plain gradient descent at rate 0.01 on batches of 32 windows. The loss is the squared error
of the standardised temperature at the last step (the lab's Exercise 2), averaged over the batch.
"""

import hashlib
import time
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np

from manual_bptt.forecasting import weather
from manual_bptt.forecasting.baselines import errors, persistence
from manual_bptt.forecasting.model import Model, predict
from manual_bptt.forecasting.table import Array
from manual_bptt.forecasting.windows import (
    Windows,
    fit_standardizer,
    make_windows,
    split_by_time,
    standardize,
)
from manual_bptt.losses import last_step_squared_error
from manual_bptt.params import Params
from manual_bptt.training import Trained, sgd
from manual_bptt.training.sgd import OnStep


class Recipe(NamedTuple):
    """How a forecaster is trained: window, network, first weights N(0, init_std^2), descent."""

    length: int
    n_hidden: int
    init_std: float
    rate: float
    batch_size: int
    steps: int


RECIPES = MappingProxyType(
    {"lab9": Recipe(length=24, n_hidden=10, init_std=0.001, rate=0.01, batch_size=32, steps=500)}
)


class TrainingResult(NamedTuple):
    """A trained model, the loss of every step, ``(steps,)``, and ``metrics`` that JSON can hold."""

    model: Model
    losses: Array
    metrics: dict[str, Any]


def train_recipe(
    name: str = "lab9",
    *,
    data: str | Path | None = None,
    seed: int = 0,
    on_step: OnStep | None = None,
) -> TrainingResult:
    """Train a forecaster on the first 80 percent of the year and measure it on the rest.

    Parameters
    ----------
    name : str
        A key of ``RECIPES``.
    data : path, optional
        A weather table; the one that comes with the package if None.
    seed : int
        Where the first weights and the shuffling come from. Same seed, same result.
    on_step : callable, optional
        Called as ``on_step(step, loss)`` after every step, from 1.

    Returns
    -------
    TrainingResult
        Its metrics hold the errors of the forecast and of persistence on the test windows, in degF,
        the mean of the last 25 losses (standardised), the time training took, and what went in.

    Raises
    ------
    DataError
        If the table is bad or too small.
    DivergenceError
        If training leaves the finite numbers.
    ValueError
        If there is no recipe of this name.
    """
    if name not in RECIPES:
        raise ValueError(f"no recipe {name!r}; expected one of {', '.join(RECIPES)}")
    recipe = RECIPES[name]
    path = weather.weather_path() if data is None else Path(data)
    windows = make_windows(
        weather.load_weather(path),
        features=weather.FEATURES,
        target=weather.TARGET,
        length=recipe.length,
    )
    train, test = split_by_time(windows)
    standardizer = fit_standardizer(train)
    ready = standardize(standardizer, train)
    x = ready.x
    started = time.perf_counter()
    trained = _train(recipe, x, ready.target, seed, on_step)
    seconds = time.perf_counter() - started
    unit = weather.UNITS[weather.TARGET]
    model = Model(
        trained.params, standardizer, weather.FEATURES, weather.TARGET, unit, recipe.length, name
    )
    metrics = {
        "recipe": name,
        "seed": seed,
        "data": {"file": path.name, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()},
        **_measure(model, trained, train, test),
        "train_seconds": seconds,
    }
    return TrainingResult(model, trained.losses, metrics)


def mean_last_step_squared_error(y: Array, target: Array) -> tuple[Any, Array]:
    """Return ``last_step_squared_error`` as a mean over the batch, and its gradient.

    Not finite in, not finite out: the caller looks at the value.

    Examples
    --------
    >>> value, dy = mean_last_step_squared_error(np.ones((3, 2, 1)), np.array([[0.0], [2.0]]))
    >>> float(value), dy[-1].ravel().tolist()
    (1.0, [1.0, -1.0])
    """
    value, dy = last_step_squared_error(y, target, check_finite=False)
    return value / y.shape[1], dy / y.shape[1]


def _train(recipe: Recipe, x: Array, target: Array, seed: int, on_step: OnStep | None) -> Trained:
    rng = np.random.default_rng(seed)
    return sgd(
        _small_params(recipe, x.shape[2], target.shape[1], rng),
        x,
        target,
        loss=mean_last_step_squared_error,
        rate=recipe.rate,
        batch_size=recipe.batch_size,
        steps=recipe.steps,
        rng=rng,
        on_step=on_step,
    )


def _small_params(
    recipe: Recipe, n_inputs: int, n_outputs: int, rng: np.random.Generator
) -> Params:
    H, std = recipe.n_hidden, recipe.init_std
    return Params(
        W=rng.normal(0, std, (H, H)),
        U=rng.normal(0, std, (H, n_inputs)),
        b=np.zeros(H),
        V=rng.normal(0, std, (n_outputs, H)),
        c=np.zeros(n_outputs),
    )


def _measure(model: Model, trained: Trained, train: Windows, test: Windows) -> dict[str, Any]:
    return {
        "windows": {"train": len(train.target), "test": len(test.target)},
        "steps": len(trained.losses),
        "last_25_losses_mean": float(trained.losses[-25:].mean()),
        "unit": model.unit,
        "test": errors(predict(model, test.x), test.target),
        "baselines": {"persistence": errors(persistence(test), test.target)},
    }
