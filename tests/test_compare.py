"""The comparison accuses every wrong gradient, no right one, and says what it saw."""

import json
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from correct_candidates import in_plain_loops
from hypothesis import given, settings

import manual_bptt as mb
import reference
from reference.network import CELLS
from reference.network.gradients import GRADIENTS, autodiff, loss_gradient
from reference.network.losses import named_loss
from reference.network.sequence import Probes
from reference.oracle.answers import answers
from reference.strategies import problems


def compare(candidate, **options):
    defaults = {"cases": 40, "batched": False, "explained": False}
    return reference.compare(candidate, **defaults | options)


def rows(report):
    return {row.gradient: row for row in report.rows}


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_correct_code_in_plain_loops_passes(dtype):
    report = compare(in_plain_loops, dtype=dtype, cases=60)
    assert report.passed, report
    assert {row.status for row in report.rows} == {"match"}
    reference.assert_gradients_match(in_plain_loops, batched=False, dtype=dtype, cases=20)


def changed(**changes):
    """Return in_plain_loops with some of its results changed."""

    def candidate(params, x, h0, target):
        grads = in_plain_loops(params, x, h0, target)
        return grads | {k: change(grads[k]) for k, change in changes.items()}

    return candidate


@pytest.mark.parametrize("name", GRADIENTS)
@pytest.mark.parametrize(
    "change",
    [lambda g: 2 * g, lambda g: -g, lambda g: g * (1 + 1e-7), lambda g: np.zeros_like(g)],
    ids=["factor 2", "sign", "off by 1e-7", "zero"],
)
def test_a_wrong_gradient_is_named_and_the_others_are_not(name, change):
    report = compare(changed(**{name: change}), cases=12)
    assert not report.passed
    assert {k for k, row in rows(report).items() if row.status != "match"} == {name}
    assert rows(report)[name].status == "mismatch"
    assert rows(report)[name].worst_problem.startswith("reference.random_problem(")


def test_the_assertion_carries_the_report():
    with pytest.raises(AssertionError, match=r"(?s)gradient .*mismatch.*x is wrong from step"):
        reference.assert_gradients_match(changed(x=lambda g: 2 * g), cases=12, batched=False)


def test_the_worst_problem_can_be_made_again_from_its_line():
    row = rows(compare(changed(U=lambda g: 2 * g)))["U"]
    problem = eval(row.worst_problem, {"reference": reference})
    ((verdicts, _),) = reference.judge(changed(U=lambda g: 2 * g), [problem])
    (again,) = (max(v.ratio, v.local) for v in verdicts if v.gradient == "U")
    assert again == pytest.approx(max(row.ratio, row.local_ratio), rel=0.05)


def test_the_first_wrong_step_is_the_one_the_recursion_meets_first():
    def candidate(params, x, h0, target):
        grads = in_plain_loops(params, x, h0, target)
        grads["h"][:3] += 1.0  # wrong at steps 0, 1 and 2, and right later
        return grads

    report = compare(candidate)
    assert rows(report)["h"].first_wrong_step in (0, 1, 2)
    long = reference.draw_problems(40, 0, dtype="float64", batched=False)
    found = [v for vs, _ in reference.judge(candidate, long) for v in vs if v.gradient == "h"]
    assert {v.step for v in found if v.problem.sizes["T"] > 2 and v.status == "mismatch"} == {2}


BAD_RETURNS = [
    (lambda g: np.full_like(g, np.nan), "non-finite"),
    (lambda g: g.T if g.shape[0] != g.shape[-1] else g[..., None], "wrong shape"),
    (lambda g: g.astype(complex) * 1j, "raised"),
    (lambda g: "gradient", "raised"),
    (lambda g: None, "not returned"),
]


@pytest.mark.parametrize(("change", "status"), BAD_RETURNS)
def test_what_is_not_a_gradient_gets_a_row_of_its_own(change, status):
    report = compare(changed(U=change))
    assert rows(report)["U"].status == status
    assert rows(report)["W"].status == "match"
    assert report.passed == (status == "not returned")


def test_nan_in_one_entry_of_one_problem_never_passes():
    seen = []

    def candidate(params, x, h0, target):
        grads = in_plain_loops(params, x, h0, target)
        seen.append(1)
        if len(seen) == 7:
            grads["V"][-1, -1] = np.nan
        return grads

    assert rows(compare(candidate))["V"].status == "non-finite"


