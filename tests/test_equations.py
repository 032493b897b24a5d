"""The 37 equations: each right-hand side against autodiff, each erratum against its accusation."""

import importlib.util
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from hypothesis import find, given, settings
from rounding import rounding_bounds
from together import assert_no_example_fails

import manual_bptt as mb
import reference
from manual_bptt import cli, equations
from manual_bptt.cli import verify
from manual_bptt.equations import EQUATIONS, demonstrate, derivation, literal, smallest, unroll
from manual_bptt.page import page
from reference.equations import LEFT, _side_ratio, judge_equations
from reference.problems import Problem
from reference.strategies import problems, whole_number_sequences
from reference.user_code import Parameters

ROOT = Path(__file__).resolve().parents[1]
NUMBERS = list(range(1, 38))
ERRATA = [n for n, e in EQUATIONS.items() if e.corrected]
DEFINITIONS = {n for n, e in EQUATIONS.items() if e.kind == "definition"}


def drawn(cases=30):
    """Return problems of both exercises."""
    options = {"dtype": "float64", "batched": False}
    first = reference.draw_problems(cases, 1, **options)
    second = reference.draw_problems(
        cases, 1, **options, loss="last_step_squared_error", sizes={"O": 1}
    )
    return [*first, *second]


def verdicts(changed=derivation, made=None):
    rows = judge_equations(changed, drawn() if made is None else made, DEFINITIONS)
    return {row.number: row for row in rows}


def test_there_are_37_equations_in_the_code_the_check_and_the_report():
    assert list(EQUATIONS) == NUMBERS
    assert list(LEFT) == NUMBERS
    assert [row.number for row in verify.equation_rows(2, 0)] == NUMBERS


def test_every_function_bears_the_number_it_is_registered_under():
    for n, e in EQUATIONS.items():
        for side in (*e.sides, *e.corrected):
            assert re.match(rf"eq{n}(_|$)", side.__name__)
            assert side.__doc__.startswith(f"Eq. {n}")


def test_every_equation_holds_or_defines_or_is_an_erratum_whose_corrected_form_holds():
    for n, row in verdicts().items():
        expected = "erratum" if n in ERRATA else "definition" if n in DEFINITIONS else "holds"
        assert row.status == expected, row
        assert row.worst_ratio <= 1
        assert row.printed_holds == (n not in ERRATA)
        assert row.corrected_holds == (True if n in ERRATA else None)
        assert row.cases >= 20


def test_no_equation_of_exercise_1_fails_on_any_problem():
    def failures(drawn):
        rows = verdicts(made=drawn)
        return [rows[n] for n in NUMBERS[:29] if rows[n].cases and not rows[n].worst_ratio <= 1]

    assert_no_example_fails(problems(batched=False), failures, max_examples=40)


@pytest.mark.parametrize("number", ERRATA)
def test_a_corrected_form_flipped_to_the_printed_one_fails(number):
    def flipped(*arguments):
        found = derivation(*arguments)
        if number in found:
            found[number]["corrected"] = found[number]["printed"]
        return found

    rows = verdicts(flipped, drawn(10))
    assert rows[number].status == "fails"
    assert all(row.status != "fails" for n, row in rows.items() if n != number)


def spoilt(spoil, position):
    """Return the derivation with one member of every equation spoilt, wherever there is one."""

    def wrong(*arguments):
        found = derivation(*arguments)
        for forms in found.values():
            for members in forms.values():
                if position < len(members) and not isinstance(members[position], Exception):
                    members[position] = spoil(members[position])
        return found

    return wrong


@pytest.mark.parametrize("position", [0, 1, 2])
@pytest.mark.parametrize(
    "spoil",
    [lambda m: m * (1 + 1e-12), lambda m: m * np.nan, lambda m: m[..., None]],
    ids=["off by 1e-12", "NaN", "another shape"],
)
def test_no_member_of_any_equation_can_be_spoilt_unnoticed(spoil, position):
    for n, row in verdicts(spoilt(spoil, position), drawn(20)).items():
        assert (row.status == "fails") == (position < len(EQUATIONS[n].sides)), row


def test_every_equals_sign_has_a_function():
    for n, e in EQUATIONS.items():
        signs = e.latex.count(" = ") + e.latex.startswith("= ")
        assert len(e.sides) == signs, n
        assert len(e.corrected) in (0, signs)


@pytest.mark.parametrize("number", [30, 32, 33, 36, 37])
def test_the_sign_is_all_that_is_wrong_in_exercise_2(number):
    p = reference.random_problem(
        T=3, B=None, D=2, H=3, O=1, regime="critical", seed=0, loss="last_step_squared_error"
    )
    forms = derivation(p.params, p.x, p.h0, p.target)[number]
    assert np.array_equal(forms["printed"][-1], -forms["corrected"][-1])


