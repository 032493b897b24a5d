"""Make the pictures of the README from what the commands print: python docs/pictures.py."""

import io
import os
import re
import subprocess
import sys
from pathlib import Path

from rich.console import Console
from rich.text import Text

DOCS = Path(__file__).resolve().parent


def terminal_picture(path: Path, *arguments: str) -> None:
    """Run manual-bptt with these arguments and save what it prints as an SVG without web fonts."""
    command = [sys.executable, "-m", "manual_bptt.cli", *arguments]
    environment = {**os.environ, "FORCE_COLOR": "1", "COLUMNS": "100"}
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    console = Console(record=True, width=100, file=io.StringIO(), force_terminal=True)
    console.print(Text.from_ansi(done.stdout.rstrip()))
    svg = console.export_svg(title=" ".join(["manual-bptt", *arguments]), unique_id=path.stem)
    path.write_text(re.sub(r"@font-face \{.*?\}\s*", "", svg, flags=re.S), encoding="utf-8")


if __name__ == "__main__":
    terminal_picture(DOCS / "verify.svg", "verify")
