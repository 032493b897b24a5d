"""Windows over an hourly table: T hours of features, and the target of the hour after.

    x[:, n]  = features of hours s+1 .. s+T          target[n] = target column at hour s+T+1

within one group, with every one of the T + 1 hours in the table. What an hour lacks is filled with
the last value that its group had, so a window never looks ahead; a target is never filled.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from manual_bptt.forecasting.table import Array, DataError, Table

HOUR = np.timedelta64(1, "h")


class Windows(NamedTuple):
    """N windows of T hours, sorted by group, then time, in the units of their table.

    ``hours`` (R, D) holds the features of every row of the table and ``rows`` (T, N) which of them
    make up each window; ``x`` is the (T, N, D) array that this amounts to. ``target`` (N, 1) is the
    hour after, ``last`` (N, 1) the target column as known at the last hour of x, ``time`` (N,) the
    target's hour and ``group`` (N,) whose it is.
    """

    hours: Array
    rows: Array
    target: Array
    last: Array
    time: Array
    group: Array

    @property
    def x(self) -> Array:
        """The features, (T, N, D), a new array."""
        return self.hours[self.rows]

    def select(self, keep: Array) -> "Windows":
        """Return the windows where keep, (N,) of bool, is true."""
        rest = (field[keep] for field in self[2:])
        return Windows(self.hours, self.rows[:, keep], *rest)


class Standardizer(NamedTuple):
    """Mean and deviation of each feature, (D,), and of the target, (1,)."""

    x_mean: Array
    x_scale: Array
    target_mean: Array
    target_scale: Array


def make_windows(
    table: Table, *, features: Sequence[str], target: str, length: int = 24, max_fill: int = 12
) -> Windows:
    """Cut a table into windows of ``length`` hours and the target of the next.

    Parameters
    ----------
    table : Table
        Sorted, as ``read_table`` returns it.
    features : sequence of str
        The D columns that x holds.
    target : str
        The column to forecast; it may be one of the features.
    length : int
        T, the hours in a window.
    max_fill : int
        For how many hours a value stands in for missing ones after it. A window that still lacks a
        value is dropped, and so is one whose target is missing.

    Raises
    ------
    DataError
        If no window is complete.
    ValueError
        If length is below 1, or features or target name no column.

    Examples
    --------
    >>> hours = np.datetime64("2013-01-01T00") + np.arange(5)
    >>> table = Table(np.array(["A"] * 5), hours, ("temp",), np.arange(5.0)[:, None])
    >>> windows = make_windows(table, features=["temp"], target="temp", length=3)
    >>> windows.x[:, 0, 0], windows.target[0], windows.time[0]
    (array([0., 1., 2.]), array([3.]), np.datetime64('2013-01-01T03','h'))
    """
    if length < 1:
        raise ValueError(f"length is {length}; expected at least 1")
    filled = fill_forward(table, max_fill)
    hours = np.stack([filled.column(name) for name in features], axis=1)
    truth = table.column(target)[length:, None]
    last = filled.column(target)[length - 1 : -1, None]
    whole = (table.group[length:] == table.group[:-length]) & (
        table.time[length:] - table.time[:-length] == length * HOUR
    )
    lacking = np.concatenate([[0], np.cumsum(np.isnan(hours).any(axis=1))])
    known = lacking[length:-1] == lacking[: -length - 1]  # of rows i .. i+T-1, none lacks a value
    keep = whole & known & ~np.isnan(truth[:, 0]) & ~np.isnan(last[:, 0])
    if not keep.any():
        raise DataError(
            f"expected {length + 1} consecutive hours of one group with every feature and the "
            f"target known; none of the table's {len(table.time)} rows begins such a stretch"
        )
    start = np.flatnonzero(keep)
    rows = start + np.arange(length)[:, None]
    after = start + length
    return Windows(hours, rows, truth[keep], last[keep], table.time[after], table.group[after])


def fill_forward(table: Table, max_fill: int) -> Table:
    """Return the table with missing values replaced by their group's last, if that is recent.

    Recent means at most max_fill hours old. What comes later in the table plays no part.

    Examples
    --------
    >>> hours = np.datetime64("2013-01-01T00") + np.arange(4)
    >>> values = np.array([[1.0], [np.nan], [np.nan], [4.0]])
    >>> table = Table(np.array(["A"] * 4), hours, ("temp",), values)
    >>> fill_forward(table, max_fill=1).column("temp")
    array([ 1.,  1., nan,  4.])
    """
    known = ~np.isnan(table.values)
    rows = np.arange(len(known))[:, None]
    source = np.maximum.accumulate(np.where(known, rows, 0))  # row of the last known value
    same_group = table.group[source] == table.group[:, None]
    recent = table.time[:, None] - table.time[source] <= max_fill * HOUR
    values = np.take_along_axis(table.values, source, axis=0)
    return table._replace(values=np.where(same_group & recent, values, np.nan))


def split_by_time(windows: Windows, *, test_fraction: float = 0.2) -> tuple[Windows, Windows]:
    """Split into (train, test) at one instant for all groups; the two share no hour.

    The instant cuts off the last test_fraction of the time that the windows span. A training
    window's hours, its target's included, all lie before the instant; a test window's all lie at or
    after it. Windows across it are dropped.

    Raises
    ------
    DataError
        If one of the parts would be empty.
    ValueError
        If test_fraction is not between 0 and 1.

    Examples
    --------
    >>> hours = np.datetime64("2013-01-01T00") + np.arange(100)
    >>> table = Table(np.array(["A"] * 100), hours, ("temp",), np.arange(100.0)[:, None])
    >>> windows = make_windows(table, features=["temp"], target="temp", length=3)
    >>> train, test = split_by_time(windows)
    >>> float(train.target.max()), float(test.x.min())
    (79.0, 80.0)
    """
    if not 0 < test_fraction < 1:
        raise ValueError(f"test_fraction is {test_fraction}; expected a number between 0 and 1")
    first = windows.time - len(windows.rows) * HOUR  # the first hour of each window
    end = windows.time.max() + HOUR
    cut = end - round(test_fraction * int((end - first.min()) / HOUR)) * HOUR
    train, test = windows.time < cut, first >= cut
    for name, part in (("training", train), ("test", test)):
        if not part.any():
            raise DataError(f"expected windows on both sides of {cut}Z, got no {name} window")
    return windows.select(train), windows.select(test)


def fit_standardizer(train: Windows) -> Standardizer:
    """Return the mean and standard deviation of each feature and the target over train.

    Features are averaged over the hours that the windows cover, each counted once. A column that
    never changes gets the scale 1, and so becomes 0.

    Examples
    --------
    >>> hours = np.datetime64("2013-01-01T00") + np.arange(5)
    >>> table = Table(np.array(["A"] * 5), hours, ("temp",), np.arange(5.0)[:, None])
    >>> windows = make_windows(table, features=["temp"], target="temp", length=3)
    >>> fit_standardizer(windows).target_mean
    array([3.5])
    """
    covered = np.unique(train.rows)
    return Standardizer(*_moments(train.hours[covered]), *_moments(train.target))


def standardize(standardizer: Standardizer, windows: Windows) -> Windows:
    """Return windows whose x, target and last are in deviations from the mean."""
    x_mean, x_scale, mean, scale = standardizer
    return windows._replace(
        hours=(windows.hours - x_mean) / x_scale,
        target=(windows.target - mean) / scale,
        last=(windows.last - mean) / scale,
    )


def _moments(values: Array) -> tuple[Array, Array]:
    """Return the mean and deviation of each column, (C,) of (R, C)."""
    constant = values.min(axis=0) == values.max(axis=0)
    return values.mean(axis=0), np.where(constant, 1.0, values.std(axis=0))
