"""Forecasters of the next hour, side by side: python benchmarks/forecast.py [--seeds N] [--readme].

All see the same windows with the same features, learn from the same part of the time, and forecast
the same hours, which none of them has seen; all but the first two forecast the change from the last
hour. What can be chosen is chosen on the windows held out for validation: the penalty of the ridge
regression, the number of trees, the decay of the torch networks' weights, the parameters of the
networks. Ridge regression and gradient boosting are then fitted to training and validation windows
together, the networks are not.

The torch networks have as many hidden units as ours and take as many steps with the same batches,
loss, rates and clipping. Times are of training alone, with two threads for gradient boosting and
one for each network: for sizes like these a second thread slows all of them down.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from sklearn.ensemble import HistGradientBoostingRegressor
from threadpoolctl import threadpool_limits

from manual_bptt import forecasting
from manual_bptt.forecasting import Task, Windows
from manual_bptt.training import shuffled_batches

DECAYS = (0.01, 0.1, 1.0)
README = Path(__file__).resolve().parents[1] / "README.md"


class Score(NamedTuple):
    """A forecaster, its RMSE on the test part for each seed, and the seconds of training."""

    name: str
    rmse: list[float]
    seconds: list[float]


def rmse(change: np.ndarray, windows: Windows) -> float:
    """Return the error of the last known values plus a change."""
    forecast = windows.last + change.reshape(-1, 1)
    return forecasting.errors(forecast, windows.target)["rmse"]


def ours(task: Task, seeds: range) -> list[Score]:
    """Return our network's score, and those of the baselines that come with it."""
    results = []
    for seed in seeds:
        started = time.perf_counter()
        training = forecasting.train_task(task, seed=seed)
        seconds = time.perf_counter() - started
        results.append(forecasting.evaluate(task, training, seed=seed, seconds=seconds).metrics)
    network = Score(
        "this package, RNN",
        [result["test"]["rmse"] for result in results],
        [result["train_seconds"] for result in results],
    )
    baselines = results[0]["baselines"]
    return [
        *(Score(name.replace("_", " "), [s["rmse"]], []) for name, s in baselines.items()),
        network,
    ]


def boosting(task: Task) -> Score:
    """Return the score of scikit-learn's gradient boosting, with as many trees as validation asks.

    Without subsampling it is deterministic: there are no seeds to compare.
    """

    def table(windows: Windows) -> tuple[np.ndarray, np.ndarray]:
        x = windows.x.transpose(1, 0, 2).reshape(len(windows.time), -1)
        return x, (windows.target - windows.last)[:, 0]

    options: dict[str, Any] = {"learning_rate": 0.05, "random_state": 0}
    x_held_out, z_held_out = table(task.validation)
    started = time.perf_counter()
    search = HistGradientBoostingRegressor(
        **options, max_iter=1000, early_stopping=True, n_iter_no_change=30
    ).fit(*table(task.train), X_val=x_held_out, y_val=z_held_out)
    trees = max(1, int(np.argmax(search.validation_score_)))
    best = HistGradientBoostingRegressor(**options, max_iter=trees, early_stopping=False)
    best.fit(*table(task.before))
    seconds = time.perf_counter() - started
    error = rmse(best.predict(table(task.test)[0]), task.test)
    return Score(f"scikit-learn, gradient boosting, {trees} trees", [error], [seconds])


def torch_network(task: Task, kind: str, seeds: range) -> Score:
    """Return the score of a torch RNN, LSTM or GRU, with the decay that validation prefers."""
    trials = {decay: _torch_trained(task, kind, seeds[0], decay) for decay in DECAYS}
    decay = min(DECAYS, key=lambda d: trials[d][0])
    runs = [trials[decay], *(_torch_trained(task, kind, seed, decay) for seed in seeds[1:])]
    _, errors, seconds = zip(*runs, strict=True)
    return Score(f"torch, {kind}, decay {decay:g}", list(errors), list(seconds))


