"""Case: a gradient that was returned at some arguments, what is right, and what breaks make."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from reference.breaks.kinds.free import Free
from reference.breaks.kinds.site import Break
from reference.breaks.reverse import reverse
from reference.breaks.solving import solve
from reference.breaks.tape import Program, Tape

ROUNDING = 256.0  # units of roundoff of the largest entry, allowed beside the tolerance
ENTRIES = 2_000_000  # of all gradients of the breaks that are tried at once
AT_ONCE = 512  # breaks
MOST_WORK = 30_000_000  # operations, of all breaks: half a minute, or less

Measure = Callable[[list[np.ndarray]], list[tuple[np.ndarray, np.ndarray]]]


class Explanation(NamedTuple):
    """Breaks that together explain a gradient."""

    breaks: tuple[Break, ...]

    @property
    def edits(self) -> list[Any]:
        """Those of all breaks."""
        return [edit for b in self.breaks for edit in b.edits]

    @property
    def simplicity(self) -> tuple[int, int]:
        """How many breaks there are, and how many kinds of them: few are simple."""
        return len(self.breaks), len({b.says for b in self.breaks})


class TooLongError(Exception):
    """A search would take too long."""


class Work:
    """How many operations have been carried out, in all versions."""

    def __init__(self) -> None:
        self.done = 0

    def add(self, versions: int, tape: Tape) -> None:
        """Count what is to be done; raise TooLongError if it is too much."""
        self.done += versions * len(tape.nodes)
        if self.done > MOST_WORK:
            raise TooLongError


class Case(NamedTuple):
    """A gradient that was returned at some arguments, and what it is compared with."""

    tape: Tape
    returned: list[np.ndarray]
    right: list[np.ndarray]
    tolerance: list[np.ndarray]
    wrong: np.ndarray  # for each leaf
    work: Work

    @classmethod
    def at(
        cls, program: Program, values: list[np.ndarray], returned: Any, measure: Measure, u: float
    ) -> "Case | None":
        """Return what there is to explain at some values; None if that cannot be said."""
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
        right_leaves = [
            _within(1, r[None], *z)[0] for r, *z in zip(returned, truth, tolerance, strict=True)
        ]
        return cls(tape, returned, right, tolerance, ~np.array(right_leaves), Work())

    @property
    def wanted(self) -> int:
        """A bit for each leaf that is wrong."""
        return bits(self.wrong)

    @property
    def at_once(self) -> int:
        """How many versions of the gradient fit into memory."""
        return max(1, min(AT_ONCE, ENTRIES // max(sum(r.size for r in self.right), 1)))

    def rows(self, some: Sequence[Explanation]) -> list[np.ndarray]:
        """Return the gradients that explanations make, leaf by leaf."""
        return self._leaves([e.edits for e in some])

    def _leaves(self, versions: Sequence[Any], **options: Any) -> list[np.ndarray]:
        self.work.add(len(versions), self.tape)
        rows = reverse(self.tape, versions, **options)[: len(self.returned)]
        return [np.broadcast_to(r, (len(versions), *r.shape[1:])) for r in rows]

    def _alone(self, broken: Break) -> list[np.ndarray]:
        """Return the gradient that a break makes that cannot be tried beside others."""
        self.work.add(AT_ONCE, self.tape)  # nearly as much as for many
        if broken.other_tape is not None:
            return reverse(broken.other_tape(self.tape), [broken.edits])[: len(self.returned)]
        steps = self.tape.steps + 1
        start = (np.arange(steps) == 0).astype(float)
        rows = self._leaves([broken.edits] * steps, start=start)
        return [r[: broken.window].sum(0)[None] for r in rows]

    def measured(self, some: Sequence[Explanation]) -> tuple[np.ndarray, np.ndarray]:
        """Return which leaves each makes as they were returned, and which as is right."""
        if not some:
            return (np.zeros((0, len(self.right)), bool),) * 2
        alone = np.array([e.breaks[0].alone for e in some])
        plain = [e for e, is_alone in zip(some, alone, strict=True) if not is_alone]
        parts = []
        for start in range(0, len(plain), self.at_once):
            part = plain[start : start + self.at_once]
            parts.append(self._compared(len(part), self.rows(part)))
        parts += [self._compared(1, self._alone(e.breaks[0])) for e in some if e.breaks[0].alone]
        explains, leaves = (np.concatenate(column) for column in zip(*parts, strict=True))
        order = np.argsort(alone, kind="stable").argsort()
        return explains[order], leaves[order]

    def _compared(self, count: int, rows: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        explains, leaves = (
            np.stack([_within(count, *z) for z in zip(rows, to, self.tolerance, strict=True)], 1)
            for to in (self.returned, self.right)
        )
        return explains, leaves

    def those_that_explain(self, some: Sequence[Explanation]) -> list[Explanation]:
        """Return the explanations that make every leaf as it was returned."""
        free = [e.breaks[0].free for e in some if e.breaks[0].free is not None]
        solved = self.solved(free)
        fixed = [e for e in some if e.breaks[0].free is None]
        explains, _ = self.measured(fixed)
        explained = {id(e) for e, leaves in zip(fixed, explains, strict=True) if leaves.all()}
        return [e for e in some if id(e) in explained or e.breaks[0].free in solved]

    def solved(self, frees: list[Free]) -> dict[Free, np.ndarray]:
        """Return the numbers of those free breaks that make every leaf as it was returned."""
        largest = [np.full(r.size, max(np.abs(r).max(initial=0), 1e-300)) for r in self.right]
        scale = np.concatenate(largest)
        returned, right, tolerance = (
            flat([a[None] for a in leaves])[0] / scale
            for leaves in (self.returned, self.right, self.tolerance)
        )

        def gradients(versions: list[Any]) -> np.ndarray:
            parts = [versions[i : i + self.at_once] for i in range(0, len(versions), self.at_once)]
            return np.concatenate([flat(self._leaves(part)) / scale for part in parts])

        return solve(frees, gradients, returned, right, tolerance)

    def in_parts(self, some: Sequence[Explanation]) -> list[np.ndarray]:
        """Return the gradients that explanations make, leaf by leaf, as many at once as fit."""
        parts = [self.rows(some[i : i + self.at_once]) for i in range(0, len(some), self.at_once)]
        return [np.concatenate(leaf) for leaf in zip(*parts, strict=True)]


def _within(count: int, rows: np.ndarray, to: np.ndarray, tolerance: np.ndarray) -> np.ndarray:
    """Return for each version whether it is what is looked for."""
    near = (np.abs(rows - to) <= tolerance).reshape(len(rows), -1).all(1)
    return np.broadcast_to(near, count)


def bits(leaves: np.ndarray) -> int:
    """Return a number with a bit for each leaf that is chosen."""
    return sum(1 << int(i) for i in np.flatnonzero(leaves))


def flat(rows: list[np.ndarray]) -> np.ndarray:
    """Return all leaves of gradients in one row each."""
    return np.concatenate([r.reshape(len(r), -1) for r in rows], axis=1)
