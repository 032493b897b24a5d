"""The loss and the gradients of a batch: in this thread, in shards on threads, or on an executor.

Each sequence of a batch goes through Eqs. 1-2 and 4-10 by itself. Only the loss may look at all of
them at once, and the gradients in the parameters are sums over all. So the shards' outputs are
computed side by side, then one loss of all outputs, then the shards' gradients side by side; they
are added in the order of the shards, whoever was ready first.
"""

import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager, nullcontext
from contextvars import copy_context
from functools import cache, partial
from itertools import accumulate, pairwise
from threading import Lock
from typing import Any, TypeVar

import numpy as np

from manual_bptt.arithmetic import reports_overflow
from manual_bptt.arrays import AnyParams, Array, in_words
from manual_bptt.engine.segments import Plan, backward_segments, forward_segments
from manual_bptt.engine.workspace import workspace
from manual_bptt.params import Gradients, gradients_of

Workers = int | Executor | None
LossOfOutputs = Callable[[Array], tuple[Any, Array]]
Result = TypeVar("Result")
THREADED = 2**17  # numbers multiplied in a step: OpenBLAS starts threads from 2**18 on
SHARD = 64  # sequences in a task for an executor: the same on any number of workers


def require_workers(workers: Any) -> None:
    """Refuse what is neither None, nor a number of threads, nor an executor."""
    if workers is None or isinstance(workers, Executor):
        return
    if isinstance(workers, bool) or not isinstance(workers, int | np.integer):
        raise TypeError(
            f"workers is {in_words(workers)}; expected None, a number of threads, or a "
            "concurrent.futures.Executor"
        )
    if workers < 1:
        raise ValueError(f"workers is {in_words(workers)}; expected at least 1")


def compute(
    params: AnyParams, x: Array, h0: Array, loss: LossOfOutputs, workers: Workers, plan: Plan
) -> tuple[Any, Gradients]:
    """Return the loss and the gradients; arguments are good. One sequence stays in this thread."""
    if workers is None or x.ndim == 2:
        crowded = plan.kernel.own_blas and h0.size * len(params.W) >= THREADED
        with _one_blas_thread() if crowded else nullcontext():
            return _here(params, x, h0, loss, plan)
    if isinstance(workers, Executor):
        return _on_executor(params, x, h0, loss, workers, plan)
    count = min(int(workers), len(h0))
    with _one_blas_thread():
        return _on_threads(params, x, h0, loss, count, plan)


def _here(
    params: AnyParams, x: Array, h0: Array, loss: LossOfOutputs, plan: Plan
) -> tuple[Any, Gradients]:
    y, dx, dh0 = _results(params, x, h0)
    with workspace("states", plan.size(params, x), x.dtype) as states:
        before = forward_segments(params, plan, x, h0, y, states)
        value, dy = loss(y)
        sums = backward_segments(params, plan, x, before, states, dy, dx, dh0)
    return value, gradients_of(params, *sums, dx, dh0)


def _on_threads(
    params: AnyParams, x: Array, h0: Array, loss: LossOfOutputs, count: int, plan: Plan
) -> tuple[Any, Gradients]:
    """NumPy lets go of the interpreter while it computes, so that threads run side by side."""
    y, dx, dh0 = _results(params, x, h0)
    shards = _shards(len(h0), count)
    xs, ys, dxs = ([array[:, shard] for shard in shards] for array in (x, y, dx))
    h0s, dh0s = ([array[shard] for shard in shards] for array in (h0, dh0))
    ends = [*accumulate(plan.size(params, part) for part in xs)]
    with workspace("states", ends[-1], x.dtype) as memory:
        states = [memory[slice(*bounds)] for bounds in pairwise([0, *ends])]
        before = _side_by_side(partial(forward_segments, params, plan), xs, h0s, ys, states)
        value, dy = loss(y)
        dys = [dy[:, shard] for shard in shards]
        backward = partial(backward_segments, params, plan)
        sums = _side_by_side(backward, xs, before, states, dys, dxs, dh0s)
    return value, gradients_of(params, *_total(sums), dx, dh0)


def _results(params: AnyParams, x: Array, h0: Array) -> tuple[Array, Array, Array]:
    """Return memory for y and dx, and as dh0 the gradient that h[T] receives from beyond, zero."""
    y = np.empty((*x.shape[:-1], len(params.c)), x.dtype)
    return y, np.empty(x.shape, x.dtype), np.zeros(h0.shape, x.dtype)


