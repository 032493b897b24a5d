"""Hourly tables: one row for each hour of each group (a weather station, a household, ...).

``read_table`` turns a CSV file into arrays, or says in one line what is wrong with it and where.

The file is read once, row by row. Of the columns asked for, each distinct text is kept once, with
its position for every row; texts are parsed, not cells, for a year of weather has few of them.
"""

import csv
import math
import re
from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple, TypeVar
from zoneinfo import ZoneInfo

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Parsed = TypeVar("Parsed")

# Compared without regard to case. As a category, "None" is a word: no holiday, no rain.
MISSING = frozenset({"", "na", "n/a", "nan", "null", "none"})
MISSING_CATEGORY = MISSING - {"none"}

NUMBER = "a number or NA"
DAY_ZERO = datetime(1970, 1, 1).toordinal()
CALENDAR = ((1, 9999), (1, 12), (1, 31), (0, 23))  # year, month, day, hour
LOCAL_HINT = (
    "; if these times are a local clock's, which shows one hour twice in autumn, give its timezone"
)
MAX_LEVELS = 50  # of a guessed column; more are names, remarks or numbers in a foreign notation
MAX_NAME = 200  # NumPy gives each row of group the space of the longest name

NOT_TEXT = re.compile("[\0\udc80-\udcff]")  # surrogateescape turns the byte 0xff into U+DCFF
BEGINNINGS = (
    ("\udcff\udcfe", "UTF-16"),
    ("\udcfe\udcff", "UTF-16"),
    ("\x1f\udc8b", "a gzip file"),
    ("PK\x03\x04", "a zip file or spreadsheet"),
)


class DataError(ValueError):
    """A file that is not the table it should be; the message is ``path:line: column: ...``."""


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


class _Column(NamedTuple):
    """A column as it stands in the file: the cell of row r, on line lines[r], is texts[cells[r]].

    Texts are distinct, in the order of their first cells.
    """

    path: Path
    name: str
    lines: Array  # (R,)
    texts: list[str]
    cells: Array  # (R,)


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
    header = _header(_rows(path))
    if not header:
        raise DataError(f"{_plain(path)}:1: expected the names of columns, got an empty line")
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
    zone = None if timezone is None else _zone(timezone)
    categories = categories or {}
    _check_arguments(times, columns, categories)
    found = _read_columns(Path(path), [*times, *([] if group is None else [group]), *columns])
    when = found[times[0]]._replace(name=", ".join(times))  # to say where a time is wrong

    hours, local = _hours([found[name] for name in times])
    names, of = np.array([""]), np.zeros(len(hours), int)
    if group is not None:
        names, of = _groups(found[group])
    if zone is not None:
        hours = _to_utc(when, hours, local, of, zone)
    levels = _levels([found[name] for name in columns], categories, guess)
    values = np.empty((len(hours), len(columns)))
    for i, name in enumerate(columns):
        values[:, i] = _numbers(found[name], levels.get(name))

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


def _zone(timezone: str) -> ZoneInfo:
    try:
        return ZoneInfo(timezone)
    except (KeyError, ValueError, OSError) as error:  # unknown, no name at all, a region
        raise ValueError(
            f"timezone is {timezone!r}; expected an IANA name such as America/Chicago"
        ) from error


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


# The file, as text


def _read_columns(path: Path, names: Sequence[str]) -> dict[str, _Column]:
    rows = _rows(path)
    header = _header(rows)
    _check_header(path, header, names)
    lines = array("q")
    known: dict[str, dict[str, int]] = {name: {} for name in names}
    cells = {name: array("i") for name in names}
    parts = [(header.index(name), known[name], cells[name]) for name in known]
    for line, row in rows:
        if len(row) != len(header):
            if _is_blank(row):
                continue
            raise DataError(f"{_plain(path)}:{line}: expected {len(header)} cells, got {len(row)}")
        lines.append(line)
        for at, texts, positions in parts:
            positions.append(texts.setdefault(row[at], len(texts)))
    if not lines:
        raise DataError(f"{_plain(path)}: expected rows below the header, got none")
    where = np.array(lines)
    return {
        name: _Column(path, name, where, [*known[name]], np.array(cells[name])) for name in known
    }


