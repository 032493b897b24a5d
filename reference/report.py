"""Report: what comparing a candidate with autodiff found, for people and for machines."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from html import escape
from math import isfinite
from statistics import median
from typing import Any, NamedTuple

from reference.findings import Counterexample, Diagnosis
from reference.network.cell import STATES
from reference.network.gradients import GRADIENTS
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
    either is None where it decides nothing. ``step`` is the first wrong step, ``shows`` the largest
    tolerance over the largest entry, in the sharper check.
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
    shows: float | None = None

    @property
    def badness(self) -> tuple[int, float]:
        """What verdicts are ordered by, from good to bad."""
        return STATUSES.index(self.status), max(self.ratio or 0.0, self.local or 0.0)


@dataclass
class Row:
    """All verdicts on one gradient.

    ``ratio`` is the largest error over its tolerance end to end, ``local_ratio`` that of single
    steps; None if nothing was decided so. The errors and the worst problem belong to the worst
    verdict. ``cases`` counts the problems that decide, ``compared`` those of them in which numbers
    were compared, of which ``end_to_end_cases`` decide end to end and ``local_cases`` step by step;
    ``undecided`` those that cannot, and ``missing`` those for which nothing was returned. Of the
    ``failures``, ``local_failures`` match end to end; ``shortest`` is the least T of those that
    fail, and ``failing`` the smallest problem with the worst status. ``first_wrong_step`` is the
    step nearest the loss at which x or h goes wrong: the recursion runs from the last step to the
    first. ``shows`` are, problem by problem, the tolerances over the largest entries.
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
    compared: int = 0
    end_to_end_cases: int = 0
    local_cases: int = 0
    missing: int = 0
    undecided: int = 0
    failures: int = 0
    local_failures: int = 0
    detail: str = ""
    shows: list[float] = field(default_factory=list, repr=False)
    shortest: int | None = None
    failing: Problem | None = field(default=None, repr=False)
    _badness: tuple[int, float] = field(default=(-1, 0.0), repr=False)

    def add(self, verdict: Verdict) -> None:
        """Count one verdict, and keep it if it is the worst so far."""
        self.cases += verdict.status not in ("not returned", "nothing proved")
        self.compared += verdict.status in ("match", "mismatch")
        self.end_to_end_cases += verdict.ratio is not None
        self.local_cases += verdict.local is not None
        self.missing += verdict.status == "not returned"
        self.undecided += verdict.status == "nothing proved"
        self.failures += verdict.status in FAILURES
        if verdict.shows is not None:
            self.shows.append(verdict.shows)
        end_to_end = verdict.ratio is not None and verdict.ratio <= 1
        self.local_failures += verdict.status == "mismatch" and end_to_end
        self.ratio = _larger(self.ratio, verdict.ratio)
        self.local_ratio = _larger(self.local_ratio, verdict.local)
        self._keep(verdict)
        if verdict.badness > self._badness:
            self._badness = verdict.badness
            self.status, self.detail = verdict.status, verdict.detail
            self.max_abs_error, self.max_rel_error = verdict.max_abs_error, verdict.max_rel_error
            self.worst_problem, self.worst_sizes = verdict.problem.origin, verdict.problem.sizes
            self.first_wrong_step = verdict.step

    def _keep(self, verdict: Verdict) -> None:
        """Keep the problem if it is the one to look at: the smallest of those that went worst."""
        if verdict.status not in FAILURES:
            return
        T = verdict.problem.sizes["T"]
        self.shortest = T if self.shortest is None else min(T, self.shortest)
        worse = STATUSES.index(verdict.status) - STATUSES.index(self.status)
        smaller = self.failing is None or _volume(verdict.problem) < _volume(self.failing)
        if worse > 0 or (worse == 0 and smaller):
            self.failing = verdict.problem

    def as_dict(self) -> dict[str, Any]:
        """Return the row as JSON values."""
        hidden = ("failing", "shows", "_badness")
        kept = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in hidden}
        kept["shows"] = median(self.shows) if self.shows else None
        return {k: json_value(value) for k, value in kept.items()}


def _volume(problem: Problem) -> int:
    return int(problem.x.size + problem.goal.size + problem.sizes["H"] ** 2)


