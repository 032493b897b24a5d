"""Windows over an hourly table: T hours of features, and the target of the hour after.

    x[:, n]  = features of hours s+1 .. s+T          target[n] = target column at hour s+T+1

within one group, with every one of the T + 1 hours in the table. What an hour lacks is filled with
the last value that its group had, so a window never looks ahead; a target is never filled.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from manual_bptt.arrays import Array
from manual_bptt.forecasting.columns import DataError
from manual_bptt.forecasting.table import Table
from manual_bptt.training.scaling import moments

HOUR = np.timedelta64(1, "h")
MAX_FILL = 12  # hours for which a value stands in for missing ones after it


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

    def select(self, keep: Any) -> "Windows":
        """Return the windows that keep, (N,) of bool or a slice, picks out."""
        rest = (field[keep] for field in self[2:])
        return Windows(self.hours, self.rows[:, keep], *rest)


class Standardizer(NamedTuple):
    """Mean and deviation of each feature, (D,), and of the target, (1,)."""

    x_mean: Array
    x_scale: Array
    target_mean: Array
    target_scale: Array


def make_windows(
    table: Table,
    *,
    features: Sequence[str],
    target: str,
    length: int = 24,
    max_fill: int = MAX_FILL,
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
    filled = fill_forward(table, max_fill)
    hours = np.stack([filled.column(name) for name in features], axis=1)
    windows = cut_windows(table, hours, filled.column(target), table.column(target), length)
    if not len(windows.time):
        raise DataError(
            f"expected {length + 1} consecutive hours of one group with every feature and the "
            f"target known; none of the table's {len(table.time)} rows begins such a stretch"
        )
    return windows


def cut_windows(
    table: Table, hours: Array, last: Array, truth: Array, length: int, *, ahead: bool = False
) -> Windows:
    """Cut features that are made already into windows: all that are complete, none if none is.

    Parameters
    ----------
    table : Table
        Whose rows hours, last and truth belong to.
    hours : array, (R, D)
        The features.
    last, truth : array, (R,)
        The column to forecast as known at each hour, and as observed.
    length : int
        T, the hours in a window.
    ahead : bool
        Whether to keep a window whose target is not known, or not even in the table: its target is
        NaN. The last window of a group forecasts the hour after the table's end.

    Raises
    ------
    ValueError
        If length is below 1.

    Examples
    --------
    >>> hours = np.datetime64("2013-01-01T00") + np.arange(5)
    >>> table = Table(np.array(["A"] * 5), hours, ("temp",), np.arange(5.0)[:, None])
    >>> temp = table.column("temp")
    >>> cut_windows(table, table.values, temp, temp, 4, ahead=True).target.ravel()
    array([ 4., nan])
    """
    if length < 1:
        raise ValueError(f"length is {length}; expected at least 1")
    R = len(table.time)
    start = np.arange(max(R - length + 1, 0))
    end = start + length - 1  # the last hour of each window
    whole = _steps_on(table, start, end, length - 1)
    lacking = np.concatenate([[0], np.cumsum(np.isnan(hours).any(axis=1))])
    whole &= lacking[end + 1] == lacking[start]  # none of rows start .. end lacks a value
    whole &= ~np.isnan(last[end])
    after = np.minimum(end + 1, max(R - 1, 0))
    target = np.where(_steps_on(table, end, after, 1), truth[after], np.nan)
    keep = np.flatnonzero(whole if ahead else whole & ~np.isnan(target))
    return Windows(
        hours,
        rows=start[keep] + np.arange(length)[:, None],
        target=target[keep, None],
        last=last[end[keep], None],
        time=table.time[end[keep]] + HOUR,
        group=table.group[end[keep]],
    )


def changes_ahead(table: Table, last: Array, truth: Array) -> Array:
    """Return by how much the column to forecast changes after each row, (R,).

    That is the truth of the next hour less what is known of this one; NaN where either is missing.
    """
    change = np.full(len(last), np.nan)
    rows = np.arange(len(last) - 1)
    follows = _steps_on(table, rows, rows + 1, 1)
    change[:-1] = np.where(follows, truth[1:] - last[:-1], np.nan)
    return change


def _steps_on(table: Table, rows: Array, later: Array, hours: int) -> Array:
    """Return for each pair of rows if the later one is that many hours on, in the same group."""
    same = table.group[rows] == table.group[later]
    return np.asarray(same & (table.time[later] - table.time[rows] == hours * HOUR))


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
    first = windows.time - len(windows.rows) * HOUR  # the first hour of each window
    cut = last_part(first.min(), windows.time.max(), test_fraction)
    return split_at(windows, cut, ("training", "test"))


def last_part(first: Any, last: Any, fraction: float) -> Any:
    """Return the instant at which the last fraction of the hours from first to last begins.

    Raises
    ------
    ValueError
        If fraction is not between 0 and 1.

    Examples
    --------
    >>> last_part(np.datetime64("2013-01-01T00"), np.datetime64("2013-01-01T09"), 0.2)
    np.datetime64('2013-01-01T08','h')
    """
    if not 0 < fraction < 1:
        raise ValueError(f"test_fraction is {fraction}; expected a number between 0 and 1")
    end = last + HOUR
    return end - round(fraction * int((end - first) / HOUR)) * HOUR


def split_at(windows: Windows, instant: Any, names: tuple[str, str]) -> tuple[Windows, Windows]:
    """Split into those windows that lie before an instant, target included, and those after it.

    Raises
    ------
    DataError
        If one of the parts is empty; it is called by its name.
    """
    early = windows.time < instant
    late = windows.time - len(windows.rows) * HOUR >= instant
    for name, part in zip(names, (early, late), strict=True):
        if not part.any():
            raise DataError(
                f"expected windows of {len(windows.rows)} hours and the next on both sides of "
                f"{instant}, got no {name} window"
            )
    return windows.select(early), windows.select(late)


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
    return Standardizer(*moments(train.hours[covered]), *moments(train.target))


def standardize(standardizer: Standardizer, windows: Windows) -> Windows:
    """Return windows whose x, target and last are in deviations from the mean."""
    _, _, mean, scale = standardizer
    return standardize_hours(standardizer, windows)._replace(
        target=(windows.target - mean) / scale,
        last=(windows.last - mean) / scale,
    )


def standardize_hours(standardizer: Standardizer, windows: Windows) -> Windows:
    """Return windows whose x is in deviations from the mean, and target and last as they were."""
    x_mean, x_scale, _, _ = standardizer
    return windows._replace(hours=(windows.hours - x_mean) / x_scale)
