"""CONTRIBUTING.md: its examples run as they stand, and its tools are those that pip installs."""

import re
import tomllib
from pathlib import Path
from unittest.mock import patch

import reference
from reference import mistakes

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
MISTAKE, LOSS = re.findall(r"^```python\n(.*?)^```$", PAGE, re.M | re.S)


def test_the_mistake_of_the_page_can_be_added_and_is_caught_where_it_says():
    before = set(mistakes.MISTAKES)
    with patch.dict(mistakes.MISTAKES):
        exec(compile(MISTAKE, "CONTRIBUTING.md", "exec"), dict(vars(mistakes)))
        (name,) = set(mistakes.MISTAKES) - before
        mistake = mistakes.MISTAKES[name]
    report = reference.compare(mistake.candidate(), cases=20)
    wrong = [row.gradient for row in report.rows if row.status == "mismatch"]
    assert tuple(wrong) == mistake.affects


def test_the_loss_of_the_page_is_proved_and_a_wrong_gradient_of_it_is_not():
    names = {}
    exec(compile(LOSS, "CONTRIBUTING.md", "exec"), names)
    assert names["report"].passed

    def wrong(y, target):
        value, dy = names["log_cosh"](y, target)
        return value, 1.001 * dy

    candidate = names["candidate"](wrong)
    assert not reference.compare(candidate, loss=names["log_cosh_in_jax"], cases=20).passed


def test_the_hooks_run_the_ruff_that_pip_installs():
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    names = {re.match(r"[\w-]+", r)[0] for r in extras["optional-dependencies"]["all"]}
    assert {"pre-commit", "ruff", "mypy"} <= names
    hooks = (ROOT / ".pre-commit-config.yaml").read_text("utf-8")
    assert hooks.count("- id:") == hooks.count("language: system")
