"""Candidates as people write them: their arrays, their manners, their time."""

import re
import signal
import sys
import threading
import time
import warnings
from typing import NamedTuple

import numpy as np
import pytest
from correct_candidates import CANDIDATES, in_plain_loops

import reference
from reference.judging.candidates import Caller
from reference.judging.layouts import LAYOUTS, in_layout
from reference.judging.reading import Flaw
from reference.mistakes import correct
from reference.problems import random_problem

LAST = "last_step_squared_error"


def compare(candidate, **options):
    return reference.compare(candidate, **{"cases": 24, "explained": False} | options)


def statuses(report):
    return {row.gradient: row.status for row in report.rows}


def problem(**changes):
    sizes = {"T": 4, "B": 2, "D": 3, "H": 5, "O": 2} | changes
    loss = sizes.pop("loss", "squared_error")
    return random_problem(**sizes, regime="contracting", seed=0, loss=loss)


# Layouts -----------------------------------------------------------------------------------------


def batch_first(params, x, h0, target):
    """Backpropagation through time for x (B, T, D)."""
    T = x.shape[1]
    h = [h0]
    for t in range(T):
        h.append(np.tanh(h[-1] @ params.W.T + x[:, t] @ params.U.T + params.b))
    h = np.stack(h, axis=1)
    dy = 2 * (h[:, 1:] @ params.V.T + params.c - target)
    dh, da = np.zeros_like(h), np.zeros_like(h[:, 1:])
    for t in range(T, 0, -1):
        dh[:, t] += dy[:, t - 1] @ params.V
        da[:, t - 1] = (1 - h[:, t] ** 2) * dh[:, t]
        dh[:, t - 1] = da[:, t - 1] @ params.W
    return {
        "W": np.einsum("bti,btj->ij", da, h[:, :-1]),
        "U": np.einsum("bti,btj->ij", da, x),
        "b": da.sum((0, 1)),
        "V": np.einsum("bti,btj->ij", dy, h[:, 1:]),
        "c": dy.sum((0, 1)),
        "x": da @ params.U,
        "h0": dh[:, 0],
        "h": dh,
        "states": h,
    }


def columns(params, x, h0, target):
    """Backpropagation through time with a column for each sequence: x is (T, D, B)."""
    h = [h0]
    for x_t in x:
        h.append(np.tanh(params.W @ h[-1] + params.U @ x_t + params.b))
    dW, dU, dV = (np.zeros_like(p) for p in (params.W, params.U, params.V))
    db, dc, dx = np.zeros_like(params.b), np.zeros_like(params.c), np.zeros_like(x)
    dh, da = [np.zeros_like(h0) for _ in h], np.zeros_like(h0)
    for t in range(len(x), 0, -1):
        dy = 2 * (params.V @ h[t] + params.c - target[t - 1])
        dh[t] = params.V.T @ dy + params.W.T @ da
        da = (1 - h[t] ** 2) * dh[t]
        dW, dU, dV = dW + da @ h[t - 1].T, dU + da @ x[t - 1].T, dV + dy @ h[t].T
        db, dc = db + da.sum(1, keepdims=True), dc + dy.sum(1, keepdims=True)
        dx[t - 1] = params.U.T @ da
    dh[0] = params.W.T @ da
    return {
        "W": dW, "U": dU, "b": db, "V": dV, "c": dc, "x": dx, "h0": dh[0], "h": dh, "states": h,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("candidate", "options"),
    [
        (batch_first, {"layout": "batch_first"}),
        (columns, {"layout": "columns"}),
        (columns, {"layout": "columns", "batched": False}),
        (in_plain_loops, {"layout": "batch_first", "batched": False}),
    ],
    ids=["batch first", "columns", "one column", "no batch to be first"],
)
def test_a_candidate_is_called_and_read_in_its_own_layout(candidate, options):
    report = compare(candidate, **options)
    assert report.passed, report
    assert {*statuses(report).values()} == {"match"}
    assert not report.notes


@pytest.mark.parametrize("loss", ["squared_error", LAST])
@pytest.mark.parametrize("batch", [2, None])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_what_goes_into_a_layout_comes_out_of_it_unchanged(layout, batch, loss):
    made = problem(B=batch, loss=loss)
    right = correct(loss)(made.params, made.x, made.h0, made.target)

    def candidate(params, x, h0, target):
        assert target.shape == in_layout("target", made.target, made, layout).shape
        return {k: in_layout(k, a, made, layout) for k, a in right.items()}

    returned = Caller(candidate, layout)(made)
    for k, array in right.items():
        assert np.array_equal(returned.gradients[k], array)
    assert not returned.notes


@pytest.mark.parametrize(
    ("candidate", "option"),
    [
        (in_plain_loops, "--single)"),
        (batch_first, "--layout batch_first)"),
        (columns, "--layout columns)"),
    ],
)
def test_a_candidate_called_in_the_wrong_way_is_told_the_right_one(candidate, option):
    report = compare(candidate, cases=4, explained=True, sizes={"D": 3, "H": 5, "T": 7})
    assert not report.passed
    assert any(
        option in note and "was it written for other arrays?" in note for note in report.notes
    )


