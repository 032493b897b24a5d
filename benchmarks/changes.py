"""Measure what each part of the kernels is worth: python benchmarks/changes.py [--json PATH].

Each part is taken back alone, or something else that was tried takes its place; the time is divided
by that of the code as it is, both measured in turns. A ratio above 1 says that the change is worth
its lines.
"""

import argparse
import json
import math
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from typing import Any

import jax
import numpy as np
from numba import njit
from threadpoolctl import threadpool_limits

import manual_bptt as mb
from manual_bptt import compiled
from manual_bptt.arrays import Array, rows
from manual_bptt.cli.bench import DTYPES, SHAPES, cores
from manual_bptt.cli.contestants import Call, Shape, Work, by_hand, by_jax, work
from manual_bptt.cli.timing import medians, product_rate
from manual_bptt.engine.blocks import Kernel, block_length
from manual_bptt.params import Params
from manual_bptt.products import from_outputs

MODULES = {
    name: import_module(f"manual_bptt.{path}")
    for name, path in (
        ("gradients", "gradients"),
        ("blocks", "engine.blocks"),
        ("workers", "engine.workers"),
        ("workspace", "engine.workspace"),
    )
}
LARGE = [SHAPES[i] for i in (5, 7, 8)]
CHOSEN = [SHAPES[i] for i in (1, 2, 3, 4, 5, 7)]


def within(call: Call, **values: Any) -> Call:
    """Return the call as it is while names, such as ``blocks__BLOCK_ROWS``, have other values."""
    places = [(*path.split("__", 1), value) for path, value in values.items()]
    places = [(MODULES[module], name, value) for module, name, value in places]

    def changed_call() -> Any:
        before = [getattr(module, name) for module, name, _ in places]
        for module, name, value in places:
            setattr(module, name, value)
        try:
            return call()
        finally:
            for (module, name, _), value in zip(places, before, strict=True):
                setattr(module, name, value)

    return changed_call


def with_kernel(todo: Work, kernel: Kernel) -> Call:
    """Return the gradients by another kernel."""
    return within(by_hand(todo), gradients___kernel=lambda *_: kernel)


# What was tried ----------------------------------------------------------------------------------


def stacked_states(params: Params, x: Array, h: Array) -> None:
    """Eq. 1 with one product a step: a[t] = [W U b] [h[t-1]; x[t]; 1]."""
    W, U, b, _, _ = params
    H, D = U.shape
    Kt = np.concatenate([W, U, b[:, None]], axis=1).T.copy()
    z = np.empty((*h.shape[:-1], H + D + 1), h.dtype)
    z[0, ..., :H], z[:-1, ..., H:-1], z[..., -1] = h[0], x, 1
    a = np.empty_like(h[0])
    for z_before, z_now in zip(z, z[1:, ..., :H], strict=False):
        z_before.dot(Kt, a)
        np.tanh(a, z_now)
    h[1:] = z[1:, ..., :H]


def with_tanh_of_the_c_library() -> Kernel:
    """Return the compiled kernel with math.tanh."""

    @njit(nogil=True, error_model="numpy", fastmath={"contract"})
    def _states(Wt, b, h):  # type: ignore[no-untyped-def]
        Wh = np.empty(h.shape[1:], h.dtype)
        for t in range(1, len(h)):
            product(h[t - 1], Wt, Wh)
            for k in range(h.shape[1]):
                for i in range(h.shape[2]):
                    h[t, k, i] = math.tanh((h[t, k, i] + b[i]) + Wh[k, i])

    product = compiled._product

    def states(params: Params, x: Array, h: Array) -> None:
        np.matmul(rows(x), np.ascontiguousarray(params.U.T), out=rows(h[1:]))
        _states(np.ascontiguousarray(params.W.T), params.b, compiled._batch(h))

    return compiled.KERNEL._replace(forward_block=states)


LIBRARY_TANH = with_tanh_of_the_c_library()


