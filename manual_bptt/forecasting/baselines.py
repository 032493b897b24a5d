"""What a forecast must beat, and by which measure."""

import numpy as np

from manual_bptt.forecasting.table import Array
from manual_bptt.forecasting.windows import Windows


def persistence(windows: Windows) -> Array:
    """Forecast that nothing changes: the last value known at the window's end, (N, 1)."""
    return windows.last.copy()


def errors(forecast: Array, truth: Array) -> dict[str, float]:
    """Return the root mean square error and the mean absolute error, in the unit of truth.

    Raises
    ------
    ValueError
        If the shapes differ.

    Examples
    --------
    >>> errors(np.array([[1.0], [2.0]]), np.array([[4.0], [6.0]]))
    {'rmse': 3.5355339059327378, 'mae': 3.5}
    """
    if forecast.shape != truth.shape:
        raise ValueError(f"forecast has shape {forecast.shape}; expected {truth.shape}, as truth")
    error = forecast - truth
    return {
        "rmse": float(np.sqrt(np.mean(error * error))),
        "mae": float(np.mean(np.abs(error))),
    }
