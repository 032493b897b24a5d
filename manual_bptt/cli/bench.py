"""``manual-bptt bench``: the time and the memory of the gradients, beside JAX and torch.

Times are medians of turns, one after the other in one process; what counts are ratios. Of ours, and
of torch's with one thread and with all, the fastest counts; which of ours it was stands beside it.
"""

import argparse
import os
import platform
import time
from collections.abc import Iterator
from importlib import import_module
from typing import Any

import numpy as np

import manual_bptt as mb
from manual_bptt.cli import contestants
from manual_bptt.cli.contestants import Shape, work
from manual_bptt.cli.figures import PRINTED, plot
from manual_bptt.cli.shared import (
    UsageError,
    bar,
    compiles,
    installed,
    require,
    require_apart,
    require_writable,
    versions,
    write_json,
)
from manual_bptt.cli.timing import import_time, medians, once, product_rate, slope

DTYPES = ("float64", "float32")
SHAPES = (
    Shape(1, 24, 6, 10, 1),
    Shape(32, 24, 6, 10, 1),
    Shape(32, 24, 6, 64, 1),
    Shape(1, 100, 8, 32, 4),
    Shape(16, 100, 8, 32, 4),
    Shape(64, 100, 32, 128, 16),
    Shape(32, 1000, 32, 128, 16),
    Shape(128, 100, 64, 256, 32),
    Shape(256, 50, 128, 512, 64),
    Shape(1, 1000, 64, 256, 16),
    Shape(1, 10000, 4, 16, 2),
)
QUICK = (SHAPES[1], SHAPES[3], SHAPES[5])
LARGE = Shape(128, 100, 64, 256, 32)
MIDDLE = Shape(32, 100, 16, 64, 8)
GROWTH = {
    "T": (25, 100, 400, 1600),
    "B": (2, 8, 32, 128, 512),
    "H": (16, 64, 256, 1024),
}
PROBLEMS = 256, 2048  # to judge: quick, and not
CHECKPOINTED = (Shape(32, 1000, 32, 128, 16), Shape(1, 10000, 4, 16, 2))


def add_to(commands: Any) -> None:
    """Add the command to the parser."""
    bench = commands.add_parser("bench", help="measure speed and memory beside JAX and torch")
    bench.add_argument("--quick", action="store_true", help="a few shapes, in under a minute")
    bench.add_argument("--json", metavar="PATH", help="write all figures as JSON; - is stdout")
    bench.add_argument("--plot", metavar="PATH", help="write how the time grows, as a picture")
    bench.set_defaults(run=_bench)


def cores() -> int:
    """Return how many cores this process may use."""
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1


def _bench(arguments: argparse.Namespace) -> int:
    require("verify", "jax", "rich")
    require("forecast", "matplotlib", "threadpoolctl")
    require_writable(arguments.json)
    require_writable(arguments.plot)
    require_apart("--plot", arguments.plot, *filter(None, [arguments.json]))
    if arguments.plot == "-":
        raise UsageError("--plot is -; expected a path, for a picture is no text")
    quiet = arguments.json == "-"
    began = time.perf_counter()
    result: dict[str, Any] = {
        "machine": {"processor": processor(), "cores": cores()},
        "versions": versions("numpy", "jax", *filter(installed, ("numba", "torch"))),
    }
    sections = (_speed, _growth, _memory, _long, _checkpoints, _cluster, _rest)
    import jax

    with bar() as shown, jax.enable_x64(True):
        task = shown.add_task("bench", total=None)
        for section in sections:
            shown.update(task, description=section.__name__.strip("_"))
            for name, value in section(arguments):
                result[name] = value
                if not quiet:
                    PRINTED[name](value)
    result["seconds"] = time.perf_counter() - began
    write_json(arguments.json, result)
    if arguments.plot is not None:
        plot(result["growth"], arguments.plot)
    if not quiet:
        print(f"measured in {result['seconds']:.0f} s")
    return 0


def processor() -> str:
    """Return the name of the processor, as the system has it."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            return next(line.split(":")[1].strip() for line in file if "model name" in line)
    except (OSError, StopIteration):
        return platform.processor()


# Speed -------------------------------------------------------------------------------------------


def _speed(arguments: argparse.Namespace) -> Iterator[tuple[str, Any]]:
    shapes, rounds = (QUICK, 2) if arguments.quick else (SHAPES, 5)
    rates = {}
    for dtype in DTYPES:
        before = product_rate(dtype)
        rows = [_compared(shape, dtype, rounds) | {"dtype": dtype} for shape in shapes]
        rates[dtype] = max(before, product_rate(dtype))
        for row in rows:
            row["of_product_rate"] = row["products"] / row["seconds"] / rates[dtype]
        yield f"speed {dtype}", rows
    yield "product_rate", rates


def _compared(shape: Shape, dtype: str, rounds: int) -> dict[str, Any]:
    """Return the times of all contestants for one shape; of ours and of torch's the best counts."""
    todo, workers = work(shape, dtype), cores()
    calls = {"numpy": contestants.by_hand(todo)}
    if compiles():
        calls["numba"] = contestants.by_hand(todo, kernel="numba")
    for kernel in [*calls] if shape.B > 1 and workers > 1 else []:
        calls[f"{kernel}, {workers}"] = contestants.by_hand(todo, kernel=kernel, workers=workers)
    ours = len(calls)
    calls["jax"] = contestants.by_jax(todo)
    if installed("torch"):
        for threads in sorted({1, workers}):
            calls[f"torch, {threads}"] = contestants.by_torch(todo, threads)
    seconds = dict(zip(calls, medians(list(calls.values()), rounds, 0.1), strict=True))
    fastest = min([*calls][:ours], key=lambda name: seconds[name])
    peers = {"jax": seconds["jax"]}
    if any(name.startswith("torch") for name in calls):
        peers["torch"] = min(s for name, s in seconds.items() if name.startswith("torch"))
    return {
        "shape": shape._asdict(),
        "times": seconds,
        "fastest": fastest,
        "seconds": seconds[fastest],
        "products": shape.products,
        "ratios": {peer: s / seconds[fastest] for peer, s in peers.items()},
        "numpy_ratio": seconds["jax"] / seconds["numpy"],
    }