def test_nan_does_not_pass_where_rounding_hides_the_answer():
    made = [
        reference.random_problem(
            T=3, B=None, D=2, H=2, O=2, regime="saturated", seed=s, dtype="float32"
        )
        for s in range(20)
    ]

    def statuses(candidate):
        found = [v for vs, _ in reference.judge(candidate, made) for v in vs]
        return {v.status for v in found if v.gradient == "h0"}

    assert "nothing proved" in statuses(in_plain_loops)
    assert statuses(changed(h0=lambda g: g * np.nan)) == {"non-finite"}


def test_a_candidate_that_answers_only_when_it_likes_does_not_pass():
    def candidate(params, x, h0, target):
        return in_plain_loops(params, x, h0, target) if len(x) == 1 else {"c": 0, "W": None}

    report = compare(lambda *a: {k: v for k, v in candidate(*a).items() if k != "c"} | {"c": None})
    assert not report.passed
    assert "W was not returned for" in str(compare(candidate))


class KeepsItsGraph:
    """What a tensor does that refuses to become an array."""

    def __array__(self, *_, **__):
        raise RuntimeError("detach it first")


class UnprintableError(Exception):
    def __str__(self):
        raise ValueError


def exits(*_):
    raise SystemExit(0)


def raises_what_cannot_be_printed(*_):
    raise UnprintableError


@pytest.mark.parametrize(
    ("candidate", "detail"),
    [
        (lambda *_: {"W": KeepsItsGraph()}, "RuntimeError: detach it first"),
        (exits, "SystemExit: 0"),
        (raises_what_cannot_be_printed, "UnprintableError"),
    ],
)
def test_nothing_that_a_candidate_does_ends_the_comparison(candidate, detail):
    report = compare(candidate, cases=3)
    assert not report.passed
    assert detail in rows(report)["W"].detail


def test_masked_gradients_and_misspelt_names_are_not_overlooked():
    report = compare(changed(W=lambda g: np.ma.masked_array(g, mask=True)), cases=3)
    assert rows(report)["W"].status == "raised"
    report = compare(lambda *a: in_plain_loops(*a) | {"dW": 1}, cases=3)
    assert "'dW' is not the name of a gradient, and was not looked at" in report.notes


def test_what_is_noted_becomes_a_warning_in_a_test_suite():
    with pytest.warns(UserWarning, match="'dW' is not the name"):
        reference.assert_gradients_match(
            lambda *a: in_plain_loops(*a) | {"dW": 1}, batched=False, cases=3
        )


@pytest.mark.parametrize("seed", [4, 12, 37, 42])
def test_one_case_decides_every_gradient_of_correct_code(seed):
    assert compare(in_plain_loops, cases=1, seed=seed).passed


def test_problems_for_a_callable_loss_have_at_least_two_of_everything():
    made = reference.draw_problems(4, 0, dtype="float64", batched=True, loss=lambda y, t: y.sum())
    sizes = sorted((p.sizes for p in made), key=lambda s: s["T"])
    assert [s["T"] >= 33 for s in sizes] == [False, False, False, True]
    assert all(min(s.values()) >= 2 for s in sizes[1:])


def test_a_gradient_that_is_exactly_zero_is_decided():
    def loss(y, target):
        return 0 * y.sum()

    p = reference.random_problem(T=3, B=None, D=2, H=2, O=2, regime="critical", seed=0, loss=loss)

    def zeros(params, x, h0, target):
        return {k: 0 * v for k, v in in_plain_loops(params, x, h0, target).items()}

    for candidate, status in ((zeros, "match"), (in_plain_loops, "mismatch")):
        ((verdicts, _),) = reference.judge(candidate, [p])
        assert {v.status for v in verdicts} == {status}


def test_a_candidate_that_raises_is_reported_and_does_not_stop_the_comparison():
    def candidate(params, x, h0, target):
        if len(x) == 2:
            raise IndexError("list index out of range")
        return in_plain_loops(params, x, h0, target)

    row = rows(compare(candidate))["W"]
    assert row.status == "raised"
    assert row.detail.startswith("IndexError: list index out of range (line ")
    assert row.detail.endswith(" of test_compare.py)")
    assert 0 < row.failures < row.cases


