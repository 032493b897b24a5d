"""Promises about dtypes, memory and inputs."""

import numpy as np
import pytest

import manual_bptt as mb


def problem(batch=(), dtype=np.float64, T=5, D=3, H=4, O=2):
    rng = np.random.default_rng(0)
    params = mb.init_params(D, H, O, rng=rng, dtype=dtype)
    x, h0, target = (rng.standard_normal(s) for s in [(T, *batch, D), (*batch, H), (T, *batch, O)])
    return params, x, h0, target


@pytest.mark.parametrize("batch", [(), (3,)])
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.longdouble, np.complex128])
def test_results_carry_the_dtype_of_the_parameters(batch, dtype):
    params, x, h0, target = problem(batch, dtype)
    loss, grads = mb.loss_and_gradients(params, x, target, h0=h0)
    assert loss.dtype == dtype
    assert all(g.dtype == dtype for g in grads)
    trace = mb.forward(params, x, h0)
    assert all(a.dtype == dtype for a in trace)
    assert mb.hidden_gradients(params, trace, target).dtype == dtype


@pytest.mark.parametrize("batch", [(), (3,)])
def test_inputs_are_never_written_to_and_results_share_no_memory_with_them(batch):
    params, x, h0, target = problem(batch)
    weights = np.ones(len(x))
    dh_last = np.ones_like(h0)
    inputs = [*params, x, h0, target, weights, dh_last]
    before = [a.copy() for a in inputs]
    for a in inputs:
        a.flags.writeable = False
    trace = mb.forward(params, x, h0)
    _, dy = mb.squared_error(trace.y, target, weights)
    _, dy_last = mb.last_step_squared_error(trace.y, target[-1])
    grads = mb.backward(params, trace, dy, dh_last=dh_last)
    dh = mb.hidden_gradients(params, trace, dy, dh_last=dh_last)
    _, more = mb.loss_and_gradients(params, x, target, h0=h0, weights=weights)
    for result in (*trace, dy, dy_last, *grads, dh, *more):
        assert not any(np.shares_memory(result, a) for a in inputs)
    for result in (dy, *grads, dh):
        assert not any(np.shares_memory(result, a) for a in trace)
    assert all(np.array_equal(a, b) for a, b in zip(inputs, before, strict=True))


def test_a_single_sequence_is_a_batch_of_one():
    params, x, h0, target = problem()
    loss, single = mb.loss_and_gradients(params, x, target, h0=h0)
    loss_1, batch = mb.loss_and_gradients(params, x[:, None], target[:, None], h0=h0[None])
    assert abs(loss - loss_1) <= 4 * 2**-53 * loss
    for name, a, b in zip(mb.Gradients._fields, single, batch, strict=True):
        assert a.shape == (b.squeeze(1) if name == "x" else b[0] if name == "h0" else b).shape
        assert np.abs(a.ravel() - b.ravel()).max() <= 64 * 2**-53 * np.abs(b).max()


def test_the_same_seed_gives_the_same_parameters_and_every_dtype_the_same_draw():
    a, b = (mb.init_params(3, 4, 2, rng=7) for _ in range(2))
    assert all(np.array_equal(p, q) for p, q in zip(a, b, strict=True))
    c = mb.init_params(3, 4, 2, rng=np.random.default_rng(7), dtype=np.float32)
    assert all(np.array_equal(p.astype(np.float32), q) for p, q in zip(a, c, strict=True))


def test_check_finite_false_reaches_the_loss():
    params, x, h0, target = problem()
    loss, grads = mb.loss_and_gradients(params, x, target * np.nan, h0=h0, check_finite=False)
    assert np.isnan(loss)
    assert np.isnan(grads.W).all()


def test_sums_over_very_many_sequences_do_not_stall_in_float32():
    n = 2**24 + 2**20  # beyond 2**24, adding 1 to a float32 changes nothing
    zeros = (np.zeros(s, np.float32) for s in [(1, 1), (1, 1), (1,), (1, 1), (1,)])
    trace = mb.Trace(np.zeros((1, n, 1), np.float32), np.zeros((2, n, 1), np.float32), None)
    dy = np.ones((1, n, 1), np.float32)
    grads = mb.backward(mb.Params(*zeros), trace, dy, check_finite=False)
    assert grads.c[0] == n
