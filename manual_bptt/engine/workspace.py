"""Memory for intermediate results, kept from one call to the next.

Memory fresh from the operating system costs more to touch for the first time than the arithmetic on
it: a training loop that took and returned some hundred kilobytes a step would spend up to half of
its time on that. So each thread keeps a little, except what a call that failed has used.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from threading import local
from typing import Any

import numpy as np

from manual_bptt.arrays import Array

SMALL, KEPT = 2**16, 2**24  # bytes: what is not worth keeping, and the most kept for a purpose


class _Kept(local):
    """What this thread has for each purpose, unless it is in use."""

    def __init__(self) -> None:
        self.memory: dict[str, Array] = {}


_kept = _Kept()


@contextmanager
def workspace(purpose: str, size: int, dtype: np.dtype[Any]) -> Iterator[Array]:
    """Lend ``size`` numbers, their values undefined, until the context is left.

    A call within a call, as a loss may make one, finds nothing kept and gets memory of its own.
    """
    room = size * dtype.itemsize
    if room < SMALL:
        yield np.empty(size, dtype)
        return
    memory = _kept.memory.pop(purpose, None)
    if memory is None or len(memory) < room:
        memory = np.empty(room, np.uint8)
    yield memory[:room].view(dtype)  # where this raises, a thread may still be at work on it
    if len(memory) <= KEPT:
        _kept.memory[purpose] = memory
