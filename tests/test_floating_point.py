"""What NumPy is let report: overflow, and nothing that says nothing about the result.

Infinities that cancel raise the processor's invalid flag in every product, on any processor, as
some versions of OpenBLAS do on finite numbers.
"""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import manual_bptt as mb
import reference
from manual_bptt.engine.workers import SHARD
from manual_bptt.equations import literal
from manual_bptt.training import SGD, Adam, clip_by_global_norm, mean_squared_error, moments
from reference.mistakes import correct, outputs_of
from reference.strategies import problems

INVALID_ARGUMENTS = ("W", "U", "V", "x", "h0", "dy", "dh_last")
WAYS = {
    "this thread": {},
    "segments": {"checkpoint_every": 1},
    "threads": {"workers": 2},
    "compiled": {"kernel": "numba"},
    "compiled, threads": {"kernel": "numba", "workers": 2},
}


def problem(B=4, T=300, n=6, dtype=np.float32):
    """Return all arguments of a network of n inputs, units and outputs, each of them ones."""
    sizes = {"W": (n, n), "U": (n, n), "b": n, "V": (n, n), "c": n, "x": (T, B, n), "h0": (B, n)}
    sizes |= {"target": (T, B, n), "dy": (T, B, n), "dh_last": (B, n)}
    return {k: np.ones(shape, dtype) for k, shape in sizes.items()}


def with_infinities(name, **sizes):
    """Return a problem in which infinities of both signs meet in every product with one array."""
    a = problem(**sizes)
    a[name][..., ::2], a[name][..., 1::2] = np.inf, -np.inf
    if a[name].ndim == 3:  # and in sums over time
        a[name][::2] *= -1
    return a


def params_of(a):
    return mb.Params(*(a[k] for k in mb.Params._fields))


@pytest.mark.parametrize("name", INVALID_ARGUMENTS)
def test_infinities_that_cancel_are_nan_in_the_result_and_no_error(name):
    a = with_infinities(name)
    params, unchecked = params_of(a), {"check_finite": False}
    with np.errstate(invalid="raise"):
        trace = mb.forward(params, a["x"], a["h0"], **unchecked)
        of_states = mb.hidden_gradients(params, trace, a["dy"], dh_last=a["dh_last"], **unchecked)
        grads = mb.backward(params, trace, a["dy"], dh_last=a["dh_last"], **unchecked)
    assert np.isnan(grads.U).all()
    assert np.isnan(of_states).any()
    assert np.isnan(trace.y).any() == (name not in ("dy", "dh_last"))


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", ["W", "U", "V", "x", "h0", "target"])
def test_no_way_of_computing_reports_them(name, way):
    a = with_infinities(name)
    with np.errstate(invalid="raise"):
        value, grads = mb.loss_and_gradients(
            params_of(a), a["x"], a["target"], h0=a["h0"], check_finite=False, **WAYS[way]
        )
    assert not np.isfinite(value)
    assert np.isnan(grads.W).all()


def test_workers_of_an_executor_do_not_report_them_either():
    a = with_infinities("x", B=2 * SHARD, T=3)
    strict = {"initializer": np.seterr, "initargs": ("raise",)}  # for all kinds of errors
    with ThreadPoolExecutor(2, **strict) as executor, np.errstate(invalid="raise"):
        _, grads = mb.loss_and_gradients(
            params_of(a), a["x"], a["target"], workers=executor, check_finite=False
        )
    assert np.isnan(grads.W).all()


@pytest.mark.parametrize("workers", [None, 2])
def test_gradients_of_infinite_size_are_added_without_a_report(workers):
    a = problem(B=2, T=1)
    params = params_of(a)

    def loss(y, target):
        return 0.0, np.array([[np.inf], [-np.inf]], y.dtype) * np.ones_like(y)

    with np.errstate(invalid="raise"):
        _, grads = mb.loss_and_gradients(
            params, a["x"], a["target"], loss=loss, workers=workers, check_finite=False
        )
    assert np.isnan(grads.c).all()


@pytest.mark.parametrize("weights", [None, [1.0, 0.0]])
def test_losses_do_not_report_them(weights):
    y = np.full((2, 3), np.inf)
    with np.errstate(invalid="raise"):
        value, dy = mb.squared_error(y, y, weights, check_finite=False)
        last, dy_last = mb.last_step_squared_error(y, y[-1], check_finite=False)
    assert np.isnan([value, last]).all()
    assert np.isnan(dy[0]).all()
    assert np.isnan(dy_last[-1]).all()