def _rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Yield every row of a CSV file with the line that it begins on."""
    line = 1
    try:
        with path.open(newline="", encoding="utf-8-sig", errors="surrogateescape") as file:
            reader = csv.reader(_only_text(path, file), strict=True)
            for row in reader:
                yield line, row
                line = reader.line_num + 1
    except OSError as error:
        raise DataError(f"{_plain(path)}: cannot be read: {error.strerror}") from error
    except csv.Error as error:
        raise DataError(
            f"{_plain(path)}:{line}: expected CSV: {error}; is a quote in this row not closed?"
        ) from error


def _only_text(path: Path, file: Iterable[str]) -> Iterator[str]:
    """Yield the lines of a file; refuse one with bytes that are not text in UTF-8."""
    for number, line in enumerate(file, 1):
        if "\0" in line or not line.isascii():
            found = NOT_TEXT.search(line)
            if found:
                byte = f"the byte 0x{ord(found[0]) & 0xFF:02x}"
                kinds = (kind for begin, kind in BEGINNINGS if line.startswith(begin))
                raise DataError(
                    f"{_plain(path)}: expected text in UTF-8, got {next(kinds, byte)} "
                    f"in line {number}"
                )
        yield line


def _header(rows: Iterator[tuple[int, list[str]]]) -> tuple[str, ...]:
    _, cells = next(rows, (1, []))
    return tuple(cell.strip() for cell in cells)


def _check_header(path: Path, header: Sequence[str], names: Iterable[str]) -> None:
    for name in names:
        if header.count(name) != 1:
            found = "two such columns" if name in header else _listed(header) or "an empty line"
            raise DataError(
                f"{_plain(path)}:1: {_plain(name)}: expected a column of this name, got {found}"
                + _separator_hint(header, name)
            )


def _separator_hint(header: Sequence[str], name: str) -> str:
    for separator, word in ((";", "semicolons"), ("\t", "tabs"), ("|", "bars")):
        split = ",".join(header).split(separator)
        if len(split) > 1 and name in (cell.strip(' "') for cell in split):
            return f"; cells seem to be separated by {word}; expected commas"
    return ""


def _is_blank(row: Sequence[str]) -> bool:
    return not row or (len(row) == 1 and not row[0].strip())


# Columns, parsed


def _parse(
    column: _Column, parse: Callable[[str], Parsed], expected: str, hint: str = ""
) -> list[Parsed]:
    """Parse the texts of a column, without the space around them."""
    parsed = []
    for position, text in enumerate(column.texts):
        try:
            parsed.append(parse(text.strip()))
        except (ValueError, OverflowError):
            raise _refusal(column, _first_row(column, position), expected, hint=hint) from None
    return parsed


def _groups(column: _Column) -> tuple[Array, Array]:
    """Return the names of the groups, sorted, and the position of each row's among them, (R,)."""
    names = _parse(column, _name, "a name", f"; a name has 1 to {MAX_NAME} characters")
    groups, position = np.unique(names, return_inverse=True)
    return groups, position[column.cells]


def _name(text: str) -> str:
    if not 0 < len(text) <= MAX_NAME:
        raise ValueError
    return text


def _hours(columns: Sequence[_Column]) -> tuple[Array, Array]:
    """Return the time of each row, (R,) of datetime64[h], and whether it is local, (R,) of bool.

    A time is local if it came without an offset; the others are in UTC.
    """
    if len(columns) > 1:
        hours = _calendar_hours(columns)
        return hours, np.ones(len(hours), bool)
    (column,) = columns
    parsed = _parse(column, _iso_hour, "a whole hour in ISO 8601", "; 2013-01-01T06:00Z is one")
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


def _calendar_hours(columns: Sequence[_Column]) -> Array:
    year, month, day, hour = (
        np.array(_parse(column, partial(_integer, low, high), f"an integer from {low} to {high}"))[
            column.cells
        ]
        for column, (low, high) in zip(columns, CALENDAR, strict=True)
    )
    months = (12 * (year - 1970) + month - 1).astype("datetime64[M]")
    days = months.astype("datetime64[D]") + (day - 1).astype("timedelta64[D]")
    beyond = days.astype("datetime64[M]") != months
    if beyond.any():
        row = beyond.argmax()
        raise _refusal(columns[2], row, f"a day of {months[row]}")
    hours: Array = days.astype("datetime64[h]") + hour.astype("timedelta64[h]")
    return hours


def _integer(low: int, high: int, text: str) -> int:
    if not (text.isascii() and text.isdecimal() and low <= int(text) <= high):
        raise ValueError
    return int(text)


