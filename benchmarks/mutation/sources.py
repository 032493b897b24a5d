"""Which source a verdict was given on: the mutant, the tests, and all that these import."""

import ast
from collections.abc import Iterable, Iterator
from functools import cache
from hashlib import sha256
from pathlib import Path


@cache
def imported_by(path: Path, root: Path) -> frozenset[Path]:
    """Return the files of the repository that a file imports, directly or not, and itself."""
    found, new = set[Path](), {path}
    while new:
        found |= new
        new = {p for file in new for p in _imports(file, root)} - found
    return frozenset(found)


def digest(path: Path, mutant: str, tests: Iterable[str], root: Path, how: str = "") -> str:
    """Return what changes if the mutant of path changes, or what the tests import, or how."""
    files = {root / "tests" / "conftest.py"}.union(*(imported_by(root / t, root) for t in tests))
    parts = [f"{p.relative_to(root)}\n{p.read_text('utf-8')}" for p in sorted(files - {path})]
    return sha256("\0".join([how, mutant, *parts]).encode()).hexdigest()[:16]


def _imports(file: Path, root: Path) -> Iterator[Path]:
    """Yield the files of the repository that a file imports itself."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            parts = name.split(".")
            for folder in (root, root / "tests"):
                for n in range(1, len(parts) + 1):
                    place = folder.joinpath(*parts[:n])
                    yield from filter(
                        Path.is_file, (place.with_suffix(".py"), place / "__init__.py")
                    )
