"""LeafDiagnosis: which mistakes explain a gradient, in words and as JSON."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from reference.breaks.case import Measure
from reference.breaks.search import Found, Gradient, search
from reference.breaks.tape import Loss, UnsearchableError
from reference.breaks.words import Mistake, mistake
from reference.user_code import in_words

LEFT = (
    "the search was given up after {} mistakes, the others would take too long: give a shorter "
    "problem, such as one of fewer steps"
)
SHOWN = 4  # explanations that cannot be told apart


@dataclass(frozen=True)
class LeafDiagnosis:
    """The mistakes that explain a gradient, each with the line of the loss that it is about.

    ``explanations`` are those that cannot be told apart, the simplest first: each a list of
    mistakes that were made together, and that make every leaf as it was returned, to within what
    rounding explains. ``leaves`` are the leaves that are wrong, ``tried`` is how many breaks of the
    reverse pass were tried, ``note`` says why none could be, if so.
    """

    leaves: tuple[str, ...]
    explanations: list[list[Mistake]] = field(default_factory=list)
    tried: int = 0
    note: str = ""

    @classmethod
    def of(cls, found: Found, wrong: tuple[str, ...], labels: Sequence[str]) -> "LeafDiagnosis":
        """Say what was found; the arguments have labels, and of these some are wrong.

        What says the same of the same place is said once.
        """
        explanations = [
            [mistake(found.tape, b, labels) for b in explanation.breaks]
            for explanation in found.explanations
        ]
        distinct: dict[Any, list[Mistake]] = {}
        for mistakes in explanations:
            said = tuple((m.says, m.file, m.line) for m in mistakes)
            distinct.setdefault(said, mistakes)
        note = "" if found.to_end else LEFT.format(found.tried)
        return cls(wrong, [*distinct.values()], found.tried, note)

    @property
    def mistakes(self) -> list[Mistake]:
        """The mistakes of the first explanation."""
        return self.explanations[0] if self.explanations else []

    @property
    def names(self) -> list[str]:
        """What is wrong, a sentence for each mistake."""
        return [mistake.says for mistake in self.mistakes]

    def lines_of_loss(self) -> list[int]:
        """Return the lines of the loss that any of the explanations is about."""
        every = [m for mistakes in self.explanations for m in mistakes if m.line is not None]
        return sorted({line for m in every for line in (m.line, *m.used) if line is not None})

    def lines(self) -> list[str]:
        """Return the diagnosis in words, a line each."""
        who = " ".join(self.leaves)
        if not self.explanations:
            return [f"{who}: {self.note or f'none of {self.tried} mistakes explains this'}"]
        first, *others = self.explanations
        said = [f"{who}:"] if len(first) == 1 else [f"{who}: {len(first)} mistakes together"]
        said += [f"  {line}" for m in first for line in m.lines()]
        if others:
            said.append("which cannot be told from:")
            shown = others[: SHOWN - 1]
            said += [f"  - {' and '.join(map(str, mistakes))}" for mistakes in shown]
            left = len(others) - len(shown)
            said += [f"  or {left} more"] if left else []
        return said

    def __str__(self) -> str:
        return "\n".join(self.lines())

    def as_dict(self) -> dict[str, Any]:
        """Return the diagnosis as JSON values."""
        explanations = [[m.as_dict() for m in mistakes] for mistakes in self.explanations]
        found = {"leaves": list(self.leaves), "explanations": explanations, "tried": self.tried}
        return found | {"note": self.note}


def search_for(
    loss: Loss,
    values: list[np.ndarray],
    gradient: Gradient,
    measure: Measure,
    *,
    u: float,
    dtype: np.dtype[Any],
    wrong: tuple[str, ...],
    labels: Sequence[str],
) -> LeafDiagnosis | None:
    """Search for the mistakes that explain a gradient; None if nothing is wrong at these values.

    ``wrong`` are the labels of the leaves that are wrong, ``labels`` those of all values; all else
    is as in ``reference.breaks.search.search``. A verdict stands without its diagnosis: what the
    search cannot do is a note, never an exception.
    """
    rng = np.random.default_rng(0)
    try:
        found = search(loss, values, gradient, measure, u=u, dtype=dtype, rng=rng)
    except (UnsearchableError, NotImplementedError) as error:
        return LeafDiagnosis(wrong, note=f"no mistake was looked for: {error}")
    except Exception as error:
        return LeafDiagnosis(wrong, note=f"the search for a mistake failed: {in_words(error)}")
    return None if found is None else LeafDiagnosis.of(found, wrong, labels)
