"""Sequences in blocks and in segments: the same gradients, the same bits, and less memory."""

import tracemalloc
from math import isqrt

import numpy as np
import pytest
from hypothesis import strategies as st
from together import assert_no_example_fails, failures_of

import manual_bptt as mb
import reference
from manual_bptt import gradients
from manual_bptt.candidate import candidate
from manual_bptt.engine import blocks
from manual_bptt.engine.blocks import block_length
from manual_bptt.engine.segments import Plan, require_checkpoints
from reference.network.gradients import GRADIENTS
from reference.strategies import problems

LOSSES = {f.__name__: f for f in (mb.squared_error, mb.last_step_squared_error)}
SMALL_BLOCKS = (1, 2, 3, 7)


@pytest.fixture
def block_steps(request, monkeypatch):
    """Let a block be so few steps that small problems have many."""
    monkeypatch.setattr(blocks, "BLOCK_STEPS", request.param)
    return request.param


def drawn(T, B=None, D=3, H=5, O=2, dtype=np.float64):
    rng = np.random.default_rng(0)
    batch = () if B is None else (B,)
    params = mb.init_params(D, H, O, rng=rng, dtype=dtype)
    x, target = (rng.standard_normal((T, *batch, n)).astype(dtype) for n in (D, O))
    return params, x, target


def assert_same_bits(one, other):
    assert one[0] == other[0]
    for a, b in zip(one[1], other[1], strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("block_steps", SMALL_BLOCKS, indirect=True)
@pytest.mark.parametrize("batched", [True, False])
def test_every_gradient_in_many_blocks_equals_autodiff(block_steps, batched):
    for loss in LOSSES:
        found = reference.draw_problems(40, 1, dtype="float64", batched=batched, loss=loss)
        report = reference.Report.of(reference.judge(candidate(LOSSES[loss]), found))
        assert report.passed, report


@pytest.mark.parametrize("batched", [True, False])
def test_every_gradient_in_blocks_as_they_are_equals_autodiff(batched):
    T = 2 * blocks.BLOCK_STEPS + 88
    found = reference.draw_problems(4, 0, dtype="float64", batched=batched, sizes={"T": T})
    report = reference.Report.of(reference.judge(candidate(), found))
    assert report.passed, report
    assert report.rows[0].local_cases == 4


@pytest.mark.parametrize("block_steps", SMALL_BLOCKS, indirect=True)
@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("loss", LOSSES)
def test_every_gradient_from_checkpoints_equals_autodiff(block_steps, loss, dtype):
    def failures(examples):
        found = []
        for chosen in {every for _, every in examples}:
            judged = candidate(LOSSES[loss], checkpoint_every=chosen)
            drawn = [problem for problem, every in examples if every == chosen]
            found += failures_of(judged, drawn, {*GRADIENTS} - {"h"})
        return found

    every = st.sampled_from([1, 4, 10, "sqrt"])
    drawn = st.tuples(problems(dtype=dtype, loss=loss), every)
    assert_no_example_fails(drawn, failures, max_examples=25)


@pytest.mark.parametrize("block_steps", SMALL_BLOCKS, indirect=True)
@pytest.mark.parametrize("workers", [None, 2])
@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.longdouble, np.complex128])
def test_checkpoints_change_no_bit(block_steps, workers, dtype):
    for T, B in ((1, 3), (9, None), (10, 4), (31, 2), (40, None)):
        params, x, target = drawn(T, B, dtype=dtype)
        stored = mb.loss_and_gradients(params, x, target, workers=workers)
        for every in (1, 2, 5, 30, 10**30, np.int64(4), "sqrt"):
            options = {"workers": workers, "checkpoint_every": every}
            assert_same_bits(mb.loss_and_gradients(params, x, target, **options), stored)


@pytest.mark.parametrize(("T", "B"), [(3000, None), (300, 33), (7, 2000)])
def test_checkpoints_change_no_bit_at_sizes_of_use(T, B):
    params, x, target = drawn(T, B, H=16)
    stored = mb.loss_and_gradients(params, x, target)
    for every in (1, 500, "sqrt"):
        again = mb.loss_and_gradients(params, x, target, checkpoint_every=every)
        assert_same_bits(again, stored)
    grads = mb.backward(params, *trace_and_slope(params, x, target))
    assert_same_bits((stored[0], grads), stored)


