"""What a break does at an operand: multiplies what is sent to it, or sends something else."""

from reference.breaks.changes.sent import (
    Accumulated,
    Aged,
    Arrived,
    Cut,
    Instead,
    Later,
    Overwritten,
    Scaled,
    Sent,
    Unruled,
    Weighted,
)
from reference.breaks.changes.slopes import (
    Sloped,
    Softmax,
    Times,
    Unsloped,
)
from reference.breaks.changes.values import (
    Begun,
    Constant,
    Other,
    Own,
    Residual,
    Valued,
)
from reference.breaks.changes.wholes import (
    Arriving,
    Clipped,
    Exchanged,
    Kept,
)

__all__ = [
    "Accumulated",
    "Aged",
    "Arrived",
    "Arriving",
    "Begun",
    "Clipped",
    "Constant",
    "Cut",
    "Exchanged",
    "Instead",
    "Kept",
    "Later",
    "Other",
    "Overwritten",
    "Own",
    "Residual",
    "Scaled",
    "Sent",
    "Sloped",
    "Softmax",
    "Times",
    "Unruled",
    "Unsloped",
    "Valued",
    "Weighted",
]
