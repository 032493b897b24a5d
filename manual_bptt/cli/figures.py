"""What ``manual-bptt bench`` shows of its figures: a table or a line of each, and a picture."""

import statistics
from collections.abc import Callable
from typing import Any

from manual_bptt.cli.shared import print_table


def _print_rate(rates: dict[str, float]) -> None:
    shown = ", ".join(f"{rate / 1e9:.0f} GFLOP/s in {dtype}" for dtype, rate in rates.items())
    print(f"large matrix products, on all cores: {shown}\n")


def _print_speed(rows: list[dict[str, Any]]) -> None:
    header = ("B, T, D, H, O", "us/step", "by", "JAX", "torch", "NumPy alone, JAX", "of products")
    cells = [
        (
            ", ".join(map(str, row["shape"].values())),
            f"{row['seconds'] / row['shape']['T'] * 1e6:.2f}",
            row["fastest"],
            f"{row['ratios']['jax']:.2f}",
            f"{row['ratios']['torch']:.2f}" if "torch" in row["ratios"] else "-",
            f"{row['numpy_ratio']:.2f}",
            f"{row['of_product_rate']:.0%}",
        )
        for row in rows
    ]
    means = [f"JAX {_mean([row['ratios']['jax'] for row in rows]):.2f}"]
    if "torch" in rows[0]["ratios"]:
        means.append(f"torch {_mean([row['ratios']['torch'] for row in rows]):.2f}")
    means.append(f"JAX {_mean([row['numpy_ratio'] for row in rows]):.2f} by NumPy alone")
    print_table(
        f"loss and gradients, {rows[0]['dtype']}: the peer's time divided by ours",
        header,
        cells,
        f"geometric means: {', '.join(means)}\n",
    )


def _mean(ratios: list[float]) -> float:
    return statistics.geometric_mean(ratios)


def _print_growth(growth: dict[str, Any]) -> None:
    header = ("size", "from", "to", "seconds, NumPy", "slope", "slope of JAX")
    rows = [
        (
            axis,
            str(one["sizes"][0]),
            str(one["sizes"][-1]),
            f"{one['seconds']['ours'][0]:.2g} to {one['seconds']['ours'][-1]:.2g}",
            *(f"{one['slopes'][name]:.2f}" for name in ("ours", "jax")),
        )
        for axis, one in growth["axes"].items()
    ]
    shape = ", ".join(map(str, growth["shape"].values()))
    title = f"time as one size grows from (B, T, D, H, O) = ({shape}), float64"
    print_table(title, header, rows, "slope: the power with which it grows at the end\n")


def _print_memory(memory: dict[str, Any]) -> None:
    states = memory["states"]

    def cells(number: int | None) -> tuple[str, str]:
        if number is None:
            return "-", "-"
        return f"{number / 2**20:.0f}", f"{number / states:.2f}"

    rows = [
        (way, *cells(one["resident"]), *(cells(one["traced"]) if _is_ours(way) else ("-", "-")))
        for way, one in memory["peaks"].items()
    ]
    header = ("by", "resident MiB", "of states", "traced MiB", "of states")
    shape = ", ".join(map(str, memory["shape"].values()))
    print_table(
        f"peak memory of one call above its inputs at ({shape}), float64",
        header,
        rows,
        f"all states of the network are {states / 2**20:.0f} MiB\n",
    )


def _is_ours(way: str) -> bool:
    return way not in ("jax", "torch")


def _print_long(long: dict[str, Any]) -> None:
    peak = long["traced"] if long["resident"] is None else max(long["traced"], long["resident"])
    T, H = long["shape"]["T"], long["shape"]["H"]
    print(
        f"one gradient of {T:,} steps of {H} units, checkpoint_every='sqrt', {long['kernel']}: "
        f"{long['seconds']:.1f} s, {peak / 1e6:.0f} MB above the inputs, the gradient included "
        f"(all states would be {T * H * 8 / 1e6:.0f} MB)\n"
    )


def _print_checkpoints(rows: list[dict[str, Any]]) -> None:
    for row in rows:
        shape = ", ".join(map(str, row["shape"].values()))
        bits = "the same bits" if row["same_bits"] else "OTHER BITS"
        print(f"checkpoint_every='sqrt' at ({shape}): {row['ratio']:.2f} times the time, {bits}")
    print()


def _print_cluster(cluster: dict[str, Any]) -> None:
    bits = "the bits of one thread" if cluster["same_bits"] else "OTHER BITS"
    print(f"on a Dask cluster of {cluster['processes']} other processes: {bits}\n")


def _print_verification(found: dict[str, float]) -> None:
    print(f"verification: {found['problems_per_second']:.0f} problems judged a second, compiled")


def _print_import(found: dict[str, float]) -> None:
    numpy, both = found["numpy"] * 1e3, found["manual_bptt"] * 1e3
    print(f"import: {both:.0f} ms with NumPy, whose own import is {numpy:.0f} ms")


PRINTED: dict[str, Callable[[Any], None]] = {
    "product_rate": _print_rate,
    "speed float64": _print_speed,
    "speed float32": _print_speed,
    "growth": _print_growth,
    "memory": _print_memory,
    "long": _print_long,
    "checkpoints": _print_checkpoints,
    "cluster": _print_cluster,
    "verification": _print_verification,
    "import": _print_import,
}
"""What prints a figure, by its name."""


def plot(growth: dict[str, Any], path: str) -> None:
    """Draw the times on logarithmic axes."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.2), layout="constrained")
    meanings = {"T": "steps T", "B": "sequences B", "H": "hidden units H"}
    panels = figure.subplots(1, 3, sharey=True)
    for axes, (axis, one) in zip(panels, growth["axes"].items(), strict=True):
        for name, style in (("jax", "s--"), ("ours", "o-")):
            label = f"{'NumPy' if name == 'ours' else 'JAX'}, slope {one['slopes'][name]:.2f}"
            axes.loglog(one["sizes"], one["seconds"][name], style, label=label)
        axes.set_xlabel(meanings[axis])
        axes.grid(alpha=0.3)
        axes.legend(frameon=False)
    figure.axes[0].set_ylabel("seconds for one loss and gradient")
    others = ", ".join(f"{k} = {v}" for k, v in growth["shape"].items())
    figure.suptitle(f"float64; where it does not vary, {others}", fontsize="medium")
    figure.savefig(path, format="png", dpi=150)
