"""The command ``manual-bptt``: the one place where the hand-written gradients meet autodiff.

Exit codes: 0, done and true; 1, a gradient does not match; 2, wrong usage or bad input, with one
line on stderr that says so; 3, no verdict, since the candidate ended its process or had to be
stopped, with one line too; 130 or 143, interrupted or terminated. Tables go to stdout, progress to
stderr, and that only on a terminal.
"""

import argparse
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

import manual_bptt as mb
from manual_bptt.cli import bench, check, predict, train, vectors, verify
from manual_bptt.cli.shared import AT_INTERRUPT, NoVerdictError, StoppedError, UsageError, plain


def main(argv: list[str] | None = None) -> int:
    """Run one command and return its exit code."""
    arguments = _parser().parse_args(argv)
    try:
        with _interrupts_end_at_once():
            code: int = arguments.run(arguments)
            sys.stdout.flush()
    except UsageError as error:
        return _refuse(str(error))
    except NoVerdictError as error:
        _refuse(f"no verdict: {error}")
        return 3
    except StoppedError as stopped:
        _refuse(str(stopped))
        return 128 + stopped.signal
    except UnicodeEncodeError as error:
        return _refuse(
            f"cannot write the output: {error.encoding} has no {error.object[error.start]!r}; "
            "PYTHONIOENCODING=utf-8 helps"
        )
    except OSError as error:
        # Nobody takes our output any more: its reader has left (then there is nothing to say), or
        # the disk is full. Without this, Python would try to write the rest once more on leaving.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if isinstance(error, BrokenPipeError):
            return 2
        return _refuse(f"cannot write the output: {error.strerror}")
    return code


def _refuse(message: str) -> int:
    print(f"manual-bptt: {plain(message)}", file=sys.stderr)
    return 2


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
    parser = _Parser(prog="manual-bptt", description=__doc__.partition("\n")[0])
    parser.add_argument("--version", action="version", version=f"%(prog)s {mb.__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for command in (verify, check, vectors, train, predict, bench):
        command.add_to(commands)
    return parser
