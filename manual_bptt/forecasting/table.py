"""Hourly tables: one row for each hour of each group (a weather station, a household, ...).

``read_table`` turns a CSV file into arrays, or says in one line what is wrong with it and where.
"""

import csv
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Parsed = TypeVar("Parsed")

MISSING = frozenset({"", "NA", "NaN", "nan"})


class DataError(ValueError):
    """A file that is not the table it should be; the message is ``path:line: column: ...``."""


class Table(NamedTuple):
    """R rows sorted by group, then time; no group has two rows for one hour.

    ``group`` is (R,) of str, ``time`` (R,) of datetime64[h] in UTC, ``names`` the C columns, and
    ``values`` (R, C) of float64 with NaN where a value is missing.
    """

    group: Array
    time: Array
    names: tuple[str, ...]
    values: Array

    def position(self, name: str) -> int:
        """Return which column of values has this name, or raise ValueError."""
        if name not in self.names:
            raise ValueError(f"no column {name!r}; expected one of {', '.join(self.names)}")
        return self.names.index(name)

    def column(self, name: str) -> Array:
        """Return one column, (R,)."""
        return self.values[:, self.position(name)]


def read_table(path: str | Path, *, time: str, group: str, columns: Sequence[str]) -> Table:
    """Read the named columns of a CSV file whose first line is a header.

    Times are ISO 8601; one without an offset is UTC. A cell that is empty, NA or NaN is missing.
    Other columns are ignored.

    Parameters
    ----------
    path : path
        The file, in UTF-8.
    time, group : str
        The columns that hold the hour and the group of a row.
    columns : sequence of str
        The columns of numbers to read.

    Raises
    ------
    DataError
        If the file cannot be read or a column is missing; for a row with too few or too many
        cells, a cell that is no finite number, a time that is no whole hour, and a second row for
        one hour of a group.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder, "t.csv")
    ...     _ = path.write_text("place,hour,temp\\nA,2013-01-01T06:00:00Z,39.02\\n")
    ...     table = read_table(path, time="hour", group="place", columns=["temp"])
    >>> table.time, table.values
    (array(['2013-01-01T06'], dtype='datetime64[h]'), array([[39.02]]))
    """
    path = Path(path)
    lines, cells = _read_cells(path, [time, group, *columns])
    hours = _parse(path, lines, time, cells[time], _hour, "a whole hour in ISO 8601")
    groups = _parse(path, lines, group, cells[group], _name, "a name")
    numbers = [_parse(path, lines, c, cells[c], _number, "a number or NA") for c in columns]
    table = Table(
        np.array(groups),
        np.array(hours, "datetime64[h]"),
        tuple(columns),
        np.array(numbers, float).T,
    )
    order = np.lexsort((table.time, table.group))
    _refuse_repeats(path, np.array(lines)[order], time, table.group[order], table.time[order])
    return Table(table.group[order], table.time[order], table.names, table.values[order])


def _read_cells(path: Path, names: Sequence[str]) -> tuple[list[int], dict[str, Sequence[str]]]:
    """Return the line of each row and the text of each named column."""
    lines, rows = [], []
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.reader(file)
            header = next(reader, [])
            for row in reader:
                if row:  # csv gives [] for a blank line
                    lines.append(reader.line_num)
                    rows.append(row)
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: expected text in UTF-8, got other bytes") from error
    except csv.Error as error:
        raise DataError(f"{path}:{reader.line_num}: expected CSV: {error}") from error
    _check_header(path, header, names)
    for line, row in zip(lines, rows, strict=True):
        if len(row) != len(header):
            raise DataError(f"{path}:{line}: expected {len(header)} cells, got {len(row)}")
    if not rows:
        raise DataError(f"{path}: expected rows below the header, got none")
    by_name = dict(zip(header, zip(*rows, strict=True), strict=True))
    return lines, {name: by_name[name] for name in names}


def _check_header(path: Path, header: Sequence[str], names: Iterable[str]) -> None:
    for name in names:
        if header.count(name) != 1:
            found = "two such columns" if name in header else ", ".join(header) or "an empty line"
            raise DataError(f"{path}:1: {name}: expected a column of this name, got {found}")


def _parse(
    path: Path,
    lines: Sequence[int],
    name: str,
    texts: Sequence[str],
    parse: Callable[[str], Parsed],
    expected: str,
) -> list[Parsed]:
    """Parse a column. Each distinct text is parsed once: a year of weather has few of them."""
    known: dict[str, Parsed] = {}
    for text in dict.fromkeys(texts):
        try:
            known[text] = parse(text)
        except (ValueError, OverflowError):
            line = lines[texts.index(text)]
            raise DataError(f"{path}:{line}: {name}: expected {expected}, got {text!r}") from None
    return [known[text] for text in texts]


def _number(text: str) -> float:
    text = text.strip()
    if text in MISSING:
        return np.nan
    number = float(text)
    if not np.isfinite(number) or "_" in text:
        raise ValueError
    return number


def _hour(text: str) -> datetime:
    time = datetime.fromisoformat(text.strip())
    if time.tzinfo is not None:
        time = time.astimezone(UTC).replace(tzinfo=None)
    if time.minute or time.second or time.microsecond:
        raise ValueError
    return time


def _name(text: str) -> str:
    if not text.strip():
        raise ValueError
    return text.strip()


def _refuse_repeats(path: Path, lines: Array, name: str, group: Array, time: Array) -> None:
    """Refuse a second row for one hour of a group; all arrays are sorted by group and time."""
    again = np.flatnonzero((group[1:] == group[:-1]) & (time[1:] == time[:-1]))
    if again.size:
        i = again[0]
        raise DataError(
            f"{path}:{lines[i + 1]}: {name}: expected one row an hour, got a second one for "
            f"{group[i]} at {time[i]}Z (the first is line {lines[i]})"
        )
