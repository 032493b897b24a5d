"""Search: which break of the reverse pass makes the gradient that was returned?

A break explains a gradient if it makes every leaf of it, to within what rounding explains, at the
arguments that were given and at others near them. If no single break does, several are joined that
each explain some leaves and leave the others as they are, and pairs that meet in one leaf.
"""

from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from typing import Any, NamedTuple

import numpy as np

from reference.breaks.kinds import breaks
from reference.breaks.kinds.loops import windows
from reference.breaks.kinds.paths import scaled_paths
from reference.breaks.kinds.site import Break
from reference.breaks.reverse import reverse
from reference.breaks.tape import Loss, Program, Tape

ROUNDING = 256.0  # units of roundoff of the largest entry, allowed beside the tolerance
ENTRIES = 2_000_000  # of all gradients of the breaks that are tried at once
AT_ONCE = 512  # breaks
INPUTS = 3  # at which a break has to explain what is returned
BASES = 24  # breaks that explain some leaves, of which pairs are tried with all others
JOINED = 256  # ways to join breaks of some leaves each
MOST_TOGETHER = 8  # of these at once
MOST_ENTRIES = 20_000_000  # of the gradients of all paths times factors
LARGEST_DENOMINATOR = 5000
DIRECTIONS, MOST_PAIRED, NEAREST = 32, 5000, 1000  # of looking for pairs
ROUNDS, SETTLED, LARGEST_FACTOR = 8, 1e-9, 1e6  # of looking for a factor

Gradient = Callable[[list[np.ndarray]], list[np.ndarray] | None]
Measure = Callable[[list[np.ndarray]], list[tuple[np.ndarray, np.ndarray]]]


class Explanation(NamedTuple):
    """Breaks that together explain a gradient."""

    breaks: tuple[Break, ...]

    @property
    def edits(self) -> list[Any]:
        """Those of all breaks."""
        return [edit for b in self.breaks for edit in b.edits]

    @property
    def window(self) -> int | None:
        """That of its break; one that has a window stands alone."""
        return self.breaks[0].window

    @property
    def simplicity(self) -> tuple[int, int]:
        """How many breaks there are, and how many kinds of them: few are simple."""
        return len(self.breaks), len({b.says for b in self.breaks})


class Found(NamedTuple):
    """What explains a gradient: explanations that cannot be told apart, the simplest first.

    ``tried`` is how many were looked at.
    """

    explanations: list[Explanation]
    tape: Tape
    tried: int


