"""Calling a stranger's function: in the layout it expects, watched, and read without guessing.

A candidate is ``candidate(params, x, h0, target)``; it returns a mapping or a namedtuple with any
of the gradients ``W U b V c x h0 h``, and its ``states`` if it likes. Where it is written for
another layout than this package's, arrays are rearranged on the way in and on the way back:

    layout        x          h0      target, y   h, states     b, c
    time_first    (T, B, D)  (B, H)  (T, B, O)   (T+1, B, H)   (H,), (O,)
    batch_first   (B, T, D)  (B, H)  (B, T, O)   (B, T+1, H)   (H,), (O,)
    columns       (T, D, B)  (H, B)  (T, O, B)   (T+1, H, B)   (H, 1), (O, 1)

A single sequence has no batch axis in the first two layouts, and one column in the last. W, U and V
are the same in all of them. The target of ``last_step_squared_error`` has no
axis of time.
"""

import re
import signal
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from traceback import walk_tb
from typing import Any, NamedTuple

import numpy as np

from reference.gradients import GRADIENTS
from reference.problems import Parameters, Problem

Candidate = Callable[[Any, Any, Any, Any], Any]
RETURNED = (*GRADIENTS, "states")
LAYOUTS = ("time_first", "batch_first", "columns")
WITH_BATCH = frozenset({"x", "h0", "target", "h", "states"})  # arrays that have a batch axis
OVER_TIME = frozenset({"x", "target", "h", "states"})  # and that have an axis of time before it

# OpenBLAS 0.3.31, in NumPy 2.4.2 to 2.4.6, makes NumPy warn so on finite numbers now and then.
_INVALID_PRODUCT = re.compile("invalid value encountered in (matmul|dot|matvec|vecmat|vecdot)$")


class Flaw(NamedTuple):
    """What is in the place of a gradient that cannot be compared: a status and what came."""

    status: str
    detail: str


class Returned(NamedTuple):
    """What one call gave: arrays or flaws by name, or one flaw for all of them; and notes.

    Arrays are in the layout of ``Problem``. Notes are by what they are about, so that each is said
    once; those on how a result was read are about "read ...".
    """

    gradients: dict[str, np.ndarray | Flaw] | Flaw
    notes: dict[str, str]

    def array(self, name: str) -> np.ndarray | None:
        """Return a gradient of finite numbers, if there is one."""
        found = None if isinstance(self.gradients, Flaw) else self.gradients.get(name)
        return found if isinstance(found, np.ndarray) and np.isfinite(found).all() else None


class _OutOfTimeError(BaseException):
    """Ends a call; no ``except Exception`` of the candidate's own holds it up."""


@dataclass
class Caller:
    """Calls a candidate, and keeps account of the time that it takes.

    In the main thread a call that exceeds what is left of the budget is interrupted, and what the
    candidate prints and warns of is kept from the terminal; elsewhere neither is possible, and the
    budget is looked at between calls.
    """

    candidate: Any
    layout: str = "time_first"
    time_budget: float | None = None
    spent: float = 0.0
    slowest: float = 0.0

    def __post_init__(self) -> None:
        if not callable(self.candidate):
            kind = type(self.candidate).__name__
            raise TypeError(f"candidate is a {kind}; expected a function")
        if self.layout not in LAYOUTS:
            raise ValueError(f"layout is {self.layout!r}; expected one of {', '.join(LAYOUTS)}")
        budget = self.time_budget
        if budget is not None and not (isinstance(budget, int | float) and budget > 0):
            message = f"time_budget is {budget!r}; expected a number of seconds above 0, or None"
            raise ValueError(message)

    @property
    def out_of_time(self) -> bool:
        """Whether the budget is spent."""
        return self.time_budget is not None and self.spent >= self.time_budget

    def __call__(self, problem: Problem) -> Returned | None:
        """Call the candidate with copies of a problem; return None if there was no time for it."""
        if self.out_of_time:
            return None
        originals = _arguments(problem, self.layout)
        copies = {k: a.copy() for k, a in originals.items()}
        params = Parameters(*(copies[k] for k in Parameters._fields))
        left = None if self.time_budget is None else self.time_budget - self.spent
        gradients: dict[str, np.ndarray | Flaw] | Flaw
        notes: dict[str, str] = {}
        started = time.perf_counter()
        try:
            with _watched(left, notes):
                found = self.candidate(params, copies["x"], copies["h0"], copies["target"])
                gradients = _read(found, problem, self.layout, notes)
        except _OutOfTimeError:
            return self._interrupted(time.perf_counter() - started)
        except (Exception, SystemExit) as error:  # a candidate is a stranger's code
            gradients = Flaw("raised", _in_words(error) + _where(error, self.candidate))
        taken = time.perf_counter() - started
        if _finite(gradients):
            notes.pop("warns of a product", None)
        self.spent, self.slowest = self.spent + taken, max(self.slowest, taken)
        for k, original in originals.items():
            if not np.array_equal(copies[k], original):
                notes[f"writes {k}"] = f"the candidate writes to its input {k}"
        return Returned(gradients, notes)

    def _interrupted(self, taken: float) -> Returned | None:
        """Return a flaw if the call had most of the budget to itself; else it was only unlucky."""
        budget = float(self.time_budget or 0)
        self.spent = budget
        if taken < budget / 2:
            return None
        return Returned(Flaw("raised", f"TimeoutError: no answer within {taken:.3g} s"), {})


