"""The report of ``manual-bptt verify`` as one web page, without scripts or anything from outside.

Equations are MathML, which browsers typeset themselves. Error bars are drawn on a logarithmic axis
against the bound: what rounding can explain.
"""

from html import escape
from math import log10
from typing import Any

from manual_bptt.equations import EQUATIONS, Equation, demonstrate

LOW, HIGH = -3, 18  # powers of ten at the ends of the axis
STATUS_WORDS = {
    "definition": "definition",
    "holds": "holds",
    "erratum": "erratum (corrected form holds)",
    "fails": "fails",
}
NO_PRODUCT = "Where there are not as many outputs as units, the printed product does not exist."
STYLE = """
:root { color-scheme: light dark; --ink: #1c2430; --soft: #5b6675; --page: #f7f8fa; --card: #fff;
  --line: #d9dee5; --good: #1b7f4b; --warn: #9a5b00; --bad: #b3261e; --rule: #1c2430; }
@media (prefers-color-scheme: dark) { :root { --ink: #e7ebf0; --soft: #a2adbb; --page: #12161c;
  --card: #1b2129; --line: #333d49; --good: #5fce97; --warn: #f0b455; --bad: #ff8a80;
  --rule: #e7ebf0; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 76rem; padding: 2rem 1.25rem 4rem; color: var(--ink);
  background: var(--page); font: 1.05rem/1.55 system-ui, sans-serif; }
h1 { font-size: 2rem; line-height: 1.2; margin: 0 0 .5rem; }
h2 { margin: 2.5rem 0 .75rem; }
p { max-width: 46rem; }
.lead { font-size: 1.2rem; }
.facts { color: var(--soft); font-size: .95rem; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; background: var(--card); }
th, td { text-align: left; padding: .4rem .75rem; border-bottom: 1px solid var(--line);
  white-space: nowrap; }
th { color: var(--soft); font-weight: 600; }
.card { background: var(--card); border: 1px solid var(--line); border-left: .4rem solid;
  border-radius: .4rem; padding: .8rem 1.1rem; margin: 0 0 .9rem; }
.card header { display: flex; flex-wrap: wrap; gap: .2rem .8rem; align-items: baseline; }
.number { font-weight: 700; font-size: 1.15rem; min-width: 2.6rem; }
.verdict { margin-left: auto; font-weight: 600; }
.definition, .holds, .match { border-left-color: var(--good); }
.definition .verdict, .holds .verdict, .good { color: var(--good); }
.erratum { border-left-color: var(--warn); }
.erratum .verdict { color: var(--warn); }
.fails { border-left-color: var(--bad); }
.fails .verdict, .bad { color: var(--bad); }
.math { overflow-x: auto; overflow-y: hidden; padding: .4rem 0 .9rem; }
.math math { font-size: 1.25rem; font-family: "Latin Modern Math", "STIX Two Math", "Cambria Math",
  math; }
.label { color: var(--soft); font-size: .9rem; }
.bar { display: grid; grid-template-columns: 6.5rem 1fr 9rem; gap: .75rem; align-items: center;
  font-size: .9rem; }
.axis { position: relative; height: .7rem; background: var(--line); border-radius: .35rem; }
.axis i { position: absolute; inset: 0 auto 0 0; border-radius: .35rem; }
.axis b { position: absolute; top: -.25rem; bottom: -.25rem; width: 2px; background: var(--rule); }
.axis .good { background: var(--good); }
.axis .bad { background: var(--bad); background-image: repeating-linear-gradient(45deg,
  transparent 0 6px, rgb(0 0 0 / .25) 6px 9px); }
.example { border-top: 1px dashed var(--line); margin-top: .7rem; padding-top: .5rem; }
.example p { margin: .2rem 0; }
code { font: .92em ui-monospace, monospace; }
@media (max-width: 40rem) { .bar { grid-template-columns: 1fr; gap: .2rem; } .verdict { margin: 0; }
  body { padding: 1rem .75rem 3rem; } .math math { font-size: 1rem; } h1 { font-size: 1.6rem; } }
"""


def page(result: dict[str, Any]) -> str:
    """Return the page for what ``manual-bptt verify --json`` writes."""
    parts = [_head(result), _summary(result)]
    for title, report in result["reports"].items():
        parts += [f"<h2>Gradients: {escape(title)}</h2>", _gradient_table(report)]
    parts.append(_equations(result["equations"]))
    body = "\n".join(parts)
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<link rel="icon" href="data:,">\n'
        f"<title>manual-bptt verify</title>\n<style>{STYLE}</style>\n</head>\n"
        f"<body>\n{body}\n</body>\n</html>\n"
    )


def _head(result: dict[str, Any]) -> str:
    good = result["passed"]
    verdict = "Every gradient matches, every equation is accounted for." if good else "It fails."
    return (
        "<h1>The simple RNN, by hand and by autodiff</h1>\n"
        f'<p class="lead {"good" if good else "bad"}"><strong>{verdict}</strong></p>\n'
        "<p>Left of each equals sign stands what <code>jax.grad</code> and"
        " <code>jax.jacobian</code> make of the network and its loss; right of it, the hand-written"
        " formula in NumPy. Errors are in multiples of a bound: what rounding can explain.</p>"
    )


def _summary(result: dict[str, Any]) -> str:
    versions = ", ".join(f"{name} {number}" for name, number in result["versions"].items())
    facts = (
        f"{result['cases']} random problems, seed {result['seed']}, {result['dtype']} for the"
        f" gradients, float64 for the equations; {result['seconds']:.0f} s. {versions}."
    )
    return f'<p class="facts">{escape(facts)}</p>'


def _gradient_table(report: dict[str, Any]) -> str:
    header = "".join(
        f"<th>{name}</th>"
        for name in ("gradient", "verdict", "error / tolerance", "problems", "worst problem")
    )
    rows = []
    for row in report["rows"]:
        style = "good" if row["status"] == "match" else "bad"
        ratio = "" if row["ratio"] is None else f"{row['ratio']:.3g}"
        sizes = " ".join(f"{k}={n}" for k, n in row["worst_sizes"].items())
        cells = [row["gradient"], row["status"], ratio, str(row["cases"]), sizes]
        body = "".join(f"<td>{escape(cell)}</td>" for cell in cells)
        rows.append(f'<tr class="{style}">{body}</tr>')
    notes = "".join(f"<p>{escape(note)}</p>" for note in report["notes"])
    return f'<div class="scroll"><table><tr>{header}</tr>{"".join(rows)}</table></div>{notes}'


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
    return f"<h2>The equations</h2>\n<p>{text}</p>\n{cards}"


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
            "" if row["printed_exists"] else f'<div class="label">{NO_PRODUCT}</div>',
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
