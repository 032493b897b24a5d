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


def test_a_longdouble_run_agrees_with_float64_to_its_rounding():
    params, x, h0, target = problem((3,))
    _, narrow = mb.loss_and_gradients(params, x, target, h0=h0)
    wide_params = mb.Params(*(p.astype(np.longdouble) for p in params))
    _, wide = mb.loss_and_gradients(wide_params, x, target, h0=h0)
    for a, b in zip(narrow, wide, strict=True):
        assert np.abs(a - b).max() <= 64 * 2**-53 * np.abs(b).max()


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


def test_layout_and_byte_order_of_the_inputs_do_not_matter():
    params, x, h0, target = problem((3,))
    _, expected = mb.loss_and_gradients(params, x, target, h0=h0)
    for other in (
        lambda a: np.asfortranarray(a),
        lambda a: a.astype(a.dtype.newbyteorder()),
        lambda a: np.repeat(a, 2, axis=-1)[..., ::2],
        lambda a: a.tolist(),
        lambda a: a.view(type("Subclass", (np.ndarray,), {})),
    ):
        _, grads = mb.loss_and_gradients(
            mb.Params(*map(other, params)), other(x), other(target), h0=other(h0)
        )
        for a, b in zip(grads, expected, strict=True):
            assert type(a) is np.ndarray
            assert np.abs(a - b).max() <= 64 * 2**-53 * np.abs(b).max()


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


def test_overflow_gives_infinity_or_an_error_never_a_plausible_number():
    params, x, h0, target = problem(dtype=np.float32)
    huge = params._replace(V=params.V * np.float32(1e30))
    with np.errstate(over="ignore"):
        loss, dy = mb.squared_error(mb.forward(huge, x, h0).y, target)
    assert np.isinf(loss)
    with np.errstate(all="ignore"):
        grads = mb.backward(huge, mb.forward(huge, x, h0), dy * np.float32(1e8))
    assert not np.isfinite(grads.b).all()


def test_overflow_inside_a_sum_is_not_hidden_by_tanh():
    """The terms cancel to 0, but their partial sums overflow: tanh of that is a plausible 1."""
    big = 1.5e308
    params = mb.Params(*(np.full(s, v) for s, v in zip(
        [(1, 1), (1, 4), (1,), (1, 1), (1,)], [0.0, 1.0, 0.0, 1.0, 0.0], strict=True)))  # fmt: skip
    with np.errstate(all="ignore"):
        for x in ([[big, big, -big, -big]], np.tile([[[big, big, -big, -big]]], (2, 3, 1))):
            h = mb.forward(params, x).h[1:]
            assert np.isnan(h).all() or (h == 0).all()
        wide = mb.init_params(1, 4, 1, rng=0)
        wide = wide._replace(W=np.array([[big, big, -big, -big]] * 4))
        h = mb.forward(wide, np.zeros((2, 1)), np.full(4, 1.0)).h[1:]
        assert np.isnan(h).all()


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
