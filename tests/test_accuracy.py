"""docs/accuracy.py: its truth is the truth, its ulp is the ulp, and trust.md holds its tables."""

import re

import accuracy
import numpy as np
import pytest
from markers import read_part
from rounding import rounding_bounds

import manual_bptt as mb
from reference.network.gradients import GRADIENTS
from reference.problems import REGIMES, random_problem

exact, mp = accuracy.exact, accuracy.mp


def problem_of(regime, T=3):
    return random_problem(T=T, B=2, D=4, H=3, O=2, regime=regime, seed=0)


def truth_of(problem):
    return accuracy.truth(problem.params, problem.x, problem.h0, problem.target)


def exact_forward(problem):
    """Return all states and outputs in mpmath, with array products."""
    W, U, b, V, c = (exact(a) for a in problem.params)
    h = [exact(problem.h0)]
    for x_t in exact(problem.x):
        h.append(np.frompyfunc(mp.tanh, 1, 1)(h[-1] @ W.T + x_t @ U.T + b))
    return np.array(h), np.array(h[1:]) @ V.T + c


@pytest.mark.parametrize("regime", REGIMES)
def test_the_truth_equals_the_gradient_by_hand_up_to_rounding(regime):
    problem = problem_of(regime)
    params, true = mb.Params(*problem.params), truth_of(problem)
    _, y = exact_forward(problem)
    dy = (2 * (y - exact(problem.target))).astype(float)
    by_hand = mb.backward(params, mb.forward(params, problem.x, problem.h0), dy)
    # The bounds are for a given dy; they count one rounding more than there is in sums over dy.
    bounds = rounding_bounds(problem.params, problem.x, problem.h0, dy)
    for k, gradient in by_hand._asdict().items():
        assert (np.abs(exact(gradient) - true[k]) <= bounds[k]).all(), k


@pytest.mark.parametrize("regime", REGIMES)
def test_the_truth_in_the_states_follows_from_that_in_the_inputs(regime):
    problem = problem_of(regime)
    true, (h, _) = truth_of(problem), exact_forward(problem)
    da = (1 - h[1:] ** 2) * true["h"][1:]
    assert np.linalg.matrix_rank(problem.params.U) == problem.sizes["H"]  # so dx tells da
    assert np.abs(da @ exact(problem.params.U) - true["x"]).max() < mp.ldexp(1, -120)
    assert (true["h"][0] == true["h0"]).all()


@pytest.mark.parametrize("regime", ["chaotic", "saturated"])
def test_the_truth_hardly_depends_on_the_step_of_the_differences(regime, monkeypatch):
    problem = problem_of(regime, T=5)
    true = truth_of(problem)
    monkeypatch.setattr(accuracy, "STEP", mp.ldexp(1, -170))
    for k, gradient in truth_of(problem).items():
        unit = [accuracy.ulp(v, "float64") for v in np.abs(true[k]).ravel()]
        assert (np.abs(gradient - true[k]).ravel() <= np.array(unit) * mp.ldexp(1, -60)).all(), k


def test_numbers_of_every_dtype_enter_exactly():
    assert exact(np.array([0.1]))[0] == mp.mpf(3602879701896397) / 2**55
    assert exact(np.array([0.1], np.float32))[0] == mp.mpf(13421773) / 2**27


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_an_ulp_is_the_spacing_of_the_dtype(dtype):
    info = np.finfo(dtype)
    numbers = [1, 1.5, 2, 1e-3, -3, 1e30, info.tiny, info.tiny / 4]
    for number in np.array(numbers, dtype):
        assert float(accuracy.ulp(mp.mpf(float(number)), dtype)) == np.spacing(abs(number))
    just_below_one = 1 - mp.ldexp(1, -300)
    assert accuracy.ulp(just_below_one, dtype) == np.spacing(dtype(0.5))


def test_errors_are_in_ulp_of_the_largest_entry_of_a_matrix_or_of_a_step():
    true = exact(np.array([[1.0, -0.25], [0.125, 0.0]]))
    computed = np.array([[1.0, -0.25 + 2**-53], [0.125 - 2**-53, 2.0**-54]])
    in_a_matrix = accuracy.errors_in_ulp("W", computed, true)
    assert in_a_matrix.tolist() == [[0, 0.5], [0.5, 0.25]]
    in_steps = accuracy.errors_in_ulp("x", computed, true)
    assert in_steps.tolist() == [[0, 0.5], [4, 2]]


def test_jax_computes_its_own_tanh_when_it_stands_in_for_numpys():
    problem, numpys = problem_of("critical"), np.tanh
    ours, mixed = accuracy.by_hand(problem), accuracy.by_hand_with_their_tanh(problem)
    assert any((ours[k] != mixed[k]).any() for k in GRADIENTS)
    assert np.tanh is numpys


def errors(ours, theirs):
    """Return errors of one problem, in which all entries of a gradient are off alike."""
    return {
        who: {k: np.full(2, float(error)) for k in GRADIENTS}
        for who, error in zip(
            (accuracy.OURS, accuracy.JAX, accuracy.THEIR_TANH), (ours, theirs, theirs), strict=True
        )
    }


def test_a_ratio_is_a_geometric_mean_and_says_who_is_closer():
    ratio = accuracy.Ratio([errors(1, 2), errors(4, 8)], GRADIENTS)
    assert (str(ratio), ratio.closer) == ("0.50 ± 0.00", "by hand, 100%")
    ratio = accuracy.Ratio([errors(2, 1), errors(9, 3), errors(4, 1), errors(1, 1)], ("W",))
    assert str(ratio) == f"{24 ** (1 / 4):.2f} ± {24 ** (1 / 4) * ratio.log_error:.2f}"
    assert ratio.closer == "JAX, 75%"
    ratio = accuracy.Ratio([errors(1, 2)] * 3 + [errors(1, 1)], ("W",))  # three standard errors
    assert ratio.closer == "by hand, 75%"
    one_and_a_half = [errors(1, 2)] * 4 + [errors(2, 1)]
    for undecided in (one_and_a_half, [errors(0, 0), errors(3, 3)]):
        assert accuracy.Ratio(undecided, ("W",)).closer == "neither"


def test_tables_show_medians_and_largest_errors():
    measured = {"linear": [errors(1, 2), errors(3, 8), errors(5, 4)], "chaotic": [errors(7, 1)] * 2}
    (median,) = (x for x in accuracy.median_table("float32", measured) if x.startswith("| h0 "))
    (worst,) = (x for x in accuracy.worst_table("float32", measured) if x.startswith("| h0 "))
    assert median.startswith("| h0 | 3.00 / 4.00 | 7.00 / 1.00 |")
    assert worst == "| h0 | 5.00 / 8.00 | 7.00 / 1.00 |"


def without_figures(text):
    """Return the text with a # for every number, and for who is closer."""
    text = re.sub(r"\| (neither|(by hand|JAX), \d+%) \|", "| # |", text)
    return re.sub(r"(?<![\w.])\d+(\.\d+)*(e[+-]\d+)?(?!\w)", "#", text)


def test_trust_md_holds_what_the_script_writes():
    written, _, how = read_part("accuracy").partition("\nMeasured at commit ")
    assert how
    measured = {regime: [errors(1, 2), errors(1, 3)] for regime in REGIMES}
    results = dict.fromkeys(accuracy.DTYPES, measured)
    made = accuracy.part(results, accuracy.findings(results))
    assert without_figures(written) == without_figures(made)
    rows = re.findall(r"^\| (\w+) \|(?: [\d.e+]+ / [\d.e+]+ \|){6}", written, re.M)
    assert rows == [*GRADIENTS] * 4
