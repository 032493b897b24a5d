"""What a break does at an operand: multiplies what is sent to it, or sends something else."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from reference.breaks.reverse import SLOPES, At, fit, product, scattered, source_of
from reference.jaxprs import exponent

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
class Sloped:
    """Take another slope, a function of the argument and the value."""

    slope: Callable[[Any, Any], Any]

    def apply(self, at: At, g: Any, d: np.ndarray) -> Any:
        """Return what is sent instead."""
        return np.broadcast_to(g * self.slope(at.operands[0], at.result), d.shape)


@dataclass(frozen=True)
class Valued:
    """Take another value for the other factor, or for the place at which the slope is taken.

    It is that of an operation, by its key, ``later`` steps later; or an argument, by its number.
    Before the first step of a loop stands what the loop began with, or, if it ``wraps``, the value
    of the last step. Where steps are ``mirrored``, they are counted from the other end.
    """

    of: Any
    later: int = 0
    wraps: bool = False
    mirrored: bool = False

    def value(self, at: At) -> Any:
        """Return the value that stands for the right one, or None if there is none."""
        tape = at.tape
        if isinstance(self.of, int):
            return tape.values[tape.arguments[self.of]]
        count = len(tape.places[self.of])
        step = (at.node.step if count > 1 and len(tape.places[at.node.key]) > 1 else 0) + self.later
        step = count - 1 - step if self.mirrored else step % count if self.wraps else step
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
        wide = values.reshape(len(there), *[1] * (g.ndim - values.ndim), *right.shape)
        if name == "mul":
            d[there] = fit(g * wide, at.operands[k])
        elif name == "dot_general":
            d[there] = product(at.node.equation, g, values, k)
        elif name == "div":
            d[there] = fit(g / wide, at.operands[k])
        elif name in ("max", "select_n"):
            d[there] = fit(g * (wide > 0), at.operands[k])
        elif name == "integer_pow":
            n = exponent(at.node.equation)
            d[there] = g * (n * wide ** float(n - 1))
        else:
            d[there] = g * SLOPES[name](wide, wide if name in BY_VALUE else at.result)
        return d


FACTORED = frozenset({"mul", "dot_general", "div"})


@dataclass(frozen=True)
class Other:
    """Take another form of the other factor: transposed, moved along an axis."""

    form: Callable[[np.ndarray], np.ndarray]

    def apply(self, at: At, g: Any, d: np.ndarray) -> Any:
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
class Own:
    """Multiply by the operand itself, and not by the other factor."""

    def apply(self, at: At, g: Any, d: np.ndarray) -> Any:
        """Return what is sent instead."""
        return fit(g * at.operands[at.operand], at.operands[at.operand])


@dataclass(frozen=True)
class Cut:
    """Of what arrives at joined operands, send the part that begins at another place."""

    start: int
    axis: int

    def apply(self, at: At, g: Any, d: np.ndarray) -> Any:
        """Return what is sent instead."""
        length = d.shape[self.axis + 1]
        return np.take(g, range(self.start, self.start + length), self.axis + 1)


@dataclass(frozen=True)
class Unsloped:
    """Divide by the slope of a function, which is then as if it had been left out on this path.

    The function is an operation, by its key, ``later`` steps later.
    """

    of: Any
    later: int
    arrived: bool

    def apply(self, at: At, g: Any, d: np.ndarray) -> Any:
        """Return what is sent instead."""
        node = at.tape.at.get((self.of, at.node.step + self.later))
        if node is None:
            return d
        values = at.tape.values
        slope = SLOPES[node.name](values[node.ins[0]], values[node.out])
        return at.sent(g / slope, at.operands, at.result) if self.arrived else d / slope


@dataclass(frozen=True)
class Residual:
    """Take the derivative of a power at the difference from another value than the right one."""

    minuend: int
    other: Valued

    def apply(self, at: At, g: Any, d: np.ndarray) -> Any:
        """Return what is sent instead."""
        made = at.tape.made[at.node.ins[0]]
        value, a = self.other.value(at), at.tape.values[made.ins[self.minuend]]
        if value is None or np.shape(value) != np.shape(a):
            return d
        return at.sent(g, [a - value if self.minuend == 0 else value - a], at.result)


@dataclass(frozen=True)
class Exchanged:
    """Return the gradient in another argument, of the same shape."""

    number: int

    def apply(self, at: Any, g: Any, d: np.ndarray) -> Any:
        """Return that gradient: ``at`` has them all."""
        return at[self.number]


@dataclass(frozen=True)
class Begun:
    """Take, for the entries of the other factor, those before them; for the first, an argument."""

    number: int

    def apply(self, at: At, g: Any, d: np.ndarray) -> Any:
        """Return what is sent instead."""
        first = at.tape.values[at.tape.arguments[self.number]]
        return Other(lambda v: np.concatenate([first[None], v[:-1]])).apply(at, g, d)


@dataclass(frozen=True)
class Softmax:
    """Take another derivative of a softmax p = e / s with respect to e, s included.

    Right is (g - sum g p) / s, the sum over the axis of s. Instead of the sum stands ``g p`` for
    "entry by entry", the sum over another ``axis``, the sum of g without p, or the mean of g.
    """

    of: str
    axis: int = 0

    def apply(self, at: At, g: Any, d: np.ndarray) -> Any:
        """Return what is sent instead."""
        p, s = at.result, at.operands[1]
        own = tuple(i + 1 for i in range(p.ndim) if s.shape[i] != p.shape[i])
        match self.of:
            case "entries":
                instead = g * p
            case "axis":
                instead = (g * p).sum(self.axis + 1, keepdims=True)
            case "sum":
                instead = g.sum(own, keepdims=True)
            case _:
                instead = g.mean(own, keepdims=True)
        return (g - instead) / s


@dataclass(frozen=True)
class Times:
    """Multiply once more by a slope, as if another function stood there."""

    slope: Callable[[Any], Any]

    def apply(self, at: At, g: Any, d: np.ndarray) -> Any:
        """Return what is sent instead."""
        return d * self.slope(at.result)


@dataclass(frozen=True)
class Arriving:
    """Return, for the gradient in an argument, what has arrived at an operation's first step."""

    key: Any

    def apply(self, at: Any, g: Any, d: np.ndarray) -> Any:
        """Return what has arrived there: the walk has kept it."""
        return at[-1].get(self.key, d)
