"""Why a gradient of a JAX function is wrong: the break of the reverse pass that makes it."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from reference.breaks.search import search
from reference.breaks.tape import Loss, UnsearchableError
from reference.breaks.words import Mistake, mistake
from reference.functions.trees import Caller, Given, Raised, match
from reference.user_code import as_array

SHOWN = 4  # explanations that cannot be told apart

Measure = Callable[[list[np.ndarray], np.dtype[Any]], list[tuple[np.ndarray, np.ndarray]]]


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
        found = {m.line for mistakes in self.explanations for m in mistakes if m.line is not None}
        return sorted(found)

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


def diagnosed(
    loss: Loss,
    given: Given,
    call: Caller,
    autodiff: Measure,
    of: list[tuple[int, int, str]],
    wrong: tuple[str, ...],
    u: float,
) -> LeafDiagnosis | None:
    """Return why leaves of a gradient are wrong, if the break that makes them is found.

    Parameters
    ----------
    loss : callable
        Of a list of all variables.
    given : Given
        The arguments.
    call : Caller
        Calls what is judged.
    autodiff : callable
        Returns what is right at some values, leaf by leaf of what was matched, with tolerances.
    of : list of (number of the variable, number among the leaves matched, label)
        What is to be explained.
    wrong : tuple of str
        The labels of those that are wrong.
    u : float
        The unit roundoff of what is judged.
    """
    numbers, places, labels = (list(column) for column in zip(*of, strict=True))
    rest = [i for i in range(len(given.variables)) if i not in numbers]
    order = [*numbers, *rest]
    names = [*labels, *(given.variables[i].label for i in rest)]

    def ordered(values: list[Any]) -> list[Any]:
        return [values[i] for i in order]

    def as_given(values: list[Any]) -> list[Any]:
        found: list[Any] = [None] * len(order)
        for i, value in zip(order, values, strict=True):
            found[i] = value
        return found

    def gradient(values: list[np.ndarray]) -> list[np.ndarray] | None:
        returned, _ = call(as_given(values))
        if isinstance(returned, Raised):
            return None
        leaves = [leaf for _, leaf in match(returned, given).leaves]
        found = [as_array(leaves[i]) if i < len(leaves) else "" for i in places]
        shapes = [np.shape(value) for value in values]
        for array, shape in zip(found, shapes, strict=False):
            if isinstance(array, str) or array.shape != shape:
                return None
        return [np.array(array, np.float64) for array in found]

    def measure(values: list[np.ndarray]) -> list[tuple[np.ndarray, np.ndarray]]:
        measured = autodiff(as_given(values), given.dtype)
        return [measured[i] for i in places]

    try:
        found = search(
            lambda values: loss(as_given(values)),
            ordered(given.values()),
            gradient,
            measure,
            u=u or float(np.finfo(given.dtype).eps) / 2,
            dtype=given.dtype,
            rng=np.random.default_rng(0),
        )
    except (UnsearchableError, NotImplementedError) as error:
        return LeafDiagnosis(wrong, note=f"no mistake was looked for: {error}")
    if found is None:
        return None
    explanations = [
        [mistake(found.tape, b, names) for b in explanation.breaks]
        for explanation in found.explanations
    ]
    return LeafDiagnosis(wrong, _distinct(explanations), found.tried)


def _distinct(explanations: list[list[Mistake]]) -> list[list[Mistake]]:
    """Return the explanations without those that say the same of the same place."""
    return list({tuple(mistakes): mistakes for mistakes in explanations}.values())
