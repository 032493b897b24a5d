"""A candidate in a process of its own, which cannot reach what it is judged by."""

import os
import re
import secrets
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from io import BufferedReader
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any, BinaryIO, cast

from reference import user_code
from reference.user_code import (
    Arrays,
    LoadError,
    Outcome,
    OutOfTimeError,
    places,
    printable,
    short,
)

MOST_BYTES, MOST_TIMES = 2**26, 64  # of an answer: at least, and times those that were sent
IMPORT_SECONDS = 300.0  # that importing the module may take
MOST_OUTPUT = 2**14  # characters of what is printed that are kept
LINE = re.compile(r'File "([^"]*)", line (\d+)')

Reply = tuple[dict[str, Any], Arrays] | Exception


class NoVerdictError(Exception):
    """A candidate ended its process, or had to be stopped: nothing is known of its gradients."""


class CandidateProcess:
    """A function at a place such as ``module:function``, imported and called in a new interpreter.

    It stands for the function in ``reference.compare``. What the module prints while it is imported
    goes to ``shown``; what is printed later is kept.

    Raises LoadError if there is no such function, and NoVerdictError where the process ends, does
    not answer in time, or writes what is no answer.
    """

    def __init__(self, place: str, shown: Callable[[str], Any] | None = None) -> None:
        self.place = place
        self.calls = 0
        self.importable: tuple[str, tuple[str, ...]] = ("candidate", ())
        self.declared: dict[str, Any] = {}
        self._shown = shown or (lambda text: sys.stderr.write(text))
        self._start()

    def __enter__(self) -> "CandidateProcess":
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def __call__(
        self,
        arrays: Arrays,
        wanted: Iterable[str],
        seconds: float | None = None,
        trees: Mapping[str, Any] = user_code.ALONE,
        like: str = "",
        order: Sequence[str] = (),
    ) -> Outcome:
        """Have the function called, and return what came back, as ``Runner`` does.

        Raises OutOfTimeError after ``seconds``; the process is ended then.
        """
        self.calls += 1
        names = sorted(wanted)
        request = {
            "call": self.calls, "wanted": names, "trees": trees, "like": like, "order": [*order],
        }  # fmt: skip
        while_called = f" in call {self.calls}"
        message, found = self._exchange(request, arrays, seconds, while_called)
        try:
            return _outcome(message, found, request)
        except (KeyError, TypeError, ValueError, AttributeError):
            self.stop()
            raise NoVerdictError(f"the candidate answered amiss{while_called}") from None

    def restart(self) -> bool:
        """Start anew, so that the function knows of no earlier calls; return that this was done."""
        self.stop()
        self._start()
        return True

    def kill(self) -> None:
        """End the process and those that it has started, at once."""
        if self._process.returncode is not None:
            return  # its number may be another's by now
        with suppress(OSError):
            if hasattr(os, "killpg"):
                os.killpg(self._process.pid, signal.SIGKILL)
            else:
                self._process.kill()

    def stop(self) -> None:
        """End the process, and wait for its end."""
        self.kill()
        self._process.wait()
        self._requests.put(None)
        for thread in self._threads:
            thread.join(1)

    @property
    def printed(self) -> str:
        """What was printed past Python's streams, once the process has ended."""
        return self._output.strip()

    def _start(self) -> None:
        self._output = ""
        self._mark = secrets.token_hex(16)
        self._imported = threading.Event()
        self._requests: SimpleQueue[tuple[dict[str, Any], Arrays] | None] = SimpleQueue()
        self._replies: SimpleQueue[Reply] = SimpleQueue()
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-u", str(Path(user_code.__file__))],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            start_new_session=True,
        )  # fmt: skip
        self._threads = [
            threading.Thread(target=f, daemon=True) for f in (self._talk, self._listen)
        ]
        for thread in self._threads:
            thread.start()
        request = {"place": self.place, "mark": self._mark}
        try:
            message, _ = self._exchange(request, {}, IMPORT_SECONDS, " while it was imported")
        except OutOfTimeError:
            what = f"was not imported within {IMPORT_SECONDS:g} s and was stopped"
            raise NoVerdictError(f"the candidate {what}") from None
        self._imported.wait(10)
        refused = message.get("refused")
        if refused is not None:
            self.stop()
            raise LoadError(printable(str(refused)))
        self.importable = _importable(message.get("importable"))
        declared = message.get("declared")
        self.declared = declared if isinstance(declared, dict) else {}

    def _exchange(
        self, request: dict[str, Any], arrays: Arrays, seconds: float | None, when: str
    ) -> tuple[dict[str, Any], Arrays]:
        """Send a request, and return the reply to it."""
        self._requests.put((request, arrays))
        try:
            reply = self._replies.get(timeout=seconds)
        except Empty:
            self.stop()
            raise OutOfTimeError from None
        if isinstance(reply, Exception):
            ended = isinstance(reply, EOFError | OSError)
            what = self._end_in_words() if ended else "answered amiss"
            self.stop()
            raise NoVerdictError(f"the candidate {what}{when}")
        return reply

    def _end_in_words(self) -> str:
        """Return how the process has ended, or that it has only stopped to listen."""
        try:
            code = self._process.wait(2)
        except subprocess.TimeoutExpired:
            return "no longer answers"
        self._threads[1].join(1)  # all that was printed has come then
        if code >= 0:
            return f"ended its process (exit status {code})"
        known = {int(s): s.name for s in signal.Signals}
        return f"crashed with signal {-code} ({known.get(-code, 'unknown')}){self._last_line()}"

    def _last_line(self) -> str:
        """Return the line of user code that Python names where it crashes, if it does."""
        _, crashed, stack = self._output.rpartition("most recent call first")
        frames = LINE.findall(stack) if crashed else []
        ours = [
            (file, line)
            for file, line in frames
            if file != user_code.__file__ and not file.startswith((sys.base_prefix, sys.prefix))
        ]
        return f" at line {ours[0][1]} of {short(Path(ours[0][0]).name)}" if ours else ""

    # In threads, so that no pipe holds up the judge:

    def _talk(self) -> None:
        """Send requests and put replies, until there are no more."""
        requests, replies, process = self._requests, self._replies, self._process
        to_send, to_receive = cast(BinaryIO, process.stdin), cast(BinaryIO, process.stdout)
        with suppress(OSError), to_send, to_receive:
            while (request := requests.get()) is not None:
                try:
                    user_code.send(to_send, *request)
                    sent = sum(array.nbytes for array in request[1].values())
                    replies.put(user_code.receive(to_receive, MOST_BYTES + MOST_TIMES * sent))
                except Exception as error:  # whatever an untrusted process makes of an answer
                    replies.put(error)
                    return

    def _listen(self) -> None:
        """Show what is printed before the mark, and keep what is printed after it."""
        process, imported, mark, waiting = self._process, self._imported, self._mark, ""
        with cast(BufferedReader, process.stderr) as stderr:
            while chunk := stderr.read1(2**16):
                text = chunk.decode(errors="backslashreplace")
                if imported.is_set():
                    self._keep(text)
                    continue
                waiting += text
                before, marked, after = waiting.partition(mark)
                whole = len(before) if marked else before.rfind("\n") + 1
                self._show(before[:whole])
                waiting = before[whole:]
                if marked:
                    self._keep(after)
                    imported.set()
        self._show(waiting)
        imported.set()

    def _keep(self, text: str) -> None:
        self._output = (self._output + text)[-MOST_OUTPUT:]

    def _show(self, text: str) -> None:
        if text:
            shown = (c if c.isprintable() or c in "\n\t" else repr(c)[1:-1] for c in text)
            self._shown("".join(shown).removesuffix("\n") + "\n")