def _larger(a: float | None, b: float | None) -> float | None:
    return b if a is None else a if b is None else max(a, b)


@dataclass
class Report:
    """What comparing a candidate with autodiff found.

    ``rows`` have the verdict on each gradient, ``notes`` what else the candidate does, such as
    printing, ``assumed`` how results in an unexpected shape or under another name were read.
    ``objections`` are why it does not pass beside what its rows say. Where something is wrong,
    ``diagnosis`` says why as far as it is known, and ``smallest`` is the smallest problem found
    that shows it. ``formats`` says to which formats the candidate may round, if it declares
    any. Where nothing could be read, ``advice`` has what to write, and comes first.
    """

    rows: list[Row]
    notes: list[str] = field(default_factory=list)
    assumed: list[str] = field(default_factory=list)
    objections: list[str] = field(default_factory=list)
    diagnosis: Diagnosis | None = None
    smallest: Counterexample | None = None
    formats: str = ""
    advice: list[str] = field(default_factory=list)

    @classmethod
    def of(cls, results: Iterable[tuple[list[Verdict], Mapping[str, str]]]) -> "Report":
        """Collect the verdicts and notes on many problems; one note on each subject."""
        rows: dict[str, Row] = {}
        notes: dict[str, str] = {}
        formats = ""
        for verdicts, said in results:
            notes = {**said, **notes}
            for verdict in verdicts:
                rows.setdefault(verdict.gradient, Row(verdict.gradient)).add(verdict)
                formats = verdict.problem.formats
        rows = rows or {k: Row(k) for k in GRADIENTS}
        if "states" in rows:
            rows["states"] = rows.pop("states")  # an extra that nobody has to return comes last
        unread = [subject.removeprefix("name ") for subject in notes if subject.startswith("name ")]
        names = [k for k in rows if k != "states"]
        left_out = [k for k in names if k not in STATES and rows[k].status == "not returned"]
        if objections := _unread(unread, left_out, names):
            notes = {k: text for k, text in notes.items() if not k.startswith("name ")}
        manners = [text for subject, text in notes.items() if not subject.startswith("read ")]
        assumed = [text for subject, text in notes.items() if subject.startswith("read ")]
        return cls(list(rows.values()), manners, assumed, objections, formats=formats)

    @property
    def passed(self) -> bool:
        """Whether something was proved and nothing is wrong; what was left out is not passed."""
        return self.verdict == "passed"

    @property
    def verdict(self) -> str:
        """``passed`` or ``FAILED``; or, as ``in_a_word`` has it, that too little was proved."""
        partly = any(row.missing and row.status != "not returned" for row in self.rows)
        if partly or self.objections:
            return "FAILED"
        matches = {row.gradient for row in self.rows if row.status == "match"}
        return in_a_word({row.status for row in self.rows}, bool(matches - {"states"}))

    def witnesses(self) -> list[Problem]:
        """Return the problems to look at, one for each gradient that fails, without repetition."""
        kept = {id(row.failing): row.failing for row in self.rows if row.failing is not None}
        return list(kept.values())

    def __str__(self) -> str:
        lines = [HEADER, *(cells(row) for row in self.rows)]
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        table = [
            "  ".join(cell.ljust(w) for cell, w in zip(line, widths, strict=True)).rstrip()
            for line in lines
        ]
        parts = [self.advice, table, self.remarks(), *self.explanations().values()]
        return "\n\n".join(["\n".join(part) for part in parts if part] + [self.verdict])

    def remarks(self) -> list[str]:
        """Return what does not fit the table: undecided problems, what is wrong, notes."""
        hidden = max(row.undecided + row.compared - row.end_to_end_cases for row in self.rows)
        undecided = max(row.undecided for row in self.rows)
        remarks = [self._sensitivity()] if self.formats else []
        if hidden:
            remarks.append(
                f"end to end, rounding hides the answer in up to {hidden} problems a gradient; "
                f"step by step, all {f'but {undecided} ' if undecided else ''}are decided"
            )
        for row in self.rows:
            if row.missing and row.status != "not returned":
                remarks.append(f"{row.gradient} was not returned for {row.missing} problems")
        return remarks + self._accusations() + self.objections + self.assumed + self.notes

    def _sensitivity(self) -> str:
        """Return how small an error can be that still shows in the formats that are declared."""
        medians = {row.gradient: median(row.shows) for row in self.rows if row.shows}
        if not medians:
            return f"with {self.formats}, nothing was decided"
        most = max(medians, key=medians.__getitem__)
        return (
            f"with {self.formats}, an error shows in half of the problems from "
            f"{medians[most]:.2g} of the largest entry on (d{most}; in other gradients earlier)"
        )

    def _accusations(self) -> list[str]:
        """Return a line on each gradient that is wrong; what is said of several is said once."""
        together: dict[str, list[str]] = {}
        for row in self.rows:
            if row.status in FAILURES:
                together.setdefault(self._accusation(row), []).append(row.gradient)
        return [
            f"{' '.join(names)} {'is' if len(names) == 1 else 'are'} wrong{text}"
            for text, names in together.items()
        ]

    def _accusation(self, row: Row) -> str:
        """Return where and in which way a gradient is wrong, and where to see it."""
        step = row.first_wrong_step
        onwards = "on" if row.gradient == "states" else "back"
        text = "" if step is None else f" from step {step} {onwards}"
        text += f" ({row.detail})" if row.detail else ""
        if row.local_failures == row.failures:
            text += (
                ", but by so little that it matches end to end: it does not follow from the "
                "returned h; if it is not computed from that, leave h out"
            )
        return text if self.smallest is not None else f"{text}; see {row.worst_problem}"

    def explanations(self) -> dict[str, list[str]]:
        """Return the lines of the diagnosis and of the smallest failing problem, by subject."""
        parts = {}
        if self.diagnosis:
            parts["why"] = ["why", *(f"  {line}" for line in self.diagnosis.lines())]
        if self.smallest is not None:
            parts["smallest"] = self.smallest.text()
            parts["again"] = ["to see it again", *(f"  {line}" for line in self.smallest.lines)]
        return parts

    def as_dict(self) -> dict[str, Any]:
        """Return everything as JSON values."""
        return {
            "passed": self.passed,
            "rows": [row.as_dict() for row in self.rows],
            "notes": self.notes,
            "assumed": self.assumed,
            "objections": self.objections,
            "advice": self.advice,
            "diagnosis": None if self.diagnosis is None else self.diagnosis.as_dict(),
            "smallest": None if self.smallest is None else self.smallest.as_dict(),
        }

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
        parts = "".join(
            f'<pre style="white-space: pre-wrap">{escape(chr(10).join(lines))}</pre>'
            for lines in self.explanations().values()
        )
        table = f"<table><tr>{header}</tr>{body}</table>"
        advice = f"<pre>{escape(chr(10).join(self.advice))}</pre>" if self.advice else ""
        return f"{advice}{table}{remarks}{parts}<p>{emphasised(self.verdict)}</p>"


