"""What a forecast must beat, and by which measure."""

from collections.abc import Iterator

import numpy as np

from manual_bptt.arithmetic import reports_overflow
from manual_bptt.arrays import Array
from manual_bptt.forecasting.windows import Windows

PENALTIES = (1.0, 10.0, 100.0, 1000.0, 10000.0)
MOST_COEFFICIENTS = 4000
CHUNK = 4096  # windows that are laid out at a time


def persistence(windows: Windows) -> Array:
    """Forecast that nothing changes: the last value known at the window's end, (N, 1)."""
    return windows.last.copy()


def same_hour_yesterday(windows: Windows, known: Array) -> Array:
    """Forecast what was 24 hours before the hour to forecast, (N, 1).

    ``known`` (R,) is the column to forecast, as known at each row that the windows are made of.
    Windows shorter than 24 hours begin too late for it, and get their first hour.
    """
    before = max(len(windows.rows) - 24, 0)
    return np.asarray(known[windows.rows[before]][:, None])


@reports_overflow
def ridge(before: Windows, test: Windows) -> Array:
    """Forecast the change by linear regression on all features of all hours of a window, (N, 1).

    The squares of the coefficients are penalised, so features should be standardised. Of
    ``PENALTIES`` the one is taken that does best on the last tenth of the windows ``before`` the
    test part when fitted to the others; then all of them are fitted. Where all hours would make
    more than ``MOST_COEFFICIENTS``, only the last ones count.

    Hoerl and Kennard, Technometrics 12 (1970).
    """
    order = np.argsort(before.time, kind="stable")
    late = len(order) - max(1, len(order) // 10)
    validation = before.select(order[late:])
    learnt, held_out = _normal_equations(before.select(order[:late])), _normal_equations(validation)
    error = {
        penalty: errors(_linear(_solve(*learnt, penalty), validation), validation.target)["rmse"]
        for penalty in PENALTIES
    }
    best = min(PENALTIES, key=lambda penalty: error[penalty])
    squares, products = (a + b for a, b in zip(learnt, held_out, strict=True))
    return _linear(_solve(squares, products, best), test)


@reports_overflow
def errors(forecast: Array, truth: Array) -> dict[str, float]:
    """Return the root mean square error and the mean absolute error, in the unit of truth.

    NaN where a forecast is NaN.

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
    error = np.abs(forecast - truth)
    largest = error.max()
    if not 0 < largest < np.inf:
        return {"rmse": float(largest), "mae": float(largest)}
    power = np.frexp(largest)[1]  # of two: squares could overflow or vanish without it
    error = np.ldexp(error, -power)
    rmse, mae = np.sqrt(np.mean(error * error)), np.mean(error)
    return {"rmse": float(np.ldexp(rmse, power)), "mae": float(np.ldexp(mae, power))}


def in_chunks(windows: Windows) -> Iterator[Windows]:
    """Yield the windows, some thousands at a time, so that their x fits into memory."""
    for start in range(0, len(windows.time), CHUNK):
        yield windows.select(slice(start, start + CHUNK))


def _rows(windows: Windows) -> Array:
    """Return a row for each window: all features of its hours, and a 1 for the intercept."""
    N, D = len(windows.time), windows.hours.shape[1]
    x = windows.x[-max(1, MOST_COEFFICIENTS // D) :]  # the last hours, if there are too many
    return np.asarray(np.c_[x.transpose(1, 0, 2).reshape(N, x.shape[0] * D), np.ones(N)])


def _normal_equations(windows: Windows) -> tuple[Array, Array]:
    """Return X'X and X'z, z the changes to forecast."""
    size = _rows(windows.select(slice(0))).shape[1]
    squares, products = np.zeros((size, size)), np.zeros((size, 1))
    for part in in_chunks(windows):
        x = _rows(part)
        squares += x.T @ x
        products += x.T @ (part.target - part.last)
    return squares, products


def _solve(squares: Array, products: Array, penalty: float) -> Array:
    """Return the coefficients, (features + 1, 1); the intercept is as good as not penalised."""
    penalties = np.full(len(squares), penalty)
    penalties[-1] = min(1e-6, penalty)
    return np.asarray(np.linalg.solve(squares + np.diag(penalties), products))


def _linear(coefficients: Array, windows: Windows) -> Array:
    return np.concatenate([part.last + _rows(part) @ coefficients for part in in_chunks(windows)])
