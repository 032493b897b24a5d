"""The command ``manual-bptt``: the one place where the hand-written gradients meet autodiff.

Exit codes: 0, done and true; 1, a gradient does not match; 2, wrong usage or bad input, with one
line on stderr that says so; 130, interrupted. Tables go to stdout, progress to stderr, and that
only on a terminal.
"""

import argparse
import json
import os
import platform
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple, NoReturn, TypeVar

import numpy as np

import manual_bptt as mb
from manual_bptt.candidate import candidate

Item = TypeVar("Item")
UNPADDED = "autodiff without padding"
LOSSES = {f.__name__: f for f in (mb.squared_error, mb.last_step_squared_error)}


class Group(NamedTuple):
    """Problems with one loss, and how many they are."""

    loss: str
    size: int
    problems: Iterable[Any]


class UsageError(Exception):
    """What the user can mend; its text is the one line that they see."""


def main(argv: list[str] | None = None) -> int:
    """Run one command and return its exit code."""
    arguments = _parser().parse_args(argv)
    try:
        with _interrupts_end_at_once():
            code: int = arguments.run(arguments)
            sys.stdout.flush()
    except UsageError as error:
        return _refuse(str(error))
    except OSError as error:
        # Nobody takes our output any more: its reader has left (then there is nothing to say), or
        # the disk is full. Without this, Python would try to write the rest once more on leaving.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if isinstance(error, BrokenPipeError):
            return 2
        return _refuse(f"cannot write the output: {error.strerror}")
    return code


def _refuse(message: str) -> int:
    print(f"manual-bptt: {message}", file=sys.stderr)
    return 2


