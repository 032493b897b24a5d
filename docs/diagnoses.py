"""Have every mistake of the registry judged by manual-bptt check, and count who is named rightly.

python docs/diagnoses.py            run, print, and write a part of trust.md
python docs/diagnoses.py --first 5  the first five alone; the page stays as it is

Each mistake is a function in a file, and met as a user's function is: 200 problems, explained.
"""

import argparse
import json
import sys
import tempfile
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path
from statistics import median
from typing import Any

from markers import measured, table, write_part

from manual_bptt.cli import main as command
from reference.mistakes import LOSSES, MISTAKES, Mistake

LAST_STEP_ALONE = "every step in the loss of the last one"
MODULE = """from reference.mistakes import MISTAKES

candidate = MISTAKES[{name!r}].candidate({loss!r})
"""


def loss_of(mistake: Mistake) -> str:
    """Return the loss in which the mistake is one."""
    return LOSSES[mistake.name == LAST_STEP_ALONE]


def checked(mistake: Mistake, folder: Path) -> dict[str, Any]:
    """Return the report of the command on a mistake, as JSON has it."""
    number = list(MISTAKES).index(mistake.name)
    file, out = folder / f"mistake_{number}.py", folder / f"{number}.json"
    file.write_text(MODULE.format(name=mistake.name, loss=loss_of(mistake)), encoding="utf-8")
    options = ["--loss", loss_of(mistake), "--json", str(out)]
    with redirect_stdout(StringIO()), redirect_stderr(StringIO()):
        code = command(["check", f"{file}:candidate", *options])
    return {"code": code, **json.loads(out.read_text(encoding="utf-8"))}


def named_rightly(report: dict[str, Any], mistake: Mistake) -> bool:
    """Return whether a report accuses the right gradients and names this mistake alone."""
    findings = report["diagnosis"]["findings"] if report["diagnosis"] else []
    wrong = [row["gradient"] for row in report["rows"] if row["status"] == "mismatch"]
    return (
        [m["name"] for finding in findings for m in finding["mistakes"]] == [mistake.name]
        and [g for g in wrong if g != "states"] == list(mistake.affects)
        and {g for finding in findings for g in finding["gradients"]} == {*mistake.affects}
    )


def main() -> int:
    """Run, print and write."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--first", type=int, default=len(MISTAKES), help="how many mistakes")
    first = parser.parse_args().first
    mistakes = list(MISTAKES.values())[:first]
    named, seconds, sizes = [], [], []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for mistake in mistakes:
            report = checked(mistake, folder)
            named.append(report["code"] == 1 and named_rightly(report, mistake))
            seconds.append(report["seconds"])
            sizes.append(sum(report["smallest"]["sizes"].values()))
            print(f"{named[-1]!s:5} {seconds[-1]:6.2f} s  {mistake.name}", flush=True)
    text = table(
        ("mistakes of the registry", "named rightly, and nothing else"),
        [
            ("by manual-bptt check", f"{sum(named)} of {len(mistakes)}"),
            ("seconds of a command, programs compiled", f"{median(seconds):.1f} (median)"),
            ("T + B + D + H + O of the smallest failing problem", f"{median(sizes):.0f} (median)"),
        ],
    )
    print("\n".join(text))
    if len(mistakes) == len(MISTAKES):
        how = measured("python docs/diagnoses.py", "jax")
        write_part("diagnoses", "\n".join(text), measured=how)
    return 0 if all(named) else 1


if __name__ == "__main__":
    sys.exit(main())