def _importable(found: Any) -> tuple[str, tuple[str, ...]]:
    """Return what a process says of how its function is imported, if that can be so."""
    match found:
        case [str(name), [str(line)]] if name.isidentifier() and re.fullmatch(
            rf"from [\w.]+ import {name}", line
        ):
            return name, (line,)
        case [str(name), _] if name.isidentifier():
            return name, ()
    return "candidate", ()


def _outcome(message: dict[str, Any], arrays: Arrays, request: dict[str, Any]) -> Outcome:
    """Return the outcome in an answer; what is none raises some error."""
    words = {k: short(_text(v), 300) for k, v in message["values"].items()}
    values: dict[str, Any] = {**words, **arrays}
    of_trees = (
        f"{k}{place}" for k, tree in request["trees"].items() for place, _ in places(tree, tree)
    )
    known = {*request["wanted"], *of_trees}
    unknown = [k for k in values if k not in known and not re.fullmatch(request["like"], k)]
    if message["call"] != request["call"] or unknown:
        raise ValueError("the answer to another request")
    notes = {short(k): short(_text(v), 200) for k, v in message["notes"].items()}
    others = tuple(short(_text(name)) for name in message["others"])
    return Outcome(values, others, short(_text(message["failure"]), 400), notes)


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is no text")
    return value
