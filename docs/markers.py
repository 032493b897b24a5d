"""Parts of a page that commands write: each stands between two markers.

A part is written anew and compared whenever the tests run (a ``--check`` of its script), or it says
at which commit, by which command and on what it was measured: ``measured``.
"""

import platform
import re
import subprocess
from collections.abc import Iterable
from importlib.metadata import version
from itertools import zip_longest
from pathlib import Path

from manual_bptt.cli.bench import cores, processor

TRUST = Path(__file__).resolve().with_name("trust.md")
TOKEN = re.compile(  # sizes such as T=3 D=4, numbers with a point or an exponent, words, signs
    r"(?:[TBDHO]=\d+\s*)+|\d+\.\d+(?:e[+-]?\d+)?|\d+e[+-]?\d+|\w+|[^\w\s─]"
)
DECIMAL = re.compile(r"\d+\.\d+(?:e[+-]?\d+)?|\d+e[+-]?\d+")
SIZES = re.compile(r"(?:[TBDHO]=\d+\s*)+")


def write_part(name: str, text: str, page: Path = TRUST, measured: str = "") -> None:
    """Replace what stands between the markers of this name in a page."""
    if measured:
        text = f"{text.rstrip()}\n\n{measured}\n"
    pattern = rf"(?<=<!-- {name}: begin -->\n).*?(?=<!-- {name}: end -->)"
    new, found = re.subn(pattern, lambda _: text, page.read_text(encoding="utf-8"), flags=re.S)
    if found != 1:
        raise SystemExit(f"{page.name}: {found} pairs of {name} markers; expected 1")
    page.write_text(new, encoding="utf-8")


def read_part(name: str, page: Path = TRUST) -> str:
    """Return what stands between the markers of this name in a page."""
    text = page.read_text(encoding="utf-8")
    return text.partition(f"<!-- {name}: begin -->\n")[2].partition(f"<!-- {name}: end -->")[0]


def commit() -> str:
    """Return the commit that is checked out, and its date: ``1234567 of 2026-01-31``."""
    command = ["git", "log", "-1", "--format=%h of %cs"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=TRUST.parent)
    return done.stdout.strip()


def measured(command: str, *packages: str, at: str = "") -> str:
    """Return the sentence that says at which commit, how and on what a part is measured now.

    ``at`` is the commit where it is not the one that is checked out.
    """
    versions = ", ".join(f"{name} {version(name)}" for name in ("numpy", *packages))
    return (
        f"Measured at commit {at or commit()} by `{command}`, on {cores()} cores ({processor()})"
        f" with Python {platform.python_version()}, {versions}."
    )


def table(header: Iterable[str], rows: Iterable[Iterable[str]]) -> list[str]:
    """Return the lines of a Markdown table; all but the first column are aligned to the right."""
    header = list(header)
    rule = ["---", *["---:"] * (len(header) - 1)]
    lines = [[cell.replace("|", "\\|") for cell in cells] for cells in (header, rule, *rows)]
    return [f"| {' | '.join(cells)} |" for cells in lines]


def first_difference(old: str, new: str) -> str | None:
    """Return where two outputs of one command differ by more than rounding can explain, or None.

    Words, signs and whole numbers have to be the same. Numbers with a point or an exponent are
    ratios to a bound on rounding: processors and libraries round otherwise, so they may differ by a
    factor of two, and another problem may then be the worst (its sizes, with or without B, and so
    the width of a table). Seconds are left out.
    """
    was, now = (TOKEN.findall(re.sub(r"\bin \d+\.\d+ s\b", "", text)) for text in (old, new))
    for i, (a, b) in enumerate(zip_longest(was, now, fillvalue="(end)")):
        if not _same(a, b):
            return f"{' '.join(was[max(i - 8, 0) : i])} [{a}, now {b}]"
    return None


def _same(a: str, b: str) -> bool:
    if DECIMAL.fullmatch(a) and DECIMAL.fullmatch(b):
        return float(a) <= 2 * float(b) and float(b) <= 2 * float(a)
    return a == b or bool(SIZES.fullmatch(a) and SIZES.fullmatch(b))
