"""The smallest failing problem is small, round, fails, and can be run again from three lines."""

import re

import numpy as np
import pytest
from correct_candidates import in_plain_loops

import reference
from reference.explaining.localisation import ranges, single_errors
from reference.explaining.smallest import smallest
from reference.findings import Counterexample
from reference.judging.candidates import Caller
from reference.mistakes import MISTAKES, correct
from reference.problems import make_problem, random_problem
from reference.report import FAILURES


def mistaken(*arguments):
    """A mistake of the registry, under a name that can be imported."""
    return MISTAKES["W for its transpose"].candidate()(*arguments)


def report_on(candidate, **options):
    return reference.compare(candidate, **{"cases": 12, "batched": False} | options)


def entries(problem):
    rest = (problem.x, problem.h0, problem.target)
    return np.concatenate([array.ravel() for array in (*problem.params, *rest)])


@pytest.mark.parametrize(
    ("name", "sizes"),
    [
        ("1 - h", {"T": 1, "D": 1, "H": 1, "O": 1}),
        ("W for its transpose", {"T": 2, "D": 1, "H": 2, "O": 1}),
        ("no recurrence", {"T": 2, "D": 1, "H": 1, "O": 1}),
        ("last 8 steps alone", {"T": 9, "D": 1, "H": 1, "O": 1}),
        ("dV reshaped", {"T": 1, "D": 1, "H": 2, "O": 2}),
    ],
)
def test_a_problem_is_as_small_as_the_mistake_lets_it_be(name, sizes):
    found = report_on(MISTAKES[name].candidate()).smallest
    assert found.problem.sizes == sizes
    assert {*entries(found.problem)} <= {-1.0, -0.5, 0.0, 0.5, 1.0}
    assert found.values
    for expected, returned in found.values.values():
        assert not np.allclose(expected, returned, rtol=1e-12)


def test_it_is_found_where_only_long_sequences_fail():
    found = report_on(MISTAKES["cut every 32 steps"].candidate(), cases=60).smallest
    assert found.problem.sizes == {"T": 33, "D": 1, "H": 1, "O": 1}
    assert "target = zeros of shape (33, 1)" in "\n".join(found.text())


def test_it_is_found_where_small_numbers_are_right():
    def wrong_where_saturated(params, x, h0, target):
        found = correct()(params, x, h0, target)
        saturated = np.abs(found["states"]) > 0.99999
        return found | {"c": found["c"] + saturated.any()}

    found = report_on(wrong_where_saturated, cases=40).smallest
    assert max(found.problem.sizes.values()) <= 2
    assert "dc expected" in "\n".join(found.text())


def test_three_lines_show_it_again(capsys):
    report = report_on(mistaken, batched=True)
    lines = report.smallest.lines
    assert len(lines) == 3
    assert lines[0] == f"import reference; from {mistaken.__module__} import mistaken"
    exec("\n".join(lines[1:]), {"reference": reference, "mistaken": mistaken})
    out = capsys.readouterr().out
    assert "mismatch" in out
    assert "FAILED" in out
    assert all(line in str(report) for line in lines)


def test_the_lines_say_in_which_layout_and_dtype():
    def halves(params, x, h0, target):
        return {"c": (params.c[:, 0] * 0)[:, None] + 1}

    lines = report_on(halves, layout="columns", dtype="float32", cases=3).smallest.lines
    assert "layout='columns'" in lines[2]
    assert "dtype='float32'" in lines[1]
    assert lines[0] == "import reference"  # a local function cannot be imported


def test_a_made_problem_is_made_again_from_its_line_bit_for_bit():
    drawn = random_problem(
        T=3, B=2, D=2, H=3, O=2, regime="saturated", seed=1, dtype="float32",
        loss="last_step_squared_error",
    )  # fmt: skip
    arrays = {**drawn.params._asdict(), "x": drawn.x, "h0": drawn.h0, "target": drawn.target}
    made = make_problem(**arrays, dtype="float32", loss=drawn.loss)
    again = eval(made.origin, {"reference": reference})
    assert entries(again).tobytes() == entries(drawn).tobytes() == entries(made).tobytes()
    assert (again.loss, again.dtype) == (drawn.loss, drawn.dtype)
    signed = make_problem(**arrays | {"h0": -0.0 * drawn.h0}, loss=drawn.loss)
    assert np.signbit(eval(signed.origin, {"reference": reference}).h0).any()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"x": [1, 2]}, "x has shape (2,); expected (T, D) or (T, B, D)"),
        ({"h0": [[0]]}, "h0 has shape (1, 1); expected (1,)"),
        ({"target": [1]}, "target has shape (1,); expected (2, 1)"),
        ({"W": [[1, 2]]}, "W has shape (1, 2); expected (1, 1)"),
        ({"loss": "hinge"}, "loss is 'hinge'"),
    ],
)
def test_numbers_that_make_no_problem_are_refused(change, message):
    one = {"W": [[1]], "U": [[1]], "b": [0], "V": [[1]], "c": [0]}
    with pytest.raises(ValueError, match=re.escape(message)):
        make_problem(**one | {"x": [[1], [2]], "h0": [0], "target": [[0], [0]]} | change)


def test_what_cannot_be_compared_is_shown_in_words():
    def transposed(params, x, h0, target):
        return {"U": in_plain_loops(params, x, h0, target)["U"].T}

    text = "\n".join(report_on(transposed, sizes={"H": 3, "D": 2}).smallest.text())
    assert "returned shape (2, 3), expected (3, 2); it looks transposed" in text

    def raises(*_):
        raise KeyError("h")

    text = "\n".join(report_on(raises).smallest.text())
    assert text.count("returned KeyError: 'h' (line ") == 1


def test_small_differences_are_shown_with_all_digits():
    problem = random_problem(T=1, B=None, D=1, H=1, O=1, regime="linear", seed=0)
    text = "\n".join(Counterexample(problem, {"c": (np.ones(1), np.ones(1) + 1e-9)}, ()).text())
    assert "dc expected [1]" in text
    assert "returned [1.000000001]" in text


def test_correct_code_has_no_smallest_failing_problem():
    problem = random_problem(T=9, B=None, D=2, H=2, O=2, regime="linear", seed=0)
    options = {"batched": False, "sizes": {}}
    assert smallest(Caller(correct()), [problem], "W", "mismatch", **options) is None


def test_single_errors_have_an_error_at_their_step_alone():
    problem = random_problem(T=5, B=2, D=2, H=3, O=2, regime="critical", seed=0)
    for t, made in single_errors(problem).items():
        _, y = reference.forward(made.params, made.x, made.h0)
        error = np.abs(y - made.target).max(axis=(1, 2))
        assert np.flatnonzero(error).tolist() == [t - 1]


def test_ranges_are_words():
    assert ranges({3, 1, 4, 5, 9}) == "1, 3-5, 9"


def test_every_failure_has_a_witness():
    report = report_on(mistaken, explained=False, cases=40)
    failed = [row for row in report.rows if row.status in FAILURES]
    assert all(row.failing is not None for row in failed)
    assert 0 < len(report.witnesses()) <= len(failed)
