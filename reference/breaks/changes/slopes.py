"""Changes of slopes: those of another function."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from reference.breaks.reverse import At
from reference.breaks.rules import SLOPES


@dataclass(frozen=True)
class Sloped:
    """Take another slope, a function of the argument and the value."""

    slope: Callable[[Any, Any], Any]

    def apply(self, at: At, g: Any, d: np.ndarray) -> Any:
        """Return what is sent instead."""
        return np.broadcast_to(g * self.slope(at.operands[0], at.result), d.shape)


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
