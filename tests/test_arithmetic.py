"""The logistic function, to the last digits at both ends, and the marks of what has overflowed."""

import numpy as np
import pytest

import manual_bptt as mb
from manual_bptt.arithmetic import mark_overflow, sigmoid


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_logistic_function_keeps_its_digits_and_overflows_nowhere(dtype):
    a = np.concatenate([[0.0, 1e-300], np.logspace(-8, 3, 2000)]).astype(dtype)
    a = np.concatenate([-a, a])
    with np.errstate(over="raise", divide="raise", invalid="raise"):
        found = sigmoid(a)
    exact = 1 / (1 + np.exp(-a.astype(np.longdouble)))  # whose range is that of 15 bits more
    info = np.finfo(dtype)
    np.testing.assert_allclose(found, exact, rtol=4 * info.eps, atol=info.smallest_normal)
    assert found.dtype == dtype


def test_the_logistic_function_of_infinity_is_one_or_zero_and_of_nan_is_nan():
    np.testing.assert_array_equal(sigmoid(np.array([-np.inf, np.inf, np.nan])), [0, 1, np.nan])


@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan])
def test_what_has_overflowed_is_marked_and_its_neighbours_are_not(value):
    a = np.array([[1.0, value, 3.0], [4.0, 5.0, 6.0]])
    mark_overflow(np.eye(3), a, np.zeros(3))
    np.testing.assert_array_equal(a, [[1, np.nan, 3], [4, 5, 6]])


@pytest.mark.parametrize("cell", ["gru", "gru_reset_after"])
def test_a_gradient_is_marked_where_an_initial_state_makes_the_gates_overflow(cell):
    """Gates that saturate at infinity would make plausible zeros of it."""
    params = mb.init_params(2, 4, 1, rng=0, cell=cell)
    params = params._replace(W=np.full_like(params.W, 1e150))
    x, h = np.ones((3, 2, 2)), np.full((4, 2, 4), 0.1)
    h[0, 0] = 1e160
    with np.errstate(over="ignore"):
        grads = mb.backward(params, mb.Trace(x, h, None), np.ones((3, 2, 1)))
    assert np.isnan(grads.x[:, 0]).all()
    assert np.isfinite(grads.x[:, 1]).all()
