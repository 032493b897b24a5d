"""The hours of a table: from times in ISO 8601 or a calendar, and from a local clock to UTC."""

from collections.abc import Sequence
from datetime import UTC, datetime
from functools import partial
from zoneinfo import ZoneInfo

import numpy as np

from manual_bptt.arrays import Array
from manual_bptt.forecasting.columns import Column, parse_texts, refusal

DAY_ZERO = datetime(1970, 1, 1).toordinal()
CALENDAR = ((1, 9999), (1, 12), (1, 31), (0, 23))  # year, month, day, hour


def hours_of(columns: Sequence[Column]) -> tuple[Array, Array]:
    """Return the time of each row, (R,) of datetime64[h], and whether it is local, (R,) of bool.

    A time is local if it came without an offset; the others are in UTC.
    """
    if len(columns) > 1:
        hours = _calendar_hours(columns)
        return hours, np.ones(len(hours), bool)
    (column,) = columns
    expected, hint = "a whole hour in ISO 8601", "; 2013-01-01T06:00Z is one"
    parsed = parse_texts(column, _iso_hour, expected, hint)
    hours, local = np.array(parsed).T
    return hours.astype("datetime64[h]")[column.cells], local.astype(bool)[column.cells]


def _iso_hour(text: str) -> tuple[int, bool]:
    """Return the hours since 1970, and whether the time is local."""
    if text[:9].isdecimal():  # seconds since 1970 can look like a date: 1312010100000
        raise ValueError
    time = datetime.fromisoformat(text)
    local = time.tzinfo is None
    if not local:
        time = time.astimezone(UTC)
    if time.minute or time.second or time.microsecond:
        raise ValueError
    return 24 * (time.toordinal() - DAY_ZERO) + time.hour, local


def _calendar_hours(columns: Sequence[Column]) -> Array:
    year, month, day, hour = (
        _integers(column, *ends) for column, ends in zip(columns, CALENDAR, strict=True)
    )
    months = (12 * (year - 1970) + month - 1).astype("datetime64[M]")
    days = months.astype("datetime64[D]") + (day - 1).astype("timedelta64[D]")
    beyond = days.astype("datetime64[M]") != months
    if beyond.any():
        row = beyond.argmax()
        raise refusal(columns[2], row, f"a day of {months[row]}")
    hours: Array = days.astype("datetime64[h]") + hour.astype("timedelta64[h]")
    return hours


def _integers(column: Column, low: int, high: int) -> Array:
    parsed = parse_texts(column, partial(_integer, low, high), f"an integer from {low} to {high}")
    return np.array(parsed)[column.cells]


def _integer(low: int, high: int, text: str) -> int:
    if not (text.isascii() and text.isdecimal() and low <= int(text) <= high):
        raise ValueError
    return int(text)


def zone_named(timezone: str) -> ZoneInfo:
    """Return the clock of an IANA name, or raise ValueError."""
    try:
        return ZoneInfo(timezone)
    except (KeyError, ValueError, OSError) as error:  # unknown, no name at all, a region
        raise ValueError(
            f"timezone is {timezone!r}; expected an IANA name such as America/Chicago"
        ) from error


def to_utc(column: Column, hours: Array, local: Array, group: Array, zone: ZoneInfo) -> Array:
    """Return the hours, (R,), with the local ones turned from the clock of a zone into UTC.

    The offset of an hour's first occurrence (fold 0 in PEP 495) is larger than that of its second
    (fold 1) if the clock repeats it, smaller if the clock skips it, and the same otherwise.
    """
    rows = np.flatnonzero(local)
    shown, which = np.unique(hours[rows], return_inverse=True)
    moments: list[datetime] = shown.astype("datetime64[s]").tolist()
    first = np.array([zone.utcoffset(moment) for moment in moments], "timedelta64[s]")
    second = np.array([zone.utcoffset(m.replace(fold=1)) for m in moments], "timedelta64[s]")
    for wrong, expected, hint in (
        (first < second, "an hour that the clock does not skip", ""),
        (
            (first.astype(int) % 3600 > 0) | (second.astype(int) % 3600 > 0),
            "a whole hour of UTC",
            "; without timezone, times are read as UTC",
        ),
    ):
        if wrong.any():
            row = rows[wrong[which].argmax()]
            raise refusal(column, row, expected, f"{hours[row]}:00 in {zone.key}", hint)
    repeated = np.flatnonzero((first > second)[which])
    of_group = group[rows[repeated]] * len(shown) + which[repeated]
    again = np.delete(repeated, np.unique(of_group, return_index=True)[1])
    offset = first[which]
    offset[again] = second[which[again]]
    utc = hours.copy()
    utc[rows] -= offset.astype("timedelta64[h]")
    return utc
