"""Which sequences a step of training sees."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from typing import Any, Protocol

import numpy as np

from manual_bptt.arrays import Array
from manual_bptt.validation import as_array, require_finite


class Sequences(Protocol):
    """What can be trained on: a number of sequences, and any selection of them as a batch."""

    def __len__(self) -> int:
        """Return N, how many there are."""

    def batch(self, chosen: Array) -> tuple[Array, Any]:
        """Return x (T, B, D) and the target of the B sequences with these indices."""


@dataclass(frozen=True)
class ArraySequences:
    """N sequences in memory: x (T, N, D), target (N, O) or (T, N, O).

    Raises
    ------
    ValueError
        If shapes disagree, or a value is not finite.
    """

    x: Array
    target: Array

    def __post_init__(self) -> None:
        x, target = as_array("x", self.x), as_array("target", self.target)
        if x.ndim != 3:
            raise ValueError(f"x has shape {x.shape}; expected (T, N, D)")
        T, N, _ = x.shape
        if target.ndim not in (2, 3) or target.shape[:-1] not in ((N,), (T, N)):
            raise ValueError(
                f"target has shape {target.shape}; expected (N, O) or (T, N, O) with "
                f"T = {T}, N = {N}"
            )
        object.__setattr__(self, "x", require_finite("x", x))
        object.__setattr__(self, "target", require_finite("target", target))

    def __len__(self) -> int:
        return int(self.x.shape[1])

    def batch(self, chosen: Array) -> tuple[Array, Array]:
        """Return x (T, B, D) and the target of the B sequences with these indices."""
        return self.x[:, chosen], self.target[..., chosen, :]


def shuffled_batches(n: int, batch_size: int, *, seed: int, start: int = 0) -> Iterator[Array]:
    """Yield the indices ``(batch_size,)`` of step start, start + 1, and so on, into n sequences.

    Each pass over the data is shuffled anew and draws without replacement: no sequence comes twice
    before the pass is over. The n mod batch_size sequences left at its end sit that pass out, so
    that every batch, and with it every step, is of one size. What a step sees follows from the
    seed and its number alone, so training that goes on from the middle sees what it would have.

    Raises
    ------
    ValueError
        If batch_size is not between 1 and n.

    Examples
    --------
    >>> batches = shuffled_batches(7, 3, seed=0)
    >>> first, second, third = (next(batches) for _ in range(3))
    >>> len({*first.tolist(), *second.tolist()})
    6
    >>> bool((next(shuffled_batches(7, 3, seed=0, start=2)) == third).all())
    True
    """
    if not 1 <= batch_size <= n:
        raise ValueError(f"batch_size is {batch_size}; expected 1 to {n}, the number of sequences")
    return _batches(n, batch_size, seed, start)


def _batches(n: int, batch_size: int, seed: int, start: int) -> Iterator[Array]:
    order = np.empty(0, int)
    for step in count(start):
        number, position = divmod(step, n // batch_size)
        if position == 0 or not order.size:
            order = np.random.default_rng([seed, number]).permutation(n)
        yield order[position * batch_size : (position + 1) * batch_size]