# Growth ------------------------------------------------------------------------------------------


def _growth(arguments: argparse.Namespace) -> Iterator[tuple[str, Any]]:
    growth: dict[str, Any] = {}
    rounds = 1 if arguments.quick else 3
    for axis, sizes in GROWTH.items():
        shapes = [MIDDLE._replace(**{axis: size}) for size in sizes]
        times: dict[str, list[float]] = {"ours": [], "jax": []}
        for shape in shapes:
            todo = work(shape, "float64")
            ours = [contestants.by_hand(todo), contestants.by_hand(todo, workers=cores())]
            *own, theirs = medians([*ours, contestants.by_jax(todo)], rounds, 0.02)
            times["ours"].append(min(own))
            times["jax"].append(theirs)
        slopes = {name: slope(sizes, own) for name, own in times.items()}
        growth[axis] = {"sizes": sizes, "seconds": times, "slopes": slopes}
    yield "growth", {"shape": MIDDLE._asdict(), "axes": growth}


# Memory ------------------------------------------------------------------------------------------


def _memory(arguments: argparse.Namespace) -> Iterator[tuple[str, Any]]:
    ways: dict[str, tuple[str, dict[str, Any]]] = {
        "numpy": ("by_hand", {}),
        "threads": ("by_hand", {"workers": cores()}),
        "checkpoints": ("by_hand", {"checkpoint_every": "sqrt"}),
        "jax": ("by_jax", {}),
    }
    if installed("torch"):
        ways["torch"] = ("by_torch", {"threads": cores()})
    states = LARGE.states * 8
    rows = {
        way: once(name, LARGE, "float64", **options)._asdict()
        for way, (name, options) in ways.items()
    }
    yield "memory", {"shape": LARGE._asdict(), "states": states, "peaks": rows}


# Long sequences ----------------------------------------------------------------------------------


def _long(arguments: argparse.Namespace) -> Iterator[tuple[str, Any]]:
    shape = Shape(1, 100_000 if arguments.quick else 1_000_000, 4, 64, 1)
    kernel = "numba" if compiles() else "numpy"
    measured = once("by_hand", shape, "float64", checkpoint_every="sqrt", kernel=kernel)
    yield "long", {"shape": shape._asdict(), "kernel": kernel, **measured._asdict()}


def _checkpoints(arguments: argparse.Namespace) -> Iterator[tuple[str, Any]]:
    rows = []
    for shape in CHECKPOINTED[-1:] if arguments.quick else CHECKPOINTED:
        todo = work(shape, "float64")
        calls = [contestants.by_hand(todo, checkpoint_every=every) for every in (None, "sqrt")]
        stored, again = medians(calls, 9, 0.3)
        (one, grads), (other, same) = (call() for call in calls)
        equal = one == other and all(map(np.array_equal, grads, same))
        rows.append({"shape": shape._asdict(), "ratio": again / stored, "same_bits": equal})
    yield "checkpoints", rows


# A cluster ---------------------------------------------------------------------------------------


def _cluster(arguments: argparse.Namespace) -> Iterator[tuple[str, Any]]:
    """Compute one gradient on a Dask cluster of two processes, if Dask is there."""
    if not installed("distributed"):
        return
    distributed: Any = import_module("distributed")
    shape = Shape(256, 50, 16, 64, 4)
    params, x, h0, target = work(shape, "float64")
    options = {"n_workers": 2, "threads_per_worker": 1, "processes": True}
    free = {"dashboard_address": "127.0.0.1:0"}  # the usual port may be that of another cluster
    with (
        distributed.LocalCluster(**options, **free) as cluster,
        distributed.Client(cluster) as client,
    ):
        pids = set(client.run(os.getpid).values())
        with client.get_executor() as executor:
            one, grads = mb.loss_and_gradients(params, x, target, h0=h0, workers=executor)
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(1) as executor:
        other, same = mb.loss_and_gradients(params, x, target, h0=h0, workers=executor)
    equal = one == other and all(map(np.array_equal, grads, same))
    yield "cluster", {"processes": len(pids - {os.getpid()}), "same_bits": equal}


# The rest ----------------------------------------------------------------------------------------


def _rest(arguments: argparse.Namespace) -> Iterator[tuple[str, Any]]:
    from manual_bptt.candidate import candidate
    from reference import draw_problems, judge

    quick, many = PROBLEMS
    count = quick if arguments.quick else many
    problems = list(draw_problems(count, 0, dtype="float64", batched=True))
    judged = candidate(mb.squared_error)
    list(judge(judged, problems))  # compiles
    began = time.perf_counter()
    list(judge(judged, problems))
    yield "verification", {"problems_per_second": len(problems) / (time.perf_counter() - began)}
    yield "import", {name: import_time(name) for name in ("numpy", "manual_bptt")}
