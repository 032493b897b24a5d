"""Changes of whole gradients, after all."""

from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Exchanged:
    """Return the gradient in another argument, of the same shape."""

    number: int

    def apply(self, at: Any, g: Any, d: np.ndarray) -> Any:
        """Return that gradient: ``at`` has them all."""
        return at[self.number]


@dataclass(frozen=True)
class Arriving:
    """Return, for the gradient in an argument, what has arrived at a step of an operation.

    With ``carried``, that is what comes from the step after it alone.
    """

    key: Any
    step: int = 0
    carried: bool = False

    @property
    def asked(self) -> tuple[Any, int, bool]:
        """What the walk has to keep."""
        return self.key, self.step, self.carried

    def apply(self, at: Any, g: Any, d: np.ndarray) -> Any:
        """Return what has arrived there."""
        return at[-1].get(self.asked, d)


@dataclass(frozen=True)
class Clipped:
    """Clip a whole gradient to a bound: entry by entry, or by the norm of several gradients."""

    bound: float
    of: tuple[int, ...] = ()

    def apply(self, at: Any, g: Any, d: np.ndarray) -> Any:
        """Return the gradient, clipped: ``at`` has them all."""
        if not self.of:
            return np.clip(d, -self.bound, self.bound)
        norm = np.sqrt(sum(np.sum(at[i] ** 2) for i in self.of))
        return d * min(1.0, self.bound / norm)


@dataclass(frozen=True)
class Kept:
    """Change nothing."""

    def apply(self, at: Any, g: Any, d: np.ndarray) -> Any:
        """Return the gradient as it is."""
        return d
