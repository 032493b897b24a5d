"""The picture of who imports whom in docs/architecture.md: python docs/arrows.py

Modules and folders of a package, each above what it imports. Of arrows, those are left out that
follow from others.
"""

import ast
import sys
from collections.abc import Iterable, Iterator
from graphlib import TopologicalSorter
from pathlib import Path

from markers import read_part, write_part

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "architecture.md"
PACKAGES = ("manual_bptt", "reference")
Arrows = dict[str, set[str]]


def imported(path: Path) -> Iterator[str]:
    """Yield the dotted names of everything that a file imports, at its top or within a function."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield str(node.module)
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def arrows(package: str) -> Arrows:
    """Return, for each module or folder at the top of a package, those that it imports."""
    folder = ROOT / package
    files = {path: path.relative_to(folder).parts[0] for path in sorted(folder.rglob("*.py"))}
    names = {path: name.removesuffix(".py") for path, name in files.items()}
    found: Arrows = {name: set() for name in names.values() if name != "__init__"}
    for path, own in names.items():
        parts = [name.split(".") for name in imported(path) if name.startswith(f"{package}.")]
        if own in found:
            found[own] |= {p[1] for p in parts if p[1] in found} - {own}
    return found


def needed(graph: Arrows) -> Arrows:
    """Return the arrows that do not follow from others."""
    reached: Arrows = {}
    for name in TopologicalSorter(graph).static_order():
        reached[name] = set().union(*({to} | reached[to] for to in graph[name]))
    return {
        name: {to for to in to_all if not any(to in reached[other] for other in to_all)}
        for name, to_all in graph.items()
    }


def diagram(graphs: Iterable[tuple[str, Arrows]]) -> str:
    """Return the picture in Mermaid's language."""
    lines = ["```mermaid", "flowchart TB"]
    for package, graph in graphs:
        lines.append(f"  subgraph {package}")
        lines += [f"    {package}_{name}[{name}]" for name in graph]
        lines += [
            f"    {package}_{name} --> {package}_{to}"
            for name, to_all in graph.items()
            for to in sorted(to_all)
        ]
        lines.append("  end")
    return "\n".join([*lines, "```", ""])


def part() -> str:
    """Return what stands in the page."""
    return "\n".join(diagram([(package, needed(arrows(package)))]) for package in PACKAGES)


if __name__ == "__main__":
    if "--check" in sys.argv[1:]:
        if read_part("arrows", PAGE) != part():
            sys.exit("docs/architecture.md is out of date: python docs/arrows.py")
    else:
        write_part("arrows", part(), PAGE)