def jax_with_inputs_of_its_own(todo: Work) -> Call:
    """Return JAX with inputs and targets that are its own arrays already."""
    return by_jax(Work(todo.params, *jax.device_put(todo[1:])))


# name: (as it is, as it would be)
CHANGES: dict[str, tuple[Callable[[Work], Call], Callable[[Work], Call]]] = {
    "NumPy: the whole sequence at once, not in blocks": (
        by_hand,
        lambda todo: within(by_hand(todo), blocks__BLOCK_ROWS=2**40, blocks__BLOCK_STEPS=2**40),
    ),
    "NumPy: one stacked product a step forward": (
        by_hand,
        lambda todo: with_kernel(todo, Kernel(stacked_states)),
    ),
    "the kernel in NumPy, not compiled": (lambda todo: by_hand(todo, kernel="numba"), by_hand),
    "compiled: tanh of the C library": (
        lambda todo: by_hand(todo, kernel="numba"),
        lambda todo: with_kernel(todo, LIBRARY_TANH),
    ),
    f"compiled: one thread, not {cores()}": (
        lambda todo: by_hand(todo, kernel="numba", workers=cores()),
        lambda todo: by_hand(todo, kernel="numba", workers=1),
    ),
    "compiled: two BLAS libraries with all their threads": (
        lambda todo: by_hand(todo, kernel="numba"),
        lambda todo: within(by_hand(todo, kernel="numba"), workers__THREADED=2**62),
    ),
    f"NumPy: one thread of BLAS, not {cores()}": (
        by_hand,
        lambda todo: by_hand(todo, workers=1),
    ),
    "JAX: inputs in its own arrays": (by_jax, jax_with_inputs_of_its_own),
    "JAX: scan unrolled by 4": (by_jax, lambda todo: by_jax(todo, unroll=4)),
}


NEW_MEMORY = "NumPy: new memory for every call"


def with_new_memory(shape: Shape) -> float:
    """Return the ratio for a call that keeps no memory, each in a process that does nothing else.

    In one that has freed large arrays before, the C library keeps memory by itself.
    """
    code = (
        "import sys, manual_bptt.engine.workspace as workspace\n"
        "from manual_bptt.cli.contestants import Shape, by_hand, work\n"
        "from manual_bptt.cli.timing import medians\n"
        "workspace.KEPT, *shape = map(int, sys.argv[1:])\n"
        "print(medians([by_hand(work(Shape(*shape), 'float64'))], 5, 0.1)[0])\n"
    )
    times = []
    for kept in (MODULES["workspace"].KEPT, 0):
        command = [sys.executable, "-c", code, str(kept), *map(str, shape)]
        times.append(float(subprocess.run(command, capture_output=True, check=True).stdout))
    return times[1] / times[0]


# What a small call is spent on ------------------------------------------------------------------


def parts_of_a_call(todo: Work) -> dict[str, Call]:
    """Return parts of the compiled call for one sequence, and of JAX's, each to be timed alone."""
    params, x, h0, target = todo
    trace = mb.forward(params, x, h0)
    _, dy = mb.squared_error(trace.y, target)
    h, da, carried = trace.h.copy(), np.empty_like(trace.h[1:]), h0.copy()
    whole = by_hand(todo, kernel="numba")

    def recursions() -> None:
        compiled.KERNEL.forward_block(params, x, h)
        from_outputs(params, dy, da)
        compiled.KERNEL.backward_block(params, x, h, da, da, carried)

    own = jax.device_put(params)
    nothing = jax.jit(lambda params, x, h0, target: (target[0, 0], params))
    return {
        "one compiled call": whole,
        "- checking its arguments": within(whole, gradients__compute=lambda *_: None),
        "- the loss and its gradient in y": lambda: mb.squared_error(trace.y, target),
        "- the two recursions": recursions,
        "one call of JAX": by_jax(todo),
        "- a jitted function that computes nothing": lambda: jax.block_until_ready(
            nothing(own, x, h0, target)
        ),
    }


# What a large call is spent on ------------------------------------------------------------------