def in_a_word(statuses: set[str], proved: bool) -> str:
    """Return the verdict on rows of these statuses, of which one that counts is a match or none is.

    Examples
    --------
    >>> in_a_word({"match", "not returned"}, True), in_a_word({"match", "wrong shape"}, True)
    ('passed', 'FAILED')
    >>> in_a_word({"nothing proved"}, False), in_a_word({"match", "nothing proved"}, True)
    ('nothing proved', 'proved in part')
    """
    if not statuses <= {"match", "not returned", "nothing proved"}:
        return "FAILED"
    if not proved:
        return "nothing proved"
    return "proved in part" if "nothing proved" in statuses else "passed"


def emphasised(verdict: str) -> str:
    """Return a verdict in HTML: whatever has not passed stands out."""
    return verdict if verdict == "passed" else f"<strong>{verdict.lower()}</strong>"


def _unread(names: list[str], left_out: list[str], known: list[str]) -> list[str]:
    """Return the objection to names that mean nothing beside gradients that are not there."""
    if not (names and left_out):
        return []
    these = "is not the name of a gradient" if len(names) == 1 else "are not names of gradients"
    missing = f"{' '.join(left_out)} {'was' if len(left_out) == 1 else 'were'} not returned"
    return [
        f"{', '.join(names)} {these}, and {missing}: expected {' '.join(known)}, or dW dU and "
        "so on; leave out what is not a gradient"
    ]


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