def trace_and_slope(params, x, target):
    trace = mb.forward(params, x)
    return trace, mb.squared_error(trace.y, target)[1]


@pytest.mark.parametrize(("every", "most"), [(None, 5000), ("sqrt", 9864), (1, 9864)])
def test_a_state_is_computed_at_most_twice_and_once_without_checkpoints(every, most, monkeypatch):
    params, x, target = drawn(5000)
    steps = []

    def counted(params, x, h):
        steps.append(len(x))
        blocks.forward_block(params, x, h)

    kernel = blocks.Kernel(forward_block=counted)
    monkeypatch.setattr(gradients, "_kernel", lambda *_: kernel)
    mb.loss_and_gradients(params, x, target, checkpoint_every=every)
    assert sum(steps) == most  # all, and all but the last segment once more


@pytest.mark.parametrize("T", [20_000, 100_000])
def test_checkpoints_hold_about_two_roots_of_the_states(T):
    H = 64
    params, x, target = drawn(T, D=1, H=H, O=1)
    mb.loss_and_gradients(params, x[:10], target[:10], checkpoint_every="sqrt")
    tracemalloc.start()
    mb.loss_and_gradients(params, x, target, checkpoint_every="sqrt")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    in_the_results = 8 * x.itemsize * T  # y, dy, dx and what the loss needs, one number a step each
    block = 4 * blocks.BLOCK_STEPS * H * x.itemsize
    states = 2 * (isqrt(T) + 1) + blocks.BLOCK_STEPS
    assert peak < in_the_results + block + states * H * x.itemsize + 2**17


def test_the_last_segment_may_be_of_any_length():
    assert blocks.block_length(1) == blocks.BLOCK_STEPS
    assert blocks.block_length(blocks.BLOCK_ROWS * 5) == 1
    for T in (1, 255, 256, 257, 512, 1000):
        x = np.ones((T, 3))
        for every in (None, 1, 256, 300, "sqrt"):
            segments = Plan(every).segments(x)
            covered = [t for s in segments for t in range(s.start, s.stop)]
            assert covered == list(range(T))
            assert all(s.start % blocks.BLOCK_STEPS == 0 for s in segments)


def test_a_loss_that_differentiates_a_network_itself_disturbs_nothing():
    params, x, target = drawn(400, 64)
    expected = mb.loss_and_gradients(params, x, target)

    def loss(y, target):
        mb.loss_and_gradients(params, 2 * x, target, checkpoint_every=64)
        mb.loss_and_gradients(params, x[:, :60], target[:, :60])
        return mb.squared_error(y, target)

    for every in (None, "sqrt"):
        options = {"loss": loss, "checkpoint_every": every}
        assert_same_bits(mb.loss_and_gradients(params, x, target, **options), expected)


@pytest.mark.parametrize("B", [None, 1024])  # blocks of 256 steps, and of one
def test_segments_of_the_square_root_are_whole_blocks_of_at_least_that_many_steps(B):
    batch = () if B is None else (B,)
    block = block_length(*batch)
    for T in (1, 2, 3, 4, 5, 9, 10, 16, 17, 256, 257):
        found = Plan("sqrt").segments(np.empty((T, *batch, 1)))
        root = next(n for n in range(1, T + 1) if n * n >= T)
        length = -(-root // block) * block
        assert [s.start for s in found] == [*range(0, T, length)]
        assert found[-1].stop == T


@pytest.mark.parametrize(("T", "B"), [(5, None), (600, None), (5, 3), (3000, 2)])
@pytest.mark.parametrize("every", [None, 1, "sqrt"])
def test_the_memory_is_for_the_states_of_one_segment_and_the_one_before(T, B, every):
    batch = () if B is None else (B,)
    params, x = mb.init_params(3, 4, 2, rng=0), np.empty((T, *batch, 3))
    longest = max(s.stop - s.start for s in Plan(every).segments(x))
    assert Plan(every).size(params, x) == (longest + 1) * (B or 1) * 4


@pytest.mark.parametrize(
    ("every", "error"),
    [("root", ValueError), ("", ValueError), (1.5, TypeError), (True, TypeError), (0, ValueError)],
)
def test_what_is_no_number_of_steps_is_refused_by_its_kind(every, error):
    with pytest.raises(error, match="checkpoint_every is"):
        require_checkpoints(every)
