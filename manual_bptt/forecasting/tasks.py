"""From a file to a trained and measured forecaster: prepare, train, evaluate.

The last fifth of the time is the test part. Neither training nor the choice of features, scales or
parameters sees any of it.
"""

import hashlib
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from manual_bptt.arrays import Array
from manual_bptt.forecasting import weather
from manual_bptt.forecasting.baselines import errors
from manual_bptt.forecasting.columns import DataError
from manual_bptt.forecasting.evaluation import measure
from manual_bptt.forecasting.features import Inputs, learn_inputs
from manual_bptt.forecasting.model import Model, predict, windows_of
from manual_bptt.forecasting.recipes import RECIPES, Recipe
from manual_bptt.forecasting.sources import NEW_YORK, Layout, read_source, with_clock
from manual_bptt.forecasting.table import Table
from manual_bptt.forecasting.windows import (
    MAX_FILL,
    Standardizer,
    Windows,
    changes_ahead,
    fill_forward,
    fit_standardizer,
    last_part,
    split_at,
)
from manual_bptt.params import Params
from manual_bptt.training import (
    Sequences,
    Settings,
    Step,
    Training,
    mean_last_step_squared_error,
    mean_squared_error,
    train,
)

TEST_PART = 0.2
OFF = 1e30  # a scale that turns a feature off
VALIDATED = 5000  # windows, at most, that the validation error is taken over


class Task(NamedTuple):
    """A recipe and a table, ready to train: all that follows from the two alone.

    ``path`` and ``sha256`` are of the file; ``model`` is the forecaster, untrained. Windows are in
    the units of the table: those before the test part, and of these the ones to train on and to
    validate by (None: nothing is held out). ``known`` (R,) is the target as known at each hour,
    ``changes`` (R,) by how much it changes after it.
    """

    recipe: Recipe
    path: Path
    sha256: str
    model: Model
    before: Windows
    train: Windows
    validation: Windows | None
    test: Windows
    known: Array
    changes: Array


class TrainingResult(NamedTuple):
    """A trained model, the training that led to it, and how well it does on the test part.

    ``forecasts`` are the model's and the baselines' for each window of ``test``, by name; what
    JSON can hold of it all is in ``metrics``.
    """

    model: Model
    training: Training
    test: Windows
    forecasts: dict[str, Array]
    metrics: dict[str, Any]


def train_recipe(
    recipe: str | Recipe = "change",
    *,
    data: str | Path | None = None,
    layout: Layout = NEW_YORK,
    seed: int = 0,
    on_step: Callable[[Step], object] | None = None,
) -> TrainingResult:
    """Train a forecaster on the first 80 percent of the time and measure it on the rest.

    Parameters
    ----------
    recipe : str or Recipe
        A key of ``RECIPES``, or a recipe of your own: ``CHANGE._replace(n_hidden=64)``, say.
    data : path, optional
        A table; the weather of New York that comes with the package if None.
    layout : Layout
        What the columns of the table hold; ``recognise`` or ``describe`` returns it.
    seed : int
        Where the first weights and the shuffling come from. Same seed, same result.
    on_step : callable, optional
        Called with every ``Step``.

    Returns
    -------
    TrainingResult
        Its metrics hold the errors of the forecast and of the baselines on the test windows, in the
        unit of the table: over all, for each group, and for each hour of the day.

    Raises
    ------
    DataError
        If the table is bad or too small.
    DivergenceError
        If training leaves the finite numbers.
    ValueError
        If there is no recipe of this name.
    """
    task = prepare(recipe, data=data, layout=layout)
    started = time.perf_counter()
    training = train_task(task, seed=seed, on_step=on_step)
    return evaluate(task, training, seed=seed, seconds=time.perf_counter() - started)


