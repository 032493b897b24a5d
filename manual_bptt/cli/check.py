"""``manual-bptt check``: anybody's gradients against autodiff."""

import argparse
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import redirect_stdout
from importlib import import_module
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from traceback import walk_tb
from types import ModuleType
from typing import Any

from manual_bptt.cli.shared import (
    UsageError,
    positive,
    print_table,
    progress,
    require,
    require_writable,
    seed,
    versions,
    write_json,
)

LAYOUTS = ("time_first", "batch_first", "columns")


def add_to(commands: Any) -> None:
    """Add the command to the parser."""
    check = commands.add_parser("check", help="judge your own gradients by jax.grad")
    check.add_argument("candidate", metavar="module:function", help="or path/to/file.py:function")
    check.add_argument(
        "--loss", default="squared_error", metavar="NAME",
        help="squared_error, last_step_squared_error, or module:function in JAX (%(default)s)",
    )  # fmt: skip
    check.add_argument("--single", action="store_true", help="single sequences, no batch axis")
    check.add_argument("--layout", choices=LAYOUTS, default="time_first", help="(%(default)s)")
    check.add_argument(
        "--sizes", metavar="O=1,H=10", type=_sizes, default={}, help="fix any of T, B, D, H, O"
    )
    check.add_argument("--cases", type=positive, default=200, help="random problems (%(default)s)")
    check.add_argument("--seed", type=seed, default=0, help="which problems (%(default)s)")
    check.add_argument("--dtype", choices=["float64", "float32"], default="float64")
    check.add_argument(
        "--time-budget", type=positive, default=60, metavar="SECONDS",
        help="for all calls of the function together (%(default)s)",
    )  # fmt: skip
    check.add_argument("--json", metavar="PATH", help="write the report as JSON; - is stdout")
    check.set_defaults(run=_check)


def _sizes(text: str) -> dict[str, int]:
    """Return {"O": 1, "H": 10} for O=1,H=10."""
    sizes = {}
    for part in text.split(","):
        name, equals, number = part.partition("=")
        if not equals:
            raise argparse.ArgumentTypeError(f"{text!r}: expected sizes such as O=1,H=10")
        sizes[name.strip()] = positive(number.strip())
    return sizes


def _check(arguments: argparse.Namespace) -> int:
    require("verify", "jax", "rich")
    import reference

    require_writable(arguments.json)
    function = load_function(arguments.candidate)
    loss = load_function(arguments.loss) if ":" in arguments.loss else arguments.loss
    started = time.perf_counter()

    def shown(results: Iterator[Any]) -> Iterable[Any]:
        return progress(results, arguments.candidate, arguments.cases)

    try:
        report = reference.compare(
            function,
            loss=loss,
            cases=arguments.cases,
            seed=arguments.seed,
            dtype=arguments.dtype,
            batched=not arguments.single,
            layout=arguments.layout,
            sizes=arguments.sizes,
            time_budget=arguments.time_budget,
            progress=shown,
        )
    except ValueError as error:
        raise UsageError(str(error)) from None
    seconds = time.perf_counter() - started
    if arguments.json != "-":
        print_report(report, f"{arguments.candidate} against jax.grad", seconds)
    options = {k: v for k, v in vars(arguments).items() if k not in ("run", "json")}
    result = {**options, "seconds": seconds, "versions": versions("jax", "numpy")}
    write_json(arguments.json, result | report.as_dict())
    return 0 if report.passed else 1


def print_report(report: Any, title: str, seconds: float, again: Iterable[str] = ()) -> None:
    """Print the table of a report, and what it has to say beside it."""
    from rich.text import Text

    from reference.report import HEADER, cells

    def coloured(status: str) -> Text:
        good, unsure = status == "match", status in ("not returned", "nothing proved")
        return Text(status, style="green" if good else "yellow" if unsure else "bold red")

    rows = [(row.gradient, coloured(row.status), *cells(row)[2:]) for row in report.rows]
    verdict = f"{'passed' if report.passed else 'FAILED'} in {seconds:.1f} s"
    parts = [[*report.remarks(), *again], *report.explanations().values(), [verdict]]
    text = "\n\n".join("\n".join(part) for part in parts if part)
    print_table(title, HEADER, rows, f"{text}\n")


# Loading -----------------------------------------------------------------------------------------


def load_function(place: str) -> Callable[..., Any]:
    """Return the function at module:function, or in a file at path/to/file.py:function."""
    source, colon, name = place.rpartition(":")
    if not (colon and source and name):
        raise UsageError(f"{place!r}: expected module:function or path/to/file.py:function")
    found: Any = _load_file(Path(source)) if source.endswith(".py") else _load_module(source)
    for part in name.split("."):
        try:
            found = getattr(found, part)
        except AttributeError:
            raise UsageError(f"{source} has no {name!r}{_instead(found)}") from None
    if not callable(found):
        raise UsageError(f"{place} is a {type(found).__name__}; expected a function")
    return found  # type: ignore[no-any-return]


def _instead(module: Any) -> str:
    """Return the functions that a module has of its own."""
    own = getattr(module, "__name__", None)
    names = [
        k
        for k, v in vars(module).items()
        if callable(v) and getattr(v, "__module__", None) == own and not k.startswith("_")
    ]
    return f"; it has {', '.join(names[:8])}" if names else ""


def _load_module(name: str) -> ModuleType:
    """Import a module, one in the current folder too."""
    sys.path.insert(0, str(Path.cwd()))
    try:
        return _run(lambda: import_module(name), name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{name}.".startswith(f"{error.name}."):
            raise UsageError(f"importing {name} failed: {error}") from None
        raise UsageError(f"there is no module {name!r} here or among those installed") from None


def _load_file(path: Path) -> ModuleType:
    """Run a file as a module of its own, which may import its neighbours."""
    if not path.is_file():
        raise UsageError(f"there is no file {str(path)!r}")
    name = path.stem if path.stem not in sys.modules else f"candidate_{path.stem}"
    spec = spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise UsageError(f"{str(path)!r} cannot be imported")
    module = module_from_spec(spec)
    sys.modules[name] = module
    sys.path.insert(0, str(path.resolve().parent))
    loader = spec.loader

    def execute() -> ModuleType:
        loader.exec_module(module)
        return module

    try:
        return _run(execute, str(path))
    except ModuleNotFoundError as error:
        raise UsageError(f"importing {path} failed: {error}") from None


def _run(load: Callable[[], ModuleType], name: str) -> ModuleType:
    """Run a stranger's module; what it prints goes to stderr, what it raises becomes one line."""
    try:
        with redirect_stdout(sys.stderr):
            return load()
    except ModuleNotFoundError:
        raise
    except (Exception, SystemExit) as error:
        frames = [(frame.f_code.co_filename, line) for frame, line in walk_tb(error.__traceback__)]
        file, line = frames[-1]
        said = " ".join(f"{type(error).__name__}: {error}".split())
        where = f"line {line} of {Path(file).name}"
        raise UsageError(f"importing {name} failed: {said} ({where})") from None
