"""docs/check-your-gradient.md: its files, its examples and its reports are those of the project."""

import importlib
import re
from pathlib import Path

import numpy as np
import pytest
from markers import first_difference

import manual_bptt as mb
import reference

ROOT = Path(__file__).resolve().parents[1]
EXAMPLES = ROOT / "examples"
PAGE = (ROOT / "docs" / "check-your-gradient.md").read_text(encoding="utf-8")
BLOCKS = re.findall(
    r"^```python\n(.*?)^```$", re.sub(r"(?s)<!-- .*? end -->", "", PAGE), re.M | re.S
)


def part(name):
    """Return what stands between two markers, without the fence."""
    (text,) = re.findall(
        rf"<!-- {name}: begin -->\n```\w+\n(.*?)\n```\n<!-- {name}: end", PAGE, re.S
    )
    return text


@pytest.fixture
def attempt(monkeypatch):
    """Import an attempt as its reader does, in the folder of the examples."""
    monkeypatch.syspath_prepend(EXAMPLES)
    return lambda name: importlib.import_module(f"{name}_attempt").gradients


@pytest.mark.parametrize("name", ["first", "second"])
def test_the_page_shows_the_files_as_they_are(name):
    assert part(f"{name} attempt") == (EXAMPLES / f"{name}_attempt.py").read_text("utf-8").rstrip()


@pytest.mark.parametrize("name", ["named", "attention"])
def test_the_page_shows_the_loss_that_mistakes_are_named_in(name):
    assert part(f"{name} loss") in (EXAMPLES / f"{name}_mistakes.py").read_text("utf-8")


def test_the_first_attempt_is_explained_as_the_page_shows(attempt):
    report = reference.compare(attempt("first"), batched=False, cases=40)
    shown = part("first report")
    for lines in report.explanations().values():
        assert "\n".join(lines) in shown
    assert len(report.diagnosis.findings) == 3
    assert {row.gradient for row in report.rows if row.status == "mismatch"} == {*"WUb"}


def test_the_second_attempt_passes_as_the_page_shows(attempt):
    report = reference.compare(attempt("second"), batched=False, cases=40)
    assert report.passed
    assert all(row.local_cases for row in report.rows if row.status == "match")
    assert part("second report").endswith("\n\npassed")


def test_the_loss_falls_with_the_first_attempt_all_the_same(attempt):
    rng = np.random.default_rng(0)
    params = mb.init_params(3, 8, 2, rng=rng)
    x, target = rng.standard_normal((12, 3)), rng.standard_normal((12, 2))
    losses = []
    for _ in range(100):
        loss, _ = mb.squared_error(mb.forward(params, x).y, target)
        losses.append(float(loss))
        found = attempt("first")(params, x, np.zeros(8), target)
        params = mb.Params(
            *(p - 0.003 * found[f"d{k}"] for k, p in zip("WUbVc", params, strict=True))
        )
    assert losses[-1] < 0.6 * losses[0]
    assert np.mean(np.diff(losses) < 0) > 0.9


@pytest.mark.parametrize(
    ("old", "new", "found"),
    [
        ("ratio 0.40 at T=3 in 2.1 s", "ratio 0.41 at T=4 in 93.0 s", None),
        ("match 3e-05, 7 of 40", "match 4e-05, 7 of 40", None),
        ("match", "mismatch", "[match, now mismatch]"),
        ("7 of 40", "8 of 40", "[7, now 8]"),
        ("ratio 0.40", "ratio 0.90", "[0.40, now 0.90]"),
        (" ───\n0.4 T=3 D=4", " ─────\n0.5 T=3 B=2 D=4", None),
        ("at T=3", "at 3", "[T=3, now 3]"),
        ("dW is right", "dW is right.", "[(end), now .]"),
    ],
)
def test_the_comparison_of_documents_forgives_rounding_and_seconds_alone(old, new, found):
    difference = first_difference(old, new)
    assert difference is None if found is None else difference.endswith(found)


@pytest.mark.parametrize("code", BLOCKS, ids=range(len(BLOCKS)))
def test_every_example_of_the_page_runs(code, attempt):
    names = {}
    exec(compile(code, "<check-your-gradient.md>", "exec"), names)
    for name, function in names.items():
        if name.startswith("test_"):
            function()