def prepare(
    recipe: str | Recipe = "change",
    *,
    data: str | Path | None = None,
    layout: Layout = NEW_YORK,
) -> Task:
    """Read a table and make of it what a recipe needs to train; see ``train_recipe``.

    What is learnt from the data here, features and their scales, comes from the hours to train on.
    """
    if isinstance(recipe, str):
        if recipe not in RECIPES:
            raise ValueError(f"no recipe {recipe!r}; expected one of {', '.join(RECIPES)}")
        recipe = RECIPES[recipe]
    path = weather.weather_path() if data is None else Path(data)
    sha256 = fingerprint(path)
    table = read_source(path, layout)
    try:
        return _prepared(recipe, path, sha256, with_clock(layout, table), table)
    except DataError as error:
        raise DataError(f"{path}: {error}") from None


def fingerprint(path: Path) -> str:
    """Return the SHA-256 of a file, in hexadecimal digits.

    Raises
    ------
    DataError
        If it cannot be read, or is a pipe or the like, which cannot be read twice.
    """
    try:
        if path.exists() and not path.is_file():
            raise DataError(f"{path}: expected a file on a disk, which can be read more than once")
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from None


def _prepared(recipe: Recipe, path: Path, sha256: str, layout: Layout, table: Table) -> Task:
    test_from = last_part(table.time.min(), table.time.max(), TEST_PART)
    train_until = test_from
    if recipe.held_out:
        train_until = last_part(table.time.min(), test_from, recipe.held_out)
    inputs = learn_inputs(_rows_before(table, train_until), layout.target, derived=recipe.derived)
    model = _untrained(recipe, layout, inputs)
    before, test = split_at(windows_of(model, table), test_from, ("training", "test"))
    training, validation = before, None
    if recipe.held_out:
        training, validation = split_at(before, train_until, ("training", "validation"))
    known = fill_forward(table, MAX_FILL).column(layout.target)
    return Task(
        recipe,
        path,
        sha256,
        model._replace(standardizer=_standardizer(recipe, training)),
        before,
        training,
        validation,
        test,
        known,
        changes_ahead(table, known, table.column(layout.target)),
    )


def _rows_before(table: Table, instant: Any) -> Table:
    early = table.time < instant
    return table._replace(
        group=table.group[early], time=table.time[early], values=table.values[early]
    )


def _untrained(recipe: Recipe, layout: Layout, inputs: Inputs) -> Model:
    """Return the model with nothing learnt: no scales, parameters of zero."""
    D, H = len(inputs.names), recipe.n_hidden
    shapes = ((H, H), (H, D), (H,), (1, H), (1,))
    params = Params(*(np.zeros(shape, recipe.dtype) for shape in shapes))
    scales = Standardizer(np.zeros(D), np.ones(D), np.zeros(1), np.ones(1))
    if layout.kind == "columns":  # a column that is of no use need not be there to forecast
        layout = layout._replace(columns=(*inputs.numbers, *inputs.levels))
    return Model(params, scales, layout, inputs, recipe.length, recipe.of_change, recipe.name)


def _standardizer(recipe: Recipe, training: Windows) -> Standardizer:
    """Return the scales of a recipe; a feature that never varies in training gets ``OFF``.

    Nothing can be learnt about such a feature, and the weights that read it stay random.
    """
    if recipe.of_change:
        change = training.target - training.last
        standardizer = fit_standardizer(training._replace(target=change))
        standardizer = standardizer._replace(target_mean=np.zeros(1))
    else:
        standardizer = fit_standardizer(training)
    covered = training.hours[np.unique(training.rows)]
    varies = covered.min(axis=0) < covered.max(axis=0)
    return standardizer._replace(x_scale=np.where(varies, standardizer.x_scale, OFF))


