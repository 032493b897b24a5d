"""The report of ``manual-bptt verify`` as one web page, without scripts or anything from outside.

Equations are MathML, which browsers typeset themselves. Error bars are drawn on a logarithmic axis
against the bound: what rounding can explain.
"""

import re
from collections.abc import Iterable
from html import escape
from math import log10
from typing import Any

from manual_bptt.equations import EQUATIONS, Equation, demonstrate
from manual_bptt.web import document, table

LOW, HIGH = -3, 18  # powers of ten at the ends of the axis
STATUS_WORDS = {
    "definition": "definition",
    "holds": "holds",
    "erratum": "erratum (corrected form holds)",
    "fails": "fails",
}
NO_PRODUCT = "Where there are not as many outputs as units, the printed product does not exist."
STYLE = """
:root { --rule: var(--ink); }
.card { background: var(--card); border: 1px solid var(--line); border-left: .4rem solid;
  border-radius: .4rem; padding: .8rem 1.1rem; margin: 0 0 .9rem; }
.card header { display: flex; flex-wrap: wrap; gap: .2rem .8rem; align-items: baseline; }
.number { font-weight: 700; font-size: 1.15rem; min-width: 2.6rem; }
.verdict { margin-left: auto; font-weight: 600; }
.definition, .holds { border-left-color: var(--good); }
.definition .verdict, .holds .verdict { color: var(--good); }
.erratum { border-left-color: var(--warn); }
.erratum .verdict { color: var(--warn); }
.fails { border-left-color: var(--bad); }
.fails .verdict { color: var(--bad); }
.math { overflow-x: auto; overflow-y: hidden; padding: .4rem 0 .9rem; }
.math math { font-size: 1.25rem; font-family: "Latin Modern Math", "STIX Two Math", "Cambria Math",
  math; }
.label { color: var(--soft); font-size: .9rem; white-space: nowrap; }
.bar { display: grid; grid-template-columns: 3.5rem 1fr 9rem; gap: .75rem; align-items: center;
  font-size: .9rem; }
.axis { position: relative; height: .7rem; background: var(--line); border-radius: .35rem; }
.axis i { position: absolute; inset: 0 auto 0 0; border-radius: .35rem; }
.axis b { position: absolute; top: -.25rem; bottom: -.25rem; width: 2px; background: var(--rule); }
.axis .good { background: var(--good); }
.axis .bad { background: var(--bad); background-image: repeating-linear-gradient(45deg,
  transparent 0 6px, rgb(0 0 0 / .25) 6px 9px); }
.example { border-top: 1px dashed var(--line); margin-top: .7rem; padding-top: .5rem; }
.example p { margin: .2rem 0; }
@media (max-width: 40rem) { .bar { grid-template-columns: 1fr; gap: .2rem; }
  .verdict, .card header { display: block; } .card header > * { margin-right: .6rem; }
  .math math { font-size: 1rem; } }
"""
NOT_JUDGED = ("not returned", "nothing proved")
COLUMNS = ("verdict", "end to end", "each step", "problems")


def page(result: dict[str, Any]) -> str:
    """Return the page for what ``manual-bptt verify --json`` writes."""
    reports = {k: r for k, r in result["reports"].items() if "options" not in r}
    ways = {k: r for k, r in result["reports"].items() if "options" in r}
    first, *others = reports or [""]
    lab = [_gradients(first, reports[first]), _equations(result["equations"])] if reports else []
    parts = [
        _head(result),
        _matrix(result["matrix"]),
        _summary(reports, ways, result["cells"], result["equations"]),
        _facts(result),
        *lab,
        *(_gradients(title, reports[title]) for title in others),
        _ways(ways),
        _cells(result["cells"]),
    ]
    return document("manual-bptt verify", "\n".join(part for part in parts if part), STYLE)


def _head(result: dict[str, Any]) -> str:
    good = result["passed"]
    verdict = "Every gradient matches, every equation is accounted for." if good else "It fails."
    return (
        "<h1>The simple RNN, by hand and by autodiff</h1>\n"
        f'<p class="lead {"good" if good else "bad"}">{verdict}</p>\n'
        "<p>The hand-written formulas in NumPy, beside what <code>jax.grad</code> and"
        " <code>jax.jacobian</code> make of the network and its loss. Errors are in multiples of a"
        " bound on what rounding can explain, of the whole gradient (end to end) and of single"
        " steps (each step): up to 1 is right.</p>"
    )


def _matrix(matrix: dict[str, dict[str, float]]) -> str:
    """Return the worst error of each cell over its tolerance, in each way to compute it."""
    ways = list(dict.fromkeys(way for row in matrix.values() for way in row))
    rows = [
        _row([escape(cell), *(_field(row.get(way)) for way in ways)])
        for cell, row in matrix.items()
    ]
    return table("Cells against jax.grad", ["cell", *map(escape, ways)], rows)


