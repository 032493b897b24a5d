"""docs/performance.md and the README show what docs/performance.json has, and claim no more.

Nothing is measured here: these tests hold the pages to the file that ``python docs/performance.py``
kept, with the commit and the machine that it was measured with.
"""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
NAMES = ["README.md", "docs/performance.md", "docs/performance.json"]
FOUND = json.loads((ROOT / "docs" / "performance.json").read_text(encoding="utf-8"))


def test_the_pages_are_written_from_the_file_of_measurements(tmp_path):
    (tmp_path / "docs").mkdir()
    for name in [*NAMES, "docs/performance.py", "docs/markers.py"]:
        shutil.copy(ROOT / name, tmp_path / name)
    script = tmp_path / "docs" / "performance.py"
    subprocess.run([sys.executable, script, "--render"], check=True)
    for name in NAMES:
        assert (tmp_path / name).read_text("utf-8") == (ROOT / name).read_text("utf-8")


def test_the_file_of_measurements_bears_out_the_sentences_of_the_pages():
    bench = FOUND["bench"]
    for dtype in ("float64", "float32"):
        rows = bench[f"speed {dtype}"]
        assert len({tuple(row["shape"].values()) for row in rows}) == len(rows)
        assert all(row["ratios"]["jax"] > 1 for row in rows)
    assert all(row["same_bits"] for row in bench["checkpoints"])
    assert bench["cluster"]["same_bits"]
    (megabytes,) = re.findall(r"million steps of 64 units .* less than (\d+) MB", README)
    assert max(bench["long"]["resident"], bench["long"]["traced"]) < 1e6 * int(megabytes)
    peaks, states = bench["memory"]["peaks"], bench["memory"]["states"]
    ours = [peaks[way]["resident"] for way in ("numpy", "threads", "checkpoints")]
    assert max(ours) < 3 * states
    assert max(ours) < min(peaks["jax"]["resident"], peaks["torch"]["resident"])