@contextmanager
def _watched(seconds: float | None, notes: dict[str, str]) -> Iterator[None]:
    """Run a stranger's code in the body: with an alarm, and note what it prints and warns of."""
    if threading.current_thread() is not threading.main_thread():
        yield  # streams, warnings and signals belong to the whole process
        return
    printed = StringIO()
    with (
        redirect_stdout(printed),
        redirect_stderr(printed),
        warnings.catch_warnings(record=True) as warned,
    ):
        warnings.simplefilter("always")
        try:
            with _alarm(seconds):
                yield
        finally:
            if text := printed.getvalue().strip():
                notes["prints"] = f"the candidate prints, and it is not shown: {_short(text)!r}"
            telling = [w for w in warned if not _INVALID_PRODUCT.match(str(w.message))]
            if warned:
                first, about = (telling or warned)[0], "warns" if telling else "warns of a product"
                said = f"{first.category.__name__}: {first.message}"
                notes[about] = f"the candidate warns: {_short(said)}"


@contextmanager
def _alarm(seconds: float | None) -> Iterator[None]:
    """Raise _OutOfTimeError in the body after so many seconds, where a timer can be had."""
    free = hasattr(signal, "setitimer") and signal.getitimer(signal.ITIMER_REAL)[0] == 0
    if seconds is None or not free:
        yield
        return

    def ring(*_: object) -> None:
        raise _OutOfTimeError

    before = signal.signal(signal.SIGALRM, ring)
    try:
        signal.setitimer(signal.ITIMER_REAL, seconds)
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _finite(gradients: dict[str, np.ndarray | Flaw] | Flaw) -> bool:
    """Return whether there are arrays alone, of finite numbers."""
    return not isinstance(gradients, Flaw) and all(
        isinstance(found, np.ndarray) and bool(np.isfinite(found).all())
        for found in gradients.values()
    )


def _short(text: str, most: int = 80) -> str:
    first = text.splitlines()[0]
    return first if len(first) <= most else f"{first[:most]}..."


def _in_words(error: BaseException) -> str:
    try:
        return f"{type(error).__name__}: {error}"
    except Exception:  # an error that cannot even be printed
        return type(error).__name__


def _where(error: BaseException, candidate: Candidate) -> str:
    """Return the last line of the candidate's own file that the error passed, if it did."""
    file = getattr(getattr(candidate, "__code__", None), "co_filename", None)
    lines = [
        line for frame, line in walk_tb(error.__traceback__) if frame.f_code.co_filename == file
    ]
    return f" (line {lines[-1]} of {Path(str(file)).name})" if lines else ""


# Layouts -----------------------------------------------------------------------------------------


def _arguments(problem: Problem, layout: str) -> dict[str, np.ndarray]:
    """Return the arrays of a problem in a layout."""
    originals = problem.params._asdict()
    originals |= {"x": problem.x, "h0": problem.h0, "target": problem.target}
    return {k: in_layout(k, a, problem, layout) for k, a in originals.items()}


def in_layout(name: str, array: np.ndarray, problem: Problem, layout: str) -> np.ndarray:
    """Return an array of a problem, or the gradient in it, as a layout has it."""
    batched = "B" in problem.sizes
    timeless = name == "target" and problem.loss == "last_step_squared_error"
    if layout == "batch_first" and name in OVER_TIME and batched and not timeless:
        return array.swapaxes(0, 1)
    if layout == "columns" and name in WITH_BATCH and batched:
        return array.swapaxes(-1, -2)
    if layout == "columns" and name not in ("W", "U", "V"):
        return array[..., None]
    return array


