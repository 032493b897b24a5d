"""Report: what comparing a candidate with autodiff found, for people and for machines."""

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from html import escape
from math import isfinite
from typing import Any, NamedTuple

from reference.gradients import GRADIENTS
from reference.problems import Problem

# From good to bad; a row has the worst status that any of its problems has.
STATUSES = (
    "not returned",
    "nothing proved",
    "match",
    "mismatch",
    "wrong shape",
    "non-finite",
    "raised",
)
HEADER = ("gradient", "verdict", "error/tolerance", "problems", "worst problem")
FAILURES = frozenset(STATUSES[3:])


class Verdict(NamedTuple):
    """One gradient of one problem; ratio is error over tolerance, step the first wrong step."""

    gradient: str
    status: str
    problem: Problem
    ratio: float = 0.0
    max_abs_error: float = 0.0
    max_rel_error: float = 0.0
    step: int | None = None
    detail: str = ""


@dataclass
class Row:
    """All verdicts on one gradient.

    ``ratio`` is the largest error over its tolerance; the errors and the worst problem belong to
    it. ``cases`` counts the problems that decide, ``undecided`` those that cannot, ``missing``
    those for which nothing was returned.
    ``first_wrong_step`` is the step nearest the loss at which x or h goes wrong: the recursion
    runs from the last step to the first.
    """

    gradient: str
    status: str = "not returned"
    ratio: float = 0.0
    max_abs_error: float = 0.0
    max_rel_error: float = 0.0
    worst_problem: str = ""
    worst_sizes: dict[str, int] = field(default_factory=dict)
    first_wrong_step: int | None = None
    cases: int = 0
    missing: int = 0
    undecided: int = 0
    failures: int = 0
    detail: str = ""

    def add(self, verdict: Verdict) -> None:
        """Count one verdict, and keep it if it is the worst so far."""
        self.cases += verdict.status not in ("not returned", "nothing proved")
        self.missing += verdict.status == "not returned"
        self.undecided += verdict.status == "nothing proved"
        self.failures += verdict.status in FAILURES
        rank = STATUSES.index(verdict.status), verdict.ratio
        if rank > (STATUSES.index(self.status), self.ratio) or not self.worst_problem:
            self.status, self.ratio, self.detail = verdict.status, verdict.ratio, verdict.detail
            self.max_abs_error, self.max_rel_error = verdict.max_abs_error, verdict.max_rel_error
            self.worst_problem, self.worst_sizes = verdict.problem.origin, verdict.problem.sizes
            self.first_wrong_step = verdict.step


@dataclass
class Report:
    """Rows for each gradient, notes on the candidate's manners, and the verdict ``passed``."""

    rows: list[Row]
    notes: list[str] = field(default_factory=list)

    @classmethod
    def of(cls, results: Iterable[tuple[list[Verdict], list[str]]]) -> "Report":
        """Collect the verdicts and notes on many problems."""
        rows = {k: Row(k) for k in GRADIENTS}
        notes: dict[str, None] = {}
        for verdicts, said in results:
            notes |= dict.fromkeys(said)
            for verdict in verdicts:
                rows[verdict.gradient].add(verdict)
        return cls(list(rows.values()), list(notes))

    @property
    def passed(self) -> bool:
        """Whether something was proved and nothing is wrong; what was left out is not passed."""
        statuses = {row.status for row in self.rows}
        partly = any(row.missing and row.status != "not returned" for row in self.rows)
        return "match" in statuses and statuses <= {"match", "not returned"} and not partly

    def __str__(self) -> str:
        lines = [HEADER, *(cells(row) for row in self.rows)]
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        table = [
            "  ".join(cell.ljust(w) for cell, w in zip(line, widths, strict=True)).rstrip()
            for line in lines
        ]
        return "\n".join([*table, *self.remarks(), "passed" if self.passed else "FAILED"])

    def remarks(self) -> list[str]:
        """Return what does not fit a table: undecided problems, how to reproduce, notes."""
        undecided = max(row.undecided for row in self.rows)
        remarks = []
        if undecided:
            remarks.append(
                f"not counted: up to {undecided} problems a gradient, in which rounding hides the "
                "answer or the answer is not finite"
            )
        for row in self.rows:
            if row.missing and row.status != "not returned":
                remarks.append(f"{row.gradient} was not returned for {row.missing} problems")
            if row.status in FAILURES:
                step = row.first_wrong_step
                where = "" if step is None else f" from step {step} on"
                reason = f" ({row.detail})" if row.detail else ""
                remarks.append(f"{row.gradient} is wrong{where}{reason}; see {row.worst_problem}")
        return remarks + self.notes

    def as_dict(self) -> dict[str, Any]:
        """Return everything as JSON values."""
        rows = [{k: json_value(v) for k, v in asdict(row).items()} for row in self.rows]
        return {"passed": self.passed, "rows": rows, "notes": self.notes}

    def to_json(self) -> str:
        """Return everything as JSON text."""
        return json.dumps(self.as_dict(), indent=2)

    def _repr_html_(self) -> str:
        header = "".join(f"<th>{name}</th>" for name in HEADER)
        body = "".join(
            "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in cells(row)) + "</tr>"
            for row in self.rows
        )
        remarks = "".join(f"<p>{escape(line)}</p>" for line in self.remarks())
        verdict = "passed" if self.passed else "<strong>failed</strong>"
        return f"<table><tr>{header}</tr>{body}</table>{remarks}<p>{verdict}</p>"


def json_value(value: Any) -> Any:
    """Return value, or None for a float that JSON has no word for."""
    return None if isinstance(value, float) and not isfinite(value) else value


def cells(row: Row) -> tuple[str, ...]:
    """Return what a table shows of a row, in the order of HEADER."""
    sizes = " ".join(f"{k}={n}" for k, n in row.worst_sizes.items())
    judged = row.status in ("match", "mismatch")
    problems = f"{row.failures} of {row.cases} wrong" if row.failures else f"{row.cases}"
    return (
        row.gradient,
        row.status,
        f"{row.ratio:.3g}" if judged else "",
        problems if row.cases else "",
        sizes if row.cases else "",
    )
