"""``manual-bptt train``: train a forecaster and say how good it is."""

import argparse
import csv
import json
import os
import shutil
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

from manual_bptt.cli.runs import CHECKPOINT, OUTPUTS, beginning
from manual_bptt.cli.shared import (
    StoppedError,
    UsageError,
    bar,
    output_folder,
    print_table,
    require,
    require_apart,
    require_regular,
    require_writable,
    seed,
    write_json,
    write_text,
)

if TYPE_CHECKING:
    from manual_bptt.forecasting import Task, TrainingResult
    from manual_bptt.training import Step, Training

SPACE = 2**24  # bytes that the outputs and two checkpoints take, with room to spare


def add_to(commands: Any) -> None:
    """Add the command to the parser."""
    train = commands.add_parser("train", help="train a forecaster of the next hour")
    train.add_argument(
        "--data", metavar="FILE",
        help="an hourly table in CSV (the weather of New York that comes with the package)",
    )  # fmt: skip
    train.add_argument("--recipe", metavar="NAME", help="how: change, lab9 (change)")
    train.add_argument("--out", metavar="DIR", help="where everything goes (runs/RECIPE)")
    train.add_argument("--seed", type=seed, help="of the randomness (0)")
    train.add_argument(
        "--resume", action="store_true", help="go on with a training that was interrupted in DIR"
    )
    train.add_argument("--json", metavar="PATH", help="write the metrics as JSON; - is stdout")
    columns = train.add_argument_group("the columns of FILE, if it is not a published table")
    columns.add_argument(
        "--time", metavar="COLUMNS", type=_names,
        help="of the hour in ISO 8601, or of year,month,day,hour",
    )  # fmt: skip
    columns.add_argument("--target", metavar="COLUMN", help="to forecast")
    columns.add_argument(
        "--features", metavar="COLUMNS", type=_names, help="to forecast it from (all others)"
    )
    columns.add_argument("--group", metavar="COLUMN", help="that tells stations apart")
    columns.add_argument(
        "--timezone", metavar="NAME", help="of times without an offset, e.g. Europe/Rome (UTC)"
    )
    columns.add_argument("--unit", metavar="UNIT", help="of the target, for tables and pictures")
    train.set_defaults(run=_train)


def _names(text: str) -> list[str]:
    """Return the names in a list with commas; one with a comma in it stands in quotes."""
    try:
        return [name.strip() for name in next(csv.reader([text], skipinitialspace=True))]
    except csv.Error as error:
        raise argparse.ArgumentTypeError(f"{text!r}: expected names in one line: {error}") from None


def _train(arguments: argparse.Namespace) -> int:
    require("forecast", "rich", "matplotlib", "threadpoolctl")
    from manual_bptt import forecasting

    recipe = arguments.recipe or "change"
    if recipe not in forecasting.RECIPES:
        known = ", ".join(forecasting.RECIPES)
        raise UsageError(f"--recipe is {recipe!r}; expected one of {known}")
    if arguments.data:
        require_regular(arguments.data)
    folder = output_folder(arguments.out or f"runs/{recipe}")
    _require_outputs(folder, arguments)
    with _locked(folder):
        result = _result(folder, arguments)
        _write(result, folder)
        for path in (folder / CHECKPOINT, *folder.glob(f"{CHECKPOINT}.*.partial")):
            path.unlink()  # the second kind is left where a process was killed while it wrote
    write_json(arguments.json, result.metrics)
    if arguments.json != "-":
        _print_result(result, folder)
    return 0


def _result(folder: Path, arguments: argparse.Namespace) -> "TrainingResult":
    """Train, from the beginning or from a checkpoint, and measure what comes of it."""
    from threadpoolctl import threadpool_limits

    from manual_bptt import forecasting
    from manual_bptt.training import DivergenceError

    try:
        start, run = beginning(folder, arguments)
        # One thread: the products of a small network are too short to share, and threads that wait
        # for each other beside another busy process can take ten times as long.
        with threadpool_limits(limits=1, user_api="blas"):
            task = forecasting.prepare(
                run["recipe"], data=run["data"], layout=forecasting.as_layout(run["layout"])
            )
            training, seconds = _trained(task, run, folder, start)
            return forecasting.evaluate(task, training, seed=run["seed"], seconds=seconds)
    except DivergenceError as error:
        raise UsageError(f"{error}; the last checkpoint stays") from None
    except ValueError as error:
        raise UsageError(str(error)) from None


# Before -----------------------------------------------------------------------------------------


