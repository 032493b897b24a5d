"""What a break does at an operand: multiplies what is sent to it, or sends something else."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from reference.breaks.reverse import SLOPES, At, fit, product, scattered, source_of

BY_VALUE = frozenset({"tanh", "logistic", "exp", "sqrt", "rsqrt"})  # slopes that need y alone


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
class Aged:
    """Count the steps that a gradient has been carried back: a version for each number of them."""

    @classmethod
    def apply_all(cls, changes: Sequence["Aged"], at: At, g: Any, d: np.ndarray) -> np.ndarray:
        """Return what is sent in all versions: that of one more step each; the last adds up."""
        older = np.concatenate([np.zeros_like(d[:1]), d[:-1]])
        older[-1] += d[-1]
        return older


@dataclass(frozen=True)
class Sloped:
    """Take another slope, a function of the argument and the value."""

    slope: Callable[[Any, Any], Any]

    def apply(self, at: At, g: Any, d: np.ndarray) -> np.ndarray:
        """Return what is sent instead."""
        return np.broadcast_to(g * self.slope(at.operands[0], at.result), d.shape)


@dataclass(frozen=True)
class Valued:
    """Take another value for the other factor, or for the place at which the slope is taken.

    It is that of an operation, by its key, ``later`` steps later; or an argument, by its number.
    Before the first step of a loop stands what the loop began with.
    """

    of: Any
    later: int = 0

    def value(self, at: At) -> Any:
        """Return the value that stands for the right one, or None if there is none."""
        tape = at.tape
        if isinstance(self.of, int):
            return tape.values[tape.arguments[self.of]]
        step = (at.node.step if len(tape.places[self.of]) > 1 else 0) + self.later
        node = tape.at.get((self.of, step))
        if node is not None:
            return tape.values[node.out]
        begun = tape.initial.get(self.of)
        return tape.values[begun] if step == -1 and begun is not None else None

    @classmethod
    def apply_all(cls, changes: Sequence["Valued"], at: At, g: Any, d: np.ndarray) -> np.ndarray:
        """Return what is sent in several versions."""
        name, k = at.node.name, at.operand
        right = at.operands[1 - k] if name in FACTORED else at.result
        found = [change.value(at) for change in changes]
        there = [i for i, v in enumerate(found) if v is not None and v.shape == right.shape]
        if not there:
            return d
        values = np.stack([found[i] for i in there])
        d, g = np.array(d), g[there] if len(g) > 1 else g
        if name == "mul":
            shape = (len(there), *[1] * (g.ndim - values.ndim), *right.shape)
            d[there] = fit(g * values.reshape(shape), at.operands[k])
        elif name == "dot_general":
            d[there] = product(at.node.equation, g, values, k)
        elif name == "div":
            d[there] = fit(
                g / values.reshape(len(there), *[1] * (g.ndim - values.ndim), *right.shape),
                at.operands[k],
            )
        elif name == "integer_pow":
            d[there] = np.concatenate(
                [at.sent(g[min(j, len(g) - 1)][None], [v], at.result) for j, v in enumerate(values)]
            )
        else:
            d[there] = g * SLOPES[name](values, values if name in BY_VALUE else at.result)
        return d


FACTORED = frozenset({"mul", "dot_general", "div"})


@dataclass(frozen=True)
class Other:
    """Take another form of the other factor: transposed, moved along an axis."""

    form: Callable[[np.ndarray], np.ndarray]

    def apply(self, at: At, g: Any, d: np.ndarray) -> np.ndarray:
        """Return what is sent instead."""
        if at.node.name in FACTORED:
            operands = [
                self.form(v) if j == 1 - at.operand else v for j, v in enumerate(at.operands)
            ]
            return at.sent(g, operands, at.result)
        return at.sent(g, [self.form(v) for v in at.operands], self.form(at.result))


@dataclass(frozen=True)
class Sent:
    """Do something to what is sent, by a function of it alone."""

    function: Callable[[np.ndarray], np.ndarray]

    def apply(self, at: At, g: Any, d: np.ndarray) -> np.ndarray:
        """Return what is sent instead."""
        return self.function(d)


@dataclass(frozen=True)
class Arrived:
    """Do something to what has arrived, before the rule of this operand."""

    function: Callable[[np.ndarray], np.ndarray]

    def apply(self, at: At, g: Any, d: np.ndarray) -> np.ndarray:
        """Return what is sent instead."""
        return at.sent(self.function(g), at.operands, at.result)


@dataclass(frozen=True)
class Unruled:
    """Send on what has arrived, as if the operation were not there."""

    def apply(self, at: At, g: Any, d: np.ndarray) -> np.ndarray:
        """Return what is sent instead."""
        x = at.operands[at.operand]
        return fit(g, x) if g.ndim >= x.ndim + 1 else d


@dataclass(frozen=True)
class Overwritten:
    """Where entries are taken several times, keep what comes from one of them alone.

    ``last`` in the order of the loss, or the first.
    """

    last: bool

    def apply(self, at: At, g: Any, d: np.ndarray) -> np.ndarray:
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