@pytest.mark.parametrize("returned", [None, [1, 2], {}, {"dW": 1}])
def test_a_candidate_that_returns_no_gradients_does_not_pass(returned):
    report = compare(lambda *_: returned, cases=3)
    assert not report.passed
    assert "expected" in rows(report)["W"].detail


def test_a_candidate_is_told_that_it_writes_to_its_inputs_and_is_judged_on_the_originals():
    def candidate(params, x, h0, target):
        grads = in_plain_loops(params, x, h0, target)
        x *= 2
        return grads

    report = compare(candidate)
    assert "the candidate writes to its input x" in report.notes
    assert report.passed


def test_float32_results_for_float64_problems_are_wrong_and_said_to_be_float32():
    report = compare(changed(W=lambda g: g.astype(np.float32)))
    assert rows(report)["W"].status == "mismatch"
    assert any("W came as float32" in note for note in report.notes)


def test_a_report_is_json_text_and_html():
    report = compare(changed(W=lambda g: g * np.nan, U=lambda g: g + np.inf), cases=4)
    document = json.loads(report.to_json())
    assert document["passed"] is False
    assert [row["gradient"] for row in document["rows"]] == list(GRADIENTS)
    assert "FAILED" in str(report)
    assert "<table>" in report._repr_html_()


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"candidate": 1}, TypeError, "candidate is a int; expected a function"),
        ({"cases": 2.5}, ValueError, "cases is 2.5; expected an integer of at least 1"),
        ({"seed": -1}, ValueError, "seed is -1; expected an integer of at least 0"),
        ({"batched": "no"}, ValueError, "batched is 'no'; expected True or False"),
        ({"loss": ["squared_error"]}, ValueError, "expected one of"),
        ({"cases": 0}, ValueError, "cases is 0; expected an integer of at least 1"),
        ({"dtype": "float16"}, ValueError, "dtype is 'float16'; expected 'float32' or 'float64'"),
        ({"loss": "hinge"}, ValueError, "loss is 'hinge'; expected one of"),
    ],
)
def test_compare_refuses(options, error, message):
    with pytest.raises(error) as caught:
        compare(**{"candidate": in_plain_loops} | options)
    assert message in str(caught.value)


@pytest.mark.parametrize("loss", ["squared_error", "last_step_squared_error"])
def test_padding_and_vmap_change_no_answer(loss):
    """The padded answer differs from the one at the exact shape by rounding alone."""
    shape = {"T": 5, "D": 3, "H": 4, "O": 2, "regime": "critical", "loss": loss}
    for B in (None, 3):
        for answer in answers([reference.random_problem(**shape, B=B, seed=s) for s in range(20)]):
            p = answer.problem
            exact = reference.gradients(p.params, p.x, p.target, h0=p.h0, loss=loss)
            exact["states"], _ = reference.forward(p.params, p.x, p.h0)
            for k, (value, tolerance) in answer.truth.items():
                assert value.shape == exact[k].shape
                assert (np.abs(value - exact[k]) <= tolerance).all()


def test_every_problem_is_answered_once_in_bounded_memory():
    made = list(reference.draw_problems(150, 3, dtype="float64", batched=True))
    assert sorted(id(a.problem) for a in answers(iter(made))) == sorted(map(id, made))


@settings(max_examples=20)
@given(problems(batched=True, longest=3))
def test_the_tolerance_is_small_beside_the_gradient_in_calm_regimes(problem):
    (answer,) = answers([problem])
    for value, tolerance in answer.truth.values():
        assert np.isfinite(tolerance).all()
        if np.abs(value).max() > 1e-3:
            assert tolerance.max() < 1e-6 * np.abs(value).max()


def test_draws_of_fewer_cases_are_among_those_of_more():
    few, many = (list(reference.draw_problems(n, 5, dtype="float64", batched=True)) for n in (3, 9))
    assert [p.origin for p in few] == [p.origin for p in many[:3]]


