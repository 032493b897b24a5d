"""Named arrays in one file: written whole or not at all, read without trust.

The file is NumPy's ``.npz``, without compression and without pickle. Reading one runs no code, and
every size that it declares is compared with the bytes that are there before anything is allocated.
"""

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO
from zipfile import ZIP_STORED, ZipFile, ZipInfo

import numpy as np

from manual_bptt.arrays import Array
from manual_bptt.files import write_whole

KINDS = "biufU"  # real numbers and text
END = 22  # bytes of the record at the end of an archive; two from the tenth on count its members


def write_arrays(path: str | Path, arrays: Mapping[str, Any]) -> None:
    """Write arrays to path; a file already there stays whole until the new one is on the disk.

    Raises
    ------
    OSError
        If the file cannot be written; the old one, if any, is then unharmed.
    ValueError
        If an array holds neither numbers nor text.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_arrays(Path(folder, "a.npz"), {"W": np.eye(2)})
    ...     read_arrays(Path(folder, "a.npz"))["W"].tolist()
    [[1.0, 0.0], [0.0, 1.0]]
    """
    named: dict[str, Any] = {name: np.asarray(values) for name, values in arrays.items()}
    for name, values in named.items():
        _require_kind(name, values.dtype)
    write_whole(Path(path), lambda file: np.savez(file, **named))  # it has no objects to pickle


def read_arrays(path: str | Path) -> dict[str, Array]:
    """Read what ``write_arrays`` wrote.

    Raises
    ------
    OSError
        If the file cannot be opened.
    ValueError
        If it is no such file, or is damaged, holds objects, or declares sizes that it has not.
    """
    with Path(path).open("rb") as file:
        try:
            return _read_all(file)
        except ValueError:
            raise
        except Exception as error:  # a damaged file fails in as many ways as zipfile and NumPy have
            raise ValueError(str(error) or type(error).__name__) from error


def _read_all(file: BinaryIO) -> dict[str, Array]:
    with ZipFile(file) as archive:
        members = archive.infolist()
        if len({member.filename for member in members}) != len(members):
            raise ValueError("two arrays of one name")
        there = file.seek(-END, os.SEEK_END) + END
        number = int.from_bytes(file.read(END)[10:12], "little")
        if number != len(members):
            raise ValueError(f"{number} arrays are declared; {len(members)} are found")
        declared = sum(member.compress_size for member in members)
        if declared > there:  # sizes that are made up, or arrays that share their bytes
            raise ValueError(f"arrays of {declared} bytes are declared, in a file of {there}")
        return {_name(member): _read(archive, member) for member in members}


def _name(member: ZipInfo) -> str:
    if not member.filename.endswith(".npy"):
        raise ValueError(f"{member.filename!r} is not an array")
    return member.filename.removesuffix(".npy")


def _read(archive: ZipFile, member: ZipInfo) -> Array:
    if member.compress_type != ZIP_STORED or member.file_size != member.compress_size:
        raise ValueError(f"{member.filename!r} is compressed")
    with archive.open(member) as file:
        if np.lib.format.read_magic(file) != (1, 0):
            raise ValueError(f"{member.filename!r} has a header of an unknown version")
        shape, by_columns, dtype = np.lib.format.read_array_header_1_0(file)
        _require_kind(member.filename, dtype)
        count = 1
        for size in shape:  # in integers of any size
            count *= size
        left = member.file_size - file.tell()
        if min(shape, default=0) < 0 or count * dtype.itemsize != left:
            raise ValueError(f"{member.filename!r} declares {shape} of {dtype}, in {left} bytes")
        content = file.read()
    values = np.frombuffer(content, dtype, count).reshape(shape, order="F" if by_columns else "C")
    if dtype.kind == "U":
        codes = np.frombuffer(content, np.dtype("u4").newbyteorder(dtype.byteorder))
        if codes.max(initial=0) > sys.maxunicode:
            raise ValueError(f"{member.filename!r} holds text that is not Unicode")
    return values.copy()


def _require_kind(name: str, dtype: np.dtype[Any]) -> None:
    if dtype.kind not in KINDS:
        raise ValueError(f"{name!r} holds {dtype}; expected real numbers or text")
