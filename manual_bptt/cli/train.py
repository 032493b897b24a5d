"""``manual-bptt train``: train a forecaster and say how good it is."""

import argparse
from pathlib import Path
from typing import Any

from manual_bptt.cli.shared import (
    UsageError,
    bar,
    output_folder,
    print_table,
    require,
    require_writable,
    seed,
    write_json,
)


def add_to(commands: Any) -> None:
    """Add the command to the parser."""
    train = commands.add_parser("train", help="train a forecaster of the next hour's temperature")
    train.add_argument("--recipe", default="lab9", metavar="NAME", help="how (%(default)s)")
    train.add_argument("--data", metavar="PATH", help="a weather table (New York, 2013)")
    train.add_argument("--out", metavar="DIR", help="where the model goes (runs/RECIPE)")
    train.add_argument("--seed", type=seed, default=0, help="of the randomness (%(default)s)")
    train.add_argument("--json", metavar="PATH", help="write the metrics as JSON; - is stdout")
    train.set_defaults(run=_train)


def _train(arguments: argparse.Namespace) -> int:
    require("forecast", "rich")
    from manual_bptt import forecasting
    from manual_bptt.training import DivergenceError

    if arguments.recipe not in forecasting.RECIPES:
        known = ", ".join(forecasting.RECIPES)
        raise UsageError(f"--recipe is {arguments.recipe!r}; expected one of {known}")
    folder = output_folder(arguments.out or f"runs/{arguments.recipe}")
    outputs = [folder / "model.npz", folder / "metrics.json"]
    for path in outputs:
        require_writable(str(path))
    if arguments.json not in (None, "-") and Path(arguments.json).resolve() in {
        path.resolve() for path in outputs
    }:
        raise UsageError(f"--json is {arguments.json}, which the training writes itself")
    require_writable(arguments.json)
    steps = _StepProgress(forecasting.RECIPES[arguments.recipe].steps)
    try:
        with steps:
            result = forecasting.train_recipe(
                arguments.recipe, data=arguments.data, seed=arguments.seed, on_step=steps.show
            )
    except (forecasting.DataError, DivergenceError) as error:
        raise UsageError(str(error)) from None
    try:
        forecasting.save_model(outputs[0], result.model)
    except OSError as error:
        raise UsageError(f"cannot write {outputs[0]}: {error.strerror}") from None
    write_json(str(outputs[1]), result.metrics)
    write_json(arguments.json, result.metrics)
    if arguments.json != "-":
        _print_training(result.metrics, folder)
    return 0


def _print_training(metrics: dict[str, Any], folder: Path) -> None:
    """Print the errors of the forecast beside those of the baselines."""
    unit = metrics["unit"]
    persistence = metrics["baselines"]["persistence"]
    forecasts = {f"RNN ({metrics['recipe']})": metrics["test"], **metrics["baselines"]}
    rows = [
        (
            name,
            f"{errors['rmse']:.3f}",
            f"{errors['mae']:.3f}",
            f"{1 - errors['rmse'] / persistence['rmse']:+.1%}",
        )
        for name, errors in forecasts.items()
    ]
    better = metrics["test"]["rmse"] < persistence["rmse"]
    verdict = "beats" if better else "does not beat"
    note = (
        f"mean of the last 25 losses: {metrics['last_25_losses_mean']:.4f} "
        f"(squared error of the standardised temperature), {metrics['train_seconds']:.2f} s\n"
        f"The forecast {verdict} persistence, which repeats the last temperature.\n"
        f"Written: {folder / 'model.npz'}, {folder / 'metrics.json'}"
    )
    title = f"temperature of the next hour, {metrics['windows']['test']} windows not trained on"
    print_table(title, ("forecast", f"RMSE [{unit}]", f"MAE [{unit}]", "skill"), rows, note)


class _StepProgress:
    """A progress bar with the running loss, on a terminal; nothing elsewhere."""

    def __init__(self, steps: int) -> None:
        self.bar = bar("loss {task.fields[loss]:.4f}")
        self.task = self.bar.add_task("training", total=steps, loss=float("nan"))

    def __enter__(self) -> None:
        self.bar.start()

    def __exit__(self, *_: object) -> None:
        self.bar.stop()

    def show(self, step: int, loss: float) -> None:
        """Show that a step is done."""
        self.bar.update(self.task, completed=step, loss=loss)