def _to_utc(column: _Column, hours: Array, local: Array, group: Array, zone: ZoneInfo) -> Array:
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
            raise _refusal(column, row, expected, f"{hours[row]}:00 in {zone.key}", hint)
    repeated = np.flatnonzero((first > second)[which])
    of_group = group[rows[repeated]] * len(shown) + which[repeated]
    again = np.delete(repeated, np.unique(of_group, return_index=True)[1])
    offset = first[which]
    offset[again] = second[which[again]]
    utc = hours.copy()
    utc[rows] -= offset.astype("timedelta64[h]")
    return utc


def _levels(
    columns: Sequence[_Column], categories: Mapping[str, Sequence[str]], guess: bool
) -> dict[str, tuple[str, ...]]:
    """Return the levels of each column that holds categories, given or guessed."""
    levels = {column.name: tuple(categories.get(column.name, ())) for column in columns}
    for column in columns:
        if guess and column.name not in categories:
            levels[column.name] = _guess_levels(column)
    return {name: texts for name, texts in levels.items() if texts}


def _guess_levels(column: _Column) -> tuple[str, ...]:
    """Return the sorted texts of a column of categories; none for a column of numbers."""
    texts = [text.strip() for text in column.texts]
    words = [i for i, text in enumerate(texts) if not _is_number(text)]
    if not words:
        return ()
    if any(_is_number(text) and text.casefold() not in MISSING for text in texts):
        row = _first_row(column, words[0])
        raise _refusal(column, row, NUMBER, hint="; other cells hold numbers")
    first: dict[str, int] = {}
    for i, text in enumerate(texts):
        if text.casefold() not in MISSING_CATEGORY:
            first.setdefault(text, i)
    if len(first) > MAX_LEVELS:
        row = _first_row(column, [*first.values()][MAX_LEVELS])
        expected = f"numbers or at most {MAX_LEVELS} different texts"
        raise _refusal(column, row, expected, f"{len(first)} texts")
    return tuple(sorted(first))


def _is_number(text: str) -> bool:
    try:
        _number(text)
    except ValueError:
        return False
    return True


def _numbers(column: _Column, levels: Sequence[str] | None) -> Array:
    """Return the numbers of a column, (R,), or the positions of its texts among the levels."""
    if levels is None:
        parsed = _parse(column, _number, NUMBER)
    else:
        position = {level: float(i) for i, level in enumerate(levels)}
        parsed = _parse(column, partial(_category, position), f"one of {_listed(levels)}")
    return np.array(parsed)[column.cells]


def _number(text: str) -> float:
    if text.casefold() in MISSING:
        return math.nan
    number = float(text)
    if not math.isfinite(number) or "_" in text or not text.isascii():
        raise ValueError
    return number


def _category(position: Mapping[str, float], text: str) -> float:
    if text in position:
        return position[text]
    if text.casefold() in MISSING_CATEGORY:
        return math.nan
    raise ValueError


def _firsts(column: _Column, table: Table, order: Array, hint: Array) -> Array:
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
        owner = f" for {_plain(_short(group[i]))}" if group[i] else ""
        raise _refusal(
            column,
            order[i],
            "one row an hour",
            f"a second one{owner} at {time[i]}Z (the first is line {column.lines[order[i - 1]]})",
            f", with another {_plain(name)}" + LOCAL_HINT * bool(hint[order[i]]),
        )
    return np.isin(np.arange(len(time)), again, invert=True)


# Words for errors


def _refusal(
    column: _Column, row: int, expected: str, got: str | None = None, hint: str = ""
) -> DataError:
    """Return the error for a row; what it got is its cell if nothing else is said."""
    got = repr(_short(column.texts[column.cells[row]])) if got is None else got
    where = f"{_plain(column.path)}:{column.lines[row]}: {_plain(column.name)}"
    return DataError(f"{where}: expected {expected}, got {got}{hint}")


def _first_row(column: _Column, position: int) -> int:
    return int((column.cells == position).argmax())


def _short(text: str) -> str:
    return text if len(text) <= 40 else f"{text[:37]}..."


def _plain(text: str | Path) -> str:
    """Return the text, or its repr if it is empty or could upset a line or the terminal."""
    text = str(text)
    return text if text and text.isprintable() else repr(text)


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(_plain(_short(name)) for name in names[:20])
    return shown if len(names) <= 20 else f"{shown}, ... ({len(names)} in all)"
