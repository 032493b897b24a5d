"""The forward pass against Eqs. 1-2 in plain Python, its blocks, and its marks of overflow."""

import math

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import manual_bptt as mb
from manual_bptt.arithmetic import mark_overflow
from manual_bptt.arrays import rows
from manual_bptt.engine.blocks import blocks

LARGEST = float(np.finfo(np.float64).max)


def dot(row, column):
    return math.fsum(a * b for a, b in zip(row, column, strict=True))


@given(
    st.tuples(*[st.integers(1, 4)] * 4),
    st.sampled_from(["float64", "float32"]),
    st.integers(0, 2**32),
)
def test_states_and_outputs_are_those_of_loops_over_numbers(sizes, dtype, seed):
    T, D, H, O = sizes
    rng = np.random.default_rng(seed)
    shapes = (H, H), (H, D), (H,), (O, H), (O,), (T, D), (H,)
    W, U, b, V, c, x, h0 = (rng.uniform(-1, 1, shape).astype(dtype) for shape in shapes)
    trace = mb.forward(mb.Params(W, U, b, V, c), x, h0)
    u = float(np.finfo(dtype).eps) / 2
    gamma = (D + H + 2) * u / (1 - (D + H + 2) * u)
    assert np.array_equal(trace.h[0], h0)
    for t in range(T):
        before, now = trace.h[t].tolist(), trace.h[t + 1].tolist()
        for i in range(H):  # from the state before as it is, so that errors do not add up
            row = [*W[i].tolist(), *U[i].tolist(), float(b[i])]
            terms = [*before, *x[t].tolist(), 1.0]
            a = dot(row, terms)
            e = gamma * dot(map(abs, row), map(abs, terms))
            assert abs(now[i] - math.tanh(a)) <= e + 4 * u * abs(now[i])
        for k in range(O):
            row, terms = [*V[k].tolist(), float(c[k])], [*now, 1.0]
            error = abs(float(trace.y[t, k]) - dot(row, terms))
            assert error <= gamma * dot(map(abs, row), map(abs, terms))


@pytest.mark.parametrize(
    ("B", "steps"), [(None, 256), (1, 256), (4, 256), (5, 204), (205, 4), (512, 2), (1025, 1)]
)
def test_a_block_is_up_to_256_steps_and_1024_rows(B, steps):
    batch = () if B is None else (B,)
    for T in (1, steps, steps + 1, 3 * steps):
        found = blocks(np.empty((T, *batch, 1)))
        assert [b.stop - b.start for b in found[:-1]] == [steps] * (len(found) - 1)
        assert [t for b in found for t in range(b.start, b.stop)] == [*range(T)]
        assert len(found) == -(-T // steps)


def test_rows_of_a_single_sequence_are_the_array_itself():
    h = np.empty((3, 2))
    assert rows(h) is h
    assert rows(h[:, None]).shape == (3, 2)


# Overflow


def marked(W, h):
    """Return what has to be marked: what is not finite, and sequences in which W h may not be."""
    steepest = np.abs(W).astype(np.longdouble).sum() * np.maximum(1, np.abs(h[0]).max(axis=-1))
    marks = ~np.isfinite(h[1:]) | ~(steepest < LARGEST)[..., None]
    return np.concatenate([np.zeros_like(marks[:1]), marks])  # h[0] is given, and stays


power = st.integers(-1030, 1023)  # of two


@given(st.integers(1, 3), st.integers(1, 3), st.tuples(power, power, power), st.integers(0, 2**32))
@example(2, 2, (1022, -1030, 0), 0)
@example(2, 2, (1022, -1030, 2), 1)
@example(1, 1, (1023, 0, 0), 0)
@example(1, 2, (512, -3, 511), 0)
@example(1, 2, (511, -3, 513), 0)
@example(1, 2, (0, 1023, 0), 0)
@example(1, 2, (0, 600, 0), 0)
@example(1, 2, (600, 0, -9), 0)
@example(2, 2, (600, 0, 500), 0)
def test_what_may_overflow_is_marked_and_nothing_else(B, H, powers, seed):
    rng = np.random.default_rng(seed)
    of_W, of_inputs, of_h0 = (2.0**p for p in powers)
    W = of_W * rng.uniform(-1, 1, (H, H))
    h = of_inputs * rng.uniform(-1, 1, (3, B, H))
    h[0] = of_h0 * rng.uniform(-1, 1, (B, H)) * 2.0 ** rng.integers(-40, 1, (B, 1))
    with np.errstate(over="ignore"):
        h[1:] *= rng.choice([1, 2.0**600], (2, B, H), p=[0.9, 0.1])  # some have overflowed
        expected = np.where(marked(W, h), np.nan, h)
        mark_overflow(W, h[1:], h[0])
    np.testing.assert_array_equal(h, expected)


@pytest.mark.parametrize(
    ("weight", "state", "is_marked"),
    [
        (LARGEST, 0.0, True),
        (LARGEST * (1 - 2.0**-30), 0.0, False),
        (LARGEST * 0.7, 0.9, False),
        (LARGEST * 0.7, -2.0, True),
        (2.0**800, 2.0**300, True),
        (2.0**800, 2.0**200, False),
    ],
)
def test_a_sequence_is_marked_from_where_its_terms_may_add_up_to_infinity(weight, state, is_marked):
    h = np.array([[[state]], [[0.5]], [[-0.5]]])
    with np.errstate(over="ignore"):
        mark_overflow(np.array([[weight]]), h[1:], h[0])
    assert np.isnan(h[1:]).all() == is_marked
    assert h[0] == state


def test_a_sum_that_may_overflow_is_seen_though_every_sum_of_squares_is_finite():
    W = np.full((3, 3), 0.25e154)  # 9 |W| |h0| is infinite, |W|^2 + |h0|^2 is not
    h = np.zeros((3, 2, 3))
    h[0] = [[1e154, 0, 0], [1e153, 0, 0]]
    with np.errstate(over="ignore"):
        mark_overflow(W, h[1:], h[0])
    assert np.isnan(h[1:, 0]).all()
    assert not np.isnan(h[1:, 1]).any()


def test_nothing_is_searched_for_marks_where_nothing_can_overflow(monkeypatch):
    def searched(*_):
        raise AssertionError("searched")

    params = mb.init_params(3, 4, 2, rng=0)
    monkeypatch.setattr(np, "isfinite", searched)
    mb.forward(params, np.ones((5, 3)), check_finite=False)
