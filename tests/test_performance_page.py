"""docs/performance.md and the README show what docs/performance.json has."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
NAMES = ["README.md", "docs/performance.md", "docs/performance.json"]
FOUND = json.loads((ROOT / "docs" / "performance.json").read_text(encoding="utf-8"))


def test_the_pages_are_what_was_measured(tmp_path):
    (tmp_path / "docs").mkdir()
    for name in [*NAMES, "docs/performance.py", "docs/markers.py"]:
        shutil.copy(ROOT / name, tmp_path / name)
    script = tmp_path / "docs" / "performance.py"
    subprocess.run([sys.executable, script, "--render"], check=True)
    for name in NAMES:
        assert (tmp_path / name).read_text("utf-8") == (ROOT / name).read_text("utf-8")


def test_what_is_claimed_was_measured():
    bench = FOUND["bench"]
    for dtype in ("float64", "float32"):
        rows = bench[f"speed {dtype}"]
        assert len(rows) == 11
        assert all(row["ratios"]["jax"] > 1 for row in rows)
    assert all(row["same_bits"] for row in bench["checkpoints"])
    assert bench["cluster"] == {"processes": 2, "same_bits": True}
    assert max(bench["long"]["resident"], bench["long"]["traced"]) < 100e6
    peaks, states = bench["memory"]["peaks"], bench["memory"]["states"]
    ours = [peaks[way]["resident"] for way in ("numpy", "threads", "checkpoints")]
    assert max(ours) < 3 * states
    assert max(ours) < min(peaks["jax"]["resident"], peaks["torch"]["resident"])
