"""Evidence that shares nothing with JAX: complex step and adjoint identity."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from rounding import rounding_bounds

import manual_bptt as mb
from reference.strategies import problems

U64 = 2**-53
CALM = ("contracting", "critical", "linear", "saturated")


def dy_of(problem, seed=0):
    """Return a gradient in y that differs at every step, sequence and output."""
    shape = (*problem.x.shape[:-1], problem.sizes["O"])
    return np.random.default_rng(seed).standard_normal(shape)


def within(a, b, bound):
    """Return whether two computed arrays can differ by rounding alone; both sides round."""
    return (np.abs(a - b) <= 2 * bound + np.finfo(float).tiny).all()


def as_params(values):
    return mb.Params(*(values[k] for k in mb.Params._fields))


def arguments(problem):
    return {**problem.params._asdict(), "x": problem.x, "h0": problem.h0}


def all_gradients(problem, dy, dh_last):
    p = mb.Params(*problem.params)
    trace = mb.forward(p, problem.x, problem.h0)
    return mb.backward(p, trace, dy, dh_last=dh_last)


@given(problems(regimes=CALM, longest=8), st.integers(0, 2**32 - 1))
def test_complex_step_through_the_forward_pass_gives_every_gradient(problem, seed):
    dy = dy_of(problem)
    dh_last = np.random.default_rng(seed).standard_normal(problem.h0.shape)
    grads = all_gradients(problem, dy, dh_last)
    bounds = rounding_bounds(problem.params, problem.x, problem.h0, dy, dh_last)
    for name, value in arguments(problem).items():
        expected = np.empty_like(value)
        for i in np.ndindex(value.shape):
            moved = {k: a.astype(complex) for k, a in arguments(problem).items()}
            moved[name][i] += 1e-20j
            trace = mb.forward(as_params(moved), moved["x"], moved["h0"])
            expected[i] = ((trace.y * dy).sum() + (trace.h[-1] * dh_last).sum()).imag / 1e-20
        assert within(getattr(grads, name), expected, bounds[name]), name


def forward_mode(problem, v):
    """Return the derivative of (y, h[T]) along v, carried forward beside the state.

    Written for one sequence, with the derivative of tanh as 1 / cosh^2, so that it shares nothing
    with the backward pass.
    """
    p, d = problem.params, v
    h, dh = problem.h0, d["h0"]
    dy = []
    for x_t, dx_t in zip(problem.x, d["x"], strict=True):
        da = d["W"] @ h + p.W @ dh + d["U"] @ x_t + p.U @ dx_t + d["b"]
        a = p.W @ h + p.U @ x_t + p.b
        h = np.tanh(a)
        dh = da / np.cosh(a) ** 2
        dy.append(d["V"] @ h + p.V @ dh + d["c"])
    return np.array(dy), dh


@given(
    problems(batched=False, regimes=("contracting", "critical", "linear"), longest=12), st.data()
)
def test_backward_is_the_adjoint_of_an_independent_forward_mode(problem, data):
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    v = {k: rng.standard_normal(a.shape) for k, a in arguments(problem).items()}
    dy, dh_last = dy_of(problem), rng.standard_normal(problem.h0.shape)
    grads = all_gradients(problem, dy, dh_last)
    dy_forward, dh_forward = forward_mode(problem, v)
    left = (dy * dy_forward).sum() + (dh_last * dh_forward).sum()
    products = [getattr(grads, k) * v[k] for k in v]
    right = sum(a.sum() for a in products)
    size = sum(np.abs(a).sum() for a in products)
    size += np.abs(dy * dy_forward).sum() + np.abs(dh_last * dh_forward).sum()
    assert abs(left - right) <= 32 * U64 * size


@given(problems(regimes=CALM))
def test_hidden_gradients_agree_with_backward(problem):
    p, dy = mb.Params(*problem.params), dy_of(problem)
    trace = mb.forward(p, problem.x, problem.h0)
    grads, dh = mb.backward(p, trace, dy), mb.hidden_gradients(p, trace, dy)
    assert np.array_equal(dh[0], grads.h0)
    da = ((1 - trace.h[1:] ** 2) * dh[1:]).reshape(-1, len(p.b))
    assert np.array_equal(np.ones(len(da)) @ da, grads.b)  # Eq. 7, bit for bit
