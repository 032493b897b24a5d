"""The README's test command does the same whatever else is installed beside it."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PLUGIN = """
import warnings

def pytest_configure(config):
    warnings.warn("old-fashioned")
"""


def test_a_plugin_that_happens_to_be_installed_is_left_alone(tmp_path):
    (tmp_path / "loud.py").write_text(PLUGIN)
    info = tmp_path / "pytest_loud-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: pytest-loud\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[pytest11]\nloud = loud\n")
    path = os.pathsep.join(filter(None, [str(tmp_path), os.environ.get("PYTHONPATH")]))
    names = ["-n", "0", "-p", "no:cacheprovider", "tests/test_readme.py", "-k", "both_examples"]

    def run(*options: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "pytest", *names, *options],
            capture_output=True, text=True, cwd=ROOT, env={**os.environ, "PYTHONPATH": path},
        )  # fmt: skip

    done = run()
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 passed" in done.stdout
    assert "old-fashioned" in run("-p", "loud").stderr  # it would have been heard
