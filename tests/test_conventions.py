"""Ten programs in ten conventions, as people have them, with at most three lines of adapting."""

import importlib.util
import sys
from pathlib import Path

import pytest
from guide import PAGE, conventions, lines_of_adapting
from markers import read_part

import reference
from manual_bptt.cli import main

FOLDER = Path(__file__).resolve().parent / "conventions"
ALL = frozenset("WUbVc")
# Of each program: a line, the mistake that takes its place, and the gradients that are wrong then.
WRONG = {
    "course_rows": ("draw @ Whh.T", "draw @ Whh", "WUb"),
    "parameter_dictionaries": ("(1 - a * a) * da", "(1 - a) * da", "WUb"),
    "class_with_bptt": ("(1 - s[step - 1] ** 2)", "(1 - s[step] ** 2)", "WU"),
    "tuple_of_gradients": ("db += delta", "db += errors[t].sum() * delta", "b"),
    "layers_of_keras": ("/ outputs.size", "/ len(outputs)", "WUbVc"),
    "last_place_for_the_start": ("before = h[np.arange(T) - 1]", "before = h[:-1]", "W"),
    "mean_over_time": ("- targets[t]) / T", "- targets[t])", "WUbVc"),
    "no_initial_state": ('da[t + 1] @ rnn["W"]', 'da[t + 1] @ rnn["W"].T', "WUb"),
    "characters": ("dhnext = np.dot(Whh.T, dhraw)", "dhnext = np.dot(Whh.T, dh)", "WUb"),
    "state_of_torch": ("dh = da[t] @ w_hh", "dh = dh + da[t] @ w_hh", "WUb"),
}  # fmt: skip


def source(name):
    return (FOLDER / f"{name}.py").read_text(encoding="utf-8")


def imported(path, monkeypatch):
    """Return the candidate of a program in a file."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, path.stem, module)
    spec.loader.exec_module(module)
    return module.check


def statuses(report, *kinds):
    return {row.gradient for row in report.rows if row.status in kinds}


def test_every_program_has_a_mistake():
    assert {path.stem for path in FOLDER.glob("*.py")} == WRONG.keys()
    assert len(WRONG) == 10


@pytest.mark.parametrize("name", WRONG)
def test_three_lines_of_adapting_are_enough(name):
    assert 1 <= len(lines_of_adapting(FOLDER / f"{name}.py")) <= 3


def test_the_page_has_the_table_of_the_programs():
    assert read_part("conventions", PAGE).strip() == conventions().strip()


@pytest.mark.parametrize("name", WRONG)
def test_a_right_program_is_right(name, monkeypatch):
    report = reference.compare(imported(FOLDER / f"{name}.py", monkeypatch), cases=24)
    assert report.passed, report
    expected = ALL - ({*"bc"} if name == "class_with_bptt" else {*""})
    assert statuses(report, "match") >= expected
    assert report.assumed


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_program_is_wrong_where_it_is(name, monkeypatch, tmp_path):
    right, wrong, affected = WRONG[name]
    assert source(name).count(right) == 1
    path = tmp_path / f"{name}.py"
    path.write_text(source(name).replace(right, wrong), encoding="utf-8")
    report = reference.compare(imported(path, monkeypatch), cases=24, explained=False)
    assert not report.passed
    assert statuses(report, "mismatch") & ALL == {*affected}


@pytest.mark.parametrize("name", ["characters", "class_with_bptt", "no_initial_state"])
def test_the_command_judges_what_was_adapted_in_its_own_process(name, monkeypatch, capsys):
    monkeypatch.chdir(FOLDER)
    assert main(["check", f"{name}.py:check", "--cases", "4"]) == 0
    out = capsys.readouterr().out
    assert "passed" in out
    assert "assumed: " in out
    if name != "characters":
        assert "zero in every problem: the candidate has no place for another" in out
