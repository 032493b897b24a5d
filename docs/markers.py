"""Parts of trust.md that commands write: each stands between two markers."""

import re
from collections.abc import Iterable
from pathlib import Path

PAGE = Path(__file__).resolve().with_name("trust.md")


def write_part(name: str, text: str) -> None:
    """Replace what stands between the markers of this name."""
    pattern = rf"(?<=<!-- {name}: begin -->\n).*?(?=<!-- {name}: end -->)"
    page, found = re.subn(pattern, lambda _: text, PAGE.read_text(encoding="utf-8"), flags=re.S)
    if found != 1:
        raise SystemExit(f"{PAGE.name}: {found} pairs of {name} markers; expected 1")
    PAGE.write_text(page, encoding="utf-8")


def table(header: Iterable[str], rows: Iterable[Iterable[str]]) -> list[str]:
    """Return the lines of a Markdown table; all but the first column are aligned to the right."""
    header = list(header)
    rule = ["---", *["---:"] * (len(header) - 1)]
    lines = [[cell.replace("|", "\\|") for cell in cells] for cells in (header, rule, *rows)]
    return [f"| {' | '.join(cells)} |" for cells in lines]