@pytest.mark.parametrize("number", [28, 29])
def test_the_gradient_in_y_is_all_that_is_wrong_in_eqs_28_and_29(number):
    p = reference.random_problem(T=3, B=None, D=2, H=3, O=3, regime="critical", seed=0)
    s, e = unroll(p.params, p.x, p.h0, p.target), EQUATIONS[number]
    for t in (1, 2, 3):
        mended = e.sides[-1](s._replace(dy=s.dh), t)
        assert np.array_equal(mended, e.corrected[-1](s, t))


@pytest.mark.parametrize("number", [14, 15, 35])
def test_the_time_index_is_all_that_is_wrong_in_eqs_14_15_and_35(number):
    p = reference.random_problem(T=3, B=None, D=2, H=3, O=2, regime="critical", seed=0)
    s, e = unroll(p.params, p.x, p.h0, p.target), EQUATIONS[number]
    for t in (1, 2):
        later = s.h.copy()
        later[t] = s.h[t + 1]
        assert np.array_equal(e.sides[-1](s._replace(h=later), t), e.corrected[-1](s, t))


def test_a_problem_that_decides_nothing_is_not_counted_and_proves_nothing():
    p = reference.random_problem(T=2, B=None, D=2, H=2, O=2, regime="saturated", seed=0)
    saturated = Problem(p.params, p.x * 1e3, p.h0, p.target, p.loss, "slopes of exactly zero")
    row = verdicts(made=[saturated])[9]
    assert (row.cases, row.undecided, row.status) == (0, 1, "fails")


def test_a_tolerance_is_that_of_its_own_time_step():
    """Early gradients are 1e-15 of the late ones here, and judged by their own size."""
    p = reference.random_problem(
        T=40, B=None, D=2, H=3, O=1, regime="contracting", seed=3, loss="last_step_squared_error"
    )

    def wrong(*arguments):
        found = derivation(*arguments)
        found[31]["printed"][0][0] *= 1 + 1e-9
        return found

    dh = np.abs(unroll(p.params, p.x, p.h0, p.target).dh)
    assert dh[1].max() < 1e-15 * dh[-1].max()
    assert verdicts(made=[p])[31].status == "holds"
    assert verdicts(wrong, [p])[31].status == "fails"


def test_the_total_of_a_sum_is_compared_as_well_as_its_terms():
    terms = np.ones(3)
    left = [(np.array(3.0), np.array(1e-12)), (terms, np.full(3, 10.0))]
    assert _side_ratio(left, terms) == 0
    assert _side_ratio(left, terms + 1) > 1


def test_an_accusation_without_ground_fails():
    def accused(*arguments):
        found = derivation(*arguments)
        if 5 in found:
            found[5]["corrected"] = found[5]["printed"]
        return found

    assert verdicts(accused)[5].status == "fails"


def test_terms_are_compared_one_by_one_not_their_sum_alone():
    def shuffled(*arguments):
        found = derivation(*arguments)
        if 9 in found:
            found[9]["printed"] = [found[9]["printed"][0][::-1]]
        return found

    assert verdicts(shuffled)[9].status == "fails"


def tells_them_apart(number, problem):
    row = verdicts(made=[problem])[number]
    return row.cases == 1 and not row.printed_holds and bool(row.corrected_holds)


def as_problem(number):
    params, x, h0, target = smallest(EQUATIONS[number])
    loss = "squared_error" if number < 30 else "last_step_squared_error"
    return Problem(Parameters(*params), x, h0, target, loss, f"the counterexample to Eq. {number}")


def size(problem):
    """Return how much there is to look at: sizes, then non-zero entries, then their magnitude."""
    arrays = [*problem.params, problem.x, problem.h0, problem.target]
    entries = np.concatenate([a.ravel() for a in arrays])
    return sum(problem.sizes.values()), np.count_nonzero(entries), np.abs(entries).sum()


@pytest.mark.parametrize("number", ERRATA)
def test_hypothesis_finds_a_counterexample_and_none_smaller_than_the_documented_one(number):
    documented = as_problem(number)
    assert tells_them_apart(number, documented)
    one_unit = whole_number_sequences(last_step=number >= 30, widest=1)
    found = find(
        one_unit,
        lambda p: tells_them_apart(number, p),
        settings=settings(max_examples=500, derandomize=True, deadline=None, database=None),
    )
    assert size(found) >= size(documented), f"Hypothesis found a smaller one: {found}"


