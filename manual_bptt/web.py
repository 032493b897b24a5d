"""What the project's web pages have in common: one file, no scripts, nothing from outside."""

from collections.abc import Sequence
from html import escape

POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
STYLE = """
:root { color-scheme: light dark; --ink: #1c2430; --soft: #5b6675; --page: #f7f8fa; --card: #fff;
  --line: #d9dee5; --good: #1b7f4b; --warn: #9a5b00; --bad: #b3261e; }
@media (prefers-color-scheme: dark) { :root { --ink: #e7ebf0; --soft: #a2adbb; --page: #12161c;
  --card: #1b2129; --line: #333d49; --good: #5fce97; --warn: #f0b455; --bad: #ff8a80; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 66rem; padding: 2rem 1.25rem 4rem; color: var(--ink);
  background: var(--page); font: 1.05rem/1.55 system-ui, sans-serif; overflow-wrap: anywhere; }
h1 { font-size: 2rem; line-height: 1.2; margin: 0 0 .75rem; }
h2 { margin: 2.5rem 0 .75rem; line-height: 1.25; }
p, ul { max-width: 46rem; }
a { color: inherit; }
.lead { font-size: 1.25rem; line-height: 1.45; padding-left: .9rem; border-left: .4rem solid;
  font-weight: 600; }
.good { color: var(--good); }
.warn { color: var(--warn); }
.bad { color: var(--bad); }
.soft { color: var(--soft); }
.facts { color: var(--soft); font-size: .95rem; }
.scroll { overflow-x: auto; border: 1px solid var(--line); border-radius: .4rem;
  background: var(--card); }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { padding: .4rem .75rem; border-bottom: 1px solid var(--line); text-align: right;
  white-space: nowrap; }
tr:last-child > * { border-bottom: 0; }
thead th { color: var(--soft); font-weight: 600; vertical-align: bottom; white-space: normal;
  overflow-wrap: normal; }
th:first-child { text-align: left; white-space: normal; min-width: 7rem; }
tbody th { font-weight: 400; }
code { font: .92em ui-monospace, monospace; }
@media (max-width: 40rem) { body { padding: 1rem .75rem 3rem; } h1 { font-size: 1.6rem; }
  .lead { font-size: 1.1rem; } th, td { padding: .35rem .5rem; } table { font-size: .95rem; } }
@media print { body { max-width: none; padding: 0; } .scroll { overflow: visible; } }
"""


def document(title: str, body: str, style: str = "") -> str:
    """Return a whole page; title and body are HTML, the style goes after the common one."""
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<link rel="icon" href="data:,">\n'
        f"<title>{title}</title>\n<style>{STYLE}{style}</style>\n</head>\n"
        f"<body>\n<main>\n{body}\n</main>\n</body>\n</html>\n"
    )


def table(label: str, header: Sequence[str], rows: Sequence[str]) -> str:
    """Return a table that scrolls sideways by itself; names of columns and rows are HTML."""
    names = "".join(f'<th scope="col">{name}</th>' for name in header)
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{escape(label)}"><table>'
        f"<thead><tr>{names}</tr></thead>\n<tbody>{''.join(rows)}</tbody></table></div>"
    )
