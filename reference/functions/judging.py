"""Judging one leaf of a gradient: how far it is from autodiff's, and how far it may be."""

from typing import Any

import numpy as np

from reference.functions.leaf_report import Leaf
from reference.functions.trees import MISSING
from reference.rounding.tolerance import FLUSHED, MULTIPLE, decides, over_tolerance
from reference.user_code import as_array

ULPS = 4.0


def tolerance(truth: np.ndarray, runs: list[np.ndarray], dtype: np.dtype[Any]) -> np.ndarray:
    """Return how far each entry may be off, by what runs with rounding errors are off."""
    largest = np.abs(truth).max(initial=0)
    with np.errstate(invalid="ignore", over="ignore"):  # what overflows decides nothing
        deviation: np.ndarray = np.abs(np.stack(runs) - truth).max(axis=0)
        ulp = float(np.spacing(dtype.type(largest)))
    return MULTIPLE * deviation + ULPS * ulp + FLUSHED * float(np.finfo(dtype).tiny)


def judge(
    label: str,
    leaf: Any,
    truth: np.ndarray,
    allowed: np.ndarray,
    dtype: np.dtype[Any],
    notes: list[str],
    u: float = 0.0,
) -> Leaf:
    """Judge one leaf of the gradient, and note if it came in another precision.

    u is the unit roundoff of the formats that are declared.
    """
    if leaf is None:
        return Leaf(label, "not returned")
    if leaf is MISSING:
        return Leaf(label, "missing", detail=f"expected a leaf at {label}, or None to leave it out")
    value = as_array(leaf)
    if isinstance(value, str):
        return Leaf(label, "raised", detail=f"expected an array of real numbers, got {value}")
    if value.dtype != dtype and type(leaf) is not float:
        notes.append(f"{label} came as {value.dtype}, though the arguments are {dtype}")
    if value.shape != truth.shape:
        return Leaf(label, "wrong shape", detail=f"shape {value.shape}, expected {truth.shape}")
    if value.size == 0:
        return Leaf(label, "match")
    return _measured(label, value.astype(np.float64), truth, allowed, dtype, u)


def _measured(
    label: str,
    value: np.ndarray,
    truth: np.ndarray,
    allowed: np.ndarray,
    dtype: np.dtype[Any],
    u: float,
) -> Leaf:
    """Judge a leaf by the entry whose error is the largest multiple of its tolerance."""
    largest = float(np.abs(truth).max())
    if not largest < float(np.finfo(dtype).max) * 1e-6:  # the code need not be finite either
        return Leaf(label, "nothing proved", detail=f"autodiff's largest entry is {largest:.3g}")
    finite = np.isfinite(value)
    ratios = over_tolerance(value - truth, allowed) if finite.all() else np.where(finite, 0, 1)
    worst = np.abs(truth) if not ratios.any() else ratios
    index = tuple(int(i) for i in np.unravel_index(np.argmax(worst), worst.shape))
    expected, got = float(truth[index]), float(value[index])
    if not finite.all():
        detail = f"{got} where autodiff is finite"
        return Leaf(label, "non-finite", index, expected, got, detail=detail)
    status, detail = "mismatch" if ratios[index] > 1 else "match", ""
    if not decides(truth, allowed, dtype, u):
        status = "nothing proved"
        most = float(allowed.max())
        detail = f"rounding explains up to {most:.2g}, and the largest entry is {largest:.2g}"
        if not np.isfinite(most):  # such as a power of a negative number, or a label
            detail = "with rounding errors autodiff is not finite; are all whole numbers integers?"
    ulp = abs(got - expected) / float(np.spacing(dtype.type(largest))) if largest else None
    ratio = float(ratios[index])
    return Leaf(
        label, status, index, expected, got, ulp, ratio, float(allowed[index]), detail=detail
    )
