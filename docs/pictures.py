"""Make the pictures of the README from what the commands print.

python docs/pictures.py             make them anew
python docs/pictures.py --check     compare the text of those of a terminal instead; exit 1 if it
                                    is not what is printed now

The picture of the web page needs Chromium on the PATH, and is left as it is without.
"""

import html
import io
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from markers import first_difference
from rich.console import Console
from rich.text import Text

DOCS = Path(__file__).resolve().parent
COMMAND = [sys.executable, "-m", "manual_bptt.cli"]


def terminal_picture(path: Path, text: str, title: str) -> None:
    """Save text with terminal colours as an SVG without web fonts."""
    console = Console(record=True, width=100, file=io.StringIO(), force_terminal=True)
    console.print(Text.from_ansi(text.rstrip()))
    svg = console.export_svg(title=title, unique_id=path.stem)
    path.write_text(re.sub(r"@font-face \{.*?\}\s*", "", svg, flags=re.S), encoding="utf-8")


def page_picture(path: Path, page: Path, browser: str) -> None:
    """Save a screenshot of the page, with four of its equations."""
    shown = ", ".join(f"#eq-{n}" for n in (5, 9, 14, 28))
    style = f"<style>.scroll, h2, section {{ display: none }} {shown} {{ display: block }}</style>"
    page.write_text(page.read_text("utf-8").replace("</head>", f"{style}</head>"), "utf-8")
    with tempfile.TemporaryDirectory() as profile:
        options = ["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"]
        options += [f"--user-data-dir={profile}", "--window-size=1000,1040"]
        command = [browser, *options, f"--screenshot={path}", page.as_uri()]
        subprocess.run(command, check=True, capture_output=True)


def forecast_picture() -> None:
    """Train as the README does, and keep the picture of the forecast."""
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([*COMMAND, "train", "--out", folder], check=True, capture_output=True)
        shutil.copy(Path(folder, "forecast.png"), DOCS / "forecast.png")


def words(svg: str) -> str:
    """Return the text that a picture of a terminal shows."""
    shown = re.findall(r"<text [^>]*>(.*?)</text>", svg)
    return html.unescape(" ".join(shown)).replace("\xa0", " ")


def output(*arguments: str) -> str:
    """Return what manual-bptt prints in colours, in the folder of the examples."""
    environment = {**os.environ, "FORCE_COLOR": "1", "COLUMNS": "100"}
    done = subprocess.run(
        [*COMMAND, *arguments],
        check=False, capture_output=True, text=True, env=environment, cwd=DOCS.parent / "examples",
    )  # fmt: skip
    return done.stdout


def main() -> None:
    """Make every picture, or compare the text of those of a terminal with what is printed now."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        page, command = folder / "report.html", "check first_attempt:gradients --single"
        check = output(*command.split()).partition("smallest failing problem")[0]
        terminal_picture(folder / "check.svg", check, f"manual-bptt {command}")
        verify = output("verify", "--html", str(page)).partition("the equations of Lab 9")[0]
        terminal_picture(
            folder / "verify.svg", re.sub(r"\x1b\[\d*m$", "", verify), "manual-bptt verify"
        )
        svgs = sorted(folder.glob("*.svg"))
        if "--check" in sys.argv[1:]:
            for svg in svgs:
                old, new = (words(path.read_text("utf-8")) for path in (DOCS / svg.name, svg))
                if found := first_difference(old, new):
                    sys.exit(f"docs/{svg.name} is out of date: {found}; python docs/pictures.py")
            return
        for svg in svgs:
            shutil.copy(svg, DOCS)
        forecast_picture()
        browser = shutil.which("chromium") or shutil.which("google-chrome")
        if browser:
            page_picture(DOCS / "report.png", page, browser)


if __name__ == "__main__":
    main()
