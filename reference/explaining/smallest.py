"""The smallest problem that fails: few steps, sequences, inputs, units and outputs, round numbers.

Small problems of round numbers are tried first, in the order of their sizes. If none of them fails,
one that is known to fail is cut down: a step, a sequence, an input, a unit, an output at a time.
Then numbers are made zero, or round, as long as it still fails. Some attempts at a time are
answered by autodiff together.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain, islice, product
from typing import Any

import numpy as np

from reference.arrays import axes_of
from reference.judging.candidates import Caller
from reference.judging.verdicts import judge
from reference.network.cell import Cell
from reference.oracle.padding import each_shape_compiles
from reference.problems import Problem, of_arrays, round_numbers

MOST_STEPS = 12_000  # of all attempts together, so that long sequences are not shrunk for long
TOGETHER = 32  # attempts that are judged in one go
STEPS, LONG = (1, 2, 3, 4), (9, 17, 33, 40)

Arrays = dict[str, Any]


def smallest(
    caller: Caller,
    failing: list[Problem],
    name: str,
    status: str,
    *,
    batched: bool,
    sizes: Mapping[str, int],
) -> Problem | None:
    """Return the smallest problem found in which a gradient has this status, or None.

    ``failing`` are problems in which it has failed, all with the same options; ``sizes`` those that
    must not change.
    """
    loss, cell, options = failing[0].loss, failing[0].cell, failing[0].options
    search = _Search(caller, name, status)

    def problem_of(arrays: Arrays) -> Problem:
        return of_arrays(arrays, **options)

    few_shapes = each_shape_compiles(loss, cell)
    fresh = () if few_shapes else map(problem_of, _fresh(loss, batched, sizes, cell))
    found = search.first(fresh) or search.first(sorted(failing, key=_entries))
    simpler = found
    while simpler is not None:
        found, arrays = simpler, simpler.arrays
        cuts = () if few_shapes else _cuts(found, sizes)
        simpler = search.first(map(problem_of, chain(cuts, _rounder(found, arrays))))
    return found


@dataclass
class _Search:
    """Looks for problems in which a gradient of a candidate fails so, as long as it may."""

    caller: Caller
    name: str
    status: str
    steps: int = 0

    def first(self, attempts: Iterable[Problem]) -> Problem | None:
        """Return the first attempt that fails; some are judged at a time."""
        stream = iter(attempts)
        while self.steps < MOST_STEPS and (together := list(islice(stream, TOGETHER))):
            self.steps += sum(p.sizes["T"] for p in together)
            wrong = {
                id(v.problem)
                for verdicts, _ in judge(self.caller, together)
                for v in verdicts
                if (v.gradient, v.status) == (self.name, self.status)
            }
            if found := [p for p in together if id(p) in wrong]:
                return found[0]
        return None


def _entries(problem: Problem) -> int:
    return sum(array.size for array in problem.arrays.values())


# Fresh problems ----------------------------------------------------------------------------------


def _fresh(loss: Any, batched: bool, sizes: Mapping[str, int], cell: Cell) -> Iterator[Arrays]:
    """Yield small problems of round numbers, the smallest first."""
    free = [k for k in ("DHOB" if batched else "DHO") if k not in sizes]
    short = [(*n, T) for T in STEPS for n in product((1, 2), repeat=len(free))]
    long = [(*(n for _ in free), T) for T in LONG for n in (1, 2)]
    for numbers in sorted(short, key=lambda n: (n[-1], sum(n))) + long:
        yield round_numbers({**dict(zip([*free, "T"], numbers, strict=True)), **sizes}, loss, cell)


# Simpler ones ------------------------------------------------------------------------------------


def _cuts(problem: Problem, sizes: Mapping[str, int]) -> Iterator[Arrays]:
    """Yield problems with fewer steps, sequences, inputs, units or outputs, the smallest first."""
    for letter, n in problem.sizes.items():
        if n < 2 or letter in sizes:
            continue
        half = n // 2
        for kept in (range(half), range(half, n), range(n - 1), range(1, n)):
            yield {k: _kept(k, a, problem, letter, kept) for k, a in problem.arrays.items()}


def _kept(name: str, array: np.ndarray, problem: Problem, letter: str, places: range) -> np.ndarray:
    """Return an array without the other places of the axes of this letter, block by block."""
    axes = axes_of(problem.cell, problem.loss)[name]
    for number, axis in enumerate(a for a in axes if a.letter != "B" or "B" in problem.sizes):
        if axis.letter == letter:
            n = problem.sizes[letter]
            blocks = [k * n + place for k in range(axis.times) for place in places]
            array = array.take(blocks, axis=number)
    return array


def _rounder(problem: Problem, arrays: Arrays) -> Iterator[Arrays]:
    """Yield problems with zeros and round numbers in the place of others, many at once first."""
    everything = arrays
    if problem.facts.labels and arrays["target"].any():
        yield everything | {"target": 0 * arrays["target"]}
    if problem.tokens and arrays["x"][..., 1:].any():
        yield everything | {"x": 0 * arrays["x"]}  # which stands for the first token
    whole = ("target" * problem.facts.labels, "x" * problem.tokens)
    arrays = {k: array for k, array in arrays.items() if k not in whole}
    changes: tuple[Callable[[np.ndarray], np.ndarray], ...]
    changes = (lambda a: 0 * a, np.sign, np.round, lambda a: np.round(2 * a) / 2)
    for change in changes:
        for k, array in arrays.items():
            changed = change(array) + 0.0  # no -0
            if not np.array_equal(changed, array):
                yield everything | {k: changed}
    for number in (0.0, 1.0):
        for parts in (2, 4, 8, 16, None):
            for k, array in arrays.items():
                places = np.flatnonzero((array != number) & (array != 0))
                if places.size >= (parts or 1):
                    for some in np.array_split(places, parts or places.size):
                        yield everything | {k: _with(array, some, number)}


def _with(array: np.ndarray, places: np.ndarray, number: float) -> np.ndarray:
    """Return the array with a number at some places, counted through."""
    changed = array.copy()
    changed.flat[places] = number
    return changed
