"""Names that people give gradients, and tuples in an order of their own."""

import numpy as np
import pytest

import reference
from reference.judging.candidates import Caller
from reference.mistakes import correct
from reference.names import SPELLINGS, role_of
from reference.network import CELLS
from reference.problems import random_problem

OURS = ("W", "U", "b", "V", "c")
IN_COURSES = {"dWhh": "W", "dWxh": "U", "dbh": "b", "dWhy": "V", "dby": "c"}


def compare(candidate, **options):
    return reference.compare(candidate, **{"cases": 8, "explained": False} | options)


def problem(**sizes):
    sizes = {"T": 4, "B": 2, "D": 3, "H": 5, "O": 2} | sizes
    return random_problem(**sizes, regime="contracting", seed=0)


def renamed(names, **changes):
    """Return a right candidate that returns our gradients by these names, some of them changed."""

    def candidate(*given):
        right = correct()(*given)
        return {k: changes.get(k, np.array)(right[ours]) for k, ours in names.items()}

    return candidate


def in_a_tuple(names, kind=tuple):
    """Return a right candidate that returns a tuple, with a number for what is no gradient."""

    def candidate(*given):
        right = correct()(*given)
        return kind(right.get(names[k], 0.0) for k in names)

    return candidate


STYLES = {
    "courses": IN_COURSES,
    "Ng": {"dWaa": "W", "dWax": "U", "dba": "b", "dWya": "V", "dby": "c", "da0": "h0"},
    "short": {"dWh": "W", "dWx": "U", "dbh": "b", "dWy": "V", "dby": "c"},
    "torch": {"weight_hh_l0": "W", "weight_ih_l0": "U", "bias_ih_l0": "b", "fc.weight": "V",
              "fc.bias": "c"},
    "Keras": {"recurrent_kernel": "W", "kernel": "U", "bias": "b", "dense_kernel": "V",
              "dense_bias": "c"},
    "suffix": {"Whh_grad": "W", "Wxh_grad": "U", "bh_grad": "b", "Why_grad": "V", "by_grad": "c"},
    "prefix": {"grad_Whh": "W", "grad_Wxh": "U", "grad_bh": "b", "grad_Why": "V", "grad_by": "c"},
    "dL": {"dLdW": "W", "dLdU": "U", "dLdb": "b", "dLdV": "V", "dLdc": "c"},
    "underscores": {"dW_hh": "W", "dW_xh": "U", "db_h": "b", "dW_hy": "V", "db_y": "c"},
}  # fmt: skip


@pytest.mark.parametrize("style", STYLES)
def test_names_that_follow_a_pattern_are_taken_for_ours_and_said(style):
    names = STYLES[style]
    report = compare(renamed(names))
    assert report.passed, report
    assert {row.gradient for row in report.rows if row.status == "match"} == {*names.values()}
    (assumed,) = report.assumed
    assert assumed.startswith("assumed: ")
    for name, ours in names.items():
        assert f"{name} is d{ours}" in assumed
    assert not report.notes


@pytest.mark.parametrize("wrong", IN_COURSES)
def test_a_gradient_that_was_recognised_is_judged_as_any_other(wrong):
    report = compare(renamed(IN_COURSES, **{wrong: lambda g: g * (1 + 1e-6)}))
    bad = {row.gradient for row in report.rows if row.status == "mismatch"}
    assert bad == {IN_COURSES[wrong]}


def test_every_spelling_stands_for_one_gradient_only():
    for role, spellings in SPELLINGS.items():
        for spelling in spellings:
            others = {k for k, known in SPELLINGS.items() if spelling in known and k != role}
            assert others <= {"b", "bh"}  # the second bias where there is one
            assert role_of(f"d{spelling}", (role, *others)) == role or others


@pytest.mark.parametrize(
    "name", ["da", "a0", "dhnext", "dWa", "W1", "loss", "dense", "hs", "hprev", "xs"]
)
def test_what_follows_no_pattern_stands_for_nothing(name):
    assert role_of(name, ("W", "U", "b", "V", "c", "x", "h0", "h")) is None


def test_our_own_names_go_before_patterns():
    report = compare(renamed({k: k for k in OURS} | {"dWhh": "W"}, dWhh=lambda g: 2 * g))
    assert report.passed
    assert report.notes == ["'dWhh' is not the name of a gradient, and was not looked at"]


def test_the_second_bias_of_a_cell_that_has_one_is_that_one():
    ours = CELLS["gru_reset_after"].gradients
    assert [role_of(name, ours) for name in ("bias_hh_l0", "bias_ih_l0", "dbh")] == [
        "bh",
        "b",
        "bh",
    ]


def test_two_biases_that_stand_side_by_side_are_read_if_they_are_equal():
    names = {"weight_hh": "W", "weight_ih": "U", "bias_ih": "b", "bias_hh": "b"}
    report = compare(renamed(names))
    assert report.passed
    assert "bias_ih and bias_hh is db" in report.assumed[0]
    report = compare(renamed(names, bias_hh=lambda g: g + 1e-3))
    assert not report.passed
    (row,) = (row for row in report.rows if row.gradient == "b")
    assert row.status == "raised"
    assert "bias_ih and bias_hh may all be db, and differ" in row.detail
    assert "reference.adapt(function, names={'bias_ih': 'b'})" in row.detail