def products_alone(todo: Work) -> Call:
    """Return the matrix products of a call, and nothing else, on as many threads."""
    params, x, _, _ = todo
    (T, B, D), (O, H), dtype = x.shape, params.V.shape, x.dtype
    b = B // cores()
    steps = block_length(b)

    def on_a_thread(_: int) -> None:
        h, da, wide = (np.ones((steps, b, H), dtype) for _ in range(3))
        dy, dx = np.ones((steps * b, O), dtype), np.ones((steps * b, D), dtype)
        flat_h, flat_da, flat = (rows(a) for a in (h, da, wide))
        Wt, Ut, Vt = (np.ascontiguousarray(a.T) for a in (params.W, params.U, params.V))
        for _ in range(T // steps):
            np.matmul(dx, Ut, out=flat)
            for one, out in zip(h, wide, strict=True):
                one.dot(Wt, out)
            flat_h.dot(Vt)
            np.matmul(dy, params.V, out=flat)
            for one, out in zip(da, wide, strict=True):
                one.dot(params.W, out)
            flat_da.T.dot(flat_h), flat_da.T.dot(dx), dy.T.dot(flat_h), flat_da.dot(params.U)

    threads = ThreadPoolExecutor(cores())

    def call() -> None:
        with threadpool_limits(1, "blas"):
            list(threads.map(on_a_thread, range(cores())))

    return call


def large_calls(rounds: int) -> dict[str, dict[str, float]]:
    """Return, for large shapes, rates of operations: one large product, the products, the call."""
    found = {}
    for shape in LARGE:
        for dtype in DTYPES:
            todo = work(shape, dtype)
            rate = product_rate(dtype)
            call = by_hand(todo, kernel="numba", workers=cores())
            alone, whole = medians([products_alone(todo), call], rounds, 0.2)
            found[f"{', '.join(map(str, shape))}, {dtype}"] = {
                "one large product": max(rate, product_rate(dtype)),
                "the products of the call alone": shape.products / alone,
                "the call": shape.products / whole,
            }
    return found


def main() -> None:
    """Print a row for each change, and the ratio for each shape."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--json", metavar="PATH")
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    names = [", ".join(map(str, shape)) for shape in CHOSEN]
    print(f"{'float64; (B, T, D, H, O):':50}", *(f"{name:>22}" for name in names))
    ratios = {NEW_MEMORY: [with_new_memory(shape) for shape in CHOSEN]}
    print(f"{NEW_MEMORY:50}", *(f"{ratio:22.2f}" for ratio in ratios[NEW_MEMORY]))
    with jax.enable_x64(True):
        for change, (as_it_is, as_it_would_be) in CHANGES.items():
            ratios[change] = []
            print(f"{change:50}", end=" ", flush=True)
            for shape in CHOSEN:
                todo = work(shape, "float64")
                calls = [make(todo) for make in (as_it_is, as_it_would_be)]
                now, other = medians(calls, arguments.rounds, 0.1)
                ratios[change].append(other / now)
                print(f"{other / now:22.2f}", end=" ", flush=True)
            print()
        parts = parts_of_a_call(work(SHAPES[0], "float64"))
        times = medians(list(parts.values()), arguments.rounds, 0.1)
    print(f"\nmicroseconds at {tuple(SHAPES[0])}:")
    for part, seconds in zip(parts, times, strict=True):
        print(f"{part:50} {seconds * 1e6:.1f}")
    large = large_calls(arguments.rounds)
    print("\nGFLOP/s of large calls:")
    for name, rates in large.items():
        print(f"{name:40}", ", ".join(f"{k} {rate / 1e9:.0f}" for k, rate in rates.items()))
    if arguments.json is not None:
        found = {"shapes": CHOSEN, "ratios": ratios, "small": SHAPES[0]}
        found["large"] = large
        found["parts"] = dict(zip(parts, times, strict=True))
        with open(arguments.json, "w", encoding="utf-8") as file:
            json.dump(found, file, indent=2)


if __name__ == "__main__":
    main()
