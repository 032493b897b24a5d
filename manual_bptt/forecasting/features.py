"""What a network reads of each hour: features made from the columns of a table.

Of every hour and group, as known at that hour:

    numbers      each column of numbers; where missing, the group's last value, if recent
    changes      each number less the one of the hour before; 0 where that hour is not there
    sun          sin and cos of the hour angle and of twice it, the season, and their products
    categories   1 for the level of each column of categories, 0 for the others
    place        1 for the group of the row, 0 for the others
    neighbours   the target at every group less the target here; 0 where one of them is not known

The season is -cos(2 pi (d + 10) / 365.25) on day d of the year: the declination of the sun, from -1
on December 22 to 1 in June, to within two percent. With its products, a linear function of the
features can follow the height of the sun at any place, whatever its coordinates.
"""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from manual_bptt.arrays import Array
from manual_bptt.forecasting.columns import DataError
from manual_bptt.forecasting.table import Table
from manual_bptt.forecasting.windows import HOUR, MAX_FILL, fill_forward

MAX_GROUPS = 10  # with more, neither place nor neighbours
LEAST_KNOWN = 0.5  # share of the hours at which a column must be known to be of use


class Inputs(NamedTuple):
    """Which features a network reads; what a table can teach about it, from its training part.

    ``numbers`` are the columns of numbers, ``levels`` those of categories with their levels,
    ``groups`` the groups that place and neighbours tell apart, ``target`` the column forecast.
    ``derived`` says whether there are other features than the columns themselves.
    """

    numbers: tuple[str, ...]
    levels: Mapping[str, tuple[str, ...]]
    groups: tuple[str, ...]
    target: str
    derived: bool = True

    @property
    def names(self) -> tuple[str, ...]:
        """The D features, in order."""
        if not self.derived:
            return self.numbers
        return (
            *self.numbers,
            *(f"change of {name}" for name in self.numbers),
            *SUN,
            *(f"{name} is {level}" for name, levels in self.levels.items() for level in levels),
            *(f"at {group}" for group in self.groups),
            *(f"{self.target} at {group} less here" for group in self.groups),
        )


ANGLES = ("sin", "cos", "sin 2", "cos 2")
SUN = ("season", *(f"{a} hour" for a in ANGLES), *(f"season x {a} hour" for a in ANGLES))


def learn_inputs(train: Table, target: str, *, derived: bool = True) -> Inputs:
    """Return the features that the training part of a table supports.

    Columns that are unknown at more than half of the hours, levels and groups that never occur,
    and columns of categories with a single level are left out.

    Raises
    ------
    DataError
        If the target itself is unknown at more than half of the hours.

    Examples
    --------
    >>> hours = np.datetime64("2013-01-01T00") + np.arange(4)
    >>> values = np.array([[1.0, 5.0], [2.0, np.nan], [3.0, np.nan], [4.0, np.nan]])
    >>> table = Table(np.array(["A"] * 4), hours, ("temp", "snow"), values)
    >>> learn_inputs(table, "temp").numbers
    ('temp', 'snow')
    >>> learn_inputs(table._replace(time=hours + 24 * np.arange(4)), "temp").numbers
    ('temp',)
    """
    filled = fill_forward(train, MAX_FILL)
    known = dict(zip(filled.names, (~np.isnan(filled.values)).mean(axis=0), strict=True))
    if not known[target] >= LEAST_KNOWN:
        raise DataError(
            f"{target}: expected it known at half of the training hours at least, "
            f"got {known[target]:.0%}"
        )
    groups = tuple(np.unique(train.group).tolist())
    levels = {name: _seen(train, name) for name in train.levels if derived}
    return Inputs(
        numbers=tuple(n for n in train.names if n not in train.levels and known[n] >= LEAST_KNOWN),
        levels={name: seen for name, seen in levels.items() if len(seen) > 1},
        groups=groups if derived and 1 < len(groups) <= MAX_GROUPS else (),
        target=target,
        derived=derived,
    )