@pytest.mark.parametrize("number", [28, 29])
def test_the_printed_product_does_not_exist_unless_there_are_as_many_outputs_as_units(number):
    p = reference.random_problem(T=3, B=None, D=2, H=3, O=2, regime="critical", seed=0)
    members = derivation(p.params, p.x, p.h0, p.target)[number]["printed"]
    assert isinstance(members[-1], ValueError)
    row = verdicts(made=[p])[number]
    assert not row.printed_exists
    assert row.status == "erratum"


def test_the_numbers_of_eq_14_are_those_of_a_pocket_calculator():
    _, printed, corrected = demonstrate(EQUATIONS[14])
    h1 = np.tanh(1)
    assert printed.item() == pytest.approx(1 - h1**2, rel=1e-14)
    assert corrected.item() == pytest.approx(1 - np.tanh(h1 + 1) ** 2, rel=1e-14)


def test_read_as_total_derivatives_eqs_17_and_27_are_false():
    p = reference.random_problem(T=4, B=None, D=2, H=3, O=2, regime="critical", seed=0)
    s = unroll(p.params, p.x, p.h0, p.target)

    def total(t):
        def state(b):
            h = np.broadcast_to(s.h[0], b.shape)
            for k in range(1, t + 1):
                h = np.tanh(equations.dot(s.W, h) + s.U @ s.x[k] + b)
            return h

        return equations.gradient(state, s.b)

    def unit(W):
        h = np.broadcast_to(s.h[0], (*W.shape[:-2], 3))
        for k in (1, 2):
            h = np.tanh(equations.dot(W, h) + s.U @ s.x[k] + s.b)
        return h

    rows = np.einsum("iji->ij", equations.gradient(unit, s.W))
    assert np.abs(rows - equations.eq27(s, 2)).max() > 1e-3

    meant = sum(equations.eq17_middle(s, t) for t in range(1, 5))
    read = sum(total(t) @ s.dh[t] for t in range(1, 5))
    db = mb.loss_and_gradients(mb.Params(*p.params), p.x, p.target, h0=p.h0)[1].b
    assert np.allclose(meant, db, rtol=1e-12)
    assert np.abs(read - db).max() > 0.1 * np.abs(db).max()


@pytest.mark.parametrize("loss", ["squared_error", "last_step_squared_error"])
def test_the_literal_equations_are_a_third_route_that_equals_autodiff(loss):
    report = reference.compare(literal, loss=loss, batched=False, cases=40)
    assert report.passed, report
    assert {row.status for row in report.rows} == {"match"}


@given(problems(batched=False, regimes=("contracting", "linear", "saturated")))
def test_the_literal_equations_and_the_fast_backward_agree(problem):
    p = problem
    _, fast = mb.loss_and_gradients(mb.Params(*p.params), p.x, p.target, h0=p.h0)
    slow = literal(p.params, p.x, p.h0, p.target)
    h, y = unroll(p.params, p.x, p.h0, p.target)[6:8]
    dy = 2 * (y[1:] - p.target)
    bounds = rounding_bounds(p.params, p.x, p.h0, dy)
    # dy is computed on both sides as well: its error moves every gradient in proportion.
    moved = rounding_bounds(p.params, p.x, p.h0, np.abs(dy) + np.abs(p.target) + 1)
    for k, bound in bounds.items():
        assert (np.abs(getattr(fast, k) - slow[k]) <= 2 * bound + 8 * moved[k]).all(), k
    assert h.shape == slow["h"].shape


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"x": np.ones((5, 2, 3))}, "x has shape (5, 2, 3); expected (T, D): one sequence"),
        ({"target": np.ones((4, 2))}, "target has shape (4, 2); expected (T, O) = (5, 2) or (O,)"),
        ({"target": np.full((5, 2), np.nan)}, "target holds nan"),
    ],
)
def test_unroll_refuses(change, message):
    arguments = {"params": mb.init_params(3, 4, 2, rng=0), "x": np.ones((5, 3)), "h0": None}
    with pytest.raises(ValueError, match=re.escape(message)):
        unroll(**{**arguments, "target": np.ones((5, 2)), **change})


def test_two_equations_cannot_have_one_number():
    with pytest.raises(ValueError, match="two equations are numbered 5"):
        equations.equation(5, "result", "another", "every t", "")(lambda s, t: s.h[t])