class _Case(NamedTuple):
    """A gradient that was returned at some arguments, and what it is compared with."""

    tape: Tape
    returned: list[np.ndarray]
    right: list[np.ndarray]
    tolerance: list[np.ndarray]
    wrong: np.ndarray  # for each leaf

    @property
    def at_once(self) -> int:
        """How many versions of the gradient fit into memory."""
        return max(1, min(AT_ONCE, ENTRIES // max(sum(r.size for r in self.right), 1)))

    def rows(self, some: Sequence[Explanation]) -> list[np.ndarray]:
        """Return the gradients that explanations make, leaf by leaf."""
        return reverse(self.tape, [e.edits for e in some])[: len(self.returned)]

    def _truncated(self, one: Explanation) -> list[np.ndarray]:
        steps = self.tape.steps + 1
        start = (np.arange(steps) == 0).astype(float)
        rows = reverse(self.tape, [one.edits] * steps, start)[: len(self.returned)]
        return [np.broadcast_to(r, (steps, *r.shape[1:]))[: one.window].sum(0)[None] for r in rows]

    def measured(self, some: Sequence[Explanation]) -> tuple[np.ndarray, np.ndarray]:
        """Return which leaves each makes as they were returned, and which as is right."""
        if not some:
            return (np.zeros((0, len(self.right)), bool),) * 2
        parts = []
        plain = [e for e in some if e.window is None]
        for start in range(0, len(plain), self.at_once):
            part = plain[start : start + self.at_once]
            parts.append(self._compared(len(part), self.rows(part)))
        parts += [self._compared(1, self._truncated(e)) for e in some if e.window is not None]
        explains, leaves = (np.concatenate(column) for column in zip(*parts, strict=True))
        order = np.argsort([e.window is not None for e in some], kind="stable").argsort()
        return explains[order], leaves[order]

    def _compared(self, count: int, rows: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        explains, leaves = (
            np.stack([_within(count, *z) for z in zip(rows, to, self.tolerance, strict=True)], 1)
            for to in (self.returned, self.right)
        )
        return explains, leaves

    def those_that_explain(self, some: Sequence[Explanation]) -> list[Explanation]:
        """Return the explanations that make every leaf as it was returned."""
        explains, _ = self.measured(some)
        return [s for s, e in zip(some, explains, strict=True) if e.all()]


def _within(count: int, rows: np.ndarray, to: np.ndarray, tolerance: np.ndarray) -> np.ndarray:
    """Return for each version whether it is what is looked for."""
    near = (np.abs(rows - to) <= tolerance).reshape(len(rows), -1).all(1)
    return np.broadcast_to(near, count)


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
        case = _case(program, values, returned, measure, u)
        if case is None or not case.wrong.any():
            return None
        found, tried = _singly(case)
        if not found:
            found, more = _together(case)
            tried += more
        for other in _others(program, values, gradient, measure, u, dtype, rng):
            found = other.those_that_explain(found)
    return Found(found, case.tape, tried)


def _case(
    program: Program, values: list[np.ndarray], returned: Any, measure: Measure, u: float
) -> _Case | None:
    """Return what there is to explain; None if that cannot be said."""
    if returned is None or not all(np.isfinite(a).all() for a in returned):
        return None
    tape = Tape(program, values)
    measured = measure(values)
    right = [rows[0] for rows in reverse(tape)[: len(returned)]]
    tolerance = [
        t + ROUNDING * u * max(np.abs(a).max(initial=0), np.abs(b).max(initial=0))
        for (a, t), b in zip(measured, returned, strict=True)
    ]
    truth = [a for a, _ in measured]
    same = [_within(1, r[None], *z)[0] for r, *z in zip(right, truth, tolerance, strict=True)]
    if not all(same):  # autodiff follows a rule of the user's own, or is too far from exact
        return None
    wrong = np.array(
        [not _within(1, r[None], *z)[0] for r, *z in zip(returned, truth, tolerance, strict=True)]
    )
    return _Case(tape, returned, right, tolerance, wrong)


def _others(
    program: Program,
    values: Any,
    gradient: Gradient,
    measure: Measure,
    u: float,
    dtype: Any,
    rng: Any,
) -> Iterator[_Case]:
    """Yield the case at other arguments, near the ones that were given."""
    for _ in range(INPUTS - 1):
        other = [
            v if i >= program.number and (v == np.round(v)).all() else _near(v, rng)
            for i, v in enumerate(values)  # a mask of zeros and ones, or labels, stay as they are
        ]
        other = [np.asarray(v.astype(dtype), np.float64) for v in other]
        case = _case(program, other, gradient(other), measure, u)
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


def _bits(leaves: np.ndarray) -> int:
    return sum(1 << int(i) for i in np.flatnonzero(leaves))


def _singly(case: _Case) -> tuple[list[Explanation], int]:
    """Return the breaks that explain a gradient by themselves, and how many were tried."""
    wanted = _bits(case.wrong)
    tried = 0
    for kind in (breaks, windows):
        some = [Explanation((b,)) for b in kind(case.tape, wanted)]
        tried += len(some)
        if found := case.those_that_explain(some):
            return found, tried
    some = _factors(case, case.wrong)
    return case.those_that_explain(some), tried + len(some)


def _factors(case: _Case, leaves: np.ndarray) -> list[Explanation]:
    """Return a break for each path that is multiplied by some number, with the best number.

    What a path times c makes of the gradient is linear in c, or nearly so where the path is taken
    at several steps: the error and the difference of the last two tries say how to go on.
    """
    chosen = np.flatnonzero(leaves)
    wanted = _bits(leaves)
    returned, right = (_flat([a[i][None] for i in chosen]) for a in (case.returned, case.right))
    factors = np.zeros(len(scaled_paths(case.tape, wanted)))
    if len(factors) * returned.size > MOST_ENTRIES:
        return []
    before, at_before = np.ones(len(factors)), right
    for _ in range(ROUNDS):
        some = [Explanation((b,)) for b in scaled_paths(case.tape, wanted, factors.tolist())]
        at = _flat([r for i, r in enumerate(_in_parts(case, some)) if leaves[i]])
        moved = factors - before
        slope = (at - at_before) / np.where(moved == 0, 1, moved)[:, None]
        square = np.sum(slope * slope, 1)
        step = np.sum((returned - at) * slope, 1) / np.where(square > 0, square, 1)
        before, at_before = factors, at
        factors = np.where(np.isfinite(step) & (np.abs(step) > SETTLED), factors + step, factors)
    near = [i for i, c in enumerate(factors) if abs(c - 1) > SETTLED and abs(c) < LARGEST_FACTOR]
    simple = scaled_paths(case.tape, wanted, [_simple(c) for c in factors])
    return [Explanation((simple[i],)) for i in near]


def _simple(factor: float) -> float:
    """Return the fraction that a number is, if it is one of small numbers."""
    if not abs(factor) < LARGEST_FACTOR:
        return factor
    fraction = float(Fraction(factor).limit_denominator(LARGEST_DENOMINATOR))
    return fraction if abs(fraction - factor) <= SETTLED * abs(factor) else factor


def _in_parts(case: _Case, some: list[Explanation]) -> list[np.ndarray]:
    parts = [
        [np.broadcast_to(r, (len(part), *r.shape[1:])) for r in case.rows(part)]
        for part in (some[i : i + case.at_once] for i in range(0, len(some), case.at_once))
    ]
    return [np.concatenate(leaf) for leaf in zip(*parts, strict=True)]


def _flat(rows: list[np.ndarray]) -> np.ndarray:
    return np.concatenate([r.reshape(len(r), -1) for r in rows], axis=1)


def _together(case: _Case) -> tuple[list[Explanation], int]:
    """Return breaks that explain a gradient together, and how many were tried."""
    parts: dict[bytes, tuple[Break, np.ndarray, np.ndarray]] = {}
    tried = 0
    for leaf in np.flatnonzero(case.wrong):
        alone = np.arange(len(case.wrong)) == leaf
        some = [Explanation((b,)) for b in breaks(case.tape, _bits(alone))]
        some += _factors(case, alone)
        tried += len(some)
        for e, makes, keeps in zip(some, *case.measured(some), strict=True):
            if makes[leaf]:
                what = e.breaks[0].says.encode() + makes.tobytes() + keeps.tobytes()
                parts.setdefault(what, (e.breaks[0], makes, keeps))
    found = case.those_that_explain(_joined(case, list(parts.values())))
    if not found:
        found, more = _pairs(case, list(parts.values()))
        tried += more
    if not found:
        found = case.those_that_explain(_near_pairs(case))
    simplest = min((e.simplicity for e in found), default=None)
    return [e for e in found if e.simplicity == simplest], tried


def _joined(case: _Case, parts: list[tuple[Break, np.ndarray, np.ndarray]]) -> list[Explanation]:
    """Return breaks that explain some leaves each, and leave the others as they are."""
    apart = [(b, makes & case.wrong) for b, makes, keeps in parts if (makes | keeps).all()]
    found: list[Explanation] = []

    def extend(chosen: tuple[Break, ...], left: np.ndarray) -> None:
        if len(found) >= JOINED or len(chosen) > MOST_TOGETHER:
            return
        if not left.any():
            found.append(Explanation(chosen))
            return
        leaf = np.flatnonzero(left)[0]
        said = {b.says for b in chosen}
        for b, makes in sorted(apart, key=lambda part: (part[0].says not in said, -part[1].sum())):
            if makes[leaf]:
                extend((*chosen, b), left & ~makes)

    extend((), case.wrong)
    return sorted(found, key=lambda e: e.simplicity)


def _pairs(case: _Case, parts: list[Any]) -> tuple[list[Explanation], int]:
    """Return pairs of which one explains some leaf by itself, and the other meets it elsewhere."""
    bases: dict[bytes, Any] = {}
    for part in parts:
        bases.setdefault(part[1].tobytes() + part[2].tobytes(), part)
    tried = 0
    for base, makes, _ in sorted(bases.values(), key=lambda part: -part[1].sum())[:BASES]:
        listed = breaks(case.tape, _bits(case.wrong & ~makes))
        some = [Explanation((base, b)) for b in listed]
        tried += len(some)
        if found := case.those_that_explain(some):
            return found, tried
    return [], tried


def _near_pairs(case: _Case) -> list[Explanation]:
    """Return pairs whose changes add up to nearly what is wrong, the nearest first.

    They would add up exactly if neither met what the other sends. Changes are seen through a few
    random directions.
    """
    every = [Explanation((b,)) for b in breaks(case.tape, 0)]
    largest = [np.full(r.size, max(np.abs(r).max(initial=0), 1e-300)) for r in case.right]
    size = np.concatenate(largest)[:, None]
    directions = np.random.default_rng(0).standard_normal((len(size), DIRECTIONS)) / size
    right, returned = (_flat([a[None] for a in arrays]) for arrays in (case.right, case.returned))
    wrong = (returned - right) @ directions
    seen = []
    for start in range(0, len(every), case.at_once):
        part = every[start : start + case.at_once]
        seen.append((_flat(_in_parts(case, part)) - right) @ directions)
    changes = np.concatenate(seen)
    sizes = np.linalg.norm(changes, axis=1)
    chosen = np.flatnonzero(np.isfinite(sizes) & (sizes > SETTLED * np.linalg.norm(wrong)))
    alike = {
        np.round(changes[i] / sizes[i], 9).tobytes() + np.round(np.log(sizes[i]), 9).tobytes(): i
        for i in chosen[::-1]
    }
    chosen = np.array(sorted(alike.values())[:MOST_PAIRED], int)
    if len(chosen) < 2:
        return []
    changes = changes[chosen]
    distance = np.empty((len(chosen), len(chosen)))
    squares = np.sum(changes**2, 1)
    for i in range(0, len(chosen), AT_ONCE):
        left = wrong - changes[i : i + AT_ONCE]
        distance[i : i + AT_ONCE] = np.sum(left**2, 1)[:, None] + squares - 2 * left @ changes.T
    distance[np.tril_indices(len(chosen))] = np.inf
    nearest = np.argpartition(distance, min(NEAREST, distance.size - 1), axis=None)[:NEAREST]
    nearest = nearest[np.argsort(distance.flat[nearest])]
    pairs = zip(*np.unravel_index(nearest, distance.shape), strict=True)
    return [
        Explanation((*every[chosen[i]].breaks, *every[chosen[j]].breaks))
        for i, j in pairs
        if np.isfinite(distance[i, j])
    ]