@contextmanager
def _interrupts_end_at_once() -> Iterator[None]:
    """Let Ctrl-C end the process without Python's farewell.

    JAX swallows KeyboardInterrupt where it arrives in one of its callbacks, and its threads crash
    if the interpreter is taken down while they compile.
    """

    def stop(*_: object) -> None:
        show_cursor = "\x1b[?25h" if sys.stderr.isatty() else ""
        os.write(2, f"{show_cursor}manual-bptt: interrupted\n".encode())
        os._exit(130)

    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread may handle signals
        return
    before = signal.signal(signal.SIGINT, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


class _Parser(argparse.ArgumentParser):
    """An argument parser whose errors are one line, not a page of usage."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message} (--help shows the usage)\n")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="manual-bptt", description=__doc__.partition("\n")[0])
    parser.add_argument("--version", action="version", version=f"%(prog)s {mb.__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    check = commands.add_parser("verify", help="prove the manual gradients equal to jax.grad")
    check.add_argument(
        "--cases", type=_positive, default=1000, help="random problems (%(default)s)"
    )
    check.add_argument("--seed", type=_seed, default=0, help="which problems (%(default)s)")
    check.add_argument("--dtype", choices=["float64", "float32"], default="float64")
    check.add_argument("--json", metavar="PATH", help="write the report as JSON; - is stdout")
    check.add_argument("--html", metavar="PATH", help="write the report as a web page")
    check.set_defaults(run=_verify)

    train = commands.add_parser("train", help="train a forecaster of the next hour's temperature")
    train.add_argument("--recipe", default="lab9", metavar="NAME", help="how (%(default)s)")
    train.add_argument("--data", metavar="PATH", help="a weather table (New York, 2013)")
    train.add_argument("--out", metavar="DIR", help="where the model goes (runs/RECIPE)")
    train.add_argument("--seed", type=_seed, default=0, help="of the randomness (%(default)s)")
    train.add_argument("--json", metavar="PATH", help="write the metrics as JSON; - is stdout")
    train.set_defaults(run=_train)
    return parser


def _positive(text: str) -> int:
    return _integer(text, 1)


def _seed(text: str) -> int:
    return _integer(text, 0)


def _integer(text: str, lowest: int) -> int:
    if not text.isdecimal() or len(text) > 18 or int(text) < lowest:
        shown = text if len(text) <= 30 else f"{text[:30]}..."
        message = f"{shown!r}; expected an integer of at least {lowest} and at most 18 digits"
        raise argparse.ArgumentTypeError(message)
    return int(text)


# verify ------------------------------------------------------------------------------------------


def _verify(arguments: argparse.Namespace) -> int:
    _require("verify", "jax", "rich", "latex2mathml")
    from reference import Report

    _require_writable(arguments.json)
    _require_writable(arguments.html)
    quiet = arguments.json == "-"
    started = time.perf_counter()
    reports = {}
    draws = arguments.seed, arguments.dtype
    for title, groups, judged in (
        ("random problems", _random_groups(arguments.cases, *draws), _by_hand),
        ("windows of real weather", _weather_groups(*draws), _by_hand),
        (UNPADDED, _random_groups(min(8, 1 + arguments.cases // 100), *draws), _by_autodiff),
    ):
        began = time.perf_counter()
        report = Report.of(_judged(groups, title, judged))
        reports[title] = {"seconds": time.perf_counter() - began, **report.as_dict()}
        _print_report(report, title, time.perf_counter() - began, quiet=quiet)
    rows = equation_rows(arguments.cases, arguments.seed)
    _print_equations(rows, quiet=quiet)
    passed = all(report["passed"] for report in reports.values()) and not any(
        row.status == "fails" for row in rows
    )
    result = {
        "passed": passed,
        "cases": arguments.cases,
        "seed": arguments.seed,
        "dtype": arguments.dtype,
        "seconds": time.perf_counter() - started,
        "versions": _versions("jax", "numpy"),
        "reports": reports,
        "equations": [row.as_dict() for row in rows],
    }
    _write_json(arguments.json, result)
    if arguments.html is not None:
        from manual_bptt.page import page

        _write_text(arguments.html, page(result))
    return 0 if passed else 1


def _random_groups(cases: int, seed: int, dtype: str) -> list[Group]:
    """Share the cases among both losses, batches and single sequences."""
    from reference import draw_problems

    kinds = [(loss, batched) for loss in LOSSES for batched in (True, False)]
    shares = [len(range(i, cases, len(kinds))) for i in range(len(kinds))]
    return [
        Group(loss, n, draw_problems(n, seed, dtype=dtype, batched=batched, loss=loss))
        for (loss, batched), n in zip(kinds, shares, strict=True)
    ]


def _weather_groups(seed: int, dtype: str) -> list[Group]:
    """Return networks of 10 units on batches of 8 standardised windows.

    The target is the temperature of the next hour, after the last step or after every step.
    """
    from manual_bptt import forecasting
    from reference import Problem

    windows = forecasting.make_windows(
        forecasting.load_weather(), features=forecasting.FEATURES, target=forecasting.TARGET
    )
    windows = forecasting.standardize(forecasting.fit_standardizer(windows), windows)
    temperature = forecasting.FEATURES.index(forecasting.TARGET)
    rng = np.random.default_rng([seed, 24])
    groups: dict[str, list[Any]] = {loss: [] for loss in LOSSES}
    for number in range(48):
        chosen = np.sort(rng.choice(len(windows.time), 8, replace=False))
        batch = windows.select(chosen)
        x, next_hour = batch.x, batch.target
        params = mb.init_params(x.shape[-1], 10, 1, rng=rng, dtype=dtype)
        h0 = 0.5 * rng.standard_normal((8, 10))
        every_hour = np.concatenate([x[1:, :, [temperature]], next_hour[None]])
        origin = f"weather problem {number} of seed {seed}, windows {chosen.tolist()}"
        for loss, target in zip(LOSSES, (every_hour, next_hour), strict=True):
            x, h0, target = (array.astype(dtype) for array in (x, h0, target))
            groups[loss].append(Problem(params, x, h0, target, loss, origin))
    return [Group(loss, len(problems), problems) for loss, problems in groups.items()]


def _by_hand(loss: str) -> Any:
    """Return the manual gradients of a loss as a candidate."""
    return candidate(LOSSES[loss])


def _by_autodiff(loss: str) -> Any:
    """Return autodiff at the exact shape of each problem as a candidate.

    The answers that candidates are judged by are computed for padded problems; this judges those.
    """
    from reference import gradients

    return lambda params, x, h0, target: gradients(params, x, target, h0=h0, loss=loss)


def _judged(groups: list[Group], title: str, judged: Callable[[str], Any]) -> Iterator[Any]:
    """Yield the verdicts on a candidate for every problem of every group."""
    from reference import judge

    def results() -> Iterator[Any]:
        for loss, _, problems in groups:
            yield from judge(judged(loss), problems)

    return _progress(results(), title, sum(group.size for group in groups))


def equation_rows(cases: int, seed: int) -> list[Any]:
    """Return the verdict on each equation of the lab, over up to 300 problems of each exercise.

    Those of Exercise 2 have one output. All are in float64: the equations are about real numbers,
    and float64 shows the least of anything else.
    """
    from manual_bptt.equations import EQUATIONS, derivation
    from reference import draw_problems, judge_equations

    cases = min(cases, 300)
    options: dict[str, Any] = {"dtype": "float64", "batched": False}
    problems = [
        *draw_problems(cases, seed, **options),
        *draw_problems(cases, seed, **options, loss="last_step_squared_error", n_outputs=1),
    ]
    definitions = {e.number for e in EQUATIONS.values() if e.kind == "definition"}
    return judge_equations(derivation, _progress(problems, "equations", len(problems)), definitions)


def _print_equations(rows: list[Any], *, quiet: bool) -> None:
    if quiet:
        return
    from rich.text import Text

    from manual_bptt.equations import EQUATIONS

    words = {"erratum": "erratum (corrected form holds)", "fails": "FAILS"}
    styles = {"erratum": "yellow", "fails": "bold red"}
    cells = [
        (
            str(row.number),
            EQUATIONS[row.number].quantity,
            Text(words.get(row.status, row.status), style=styles.get(row.status, "green")),
            f"{row.worst_ratio:.3g}",
            str(row.cases),
        )
        for row in rows
    ]
    count = {s: sum(row.status == s for row in rows) for s in ("erratum", "fails")}
    sound = len(rows) - count["fails"]
    note = (
        f"equations: {sound} of {len(rows)} hold or define, {count['erratum']} of them only as"
        f" corrected; {count['fails']} fail\n"
    )
    header = ("eq.", "quantity", "verdict", "error/tol.", "cases")
    _print_table("the equations of Lab 9 against jax.grad and jax.jacobian", header, cells, note)


def _print_report(report: Any, title: str, seconds: float, *, quiet: bool) -> None:
    if quiet:
        return
    from rich.text import Text

    from reference.report import HEADER, cells

    def coloured(status: str) -> Text:
        good, unsure = status == "match", status in ("not returned", "nothing proved")
        return Text(status, style="green" if good else "yellow" if unsure else "bold red")

    rows = [(row.gradient, coloured(row.status), *cells(row)[2:]) for row in report.rows]
    verdict = "passed" if report.passed else "FAILED"
    closing = f"{title}: {verdict} in {seconds:.1f} s\n"
    note = "\n".join([*report.remarks(), *_to_reproduce(report, title), closing])
    headline = f"manual gradients against jax.grad: {title}"
    if title == UNPADDED:
        headline = "jax.grad at the exact shape against jax.grad with padding"
    _print_table(headline, HEADER, rows, note)


def _to_reproduce(report: Any, title: str) -> list[str]:
    """Return the command that repeats the worst problem alone, if it can be made from its line."""
    wrong = [row.worst_problem for row in report.rows if row.failures]
    found = [line for line in wrong if line.startswith("reference.")]
    if not found or title == UNPADDED:
        return []
    import reference

    loss = eval(found[0], {"reference": reference}).loss
    judged = f"reference.judge(candidate(mb.{loss}), [{found[0]}])"
    code = "; ".join([
        "import reference, manual_bptt as mb",
        "from manual_bptt.candidate import candidate",
        f"print(reference.Report.of({judged}))",
    ])  # fmt: skip
    return [f'to reproduce: python -c "{code}"']


# train -------------------------------------------------------------------------------------------


def _train(arguments: argparse.Namespace) -> int:
    _require("forecast", "rich")
    from manual_bptt import forecasting
    from manual_bptt.training import DivergenceError

    if arguments.recipe not in forecasting.RECIPES:
        known = ", ".join(forecasting.RECIPES)
        raise UsageError(f"--recipe is {arguments.recipe!r}; expected one of {known}")
    folder = _output_folder(arguments.out or f"runs/{arguments.recipe}")
    outputs = [folder / "model.npz", folder / "metrics.json"]
    for path in outputs:
        _require_writable(str(path))
    if arguments.json not in (None, "-") and Path(arguments.json).resolve() in {
        path.resolve() for path in outputs
    }:
        raise UsageError(f"--json is {arguments.json}, which the training writes itself")
    _require_writable(arguments.json)
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
    _write_json(str(outputs[1]), result.metrics)
    _write_json(arguments.json, result.metrics)
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
    _print_table(title, ("forecast", f"RMSE [{unit}]", f"MAE [{unit}]", "skill"), rows, note)


class _StepProgress:
    """A progress bar with the running loss, on a terminal; nothing elsewhere."""

    def __init__(self, steps: int) -> None:
        self.bar = _bar("loss {task.fields[loss]:.4f}")
        self.task = self.bar.add_task("training", total=steps, loss=float("nan"))

    def __enter__(self) -> None:
        self.bar.start()

    def __exit__(self, *_: object) -> None:
        self.bar.stop()

    def show(self, step: int, loss: float) -> None:
        """Show that a step is done."""
        self.bar.update(self.task, completed=step, loss=loss)


# what the commands share -------------------------------------------------------------------------


def _require(extra: str, *modules: str) -> None:
    for module in modules:
        try:
            import_module(module)
        except ModuleNotFoundError as error:
            raise UsageError(
                f"this command needs {error.name or module}: pip install 'manual-bptt[{extra}]'"
            ) from None


def _require_writable(path: str | None) -> None:
    """Refuse a path that cannot be written to before any work is done."""
    if path is None or path == "-":
        return
    file = Path(path)
    existed = file.exists()
    if existed and not (file.is_file() or file.is_dir()):
        return  # a pipe, say: to open it now would end it for its reader
    try:
        with file.open("a"):
            pass
        if not existed:
            file.unlink()
    except OSError as error:
        raise UsageError(f"cannot write {path!r}: {error.strerror}") from None


def _output_folder(name: str) -> Path:
    """Return the folder, made if need be, in which files can be written."""
    folder = Path(name)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise UsageError(f"cannot write to the folder {folder}: {error.strerror}") from None
    return folder


def _write_json(path: str | None, value: Any) -> None:
    text = json.dumps(value, indent=2) + "\n"
    if path == "-":
        sys.stdout.write(text)
    elif path is not None:
        _write_text(path, text)


def _write_text(path: str, text: str) -> None:
    try:
        Path(path).write_text(text, encoding="utf-8")
    except OSError as error:
        raise UsageError(f"cannot write {path}: {error.strerror}") from None


def _versions(*modules: str) -> dict[str, str]:
    versions = {name: str(import_module(name).__version__) for name in modules}
    return {"manual_bptt": mb.__version__, "python": platform.python_version(), **versions}


def _bar(*columns: str) -> Any:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeElapsedColumn

    console = Console(stderr=True)
    return Progress(
        "{task.description}",
        BarColumn(),
        MofNCompleteColumn(),
        *columns,
        TimeElapsedColumn(),
        console=console,
        disable=not console.is_terminal,
        transient=True,
    )


def _progress(items: Iterable[Item], title: str, total: int) -> Iterator[Item]:
    """Yield the items; on a terminal, show how many have passed."""
    with _bar() as bar:
        task = bar.add_task(title, total=total)
        for item in items:
            yield item
            bar.advance(task)


def _print_table(
    title: str, header: Iterable[str], rows: Iterable[Iterable[Any]], note: str
) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    class _Console(Console):
        def on_broken_pipe(self) -> None:
            raise BrokenPipeError

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    console = _Console(highlight=False)
    for name in header:
        whole = name == "verdict" and console.width >= 72
        table.add_column(Text(name), overflow="fold", no_wrap=whole)
    for row in rows:
        table.add_row(*row)
    console.print(title, style="bold", soft_wrap=True)
    console.print(table)
    console.print(note, markup=False, soft_wrap=True)


if __name__ == "__main__":
    sys.exit(main())
