"""States kept at a few steps and computed again for the others: memory for sequences of any length.

The steps are cut into segments. The forward pass keeps the state before each of them; the backward
pass, from the last segment to the first, computes a segment's states once more and goes through
them. With T steps in segments of sqrt(T), about 2 sqrt(T) states are held at a time instead of T,
and the states are computed twice (Griewank, 1992). With one segment, which is ordinary
backpropagation through time, nothing is computed twice.

A segment is a whole number of blocks (see ``blocks.blocks``), so every number is computed by the
same operations in the same order whatever the segments, bit for bit.
"""

from math import isqrt, prod
from typing import Any, NamedTuple

import numpy as np

from manual_bptt.arrays import AnyParams, Array, in_words
from manual_bptt.engine.blocks import (
    PLAIN,
    Kernel,
    backward_blocks,
    block_length,
    forward_blocks,
)
from manual_bptt.params import no_gradients


class Plan(NamedTuple):
    """How to go through time: the length of a segment ("sqrt" of T, or all if None), the kernel."""

    every: int | str | None = None
    kernel: Kernel = PLAIN

    def segments(self, x: Array) -> list[slice]:
        """Return the steps of x, cut into segments of whole blocks."""
        T, *batch = x.shape[:-1]
        if self.every is None:
            return [slice(0, T)]
        steps = isqrt(T - 1) + 1 if self.every == "sqrt" else int(self.every)
        block = block_length(*batch)
        length = -(-steps // block) * block  # rounded up
        return [slice(start, min(start + length, T)) for start in range(0, T, length)]

    def size(self, params: AnyParams, x: Array) -> int:
        """Return how many numbers the states within a segment are, and the one before it."""
        longest, H = self.segments(x)[0].stop, params.V.shape[1]
        return int((longest + 1) * prod(x.shape[1:-1]) * H)


def require_checkpoints(every: Any) -> None:
    """Refuse what is neither None, nor "sqrt", nor a number of steps."""
    if every is None or (isinstance(every, str) and every == "sqrt"):
        return
    wrong = ValueError if isinstance(every, str) else TypeError
    if isinstance(every, bool) or not isinstance(every, int | np.integer):
        raise wrong(
            f'checkpoint_every is {in_words(every)}; expected None, a number of steps, or "sqrt"'
        )
    if every < 1:
        raise ValueError(f"checkpoint_every is {in_words(every)}; expected at least 1")


def forward_segments(
    params: AnyParams, plan: Plan, x: Array, h0: Array, y: Array, states: Array
) -> Array:
    """Write the outputs to y, and return the state before each segment.

    ``states`` is memory for those within one segment, and holds those within the last afterwards.
    """
    segments, states = plan.segments(x), states.reshape(-1, *h0.shape)
    before = np.empty((len(segments), *h0.shape), h0.dtype)
    state = h0
    for kept, segment in zip(before, segments, strict=True):
        kept[...] = states[0] = state
        forward_blocks(params, x[segment], states, y[segment], plan.kernel)
        state = states[-1]  # every segment but the last fills the memory
    return before


def backward_segments(
    params: AnyParams,
    plan: Plan,
    x: Array,
    before: Array,
    states: Array,
    dy: Array,
    dx: Array,
    carried: Array,
) -> Any:
    """After a forward pass, return the gradients in the parameters, and write those in x to dx.

    ``carried`` is the gradient that h[T] receives from beyond, and becomes that in h[0].
    """
    sums = no_gradients(params)
    segments, states = plan.segments(x), states.reshape(-1, *carried.shape)
    for kept, segment in zip(before[::-1], segments[::-1], strict=True):
        if segment is not segments[-1]:
            states[0] = kept
            forward_blocks(params, x[segment], states, kernel=plan.kernel)
        of_segment = x[segment], states, dy[segment], sums, dx[segment], carried
        backward_blocks(params, *of_segment, plan.kernel)
    return sums
