"""Measure what docs/forecasting.md says: python docs/forecasting.py (some three minutes).

Writes the tables between the markers of that page, and docs/vanishing.png.
"""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
from markers import measured, table, write_part
from threadpoolctl import threadpool_limits

import manual_bptt as mb
from manual_bptt.forecasting import CHANGE, LAB9, Recipe, Task, evaluate, prepare, train_task
from manual_bptt.forecasting.recipes import small_normal
from manual_bptt.params import Params
from manual_bptt.training import SGD, Adam, Constant

PAGE = Path(__file__).resolve().with_name("forecasting.md")
PICTURE = PAGE.with_name("vanishing.png")
LAGS = (0, 1, 3, 6, 12, 23)


def with_settings(recipe: Recipe, **changes: object) -> Recipe:
    """Return the recipe with other settings of training."""
    return recipe._replace(settings=replace(recipe.settings, **changes))


# One thing at a time is taken back from the recipe that forecasts well.
STEPS_BACK = {
    "as it is": CHANGE,
    "puts out the level, not the change": CHANGE._replace(of_change=False),
    "loss at the last hour only": CHANGE._replace(settle=None),
    "reads the columns only": CHANGE._replace(derived=False),
    "no weight decay": with_settings(CHANGE, optimizer=Adam()),
    "no warm-up, no cosine": with_settings(CHANGE, schedule=Constant(3e-3)),
    "weights start from N(0, 0.001^2)": CHANGE._replace(start=small_normal),
    "plain gradient descent, rate 0.01": with_settings(
        CHANGE, optimizer=SGD(), schedule=Constant(0.01)
    ),
    "nothing held out": CHANGE._replace(held_out=0.0),
    "64 hidden units": CHANGE._replace(n_hidden=64),
    "16 hidden units": CHANGE._replace(n_hidden=16),
}


def errors(recipe: Recipe, seed: int) -> tuple[float, float, dict[str, float]]:
    """Return the RMSE on validation (NaN: none) and test part, and those of the baselines."""
    task = prepare(recipe)
    training = train_task(task, seed=seed)
    metrics = evaluate(task, training, seed=seed, seconds=0.0).metrics
    baselines = {name: scores["rmse"] for name, scores in metrics["baselines"].items()}
    return training.best_error, metrics["test"]["rmse"], baselines


def steps_back() -> Iterator[tuple[str, str, str]]:
    """Yield the rows of the table: what is changed, and the errors; the mean of two seeds."""
    for name, recipe in STEPS_BACK.items():
        found = [errors(recipe, seed)[:2] for seed in (0, 1)]
        validation, test = np.mean(found, axis=0)
        yield name, f"{validation:.3f}" if np.isfinite(validation) else "", f"{test:.3f}"


def lab9_goes_on() -> Iterator[tuple[str, str, str]]:
    """Yield the error of the lab's recipe as it goes on, and that of persistence."""
    for steps in (500, 5000, 50_000):
        task = prepare(with_settings(LAB9, steps=steps))
        training = train_task(task, seed=0)
        metrics = evaluate(task, training, seed=0, seconds=0.0).metrics
        loss = metrics["last_25_losses_mean"]
        yield f"lab9, {steps:,} steps", f"{loss:.4f}", f"{metrics['test']['rmse']:.3f}"
    scale = float(task.model.standardizer.target_scale[0])
    persistence = task.train.last - task.train.target
    loss = float(np.mean(persistence**2)) / scale**2
    rmse = metrics["baselines"]["persistence"]["rmse"]
    yield "persistence", f"{loss:.4f}", f"{rmse:.3f}"


def gradient_norms(task: Task, params: Params) -> np.ndarray:
    """Return the norm of the gradient of the last hour's loss in h[T-k], k = 0 .. T-1.

    The root mean square over 512 training windows, as a share of that at k = 0.
    """
    chosen = np.random.default_rng(0).choice(len(task.train.time), 512, replace=False)
    windows = task.train.select(np.sort(chosen))
    x_mean, x_scale, mean, scale = task.model.standardizer
    of = windows.target - (windows.last if task.recipe.of_change else 0)
    params = Params(*(p.astype(float) for p in params))
    trace = mb.forward(params, (windows.x - x_mean) / x_scale)
    _, dy = mb.last_step_squared_error(trace.y, (of - mean) / scale)
    dh = mb.hidden_gradients(params, trace, dy)  # Eqs. 4-5
    norms = np.sqrt((dh**2).sum(axis=2).mean(axis=1))[:0:-1]
    return norms / norms[0]


def vanishing() -> dict[str, np.ndarray]:
    """Return the norms for the networks of both recipes, before and after training."""
    found = {}
    for recipe in (LAB9, CHANGE):
        task = prepare(recipe)
        rng = np.random.default_rng(0)
        start = recipe.start(rng, len(task.model.inputs.names), recipe.n_hidden, 1)
        if not start.V.any():  # then no gradient reaches the states at all
            start = start._replace(V=rng.normal(size=start.V.shape))
        found[f"{recipe.name}, at the start"] = gradient_norms(task, start)
        trained = train_task(task, seed=0).best
        found[f"{recipe.name}, trained"] = gradient_norms(task, trained)
    return found


def draw(norms: dict[str, np.ndarray]) -> None:
    """Draw the norms against the hours back in time."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4.2), layout="constrained", dpi=150)
    axes = figure.add_subplot()
    styles = (("#D55E00", "--", "o"), ("#D55E00", "-", "o"), ("#0072B2", "--", "s"))
    styles += (("#0072B2", "-", "s"),)
    for (name, values), (colour, line, marker) in zip(norms.items(), styles, strict=True):
        axes.semilogy(values, line, color=colour, marker=marker, markersize=4, label=name)
    axes.set_ylim(1e-12, 3)
    axes.set_xlabel("hours before the last one, k")
    axes.set_ylabel("gradient in h[T-k], share of that in h[T]")
    axes.set_title("How far back the loss of the last hour reaches")
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    figure.savefig(PICTURE)


def main() -> None:
    """Measure everything and write it into the page."""
    how = measured("python docs/forecasting.py")
    header = ("recipe change, but", "RMSE, validation [degF]", "RMSE, test [degF]")
    rows = list(steps_back())
    _, _, baselines = errors(with_settings(CHANGE, steps=1), 0)
    rows += [(name.replace("_", " "), "", f"{rmse:.3f}") for name, rmse in baselines.items()]
    write_part("steps back", "\n".join([*table(header, rows), ""]), PAGE, how)
    header = ("forecast", "mean loss, standardised", "RMSE, test [degF]")
    write_part("lab9", "\n".join([*table(header, lab9_goes_on()), ""]), PAGE, how)
    norms = vanishing()
    draw(norms)
    header = ("network", *(f"k = {k}" for k in LAGS))
    rows = [(name, *(f"{values[k]:.1g}" for k in LAGS)) for name, values in norms.items()]
    write_part("vanishing", "\n".join([*table(header, rows), ""]), PAGE, how)


if __name__ == "__main__":
    with threadpool_limits(limits=1, user_api="blas"):
        main()