# What is read ------------------------------------------------------------------------------------


def returning(**changes):
    """Return in_plain_loops with changes; a change gets the gradient, and may rename it."""

    def candidate(*arguments):
        found = in_plain_loops(*arguments)
        for k, change in changes.items():
            found[k] = change(found[k])
        return found

    return candidate


ONE_OUTPUT = {"sizes": {"O": 1}, "batched": False}


@pytest.mark.parametrize(
    ("candidate", "options", "note"),
    [
        (returning(V=lambda g: g[0]), ONE_OUTPUT, "V came as ("),
        (returning(V=lambda g: g.T), ONE_OUTPUT, "V came as ("),
        (returning(c=lambda g: float(g[0])), ONE_OUTPUT, "c came as () and was read as (1,)"),
        (returning(b=lambda g: g[:, None]), {"batched": False}, "b came as ("),
        (returning(h0=lambda g: g[None]), {"batched": False}, "h0 came as ("),
        (returning(x=list), {"batched": False}, None),
        (returning(h=lambda g: [row[:, None] for row in g]), {"batched": False}, "h came as ("),
    ],
    ids=["V as a vector", "V as a column", "c as a number", "b as a column", "h0 as a row",
         "x as a list", "h as a list of columns"],
)  # fmt: skip
def test_what_can_be_read_in_one_way_only_is_read_and_said(candidate, options, note):
    report = compare(candidate, **options)
    assert report.passed, report
    assert len(report.assumed) == (note is not None)
    assert all(said.startswith(note) for said in report.assumed)
    assert not report.notes
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        reference.assert_gradients_match(candidate, cases=3, **options)


def test_gradients_may_be_called_by_the_names_that_people_give_them():
    report = compare(lambda *a: {f"d{k}": v for k, v in correct()(*a).items() if k != "states"})
    assert report.passed
    assert len(statuses(report)) == 8
    assert report.assumed == ["dW dU db dV dc dx dh0 dh were taken for W U b V c x h0 h"]


class SomeGradients(NamedTuple):
    V: np.ndarray
    c: np.ndarray


def test_a_namedtuple_with_some_gradients_is_enough():
    def candidate(*arguments):
        found = correct()(*arguments)
        return SomeGradients(found["V"], found["c"])

    report = compare(candidate)
    assert report.passed
    assert {k for k, status in statuses(report).items() if status == "match"} == {"V", "c"}


@pytest.mark.parametrize(
    ("name", "change", "hint"),
    [
        ("U", lambda g: g.T, "it looks transposed"),
        ("h", lambda g: g[1:], "one state is missing: there are T+1, from h[0] to h[T]"),
        ("W", lambda g: np.stack([g] * 4), "one for each step? The gradient is their sum"),
        ("b", lambda g: np.stack([g] * 2), "one for each sequence? The gradient is their sum"),
        ("x", lambda g: g[:, 0], "expected (4, 2, 3)"),
    ],
)
def test_a_wrong_shape_is_recognised(name, change, hint):
    made = problem()
    right = correct()(made.params, made.x, made.h0, made.target)
    returned = Caller(lambda *_: right | {name: change(right[name])})(made)
    flaw = returned.gradients[name]
    assert flaw.status == "wrong shape"
    assert flaw.detail.endswith(hint)
    assert all(isinstance(v, np.ndarray) for k, v in returned.gradients.items() if k != name)


def test_fixed_sizes_serve_code_that_works_for_those_alone():
    def hard_wired(params, x, h0, target):
        assert (x.shape, params.W.shape) == ((7, 3), (5, 5))
        return in_plain_loops(params, x, h0, target)

    assert compare(hard_wired, batched=False, sizes={"T": 7, "D": 3, "H": 5}).passed
    wrong = returning(V=lambda g: 2 * g)
    report = compare(wrong, batched=False, sizes={"T": 7, "H": 5}, explained=True)
    sizes = report.smallest.problem.sizes
    assert (sizes["T"], sizes["H"]) == (7, 5)


# Manners -----------------------------------------------------------------------------------------


def test_what_a_candidate_prints_and_warns_of_is_noted_and_not_shown(capsys):
    def talkative(*arguments):
        print("dW is", 1)
        warnings.warn("take care", stacklevel=1)
        return correct()(*arguments)

    report = compare(talkative)
    assert report.passed
    assert capsys.readouterr().out == ""
    assert report.notes == [
        "the candidate prints, and it is not shown: 'dW is 1'",
        "the candidate warns: UserWarning: take care",
    ]


