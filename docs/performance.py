"""Measure what docs/performance.md says: python docs/performance.py (some eight minutes).

Keeps what was measured in docs/performance.json, draws docs/growth.png, and writes the tables
between the markers of that page and of the README. ``--render`` writes them from what was kept.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from markers import commit, table, write_part

DOCS = Path(__file__).resolve().parent
PAGE, README, FOUND = (
    DOCS / "performance.md", DOCS.parent / "README.md", DOCS / "performance.json",
)  # fmt: skip
SHAPE = "(B, T, D, H, O)"
BANDWIDTH, LATENCY = 1.25e9, 50e-6  # bytes a second (10 Gbit/s) and seconds a message, assumed


def measure() -> None:
    """Run both commands, and keep what they have measured."""
    benchmark = ["-m", "manual_bptt.cli", "bench", "--plot", str(DOCS / "growth.png")]
    commands = {"bench": benchmark, "changes": [str(DOCS.parent / "benchmarks" / "changes.py")]}
    found = {}
    for name, command in commands.items():
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "found.json")
            subprocess.run([sys.executable, *command, "--json", str(path)], check=True)
            found[name] = {"commit": commit(), **json.loads(path.read_text(encoding="utf-8"))}
    FOUND.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


def sizes(shape: Any) -> str:
    """Return a shape as the pages write it."""
    return ", ".join(map(str, shape.values() if isinstance(shape, dict) else shape))


def text(lines: list[str]) -> str:
    """Return lines as a part of a page."""
    return "\n".join(lines) + "\n"


def means(rows: list[dict[str, Any]]) -> dict[str, float]:
    """Return the geometric means of the ratios."""
    return {
        peer: statistics.geometric_mean(row["ratios"][peer] for row in rows)
        for peer in rows[0]["ratios"]
    }


def numpy_alone(rows: list[dict[str, Any]]) -> dict[str, float]:
    """Return the geometric means of the ratios that the default way has."""
    return {
        peer: statistics.geometric_mean(
            row["ratios"][peer] * row["seconds"] / row["times"]["numpy"] for row in rows
        )
        for peer in rows[0]["ratios"]
    }


def machine(found: dict[str, Any], of: str) -> str:
    """Return the sentence that says where the figures of a command are from."""
    bench = found["bench"]
    versions = ", ".join(f"{k} {v}" for k, v in bench["versions"].items() if k != "manual_bptt")
    where = f"{bench['machine']['cores']} cores ({bench['machine']['processor']})"
    how = f"Measured at commit {found[of]['commit']} by `python docs/performance.py`"
    return f"{how}, on {where} with {versions}."


def speed(bench: dict[str, Any]) -> Iterator[str]:
    """Yield the lines of both tables of shapes."""
    for dtype, rate in bench["product_rate"].items():
        rows = bench[f"speed {dtype}"]
        header = (SHAPE, "us a step", "by", "JAX", "torch", "NumPy alone, JAX", "of products")
        cells = [
            (
                sizes(row["shape"]),
                f"{row['seconds'] / row['shape']['T'] * 1e6:.2f}",
                row["fastest"],
                *(f"{row['ratios'][peer]:.2f}" for peer in ("jax", "torch")),
                f"{row['numpy_ratio']:.2f}",
                f"{row['of_product_rate']:.0%}",
            )
            for row in rows
        ]
        mean = means(rows)
        yield f"{dtype}, where a large matrix product makes {rate / 1e9:.0f} GFLOP/s:\n"
        yield from table(header, cells)
        yield f"\nGeometric means: JAX {mean['jax']:.2f}, torch {mean['torch']:.2f}.\n"


def short(bench: dict[str, Any]) -> Iterator[str]:
    """Yield the lines of the README's table."""
    dtypes = list(bench["product_rate"])
    header = (SHAPE, *(f"{peer}, {d}" for d in dtypes for peer in ("JAX", "torch")))
    by_shape = zip(*(bench[f"speed {dtype}"] for dtype in dtypes), strict=True)
    cells = [
        (
            sizes(same[0]["shape"]),
            *(f"{row['ratios'][peer]:.2f}" for row in same for peer in ("jax", "torch")),
        )
        for same in by_shape
    ]
    mean = [means(bench[f"speed {dtype}"]) for dtype in dtypes]
    of_all = [f"{one[peer]:.2f}" for one in mean for peer in ("jax", "torch")]
    alone = [f"{numpy_alone(bench[f'speed {d}'])[k]:.2f}" for d in dtypes for k in ("jax", "torch")]
    yield from table(
        header,
        [*cells, ("geometric mean", *of_all), ("geometric mean, NumPy alone", *alone)],
    )