def _field(worst: float | None) -> str:
    if worst is None:
        return "-"
    return _coloured(f"{worst:.3g}", "good" if worst <= 1 else "bad")


def _facts(result: dict[str, Any]) -> str:
    versions = ", ".join(f"{name} {number}" for name, number in result["versions"].items())
    facts = (
        f"Seed {result['seed']}, {result['dtype']} for the gradients, float64 for the equations;"
        f" {result['seconds']:.0f} s. {versions}."
    )
    return f'<p class="facts">{escape(facts)}</p>'


def _summary(
    reports: dict[str, Any],
    ways: dict[str, Any],
    cells: dict[str, Any],
    equations: list[dict[str, Any]],
) -> str:
    """Return one line for everything that was compared, each with a link to its part."""
    rows = [
        _row([_link(_anchor(title), title), *_worst([report])]) for title, report in reports.items()
    ]
    if ways:
        rows.append(_row([_link("ways", "other ways to compute the same"), *_worst(ways.values())]))
    rows += [
        _row([_link("cells", f"the cell {name}"), *_worst(of_cell.values())])
        for name, of_cell in cells.items()
    ]
    if not equations:
        return table("Summary", ["compared with autodiff", *COLUMNS], rows)
    wrong = sum(row["status"] == "fails" for row in equations)
    verdict = _coloured(f"{wrong} fail", "bad") if wrong else _coloured("accounted for", "good")
    ratios = [row["worst_ratio"] for row in equations]
    worst = "not finite" if None in ratios else f"{max(ratios):.3g}"
    problems = str(max(row["cases"] for row in equations))
    title = f"the {len(equations)} equations of Lab 9"
    rows.append(_row([_link("equations", title), verdict, worst, "", problems]))
    return table("Summary", ["compared with autodiff", *COLUMNS], rows)


def _worst(reports: Iterable[dict[str, Any]]) -> list[str]:
    """Return the cells of a summary: the verdict, the largest errors, the number of problems."""
    reports = list(reports)
    rows = [row for report in reports for row in report["rows"] if row["cases"]]
    passed = all(report["passed"] for report in reports)
    verdict = _coloured("match", "good") if passed else _coloured("mismatch", "bad")
    errors = [_number(_largest(row[key] for row in rows)) for key in ("ratio", "local_ratio")]
    return [verdict, *errors, str(max((row["cases"] for row in rows), default=0))]


def _gradients(title: str, report: dict[str, Any]) -> str:
    """Return the table of a report, a line for each gradient."""
    rows = []
    for row in report["rows"]:
        sizes = " ".join(f"{k}={n}" for k, n in row["worst_sizes"].items())
        numbers = [_number(row["ratio"]), _number(row["local_ratio"])]
        cells = [escape(row["gradient"]), _status(row), *numbers, _problems(row), escape(sizes)]
        rows.append(_row(cells))
    header = ["gradient with respect to", *COLUMNS, "worst problem"]
    notes = "".join(f"<p>{escape(note)}</p>" for note in report["notes"])
    heading = f'<h2 id="{_anchor(title)}">Gradients: {escape(title)}</h2>'
    return f"{heading}\n{table(title, header, rows)}{notes}"


def _ways(ways: dict[str, Any]) -> str:
    """Return one table of the other ways to compute the same, a line for each."""
    if not ways:
        return ""
    rows = [
        _row([f"<code>{escape(way)}</code>", *_worst([report])]) for way, report in ways.items()
    ]
    judged = [
        row["gradient"]
        for row in next(iter(ways.values()))["rows"]
        if row["status"] not in NOT_JUDGED
    ]
    text = f"Of each, the worst of the gradients with respect to {', '.join(judged)}."
    wrong = [_gradients(way, report) for way, report in ways.items() if not report["passed"]]
    return "\n".join([
        '<h2 id="ways">Gradients: other ways to compute the same</h2>',
        f"<p>{escape(text)}</p>",
        table("Other ways", ["options of loss_and_gradients", *COLUMNS], rows),
        *wrong,
    ])  # fmt: skip


def _cells(cells: dict[str, Any]) -> str:
    """Return one table of the other cells, a line for each way to compute its gradients."""
    if not cells:
        return ""
    each = [(name, way, report) for name, of in cells.items() for way, report in of.items()]
    rows = [
        _row([escape(name), f"<code>{escape(way)}</code>", *_worst([report])])
        for name, way, report in each
    ]
    wrong = [_gradients(f"{name}, {way}", r) for name, way, r in each if not r["passed"]]
    return "\n".join([
        '<h2 id="cells">Gradients: other cells</h2>',
        table("Other cells", ["cell", "options of loss_and_gradients", *COLUMNS], rows),
        *wrong,
    ])  # fmt: skip


