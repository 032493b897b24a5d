"""The kernel compiled by numba: one more candidate through the same door."""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rounding import rounding_bounds
from threadpoolctl import threadpool_info, threadpool_limits
from together import assert_equal_to_autodiff

import manual_bptt as mb
import reference
from manual_bptt.candidate import candidate
from manual_bptt.engine import blocks
from reference.network.gradients import GRADIENTS
from reference.strategies import problems

mpmath = pytest.importorskip("mpmath")
compiled = pytest.importorskip("manual_bptt.compiled")

LOSSES = {f.__name__: f for f in (mb.squared_error, mb.last_step_squared_error)}
LONGER_THAN_A_BLOCK = 600


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("options", [{}, {"workers": 2}, {"checkpoint_every": "sqrt"}], ids=str)
def test_every_compiled_gradient_equals_autodiff(options, loss, dtype):
    judged = candidate(LOSSES[loss], kernel="numba", **options)
    assert_equal_to_autodiff(judged, problems(dtype=dtype, loss=loss), {*GRADIENTS} - {"h"})


@pytest.mark.parametrize("batched", [True, False])
def test_every_compiled_gradient_of_a_long_sequence_equals_autodiff(batched):
    sizes = {"T": LONGER_THAN_A_BLOCK}
    found = reference.draw_problems(4, 0, dtype="float64", batched=batched, sizes=sizes)
    report = reference.Report.of(reference.judge(candidate(kernel="numba"), found))
    assert report.passed, report


def linear(y, target):
    """A loss whose gradient in the outputs is given."""
    return (y * target).sum(), target


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("B", [None, 1, 5])
@pytest.mark.parametrize("H", [1, 3, 4, 9, 33, 65, 130])
def test_the_error_is_within_the_bound_on_rounding(B, H, dtype):
    rng = np.random.default_rng(H)
    batch = () if B is None else (B,)
    params = mb.init_params(2, H, 3, rng=rng, dtype=dtype)
    params = params._replace(b=rng.standard_normal(H).astype(dtype))
    x, dy = (rng.standard_normal((20, *batch, n)).astype(dtype) for n in (2, 3))
    h0 = rng.standard_normal((*batch, H)).astype(dtype)
    _, grads = mb.loss_and_gradients(params, x, dy, h0=h0, loss=linear, kernel="numba")
    wide = mb.Params(*(p.astype(np.longdouble) for p in params))
    _, truth = mb.loss_and_gradients(wide, x, dy, h0=h0, loss=linear)
    in_double = [array.astype(float) for array in (x, h0, dy)]
    bounds = rounding_bounds(params, *in_double, u=np.finfo(dtype).eps / 2)
    for name, bound in bounds.items():
        assert (np.abs(getattr(grads, name) - getattr(truth, name)) <= bound).all(), name


def test_the_result_is_the_same_bits_in_segments_and_on_an_executor():
    rng = np.random.default_rng(0)
    params = mb.init_params(3, 7, 2, rng=rng)
    x, target = rng.standard_normal((700, 5, 3)), rng.standard_normal((700, 5, 2))
    expected = mb.loss_and_gradients(params, x, target, kernel="numba")
    with ThreadPoolExecutor(2) as executor:
        for options in ({"checkpoint_every": 1}, {"checkpoint_every": "sqrt", "workers": executor}):
            value, grads = mb.loss_and_gradients(params, x, target, kernel="numba", **options)
            assert value == expected[0]
            assert all(map(np.array_equal, grads, expected[1]))


@compiled.compiled
def tanh(x):  # of a whole array, vectorised as it is in the kernel
    result = np.empty_like(x)
    for i in range(len(x)):
        result[i] = compiled._tanh(x[i])
    return result


@given(st.lists(st.floats(-25, 25), min_size=1, max_size=50))
@settings(max_examples=300)
def test_tanh_is_within_four_units_of_roundoff(drawn):
    x = np.array(drawn)
    with mpmath.workprec(200):
        for value, found in zip(drawn, tanh(x), strict=True):
            exact = mpmath.tanh(mpmath.mpf(value))
            assert abs(found - exact) <= 4 * mpmath.mpf(2) ** -53 * abs(exact) + 5e-324


def test_tanh_is_within_four_units_wherever_its_branches_meet():
    n = np.arange(0, 60)[:, None] * np.log(2) / 2 + np.log(2) / 4
    near = (n + np.linspace(-1e-9, 1e-9, 101)).ravel()
    x = np.concatenate([near, -near, np.logspace(-320, 1.4, 3000), np.linspace(0, 22, 3000)])
    with mpmath.workprec(200):
        exact = [mpmath.tanh(mpmath.mpf(float(v))) for v in x]
        units = [
            float(abs(f - e) / (abs(e) * mpmath.mpf(2) ** -53 + mpmath.mpf(2) ** -1074))
            for f, e in zip(tanh(x), exact, strict=True)
        ]
    assert max(units) <= 4


