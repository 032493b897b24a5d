"""Optimisers, schedules and clipping, each compared with optax step by step.

Both sides see the same gradients, drawn in advance, so that a rounding error is carried along but
never amplified. A step rounds some R times: by at most u of the parameter, where it is taken off,
and by u of its own length in every operation before. After k steps the two may so be apart by
k R u (largest parameter + length of the way), with R counted beside each optimiser. optax computes
with ``enable_x64``, or its own bias correction 1 - beta2^k would be wrong by 6e-5 in float32.
"""

import pickle
from math import inf, nan

import jax
import numpy as np
import optax
import pytest
from hypothesis import given
from hypothesis import strategies as st

from manual_bptt.params import Params, init_params
from manual_bptt.training import SGD, Adam, Constant, WarmupCosine, clip_by_global_norm

STEPS = 30
MATRICES = Params(W=True, U=True, b=False, V=True, c=False)
DTYPES = pytest.mark.parametrize("dtype", [np.float32, np.float64])


def problem(dtype, steps=STEPS):
    """Parameters with biases that are not zero, and a gradient for every step, of many sizes."""
    rng = np.random.default_rng(5)
    params = init_params(2, 2, 2, rng=rng, dtype=dtype)
    params = params._replace(b=params.U[0] + dtype(0.5), c=params.V[0] - dtype(0.5))
    sizes = 10 ** rng.uniform(-2, 1, steps)
    grads = [
        Params(*(dtype(s) * rng.standard_normal(p.shape).astype(dtype) for p in params))
        for s in sizes
    ]
    return params, grads


def way(optimizer, params, grads, rate):
    """Return the parameters after every step, and what is remembered."""
    state, path = optimizer.start(params), []
    for step, g in enumerate(grads, start=1):
        params, state = optimizer.update(params, g, state, rate=rate, step=step)
        path.append((params, state))
    return path


def way_of_optax(transformation, params, grads):
    state, path = transformation.init(params), []
    for g in grads:
        updates, state = transformation.update(g, state, params)
        params = optax.apply_updates(params, updates)
        path.append(params)
    return path


def apart(one, other):
    """Return the largest difference, in float64."""
    return max(
        float(np.abs(np.asarray(a, float) - np.asarray(b, float)).max())
        for a, b in zip(one, other, strict=True)
    )


def length(params):
    return max(float(np.abs(p).max()) for p in params)


def assert_the_same_way(path, of_optax, params, roundings, dtype):
    u, gone, before = np.finfo(dtype).eps / 2, length(params), params
    for k, ((after, _), expected) in enumerate(zip(path, of_optax, strict=True), start=1):
        gone += apart(after, before)
        tolerance = k * roundings * u * gone
        assert apart(after, expected) <= tolerance, f"step {k}"
        assert {p.dtype for p in after} == {np.dtype(dtype)}
        before = after


# Each optimiser, optax's, and R. SGD: v, rate v, p - rate v; the error of v adds up 1 / (1 - 0.9)
# fold. Adam: m has the same ten fold error relative to the largest g so far, which is at most
# sqrt(k) = 6 times sqrt(s); s, whose terms are all positive, has one of 3 u k relative to itself,
# halved by the root: 10 * 6 + 45, and some for the rest.
PAIRS = {
    "sgd": (SGD(), optax.sgd(0.05), 4),
    "momentum": (SGD(0.9), optax.sgd(0.05, momentum=0.9), 40),
    "nesterov": (SGD(0.9, nesterov=True), optax.sgd(0.05, momentum=0.9, nesterov=True), 40),
    "adam": (Adam(), optax.adam(0.05), 120),
    "adam, other betas": (
        Adam(beta1=0.5, beta2=0.9, epsilon=1e-3),
        optax.adam(0.05, b1=0.5, b2=0.9, eps=1e-3),
        120,
    ),
    "adamw": (
        Adam(weight_decay=0.3),
        optax.adamw(0.05, weight_decay=0.3, mask=MATRICES),
        120,
    ),
}


@DTYPES
@pytest.mark.parametrize("name", PAIRS)
def test_every_step_is_that_of_optax(name, dtype):
    optimizer, transformation, roundings = PAIRS[name]
    params, grads = problem(dtype)
    with jax.enable_x64(True):
        of_optax = way_of_optax(transformation, params, grads)
    path = way(optimizer, params, grads, rate=0.05)
    assert_the_same_way(path, of_optax, params, roundings, dtype)
    assert {m.dtype for moment in path[-1][1] for m in moment} <= {np.dtype(dtype)}


