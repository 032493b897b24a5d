"""Write what commands print, and the files they judge, into check-your-gradient.md.

python docs/guide.py             write the parts anew
python docs/guide.py --check     compare instead; exit 1 if the page is out of date
"""

import ast
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from markers import first_difference, write_part

ROOT = Path(__file__).resolve().parents[1]
PROGRAMS = ROOT / "tests" / "conventions"
EXAMPLES = ROOT / "examples"
PAGE = ROOT / "docs" / "check-your-gradient.md"
COMMANDS = {
    "first": "check first_attempt:gradients --single",
    "second": "check second_attempt:gradients --single",
}
NAMED = {"named": "named_mistakes.py", "attention": "attention_mistakes.py"}


def output(*arguments: str) -> str:
    """Return what Python prints in the folder of the examples, without the seconds."""
    environment = {**os.environ, "COLUMNS": "100"}
    done = subprocess.run(
        [sys.executable, *arguments],
        capture_output=True, text=True, check=False, cwd=EXAMPLES, env=environment,
    )  # fmt: skip
    lines = (line.rstrip() for line in done.stdout.rstrip().splitlines())
    return re.sub(r" in \d+\.\d s$", "", "\n".join(lines))


def fenced(language: str, text: str) -> str:
    """Return text as a block of code."""
    return f"```{language}\n{text.rstrip()}\n```\n"


def lines_of_adapting(program: Path) -> list[str]:
    """Return the lines that make a candidate of a program as people have it."""
    _, _, after = program.read_text(encoding="utf-8").partition("# adapting\n")
    return after.splitlines()


def conventions() -> str:
    """Return the table of programs, and how many lines adapt each."""
    rows = ["| program | convention | lines |", "| --- | --- | ---: |"]
    for program in sorted(PROGRAMS.glob("*.py")):
        about = ast.get_docstring(ast.parse(program.read_text(encoding="utf-8"))) or ""
        link = f"[{program.name}](../tests/conventions/{program.name})"
        rows.append(f"| {link} | {about.rstrip('.')} | {len(lines_of_adapting(program))} |")
    return "\n".join(rows) + "\n"


def parts() -> Iterator[tuple[str, str]]:
    """Yield every part of the page, its name first."""
    yield "conventions", conventions()
    for name, arguments in COMMANDS.items():
        source = (EXAMPLES / f"{name}_attempt.py").read_text(encoding="utf-8")
        yield f"{name} attempt", fenced("python", source)
        shown = f"$ manual-bptt {arguments}\n{output('-m', 'manual_bptt.cli', *arguments.split())}"
        yield f"{name} report", fenced("text", shown)
    for name, file in NAMED.items():
        source = (EXAMPLES / file).read_text(encoding="utf-8")
        loss = source[source.index("def loss") :].partition("\n\n\n")[0]
        yield f"{name} loss", fenced("python", loss)
        yield f"{name} mistakes", fenced("text", f"$ python examples/{file}\n{output(file)}")


def main() -> None:
    """Write every part, or compare the page with what would be written."""
    with tempfile.TemporaryDirectory() as folder:
        new = Path(shutil.copy(PAGE, folder))
        for name, text in parts():
            write_part(name, text, new)
        if "--check" not in sys.argv[1:]:
            shutil.copy(new, PAGE)
        elif found := first_difference(PAGE.read_text("utf-8"), new.read_text("utf-8")):
            sys.exit(f"docs/{PAGE.name} is out of date: {found}; python docs/guide.py")


if __name__ == "__main__":
    main()
