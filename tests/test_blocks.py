"""A sequence in blocks of steps: the gradients of every cell are those of one block."""

import numpy as np
import pytest

import manual_bptt as mb
from manual_bptt.axes import axes_of, shape_of
from manual_bptt.engine import blocks

T, D, H, O = 20, 3, 5, 2


def problem(cell, batch):
    """Return parameters none of which is zero, x, target and h0."""
    rng = np.random.default_rng(0)
    kind, sizes = mb.CELLS[cell], {"D": D, "H": H, "O": O}
    shapes = [shape_of(axes, sizes) for axes in axes_of(kind).values()]
    params = kind.Params(*(rng.uniform(-0.7, 0.7, shape) for shape in shapes))
    return params, *(rng.standard_normal(s) for s in ((T, *batch, D), (T, *batch, O), (*batch, H)))


@pytest.mark.parametrize("cell", mb.CELLS)
@pytest.mark.parametrize("batch", [(), (4,)], ids=["one sequence", "a batch"])
@pytest.mark.parametrize("steps", [1, 3, 7])
def test_blocks_add_up_to_the_gradients_of_one(cell, batch, steps, monkeypatch):
    params, x, target, h0 = problem(cell, batch)
    trace = mb.forward(params, x, h0)
    _, dy = mb.squared_error(trace.y, target)
    expected = mb.backward(params, trace, dy, dh_last=h0)
    of_states = mb.hidden_gradients(params, trace, dy, dh_last=h0)
    monkeypatch.setattr(blocks, "BLOCK_STEPS", steps)
    again = mb.forward(params, x, h0)
    for name in trace._fields:
        np.testing.assert_allclose(getattr(again, name), getattr(trace, name), atol=1e-14)
    found = mb.backward(params, trace, dy, dh_last=h0)
    for name in expected._fields:
        np.testing.assert_allclose(getattr(found, name), getattr(expected, name), atol=1e-12)
    found = mb.hidden_gradients(params, trace, dy, dh_last=h0)
    np.testing.assert_allclose(found, of_states, atol=1e-13)