def test_a_name_with_the_shape_of_another_gradient_is_told_so():
    names = {"dWx": "W", "dWh": "U", "dWy": "V"}
    returned = Caller(renamed(names))(problem())
    assert returned.gradients["U"].detail == "shape (5, 5), expected (5, 3); it has the shape of dW"
    assert returned.gradients["W"].detail == "shape (5, 3), expected (5, 5); it has the shape of dU"


ORDER = {"loss": None, "dWxh": "U", "dWhh": "W", "dWhy": "V", "dbh": "b", "dby": "c", "_": None}


@pytest.mark.parametrize("kind", [tuple, list])
def test_a_tuple_is_read_in_the_order_that_is_told(kind):
    report = compare(in_a_tuple(ORDER, kind), returns=tuple(ORDER))
    assert report.passed, report
    assert {row.gradient for row in report.rows if row.status == "match"} == {*OURS}
    swapped = tuple(ORDER)[::-1]
    assert not compare(in_a_tuple(ORDER, kind), returns=swapped).passed


def test_a_tuple_whose_order_is_not_told_says_what_to_write():
    report = compare(in_a_tuple(ORDER), sizes={"D": 3, "H": 5, "O": 2, "T": 4})
    assert report.rows[0].status == "raised"
    expected = "returns=('loss', 'dU', 'dW', 'dV', 'db', 'dc', 'loss')"
    assert expected in report.rows[0].detail


def test_a_tuple_of_another_length_is_refused():
    report = compare(in_a_tuple(ORDER), returns=("dWxh", "dWhh"))
    assert "the candidate returned 7 parts; returns names 2" in report.rows[0].detail


@pytest.mark.parametrize(
    ("returns", "message"),
    [
        ("dW", "expected names that differ"),
        (("dW", "dW"), "expected names that differ"),
        (("dW", None), "expected names that differ"),
        (("dW", "dFoo"), "returns names 'dFoo'; expected any of W U b V c x h0 h"),
    ],
)
def test_an_order_that_cannot_be_is_refused(returns, message):
    with pytest.raises(ValueError, match="returns") as refused:
        compare(correct(), returns=returns)
    assert message in str(refused.value)


def test_the_order_is_in_the_lines_that_repeat_a_failure():
    def wrong(*given):
        right = correct()(*given)
        return 2 * right["W"], right["U"]

    report = compare(wrong, returns=("dWhh", "dWxh"), explained=True)
    assert "returns=('dWhh', 'dWxh')" in report.smallest.lines[2]


def of_strange_names(*given):
    return {f"d{k}": v for k, v in zip("ABC", map(correct()(*given).get, "UWV"), strict=True)}


def test_names_that_follow_no_pattern_are_told_to_the_comparison():
    told = {"dA": "U", "dB": "W", "dC": "V"}
    report = compare(of_strange_names, returns=told)
    assert report.passed, report
    assert {row.gradient for row in report.rows if row.status == "match"} == {*"UWV"}
    assert not report.assumed
    assert not compare(of_strange_names, returns=told | {"dA": "W", "dB": "U"}).passed
    with pytest.raises(ValueError, match="returns has 'Q' for 'dA'"):
        compare(of_strange_names, returns={"dA": "Q"})


def missing_arguments(one):
    return {"W": one}


@pytest.mark.parametrize(
    ("candidate", "lines"),
    [
        (of_strange_names, ["say for which gradients the names stand:",
         "  reference.compare(of_strange_names, returns={'dA': 'U', 'dB': 'W', 'dC': 'V'})"]),
        (in_a_tuple(ORDER), ["say what the parts of the tuple are:",
         "  reference.compare(candidate, returns=('loss', 'dU', 'dW', 'dV', 'db', 'dc', 'loss'))"]),
        (missing_arguments, ["if it is written for other arguments, or in a class, say so:",
         "  reference.compare(reference.adapt(missing_arguments))"]),
    ],
)  # fmt: skip
def test_where_nothing_can_be_read_the_first_lines_say_what_to_write(candidate, lines):
    report = compare(candidate, explained=True)
    assert str(report).splitlines()[:2] == lines
    assert report.as_dict()["advice"] == report.advice
    assert len(report.advice) == 3
    assert lines[0] in report._repr_html_()


def test_what_was_advised_works():
    report = compare(of_strange_names, explained=True)
    code = report.advice[1].strip()
    assert eval(code, {"reference": reference, "of_strange_names": of_strange_names}).passed


def test_there_is_no_advice_where_gradients_can_be_read():
    assert not compare(correct(), explained=True).advice
    assert not compare(renamed(IN_COURSES, dWhh=lambda g: 2 * g), explained=True).advice
