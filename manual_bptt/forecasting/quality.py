"""Values that cannot be true, found by rule and treated as missing.

A value is refused if it lies outside physical limits, or if it is further from the last accepted
value of its group than the quantity can move in the hours between. The judgement of an hour uses
that hour and the past, never the future, so that a forecast made at that hour could have used it.
"""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from manual_bptt.arrays import Array
from manual_bptt.forecasting.table import Table


class Rule(NamedTuple):
    """Limits of a column, and by how much it can change in an hour (None: not judged)."""

    low: float
    high: float
    per_hour: float | None = None


def mask_impossible(table: Table, rules: Mapping[str, Rule]) -> Table:
    """Return the table with every value that breaks its column's rule replaced by NaN.

    The allowance for change grows with the hours since the last accepted value, so a refused value
    cannot lock out the true ones after it for long.

    Raises
    ------
    ValueError
        If a rule names a column that the table lacks.

    Examples
    --------
    >>> hours = np.array(["2013-01-01T00", "2013-01-01T01", "2013-01-01T02"], "datetime64[h]")
    >>> table = Table(np.array(["A"] * 3), hours, ("temp",), np.array([[57.0], [13.1], [57.2]]))
    >>> mask_impossible(table, {"temp": Rule(-60, 130, per_hour=35)}).column("temp")
    array([57. ,  nan, 57.2])
    """
    values = table.values.copy()
    for name, rule in rules.items():
        column = values[:, table.position(name)]
        column[(column < rule.low) | (column > rule.high)] = np.nan
        if rule.per_hour is not None:
            column[_jumps(table, column, rule.per_hour)] = np.nan
    return table._replace(values=values)


def _jumps(table: Table, column: Array, per_hour: float) -> list[int]:
    """Return the rows whose value the last accepted one of their group could not have reached."""
    rows = np.flatnonzero(~np.isnan(column))
    _, group = np.unique(table.group[rows], return_inverse=True)
    known = zip(
        rows.tolist(),
        group.tolist(),
        table.time[rows].astype(int).tolist(),
        column[rows].tolist(),
        strict=True,
    )
    refused = []
    last_group, last_hour, last = None, 0, 0.0
    for row, of, hour, value in known:
        if of == last_group and abs(value - last) > per_hour * (hour - last_hour):
            refused.append(row)
        else:
            last_group, last_hour, last = of, hour, value
    return refused
