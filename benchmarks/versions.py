"""Compare the lab's network with that of another commit: python benchmarks/versions.py COMMIT.

First the bits: what ``forward``, ``backward``, ``hidden_gradients`` and ``loss_and_gradients``
return for random shapes, in both dtypes and every way of computing. Then the speed at the shapes of
``manual-bptt bench``: calls of both versions in turns, in one process, so that what else the
machine does falls on both; a ratio above 1 says that this version is faster. Given HEAD, it
compares this version with itself: what differs from 1 then is noise. Exits 1 if a bit differs.
"""

import argparse
import io
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

import manual_bptt as now
from manual_bptt.cli.bench import DTYPES, SHAPES, cores
from manual_bptt.cli.contestants import Call, Shape, work

ROOT = Path(__file__).resolve().parents[1]
BEFORE = "manual_bptt_before"


def package_of(commit: str, folder: Path) -> Any:
    """Import the package as it is in a commit, by another name."""
    command = ["git", "-C", str(ROOT), "archive", commit, "manual_bptt"]
    archive = subprocess.run(command, check=True, capture_output=True).stdout
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        tar.extractall(folder, filter="data")
    (folder / "manual_bptt").rename(folder / BEFORE)
    for path in (folder / BEFORE).rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        path.write_text(text.replace("manual_bptt", BEFORE), encoding="utf-8")
    sys.path.insert(0, str(folder))
    return import_module(BEFORE)


# Bits --------------------------------------------------------------------------------------------


def random_problem(rng: np.random.Generator) -> dict[str, Any]:
    """Draw sizes and arrays: mostly small, now and then longer than a block, wide or large."""
    kind = rng.choice(["small", "long", "wide", "large"], p=[0.6, 0.2, 0.1, 0.1])
    T, B, D, H, O = (int(rng.integers(1, most + 1)) for most in (12, 5, 6, 20, 4))
    T = int(rng.integers(200, 1100)) if kind == "long" else T
    B = int(rng.integers(60, 1400)) if kind == "wide" else B
    H = int(rng.integers(50, 200)) if kind == "large" else H
    dtype = rng.choice(["float32", "float64"])
    batch = () if rng.random() < 0.4 and kind != "wide" else (B,)
    shapes = {"x": (T, *batch, D), "target": (T, *batch, O), "h0": (*batch, H)}
    arrays = {name: rng.standard_normal(shape).astype(dtype) for name, shape in shapes.items()}
    params = now.init_params(D, H, O, rng=rng, dtype=dtype)
    params = params._replace(b=rng.standard_normal(H).astype(dtype))
    return {"params": params, "dh_last": rng.standard_normal((*batch, H)).astype(dtype)} | arrays


def results(package: Any, problem: dict[str, Any], executor: Any) -> Iterator[tuple[str, Any]]:
    """Give each result of a package by name."""
    params = package.Params(*problem["params"])
    x, target, h0, dh_last = (problem[name] for name in ("x", "target", "h0", "dh_last"))
    trace = package.forward(params, x, h0)
    yield "forward", trace
    value, dy = package.squared_error(trace.y, target)
    yield "loss", (value, dy)
    yield "backward", package.backward(params, trace, dy, dh_last=dh_last)
    yield "hidden_gradients", [package.hidden_gradients(params, trace, dy, dh_last=dh_last)]
    for kernel in ("numpy", "numba"):
        for workers in (None, 2, 3, executor):
            for every in (None, 1, "sqrt"):
                options = {"kernel": kernel, "workers": workers, "checkpoint_every": every}
                found = package.loss_and_gradients(params, x, target, h0=h0, **options)
                yield f"loss_and_gradients {options}", (found[0], *found[1])


def compare_bits(before: Any, count: int) -> int:
    """Print how many results were compared, and those that differ; return how many do."""
    rng, compared, different = np.random.default_rng(0), 0, 0
    with ThreadPoolExecutor(2) as executor:
        for _ in range(count):
            problem = random_problem(rng)
            pairs = zip(
                *(results(package, problem, executor) for package in (before, now)), strict=True
            )
            for (name, one), (_, other) in pairs:
                compared += 1
                if [np.asarray(a).tobytes() for a in one] != [
                    np.asarray(a).tobytes() for a in other
                ]:
                    different += 1
                    print(f"{name} differs: x {problem['x'].shape}, h0 {problem['h0'].shape}")
    print(f"{count} problems, {compared} results, {different} not the same bit for bit")
    return different


# Speed -------------------------------------------------------------------------------------------


def ratio(one: Call, other: Call, seconds: float) -> float:
    """Return the median over turns of the time of one to that of other."""
    repeat = max(1, round(2e-3 / min(timed(one, 1), timed(one, 1))))
    ratios, end = [], time.perf_counter() + seconds
    while len(ratios) < 11 or time.perf_counter() < end:
        first, second = (one, other) if len(ratios) % 2 else (other, one)
        times = {call: timed(call, repeat) for call in (first, second)}
        ratios.append(times[one] / times[other])
    return statistics.median(ratios)


def timed(call: Call, repeat: int) -> float:
    """Return the seconds of some calls."""
    began = time.perf_counter()
    for _ in range(repeat):
        call()
    return time.perf_counter() - began


def call_of(package: Any, shape: Shape, dtype: str, **options: Any) -> Callable[[], Any]:
    """Return a call for the loss and the gradients."""
    params, x, h0, target = work(shape, dtype)
    own = package.Params(*params)
    return lambda: package.loss_and_gradients(own, x, target, h0=h0, **options)


def compare_speed(before: Any, seconds: float) -> None:
    """Print a row for each shape."""
    ways = {"numpy": {}, "numba": {"kernel": "numba"}, f"{cores()} workers": {"workers": cores()}}
    columns = [(way, dtype) for way in ways for dtype in DTYPES]
    print("| B, T, D, H, O |", " | ".join(f"{way}, {dtype}" for way, dtype in columns), "|")
    print("|---|" + "---:|" * len(columns))
    for shape in SHAPES:
        print(f"| {', '.join(map(str, shape))} |", end=" ", flush=True)
        for way, dtype in columns:
            calls = (call_of(p, shape, dtype, **ways[way]) for p in (before, now))
            print(f"{ratio(*calls, seconds):.3f} |", end=" ", flush=True)
        print()


def main() -> int:
    """Compare both."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("commit")
    parser.add_argument("--problems", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=0.5, help="for each ratio")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        before = package_of(arguments.commit, Path(folder))
        different = compare_bits(before, arguments.problems)
        if arguments.seconds:
            compare_speed(before, arguments.seconds)
    return 1 if different else 0


if __name__ == "__main__":
    sys.exit(main())