def test_tanh_of_what_is_no_number_and_at_the_ends():
    x = np.array([np.nan, np.inf, -np.inf, 1e300, -1e300, 0.0, -0.0, 5e-324, -5e-324])
    expected = np.array([np.nan, 1.0, -1.0, 1.0, -1.0, 0.0, -0.0, 5e-324, -5e-324])
    np.testing.assert_array_equal(tanh(x), expected)
    np.testing.assert_array_equal(np.signbit(tanh(x))[1:], np.signbit(expected)[1:])


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_what_overflows_is_what_it_is_for_the_plain_kernel(dtype):
    large = np.sqrt(np.finfo(dtype).max)
    params = mb.init_params(2, 3, 1, rng=0, dtype=dtype)
    params = params._replace(U=params.U * large)
    x = np.ones((5, 4, 2), dtype)
    x[2, 1] = [10 * large, -10 * large]
    options = {"check_finite": False}
    with np.errstate(all="ignore"):
        _, plain = mb.loss_and_gradients(params, x, np.zeros((5, 4, 1), dtype), **options)
        _, grads = mb.loss_and_gradients(
            params, x, np.zeros((5, 4, 1), dtype), kernel="numba", **options
        )
    assert np.isnan(plain.h0[1]).all()
    for one, other in zip(plain, grads, strict=True):
        np.testing.assert_array_equal(np.isnan(one), np.isnan(other))


@pytest.mark.parametrize("step", [0, 2, 4])
def test_what_overflows_in_one_step_alone_is_marked_from_there(step):
    params = mb.init_params(2, 4, 1, rng=0)._replace(U=np.full((4, 2), 10.0))
    x, h = np.zeros((5, 3, 2)), np.zeros((6, 3, 4))
    x[step, 1] = np.finfo(float).max
    with np.errstate(over="ignore"):
        compiled.forward_block(params, x, h)
    marked = np.zeros_like(h, bool)
    marked[step + 1 :, 1] = True
    np.testing.assert_array_equal(np.isnan(h), marked)


@pytest.mark.parametrize("field", ["W", "b", "b alone", "h0"])
def test_sums_that_may_overflow_are_marked_as_the_plain_kernel_marks_them(field):
    """Terms that cancel: a partial sum is infinite, and tanh would make a plausible 1 of it."""
    huge = 0.9 * np.finfo(float).max
    params = mb.init_params(2, 4, 1, rng=0)
    h0 = np.zeros((3, 4))
    if field == "W":
        params = params._replace(W=np.tile([huge, huge, -huge, -huge], (4, 1)))
        h0[1] = 1
    elif field == "b":
        params = params._replace(b=np.full(4, huge), U=np.full((4, 2), huge))
    elif field == "b alone":
        params = params._replace(b=np.full(4, np.inf))
    else:
        h0[1] = huge
        params = params._replace(W=8 * params.W)
    states = {}
    for kernel in (compiled.forward_block, blocks.forward_block):
        h = np.empty((6, 3, 4))
        h[0] = h0
        with np.errstate(all="ignore"):
            kernel(params, np.ones((5, 3, 2)), h)
        states[kernel] = h
    one, other = states.values()
    assert np.isnan(one[1:, 1]).any()
    np.testing.assert_array_equal(np.isnan(one), np.isnan(other))


def test_the_compiled_kernel_is_what_is_used():
    rng = np.random.default_rng(0)
    params, x = mb.init_params(3, 20, 2, rng=0), rng.standard_normal((50, 3))
    one, other = (
        mb.loss_and_gradients(params, x, np.zeros((50, 2)), kernel=kernel)[1].W
        for kernel in ("numpy", "numba")
    )
    assert not np.array_equal(one, other)
    np.testing.assert_allclose(one, other, rtol=1e-9)


def test_both_blas_libraries_are_held_where_each_would_start_threads():
    seen = {}

    def loss(y, target):
        seen[len(y[0])] = [
            pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"
        ]
        return mb.squared_error(y, target)

    params = mb.init_params(2, 64, 1, rng=0)
    for kernel, held in (("numba", [1, 1]), ("numpy", [2, 2])):  # NumPy's may have all threads
        with threadpool_limits(limits=2, user_api="blas"):
            for B in (31, 32, 33):
                x, target = np.ones((2, B, 2)), np.ones((2, B, 1))
                mb.loss_and_gradients(params, x, target, loss=loss, kernel=kernel)
        assert seen == {31: [2, 2], 32: held, 33: held}


@pytest.mark.parametrize("dtype", [np.longdouble, np.complex128])
def test_other_types_are_refused(dtype):
    params = mb.init_params(2, 3, 1, rng=0, dtype=dtype)
    with pytest.raises(TypeError, match=r'^kernel "numba" takes float32 and float64; the rest is'):
        mb.loss_and_gradients(params, np.ones((5, 2)), np.zeros((5, 1)), kernel="numba")


def test_without_numba_the_message_says_what_to_install():
    code = (
        "import sys; sys.modules['numba'] = None; import numpy as np, manual_bptt as mb\n"
        "try: mb.loss_and_gradients(mb.init_params(1, 1, 1), [[1.0]], [[1.0]], kernel='numba')\n"
        "except ModuleNotFoundError as error: print(error)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout == "kernel \"numba\" needs numba: pip install 'manual-bptt[compiled]'\n"


def test_numba_is_not_imported_before_it_is_asked_for():
    code = "import sys, numpy as np, manual_bptt as mb\n"
    code += "mb.loss_and_gradients(mb.init_params(1, 1, 1), [[1.0]], [[1.0]])\n"
    code += "assert 'numba' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
