"""Hourly tables: one row for each hour of each group (a weather station, a household, ...).

``read_table`` turns a CSV file into arrays, or says in one line what is wrong with it and where.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

import numpy as np

from manual_bptt.arrays import Array
from manual_bptt.forecasting.columns import (
    Column,
    DataError,
    header_of,
    plain,
    read_columns,
    read_rows,
    refusal,
    short,
)
from manual_bptt.forecasting.hours import CALENDAR, hours_of, to_utc, zone_named
from manual_bptt.forecasting.values import groups_of, levels_of, numbers_of

LOCAL_HINT = (
    "; if these times are a local clock's, which shows one hour twice in autumn, give its timezone"
)


class Table(NamedTuple):
    """R rows sorted by group, then time; no group has two rows for one hour.

    ``group`` is (R,) of str, ``time`` (R,) of datetime64[h] in UTC, ``names`` the C columns, and
    ``values`` (R, C) of float64 with NaN where a value is missing. A column of categories is named
    in ``levels``; it holds the position of each row's category there. ``in_utc`` is false if the
    file has times without an offset, of a clock that nobody named.
    """

    group: Array
    time: Array
    names: tuple[str, ...]
    values: Array
    levels: Mapping[str, tuple[str, ...]] = MappingProxyType({})
    in_utc: bool = True

    def position(self, name: str) -> int:
        """Return which column of values has this name, or raise ValueError."""
        if name not in self.names:
            raise ValueError(f"no column {name!r}; expected one of {', '.join(self.names)}")
        return self.names.index(name)

    def column(self, name: str) -> Array:
        """Return one column, (R,)."""
        return self.values[:, self.position(name)]


def read_header(path: str | Path) -> tuple[str, ...]:
    """Return the names of a CSV file's columns, which are the cells of its first line.

    Names may be empty or occur twice; ``read_table`` objects when asked for such a column.

    Raises
    ------
    DataError
        If the file cannot be read or its first line is empty.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder, "t.csv")
    ...     _ = path.write_text("place, hour, temp\\n")
    ...     read_header(path)
    ('place', 'hour', 'temp')
    """
    path = Path(path)
    header = header_of(read_rows(path))
    if not header:
        raise DataError(f"{plain(path)}:1: expected the names of columns, got an empty line")
    return header


def read_table(
    path: str | Path,
    *,
    time: str | Sequence[str],
    columns: Sequence[str],
    group: str | None = None,
    timezone: str | None = None,
    categories: Mapping[str, Sequence[str]] | None = None,
    guess: bool = False,
) -> Table:
    """Read the named columns of a CSV file whose first line is a header.

    A cell that is empty, NA, N/A, NaN, null or None, in any case, is missing; only in a column of
    categories is None a text like any other. A second row for an hour of a group is left out if it
    holds the same values as the first. Other columns are ignored.

    Parameters
    ----------
    path : path
        The file, in UTF-8 and separated by commas.
    time : str, or four of them
        The column of times in ISO 8601, each with its offset from UTC or without one; or the
        columns of the year, the month, the day and the hour (0 to 23).
    columns : sequence of str
        The columns to read: of numbers, unless categories or guess say otherwise.
    group : str, optional
        The column that says whose row it is. If None, all rows are of one group, named "".
    timezone : str, optional
        The IANA name of the clock that shows the times without an offset; UTC if None. Of the hour
        that this clock repeats in autumn, a group's first row is the earlier.
    categories : mapping, optional
        The texts that each column of categories may hold. One of them may look like a missing cell.
    guess : bool
        Whether a further column that holds texts and no numbers is one of categories. They are
        sorted.

    Raises
    ------
    DataError
        If the file cannot be read or a column is missing; for a row with too few or too many
        cells, a cell that is no finite number or none of its column's categories, a time that is
        no whole hour of UTC or that the clock skips in spring, and a second row for one hour of a
        group with other values. If a guessed column holds both numbers and texts, or more than
        50 texts.
    ValueError
        If time names neither one nor four columns, timezone is unknown, or categories names a
        column that is not read.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder, "t.csv")
    ...     _ = path.write_text("hour,temp,sky\\n2013-01-01 06:00,39.02,clear\\n")
    ...     table = read_table(
    ...         path, time="hour", columns=["temp", "sky"], timezone="America/New_York", guess=True
    ...     )
    >>> table.time, table.values
    (array(['2013-01-01T11'], dtype='datetime64[h]'), array([[39.02,  0.  ]]))
    >>> table.levels["sky"]
    ('clear',)
    """
    times = (time,) if isinstance(time, str) else tuple(time)
    zone = None if timezone is None else zone_named(timezone)
    categories = categories or {}
    _check_arguments(times, columns, categories)
    found = read_columns(Path(path), [*times, *([] if group is None else [group]), *columns])
    when = found[times[0]]._replace(name=", ".join(times))  # to say where a time is wrong

    hours, local = hours_of([found[name] for name in times])
    names, of = np.array([""]), np.zeros(len(hours), int)
    if group is not None:
        names, of = groups_of(found[group])
    if zone is not None:
        hours = to_utc(when, hours, local, of, zone)
    levels = levels_of([found[name] for name in columns], categories, guess)
    values = np.empty((len(hours), len(columns)))
    for i, name in enumerate(columns):
        values[:, i] = numbers_of(found[name], levels.get(name))

    order = np.lexsort((hours, of))
    table = Table(
        names[of[order]],
        hours[order],
        tuple(columns),
        values[order],
        MappingProxyType(levels),
        in_utc=zone is not None or not local.any(),
    )
    keep = _firsts(when, table, order, hint=local & (zone is None))
    return table._replace(group=table.group[keep], time=table.time[keep], values=table.values[keep])


def _check_arguments(
    times: Sequence[str], columns: Sequence[str], categories: Iterable[str]
) -> None:
    if len(times) not in (1, len(CALENDAR)):
        raise ValueError(
            f"time names {len(times)} columns; expected one, or four: year, month, day, hour"
        )
    for name in categories:
        if name not in columns:
            raise ValueError(f"categories names {name!r}; expected one of {', '.join(columns)}")


def _firsts(column: Column, table: Table, order: Array, hint: Array) -> Array:
    """Return which rows of a sorted table, (R,) of bool, are the first for an hour of a group.

    The table's row i is row order[i] of the file. A further one with other values is refused.
    """
    group, time, values = table.group, table.time, table.values
    again = 1 + np.flatnonzero((group[1:] == group[:-1]) & (time[1:] == time[:-1]))
    first, second = values[again - 1], values[again]
    differs = (first != second) & ~(np.isnan(first) & np.isnan(second))
    if differs.any():
        i = again[differs.any(axis=1).argmax()]
        name = table.names[differs[again == i][0].argmax()]
        owner = f" for {plain(short(group[i]))}" if group[i] else ""
        raise refusal(
            column,
            order[i],
            "one row an hour",
            f"a second one{owner} at {time[i]}Z (the first is line {column.lines[order[i - 1]]})",
            f", with another {plain(name)}" + LOCAL_HINT * bool(hint[order[i]]),
        )
    return np.isin(np.arange(len(time)), again, invert=True)
