"""Which sequences a step of training sees."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray


def shuffled_batches(n: int, batch_size: int, rng: np.random.Generator) -> Iterator[NDArray[Any]]:
    """Yield index arrays ``(batch_size,)`` into n sequences, without end.

    Each pass over the data is shuffled anew and draws without replacement: no sequence comes twice
    before the pass is over. The n mod batch_size sequences left at its end sit that pass out, so
    that every batch, and with it every step, is of one size.

    Raises
    ------
    ValueError
        If batch_size is not between 1 and n.

    Examples
    --------
    >>> batches = shuffled_batches(7, 3, np.random.default_rng(0))
    >>> one_pass = np.concatenate([next(batches), next(batches)])
    >>> len(set(one_pass.tolist()))
    6
    """
    if not 1 <= batch_size <= n:
        raise ValueError(f"batch_size is {batch_size}; expected 1 to {n}, the number of sequences")
    return _passes(n, batch_size, rng)


def _passes(n: int, batch_size: int, rng: np.random.Generator) -> Iterator[NDArray[Any]]:
    while True:
        order = rng.permutation(n)
        for start in range(0, n - batch_size + 1, batch_size):
            yield order[start : start + batch_size]
