"""Calling a candidate in the layout it expects, and reading what it returns without guessing.

A candidate is ``candidate(params, x, h0, target)``; it returns a mapping or a namedtuple with any
of the gradients ``W U b V c x h0 h``, and its ``states`` if it likes. Where it is written for
another layout than this package's, arrays are rearranged on the way in and on the way back:

    layout            x          h0      target, y   h, states     b, c          W, U, V
    time_first        (T, B, D)  (B, H)  (T, B, O)   (T+1, B, H)   (H,), (O,)    W @ h
    batch_first       (B, T, D)  (B, H)  (B, T, O)   (B, T+1, H)   (H,), (O,)    W @ h
    columns           (T, D, B)  (H, B)  (T, O, B)   (T+1, H, B)   (H, 1), (O, 1)  W @ h
    rows              (T, B, D)  (B, H)  (T, B, O)   (T+1, B, H)   (H,), (O,)    h @ W
    batch_first_rows  (B, T, D)  (B, H)  (B, T, O)   (B, T+1, H)   (H,), (O,)    h @ W

Where the state of a cell has several arrays, h0, h and states are arranged as it is, in tuples and
mappings, and each array has axes of its own in the place of H.

In rows, every parameter with two axes, and its gradient, is the transpose: W (H, H), U (D, H),
V (H, O), and for gates W (H, 3H), so that they stand side by side along the last axis. Time comes
first there as in time_first, but for batch_first_rows. In columns a single sequence has one column,
elsewhere it has no batch axis. The target of ``last_step_squared_error`` has no axis of time.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from reference.arrays import OF_STATE, given_trees, root
from reference.judging.processes import CandidateProcess, NoVerdictError
from reference.network.cell import Cell
from reference.problems import Problem
from reference.user_code import Outcome, OutOfTimeError, Runner, arranged

Candidate = Callable[[Any, Any, Any, Any], Any] | CandidateProcess
LAYOUTS = ("time_first", "batch_first", "columns", "rows", "batch_first_rows")
BATCH_FIRST = frozenset({"batch_first", "batch_first_rows"})
OF_ROWS = frozenset({"rows", "batch_first_rows"})  # parameters are the transposes
WITH_BATCH = frozenset({"x", "h0", "target", "h", "states"})  # arrays that have a batch axis
OVER_TIME = frozenset({"x", "target", "h", "states"})  # and that have an axis of time before it


class Flaw(NamedTuple):
    """What is in the place of a gradient that cannot be compared: a status and what came."""

    status: str
    detail: str


class Returned(NamedTuple):
    """What one call gave: arrays or flaws by name, or one flaw for all of them; and notes.

    Arrays are in the layout of ``Problem``. Notes are by what they are about, so that each is said
    once; those on how a result was read are about "read ...", those on names that mean nothing
    here about "name ...".
    """

    gradients: dict[str, np.ndarray | Flaw] | Flaw
    notes: dict[str, str]

    def array(self, name: str) -> np.ndarray | None:
        """Return a gradient of finite numbers, if there is one."""
        found = None if isinstance(self.gradients, Flaw) else self.gradients.get(name)
        return found if isinstance(found, np.ndarray) and np.isfinite(found).all() else None


@dataclass
class Caller:
    """Calls a candidate, and keeps account of the time that it takes.

    A ``CandidateProcess`` that exceeds what is left of the budget is ended. A function is
    interrupted, if it can be, in the main thread; what it prints and warns of is kept from the
    terminal there. In other threads neither is possible, and the budget is looked at between calls.
    """

    candidate: Any
    layout: str = "time_first"
    time_budget: float | None = None
    spent: float = 0.0
    slowest: float = 0.0

    def __post_init__(self) -> None:
        is_process = isinstance(self.candidate, CandidateProcess)
        if not callable(self.candidate):
            kind = type(self.candidate).__name__
            raise TypeError(f"candidate is a {kind}; expected a function")
        if self.layout not in LAYOUTS:
            raise ValueError(f"layout is {self.layout!r}; expected one of {', '.join(LAYOUTS)}")
        budget = self.time_budget
        if budget is not None and not (isinstance(budget, int | float) and budget > 0):
            message = f"time_budget is {budget!r}; expected a number of seconds above 0, or None"
            raise ValueError(message)
        self.runner: Any = self.candidate if is_process else Runner(self.candidate)

    @property
    def out_of_time(self) -> bool:
        """Whether the budget is spent."""
        return self.time_budget is not None and self.spent >= self.time_budget

    def __call__(self, problem: Problem) -> Returned | None:
        """Call the candidate with copies of a problem; return None if there was no time for it."""
        if self.out_of_time:
            return None
        arrays = _arguments(problem, self.layout)
        left = None if self.time_budget is None else self.time_budget - self.spent
        started = time.perf_counter()
        try:
            wanted = (*returned(problem.cell), *prefixed(problem.cell))
            outcome = self.runner(arrays, wanted, left, _trees(problem))
        except OutOfTimeError:
            return self._interrupted(time.perf_counter() - started, problem)
        except NoVerdictError as error:
            raise NoVerdictError(f"{error}: {problem.origin}") from None
        taken = time.perf_counter() - started
        self.spent, self.slowest = self.spent + taken, max(self.slowest, taken)
        notes = dict(outcome.notes)
        gradients = _read(outcome, problem, self.layout, notes)
        if _finite(gradients):
            notes.pop("warns of a product", None)
        return Returned(gradients, notes)

    def _interrupted(self, taken: float, problem: Problem) -> Returned | None:
        """Say that a call took too long if it had most of the budget, or was only unlucky."""
        budget = float(self.time_budget or 0)
        self.spent = budget
        if taken < budget / 2:
            self.runner.restart()  # a process was ended by it
            return None
        if isinstance(self.runner, CandidateProcess):
            raise NoVerdictError(
                f"the candidate did not return within {taken:.3g} s and was stopped in call "
                f"{self.runner.calls}: {problem.origin}"
            )
        return Returned(Flaw("raised", f"TimeoutError: no answer within {taken:.3g} s"), {})


def _finite(gradients: dict[str, np.ndarray | Flaw] | Flaw) -> bool:
    """Return whether there are arrays alone, of finite numbers."""
    return not isinstance(gradients, Flaw) and all(
        isinstance(found, np.ndarray) and bool(np.isfinite(found).all())
        for found in gradients.values()
    )


def returned(cell: Cell) -> tuple[str, ...]:
    """Return the names of what a candidate may return for a cell."""
    return (*cell.gradients, "states")


def prefixed(cell: Cell) -> dict[str, str]:
    """Return names that people give the gradients: dW for W."""
    return {f"d{k}": k for k in cell.gradients if f"d{k}" not in returned(cell)}


def _trees(problem: Problem) -> dict[str, Any]:
    """Return how what has several arrays is arranged, by all names that it may have."""
    cell = problem.cell
    if not cell.of_several:
        return {}
    names = dict.fromkeys((*OF_STATE, *(k for k, v in prefixed(cell).items() if v in OF_STATE)))
    return dict.fromkeys(names, cell.state) | given_trees(cell, problem.loss)


# Layouts -----------------------------------------------------------------------------------------


def _arguments(problem: Problem, layout: str) -> dict[str, np.ndarray]:
    """Return the arrays of a problem in a layout."""
    return {k: in_layout(k, a, problem, layout) for k, a in problem.arrays.items()}


def in_layout(name: str, array: np.ndarray, problem: Problem, layout: str) -> np.ndarray:
    """Return an array of a problem, or the gradient in it, as a layout has it."""
    batched, name = "B" in problem.sizes, root(name)
    timeless = name == "target" and not problem.facts.over_time
    if layout in OF_ROWS and name in problem.cell.fields:
        return array.T if array.ndim == 2 else array
    if layout in BATCH_FIRST and name in OVER_TIME and batched and not timeless:
        return array.swapaxes(0, 1)
    if layout == "columns" and name in WITH_BATCH and batched:
        return np.moveaxis(array, int(name in OVER_TIME and not timeless), -1)
    if layout == "columns" and not (name in problem.cell.fields and array.ndim > 1):
        return array[..., None]
    return array


def _from_layout(name: str, array: np.ndarray, problem: Problem, layout: str) -> np.ndarray:
    """Return an array in a layout as ``Problem`` has it: the inverse of ``in_layout``."""
    if layout == "columns" and root(name) in WITH_BATCH and "B" in problem.sizes:
        return np.moveaxis(array, -1, int(root(name) in OVER_TIME))
    if layout == "columns" and array.ndim > len(problem.gradient_shape(name)):
        return array[..., 0]
    return in_layout(name, array, problem, layout)  # exchanging two axes undoes itself


# Reading what was returned -----------------------------------------------------------------------


def _read(
    outcome: Outcome, problem: Problem, layout: str, notes: dict[str, str]
) -> dict[str, np.ndarray | Flaw] | Flaw:
    """Return {gradient: array or flaw} from what a candidate returned, and add to the notes."""
    if outcome.failure:
        return Flaw("raised", outcome.failure)
    values, cell = outcome.values, problem.cell
    came = {root(k) for k in values}
    others = {k: v for k, v in prefixed(cell).items() if k in came and v not in came}
    named = {k.replace(root(k), others.get(root(k), root(k)), 1): v for k, v in values.items()}
    there = {root(k) for k in named}
    if not any(k in there for k in cell.gradients):
        names = [*map(repr, values), *outcome.others]
        expected = f"expected any of {' '.join(cell.gradients)}"
        return Flaw("raised", f"the candidate returned [{', '.join(names)}]; {expected}")
    if others:
        notes["read names"] = f"{' '.join(others)} were taken for {' '.join(others.values())}"
    known = returned(cell)
    for k in (*outcome.others, *(repr(k) for k in there if k not in known)):
        notes[f"name {k}"] = f"{k} is not the name of a gradient, and was not looked at"

    def read(name: str) -> np.ndarray | Flaw:
        return _read_one(name, named[name], problem, layout, notes)

    return {
        k: read(k) if k in named else _read_several(k, problem, read) for k in known if k in there
    }


def _read_several(
    name: str, problem: Problem, read: Callable[[str], np.ndarray | Flaw]
) -> np.ndarray | Flaw:
    """Return the arrays of something like a state as vectors, or what is wrong with one."""
    arrays: dict[str, np.ndarray] = {}
    for place in problem.cell.leaves:
        found = read(f"{name}{place}")
        if isinstance(found, Flaw):
            return Flaw(found.status, f"{name}{place}: {found.detail}")
        arrays[place] = found
    return problem.cell.packed(arranged(problem.cell.state, arrays))


def _read_one(
    name: str, array: np.ndarray | str, problem: Problem, layout: str, notes: dict[str, str]
) -> np.ndarray | Flaw:
    """Return one gradient as an array in the layout of ``Problem``, or what is wrong with it."""
    if isinstance(array, str):
        arranged_otherwise = array.startswith("expected")
        return Flaw(
            "raised",
            array if arranged_otherwise else f"expected an array of real numbers, got {array}",
        )
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
    if root(name) in ("h", "states"):
        axis = int(layout in BATCH_FIRST and "B" in sizes)
        if shape == (*expected[:axis], sizes["T"], *expected[axis + 1 :]):
            return "; one state is missing: there are T+1, from h[0] to h[T]"
    if shape == expected[::-1] and len(shape) == 2:
        return "; it looks transposed"
    if root(name) not in WITH_BATCH:
        for size, over in (("T", "step"), ("B", "sequence")):
            if shape == (sizes.get(size), *expected):
                return f"; one for each {over}? The gradient is their sum"
    return ""
