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
# The two checks by their largest error over tolerance: 1 is what rounding can explain at most.
HEADER = ("gradient", "verdict", "end to end", "each step", "problems", "worst problem")
FAILURES = frozenset(STATUSES[3:])


class Verdict(NamedTuple):
    """One gradient of one problem.

    ``ratio`` is the largest error over its tolerance end to end, ``local`` that of single steps;
    either is None where it decides nothing. ``step`` is the first wrong step.
    """

    gradient: str
    status: str
    problem: Problem
    ratio: float | None = None
    local: float | None = None
    max_abs_error: float = 0.0
    max_rel_error: float = 0.0
    step: int | None = None
    detail: str = ""

    @property
    def badness(self) -> tuple[int, float]:
        """What verdicts are ordered by, from good to bad."""
        return STATUSES.index(self.status), max(self.ratio or 0.0, self.local or 0.0)


@dataclass
class Row:
    """All verdicts on one gradient.

    ``ratio`` is the largest error over its tolerance end to end, ``local_ratio`` that of single
    steps; None if nothing was decided so. The errors and the worst problem belong to the worst
    verdict. ``cases`` counts the problems that decide, of which ``end_to_end_cases`` do so end to
    end and ``local_cases`` step by step; ``undecided`` those that cannot, and ``missing`` those for
    which nothing was returned.
    ``first_wrong_step`` is the step nearest the loss at which x or h goes wrong: the recursion
    runs from the last step to the first.
    """

    gradient: str
    status: str = "not returned"
    ratio: float | None = None
    local_ratio: float | None = None
    max_abs_error: float = 0.0
    max_rel_error: float = 0.0
    worst_problem: str = ""
    worst_sizes: dict[str, int] = field(default_factory=dict)
    first_wrong_step: int | None = None
    cases: int = 0
    end_to_end_cases: int = 0
    local_cases: int = 0
    missing: int = 0
    undecided: int = 0
    failures: int = 0
    detail: str = ""
    _badness: tuple[int, float] = field(default=(-1, 0.0), repr=False)

    def add(self, verdict: Verdict) -> None:
        """Count one verdict, and keep it if it is the worst so far."""
        self.cases += verdict.status not in ("not returned", "nothing proved")
        self.end_to_end_cases += verdict.ratio is not None
        self.local_cases += verdict.local is not None
        self.missing += verdict.status == "not returned"
        self.undecided += verdict.status == "nothing proved"
        self.failures += verdict.status in FAILURES
        self.ratio = _larger(self.ratio, verdict.ratio)
        self.local_ratio = _larger(self.local_ratio, verdict.local)
        if verdict.badness > self._badness:
            self._badness = verdict.badness
            self.status, self.detail = verdict.status, verdict.detail
            self.max_abs_error, self.max_rel_error = verdict.max_abs_error, verdict.max_rel_error
            self.worst_problem, self.worst_sizes = verdict.problem.origin, verdict.problem.sizes
            self.first_wrong_step = verdict.step


def _larger(a: float | None, b: float | None) -> float | None:
    return b if a is None else a if b is None else max(a, b)


@dataclass
class Report:
    """Rows for each gradient, notes on the candidate's manners, and the verdict ``passed``."""

    rows: list[Row]
    notes: list[str] = field(default_factory=list)

    @classmethod
    def of(cls, results: Iterable[tuple[list[Verdict], list[str]]]) -> "Report":
        """Collect the verdicts and notes on many problems."""
        rows = {k: Row(k) for k in (*GRADIENTS, "states")}
        notes: dict[str, None] = {}
        for verdicts, said in results:
            notes |= dict.fromkeys(said)
            for verdict in verdicts:
                rows[verdict.gradient].add(verdict)
        if not rows["states"].worst_problem:
            del rows["states"]  # an extra that nobody has to return
        return cls(list(rows.values()), list(notes))

    @property
    def passed(self) -> bool:
        """Whether something was proved and nothing is wrong; what was left out is not passed."""
        statuses = {row.status for row in self.rows}
        proved = any(row.status == "match" for row in self.rows if row.gradient != "states")
        partly = any(row.missing and row.status != "not returned" for row in self.rows)
        return proved and statuses <= {"match", "not returned"} and not partly

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
        hidden = max(row.undecided + row.cases - row.end_to_end_cases for row in self.rows)
        undecided = max(row.undecided for row in self.rows)
        remarks = []
        if hidden:
            remarks.append(
                f"end to end, rounding hides the answer in up to {hidden} problems a gradient; "
                f"step by step, all but {undecided} are decided"
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
        rows = [
            {k: json_value(v) for k, v in asdict(row).items() if not k.startswith("_")}
            for row in self.rows
        ]
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
    problems = f"{row.failures} of {row.cases} wrong" if row.failures else f"{row.cases}"
    return (
        row.gradient,
        row.status,
        *("" if ratio is None else f"{ratio:.3g}" for ratio in (row.ratio, row.local_ratio)),
        problems if row.cases else "",
        sizes if row.cases else "",
    )