def _torch_trained(task: Task, kind: str, seed: int, decay: float) -> tuple[float, float, float]:
    """Train one torch network; return its errors on validation and test part, and the seconds."""
    import torch

    torch.manual_seed(seed)
    settings = forecasting.task_settings(task, seed)
    sequences = forecasting.task_sequences(task)
    network = getattr(torch.nn, kind)(len(task.model.inputs.names), task.recipe.n_hidden)
    output = torch.nn.Linear(task.recipe.n_hidden, 1)
    torch.nn.init.zeros_(output.weight)
    torch.nn.init.zeros_(output.bias)
    parameters = [*network.parameters(), *output.parameters()]
    groups = [
        {"params": [p for p in parameters if p.ndim == 2], "weight_decay": decay},
        {"params": [p for p in parameters if p.ndim == 1], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups)
    error = _torch_error(task, lambda x: output(network(x)[0][-1]))
    batches = shuffled_batches(len(sequences), settings.batch_size, seed=seed)
    best = (np.inf, np.inf)
    started = time.perf_counter()
    for step in range(1, settings.steps + 1):
        x, target = map(torch.from_numpy, sequences.batch(next(batches)))
        known = ~torch.isnan(target)
        optimizer.zero_grad()
        loss = (output(network(x)[0])[known] - target[known]).square().mean()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, settings.max_norm)
        for group in optimizer.param_groups:
            group["lr"] = settings.schedule(step)
        optimizer.step()
        if step % settings.every == 0 or step == settings.steps:
            held_out = error(task.validation)
            if held_out < best[0]:
                best = (held_out, error(task.test))
    return *best, time.perf_counter() - started


def _torch_error(task: Task, change: Callable[[Any], Any]) -> Callable[[Windows], float]:
    import torch

    x_mean, x_scale, _, scale = task.model.standardizer

    def error(windows: Windows) -> float:
        x = ((windows.x - x_mean) / x_scale).astype(np.float32)
        with torch.no_grad():
            return rmse(change(torch.from_numpy(x)).numpy() * scale, windows)

    return error


def rows(scores: list[Score]) -> list[str]:
    """Return the lines of the table, in Markdown."""
    lines = ["| forecaster | RMSE | worst seed | seconds |", "|---|---:|---:|---:|"]
    for name, errors, seconds in scores:
        took = f"{statistics.median(seconds):.1f}" if seconds else ""
        worst = f"{max(errors):.3f}" if len(errors) > 1 else ""
        lines.append(f"| {name} | {statistics.median(errors):.3f} | {worst} | {took} |")
    return lines


def main() -> None:
    """Run every forecaster and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", help="a published table (the weather of New York)")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--readme", action="store_true", help="write the table into README.md")
    arguments = parser.parse_args()
    layout = forecasting.recognise(arguments.data or forecasting.weather_path())
    if layout is None:
        parser.error(f"{arguments.data} is not a published table")
    task = forecasting.prepare("change", data=arguments.data, layout=layout)
    seeds = range(arguments.seeds)
    with threadpool_limits(limits=1, user_api="blas"):
        scores = ours(task, seeds)
    scores.insert(3, boosting(task))
    try:
        import torch
    except ModuleNotFoundError:
        print("torch is not installed: its networks are left out")
    else:
        torch.set_num_threads(1)
        scores += [torch_network(task, kind, seeds) for kind in ("RNN", "GRU", "LSTM")]
    table = rows(scores)
    print(f"{layout.target} of the next hour, {layout.unit}, {len(task.test.time)} hours")
    print("\n".join(table))
    if arguments.readme:
        sys.path.insert(0, str(README.with_name("docs")))
        from markers import measured, write_part

        how = measured("python benchmarks/forecast.py --readme", "scikit-learn", "torch")
        write_part("forecast", "\n".join(table), README, how)


if __name__ == "__main__":
    main()
