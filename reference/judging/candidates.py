"""Calling a candidate in the layout it expects.

A candidate is ``candidate(params, x, h0, target)``; it returns a mapping or a namedtuple with any
of the gradients ``W U b V c x h0 h``, and its ``states`` if it likes, or a tuple whose order is
told. Where it is written for another layout than this package's (``reference.judging.layouts``),
arrays are rearranged on the way in and on the way back; what it returns is read in
``reference.judging.reading``.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from reference.arrays import OF_STATE, given_trees
from reference.judging.conventions import agreed
from reference.judging.layouts import LAYOUTS, arguments
from reference.judging.processes import CandidateProcess, NoVerdictError
from reference.judging.reading import Flaw, one_array_each, prefixed, read_outcome, returned
from reference.names import any_name, role_of
from reference.network.cell import Cell
from reference.problems import Problem
from reference.user_code import IGNORED, OutOfTimeError, Runner, said_by

Candidate = Callable[[Any, Any, Any, Any], Any] | CandidateProcess
Returns = Sequence[str] | Mapping[str, str]  # the parts of a tuple; or our names by others


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
    returns: Returns = ()
    spent: float = 0.0
    slowest: float = 0.0

    def __post_init__(self) -> None:
        is_process = isinstance(self.candidate, CandidateProcess)
        if not callable(self.candidate):
            kind = type(self.candidate).__name__
            raise TypeError(f"candidate is a {kind}; expected a function")
        declared = said_by(self.candidate, "declared")
        self.layout = agreed(declared, layout=self.layout)["layout"]
        if self.layout not in LAYOUTS:
            raise ValueError(f"layout is {self.layout!r}; expected one of {', '.join(LAYOUTS)}")
        budget = self.time_budget
        if budget is not None and not (isinstance(budget, int | float) and budget > 0):
            message = f"time_budget is {budget!r}; expected a number of seconds above 0, or None"
            raise ValueError(message)
        _require_order(self.returns)
        self.runner: Any = self.candidate if is_process else Runner(self.candidate)

    @property
    def out_of_time(self) -> bool:
        """Whether the budget is spent."""
        return self.time_budget is not None and self.spent >= self.time_budget

    @property
    def left(self) -> float | None:
        """The seconds that are left of the budget."""
        return None if self.time_budget is None else self.time_budget - self.spent

    def __call__(self, problem: Problem) -> Returned | None:
        """Call the candidate with copies of a problem; return None if there was no time for it."""
        if self.out_of_time:
            return None
        arrays = arguments(problem, self.layout)
        started = time.perf_counter()
        try:
            told = dict(self.returns) if isinstance(self.returns, Mapping) else {}
            wanted = (*returned(problem.cell), *prefixed(problem.cell), *told)
            outcome = self.runner(
                arrays, wanted, self.left, trees=_trees(problem),
                order=() if told else [*self.returns], like=any_name(one_array_each(problem.cell)),
            )  # fmt: skip
        except OutOfTimeError:
            return self._interrupted(time.perf_counter() - started, problem)
        except NoVerdictError as error:
            raise NoVerdictError(f"{error}: {problem.origin}") from None
        taken = time.perf_counter() - started
        self.spent, self.slowest = self.spent + taken, max(self.slowest, taken)
        notes = dict(outcome.notes)
        gradients = read_outcome(outcome, problem, self.layout, notes, told)
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


def _require_order(returns: Any) -> None:
    """Refuse what cannot be the names of the parts of a tuple, or of our gradients by others."""
    returns = [*returns.values()] if isinstance(returns, Mapping) else returns
    names = [name for name in returns if name not in IGNORED]
    no_text = isinstance(returns, str) or not all(isinstance(name, str) for name in returns)
    if no_text or len({*names}) < len(names):
        raise ValueError(
            f"returns is {returns!r}; expected names that differ, one for each part of the tuple, "
            'such as ("loss", "dWxh", "dWhh", "dbh", "_"): "loss" and "_" are no gradients'
        )


def require_known(returns: Returns, cell: Cell) -> None:
    """Refuse names of parts of a tuple that stand for no gradient of a cell."""
    known = {*returned(cell), *prefixed(cell), *IGNORED}
    if isinstance(returns, Mapping):
        for name, ours in returns.items():
            if ours not in returned(cell):
                expected = f"expected any of {' '.join(cell.gradients)}"
                raise ValueError(f"returns has {ours!r} for {name!r}; {expected}")
        return
    for name in returns:
        if name not in known and role_of(name, one_array_each(cell)) is None:
            raise ValueError(
                f"returns names {name!r}; expected any of {' '.join(cell.gradients)}, dW and so "
                f'on, or a name that follows a pattern, as dWxh does; "_" for what is no gradient'
            )


def _trees(problem: Problem) -> dict[str, Any]:
    """Return how what has several arrays is arranged, by all names that it may have."""
    cell = problem.cell
    if not cell.of_several:
        return {}
    names = dict.fromkeys((*OF_STATE, *(k for k, v in prefixed(cell).items() if v in OF_STATE)))
    return dict.fromkeys(names, cell.state) | given_trees(cell, problem.loss)