def _from_layout(name: str, array: np.ndarray, problem: Problem, layout: str) -> np.ndarray:
    """Return an array in a layout as ``Problem`` has it: the inverse of ``in_layout``."""
    if layout == "columns" and array.ndim > len(problem.gradient_shape(name)):
        return array[..., 0]
    return in_layout(name, array, problem, layout)  # exchanging two axes undoes itself


# Reading what was returned -----------------------------------------------------------------------


def _read(
    found: Any, problem: Problem, layout: str, notes: dict[str, str]
) -> dict[str, np.ndarray | Flaw]:
    """Return {gradient: array or flaw} from what a candidate returned, and add to the notes."""
    named = _by_name(found, notes)
    return {k: _read_one(k, value, problem, layout, notes) for k, value in named.items()}


def _by_name(found: Any, notes: dict[str, str]) -> dict[str, Any]:
    """Return what was returned under the names of gradients; dW is taken for W if need be."""
    if hasattr(found, "_asdict"):
        found = found._asdict()
    if not isinstance(found, Mapping):
        raise TypeError(
            f"the candidate returned a {type(found).__name__}; expected a mapping or a "
            f"namedtuple with any of {' '.join(GRADIENTS)}"
        )
    prefixed = {f"d{k}": k for k in GRADIENTS if f"d{k}" in found and k not in found}
    named = {prefixed.get(k, k): value for k, value in found.items()}
    if not any(k in named for k in GRADIENTS):
        raise TypeError(
            f"the candidate returned {sorted(map(str, found))}; "
            f"expected any of {' '.join(GRADIENTS)}"
        )
    if prefixed:
        notes["read names"] = f"{' '.join(prefixed)} were taken for {' '.join(prefixed.values())}"
    for k in named:
        if k not in RETURNED:
            notes[f"name {k}"] = f"{k!r} is not the name of a gradient, and was not looked at"
    return {k: named[k] for k in RETURNED if named.get(k) is not None}


def _read_one(
    name: str, value: Any, problem: Problem, layout: str, notes: dict[str, str]
) -> np.ndarray | Flaw:
    """Return one gradient as an array in the layout of ``Problem``, or what is wrong with it."""
    try:
        array = None if isinstance(value, np.ma.MaskedArray) else np.array(value)
        kind = "a masked array" if array is None else f"an array of {array.dtype}"
    except Exception as error:  # such as a tensor that keeps its graph
        array, kind = None, _in_words(error)
    if array is None or array.dtype.kind not in "fiu":
        return Flaw("raised", f"expected an array of real numbers, got {kind}")
    if array.dtype != problem.dtype:
        notes[f"dtype {name}"] = (
            f"{name} came as {array.dtype}, though the problem is {problem.dtype}"
        )
    expected = in_layout(name, np.empty(problem.gradient_shape(name)), problem, layout).shape
    if array.shape != expected:
        if _without_ones(array.shape) != _without_ones(expected):
            hint = _hint(name, array.shape, expected, problem, layout)
            return Flaw("wrong shape", f"shape {array.shape}, expected {expected}{hint}")
        notes[f"read {name}"] = f"{name} came as {array.shape} and was read as {expected}"
        array = array.reshape(expected)
    return _from_layout(name, array, problem, layout)


def _without_ones(shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(n for n in shape if n != 1)


def _hint(
    name: str, shape: tuple[int, ...], expected: tuple[int, ...], problem: Problem, layout: str
) -> str:
    """Return what a wrong shape looks like, if it looks like something."""
    sizes = problem.sizes
    if name in ("h", "states"):
        axis = int(layout == "batch_first" and "B" in sizes)
        if shape == (*expected[:axis], sizes["T"], *expected[axis + 1 :]):
            return "; one state is missing: there are T+1, from h[0] to h[T]"
    if shape == expected[::-1] and len(shape) == 2:
        return "; it looks transposed"
    if name not in WITH_BATCH:
        for size, over in (("T", "step"), ("B", "sequence")):
            if shape == (sizes.get(size), *expected):
                return f"; one for each {over}? The gradient is their sum"
    return ""
