"""Write docs/errata.md from the equations and their smallest counterexamples.

python docs/errata.py             every number is computed when the page is written
python docs/errata.py --check     compare instead; exit 1 if the page is out of date
"""

import sys
from pathlib import Path

import numpy as np

from manual_bptt.equations import BEFORE_THE_LAST, EQUATIONS, SUM, Equation, Unrolled, demonstrate

PAGE = Path(__file__).resolve().with_name("errata.md")
HEAD = """# Errata of Lab 9

Ten of the 37 numbered equations are false as printed. Each stands here as printed and as corrected,
with the smallest network found that tells the two apart: one input, one hidden unit, one output,
and zeros but for the entries named, so that every number below can be checked with a pocket
calculator.

How we know: [`tests/test_equations.py`](../tests/test_equations.py) shows that the corrected forms
equal autodiff on random networks of many sizes, and lets Hypothesis look for networks on which the
printed forms do not: it finds them, and shrinks them to none smaller than the ones below.
`manual-bptt verify` fails if a corrected form is wrong, or a printed form accused here is right.

The roles: y is the output (Eq. 2), y-hat the truth (Eq. 3), the loss the squared error. Read the
other way round, (30), (32), (33), (36) and (37) hold and (34) is false: either way Exercise 2
contradicts itself.
{contents}
"""
TAIL = """## Smaller things

These are not counted as errata, since the text around them says what is meant.

- **(16), (17), (25) to (29), (36), (37)**: the gradient of y<sup>[t]</sup> or h<sup>[t]</sup> in a
  parameter is the one through that parameter's use at step t alone. The lab says so at (18), for V.
  Read as total derivatives, (17) and (26) to (29) would count paths through earlier states as well,
  and be false.
- **(18)**: the dummy copies of V run from 1 to tau, not to t.
- **(25), (26), (28), (29)**: n is the number of outputs in (25) and the number of hidden units in
  the others.
- **(27)**: the left-hand side is a matrix, the right-hand side its i-th row; the other rows are
  zero. The text says row i.
- **After (11)**: the gradient of y in x lies in R<sup>n &times; m</sup>, not
  R<sup>n</sup> &times; R<sup>m</sup>. **After (25)**: row i is the transpose of h<sup>[t]</sup>.
- **(1), (9)**: h<sup>[0]</sup> is not defined. Here it is an argument, zero by default.
- **(13), (34), (36)**: in the copy we worked from, a v stands for y under one of the gradient
  signs; in **(5)** one L is upright where all others are script; and in **(19)** it is not the same
  V that is bold on both sides. Our formulas settle these, and set superscripts apart.
- **Exercise 2** calls itself the third exercise.
"""


def section(equation: Equation) -> str:
    """Return the section on one erratum."""
    s, printed, corrected = demonstrate(equation)
    computed = states(s) if equation.number == 14 else states(s) + gradients(s)
    given = ", ".join(f"{k} = {v:g}" for k, v in equation.counterexample.items() if k != "T")
    where = {BEFORE_THE_LAST: " at t = 1", SUM: ""}.get(equation.steps, "")
    quantity = equation.quantity.removeprefix("Exercise 2: ")
    return f"""<a id="eq-{equation.number}"></a>

## ({equation.number}) {quantity[0].upper()}{quantity[1:]}

As printed:

```math
{equation.latex}
```

Corrected:

```math
{equation.corrected_latex}
```

{equation.reason}

**Counterexample**: {steps(s)}, {given}, everything else 0.

{chr(10).join(computed)}

| | value{where} |
|---|---|
| as printed | {number(printed)} |
| corrected | {number(corrected)} |

"""


def steps(s: Unrolled) -> str:
    """Return the length of a sequence in words."""
    return f"{s.tau} step{'s' if s.tau > 1 else ''}"


def states(s: Unrolled) -> list[str]:
    """Return how the states come about, as lines of a list."""
    return [
        f"- h<sup>[{t}]</sup> = tanh({(s.W @ s.h[t - 1] + s.U @ s.x[t] + s.b)[0]:.6g})"
        f" = {s.h[t][0]:.6f}"
        for t in range(1, s.tau + 1)
    ]


def gradients(s: Unrolled) -> list[str]:
    """Return the last output and the gradients on the way back, as lines of a list."""
    return [f"- y<sup>[{s.tau}]</sup> = {s.y[s.tau][0]:.6f}"] + [
        f"- gradient in y<sup>[{t}]</sup>: {s.dy[t][0]:.6f}; in h<sup>[{t}]</sup>: {s.dh[t][0]:.6f}"
        for t in range(s.tau, 0, -1)
    ]


def number(value: np.ndarray) -> str:
    """Return the one entry of an array."""
    return f"{value.ravel()[0] + 0.0:.6f}"


def page() -> str:
    """Return the whole page."""
    errata = [e for e in EQUATIONS.values() if e.corrected]
    contents = "\n" + " · ".join(f"[({e.number})](#eq-{e.number})" for e in errata)
    return HEAD.format(contents=contents) + "\n" + "".join(map(section, errata)) + TAIL


if __name__ == "__main__":
    if "--check" in sys.argv[1:]:
        if PAGE.read_text(encoding="utf-8") != page():
            sys.exit("docs/errata.md is out of date: python docs/errata.py")
    else:
        PAGE.write_text(page(), encoding="utf-8")
