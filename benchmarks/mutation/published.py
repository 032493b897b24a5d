"""Which files are mutated, which tests judge them, and how docs/trust.md shows what came of it."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
# Quick ones first. Tests that compare the source text with something would be no evidence.
EVERYWHERE = (
    "arguments",
    "gradients_without_autodiff",
    "promises",
    "hostile_inputs",
    "repeatability",
    "corners",
    "laws",
    "floating_point",
)
# equations.py is left out: the comparison with autodiff judges each of its functions by itself.
CELLS = sorted(path.stem for path in ROOT.glob("manual_bptt/cells/[!_]*.py"))
TESTS = {
    "forward": ("forward", "cost", *EVERYWHERE, "recomputation"),
    "backward": ("cost", "blocks", *EVERYWHERE, "recomputation"),
    "products": ("cells", "cost", *EVERYWHERE, "recomputation", "blocks"),
    "arithmetic": ("arithmetic", "forward", *EVERYWHERE, "cells"),
    "arrays": ("forward", "validation", *EVERYWHERE, "initial_parameters"),
    "axes": ("cells", *EVERYWHERE, "validation"),
    **{
        f"cells/{name}": ("cells", "cost", "blocks", "arithmetic", *EVERYWHERE, "ways")
        for name in ("__init__", *CELLS)
    },
    "engine/blocks": (
        "forward",
        "cost",
        "blocks",
        *EVERYWHERE,
        "recomputation",
        "cells",
        "compiled",
    ),
    "losses": ("losses", *EVERYWHERE),
    "gradients": (*EVERYWHERE, "workers", "recomputation", "compiled", "cells"),
    "engine/segments": ("recomputation", *EVERYWHERE, "ways"),
    "engine/workers": ("workers", "workspace", "compiled", *EVERYWHERE),
    "engine/workspace": ("workspace", "workers", "recomputation"),
    "validation": (*EVERYWHERE, "validation", "cells", "ways"),
    "params": ("initial_parameters", *EVERYWHERE, "cells"),
    "compiled": ("compiled", "ways"),
}


def test_files(file: str) -> tuple[str, ...]:
    """Return the files of tests that judge a file."""
    return tuple(f"tests/test_{name}.py" for name in TESTS[file])


def counts(of: dict[str, Any], start: str = "") -> dict[str, int]:
    """Return how many mutants, of all files or of those whose name starts so, met which end."""
    ends = ("timed out", "equivalent", "survived")
    total = sum(n for file, n in of["mutants"].items() if file.startswith(start))
    other = {end: sum(name.startswith(start) for name in of[end]) for end in ends}
    return {"mutants": total, "killed": total - sum(other.values()), **other}


def score(n: dict[str, int], among: int) -> str:
    """Return how many of some mutants were noticed, in percent, rounded down."""
    noticed = n["killed"] + n["timed out"]
    return f"{1000 * noticed // among / 10:.1f}%"


def page(of: dict[str, Any]) -> Iterator[str]:
    """Yield the lines of the part of docs/trust.md."""
    n = counts(of)
    yield (
        f"Of {n['mutants']:,} mutants, {n['killed'] + n['timed out']:,} were killed, among them"
        f" {n['timed out']} that did not come to an end; {n['equivalent']} are equivalent, and"
        f" {n['survived']} survived. The score is the share of those that are not equivalent that"
        " were killed; *raw* is the share of all."
    )
    yield ""
    yield "| file | mutants | killed | timed out | equivalent | survived | score | raw |"
    yield "|---|---:|---:|---:|---:|---:|---:|---:|"
    every: list[tuple[str, str]] = [(f"`{file}`", file) for file in of["mutants"]]
    for title, start in [*every, ("**all**", "")]:
        n = counts(of, start)
        scores = score(n, n["mutants"] - n["equivalent"]), score(n, n["mutants"])
        cells = [title, *(f"{number:,}" for number in n.values()), *scores]
        yield f"| {' | '.join(cells)} |"
