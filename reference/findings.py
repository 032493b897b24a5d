"""What is found out about a wrong gradient: the mistake that explains it, and what can be seen."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from reference.breaks.diagnosis import LeafDiagnosis
from reference.mistakes import Mistake
from reference.problems import Problem

FEW = 4  # of the mistakes that cannot be told apart are shown


class Finding(NamedTuple):
    """The mistake that reproduces some wrong gradients.

    Where what was returned cannot tell several mistakes apart, there is more than one.
    """

    gradients: tuple[str, ...]
    mistakes: tuple[Mistake, ...]

    def lines(self) -> list[str]:
        """Return the finding in words."""
        named = [f"{m.name}. {m.sentence}" for m in self.mistakes]
        who = " ".join(self.gradients)
        if len(named) == 1:
            return [f"{who}: {named[0]}"]
        more = [f"  or {len(named) - FEW} more"] if len(named) > FEW else []
        return (
            [f"{who}: one of these, which this cannot tell apart:"]
            + [f"  - {text}" for text in named[:FEW]]
            + more
        )

    def as_dict(self) -> dict[str, Any]:
        """Return the finding as JSON values."""
        mistakes = [
            {"name": m.name, "family": m.family, "sentence": m.sentence} for m in self.mistakes
        ]
        return {"gradients": list(self.gradients), "mistakes": mistakes}


@dataclass
class Diagnosis:
    """Why gradients are wrong, as far as it is known.

    ``findings`` name known mistakes; each reproduces its gradients, to rounding, in every problem
    that was looked at. ``unexplained`` are the wrong gradients that no known mistake reproduces,
    ``rules`` the rules of the reverse pass that are broken in them, if these reproduce all that is
    wrong, ``seen`` what can be said of them, ``places`` where in time a gradient goes wrong.
    """

    findings: list[Finding] = field(default_factory=list)
    unexplained: tuple[str, ...] = ()
    seen: list[str] = field(default_factory=list)
    places: list[str] = field(default_factory=list)
    rules: LeafDiagnosis | None = None

    @property
    def names(self) -> list[str]:
        """The names of the mistakes found: those in ``reference.mistakes.MISTAKES``, or else what
        is wrong with the reverse pass, a sentence for each.
        """
        known = [mistake.name for finding in self.findings for mistake in finding.mistakes]
        return known or (self.rules.names if self.rules else [])

    def __bool__(self) -> bool:
        return bool(self.findings or self.unexplained)

    def lines(self) -> list[str]:
        """Return the diagnosis in words, a line each."""
        lines = [line for finding in self.findings for line in finding.lines()]
        if self.rules:
            lines += self.rules.lines()
        elif self.unexplained:
            lines.append(f"{' '.join(self.unexplained)}: no known mistake explains this")
        return [*lines, *self.seen, *self.places]

    def __str__(self) -> str:
        return "\n".join(self.lines()) or "nothing is wrong, so there is nothing to explain"

    def as_dict(self) -> dict[str, Any]:
        """Return the diagnosis as JSON values."""
        return {
            "findings": [finding.as_dict() for finding in self.findings],
            "unexplained": list(self.unexplained),
            "seen": self.seen,
            "places": self.places,
            "rules": self.rules.as_dict() if self.rules else None,
        }


class Counterexample(NamedTuple):
    """The smallest problem found that fails: {gradient: (expected, returned)}, and how to run it.

    ``returned`` is text where it is no array of the right shape. ``lines`` are Python.
    """

    problem: Problem
    values: dict[str, tuple[np.ndarray, np.ndarray | str]]
    lines: tuple[str, ...]

    def text(self) -> list[str]:
        """Return the example in words and numbers, a line each."""
        sizes = " ".join(f"{k}={n}" for k, n in self.problem.sizes.items())
        given = [f"  {k} = {_numbers(array)}" for k, array in self.problem.arrays.items()]
        shown = [f"smallest failing problem found ({sizes})", *given]
        said = {returned for _, returned in self.values.values() if isinstance(returned, str)}
        if len(said) == 1 and len(self.values) > 1:
            return [*shown, f"  returned {said.pop()}"]
        for k, (expected, returned) in self._arrays():
            label, rounded = k if k == "states" else f"d{k}", _shows(expected, returned)
            shown.append(f"  {label} expected {_numbers(expected, rounded=rounded)}")
            was = returned if isinstance(returned, str) else _numbers(returned, rounded=rounded)
            shown.append(f"  {' ' * len(label)} returned {was}")
        return shown

    def _arrays(self) -> Iterator[tuple[str, tuple[np.ndarray, np.ndarray | str]]]:
        """Yield what was expected and returned, array by array."""
        for k, (expected, returned) in self.values.items():
            if isinstance(returned, str):
                yield k, (expected, returned)
            else:
                came = self.problem.by_array(k, returned)
                for name, right in self.problem.by_array(k, expected).items():
                    yield name, (right, came[name])

    def as_dict(self) -> dict[str, Any]:
        """Return the example as JSON values; floats as Python writes them, which is exact."""
        values = {
            k: {
                "expected": expected.tolist(),
                "returned": returned if isinstance(returned, str) else _finite(returned),
            }
            for k, (expected, returned) in self.values.items()
        }
        return {
            "problem": self.problem.origin,
            "sizes": self.problem.sizes,
            "gradients": values,
            "reproduce": list(self.lines),
        }


def _finite(array: np.ndarray) -> Any:
    """Return nested lists; JSON has no word for inf and nan, so they are text."""
    return array.tolist() if np.isfinite(array).all() else array.astype(str).tolist()


def _shows(expected: np.ndarray, returned: np.ndarray | str) -> bool:
    """Return whether six digits show the difference."""
    if isinstance(returned, str) or not np.isfinite(returned).all():
        return True
    error = float(np.abs(returned - expected).max())
    return error > 1e-4 * max(float(np.abs(expected).max()), float(np.abs(returned).max()))


def _numbers(array: np.ndarray, *, rounded: bool = False) -> str:
    """Return an array on one line, to six digits or exactly; many zeros in a word."""
    if array.size > 8 and not array.any():
        return f"zeros of shape {array.shape}"

    def spell(number: np.floating[Any]) -> str:
        short = f"{number:.6g}"
        return short if rounded or float(short) == number else str(number)

    options: Any = {"formatter": {"all": spell}, "separator": ", ", "threshold": 60}
    return " ".join(np.array2string(array, max_line_width=10**6, **options).split())
