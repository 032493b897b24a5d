"""Changes of what an operation sends: times a number, something else, at some steps alone."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from reference.breaks.reverse import At, changed
from reference.breaks.rules import fit, scattered, source_of


@dataclass(frozen=True)
class Scaled:
    """Multiply by a number, or by another one at each step."""

    factor: Any

    @classmethod
    def apply_all(cls, changes: Sequence["Scaled"], at: At, g: Any, d: np.ndarray) -> np.ndarray:
        """Return what is sent in several versions."""
        factors = [c.factor if np.ndim(c.factor) == 0 else c.factor[at.node.step] for c in changes]
        return d * np.reshape(factors, (-1, *[1] * (d.ndim - 1)))


@dataclass(frozen=True)
class Weighted:
    """Multiply entry by entry; a first axis of the weights, unless it is 1, is over the steps."""

    weights: np.ndarray

    @classmethod
    def apply_all(cls, changes: Sequence["Weighted"], at: Any, g: Any, d: np.ndarray) -> np.ndarray:
        """Return what is sent in several versions."""
        return np.asarray(d * _of_step([c.weights for c in changes], at, d))


@dataclass(frozen=True)
class Instead:
    """Send these numbers; the first axis is over the steps."""

    numbers: np.ndarray

    @classmethod
    def apply_all(cls, changes: Sequence["Instead"], at: Any, g: Any, d: np.ndarray) -> np.ndarray:
        """Return what is sent in several versions."""
        return np.broadcast_to(_of_step([c.numbers for c in changes], at, d), d.shape)


@dataclass(frozen=True)
class Later:
    """Make a change at all steps but the first."""

    change: Any

    @classmethod
    def apply_all(cls, changes: Sequence["Later"], at: At, g: Any, d: np.ndarray) -> np.ndarray:
        """Return what is sent in several versions."""
        return d if at.node.step == 0 else changed([c.change for c in changes], at, g, d)


@dataclass(frozen=True)
class Aged:
    """Count the steps that a gradient has been carried back: a version for each number of them.

    What is carried from the first step to what the loop begins with is counted, or not.
    """

    to_beginning: bool = True

    @classmethod
    def apply_all(cls, changes: Sequence["Aged"], at: At, g: Any, d: np.ndarray) -> np.ndarray:
        """Return what is sent in all versions: that of one more step each; the last adds up."""
        if at.node.step == 0 and not changes[0].to_beginning:
            return d
        older = np.concatenate([np.zeros_like(d[:1]), d[:-1]])
        older[-1] += d[-1]
        return older


@dataclass(frozen=True)
class Sent:
    """Do something to what is sent, by a function of it alone."""

    function: Callable[[np.ndarray], np.ndarray]

    def apply(self, at: At, g: Any, d: np.ndarray) -> Any:
        """Return what is sent instead."""
        return self.function(d)


@dataclass(frozen=True)
class Arrived:
    """Do something to what has arrived, before the rule of this operand."""

    function: Callable[[np.ndarray], np.ndarray]

    def apply(self, at: At, g: Any, d: np.ndarray) -> Any:
        """Return what is sent instead."""
        return at.sent(self.function(g), at.operands, at.result)


@dataclass(frozen=True)
class Unruled:
    """Send on what has arrived, as if the operation were not there, at every step or at one."""

    step: int | None = None

    def apply(self, at: At, g: Any, d: np.ndarray) -> Any:
        """Return what is sent instead."""
        if self.step not in (None, at.node.step):
            return d
        x = at.operands[at.operand]
        return fit(g, x) if g.ndim >= x.ndim + 1 else d


@dataclass(frozen=True)
class Overwritten:
    """Where entries are taken several times, keep what comes from one of them alone.

    ``last`` in the order of the loss, or the first.
    """

    last: bool

    def apply(self, at: At, g: Any, d: np.ndarray) -> Any:
        """Return what is sent instead."""
        kept = self._kept(at)
        return scattered(g * kept, source_of(at.tape, at.node, at.operand), d.shape[1:])

    def _kept(self, at: At) -> np.ndarray:
        nodes = at.tape.places[at.node.key]
        taken: dict[int, tuple[int, int]] = {}
        for node in nodes:
            for place, entry in enumerate(source_of(at.tape, node, at.operand).ravel()):
                if self.last or entry not in taken:
                    taken[entry] = node.step, place
        source = source_of(at.tape, at.node, at.operand)
        kept = [taken[e] == (at.node.step, i) for i, e in enumerate(source.ravel())]
        return np.reshape(kept, source.shape)


@dataclass(frozen=True)
class Accumulated:
    """Add up over the steps what is sent at each, as where a sum is never begun anew."""

    def apply(self, at: At, g: Any, d: np.ndarray) -> Any:
        """Return what is sent instead."""
        place = id(self), at.node.key, at.operand
        at.memory[place] = d = d + at.memory.get(place, 0.0)
        return d


@dataclass(frozen=True)
class Cut:
    """Of what arrives at joined operands, send the part that begins at another place."""

    start: int
    axis: int

    def apply(self, at: At, g: Any, d: np.ndarray) -> Any:
        """Return what is sent instead."""
        length = d.shape[self.axis + 1]
        return np.take(g, range(self.start, self.start + length), self.axis + 1)


def _of_step(arrays: list[np.ndarray], at: Any, d: np.ndarray) -> np.ndarray:
    """Return what arrays have for a step; a number is one for all steps and entries."""
    step = at.node.step if isinstance(at, At) else 0
    of = [a if np.ndim(a) == 0 else a[step] if len(a) > 1 else a[0] for a in arrays]
    return np.stack([np.broadcast_to(a, d.shape[1:]) for a in of])
