"""The gradients of a batch in shards, on threads or on the workers of any executor.

Each sequence of a batch goes through Eqs. 1-2 and 4-10 by itself. Only the loss may look at all of
them at once, and the gradients in the parameters are sums over all. So the shards' outputs are
computed side by side, then one loss of all outputs, then the shards' gradients side by side; they
are added in the order of the shards, whoever was ready first.
"""

from collections.abc import Callable, Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache, partial
from itertools import pairwise
from threading import Lock
from typing import Any

import numpy as np

from manual_bptt.backward import run_backward
from manual_bptt.forward import Trace, run_forward
from manual_bptt.params import Array, Gradients, Params, in_words

Workers = int | Executor | None
LossOfOutputs = Callable[[Array], tuple[Any, Array]]
SHARD = 64  # sequences in a task for an executor: the same on any number of workers


def require_workers(workers: Any) -> None:
    """Refuse what is neither a number of threads nor an executor."""
    if isinstance(workers, Executor):
        return
    if isinstance(workers, bool) or not isinstance(workers, int | np.integer):
        raise TypeError(
            f"workers is {in_words(workers)}; expected None, a number of threads, or a "
            "concurrent.futures.Executor"
        )
    if workers < 1:
        raise ValueError(f"workers is {in_words(workers)}; expected at least 1")


def in_shards(
    params: Params, x: Array, h0: Array, loss: LossOfOutputs, workers: int | Executor
) -> tuple[Any, Gradients]:
    """Return the loss and the gradients of a batch, computed by workers; arguments are good."""
    B = x.shape[1]
    if isinstance(workers, Executor):
        return _on_executor(params, x, h0, loss, workers, _shards(B, -(-B // SHARD)))
    return _on_threads(params, x, h0, loss, _shards(B, min(int(workers), B)))


def _shards(B: int, count: int) -> list[slice]:
    """Return count slices of B sequences, as equal as can be."""
    bounds = [B * k // count for k in range(count + 1)]
    return [slice(*pair) for pair in pairwise(bounds)]


def _on_threads(
    params: Params, x: Array, h0: Array, loss: LossOfOutputs, shards: list[slice]
) -> tuple[Any, Gradients]:
    """NumPy lets go of the interpreter while it computes, so that threads run side by side."""
    threads = _threads(len(shards))

    def forward(shard: slice) -> Trace:
        return run_forward(params, x[:, shard], h0[shard])

    def backward(shard: slice, trace: Trace) -> Gradients:
        return run_backward(params, trace, dy[:, shard], np.zeros_like(h0[shard]))

    with _one_blas_thread():
        traces = [*threads.map(forward, shards)]
        value, dy = loss(np.concatenate([trace.y for trace in traces], axis=1))
        return value, _sum(threads.map(backward, shards, traces))


def _on_executor(
    params: Params,
    x: Array,
    h0: Array,
    loss: LossOfOutputs,
    executor: Executor,
    shards: list[slice],
) -> tuple[Any, Gradients]:
    """Workers may be far away: they compute the states once more rather than send them."""
    inputs = [np.ascontiguousarray(x[:, shard]) for shard in shards]
    states = [h0[shard] for shard in shards]
    outputs = executor.map(partial(_outputs, params), inputs, states)
    value, dy = loss(np.concatenate([*outputs], axis=1))
    slopes = [np.ascontiguousarray(dy[:, shard]) for shard in shards]
    return value, _sum(executor.map(partial(_gradients, params), inputs, states, slopes))


def _outputs(params: Params, x: Array, h0: Array) -> Array:
    return run_forward(params, x, h0).y


def _gradients(params: Params, x: Array, h0: Array, dy: Array) -> Gradients:
    return run_backward(params, run_forward(params, x, h0), dy, np.zeros_like(h0))


def _sum(parts: Iterator[Gradients]) -> Gradients:
    """Add up the gradients in the parameters; put those in the sequences beside each other."""
    *of_params, x, h0 = zip(*parts, strict=True)
    W, U, b, V, c = (sum(rest, first) for first, *rest in of_params)
    return Gradients(W, U, b, V, c, np.concatenate(x, axis=1), np.concatenate(h0))


@cache
def _threads(count: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(count, thread_name_prefix="manual_bptt")


class _Limit:
    """How many calls want BLAS on one thread; the first to come sets it, the last restores it."""

    lock, calls = Lock(), 0
    held: Any = None


@contextmanager
def _one_blas_thread() -> Iterator[None]:
    """Keep BLAS from starting threads of its own beside ours, if threadpoolctl is installed."""
    blas = _blas()
    if blas is None:
        yield
        return
    with _Limit.lock:
        if not _Limit.calls:
            _Limit.held = blas.limit(limits=1, user_api="blas")
        _Limit.calls += 1
    try:
        yield
    finally:
        with _Limit.lock:
            _Limit.calls -= 1
            if not _Limit.calls:
                _Limit.held.restore_original_limits()


@cache
def _blas() -> Any:
    try:
        from threadpoolctl import ThreadpoolController
    except ModuleNotFoundError:
        return None
    return ThreadpoolController()
