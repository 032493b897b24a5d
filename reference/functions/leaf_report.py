"""LeafReport: what comparing the leaves of a gradient with autodiff found, in words and as JSON."""

import json
from dataclasses import asdict, dataclass, field
from html import escape
from typing import Any

from reference.breaks.diagnosis import LeafDiagnosis
from reference.report import emphasised, in_a_word, json_value

WIDTH = 100
HEADER = ("leaf", "verdict", "worst at", "expected", "got", "ulp", "tolerances")


@dataclass(frozen=True)
class Leaf:
    """The verdict on one leaf, and the entry whose error is the largest multiple of its tolerance.

    ``leaf`` is the path to it, from the arguments. ``ulp`` is the error in units in the last place
    of the largest entry of the leaf, ``ratio`` the error over ``tolerance``, ``third`` what the
    third voice says. They are None where nothing could be compared.
    """

    leaf: str
    status: str
    index: tuple[int, ...] | None = None
    expected: float | None = None
    got: float | None = None
    ulp: float | None = None
    ratio: float | None = None
    tolerance: float | None = None
    third: float | None = None
    detail: str = ""

    @property
    def place(self) -> str:
        """The index as it is written after the leaf; a number has none."""
        return str(list(self.index)) if self.index else ""

    def cells(self) -> tuple[str, ...]:
        """Return what a table shows, in the order of HEADER, and then the third voice."""
        numbers = (self.expected, self.got, self.ulp, self.ratio, self.third)
        digits = (6, 6, 3, 3, 6)
        shown = ["" if v is None else f"{v:.{d}g}" for v, d in zip(numbers, digits, strict=True)]
        return (self.leaf, self.status, self.place, *shown)

    def remark(self, third_voice: str | None) -> str:
        """Return what does not fit a table; nothing if the leaf matches."""
        if self.status == "match" or not (self.detail or self.status == "mismatch"):
            return ""
        if self.status != "mismatch":
            return f"{self.leaf}: {self.status}, {self.detail}"
        says = "" if self.third is None else f"; {third_voice}: {self.third!r}"
        why = f"; {self.detail}" if self.detail else ""
        return f"{self.leaf}{self.place} is {self.got!r}, expected {self.expected!r}{says}{why}"


@dataclass
class LeafReport:
    """A row for each leaf, notes on the gradient's manners, and the verdict ``passed``.

    ``diagnosis`` says what is wrong, and which line of the loss it is about; None if nothing is, or
    if autodiff knows no more.
    """

    rows: list[Leaf]
    notes: list[str] = field(default_factory=list)
    third_voice: str | None = None
    diagnosis: LeafDiagnosis | None = None

    @property
    def passed(self) -> bool:
        """Whether something was proved and nothing is wrong; what was left out is not passed."""
        return self.verdict == "passed"

    @property
    def verdict(self) -> str:
        """``passed`` or ``FAILED``; or, as ``in_a_word`` has it, that too little was proved."""
        statuses = {row.status for row in self.rows}
        return in_a_word(statuses, "match" in statuses)

    def _table(self) -> list[tuple[str, ...]]:
        """Return the lines of a table, its header first; the third voice only where there is."""
        header = (*HEADER, self.third_voice or "")
        columns = len(HEADER) + (self.third_voice is not None)
        return [line[:columns] for line in (header, *(row.cells() for row in self.rows))]

    def __str__(self) -> str:
        lines = self._table()
        first, *others = (max(map(len, column)) for column in zip(*lines, strict=True))
        first = max(4, min(first, WIDTH - sum(others) - 2 * len(others)))
        shown = []
        for leaf, *cells in lines:
            if len(leaf) > first:  # a line of its own
                shown.append(leaf)
            padded = [cell.ljust(n) for cell, n in zip(cells, others, strict=True)]
            shown.append("  ".join([(leaf if len(leaf) <= first else "").ljust(first), *padded]))
        shown = [line.rstrip() for line in shown]
        return "\n".join([*shown, *self.remarks(), *self._why(), *self.notes, self.verdict])

    def remarks(self) -> list[str]:
        """Return what does not fit a table: wrong entries in all digits, and reasons."""
        remarks = [row.remark(self.third_voice) for row in self.rows]
        return [remark for remark in remarks if remark]

    def _why(self) -> list[str]:
        return self.diagnosis.lines() if self.diagnosis else []

    def as_dict(self) -> dict[str, Any]:
        """Return everything as JSON values."""
        rows = [{k: json_value(v) for k, v in asdict(row).items()} for row in self.rows]
        found = {"passed": self.passed, "rows": rows, "notes": self.notes}
        why = self.diagnosis.as_dict() if self.diagnosis else None
        return found | {"third_voice": self.third_voice, "diagnosis": why}

    def to_json(self) -> str:
        """Return everything as JSON text."""
        return json.dumps(self.as_dict(), indent=2)

    def _repr_html_(self) -> str:
        header, *body = (
            "".join(f"<{tag}>{escape(cell)}</{tag}>" for cell in line)
            for tag, line in zip(["th", *["td"] * len(self.rows)], self._table(), strict=True)
        )
        rows = "".join(f"<tr>{line}</tr>" for line in (header, *body))
        remarks, notes = (
            "".join(f"<p>{escape(line)}</p>" for line in lines)
            for lines in (self.remarks(), self.notes)
        )
        lines = escape("\n".join(self._why()))  # a mark stands below what it is about
        why = f'<pre style="white-space: pre-wrap">{lines}</pre>' if lines else ""
        return f"<table>{rows}</table>{remarks}{why}{notes}<p>{emphasised(self.verdict)}</p>"
