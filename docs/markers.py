"""Parts of a page that commands write: each stands between two markers."""

import re
from collections.abc import Iterable
from pathlib import Path

TRUST = Path(__file__).resolve().with_name("trust.md")


def write_part(name: str, text: str, page: Path = TRUST) -> None:
    """Replace what stands between the markers of this name in a page."""
    pattern = rf"(?<=<!-- {name}: begin -->\n).*?(?=<!-- {name}: end -->)"
    new, found = re.subn(pattern, lambda _: text, page.read_text(encoding="utf-8"), flags=re.S)
    if found != 1:
        raise SystemExit(f"{page.name}: {found} pairs of {name} markers; expected 1")
    page.write_text(new, encoding="utf-8")


def table(header: Iterable[str], rows: Iterable[Iterable[str]]) -> list[str]:
    """Return the lines of a Markdown table; all but the first column are aligned to the right."""
    header = list(header)
    rule = ["---", *["---:"] * (len(header) - 1)]
    lines = [[cell.replace("|", "\\|") for cell in cells] for cells in (header, rule, *rows)]
    return [f"| {' | '.join(cells)} |" for cells in lines]