def test_the_page_of_errata_is_up_to_date():
    spec = importlib.util.spec_from_file_location("errata", ROOT / "docs" / "errata.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.PAGE.read_text(encoding="utf-8") == module.page(), "run docs/errata.py"


class Tags(HTMLParser):
    """Collect the tags and attributes of a page, and check that tags are closed in order."""

    def __init__(self):
        super().__init__()
        self.tags, self.attributes, self.open = [], [], []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in ("meta", "link"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


@pytest.fixture(scope="module")
def result():
    row = {
        "gradient": "W", "status": "match", "ratio": 0.1, "local_ratio": 0.25, "cases": 3,
        "failures": 0, "worst_sizes": {"T": 1},
    }  # fmt: skip
    left_out = {**row, "gradient": "h", "status": "not returned", "ratio": None,
                "local_ratio": None, "cases": 0}  # fmt: skip
    report = {"passed": True, "rows": [row, left_out], "notes": []}
    ways = {f"workers={n}": {"options": {"workers": n}, **report} for n in (2, 3)}
    return {
        "passed": True, "cases": 4, "seed": 0, "dtype": "float64", "seconds": 1.0,
        "versions": {"numpy": "2"},
        "reports": {"random problems": report, "long sequences": report, **ways},
        "matrix": {"tanh": {"by default": 0.25, "workers=2": 0.1}},
        "cells": {},
        "equations": [row.as_dict() for row in verify.equation_rows(6, 0)],
    }  # fmt: skip


def test_the_web_page_shows_every_equation_and_needs_nothing_from_outside(result):
    text = page(result)
    parser = Tags()
    parser.feed(text)
    assert not parser.open
    assert parser.tags.count("math") == 37 + len(ERRATA)
    assert parser.tags.count("section") == 37
    assert not {"script", "img", "iframe", "object"} & set(parser.tags)
    ids = {v for k, v in parser.attributes if k == "id"}
    links = [v for k, v in parser.attributes if k in ("src", "href") and v != "data:,"]
    assert links
    assert all(link.startswith("#") and link[1:] in ids for link in links)
    assert "url(" not in text
    assert "@import" not in text
    assert "\\" not in re.sub(r"<style>.*?</style>", "", text, flags=re.S)  # no LaTeX left over


def test_the_web_page_of_a_pass_has_nothing_red_and_both_checks(result):
    text = re.sub(r"<style>.*?</style>", "", page(result), flags=re.S)
    before_the_equations = text.partition("<section")[0]
    assert before_the_equations.count("<table>") == 3  # matrix, summary, random problems
    assert text.count("<table>") == 5  # and the long sequences, and all other ways in one
    tables = re.sub(r"<section.*</section>", "", text, flags=re.S)
    assert 'class="bad"' not in tables
    assert "not returned" not in tables
    assert tables.count("not judged") == 2
    assert tables.count(">each step</th>") == 4
    for cells in (">0.1</td>", ">0.25</td>"):
        assert tables.count(cells) == 3 + 2 + 2  # in the summary, of both groups, of both ways
    first = tables.partition("</table>")[0]
    assert "Cells against jax.grad" in first
    assert '<span class="good">0.25</span>' in first


def test_the_web_page_says_when_something_fails(result):
    bad = [{**row, "status": "fails", "worst_ratio": 1e9} if row["number"] == 9 else row
           for row in result["equations"]]  # fmt: skip
    wrong = {
        **result["reports"]["workers=2"], "passed": False,
        "rows": [{**result["reports"]["workers=2"]["rows"][0], "status": "mismatch",
                  "ratio": 7.0, "failures": 2}],
    }  # fmt: skip
    reports = {**result["reports"], "workers=2": wrong}
    text = page({**result, "passed": False, "equations": bad, "reports": reports})
    assert "It fails." in text
    assert "1 fail" in text
    assert '<section class="card fails" id="eq-9">' in text
    assert "2 of 3 wrong" in text
    tables = re.sub(r"<section.*</section>", "", text, flags=re.S)
    assert tables.count('<span class="bad">mismatch</span>') == 3  # summary, ways, its own table


def test_the_web_page_has_a_line_for_each_way_to_compute_each_other_cell(result):
    right = result["reports"]["random problems"]
    wrong = {**right, "passed": False, "rows": [{**right["rows"][0], "status": "mismatch"}]}
    cells = {"gru": {"by default": right, "workers=2": wrong}}
    for of in (result, {**result, "reports": {}, "equations": []}):
        text = page({**of, "passed": False, "cells": cells})
        table = text.partition('id="cells"')[2]
        assert table.count('<th scope="row">gru</th>') == 2
        assert "Gradients: gru, workers=2" in table
        assert table.count("mismatch") == 2  # in the table, and in its own
        assert "the cell gru" in text.partition('id="cells"')[0]


def test_verify_fails_when_a_corrected_form_is_wrong(monkeypatch, capsys):
    for gradients in ("_gradient_reports", "_other_ways"):  # in test_cli.py
        monkeypatch.setattr(verify, gradients, lambda *_, **__: [])
    wrong = replace(EQUATIONS[14], corrected=EQUATIONS[14].sides)
    monkeypatch.setitem(EQUATIONS, 14, wrong)
    assert cli.main(["verify", "--cell", "tanh", "--cases", "12"]) == 1
    assert "FAILS" in capsys.readouterr().out
