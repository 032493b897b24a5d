"""Files that a forecaster can learn from: which columns they have, and how they become a table.

Two published tables are known by their columns; of any other the caller says what it holds.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

from manual_bptt.forecasting import weather
from manual_bptt.forecasting.columns import DataError
from manual_bptt.forecasting.description import fields, integer, optional_text, text, texts
from manual_bptt.forecasting.table import Table, read_header, read_table


class Layout(NamedTuple):
    """What the columns of a file hold.

    ``kind`` is one of ``KINDS``. ``time`` names one column of ISO 8601, or those of year, month,
    day and hour; ``timezone`` is that of times without an offset, UTC if None. ``target`` is the
    column to forecast, ``unit`` its unit ("" if not known), ``columns`` those to forecast it
    from, ``group`` the one that tells stations, households or the like apart. ``offset`` is by how
    many hours the clock that people read, on standard time, is ahead of the times of the table.
    """

    kind: str
    time: tuple[str, ...]
    target: str
    columns: tuple[str, ...]
    group: str | None = None
    timezone: str | None = None
    unit: str = ""
    offset: int = 0

    @property
    def clock(self) -> tuple[int, str]:
        """``offset``, and the name of the clock that it leads to."""
        names = {"new_york": "Eastern Standard Time", "beijing": "local time"}
        zone = {None: "the file's clock", "UTC": "UTC"}
        name = zone.get(self.timezone, f"{self.timezone}, standard time")
        return self.offset, names.get(self.kind, name)

    @property
    def in_utc(self) -> bool:
        """Whether the times of the table are known to be in UTC."""
        return self.kind == "new_york" or self.timezone is not None


NEW_YORK = Layout(
    "new_york", ("time_hour",), weather.TARGET, weather.FEATURES, "origin", unit="degF", offset=-5
)

# Beijing PM2.5, of the UCI machine learning repository: hourly weather of the capital's airport and
# fine dust at the US embassy, 2010 to 2014 (Liang et al., Proceedings of the Royal Society A 471,
# 2015). Iws, Is and Ir are the run of the wind and the hours of snow and rain, cumulated.
BEIJING = Layout(
    "beijing",
    ("year", "month", "day", "hour"),
    "TEMP",
    ("TEMP", "DEWP", "PRES", "pm2.5", "Iws", "Is", "Ir", "cbwd"),
    unit="degC",
)
WIND = MappingProxyType({"cbwd": ("NW", "NE", "SE", "cv")})
KINDS = (NEW_YORK.kind, BEIJING.kind, "columns")


_KINDS_OF_FIELDS = {
    "kind": text,
    "time": texts,
    "target": text,
    "columns": texts,
    "group": optional_text,
    "timezone": optional_text,
    "unit": text,
    "offset": integer,
}


def as_layout(fields_of_layout: Any) -> Layout:
    """Return the layout with these fields, which come from JSON.

    Raises
    ------
    TypeError, ValueError
        If they are not those of a layout.

    Examples
    --------
    >>> as_layout(NEW_YORK._asdict()) == NEW_YORK
    True
    """
    layout = Layout(**fields("layout", fields_of_layout, _KINDS_OF_FIELDS))
    if layout.kind not in KINDS:
        raise ValueError(f"kind is {layout.kind!r}; expected one of {', '.join(KINDS)}")
    if len(layout.time) not in (1, 4):
        raise ValueError(f"time is {layout.time}; expected one column or four")
    return layout


def with_clock(layout: Layout, table: Table) -> Layout:
    """Return the layout with the clock that a table turns out to have.

    Times that all have an offset are in UTC. A timezone has its standard time of the table's end.
    """
    if layout.kind != "columns" or not table.in_utc:
        return layout
    if layout.timezone in (None, "UTC"):
        return layout._replace(timezone="UTC")
    year, zone = table.time.max().astype(object).year, ZoneInfo(layout.timezone)
    ahead = (datetime(year, month, 1, tzinfo=zone).utcoffset() for month in (1, 7))
    hours = min(offset / timedelta(hours=1) for offset in ahead if offset is not None)
    return layout._replace(offset=round(hours))


def recognise(path: str | Path) -> Layout | None:
    """Return the layout of a published table, or None for any other.

    Raises
    ------
    DataError
        If the file cannot be read.

    Examples
    --------
    >>> recognise(weather.weather_path()) == NEW_YORK
    True
    """
    header = {*read_header(path)}
    known = {NEW_YORK: {"origin", "time_hour", *weather.OBSERVED}}
    known[BEIJING] = {*BEIJING.time, *BEIJING.columns}
    return next((layout for layout, names in known.items() if names <= header), None)


def describe(
    path: str | Path,
    *,
    time: Sequence[str],
    target: str,
    columns: Sequence[str] = (),
    group: str | None = None,
    timezone: str | None = None,
    unit: str = "",
) -> Layout:
    """Return the layout of a file by what its columns are said to be.

    With no columns to forecast from, all that are neither time nor group are taken. The target is
    always among them.

    Raises
    ------
    DataError
        If the file cannot be read.
    """
    header = read_header(path)
    taken = {*time, group, ""}
    for name in columns:
        if name in taken:
            raise DataError(f"{path}: {name}: expected a feature, got a column of time or group")
    others = dict.fromkeys(name for name in columns or header if name not in {*taken, target})
    return Layout("columns", tuple(time), target, (target, *others), group, timezone, unit)


def read_source(path: str | Path, layout: Layout) -> Table:
    """Read a file as its layout says, what cannot be true treated as missing where that is known.

    Raises
    ------
    DataError
        If the file is not such a table; the message names file, line and column.
    """
    if layout.kind == "new_york":
        return weather.load_weather(path)
    table = read_table(
        path,
        time=layout.time,
        columns=layout.columns,
        group=layout.group,
        timezone=layout.timezone,
        categories=WIND if layout.kind == "beijing" else None,
        guess=layout.kind == "columns",
    )
    if layout.target in table.levels:
        example = table.levels[layout.target][0]
        raise DataError(f"{path}: {layout.target}: expected numbers to forecast, got {example!r}")
    return table