# Training ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Hours:
    """Windows as sequences to train on: standardised hours, and the rows that each is made of.

    ``target`` (R,) belongs to the hours; the first ``settle`` hours of a window have none. Without
    settle, ``target`` (N, 1) belongs to the windows.
    """

    hours: Array
    rows: Array
    target: Array
    settle: int | None

    def __len__(self) -> int:
        return int(self.rows.shape[1])

    def batch(self, chosen: Array) -> tuple[Array, Array]:
        """Return x (T, B, D), and the target: (T, B, 1) with NaN where none counts, or (B, 1)."""
        rows = self.rows[:, chosen]
        if self.settle is None:
            return self.hours[rows], self.target[chosen]
        target = self.target[rows][:, :, None]
        target[: self.settle] = np.nan
        return self.hours[rows], target


def train_task(
    task: Task,
    *,
    seed: int,
    start: Training | None = None,
    keep: Callable[[Training], object] | None = None,
    on_step: Callable[[Step], object] | None = None,
    stop: Callable[[], bool] = lambda: False,
) -> Training:
    """Train as the recipe says, from its beginning or from where an earlier training stands.

    ``keep``, ``on_step`` and ``stop`` are those of ``manual_bptt.training.train``.
    """
    recipe = task.recipe
    return train(
        start or _first_params(task, seed),
        task_sequences(task),
        task_settings(task, seed),
        loss=mean_last_step_squared_error if recipe.settle is None else mean_squared_error,
        validate=_validation(task),
        keep=keep,
        on_step=on_step,
        stop=stop,
    )


def task_settings(task: Task, seed: int) -> Settings:
    """Return the settings of the recipe, with batches that a small table can fill."""
    settings = task.recipe.settings
    batch_size = min(settings.batch_size, len(task.train.time))
    return replace(settings, seed=seed, batch_size=batch_size)


def _first_params(task: Task, seed: int) -> Params:
    recipe = task.recipe
    D = len(task.model.inputs.names)
    params = recipe.start(np.random.default_rng(seed), D, recipe.n_hidden, 1)
    return Params(*(p.astype(recipe.dtype) for p in params))


def task_sequences(task: Task) -> Sequences:
    """Return the windows to train on, standardised, with the targets that the recipe counts."""
    recipe, windows = task.recipe, task.train
    x_mean, x_scale, mean, scale = task.model.standardizer
    if recipe.settle is None:
        target = windows.target - (windows.last if recipe.of_change else 0)
    else:
        target = task.changes + (0 if recipe.of_change else task.known)
    return _Hours(
        ((windows.hours - x_mean) / x_scale).astype(recipe.dtype),
        windows.rows,
        ((target - mean) / scale).astype(recipe.dtype),
        recipe.settle,
    )


def _validation(task: Task) -> Callable[[Params], float] | None:
    """Return the error on the windows held out, in the unit of the table, as training asks it."""
    if task.validation is None:
        return None
    apart = -(-len(task.validation.time) // VALIDATED)
    windows = task.validation.select(slice(None, None, apart))

    def error(params: Params) -> float:
        return errors(predict(task.model._replace(params=params), windows), windows.target)["rmse"]

    return error


# Measuring -----------------------------------------------------------------------------------


def evaluate(task: Task, training: Training, *, seed: int, seconds: float) -> TrainingResult:
    """Measure the parameters that training found best on the test part, beside the baselines."""
    model = task.model._replace(params=training.best)
    forecasts, measured = measure(model, task.before, task.test, task.known)
    parts = {"train": task.train, "validation": task.validation, "test": task.test}
    metrics = {
        "recipe": model.recipe,
        "seed": seed,
        "data": {
            "file": task.path.name,
            "sha256": task.sha256,
        },
        "target": model.layout.target,
        "unit": model.layout.unit,
        "windows": {name: len(part.time) for name, part in parts.items() if part is not None},
        "features": list(model.inputs.names),
        "hidden_units": len(model.params.W),
        "steps": len(training.steps),
        "last_25_losses_mean": float(np.mean(training.losses[-25:])),
        **measured,
        "train_seconds": seconds,
    }
    return TrainingResult(model, training, task.test, forecasts, metrics)