@pytest.mark.parametrize(
    ("warns", "returns", "expected"),
    [
        (["matmul"], 0.0, []),
        (["dot"], 0.0, []),
        (["matmul"], np.nan, ["the candidate warns: RuntimeWarning: invalid value .* in matmul"]),
        (["matmul", "divide"], 0.0, ["the candidate warns: .*invalid value encountered in divide"]),
    ],
)
def test_a_product_of_finite_numbers_that_numpy_warns_of_is_not_noted(warns, returns, expected):
    """Some versions of OpenBLAS raise the flag on finite numbers; infinities do it everywhere."""
    infinities = np.array([np.inf, -np.inf])
    operations = {
        "matmul": lambda: infinities @ np.ones((2, 1)),
        "dot": lambda: infinities.dot(np.ones((2, 1))),
        "divide": lambda: np.zeros(1) / 0,
    }

    def warning(*arguments):
        for name in warns:
            operations[name]()
        grads = correct()(*arguments)
        return grads | {"W": grads["W"] + returns}

    notes = compare(warning, cases=8).notes
    assert len(notes) == len(expected)
    assert all(re.fullmatch(*pair) for pair in zip(expected, notes, strict=True)), notes


def test_two_comparisons_in_threads_do_not_disturb_the_streams():
    reports = []
    threads = [
        threading.Thread(target=lambda: reports.append(compare(correct(), cases=3)))
        for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [report.passed for report in reports] == [True] * 3


def slow(seconds):
    def candidate(*arguments):
        time.sleep(seconds)
        return correct()(*arguments)

    return candidate


def test_a_slow_candidate_gets_a_partial_report_that_says_so():
    report = compare(slow(0.05), time_budget=0.4)
    assert statuses(report) == dict.fromkeys(statuses(report), "match")
    (note,) = report.notes
    assert note.startswith("only ")
    assert "of 24 problems were judged: the candidate's calls used up the budget of 0.4 s" in note
    assert 1 <= report.rows[0].cases < 24
    with pytest.warns(UserWarning, match="only .* of 24 problems"):
        reference.assert_gradients_match(slow(0.05), cases=24, time_budget=0.4)


def test_a_candidate_that_never_returns_is_interrupted_and_reported():
    def endless(*_):
        while True:
            pass

    started = time.perf_counter()
    report = compare(endless, cases=3, time_budget=0.3)
    assert not report.passed
    assert report.rows[0].status == "raised"
    assert report.rows[0].detail.startswith("TimeoutError: no answer within 0.3")
    assert time.perf_counter() - started < 60


def test_a_wrong_candidate_with_no_time_left_is_reported_without_the_reasons():
    def candidate(*arguments):
        found = slow(0.02)(*arguments)
        return found | {"V": 2 * found["V"]}

    report = compare(candidate, cases=5, time_budget=0.4, explained=True)
    assert statuses(report)["V"] == "mismatch"
    assert any("the explanation is incomplete" in note for note in report.notes)


def test_a_candidate_that_remembers_earlier_calls_is_suspected():
    calls = []

    def candidate(*arguments):
        calls.append(1)
        found = correct()(*arguments)
        return found | {"W": found["W"] + (len(calls) <= 3)}

    report = compare(candidate, cases=3, explained=True)
    assert statuses(report)["W"] == "mismatch"
    assert report.smallest is None
    assert any("does it remember earlier calls?" in note for note in report.notes)


@pytest.mark.parametrize("name", list(CANDIDATES)[:6])
def test_calling_a_candidate_leaves_the_process_as_it_was(name):
    before = sys.stdout, sys.stderr, signal.getsignal(signal.SIGALRM)
    returned = Caller(CANDIDATES[name], time_budget=60.0)(problem())
    assert not isinstance(returned.gradients, Flaw)
    assert (sys.stdout, sys.stderr, signal.getsignal(signal.SIGALRM)) == before
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)


def test_a_timer_that_is_already_set_is_left_alone():
    signal.signal(signal.SIGALRM, lambda *_: None)
    signal.setitimer(signal.ITIMER_REAL, 50)
    try:
        Caller(correct(), time_budget=60.0)(problem())
        assert 40 < signal.getitimer(signal.ITIMER_REAL)[0] <= 50
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, signal.SIG_DFL)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        (
            {"layout": "diagonal"},
            ValueError,
            "layout is 'diagonal'; expected one of time_first",
        ),
        ({"time_budget": 0}, ValueError, "time_budget is 0; expected a number of seconds above 0"),
        ({"time_budget": "1"}, ValueError, "time_budget is '1'; expected a number of seconds"),
        ({"sizes": {"N": 3}}, ValueError, "sizes names 'N'; expected any of T B D H O"),
        ({"sizes": {"B": 3}, "batched": False}, ValueError, "sizes names 'B'; expected any of T D"),
        ({"sizes": {"H": 0}}, ValueError, "sizes has H=0; expected an integer of at least 1"),
        ({"sizes": {"H": 2.0}}, ValueError, "sizes has H=2.0; expected an integer"),
        ({"cases": True}, ValueError, "cases is True; expected an integer of at least 1"),
    ],
)
def test_options_that_cannot_be_are_refused(options, error, message):
    with pytest.raises(error) as raised:
        compare(correct(), **options)
    assert message in str(raised.value)