def memory(bench: dict[str, Any]) -> Iterator[str]:
    """Yield the lines on memory and on long sequences."""
    peaks, states = bench["memory"]["peaks"], bench["memory"]["states"]
    header = ("by", "peak, MiB", "of all states")
    cells = [
        (way, f"{one['resident'] / 2**20:.0f}", f"{one['resident'] / states:.2f}")
        for way, one in peaks.items()
    ]
    shape = sizes(bench["memory"]["shape"])
    yield f"Resident memory of one call above its inputs at ({shape}), float64:\n"
    yield from table(header, cells)
    long = bench["long"]
    size = max(long["resident"], long["traced"]) / 1e6
    T, D, H = (long["shape"][k] for k in "TDH")
    inputs, states = (f"{8 * T * n / 1e6:.0f} MB" for n in (D, H))
    yield (
        f'\nOne gradient of {T:,} steps of {H} units with `checkpoint_every="sqrt"`: '
        f"{long['seconds']:.1f} s, and {size:.0f} MB above the inputs, of which the gradient in x "
        f"is {inputs}; all states would be {states}."
    )
    for row in bench["checkpoints"]:
        bits = "the same bits" if row["same_bits"] else "other bits"
        cost = f"{row['ratio']:.2f} times the time of storing all states"
        yield f"\nAt ({sizes(row['shape'])}) it takes {cost}, to {bits}."


def changes(found: dict[str, Any]) -> Iterator[str]:
    """Yield the lines of the table of changes."""
    header = (SHAPE, *map(sizes, found["shapes"]))
    rows = [(name, *(f"{ratio:.2f}" for ratio in row)) for name, row in found["ratios"].items()]
    yield from table(header, rows)


def parts(found: dict[str, Any]) -> Iterator[str]:
    """Yield the lines of the table of the parts of a small call."""
    header = (f"microseconds at ({sizes(found['small'])}), float64", "")
    yield from table(header, [(k, f"{v * 1e6:.0f}") for k, v in found["parts"].items()])


def large(found: dict[str, Any]) -> Iterator[str]:
    """Yield the lines of the table of large calls."""
    (first, *_) = found["large"].values()
    rows = [
        (
            name,
            *(f"{rate / 1e9:.0f}" for rate in rates.values()),
            f"{rates['the call'] / rates['the products of the call alone']:.0%}",
        )
        for name, rates in found["large"].items()
    ]
    yield from table((f"GFLOP/s at {SHAPE}", *first, "call / its products"), rows)


def machines(bench: dict[str, Any]) -> Iterator[str]:
    """Yield the lines on more machines than one: time of computing against time of adding up."""
    header = (SHAPE, "gradient, KB", "one machine, ms", "ring of 8, ms",
              "machines to half efficiency", "rows a machine", "executor of 2")  # fmt: skip
    cells = []
    for row in bench["speed float64"]:
        B, T, D, H, O = row["shape"].values()
        if B < 16:
            continue
        size = 8 * (H * (H + D + 1 + O) + O)
        alone = row["seconds"]
        by_row = alone / (B * T)

        def ring(n: int, size: int = size) -> float:
            return 2 * (n - 1) / n * size / BANDWIDTH + 2 * (n - 1) * LATENCY

        wire = 8 * (3 * D + 2 * O) / BANDWIDTH
        executor = by_row / (by_row * 4 / 3 / 2 + wire)
        enough = max(n for n in range(1, B + 1) if alone / n >= ring(n))
        cells.append((
            sizes(row["shape"]), f"{size / 1e3:.1f}", f"{alone * 1e3:.2f}", f"{ring(8) * 1e3:.2f}",
            str(enough), f"{ring(max(2, enough)) / by_row:,.0f}",
            f"{executor:.2f}",
        ))  # fmt: skip
    yield from table(header, cells)


def main() -> None:
    """Measure, unless told to write what was measured, and write."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--render", action="store_true", help="do not measure anew")
    if not parser.parse_args().render:
        measure()
    found = json.loads(FOUND.read_text(encoding="utf-8"))
    written = {"bench": (speed, memory, machines), "changes": (changes, parts, large)}
    for of, parts_of_page in written.items():
        for part in parts_of_page:
            write_part(part.__name__, text([*part(found[of])]), PAGE, machine(found, of))
    write_part("speed", text([*short(found["bench"])]), README, machine(found, "bench"))


if __name__ == "__main__":
    main()