def _shards(B: int, count: int) -> list[slice]:
    """Return count slices of B sequences, as equal as can be."""
    bounds = [B * k // count for k in range(count + 1)]
    return [slice(*pair) for pair in pairwise(bounds)]


def _on_executor(
    params: AnyParams,
    x: Array,
    h0: Array,
    loss: LossOfOutputs,
    executor: Executor,
    plan: Plan,
) -> tuple[Any, Gradients]:
    """Workers may be far away: they compute the states once more rather than send them."""
    shards = _shards(len(h0), -(-len(h0) // SHARD))
    xs = [np.ascontiguousarray(x[:, shard]) for shard in shards]
    h0s = [h0[shard] for shard in shards]
    outputs = executor.map(partial(_outputs, params, plan), xs, h0s)
    value, dy = loss(np.concatenate([*outputs], axis=1))
    dys = [np.ascontiguousarray(dy[:, shard]) for shard in shards]
    parts = [*executor.map(partial(_gradients, params, plan), xs, h0s, dys)]
    *of_params, dx, dh0 = zip(*parts, strict=True)
    total = _total(zip(*of_params, strict=True))
    return value, gradients_of(params, *total, np.concatenate(dx, axis=1), np.concatenate(dh0))


def _outputs(params: AnyParams, plan: Plan, x: Array, h0: Array) -> Array:
    """A task: the outputs of some sequences."""
    y = np.empty((*x.shape[:-1], len(params.c)), x.dtype)
    with workspace("states", plan.size(params, x), x.dtype) as states:
        forward_segments(params, plan, x, h0, y, states)
    return y


def _gradients(params: AnyParams, plan: Plan, x: Array, h0: Array, dy: Array) -> Gradients:
    """A task: the gradients of some sequences, from those in their outputs."""
    _, grads = _here(params, x, h0, lambda _: (None, dy), plan)
    return grads


@reports_overflow
def _total(parts: Iterable[Iterable[Array]]) -> list[Array]:
    """Add up the gradients in the parameters, in the order of the parts."""
    return [sum(rest, first) for first, *rest in zip(*parts, strict=True)]


def _side_by_side(function: Callable[..., Result], *arguments: Sequence[Any]) -> list[Result]:
    """Return what the function makes of the first arguments, in this thread, and of the others."""
    (first, *others) = zip(*arguments, strict=True)
    running: list[Future[Result]] = []
    try:
        for other in others:
            context = copy_context()  # it has np.errstate
            running.append(_threads().submit(context.run, function, *other))
        here = function(*first)
    finally:
        wait(running)
    return [here, *(task.result() for task in running)]


@cache
def _threads() -> ThreadPoolExecutor:
    """Return the threads of this process: as many as were ever needed at once."""
    return ThreadPoolExecutor(1024, thread_name_prefix="manual_bptt")


class _Limit:
    """How many calls want BLAS on one thread; the first to come sets it, the last restores it."""

    lock, calls = Lock(), 0
    held: Any = None


@contextmanager
def _one_blas_thread() -> Iterator[None]:
    """Keep BLAS from starting threads of its own beside ours, if threadpoolctl is installed."""
    blas = _blas("scipy.linalg.cython_blas" in sys.modules)
    if blas is None:
        yield
        return
    with _Limit.lock:
        if not _Limit.calls:
            with _control_of(blas):
                _Limit.held = blas.limit(limits=1, user_api="blas")
        _Limit.calls += 1
    try:
        yield
    finally:
        with _Limit.lock:
            _Limit.calls -= 1
            if not _Limit.calls:
                with _control_of(blas):
                    _Limit.held.restore_original_limits()


@contextmanager
def _control_of(blas: Any) -> Iterator[None]:
    """Let this thread set limits, which the last of several calls restores, and then any other.

    Since threadpoolctl 3.8 the limits of OpenBLAS are those of the thread that first set them.
    """
    owned = [lib for lib in blas.lib_controllers if hasattr(lib, "clear_controlling_thread")]
    for library in owned:
        library.clear_controlling_thread(force=True)
    yield
    for library in owned:
        library.clear_controlling_thread()


def _start_anew() -> None:
    """Forget, in a process that was forked, threads that are not there and calls that never end."""
    _threads.cache_clear()
    _Limit.lock, _Limit.calls = Lock(), 0


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_start_anew)


@cache
def _blas(_with_scipy: bool) -> Any:
    """Return the control of all BLAS libraries; SciPy, if it is here, has one of its own."""
    try:
        from threadpoolctl import ThreadpoolController
    except ModuleNotFoundError:
        return None
    return ThreadpoolController()