@DTYPES
def test_clipping_a_schedule_and_adamw_together_are_those_of_optax(dtype):
    params, grads = problem(dtype)
    schedule = WarmupCosine(peak=0.05, warmup=5, steps=STEPS)
    with jax.enable_x64(True):
        of_optax = way_of_optax(
            optax.chain(
                optax.clip_by_global_norm(1.0),
                optax.adamw(
                    lambda count: schedule(int(count) + 1), weight_decay=0.3, mask=MATRICES
                ),
            ),
            params,
            grads,
        )
    optimizer, path = Adam(weight_decay=0.3), []
    now, state = params, optimizer.start(params)
    for step, g in enumerate(grads, start=1):
        clipped, _ = clip_by_global_norm(g, 1.0)
        now, state = optimizer.update(now, clipped, state, rate=schedule(step), step=step)
        path.append((now, state))
    assert_the_same_way(path, of_optax, params, 120 + 16, dtype)  # 16 entries in the norm


def test_weight_decay_leaves_the_biases_alone_and_pulls_the_matrices_by_rate_times_decay():
    params, _ = problem(np.float64)
    zero = [np.zeros_like(p) for p in params]
    decaying = Adam(weight_decay=0.5)
    after, _ = decaying.update(params, zero, decaying.start(params), rate=0.1, step=1)
    for name, before, now in zip(Params._fields, params, after, strict=True):
        if name in ("b", "c"):
            np.testing.assert_array_equal(now, before)
        else:
            np.testing.assert_allclose(now, 0.95 * before, rtol=4 * np.finfo(float).eps)


@DTYPES
@pytest.mark.parametrize("name", PAIRS)
def test_numpy_scalars_as_settings_change_no_bit_and_no_dtype(name, dtype):
    optimizer = PAIRS[name][0]
    params, grads = problem(dtype, steps=3)
    fields = {k: v if isinstance(v, bool) else np.float64(v) for k, v in vars(optimizer).items()}
    plain = way(optimizer, params, grads, rate=0.05)
    for (one, memory), (two, other_memory) in zip(
        plain, way(type(optimizer)(**fields), params, grads, rate=0.05), strict=True
    ):
        for a, b in zip((one, *memory), (two, *other_memory), strict=True):
            assert [x.tobytes() for x in a] == [x.tobytes() for x in b]


@pytest.mark.parametrize("name", PAIRS)
def test_nothing_that_an_update_is_given_is_written_to(name):
    optimizer = PAIRS[name][0]
    params, grads = problem(np.float64, steps=3)
    [*_, (params, state)] = way(optimizer, params, grads, rate=0.05)
    given = [*params, *grads[0], *(m for moment in state for m in moment)]
    kept = [array.copy() for array in given]
    for array in given:
        array.flags.writeable = False
    optimizer.update(params, grads[0], state, rate=0.05, step=4)
    for array, before in zip(given, kept, strict=True):
        np.testing.assert_array_equal(array, before)


def test_sgd_remembers_nothing_without_momentum_and_adam_two_moments():
    params, _ = problem(np.float32)
    assert SGD().start(params) == ()
    for optimizer, moments in ((SGD(0.5), 1), (Adam(), 2)):
        state = optimizer.start(params)
        assert len(state) == moments
        for moment in state:
            for m, p in zip(moment, params, strict=True):
                assert (m.shape, m.dtype, m.any()) == (p.shape, p.dtype, False)


# Schedules


@pytest.mark.parametrize(
    ("peak", "warmup", "steps"), [(0.1, 10, 100), (3.0, 1, 7), (1e-3, 29, 30), (0.5, 0, 20)]
)
def test_the_warm_up_and_the_cosine_are_those_of_optax(peak, warmup, steps):
    numbers = np.arange(1, steps + 6)
    with jax.enable_x64(True):
        schedule = optax.warmup_cosine_decay_schedule(0.0, peak, warmup, steps, 0.0)
        expected = np.asarray(schedule(numbers))
    rates = [WarmupCosine(peak, warmup, steps)(int(k)) for k in numbers]
    # 1 + cos is known to 3 u at best, since cos(pi z) has an error of u pi beside that of z
    np.testing.assert_allclose(rates, expected, rtol=0, atol=8 * peak * 2.0**-53)


def test_the_warm_up_starts_above_zero_meets_the_cosine_at_its_peak_and_ends_at_zero():
    rate = WarmupCosine(peak=0.2, warmup=4, steps=12)
    rates = [rate(k) for k in range(1, 13)]
    assert rates[0] == 0.05
    assert rates[3] == 0.2
    assert rates[:4] == sorted(rates[:4])
    assert rates[3:] == sorted(rates[3:], reverse=True)
    assert rates[-1] == rate(13) == rate(1000) == 0.0


def test_a_constant_rate_is_that_of_optax():
    assert {Constant(0.3)(k) for k in range(1, 9)} == {float(optax.constant_schedule(0.3)(0))}


# Clipping


