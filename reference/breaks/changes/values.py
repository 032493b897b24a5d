"""Changes of values: another one stands for the other factor, or where a slope is taken."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from reference.breaks.reverse import At
from reference.breaks.rules import SLOPES, fit, product
from reference.jaxprs import exponent

BY_VALUE = frozenset({"tanh", "logistic", "exp", "sqrt", "rsqrt"})  # slopes that need y alone
FACTORED = frozenset({"mul", "dot_general", "div"})


@dataclass(frozen=True)
class Valued:
    """Take another value for the other factor, or for the place at which the slope is taken.

    It is that of an operation, by its key, ``later`` steps later; or an argument, by its number.
    Before the first step of a loop stands what the loop began with, or, if it ``wraps``, the value
    of the last step, or, if it is ``clamped``, that of the nearest step there is. Where steps are
    ``mirrored``, they are counted from the other end. Where there is no such step, a factor is left
    out with all that it multiplies, or, if it is ``kept``, is the right one.
    """

    of: Any
    later: int = 0
    wraps: bool = False
    mirrored: bool = False
    clamped: bool = False
    kept: bool = False

    def value(self, at: At) -> Any:
        """Return the value that stands for the right one, or None if there is none."""
        tape = at.tape
        if isinstance(self.of, int):
            return tape.values[tape.arguments[self.of]]
        count = len(tape.places[self.of])
        step = (at.node.step if count > 1 and len(tape.places[at.node.key]) > 1 else 0) + self.later
        step = count - 1 - step if self.mirrored else step % count if self.wraps else step
        first = -1 if self.of in tape.initial else 0
        step = min(max(step, first), count - 1) if self.clamped else step
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
        d = np.array(d)
        none = [i for i, v in enumerate(found) if v is None and not changes[i].kept]
        if name in FACTORED:
            d[none] = 0.0
        if not there:
            return d
        values, g = np.stack([found[i] for i in there]), g[there] if len(g) > 1 else g
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
class Own:
    """Multiply by the operand itself, and not by the other factor."""

    def apply(self, at: At, g: Any, d: np.ndarray) -> Any:
        """Return what is sent instead."""
        return fit(g * at.operands[at.operand], at.operands[at.operand])


@dataclass(frozen=True)
class Begun:
    """Take, for the entries of the other factor, those before them; for the first, an argument."""

    number: int

    def apply(self, at: At, g: Any, d: np.ndarray) -> Any:
        """Return what is sent instead."""
        first = at.tape.values[at.tape.arguments[self.number]]
        return Other(lambda v: np.concatenate([first[None], v[:-1]])).apply(at, g, d)


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
class Constant:
    """Take another value for a constant operand, a function of its values at all steps."""

    number: int
    other: Callable[[list[np.ndarray], int], np.ndarray]

    def apply(self, at: At, g: Any, d: np.ndarray) -> Any:
        """Return what is sent instead."""
        nodes = at.tape.places[at.node.key]
        values = [at.tape.values[node.ins[self.number]] for node in nodes]
        operands = at.operands
        operands[self.number] = self.other(values, at.node.step)
        return at.sent(g, operands, at.result)
