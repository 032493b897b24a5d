"""Measuring for ``manual-bptt bench``: time in turns, memory in a process of its own."""

import statistics
import subprocess
import sys
import time
import tracemalloc
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from math import log
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from manual_bptt.cli import contestants

SETTLING = (
    0.13  # seconds: the threads of BLAS keep a core busy for a tenth after their last product
)


class Once(NamedTuple):
    """A first call in a process: its time, and its peak memory above what was there before it."""

    seconds: float
    resident: int | None  # bytes, as the system counts; None where it does not say
    traced: int  # bytes, as Python and NumPy allocate


def medians(calls: Sequence[Callable[[], Any]], rounds: int, seconds: float) -> list[float]:
    """Call each for some seconds in turn, round after round; return the median time of each.

    Before its turn is timed, each is called for a while, until the threads of the one before are
    at rest and its own memory is in the cache: that is what a training loop sees.
    """
    times: list[list[float]] = [[] for _ in calls]
    for _ in range(rounds):
        for call, own in zip(calls, times, strict=True):
            until = time.perf_counter() + SETTLING
            while time.perf_counter() < until:
                call()
            until += seconds
            now = time.perf_counter()
            while now < until or not own:
                began = now
                call()
                now = time.perf_counter()
                own.append(now - began)
    return [statistics.median(own) for own in times]


def product_rate(dtype: str) -> float:
    """Return how many operations a second BLAS makes in a large matrix product on all cores."""
    n = 1024
    a, b = np.random.default_rng(0).standard_normal((2, n, n)).astype(dtype)
    out = np.empty_like(a)
    best = min(medians([lambda: a.dot(b, out)], 3, 0.2))
    return 2 * n**3 / best


def slope(sizes: Sequence[float], times: Sequence[float]) -> float:
    """Return the power of the size with which the time grows, from the three largest sizes."""
    x, y = ([log(v) for v in values[-3:]] for values in (sizes, times))
    return float(np.polyfit(x, y, 1)[0])


def once(name: str, shape: contestants.Shape, dtype: str, **options: Any) -> Once:
    """Measure one call of a contestant in a new process, and in another what it allocates."""
    (seconds, resident), traced = (
        _in_a_new_process(function, name, shape, dtype, options) for function in (_timed, _traced)
    )
    return Once(seconds, resident, traced)


def _in_a_new_process(function: Callable[..., Any], *arguments: Any) -> Any:
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
        return process.submit(function, *arguments).result()


def _timed(*arguments: Any) -> tuple[float, int | None]:
    call = _ready(*arguments)
    before = _resident("VmRSS", reset=True)
    began = time.perf_counter()
    call()
    seconds = time.perf_counter() - began
    after = _resident("VmHWM")
    return seconds, None if before is None or after is None else after - before


def _traced(*arguments: Any) -> int:
    call = _ready(*arguments)
    tracemalloc.start()
    call()
    return tracemalloc.get_traced_memory()[1]


def _ready(name: str, shape: contestants.Shape, dtype: str, options: dict[str, Any]) -> Any:
    """Return a call that needs no more loading or compiling."""
    if name == "by_jax":
        import jax

        config: Any = jax.config
        config.update("jax_enable_x64", True)
    make = getattr(contestants, name)
    make(contestants.work(contestants.Shape(2, 2, 2, 2, 2), dtype), **options)()
    return make(contestants.work(shape, dtype), **options)


def _resident(field: str, *, reset: bool = False) -> int | None:
    """Return the resident memory now (VmRSS) or at its peak (VmHWM), where Linux tells."""
    try:
        if reset:
            Path("/proc/self/clear_refs").write_text("5")
        status = Path("/proc/self/status").read_text()
    except OSError:
        return None
    return int(status.partition(f"{field}:")[2].split()[0]) * 1024


def import_time(module: str) -> float:
    """Return the seconds that a new Python takes to import a module, the median of five."""
    code = "import sys, time; t = time.perf_counter(); __import__(sys.argv[1]);"
    code += "print(time.perf_counter() - t)"
    runs = [
        subprocess.run([sys.executable, "-c", code, module], capture_output=True, check=True)
        for _ in range(5)
    ]
    return statistics.median(float(run.stdout) for run in runs)
