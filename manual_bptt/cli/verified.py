"""What ``manual-bptt verify`` found, as it prints it: the matrix first, then the lab's network."""

from collections.abc import Iterable
from typing import Any, NamedTuple

from manual_bptt.cli.check import print_report
from manual_bptt.cli.shared import print_table

LABS = "tanh"  # the cell that is judged in full unless cells are named
AS_IT_IS = "by default"
LAST_STATE = "dh_last"
HEADINGS = {  # of the matrix, for ways whose names are longer than its columns
    AS_IT_IS: "default",
    "workers=2": "workers",
    "checkpoint_every=1": "segments",
    "kernel='numba'": "numba",
    "kernel='numba', all three": "all",
}
UNPADDED = "autodiff without padding"


class Judged(NamedTuple):
    """A report on the gradients of a cell, how they were computed, and the seconds it took.

    ``options`` are those of ``loss_and_gradients``.
    """

    cell: str
    way: str
    title: str
    report: Any
    seconds: float
    options: dict[str, Any] = {}  # noqa: RUF012  never changed

    def as_dict(self) -> dict[str, Any]:
        """Return the report as JSON values, with the options or the seconds."""
        by_default = self.cell != LABS or self.way in (AS_IT_IS, UNPADDED)
        of = {"seconds": self.seconds} if by_default else {"options": self.options}
        return {**({} if self.cell != LABS else of), **self.report.as_dict()}

    @property
    def worst(self) -> float:
        """The worst error over its tolerance, of any gradient, end to end or in a step."""
        errors = (e for row in self.report.rows for e in (row.ratio, row.local_ratio) if e)
        return max(errors, default=0.0)


def matrix_row(judged: Iterable[Judged], cell: str) -> dict[str, float]:
    """Return the worst error of a cell over its tolerance, by the way to compute it."""
    found: dict[str, float] = {}
    for j in judged:
        if j.cell == cell and j.way != UNPADDED and any(row.cases for row in j.report.rows):
            found[j.way] = max(found.get(j.way, 0.0), j.worst)
    return found


def print_verified(judged: list[Judged], equations: list[Any]) -> None:
    """Print the matrix of cells and ways, what is wrong, and the lab's network in full."""
    _print_matrix(judged)
    for j in judged:
        if not j.report.passed or (j.cell == LABS and not j.options and j.way != LAST_STATE):
            _print_report(j)
    if equations:
        _print_equations(equations)


def _print_matrix(judged: list[Judged]) -> None:
    """Print a line for each cell: in each way, the worst error, or what is wrong."""
    from rich.text import Text

    from reference.report import FAILURES

    cells = list(dict.fromkeys(j.cell for j in judged))
    ways = list(dict.fromkeys(j.way for j in judged if j.way != UNPADDED))
    rows = []
    for cell in cells:
        worst = matrix_row(judged, cell)
        fields = []
        for way in ways:
            of = [j.report for j in judged if (j.cell, j.way) == (cell, way)]
            wrong = [row.gradient for r in of for row in r.rows if row.status in FAILURES]
            words = f"{' '.join(dict.fromkeys(wrong))} WRONG" if wrong else "-"
            words = f"{worst[way]:.3g}" if way in worst and not wrong else words
            fields.append(Text(words, style="bold red" if wrong else "green"))
        rows.append((Text(cell, no_wrap=True), *fields))
    header = ("cell", *(HEADINGS.get(way, way) for way in ways))
    print_table("cells against jax.grad", header, rows, _note(judged))


def _note(judged: list[Judged]) -> str:
    problems = {
        j.cell: max(row.cases for row in j.report.rows)
        for j in reversed(judged)
        if j.way == AS_IT_IS
    }
    counts = ", ".join(f"{n} of {cell}" for cell, n in reversed(problems.items()))
    return (
        "the worst error over its tolerance, of any gradient, end to end or in a step\n"
        f"default: {counts}; segments: checkpoint_every=1; all: numba, workers and segments;\n"
        f"{LAST_STATE}: what arrives comes from beyond the last state\n"
    )


def _print_equations(rows: list[Any]) -> None:
    from rich.text import Text

    from manual_bptt.equations import EQUATIONS

    words = {"erratum": "erratum (corrected form holds)", "fails": "FAILS"}
    styles = {"erratum": "yellow", "fails": "bold red"}
    cells = [
        (
            str(row.number),
            EQUATIONS[row.number].quantity,
            Text(words.get(row.status, row.status), style=styles.get(row.status, "green")),
            f"{row.worst_ratio:.3g}",
            str(row.cases),
        )
        for row in rows
    ]
    count = {s: sum(row.status == s for row in rows) for s in ("erratum", "fails")}
    sound = len(rows) - count["fails"]
    note = (
        f"equations: {sound} of {len(rows)} hold or define, {count['erratum']} of them only as"
        f" corrected; {count['fails']} fail\n"
    )
    header = ("eq.", "quantity", "verdict", "error/tol.", "cases")
    print_table("the equations of Lab 9 against jax.grad and jax.jacobian", header, cells, note)


def _print_report(judged: Judged) -> None:
    title = judged.title if judged.cell == LABS else f"{judged.cell}, {judged.way}"
    headline = f"manual gradients against jax.grad: {title}"
    if judged.way == UNPADDED:
        headline = "jax.grad at the exact shape against jax.grad with padding"
    print_report(judged.report, headline, judged.seconds, again=_to_reproduce(judged))


def _to_reproduce(judged: Judged) -> list[str]:
    """Return the command that repeats a failure alone, if its problem can be made from a line."""
    found = [p for p in judged.report.witnesses() if p.origin.startswith("reference.")]
    if not found or judged.way == UNPADDED:
        return []
    problem = found[0]
    options = judged.options if judged.cell == LABS else {"cell": judged.cell, **judged.options}
    chosen = "".join(f", {name}={value!r}" for name, value in options.items())
    made = f"candidate(mb.{problem.loss}{chosen})"
    if judged.way == LAST_STATE:
        made = f"from_the_last_state({judged.cell!r})"
    code = "; ".join([
        "import reference, manual_bptt as mb",
        f"from manual_bptt.candidate import {made.partition('(')[0]}",
        f"print(reference.Report.of(reference.judge({made}, [{problem.origin}])))",
    ])  # fmt: skip
    return [f'to reproduce: python -c "{code}"']