@pytest.mark.parametrize("kernel", ["numpy", "numba"])
def test_a_loss_of_the_caller_computes_under_the_settings_of_the_caller(kernel):
    a = problem(T=2)

    def loss(y, target):
        return (np.inf - target * np.inf).sum(), y

    for workers in (None, 2, ThreadPoolExecutor(1)):
        options = {"loss": loss, "workers": workers, "kernel": kernel, "check_finite": False}
        with np.errstate(invalid="raise"), pytest.raises(FloatingPointError, match="invalid"):
            mb.loss_and_gradients(params_of(a), a["x"], a["target"], **options)
    options["workers"].shutdown()


def test_the_registry_of_mistakes_does_not_report_them():
    a = with_infinities("x", T=3)
    problem = reference.Problem(params_of(a), a["x"], a["h0"], a["target"], "squared_error", "")
    with np.errstate(invalid="raise"):
        assert np.isnan(outputs_of(problem)).all()
        assert np.isnan(correct()(params_of(a), a["x"], a["h0"], a["target"])["W"]).all()


def test_overflow_stays_reported():
    a = problem(T=2, dtype=np.float64)
    params = params_of(a)
    large, dy = params._replace(V=params.V * 1e308), a["dy"] * 1e308
    with np.errstate(over="raise"):
        for overflowing in (
            lambda: mb.forward(large, a["x"], check_finite=False),
            lambda: mb.backward(params, mb.forward(params, a["x"]), dy),
            lambda: mb.hidden_gradients(params, mb.forward(params, a["x"]), dy),
            lambda: mb.squared_error(dy, -dy),
            lambda: mb.last_step_squared_error(dy, -dy[-1]),
        ):
            with pytest.raises(FloatingPointError, match="overflow"):
                overflowing()


# Every function, however small the numbers -------------------------------------------------------

SCALED = ("W", "U", "b", "V", "c", "x", "h0", "target")
problem_of = reference.random_problem
drawn = problems() | problems(dtype="float32") | problems(batched=True)


def scaled(problem, names, factor):
    """Return all arguments, the named ones multiplied until hardly anything is left of them."""
    a = {**problem.params._asdict(), "x": problem.x, "h0": problem.h0, "target": problem.target}
    smallest = np.finfo(problem.dtype).smallest_subnormal
    factor = {"normal": 1.0, "tiny": float(np.finfo(problem.dtype).tiny), "zero": 0.0}.get(factor)
    factor = float(smallest) if factor is None else factor
    with np.errstate(under="ignore"):
        return {k: v * v.dtype.type(factor) if k in names else v for k, v in a.items()}


@given(
    drawn,
    st.sets(st.sampled_from(SCALED)),
    st.sampled_from(["normal", "tiny", "subnormal", "zero"]),
)
@example(problem_of(T=1, B=None, D=1, H=1, O=1, regime="critical", seed=0), {"W", "x"}, "tiny")
@example(problem_of(T=6, B=None, D=5, H=1, O=1, regime="critical", seed=0), {"x"}, "subnormal")
@example(problem_of(T=6, B=2, D=1, H=5, O=1, regime="saturated", seed=0), {"target"}, "tiny")
@example(problem_of(T=300, B=2, D=5, H=5, O=1, regime="contracting", seed=0), {"V"}, "tiny")
def test_no_finite_problem_makes_any_function_report_anything(problem, names, factor):
    """Not even where every kind of report is an error, as every warning is in these tests."""
    a = scaled(problem, names, factor)
    params, x, h0, target = params_of(a), a["x"], a["h0"], a["target"]
    weights = np.linspace(-1, 1, len(x))
    with np.errstate(all="raise"):
        trace = mb.forward(params, x, h0)
        _, dy = mb.squared_error(trace.y, target, weights)
        mb.last_step_squared_error(trace.y, target[-1])
        mb.backward(params, trace, dy, dh_last=h0)
        mb.hidden_gradients(params, trace, dy, dh_last=h0)
        for way in WAYS.values():
            _, grads = mb.loss_and_gradients(params, x, target, h0=h0, **way)
        moments(x.reshape(-1, x.shape[-1]))
        clipped, _ = clip_by_global_norm(grads[:5], max_norm=1.0)
        for rule in (SGD(momentum=0.5), Adam(weight_decay=0.1)):
            rule.update(params, clipped, rule.start(params), rate=0.01, step=1)
        if x.ndim == 3:
            mean_squared_error(trace.y, target)
        elif len(x) < 20:
            literal(params, x, h0, target)


@pytest.mark.parametrize("kernel", ["numpy", "numba"])
def test_what_underflows_is_zero_and_no_error(kernel):
    """In a contracting network dh[0] is 0.001^2000 times what it would be in an orthogonal one."""
    params = mb.init_params(2, 3, 1, rng=0)
    params = params._replace(W=params.W / 1000)
    x, target = np.ones((2000, 2)), np.zeros(1)
    with np.errstate(all="raise"):
        _, grads = mb.loss_and_gradients(
            params, x, target, loss=mb.last_step_squared_error, kernel=kernel
        )
    assert not grads.h0.any()
    assert grads.W.any()