@DTYPES
@pytest.mark.parametrize("max_norm", [1e-3, 1.0, 1e3])
def test_clipping_is_that_of_optax(max_norm, dtype):
    transformation = optax.clip_by_global_norm(max_norm)
    u = float(np.finfo(dtype).eps) / 2
    entries = 16
    _, grads = problem(dtype)
    for g in grads:
        with jax.enable_x64(True):
            expected, _ = transformation.update(g, transformation.init(g))
            norm_of_optax = float(optax.tree.norm(g))
        clipped, norm = clip_by_global_norm(g, max_norm)
        # a sum of n squares has an error of n u, relative; the root halves it on either side
        assert norm == pytest.approx(norm_of_optax, rel=(entries + 3) * u, abs=0)
        for one, other in zip(clipped, expected, strict=True):
            assert one.dtype == dtype
            np.testing.assert_allclose(one, np.asarray(other), rtol=(entries + 8) * u)


@DTYPES
@given(st.floats(1e-3, 1e3), st.integers(0, 99))
def test_a_clipped_gradient_keeps_its_direction_and_a_short_one_every_bit(dtype, max_norm, seed):
    rng = np.random.default_rng(seed)
    grads = [rng.standard_normal(shape).astype(dtype) for shape in ((3, 2), (4,))]
    kept = [g.copy() for g in grads]
    clipped, norm = clip_by_global_norm(grads, np.float64(max_norm))
    assert norm == pytest.approx(
        np.sqrt(sum((g.astype(float) ** 2).sum() for g in grads)), rel=1e-6
    )
    _, after = clip_by_global_norm(clipped)
    for one, g, before in zip(clipped, grads, kept, strict=True):
        np.testing.assert_array_equal(g, before)
        assert one.dtype == dtype
        if norm <= max_norm:
            assert one.tobytes() == g.tobytes()
        else:
            np.testing.assert_allclose(one * norm, g * max_norm, rtol=1e-5)
    assert after == pytest.approx(min(norm, max_norm), rel=1e-5)


def test_a_float32_gradient_whose_squares_overflow_or_vanish_has_its_norm_and_is_clipped():
    for size in (1e25, 1e-25):
        grads = [np.array([3, 4], np.float32) * np.float32(size)]
        clipped, norm = clip_by_global_norm(grads, size)
        assert norm == pytest.approx(5 * size, rel=1e-6)
        np.testing.assert_allclose(clipped[0], grads[0] / np.float32(5), rtol=1e-6)
        assert clipped[0].dtype == np.float32


def test_a_gradient_of_zero_stays_zero():
    clipped, norm = clip_by_global_norm([np.zeros(3)], 1.0)
    assert norm == 0
    assert not clipped[0].any()


# What is refused


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: SGD(-0.1), r"momentum is -0.1; expected a number in \[0, 1\)"),
        (lambda: SGD(1.0), "momentum is 1.0"),
        (lambda: SGD(nan), "momentum is nan"),
        (lambda: Adam(beta1=1.0), "beta1 is 1.0"),
        (lambda: Adam(beta1=-0.1), "beta1 is -0.1"),
        (lambda: Adam(beta2=1.0), "beta2 is 1.0"),
        (lambda: Adam(beta2=nan), "beta2 is nan"),
        (lambda: Adam(epsilon=0.0), "epsilon is 0.0"),
        (lambda: Adam(epsilon=inf), "epsilon is inf"),
        (lambda: Adam(weight_decay=-1e-9), "weight_decay is -1e-09"),
        (lambda: Adam(weight_decay=inf), "weight_decay is inf"),
        (lambda: Constant(0.0), "rate is 0.0"),
        (lambda: Constant(inf), "rate is inf"),
        (lambda: Constant(nan), "rate is nan"),
        (lambda: Constant(-0.1), "rate is -0.1"),
        (lambda: WarmupCosine(0.0, 1, 9), "peak is 0.0"),
        (lambda: WarmupCosine(nan, 1, 9), "peak is nan"),
        (lambda: WarmupCosine(0.1, -1, 9), "warmup is -1"),
        (lambda: WarmupCosine(0.1, 9, 9), r"warmup is 9; expected a number in \[0, 9\)"),
        (lambda: WarmupCosine(0.1, 0, 0), "warmup is 0"),
    ],
)
def test_settings_out_of_range_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_gradients_of_another_number_are_refused():
    params, [grads] = problem(np.float64, steps=1)
    for optimizer in (SGD(), SGD(0.5), Adam()):
        with pytest.raises((ValueError, TypeError)):
            optimizer.update(params, grads[:4], optimizer.start(params), rate=0.1, step=1)


def test_settings_are_equal_by_value_and_survive_a_pickle():
    for one in (SGD(0.5, nesterov=True), Adam(weight_decay=0.1), WarmupCosine(0.1, 2, 9)):
        assert pickle.loads(pickle.dumps(one)) == one
