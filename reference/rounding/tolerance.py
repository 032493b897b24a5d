"""Errors in multiples of tolerances, and what tolerances are multiples of."""

from typing import Any

import numpy as np

V64 = 2.0**-53  # the unit roundoff of autodiff, which is in float64
PROVES = 1e-3  # of the largest entry: a tolerance beyond decides nothing
COARSE = 64.0  # units of a declared format, of the largest entry: so where that is more
RUNS = 8  # with other rounding errors, of which the largest deviation is taken
MULTIPLE = 8.0  # of that deviation is what rounding can explain
FLUSHED = 64.0  # times tiny: what is so small may have been flushed to zero on the way

Measure = tuple[np.ndarray, np.ndarray]
"""What an array must be, and the tolerance of each entry."""


def decides(expected: np.ndarray, tolerance: np.ndarray, dtype: Any, u: float = 0.0) -> bool:
    """Return whether a tolerance is small beside the largest entry, or below what is flushed.

    u is the unit roundoff of the formats that are declared.
    """
    info = np.finfo(dtype)
    least = float(info.tiny) / float(info.eps)
    return bool(tolerance.max() <= max(PROVES, COARSE * u) * np.abs(expected).max() + least)


def over_tolerance(errors: np.ndarray, tolerance: np.ndarray) -> np.ndarray:
    """Return each error in multiples of its tolerance; no error is 0, even of no tolerance."""
    errors = np.abs(errors)
    ratios = np.where(errors > 0, np.inf, 0.0)
    np.divide(errors, tolerance, out=ratios, where=tolerance > 0)
    return ratios
