"""Files that appear whole or not at all."""

import os
from collections.abc import Callable
from pathlib import Path
from threading import get_ident
from typing import BinaryIO


def write_whole(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """Let write fill a file; one that is already there stays until the new one is on the disk.

    Raises
    ------
    OSError
        If the file cannot be written; the old one, if any, is then unharmed.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder, "a.txt")
    ...     write_whole(path, lambda file: file.write(b"all of it"))
    ...     path.read_text()
    'all of it'
    """
    partial = path.with_name(f"{path.name}.{os.getpid()}.{get_ident()}.partial")
    try:
        with partial.open("wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
