"""A sequence in blocks of steps, each small enough to stay in the cache while it is worked on.

A block is up to 256 steps, and up to 1,024 rows unless a single step has more. Everything is
computed block by block from the first step on, so that a sequence that is continued at the end of a
block gives the same bits. Within a block only the recursion, which is the cell's, runs step by
step; the rest is one matrix product each (see ``products``).
"""

from collections.abc import Callable
from math import prod
from typing import NamedTuple

import numpy as np

from manual_bptt.arithmetic import reports_overflow
from manual_bptt.arrays import AnyParams, Array, rows
from manual_bptt.cells import cell_of
from manual_bptt.engine.workspace import workspace
from manual_bptt.products import Sides, add_up, from_inputs, from_outputs, to_inputs

BLOCK_STEPS, BLOCK_ROWS = 256, 1024


def blocks(x: Array) -> list[slice]:
    """Return the steps of x in blocks."""
    T, *batch = x.shape[:-1]
    length = block_length(*batch)
    return [slice(start, min(start + length, T)) for start in range(0, T, length)]


def block_length(B: int = 1) -> int:
    """Return the number of steps in a block of B sequences."""
    return max(1, min(BLOCK_STEPS, BLOCK_ROWS // B))


def forward_block(params: AnyParams, x: Array, h: Array) -> None:
    """Write the states that follow h[0] to h[1:] (Eq. 1)."""
    steps_of, states = cell_of(params).forward_steps, h[1:]
    if len(params.b) == h.shape[-1]:
        from_inputs(params, x, states)
        steps_of(params, states, h)
        return
    shape = (*x.shape[:-1], len(params.b))
    with workspace("a", prod(shape), h.dtype) as memory:
        a = memory.reshape(shape)
        from_inputs(params, x, a)
        steps_of(params, a, h)


def backward_block(
    params: AnyParams, x: Array, h: Array, dh: Array, da: Array, carried: Array
) -> Sides:
    """Write da and the rest of dh, which holds V' dy, and let carried reach h[0] (Eqs. 4-5)."""
    sides: Sides = cell_of(params).backward_steps(params, x, h, dh, da, carried)
    return sides


class Kernel(NamedTuple):
    """What goes through a block, forward (Eq. 1) and backward (Eqs. 4-5).

    ``own_blas`` says that its products are those of another BLAS than NumPy's.
    """

    forward_block: Callable[[AnyParams, Array, Array], None] = forward_block
    backward_block: Callable[[AnyParams, Array, Array, Array, Array, Array], Sides] = backward_block
    own_blas: bool = False


PLAIN = Kernel()


@reports_overflow
def forward_blocks(
    params: AnyParams, x: Array, h: Array, y: Array | None = None, kernel: Kernel = PLAIN
) -> None:
    """Eqs. 1-2 on arguments that are known to be good: from h[0], write h[1:], and y if given."""
    Vt = np.ascontiguousarray(params.V.T)
    for block in blocks(x):
        h_now = h[block.start : block.stop + 1]
        kernel.forward_block(params, x[block], h_now)  # Eq. 1
        if y is not None:
            Vh, y_now = rows(h_now[1:]) @ Vt, y[block]
            np.add(Vh.reshape(y_now.shape), params.c, out=y_now)  # Eq. 2


@reports_overflow
def backward_blocks(
    params: AnyParams,
    x: Array,
    h: Array,
    dy: Array,
    sums: AnyParams,
    dx: Array,
    carried: Array,
    kernel: Kernel = PLAIN,
) -> None:
    """Eqs. 4-10 on arguments that are known to be good, from the last block to the first.

    The gradients in the parameters are added to sums, those in x written to dx. ``carried`` is the
    gradient that h[T] receives from beyond, and becomes that in h[0].
    """
    in_time, GH = blocks(x), len(params.b)
    longest = dy[in_time[0]].shape[:-1]
    ones = np.ones(prod(longest), h.dtype)
    with workspace("da", len(ones) * GH, h.dtype) as memory:
        da_of_longest = memory.reshape(*longest, GH)
        for block in reversed(in_time):
            x_now, dy_now, h_now = x[block], dy[block], h[block.start : block.stop + 1]
            da = da_of_longest[: len(dy_now)]
            dh = da if h.shape[-1] == GH else np.empty_like(h_now[1:])
            from_outputs(params, dy_now, dh)  # V' dy[t]
            sides = kernel.backward_block(params, x_now, h_now, dh, da, carried)  # Eqs. 4-5
            add_up(sums, x_now, h_now, dy_now, da, sides, ones)  # Eqs. 6-10
            to_inputs(params, da, dx[block])
