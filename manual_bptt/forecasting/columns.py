"""A CSV file as text: its columns as they stand, and one line that says what is wrong where.

The file is read once, row by row. Of the columns asked for, each distinct text is kept once, with
its position for every row; texts are parsed, not cells, for a year of weather has few of them.
"""

import csv
import re
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np

from manual_bptt.arrays import Array

Parsed = TypeVar("Parsed")

NOT_TEXT = re.compile("[\0\udc80-\udcff]")  # surrogateescape turns the byte 0xff into U+DCFF
BEGINNINGS = (
    ("\udcff\udcfe", "UTF-16"),
    ("\udcfe\udcff", "UTF-16"),
    ("\x1f\udc8b", "a gzip file"),
    ("PK\x03\x04", "a zip file or spreadsheet"),
)


class DataError(ValueError):
    """A file that is not the table it should be; the message is ``path:line: column: ...``."""


class Column(NamedTuple):
    """A column as it stands in the file: the cell of row r, on line lines[r], is texts[cells[r]].

    Texts are distinct, in the order of their first cells.
    """

    path: Path
    name: str
    lines: Array  # (R,)
    texts: list[str]
    cells: Array  # (R,)


def read_columns(path: Path, names: Sequence[str]) -> dict[str, Column]:
    """Return the columns of these names, each once."""
    rows = read_rows(path)
    header = header_of(rows)
    _check_header(path, header, names)
    lines = array("q")
    known: dict[str, dict[str, int]] = {name: {} for name in names}
    cells = {name: array("i") for name in names}
    parts = [(header.index(name), known[name], cells[name]) for name in known]
    for line, row in rows:
        if len(row) != len(header):
            if _is_blank(row):
                continue
            raise DataError(f"{plain(path)}:{line}: expected {len(header)} cells, got {len(row)}")
        lines.append(line)
        for at, texts, positions in parts:
            positions.append(texts.setdefault(row[at], len(texts)))
    if not lines:
        raise DataError(f"{plain(path)}: expected rows below the header, got none")
    where = np.array(lines)
    return {
        name: Column(path, name, where, [*known[name]], np.array(cells[name])) for name in known
    }


def read_rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Yield every row of a CSV file with the line that it begins on."""
    line = 1
    try:
        with path.open(newline="", encoding="utf-8-sig", errors="surrogateescape") as file:
            reader = csv.reader(_only_text(path, file), strict=True)
            for row in reader:
                yield line, row
                line = reader.line_num + 1
    except OSError as error:
        raise DataError(f"{plain(path)}: cannot be read: {error.strerror}") from error
    except csv.Error as error:
        raise DataError(
            f"{plain(path)}:{line}: expected CSV: {error}; is a quote in this row not closed?"
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
                    f"{plain(path)}: expected text in UTF-8, got {next(kinds, byte)} "
                    f"in line {number}"
                )
        yield line


def header_of(rows: Iterator[tuple[int, list[str]]]) -> tuple[str, ...]:
    """Take the first row, which has the names of the columns."""
    _, cells = next(rows, (1, []))
    return tuple(cell.strip() for cell in cells)


def _check_header(path: Path, header: Sequence[str], names: Iterable[str]) -> None:
    for name in names:
        if header.count(name) != 1:
            found = "two such columns" if name in header else listed(header) or "an empty line"
            raise DataError(
                f"{plain(path)}:1: {plain(name)}: expected a column of this name, got {found}"
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


def parse_texts(
    column: Column, parse: Callable[[str], Parsed], expected: str, hint: str = ""
) -> list[Parsed]:
    """Parse the texts of a column, without the space around them."""
    parsed = []
    for position, text in enumerate(column.texts):
        try:
            parsed.append(parse(text.strip()))
        except (ValueError, OverflowError):
            raise refusal(column, first_row(column, position), expected, hint=hint) from None
    return parsed


# Words for errors


def refusal(
    column: Column, row: int, expected: str, got: str | None = None, hint: str = ""
) -> DataError:
    """Return the error for a row; what it got is its cell if nothing else is said."""
    got = repr(short(column.texts[column.cells[row]])) if got is None else got
    where = f"{plain(column.path)}:{column.lines[row]}: {plain(column.name)}"
    return DataError(f"{where}: expected {expected}, got {got}{hint}")


def first_row(column: Column, position: int) -> int:
    """Return the first row that has the text at this position."""
    return int((column.cells == position).argmax())


def short(text: str) -> str:
    """Return the text, or the beginning of a long one."""
    return text if len(text) <= 40 else f"{text[:37]}..."


def plain(text: str | Path) -> str:
    """Return the text, or its repr if it is empty or could upset a line or the terminal."""
    text = str(text)
    return text if text and text.isprintable() else repr(text)


def listed(names: Sequence[str]) -> str:
    """Return names in one line, twenty of them at most."""
    shown = ", ".join(plain(short(name)) for name in names[:20])
    return shown if len(names) <= 20 else f"{shown}, ... ({len(names)} in all)"