def compute_features(inputs: Inputs, table: Table) -> Array:
    """Return the features of every row of a table, (R, D); NaN where a number is not known.

    Raises
    ------
    DataError
        If a column is missing, or holds text where numbers are expected or the reverse.

    Examples
    --------
    >>> hours = np.datetime64("2013-06-21T00") + np.arange(3)
    >>> table = Table(np.array(["A"] * 3), hours, ("temp",), np.array([[1.0], [np.nan], [4.0]]))
    >>> features = compute_features(learn_inputs(table, "temp"), table)
    >>> features[:, :2]  # temp, and its change
    array([[1., 0.],
           [1., 0.],
           [4., 3.]])
    """
    _require_columns(inputs, table)
    filled = fill_forward(table, MAX_FILL)
    numbers = np.stack([filled.column(name) for name in inputs.numbers], axis=1)
    if not inputs.derived:
        return numbers
    parts = [numbers, _changes(filled, numbers), _sun(table.time)]
    parts += [_one_hot(filled, name, levels) for name, levels in inputs.levels.items()]
    if inputs.groups:
        parts += [
            (table.group[:, None] == np.array(inputs.groups)).astype(float),
            _neighbours(filled, inputs),
        ]
    return np.concatenate(parts, axis=1)


def _require_columns(inputs: Inputs, table: Table) -> None:
    for name in (*inputs.numbers, *inputs.levels):
        if name not in table.names:
            raise DataError(f"{name}: expected a column of this name, got {', '.join(table.names)}")
        text, wanted = name in table.levels, name in inputs.levels
        if text and not wanted:
            raise DataError(f"{name}: expected numbers, got text such as {table.levels[name][0]!r}")
        if wanted and not text and not np.isnan(table.column(name)).all():
            raise DataError(f"{name}: expected text, got numbers")


def _seen(table: Table, name: str) -> tuple[str, ...]:
    codes = table.column(name)
    return tuple(table.levels[name][int(code)] for code in np.unique(codes[~np.isnan(codes)]))


def _changes(filled: Table, numbers: Array) -> Array:
    """Return each row less the row of the hour before, 0 where that row or a number is missing."""
    change = np.zeros_like(numbers)
    change[1:] = np.nan_to_num(numbers[1:] - numbers[:-1])
    follows = (filled.group[1:] == filled.group[:-1]) & (filled.time[1:] - filled.time[:-1] == HOUR)
    change[1:][~follows] = 0
    return change


def _sun(time: Array) -> Array:
    """Return the nine features ``SUN`` of each hour, (R, 9)."""
    angle = 2 * np.pi * (time.astype("datetime64[h]").astype(int) % 24) / 24
    day = (time - time.astype("datetime64[Y]")) / np.timedelta64(1, "D")
    season = -np.cos(2 * np.pi * (day + 10) / 365.25)[:, None]
    angles = np.stack([f(k * angle) for k in (1, 2) for f in (np.sin, np.cos)], axis=1)
    return np.concatenate([season, angles, season * angles], axis=1)


def _one_hot(filled: Table, name: str, levels: tuple[str, ...]) -> Array:
    """Return (R, levels): 1 for the level of each row; a level not known to inputs has no 1."""
    if name not in filled.levels:
        return np.zeros((len(filled.time), len(levels)))
    codes = filled.column(name)
    texts = np.array([*filled.levels[name], ""])[np.nan_to_num(codes, nan=-1).astype(int)]
    return np.asarray((texts[:, None] == np.array(levels)).astype(float))


def _neighbours(filled: Table, inputs: Inputs) -> Array:
    """Return the target at each of the groups less the target of the row, (R, groups)."""
    here = filled.column(inputs.target)
    less_here = np.zeros((len(here), len(inputs.groups)))
    for position, group in enumerate(inputs.groups):
        rows = np.flatnonzero(filled.group == group)
        if rows.size:
            at = rows[np.minimum(np.searchsorted(filled.time[rows], filled.time), len(rows) - 1)]
            there = np.where(filled.time[at] == filled.time, here[at], np.nan)
            less_here[:, position] = np.nan_to_num(there - here)
    return less_here