def _row(cells: list[str]) -> str:
    first, *rest = cells
    return f'<tr><th scope="row">{first}</th>{"".join(f"<td>{cell}</td>" for cell in rest)}</tr>'


def _coloured(text: str, style: str) -> str:
    return f'<span class="{style}">{escape(text)}</span>'


def _status(row: dict[str, Any]) -> str:
    """Return a verdict in its colour; what was not returned was not judged, and is no failure."""
    if row["status"] in NOT_JUDGED:
        return _coloured("not judged" if row["status"] == NOT_JUDGED[0] else row["status"], "soft")
    return _coloured(row["status"], "good" if row["status"] == "match" else "bad")


def _problems(row: dict[str, Any]) -> str:
    wrong, cases = row["failures"], row["cases"]
    return f"{wrong} of {cases} wrong" if wrong else str(cases or "")


def _largest(values: Iterable[float | None]) -> float | None:
    return max((value for value in values if value is not None), default=None)


def _number(ratio: float | None) -> str:
    return "" if ratio is None else f"{ratio:.3g}"


def _anchor(title: str) -> str:
    return re.sub(r"\W+", "-", title).strip("-")


def _link(anchor: str, text: str) -> str:
    return f'<a href="#{anchor}">{escape(text)}</a>'


def _equations(rows: list[dict[str, Any]]) -> str:
    counts = {s: sum(row["status"] == s for row in rows) for s in STATUS_WORDS}
    text = (
        f"Of the {len(rows)} numbered equations of Lab 9, {counts['definition']} define something,"
        f" {counts['holds']} hold as printed, {counts['erratum']} are false as printed and hold as"
        f" corrected, {counts['fails']} fail."
        " The bars show the largest error on a logarithmic axis, from"
        f" 1e{LOW} to 1e{HIGH} of the bound; the upright line marks the bound itself."
    )
    cards = "\n".join(_card(EQUATIONS[row["number"]], row) for row in rows)
    return f'<h2 id="equations">The equations</h2>\n<p>{text}</p>\n{cards}'


def _card(equation: Equation, row: dict[str, Any]) -> str:
    status = row["status"]
    parts = [
        f'<section class="card {status}" id="eq-{equation.number}">',
        f'<header><span class="number">({equation.number})</span>'
        f"<span>{escape(equation.quantity)}</span>"
        f'<span class="label">{row["cases"]} problems</span>'
        f'<span class="verdict">{STATUS_WORDS[status]}</span></header>',
    ]
    if not equation.corrected:
        parts += [_math(equation.latex), _bar("error", row["worst_ratio"])]
    else:
        parts += [
            '<div class="label">as printed</div>',
            _math(equation.latex),
            _bar("error", row["printed_ratio"]),
            "" if row["printed_exists"] else f'<p class="facts">{NO_PRODUCT}</p>',
            '<div class="label">corrected</div>',
            _math(equation.corrected_latex),
            _bar("error", row["worst_ratio"]),
            _example(equation),
        ]
    return "\n".join([*parts, "</section>"])


def _math(latex: str) -> str:
    from latex2mathml.converter import convert

    return f'<div class="math">{convert(latex, display="block")}</div>'


def _bar(label: str, ratio: float | None) -> str:
    """Draw one error; None stands for one that is not finite."""
    holds = ratio is not None and ratio <= 1
    share = 1.0 if ratio is None else _position(ratio)
    text = "not finite" if ratio is None else f"{ratio:.2g} of bound"
    return (
        f'<div class="bar"><span>{label}</span><span class="axis">'
        f'<i class="{"good" if holds else "bad"}" style="width:{share:.1%}"></i>'
        f'<b style="left:{_position(1.0):.1%}"></b></span><span>{text}</span></div>'
    )


def _position(ratio: float) -> float:
    """Return where on the axis a ratio lies, from 0 to 1."""
    if ratio <= 10**LOW:
        return 0.01
    return min(1.0, (log10(ratio) - LOW) / (HIGH - LOW))


def _example(equation: Equation) -> str:
    _, printed, corrected = demonstrate(equation)
    given = ", ".join(f"{k} = {v:g}" for k, v in equation.counterexample.items())
    values = f"printed {printed.ravel()[0]:.6f}, corrected and autodiff {corrected.ravel()[0]:.6f}"
    return (
        f'<div class="example"><p>{escape(equation.reason)}</p>'
        "<p>Smallest counterexample found, one unit, zeros but for "
        f"<code>{escape(given)}</code>: {values}.</p></div>"
    )
