"""What a time step costs, in counts that no machine changes: NumPy calls, arrays, passes."""

from itertools import pairwise

import numpy as np
import pytest

import manual_bptt as mb
from manual_bptt import products
from manual_bptt.engine import blocks

H, D, O = 5, 3, 2


class Counted(np.ndarray):
    """An array that counts what is done to it and to all views of it."""

    calls, arrays = [], []

    def __array_ufunc__(self, ufunc, method, *inputs, out=None, **options):
        Counted.calls.append(ufunc.__name__)
        plain = [x.view(np.ndarray) if isinstance(x, Counted) else x for x in inputs]
        if out is None:
            return getattr(ufunc, method)(*plain, **options).view(Counted)
        (target,) = out
        getattr(ufunc, method)(*plain, out=target.view(np.ndarray), **options)
        return target

    def __array_finalize__(self, of):
        if of is not None and self.base is None:
            Counted.arrays.append(self.shape)

    def dot(self, other, out=None):
        Counted.calls.append("dot")
        out = None if out is None else out.view(np.ndarray)
        return self.view(np.ndarray).dot(other.view(np.ndarray), out)


def counted(array):
    return array.view(Counted)


def cost(function, T, batch):
    """Return the names of the calls, and how many arrays were made, in a block of T steps."""
    rng = np.random.default_rng(0)
    params = mb.init_params(D, H, O, rng=rng)
    h = counted(rng.standard_normal((T + 1, *batch, H)))
    x, dy = (rng.standard_normal((T, *batch, n)) for n in (D, O))
    carried, da = np.zeros((*batch, H)), counted(np.empty((T, *batch, H)))
    Counted.calls.clear()
    Counted.arrays.clear()
    if function == "forward":
        blocks.forward_block(params, x, h)
    else:
        products.from_outputs(params, dy, da)
        blocks.backward_block(params, x, h, da, da, carried)
    return list(Counted.calls), len(Counted.arrays)


@pytest.mark.parametrize("batch", [(), (4,)])
@pytest.mark.parametrize(
    ("function", "a_step"),
    [("forward", ["dot", "add", "tanh"]), ("backward", ["add", "multiply", "dot"])],
)
def test_a_step_is_three_numpy_calls_and_no_new_array(function, a_step, batch):
    counts = [cost(function, T, batch) for T in (8, 9, 10, 40)]
    for (calls, arrays), (more, same) in pairwise(counts[:3]):
        assert sorted(more) == sorted(calls + a_step)
        assert same == arrays
    calls, arrays = counts[0]
    more, same = counts[3]
    assert (len(more) - len(calls), same) == (32 * len(a_step), arrays)


def test_a_block_is_few_calls_beside_its_steps():
    """What is done once for a block costs as much as a step or two of a single sequence."""
    for function in ("forward", "backward"):
        calls, _ = cost(function, blocks.BLOCK_STEPS, ())
        once = len(calls) - 3 * blocks.BLOCK_STEPS
        assert once <= 6, calls


@pytest.mark.parametrize(("T", "B"), [(256, 1), (257, 1), (2560, 1), (1024, 64), (100, 2000)])
def test_blocks_are_as_few_as_their_limits_allow(T, B):
    batch = () if B == 1 else (B,)
    found = blocks.blocks(np.empty((T, *batch, 1)))
    longest = min(blocks.BLOCK_STEPS, max(1, blocks.BLOCK_ROWS // B))
    assert len(found) == -(-T // longest)
    assert [t for block in found for t in range(block.start, block.stop)] == list(range(T))


@pytest.mark.parametrize("options", [{}, {"workers": 3}, {"checkpoint_every": 64}], ids=str)
def test_the_loss_is_computed_once_and_of_all_outputs(options):
    seen = []

    def loss(y, target):
        seen.append(y.shape)
        return mb.squared_error(y, target)

    params = mb.init_params(D, H, O, rng=0)
    x, target = np.ones((700, 4, D)), np.zeros((700, 4, O))
    mb.loss_and_gradients(params, x, target, loss=loss, **options)
    assert seen == [target.shape]


@pytest.mark.parametrize(("outputs", "slow"), [(1, "matmul"), (2, "dot")])
def test_the_faster_of_two_products_is_taken_for_one_output_and_for_several(
    outputs, slow, monkeypatch
):
    def taken(*_, **__):
        raise AssertionError(f"{slow} was taken")

    params = mb.init_params(D, H, outputs, rng=0)
    dy, dh = np.ones((4, outputs)), np.empty((4, H))
    monkeypatch.setattr(np, slow, taken)
    products.from_outputs(params, dy, dh)
    monkeypatch.undo()
    np.testing.assert_allclose(dh, dy @ params.V, rtol=1e-14)
