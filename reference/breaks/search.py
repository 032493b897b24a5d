"""Search: which break of the reverse pass makes the gradient that was returned?

A break explains a gradient if it makes every leaf of it, to within what rounding explains, at the
arguments that were given and at others near them. If no single break does, several are joined that
each explain some leaves and leave the others as they are, and pairs that meet in one leaf; and if
none do, the place is sought from which on all is right.
"""

from collections.abc import Callable, Iterator
from itertools import chain
from typing import Any, NamedTuple

import numpy as np

from reference.breaks.case import Case, Explanation, Measure, TooLongError
from reference.breaks.factors import factors
from reference.breaks.kinds import breaks
from reference.breaks.kinds.constants import other_losses
from reference.breaks.kinds.free import families
from reference.breaks.kinds.loops import windows
from reference.breaks.kinds.whole import clipped, elsewhere
from reference.breaks.tape import Loss, Program, Tape
from reference.breaks.together import together

INPUTS = 3  # at which a break has to explain what is returned

Gradient = Callable[[list[np.ndarray]], list[np.ndarray] | None]
Way = Callable[[Case], Iterator[tuple[list[Explanation], int]]]


class Found(NamedTuple):
    """What explains a gradient: explanations that cannot be told apart, the simplest first.

    ``tried`` is how many were looked at, and ``to_end`` whether these were all.
    """

    explanations: list[Explanation]
    tape: Tape
    tried: int
    to_end: bool = True


def search(
    loss: Loss,
    values: list[np.ndarray],
    gradient: Gradient,
    measure: Measure,
    u: float,
    dtype: Any,
    rng: np.random.Generator,
) -> Found | None:
    """Return what explains a gradient in the first of the values, or None if nothing does.

    Parameters
    ----------
    loss : callable
        Of a list of all values.
    values : list of arrays
        Those that the gradient is in come first.
    gradient : callable
        What is judged: the gradient in as many of the values as it returns, or None if it has none.
    measure : callable
        What is right, with a tolerance for every entry.
    u : float
        The unit roundoff of what is judged.
    dtype : dtype
        That of the numbers it takes.
    rng : Generator
        Draws other values.

    Raises
    ------
    UnsearchableError
        If the operations of the loss cannot be followed.
    """
    with np.errstate(all="ignore"):  # a broken rule may divide by zero
        returned = gradient(values)
        if returned is None:
            return None
        program = Program.of(loss, values, len(returned))
        case = Case.at(program, values, returned, measure, u)
        if case is None or not case.wrong.any():
            return None
        return _first_found(
            case, lambda: _others(program, values, gradient, measure, u, dtype, rng)
        )


def _first_found(case: Case, at_others: Callable[[], Iterator[Case]]) -> Found:
    """Return what explains a case, and does so at other arguments."""
    others: list[Case] | None = None
    tried = 0
    try:
        for found, more in chain.from_iterable(way(case) for way in WAYS):
            tried += more
            if found and others is None:
                others = list(at_others())
            for other in others or ():
                found = other.those_that_explain(found)
            if found:
                return Found(found, case.tape, tried)
    except TooLongError:
        return Found([], case.tape, tried, to_end=False)
    return Found([], case.tape, tried)


def _others(
    program: Program,
    values: Any,
    gradient: Gradient,
    measure: Measure,
    u: float,
    dtype: Any,
    rng: Any,
) -> Iterator[Case]:
    """Yield the case at other arguments, near the ones that were given."""
    for _ in range(INPUTS - 1):
        other = [
            v if i >= program.number and (v == np.round(v)).all() else _near(v, rng)
            for i, v in enumerate(values)  # a mask of zeros and ones, or labels, stay as they are
        ]
        other = [np.asarray(v.astype(dtype), np.float64) for v in other]
        case = Case.at(program, other, gradient(other), measure, u)
        if case is not None:
            yield case


def _near(value: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return an array of numbers a little larger or smaller; symmetric matrices stay so."""
    change = rng.uniform(-1, 1, value.shape)
    if value.ndim > 1 and value.shape[-1] == value.shape[-2]:
        turned = np.swapaxes(value, -1, -2)
        if np.array_equal(value, turned):
            change = (change + np.swapaxes(change, -1, -2)) / 2
    return np.asarray(value * (1 + 0.1 * change))


def _singly(case: Case) -> Iterator[tuple[list[Explanation], int]]:
    """Yield the breaks that explain a gradient by themselves, and how many were tried."""
    for kind in (breaks, windows):
        some = [Explanation((b,)) for b in kind(case.tape, case.wanted)]
        yield case.those_that_explain(some), len(some)
    some = factors(case, case.wrong)
    yield case.those_that_explain(some), len(some)


def _wholly(case: Case) -> Iterator[tuple[list[Explanation], int]]:
    """Yield what was done to the whole gradient, or where else it is right."""
    of = case.tape, case.wanted
    for kind in (clipped(case.returned, case.wrong), elsewhere(case.tape), other_losses(*of)):
        some = [Explanation((b,)) for b in kind]
        yield case.those_that_explain(some), len(some)


def _together(case: Case) -> Iterator[tuple[list[Explanation], int]]:
    """Yield what explains a gradient together."""
    yield together(case)


def _freely(case: Case) -> Iterator[tuple[list[Explanation], int]]:
    """Yield the breaks with unknown numbers that explain a gradient, family by family."""
    for family in families(case.tape, case.wanted):
        solved = case.solved(family)
        yield [Explanation((free.broken(n),)) for free, n in solved.items()], len(family)


WAYS: tuple[Way, ...] = (_singly, _wholly, _together, _freely)
"""The ways to look for what explains a gradient, until one is found."""
