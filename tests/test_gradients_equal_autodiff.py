"""Every manual gradient equals jax.grad, through the door that any candidate goes through."""

from functools import partial

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rounding import forward_bounds
from together import assert_equal_to_autodiff

import manual_bptt as mb
import manual_bptt.candidate
import reference
from manual_bptt.candidate import candidate
from reference.network import CELLS
from reference.network.gradients import GRADIENTS
from reference.network.losses import squared_error
from reference.problems import REGIMES
from reference.strategies import problems

LOSSES = {f.__name__: f for f in (mb.squared_error, mb.last_step_squared_error)}


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("batched", [True, False])
def test_every_gradient_equals_autodiff(batched, loss, dtype):
    drawn = problems(batched=batched, dtype=dtype, loss=loss)
    assert_equal_to_autodiff(candidate(LOSSES[loss]), drawn, {*GRADIENTS, "states"})


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("cell", sorted({*mb.CELLS} - {"tanh"}))
def test_every_gradient_of_every_other_cell_equals_autodiff(cell, dtype):
    assert_equal_to_autodiff(
        candidate(cell=cell),
        problems(dtype=dtype, cell=cell),
        {*CELLS[cell].gradients, "states"},
        max_examples=24,
    )


@pytest.mark.parametrize("options", [{}, {"workers": 2}])
def test_what_is_judged_is_what_one_call_returns(monkeypatch, options):
    def halved(*arguments, **more):
        value, grads = mb.loss_and_gradients(*arguments, **more)
        return value, grads._replace(W=grads.W / 2)

    assert reference.compare(candidate(**options), cases=24).passed
    monkeypatch.setattr(manual_bptt.candidate, "loss_and_gradients", halved)
    report = reference.compare(candidate(**options), cases=24, explained=False)
    assert {row.gradient for row in report.rows if row.status == "mismatch"} == {"W"}


def test_well_conditioned_problems_decide_every_gradient():
    least = {"T": 1, "B": None, "D": 1, "H": 1, "O": 1}
    most = {"T": 40, "B": 4, "D": 8, "H": 8, "O": 8}
    assert_equal_to_autodiff(
        candidate(),
        problems(regimes=("contracting", "linear")),
        {*GRADIENTS, "states"},
        allowed=("match",),
        beside=[
            reference.random_problem(**least, regime="contracting", seed=0),
            reference.random_problem(**most, regime="saturated", seed=1),
        ],
    )


@pytest.mark.parametrize("form", ["(T,)", "(T, B)", "full"])
def test_weighted_gradients_equal_autodiff_even_where_ignored_targets_are_nan(form):
    weights = np.random.default_rng(0).uniform(0.5, 2, (5, 3, 2))
    weights[1] = 0
    weights = {"(T,)": weights[:, 0, 0], "(T, B)": weights[..., 0], "full": weights}[form]

    def loss(y, target):
        return squared_error(y, target.at[1].set(np.nan), weights)

    def gradients_of(params, x, h0, target):
        target[1] = np.nan
        value, grads = mb.loss_and_gradients(params, x, target, h0=h0, weights=weights)
        assert np.isfinite(value)
        return grads

    made = [
        reference.random_problem(T=5, B=3, D=2, H=4, O=2, regime=r, seed=7, loss=loss)
        for r in REGIMES
    ]
    report = reference.Report.of(reference.judge(gradients_of, made))
    assert report.passed, report


@pytest.mark.parametrize("cell", ["tanh", "gru"])
def test_a_gradient_that_arrives_at_the_last_state_equals_autodiff(cell):
    kind, loss = mb.CELLS[cell].Params, "final_state_squared_error"

    def by_hand(params, x, h0, target, *, dropped=False):
        trace = mb.forward(kind(*params), x, h0)
        given = np.zeros_like(trace.y), None if dropped else 2 * (trace.h[-1] - target)
        grads = mb.backward(kind(*params), trace, given[0], dh_last=given[1])
        dh = mb.hidden_gradients(kind(*params), trace, given[0], dh_last=given[1])
        return {**grads._asdict(), "h": dh, "states": trace.h}

    shape = {"T": 7, "D": 2, "H": 4, "O": 3, "loss": loss, "cell": cell}
    made = [
        reference.random_problem(**shape, B=B, regime=regime, seed=seed)
        for B in (3, None)
        for regime in REGIMES
        for seed in range(3)
    ]
    right = reference.Report.of(reference.judge(by_hand, made))
    assert right.passed, right
    assert all(row.local_ratio is not None for row in right.rows)
    wrong = reference.Report.of(reference.judge(partial(by_hand, dropped=True), made))
    failed = {row.gradient: row for row in wrong.rows if row.status == "mismatch"}
    assert failed.keys() == {*kind._fields, "x", "h0", "h"} - {"V", "c"}
    assert failed["h"].local_ratio > 1
    right_again = reference.gradients(
        made[0].params, made[0].x, made[0].target, h0=made[0].h0, loss=loss, cell=cell
    )
    found = by_hand(made[0].params, made[0].x, made[0].h0, made[0].target)
    np.testing.assert_allclose(found["W"], right_again["W"], 1e-9, 1e-12)
    with pytest.raises(ValueError, match=r"^target has shape \(3, 3\); expected \(3, 4\)"):
        reference.gradients(
            made[0].params, made[0].x, np.ones((3, 3)), h0=made[0].h0, loss=loss, cell=cell
        )


def test_any_loss_with_a_gradient_in_y_goes_through_the_same_recursion():
    def log_cosh(y, target):
        return jax.numpy.log(jax.numpy.cosh(y - target)).sum()

    def by_hand(y, target):
        return np.log(np.cosh(y - target)).sum(), np.tanh(y - target)

    shape = {"T": 5, "D": 2, "H": 4, "O": 3, "loss": log_cosh}
    for B in (3, None):
        made = [
            reference.random_problem(**shape, B=B, regime=regime, seed=seed)
            for regime in REGIMES
            for seed in range(8)
        ]
        report = reference.Report.of(reference.judge(candidate(by_hand), made))
        assert report.passed, report
        # Nothing is known of the rounding in this loss, and so of the steps that h, V and c take.
        by_step = {row.gradient for row in report.rows if row.local_cases}
        assert by_step == {"W", "U", "b", "x", "h0", "states"}


@given(st.integers(0, 2**32 - 1), st.booleans())
def test_manual_and_jax_forward_passes_agree(seed, batched):
    B = 3 if batched else None
    p = reference.random_problem(T=6, B=B, D=3, H=5, O=2, regime="contracting", seed=seed)
    trace = mb.forward(p.params, p.x, p.h0)
    h, y = reference.forward(p.params, p.x, p.h0)
    # NumPy's tanh was measured at 1.7 u and XLA's at 7.5 u (reference/rounding/steps.py).
    ours, jaxs = (forward_bounds(p.params, p.x, p.h0, tanh) for tanh in (4, 8))
    assert (np.abs(trace.h - h) <= ours[0] + jaxs[0]).all()
    assert (np.abs(trace.y - y) <= ours[1] + jaxs[1]).all()


def test_public_gradients_and_the_oracle_of_compare_agree():
    def jax_itself(params, x, h0, target):
        return reference.gradients(params, x, target, h0=h0)

    def drawn(seed):
        return reference.random_problem(T=3, B=2, D=2, H=3, O=2, regime="critical", seed=seed)

    assert_equal_to_autodiff(jax_itself, st.integers(0, 2**32 - 1).map(drawn), GRADIENTS)