def _require_outputs(folder: Path, arguments: argparse.Namespace) -> None:
    """Refuse, before an hour of training, what could not be written after it."""
    outputs = [folder / name for name in (*OUTPUTS, CHECKPOINT)]
    for path in outputs:
        if arguments.data:
            require_apart("--data", arguments.data, path)
        require_writable(str(path))
    require_apart("--json", arguments.json, *outputs, *filter(None, [arguments.data]))
    require_writable(arguments.json)
    free = shutil.disk_usage(folder).free
    if free < SPACE:
        raise UsageError(
            f"{folder} has {free / 1e6:.1f} MB of space; expected {SPACE / 1e6:.0f} MB at least"
        )


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Keep a second training out of the folder; the system lifts the lock of a killed process."""
    try:
        import fcntl
    except ModuleNotFoundError:  # Windows
        yield
        return
    held = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError:
        raise UsageError(f"another training is at work in {folder}") from None
    finally:
        os.close(held)


# During -----------------------------------------------------------------------------------------


def _trained(
    task: "Task", run: dict[str, Any], folder: Path, start: "Training | None"
) -> "tuple[Training, float]":
    """Train to the end, with a checkpoint now and then; return the seconds that it took, too."""
    from manual_bptt.forecasting import train_task
    from manual_bptt.training import save_training

    path = folder / CHECKPOINT
    started = time.perf_counter() - run["seconds"]

    def keep(training: "Training") -> None:
        seconds = time.perf_counter() - started
        try:
            save_training(path, training, json.dumps({**run, "seconds": seconds}))
        except OSError as error:
            raise UsageError(
                f"cannot write {path}: {error.strerror}; stopped after step {len(training.steps)}, "
                "the checkpoint before this one is whole"
            ) from None

    total = task.recipe.settings.steps
    with _signals() as caught, _StepProgress(total) as progress:
        training = train_task(
            task,
            seed=run["seed"],
            start=start,
            keep=keep,
            on_step=progress.show,
            stop=lambda: bool(caught),
        )
    if not training.finished:
        raise StoppedError(
            f"interrupted after step {len(training.steps)} of {total}, which {path} holds: "
            "--resume goes on",
            caught[0],
        )
    return training, time.perf_counter() - started


@contextmanager
def _signals() -> Iterator[list[int]]:
    """Collect Ctrl-C and SIGTERM, for training to end after its step; a second one ends at once."""
    caught: list[int] = []

    def note(number: int, _: FrameType | None) -> None:
        if caught:
            os._exit(128 + number)
        caught.append(number)

    if threading.current_thread() is not threading.main_thread():
        yield caught  # only the main thread may handle signals
        return
    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield caught
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class _StepProgress:
    """A progress bar with the running loss and the validation error, on a terminal alone."""

    def __init__(self, steps: int) -> None:
        self.bar = bar("loss {task.fields[loss]:.4f}", "validation {task.fields[validation]:.4f}")
        nan = float("nan")
        self.task = self.bar.add_task("training", total=steps, loss=nan, validation=nan)

    def __enter__(self) -> "_StepProgress":
        self.bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.stop()

    def show(self, step: Any) -> None:
        """Show that a step is done."""
        self.bar.update(self.task, completed=step.number, loss=step.loss)
        if step.validation is not None:
            self.bar.update(self.task, validation=step.validation)


# After ------------------------------------------------------------------------------------------


def _write(result: "TrainingResult", folder: Path) -> None:
    from manual_bptt.forecasting import save_model
    from manual_bptt.forecasting.pictures import draw_forecast
    from manual_bptt.forecasting.report import report_page

    model, history, metrics, picture, report = (folder / name for name in OUTPUTS)
    try:
        save_model(model, result.model)
        draw_forecast(result, picture)
    except OSError as error:
        raise UsageError(f"cannot write {error.filename or folder}: {error.strerror}") from None
    write_text(str(history), "".join(f"{_line(step)}\n" for step in result.training.steps))
    write_text(str(report), report_page(result, picture.read_bytes()))
    write_json(str(metrics), result.metrics)


def _line(step: "Step") -> str:
    """Return a step as a line of the history."""
    number, *values = step
    names = step._fields[1:]
    known = {k: v for k, v in zip(names, values, strict=True) if v is not None}
    return json.dumps({"step": number, **known})


def _print_result(result: "TrainingResult", folder: Path) -> None:
    """Print the errors of the forecast beside those of the baselines."""
    from manual_bptt.forecasting.evaluation import NAMES

    metrics = result.metrics
    unit = f" [{metrics['unit']}]" if metrics["unit"] else ""
    by_hour = {f"{part['hour']:02d}": part for part in metrics["by_hour"]["hours"]}
    _print_parts(f"RMSE{unit} by hour, {metrics['by_hour']['clock']}", "hour", by_hour)
    if len(metrics["by_group"]) > 1:
        group = result.model.layout.group
        _print_parts(f"RMSE{unit} by {group}", str(group), metrics["by_group"])
    scores = {"rnn": metrics["test"], **metrics["baselines"]}
    rows = [
        (NAMES[name], _number(s["rmse"]), _number(s["mae"]), f"{s['skill']:+.1%}")
        for name, s in scores.items()
    ]
    better = metrics["test"]["rmse"] < scores["persistence"]["rmse"]
    verdict = "beats" if better else "does not beat"
    note = (
        "skill: the share of the RMSE of persistence that is saved\n"
        f"The RNN ({metrics['recipe']}) {verdict} persistence, which repeats the last "
        f"{metrics['target']}.\n"
        f"{metrics['steps']} steps in {metrics['train_seconds']:.1f} s; mean of the last 25 losses "
        f"{metrics['last_25_losses_mean']:.4f}\n"
        f"Written to {folder}: {', '.join(OUTPUTS)}"
    )
    count = metrics["windows"]["test"]
    title = f"{metrics['target']} of the next hour, {count} hours not trained on"
    print_table(title, ("forecast", f"RMSE{unit}", f"MAE{unit}", "skill"), rows, note)


def _print_parts(title: str, of: str, parts: dict[str, dict[str, Any]]) -> None:
    """Print the RMSE of every forecast for the first 24 parts of the test windows."""
    from manual_bptt.forecasting.evaluation import NAMES

    shown = list(parts.items())[:24]
    rows = [(name, *(_number(part["rmse"][k]) for k in NAMES)) for name, part in shown]
    left = len(parts) - len(shown)
    note = f"and {left} more, in metrics.json\n" if left else ""
    print_table(title, (of, *NAMES.values()), rows, note)


def _number(error: float) -> str:
    """Return an error with three decimals, or with four digits where these would say nothing."""
    return f"{error:.3f}" if error == 0 or 0.1 <= error < 1e5 else f"{error:.4g}"
