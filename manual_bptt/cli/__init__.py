"""The command ``manual-bptt``: the one place where the hand-written gradients meet autodiff.

Exit codes: 0, done and true; 1, a gradient does not match; 2, wrong usage or bad input, with one
line on stderr that says so; 3, no verdict, since the candidate ended its process or had to be
stopped, with one line too; 4, an error of the command itself, likewise; 130 or 143, interrupted or
terminated. Tables go to stdout, progress to stderr, and that only on a terminal.
"""

import argparse
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from traceback import walk_tb
from typing import NoReturn

import manual_bptt as mb
from manual_bptt.cli import bench, check, predict, train, vectors, verify
from manual_bptt.cli.shared import (
    AT_INTERRUPT,
    NoVerdictError,
    StoppedError,
    UsageError,
    plain,
    short,
)

DEBUG = "MANUAL_BPTT_DEBUG"


def main(argv: list[str] | None = None) -> int:
    """Run one command and return its exit code; nothing that it meets becomes a traceback."""
    _open_closed_streams()
    try:
        arguments = _parse(argv)
        with _interrupts_end_at_once():
            code: int = arguments.run(arguments)
            sys.stdout.flush()
    except UsageError as error:
        return _refuse(str(error))
    except NoVerdictError as error:
        return _refuse(f"no verdict: {error}", 3)
    except StoppedError as stopped:
        return _refuse(str(stopped), 128 + stopped.signal)
    except UnicodeEncodeError as error:
        return _refuse(
            f"cannot write the output: {error.encoding} has no {error.object[error.start]!r}; "
            "PYTHONIOENCODING=utf-8 helps"
        )
    except OSError as error:
        return _refuse_system_error(error)
    except MemoryError:
        return _refuse("there is not enough memory for this")
    except Exception as error:
        if os.environ.get(DEBUG):
            raise
        return _refuse(
            f"internal error: {_in_words(error)}; please report it, with the traceback that "
            f"{DEBUG}=1 shows",
            4,
        )
    return code


def _parse(argv: list[str] | None) -> argparse.Namespace:
    try:
        return _parser().parse_args(argv)
    except SystemExit:
        sys.stdout.flush()  # what --help has printed
        raise


def _refuse(message: str, code: int = 2) -> int:
    with suppress(OSError):  # nobody hears it
        print(f"manual-bptt: {plain(message)}", file=sys.stderr)
    return code


def _refuse_system_error(error: OSError) -> int:
    """Say what the system refuses: a file, or to take the output."""
    if error.filename is not None:
        return _refuse(f"{error.strerror}: {os.fsdecode(error.filename)}")
    # Nobody takes our output any more: its reader has left (then there is nothing to say), or the
    # disk is full. Without this, Python would try to write the rest once more on leaving.
    with suppress(OSError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    if isinstance(error, BrokenPipeError):
        return 2
    return _refuse(f"cannot write the output: {error.strerror or error}")


def _in_words(error: Exception) -> str:
    """Return what an error says, and the last line of this project that it has passed."""
    ours = [
        f"{Path(frame.f_code.co_filename).name}:{line}"
        for frame, line in walk_tb(error.__traceback__)
        if frame.f_globals.get("__name__", "").partition(".")[0] in ("manual_bptt", "reference")
    ]
    return f"{type(error).__name__}: {short(str(error))} ({ours[-1]})"


def _open_closed_streams() -> None:
    """Give a process that was started without stdin, stdout or stderr ones that go nowhere."""
    if None not in (sys.stdin, sys.stdout, sys.stderr):
        return
    while (free := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass  # or a file that is opened later takes the place of stdout
    os.close(free)
    nowhere = open(os.devnull, "r+", encoding="utf-8")  # noqa: SIM115 - as long as the process
    sys.stdin, sys.stdout, sys.stderr = (
        nowhere if stream is None else stream for stream in (sys.stdin, sys.stdout, sys.stderr)
    )


@contextmanager
def _interrupts_end_at_once() -> Iterator[None]:
    """Let Ctrl-C end the process without Python's farewell.

    JAX swallows KeyboardInterrupt where it arrives in one of its callbacks, and its threads crash
    if the interpreter is taken down while they compile.
    """

    def stop(*_: object) -> None:
        for end in AT_INTERRUPT:
            end()
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
    parser = _Parser(
        prog="manual-bptt",
        description="gradients by hand, their proof by autodiff, and a forecaster trained by them",
        epilog="exit codes: 0, done and true; 1, a gradient does not match; 2, wrong usage or bad "
        "input; 3, no verdict, since the candidate ended its process or was stopped; 4, an error "
        "of the command itself; 130 and 143, interrupted and terminated",
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {mb.__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for command in (verify, check, vectors, train, predict, bench):
        command.add_to(commands)
    return parser
