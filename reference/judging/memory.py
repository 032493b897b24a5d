"""Whether a candidate depends on earlier calls.

Few random problems have the same shape, so a candidate that keeps something for each shape, or for
the arrays that it was given, may be right in all of them. So it is called again: with problems that
it has seen, in another order; twice in a row; and in arrays of the same shape with other numbers,
one array at a time, as in training, where parameters change and shapes stay.
"""

from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, NamedTuple

import numpy as np

from reference.judging.candidates import Caller
from reference.judging.verdicts import judge
from reference.problems import Problem, of_arrays, random_problem, round_numbers
from reference.report import FAILURES, Verdict

Draw = Mapping[str, Any]  # what ``draw_problems`` is given
SEEN_AGAIN = 8  # of the problems that were drawn
SHAPES = ((1, 8), (9, 40))  # steps of those whose shapes are called with other numbers
MOST_RESTARTS = 12


class History(NamedTuple):
    """Two problems of which the second is wrong when the first was called before it."""

    first: Problem
    second: Problem

    def in_words(self) -> str:
        """Return what the second call has in common with the first."""
        one, other = self.first.arrays, self.second.arrays
        if one["x"].shape != other["x"].shape:
            return "after a longer sequence it is wrong: is a buffer longer than what was filled?"
        changed = [k for k in one if not np.array_equal(one[k], other[k])]
        if not changed:
            return "called twice with the problem below, it is wrong: is a sum, or a buffer, kept?"
        if len(changed) == 1:
            return f"called again with {changed[0]} alone changed, it is wrong: is a result kept?"
        return "called again with other numbers in the same shapes, it is wrong: is a result kept?"


def to_call_again(drawn: Sequence[Problem]) -> Iterator[Problem]:
    """Yield problems of the shapes of those that were drawn, and some of these in another order."""
    for low, high in SHAPES:
        for like in islice((p for p in drawn if low <= p.sizes["T"] <= high), 1):
            problem, other = (_decisive(like, seed) for seed in (0, 1))
            yield from (problem, problem, other, *_one_changed(problem, other), problem)
    places = np.unique(np.linspace(0, len(drawn) - 1, SEEN_AGAIN).astype(int))
    for place in places[::-1]:
        yield drawn[place]


def shortest_history(caller: Caller, name: str, like: Problem, draw: Draw) -> History | None:
    """Return two problems of which a gradient of the second is wrong after the first, or None.

    Both are small, or of the sizes of a problem in which the candidate has failed. The first is
    right. Where the candidate can be started anew, it is, before the two are called.
    """
    restarts = 0
    for problem, other, longer in _small(like, draw):
        histories = [History(problem, problem), History(longer, problem)]
        histories += [History(problem, second) for second in _one_changed(problem, other)]
        histories.append(History(problem, other))
        called = judge(caller, (p for history in histories for p in history))
        wrong = [_is_wrong(verdicts, name) for verdicts, _ in called]
        for i, history in enumerate(histories):
            pair = wrong[2 * i : 2 * i + 2]
            if pair[1:] == [True] and restarts < MOST_RESTARTS and caller.runner.restart():
                restarts += 1
                pair = [_is_wrong(verdicts, name) for verdicts, _ in judge(caller, history)]
            if pair == [False, True]:
                return history
    return None


def _small(like: Problem, draw: Draw) -> Iterator[tuple[Problem, Problem, Problem]]:
    """Yield small problems of round numbers, each with one of other numbers and a longer one."""
    letters = "TBDHO" if draw["batched"] else "TDHO"

    def made(sizes: Mapping[str, int], *number: int) -> Problem:
        arrays = round_numbers(sizes, like.loss, like.cell, *number)
        return of_arrays(arrays, **like.options)

    small = [dict.fromkeys(letters, n) | draw["sizes"] for n in (1, 2, 3)]
    as_it_is = draw["few_shapes"] or "T" in draw["sizes"]
    for sizes in [like.sizes] if draw["few_shapes"] else [*small, like.sizes]:
        longer = sizes if as_it_is else {**sizes, "T": sizes["T"] + 2}
        yield made(sizes), made(sizes, 1), made(longer, 2)


def _is_wrong(verdicts: list[Verdict], name: str) -> bool:
    return any(v.gradient == name and v.status in FAILURES for v in verdicts)


def _decisive(like: Problem, seed: int) -> Problem:
    """Return a problem of the same sizes in which every gradient is well-conditioned."""
    sizes: dict[str, Any] = {"B": None, **like.sizes}
    return random_problem(**sizes, regime="contracting", seed=seed, **like.options)


def _one_changed(problem: Problem, other: Problem) -> Iterator[Problem]:
    """Yield the problem with each of its arrays, one at a time, from another."""
    for k, array in other.arrays.items():
        yield of_arrays(problem.arrays | {k: array}, **problem.options)