def test_unknown_names_are_refused():
    with pytest.raises(ValueError, match="regime is 'stormy'"):
        reference.random_problem(T=1, B=1, D=1, H=1, O=1, regime="stormy", seed=0)
    p = reference.random_problem(
        T=1, B=1, D=1, H=1, O=1, regime="linear", seed=0, loss="last_step_squared_error"
    )
    with pytest.raises(ValueError, match="loss is 'mse'; expected one of"):
        reference.random_problem(T=1, B=1, D=1, H=1, O=1, regime="linear", seed=0, loss="mse")
    with pytest.raises(ValueError, match="takes none"):
        reference.gradients(p.params, p.x, p.target, loss=p.loss, weights=np.ones(1))


def test_probes_change_no_value():
    p = reference.random_problem(T=4, B=2, D=2, H=3, O=2, regime="critical", seed=0)
    variables = (
        p.params._asdict(), p.x, p.h0, Probes(np.zeros((5, 2, 3)), np.zeros((4, 2, 2))),
    )  # fmt: skip
    with jax.enable_x64(True):
        grads = autodiff(
            variables, (p.target,), named_loss("squared_error").function, CELLS["tanh"]
        )
        assert np.allclose(grads["h0"], grads["h"][0], rtol=1e-14)
        assert np.allclose(grads["c"], grads["y"].sum((0, 1)), rtol=1e-12)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"target": np.zeros((5, 2))}, "target has shape (5, 2); expected (5, 5, 2)"),
        ({"target": np.zeros((5, 5, 1))}, "target has shape (5, 5, 1); expected (5, 5, 2)"),
        ({"h0": np.zeros(1)}, "h0 has shape (1,); expected (5, 4)"),
        ({"x": np.zeros(5)}, "x has shape (5,); expected (T, D) or (T, B, D)"),
        ({"x": np.zeros((5, 5, 2))}, "U has shape (4, 3); expected (4, 2)"),
        ({"x": np.zeros((5, 5, 3), complex)}, "x has dtype complex128; expected real numbers"),
        ({"weights": np.ones(4)}, "weights has shape (4,); expected (5,) or (5, 5) or (5, 5, 2)"),
        (
            {"loss": "last_step_squared_error", "target": np.zeros((5, 5, 2))},
            "target has shape (5, 5, 2); expected (5, 2)",
        ),
    ],
)
def test_the_oracle_broadcasts_nothing(change, message):
    p = reference.random_problem(T=5, B=5, D=3, H=4, O=2, regime="linear", seed=0)
    with pytest.raises(ValueError, match=re.escape(message)):
        reference.gradients(**{"params": p.params, "x": p.x, "target": p.target} | change)


def cross_entropy(y, target):
    return -jnp.sum(jax.nn.softmax(target) * jax.nn.log_softmax(y))


def huber(y, target):
    e = y - target
    return jnp.sum(jnp.where(jnp.abs(e) < 1, 0.5 * e**2, jnp.abs(e) - 0.5))


def mean_at_the_end(y, target):
    return jnp.mean((y[-1] - target[-1]) ** 2)


def product_of_sums(y, target):
    return jnp.sum(jnp.sin(y)) * jnp.sum(y * target)


LOSSES = [cross_entropy, huber, mean_at_the_end, product_of_sums]


@pytest.mark.parametrize("loss", LOSSES)
def test_any_loss_is_answered_as_autodiff_answers_it_at_the_exact_shape(loss):
    made = list(reference.draw_problems(3, 1, dtype="float64", batched=True, loss=loss))
    for p, truth in answers(made):
        exact = reference.gradients(p.params, p.x, p.target, h0=p.h0, loss=loss)
        for k, value in exact.items():
            assert (np.abs(value - truth[k][0]) <= truth[k][1]).all()


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_correct_code_for_any_loss_passes_and_a_small_error_does_not(loss, dtype):
    def candidate(params, x, h0, target, factor=1):
        trace = mb.forward(params, x, h0)
        dy = loss_gradient(loss, trace.y, target).astype(x.dtype)
        return mb.backward(params, trace, factor * dy)._asdict()

    report = compare(candidate, loss=loss, dtype=dtype, cases=24)
    assert report.passed, report
    assert all(row.cases > 18 for row in report.rows if row.status == "match")
    off = 1 + (1e-10 if dtype == "float64" else 1e-3)
    wrong = compare(lambda *a: candidate(*a, factor=off), loss=loss, dtype=dtype, cases=24)
    assert {row.status for row in wrong.rows} == {"mismatch", "not returned"}
