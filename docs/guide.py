"""Write what commands print, and the files they judge, into check-your-gradient.md.

python docs/guide.py
"""

import os
import re
import subprocess
import sys
from pathlib import Path

from markers import write_part

ROOT = Path(__file__).resolve().parents[1]
EXAMPLES = ROOT / "examples"
PAGE = ROOT / "docs" / "check-your-gradient.md"
COMMANDS = {
    "first": "check first_attempt:gradients --single",
    "second": "check second_attempt:gradients --single",
}


def output(arguments: str) -> str:
    """Return what manual-bptt prints in the folder of the examples, without the seconds."""
    environment = {**os.environ, "COLUMNS": "100"}
    done = subprocess.run(
        [sys.executable, "-m", "manual_bptt.cli", *arguments.split()],
        capture_output=True, text=True, check=False, cwd=EXAMPLES, env=environment,
    )  # fmt: skip
    lines = (line.rstrip() for line in done.stdout.rstrip().splitlines())
    return re.sub(r" in \d+\.\d s$", "", "\n".join(lines))


def fenced(language: str, text: str) -> str:
    """Return text as a block of code."""
    return f"```{language}\n{text.rstrip()}\n```\n"


def main() -> None:
    """Write every part."""
    for name, arguments in COMMANDS.items():
        source = (EXAMPLES / f"{name}_attempt.py").read_text(encoding="utf-8")
        write_part(f"{name} attempt", fenced("python", source), PAGE)
        shown = f"$ manual-bptt {arguments}\n{output(arguments)}"
        write_part(f"{name} report", fenced("text", shown), PAGE)


if __name__ == "__main__":
    main()
