"""Time a gradient by hand against jitted ``jax.value_and_grad``: python benchmarks/against_jax.py.

Both compute the squared error over all steps and its gradient in the five parameters, on the same
arrays, in turns; each time is the median of its turns, and what counts is their ratio. Ours returns
the gradients in x and h0 as well, and checks its arguments.
"""

import argparse
import statistics
import time
from collections.abc import Callable

import jax
import numpy as np

import manual_bptt as mb
from reference.gradients import squared_error
from reference.rnn import run, zero_probes

# (B, T, D, H, O); B = 1 is a single sequence, without a batch axis.
SHAPES = (
    (1, 24, 6, 10, 1),
    (32, 24, 6, 10, 1),
    (32, 24, 6, 64, 1),
    (1, 100, 8, 32, 4),
    (16, 100, 8, 32, 4),
    (64, 100, 32, 128, 16),
    (32, 1000, 32, 128, 16),
    (128, 100, 64, 256, 32),
    (256, 50, 128, 512, 64),
    (1, 1000, 64, 256, 16),
    (1, 10000, 4, 16, 2),
)


def contestants(shape: tuple[int, ...], dtype: str) -> tuple[Callable[[], object], ...]:
    """Return two functions without arguments: the gradient by hand, and JAX's."""
    B, T, D, H, O = shape
    rng = np.random.default_rng(0)
    batch = () if B == 1 else (B,)
    params = mb.init_params(D, H, O, rng=rng, dtype=dtype)
    x = rng.standard_normal((T, *batch, D)).astype(dtype)
    target = rng.standard_normal((T, *batch, O)).astype(dtype)
    h0 = np.zeros((*batch, H), dtype)

    def loss(values: dict[str, np.ndarray]) -> object:
        _, y = run(values, x, h0, zero_probes(values, x))
        return squared_error(y, target)

    differentiate = jax.jit(jax.value_and_grad(loss))
    values = jax.device_put(params._asdict())
    return (
        lambda: mb.loss_and_gradients(params, x, target, h0=h0),
        lambda: jax.block_until_ready(differentiate(values)),
    )


def medians(functions: tuple[Callable[[], object], ...], seconds: float) -> list[float]:
    """Call the functions in turns for about so many seconds; return the median time of each."""
    times: list[list[float]] = [[] for _ in functions]
    for function in functions:
        function()  # compile, and warm up
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(times[0]) < 5:
        for function, own in zip(functions, times, strict=True):
            start = time.perf_counter()
            function()
            own.append(time.perf_counter() - start)
    return [statistics.median(own) for own in times]


def main() -> None:
    """Print a row for each shape and dtype."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=2.0, help="for each shape (%(default)s)")
    seconds = parser.parse_args().seconds
    for dtype in ("float64", "float32"):
        ratios = []
        print(f"{dtype}: (B, T, D, H, O), by hand [us a step], JAX's time over ours")
        for shape in SHAPES:
            with jax.enable_x64(True):
                ours, theirs = medians(contestants(shape, dtype), seconds)
            ratios.append(theirs / ours)
            print(f"{shape!s:26} {ours / shape[1] * 1e6:9.2f} {ratios[-1]:6.2f}", flush=True)
        print(f"geometric mean {statistics.geometric_mean(ratios):.2f}\n")


if __name__ == "__main__":
    main()
