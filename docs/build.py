"""Write the generated parts of derivation.md from the registry of equations: python docs/build.py.

Such a part stands between ``<!-- eq 14 -->`` and ``<!-- /eq 14 -->``: the formula, the functions
that compute it and the measured verdict. ``--check`` writes nothing, and exits 1 if anything but
the measured figures is out of date.
"""

import inspect
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from manual_bptt.equations import BEFORE_THE_LAST, EQUATIONS, EVERY, LAST, SUM, Equation, Side
from reference.equations import LEFT

PAGE = Path(__file__).resolve().with_name("derivation.md")
CASES, SEED = 1000, 0  # what manual-bptt verify takes when not told otherwise
PART = re.compile(r"<!-- eq (\d+) -->\n.*?<!-- /eq \1 -->", re.S)
FIGURES = re.compile(r"(?<=largest error )\S+|\S+(?= problems)|(?<=printed\*\* )\([^)]*\)")
STEPS = {
    EVERY: "at every t",
    BEFORE_THE_LAST: "at every t before the last",
    LAST: "at the last step",
    SUM: "term by term and in total",
    "once": "as a whole",
}


def source(function: Side) -> str:
    """Return the text of a function without its decorators."""
    text = inspect.getsource(function)
    return text[text.index("\ndef ") + 1 :].rstrip()


def fence(latex: str) -> str:
    """Return displayed mathematics."""
    return f"```math\n{latex}\n```"


def expected_status(equation: Equation) -> str:
    """Return the verdict that the registry itself implies."""
    if equation.corrected:
        return "erratum"
    return "definition" if equation.kind == "definition" else "holds"


def verdict(equation: Equation, row: Any) -> str:
    """Return the measured verdict in words; row is None where no figures are wanted."""
    error = "#" if row is None else f"{row.worst_ratio:.2g}"
    cases = "#" if row is None else row.cases
    found = f"largest error {error} of what rounding can explain, {cases} problems"
    if equation.corrected:
        wrong = "its product does not exist for all sizes"
        if row is not None and row.printed_ratio is not None:
            wrong = f"by up to {row.printed_ratio:.1e} times what rounding can explain"
        return f"**false as printed** ({wrong}); **the corrected form holds**: {found}"
    return f"{'agrees' if equation.kind == 'definition' else '**holds**'}: {found}"


def part(equation: Equation, row: Any = None) -> str:
    """Return what stands between the markers of an equation."""
    n = equation.number
    name, steps = LEFT[n]
    formula = [fence(equation.latex)]
    if equation.corrected:
        link = f"[erratum ({n})](errata.md#eq-{n})"
        formula = [f"As printed, and false ({link}):", *formula]
        formula += ["Corrected:", fence(equation.corrected_latex)]
    functions = [*equation.sides, *equation.corrected[-1:]]
    names = ", ".join(f"[`{f.__name__}`](../manual_bptt/equations.py)" for f in functions)
    code = "```python\n" + "\n\n\n".join(map(source, functions)) + "\n```"
    left = f'[`{n}: ("{name}", "{steps}")`](../reference/equations.py)'
    note = (
        f"Code: {names}. Compared with autodiff's `{name}` {STEPS[equation.steps]} ({left}) in"
        f" [test_equations.py](../tests/test_equations.py).\\\nMeasured: {verdict(equation, row)}."
    )
    return "\n\n".join([f"<!-- eq {n} -->", *formula, code, note, f"<!-- /eq {n} -->"])


def build(text: str, rows: Mapping[int, Any]) -> str:
    """Return the page with every generated part made anew."""
    return PART.sub(lambda m: part(EQUATIONS[int(m[1])], rows.get(int(m[1]))), text)


def without_figures(text: str) -> str:
    """Return the page with a # for every measured figure."""
    lines = text.splitlines()
    return "\n".join(FIGURES.sub("#", x) if x.startswith("Measured:") else x for x in lines)


def main() -> None:
    """Write the page, or check it."""
    old = PAGE.read_text(encoding="utf-8")
    if "--check" in sys.argv[1:]:
        if without_figures(old) != without_figures(build(old, {})):
            sys.exit("docs/derivation.md is out of date: python docs/build.py")
        return
    from manual_bptt.cli.verify import equation_rows

    rows = {row.number: row for row in equation_rows(CASES, SEED)}
    for number, row in rows.items():
        if row.status != expected_status(EQUATIONS[number]):
            sys.exit(f"Eq. {number}: {row.status}; expected {expected_status(EQUATIONS[number])}")
    PAGE.write_text(build(old, rows), encoding="utf-8")


if __name__ == "__main__":
    main()
