"""What the commands share: refusing, writing files, tables and progress bars."""

import argparse
import json
import os
import platform
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any, TypeVar

import manual_bptt as mb

Item = TypeVar("Item")
NARROWEST = 72  # columns of a terminal for which tables are made
AT_INTERRUPT: list[Callable[[], Any]] = []  # what else has to be ended by Ctrl-C


class UsageError(Exception):
    """What the user can mend; its text is the one line that they see."""


class NoVerdictError(Exception):
    """What was to be judged ended or was stopped before it could be; the text says how."""


class StoppedError(Exception):
    """The user, or the system, asked to stop; the text says what was kept, ``signal`` who asked."""

    def __init__(self, message: str, signal: int) -> None:
        super().__init__(message)
        self.signal = signal


def require(extra: str, *modules: str) -> None:
    """Refuse to go on without these modules, and name the extra that has them."""
    for module in modules:
        if module == "matplotlib":  # which refuses to be imported for a notebook's MPLBACKEND
            os.environ["MPLBACKEND"] = "agg"
        try:
            found = import_module(module)
        except ModuleNotFoundError as error:
            raise UsageError(
                f"this command needs {error.name or module}: pip install 'manual-bptt[{extra}]'"
            ) from None
        if module == "jax":  # the judge needs a CPU, whatever JAX_PLATFORMS says
            found.config.update("jax_platforms", "cpu")


def installed(module: str) -> bool:
    """Return whether a module can be imported, whatever keeps it from that."""
    try:
        import_module(module)
    except Exception:
        return False
    return True


def compiles() -> bool:
    """Return whether the compiled kernel can be had."""
    return installed("manual_bptt.compiled")


def require_writable(path: str | None) -> None:
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


def require_apart(option: str, path: str | None, *others: str | Path) -> None:
    """Refuse a path to write to that is a file which the command reads or writes itself."""
    if path in (None, "-"):
        return
    for other in map(Path, others):
        one = Path(str(path))
        same = one.samefile(other) if one.exists() and other.exists() else False
        if same or one.resolve() == other.resolve():
            raise UsageError(f"{option} is {path}, which the command reads or writes itself")


def require_regular(path: str | Path) -> None:
    """Refuse to read what is there and is no regular file: a pipe or a device may never end."""
    file = Path(path)
    if file.exists() and not file.is_file() and not file.is_dir():
        raise UsageError(f"{path} is a pipe or a device; expected a regular file")


def plain(text: str) -> str:
    """Return untrusted text in one line, with control characters spelled out."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def short(text: str, most: int = 300) -> str:
    """Return text in one line, and not more of it than this."""
    line = " ".join(text.split())
    return line if len(line) <= most else f"{line[:most]}..."


def output_folder(name: str) -> Path:
    """Return the folder, made if need be, in which files can be written."""
    folder = Path(name)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise UsageError(f"cannot write to the folder {folder}: {error.strerror}") from None
    return folder


def write_json(path: str | None, value: Any) -> None:
    """Write a value as JSON to a file, to stdout for -, or nowhere for None."""
    text = json.dumps(value, indent=2) + "\n"
    if path == "-":
        sys.stdout.write(text)
    elif path is not None:
        write_text(path, text)


def write_text(path: str, text: str) -> None:
    """Write text to a file."""
    try:
        Path(path).write_text(text, encoding="utf-8")
    except OSError as error:
        raise UsageError(f"cannot write {path}: {error.strerror}") from None


def versions(*modules: str) -> dict[str, str]:
    """Return the versions of this package, of Python and of other modules."""
    found = {name: str(import_module(name).__version__) for name in modules}
    return {"manual_bptt": mb.__version__, "python": platform.python_version(), **found}


def bar(*columns: str) -> Any:
    """Return a progress bar on stderr that shows on a terminal alone."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeElapsedColumn

    console = Console(file=sys.stderr)  # this one, whatever takes its place for a while
    return Progress(
        "{task.description}",
        BarColumn(),
        MofNCompleteColumn(),
        *columns,
        TimeElapsedColumn(),
        console=console,
        disable=not console.is_terminal,
        transient=True,
        redirect_stdout=False,
        redirect_stderr=False,
    )


def progress(items: Iterable[Item], title: str, total: int) -> Iterator[Item]:
    """Yield the items; on a terminal, show how many have passed."""
    from rich.markup import escape

    with bar() as shown:
        task = shown.add_task(escape(plain(title)), total=total)
        for item in items:
            yield item
            shown.advance(task)


def print_table(
    title: str, header: Iterable[str], rows: Iterable[Iterable[Any]], note: str
) -> None:
    """Print a table with a title above it and a note below."""
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    class _Console(Console):
        def on_broken_pipe(self) -> None:
            raise BrokenPipeError

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    console = _Console(highlight=False)
    console.width = max(console.width, NARROWEST)  # or words would be cut to letters
    for name in header:
        table.add_column(Text(plain(name)), overflow="fold", no_wrap=name == "verdict")
    for row in rows:
        table.add_row(*(Text(plain(cell)) if isinstance(cell, str) else cell for cell in row))
    console.print(Text(plain(title), style="bold"), soft_wrap=True)
    console.print(table)
    console.print("\n".join(map(plain, note.split("\n"))), markup=False, soft_wrap=True)


def positive(text: str) -> int:
    """Return an option's integer of at least 1."""
    return _integer(text, 1)


def seed(text: str) -> int:
    """Return an option's integer of at least 0."""
    return _integer(text, 0)


def _integer(text: str, lowest: int) -> int:
    if not text.isdecimal() or len(text) > 18 or int(text) < lowest:
        message = (
            f"{short(text, 30)!r}; expected an integer of at least {lowest} and at most 18 digits"
        )
        raise argparse.ArgumentTypeError(message)
    return int(text)
