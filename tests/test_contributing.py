"""CONTRIBUTING.md: its examples run as they stand, and its tools are those that pip installs."""

import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from unittest.mock import patch

import reference
from reference import mistakes

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
MISTAKE, LOSS, *CELL = re.findall(r"^```python\n(.*?)^```$", PAGE, re.M | re.S)


def test_the_mistake_of_the_page_can_be_added_and_is_caught_where_it_says():
    before = set(mistakes.MISTAKES)
    with patch.dict(mistakes.MISTAKES):
        exec(compile(MISTAKE, "<CONTRIBUTING.md>", "exec"), dict(vars(mistakes)))
        (name,) = set(mistakes.MISTAKES) - before
        mistake = mistakes.MISTAKES[name]
    report = reference.compare(mistake.candidate(), cases=20, explained=False)
    wrong = [row.gradient for row in report.rows if row.status == "mismatch"]
    assert tuple(wrong) == mistake.affects


def test_the_loss_of_the_page_is_proved_and_a_wrong_gradient_of_it_is_not():
    names = {}
    exec(compile(LOSS, "<CONTRIBUTING.md>", "exec"), names)
    assert names["report"].passed

    def wrong(y, target):
        value, dy = names["log_cosh"](y, target)
        return value, 1.001 * dy

    candidate = names["candidate"](wrong)
    options = {"loss": names["log_cosh_in_jax"], "cases": 20, "explained": False}
    assert not reference.compare(candidate, **options).passed


def test_the_cell_of_the_page_is_two_files_and_verify_finds_and_proves_it(tmp_path):
    for package, code in zip(("manual_bptt", "reference/network"), CELL, strict=True):
        name = package.partition("/")[0]
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
        (tmp_path / package / "cells" / "leaky.py").write_text(code, encoding="utf-8")

    def verify():
        command = [sys.executable, "-m", "manual_bptt.cli", "verify"]
        options = ["--cell", "leaky", "--cases", "8"]
        of_the_copy = os.environ | {"PYTHONPATH": str(tmp_path)}
        return subprocess.run(
            [*command, *options], cwd=tmp_path, env=of_the_copy, capture_output=True, text=True
        )

    right = verify()
    assert right.returncode == 0, right.stdout + right.stderr
    assert re.search(r"leaky +0\.\d+", right.stdout), right.stdout
    file = tmp_path / "manual_bptt" / "cells" / "leaky.py"
    file.write_text(file.read_text().replace("np.add(half, da_now", "np.add(0 * half, da_now"))
    wrong = verify()
    assert wrong.returncode == 1, wrong.stderr
    assert "WRONG" in wrong.stdout


def test_the_hooks_run_the_ruff_that_pip_installs():
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    names = {re.match(r"[\w-]+", r)[0] for r in extras["optional-dependencies"]["all"]}
    assert {"pre-commit", "ruff", "mypy"} <= names
    hooks = (ROOT / ".pre-commit-config.yaml").read_text("utf-8")
    assert hooks.count("- id:") == hooks.count("language: system")
