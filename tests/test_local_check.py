"""The local check: each step within what rounding can explain, however chaotic the network."""

import jax
import numpy as np
import pytest

import manual_bptt as mb
import reference
from manual_bptt.candidate import candidate
from reference.drawing import LONG, WIDE
from reference.rounding.tolerance import V64

DTYPES = ("float64", "float32")


def drawn(dtype="float64", cases=40, **options):
    return list(reference.draw_problems(cases, 1, dtype=dtype, batched=True, **options))


def chaotic(dtype):
    shape = {"T": 40, "B": 2, "D": 3, "H": 8, "O": 2, "regime": "chaotic"}
    return [reference.random_problem(**shape, seed=seed, dtype=dtype) for seed in range(16)]


def verdicts(gradients_of, problems):
    """Return {gradient: verdicts}."""
    found = {}
    for said, _ in reference.judge(gradients_of, problems):
        for verdict in said:
            found.setdefault(verdict.gradient, []).append(verdict)
    return found


def report(gradients_of, problems):
    return {
        row.gradient: row
        for row in reference.Report.of(reference.judge(gradients_of, problems)).rows
    }


def changed(loss=mb.squared_error, **changes):
    """Return the manual gradients with some results changed; None leaves one out."""

    def gradients_of(*arguments):
        found = candidate(loss)(*arguments)
        return found | {k: change and change(found[k]) for k, change in changes.items()}

    return gradients_of


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("loss", [mb.squared_error, mb.last_step_squared_error])
def test_every_step_of_correct_code_is_within_its_bound(loss, dtype):
    problems = drawn(dtype, loss=loss.__name__)
    for states in (None, np.copy):  # kept to itself, or returned
        rows = report(changed(loss, states=states), problems)
        assert {row.status for row in rows.values()} == {"match"}
        assert all(row.local_ratio <= 1 and row.local_cases >= 30 for row in rows.values())


def test_steps_are_decided_where_chaos_hides_the_whole():
    found = verdicts(candidate(), chaotic("float32"))
    assert {v.status for v in found["W"]} == {"match"}
    hidden = [v for v in found["W"] if v.ratio is None]
    assert len(hidden) >= 3
    assert all(v.local <= 1 for v in hidden)


def steeper(params, x, h0, target):
    """The manual gradients with the derivative of tanh off by 1e-6 of h^2."""
    trace = mb.forward(params, x, h0)
    _, dy = mb.squared_error(trace.y, target)
    h, carried = trace.h, np.zeros_like(h0)
    dh, da = np.empty_like(h), np.empty_like(h[1:])
    for t in range(len(x), 0, -1):
        dh[t] = dy[t - 1] @ params.V + carried
        da[t - 1] = dh[t] * (1 - h[t] * h[t] * np.asarray(1 + 1e-6, h.dtype))
        carried = da[t - 1] @ params.W
    dh[0] = carried
    return {"h": dh, "b": da.sum((0, 1)), "states": h}


def test_a_derivative_off_by_1e_6_is_seen_in_float32_in_most_problems():
    found = verdicts(steeper, drawn("float32"))["h"]
    assert sum(v.local is not None and v.local > 1 for v in found) > 20
    assert sum(v.ratio is not None and v.ratio > 1 for v in found) < 10


def test_a_wrong_premise_accuses_nobody_else():
    rows = report(changed(h=lambda h: 2 * h), drawn())
    assert {k for k, row in rows.items() if row.status != "match"} == {"h"}
    rows = report(changed(states=lambda h: 1.01 * h), drawn())
    assert {k for k, row in rows.items() if row.status != "match"} == {"states"}
    assert rows["V"].local_cases == 0


def test_a_wrong_step_is_named_alone_where_later_steps_follow_from_it():
    def gradients_of(params, x, h0, target):
        found = candidate()(params, x, h0, target)
        h = found["states"].copy()
        h[3] += 1e-9
        for t in range(4, len(h)):  # every later step is right, from a state that is not
            h[t] = np.tanh(h[t - 1] @ params.W.T + x[t - 1] @ params.U.T + params.b)
        return found | {"states": h}

    problem = reference.random_problem(T=9, B=2, D=3, H=4, O=2, regime="expanding", seed=0)
    (found,) = verdicts(gradients_of, [problem])["states"]
    assert (found.status, found.step) == ("mismatch", 3)


def test_states_that_are_no_states_get_a_row_and_the_rest_is_judged_without_them():
    for change, status in (
        (lambda h: h[1:], "wrong shape"),
        (lambda h: h * np.nan, "non-finite"),
        (lambda h: "states", "raised"),
    ):
        rows = report(changed(states=change), drawn(cases=12))
        assert rows["states"].status == status
        assert all(row.status == "match" for k, row in rows.items() if k != "states")
        assert rows["W"].local_ratio is None


def test_states_alone_prove_nothing():
    only_states = changed(**dict.fromkeys(("W", "U", "b", "V", "c", "x", "h0", "h")))
    found = reference.Report.of(reference.judge(lambda *a: only_states(*a) | {"b": None}, drawn()))
    assert not found.passed


def test_without_h_only_the_output_layer_is_checked_step_by_step():
    rows = report(changed(h=None), drawn(cases=12))
    assert {k for k, row in rows.items() if row.local_cases} == {"V", "c", "states"}


@pytest.mark.parametrize("dtype", DTYPES)
def test_long_and_wide_problems_follow_after_the_first_200(dtype):
    sizes = [p.sizes for p in reference.draw_problems(600, 0, dtype=dtype, batched=True)]
    small, rest = sizes[:200], sizes[200:]
    assert max(s["T"] for s in small) == 40
    assert max(max(s["B"] / 4, s["D"] / 8, s["H"] / 8, s["O"] / 8) for s in small) == 1
    assert sum(s["T"] >= LONG[0] for s in rest) == 5
    assert sum(s["B"] >= WIDE[0][0] and s["H"] >= WIDE[1][0] for s in rest) == 5


def test_tanh_errs_by_no_more_than_the_bounds_allow():
    """4 u for a candidate's tanh, 8 v for that of XLA in float64; truth in extended precision."""
    if np.finfo(np.longdouble).nmant <= 52:
        pytest.skip("longdouble is no wider than float64 here")
    rng = np.random.default_rng(0)
    for dtype in (np.float32, np.float64):
        a = rng.uniform(-1, 1, 200_000) * 10 ** rng.uniform(-6, 1.3, 200_000)
        a = a.astype(dtype)
        truth = np.tanh(a.astype(np.longdouble))
        u = np.finfo(dtype).eps / 2
        assert np.abs((np.tanh(a) - truth) / truth).max() <= 4 * u
    with jax.enable_x64(True):
        by_xla = np.asarray(jax.jit(jax.numpy.tanh)(a))
    assert np.abs((by_xla - truth) / truth).max() <= 8 * V64


@pytest.mark.parametrize(
    ("loss", "B", "D", "regime", "seed"),
    [("squared_error", 2, 2, "expanding", 4), ("last_step_squared_error", 1, 1, "chaotic", 2)],
)
def test_a_slope_at_saturation_is_within_its_bound_on_processors_of_every_kind(
    loss, B, D, regime, seed
):
    # JAX's own slope rounds once more where XLA fuses no multiplication with an addition.
    problem = reference.random_problem(
        T=33, B=B, D=D, H=1, O=1, regime=regime, seed=seed, loss=loss
    )
    report = reference.Report.of(reference.judge(candidate(getattr(mb, loss)), [problem]))
    assert report.passed, report
