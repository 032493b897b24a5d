"""Golden vectors in files: JSON with exact hexadecimal floats, and ``.npz``."""

import io
import json
import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from reference.network import name_of, named_cell
from reference.network.cell import Cell
from reference.network.losses import LOSSES
from reference.vectors.certified import (
    DTYPES,
    Array,
    Certified,
    Vector,
    certified,
)
from reference.vectors.corners import LABS, Case, cases_of, expected, inputs, shapes

SCHEMA = "manual-bptt/golden-vectors"
VERSION, WITH_CELL = 1, 2  # the second names the cell: readers of the lab's network know the first
HEXADECIMAL = re.compile(r"-?0x[01](\.[0-9a-f]+)?p[-+]\d+")

Progress = Callable[[Iterator[Vector], str, int], Iterable[Vector]]


def write_vectors(
    folder: str | Path,
    cases: Sequence[Case] | None = None,
    progress: Progress = lambda vectors, title, total: vectors,
    cell: str = "tanh",
) -> list[Path]:
    """Write the vectors of both dtypes, each as JSON and as .npz, and return the paths.

    The folder is made if need be. Every file appears whole or not at all, and none before all
    vectors are certified and verified. The same machine and versions write the same bytes.

    Parameters
    ----------
    folder : path
        Where golden_float64.json, golden_float64.npz and the same for float32 go; of another cell
        than the lab's, golden_gru_float64.json and so on.
    cases : sequence of Case, optional
        The problems; their names must differ. All that there are for the cell if None.
    progress : callable
        Called with an iterator of vectors, a title and the number of vectors; returns an iterable
        of the same vectors.
    cell : str
        The cell.

    Raises
    ------
    NotVerifiedError
        If autodiff contradicts a value, or a tolerance is so large that it decides nothing.
    OSError
        If a file cannot be written.
    ValueError
        If there is no such cell.

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     paths = write_vectors(folder, cases_of(LABS)[:1])
    ...     [vector] = read_vectors(paths[0])
    >>> [path.name for path in paths][:2], float(vector.expected["loss"].value)
    (['golden_float64.json', 'golden_float64.npz'], 10.0)
    """
    of, folder = named_cell(cell), Path(folder)
    cases = cases_of(of) if cases is None else cases
    folder.mkdir(parents=True, exist_ok=True)
    stem, contents = "golden" if of is LABS else f"golden_{cell}", {}
    for dtype in DTYPES:
        found = progress(certified(cases, dtype, of), f"{dtype} vectors", len(cases))
        by_name = {vector.name: vector for vector in found}
        vectors = [by_name[case.name] for case in cases]
        contents[f"{stem}_{dtype}.json"] = _as_json(vectors, dtype)
        contents[f"{stem}_{dtype}.npz"] = _as_npz(vectors, dtype)
    return [_write(folder / name, content) for name, content in contents.items()]


def _write(path: Path, content: bytes) -> Path:
    """Write a file whole or not at all; one that is there stays until this is on the disk."""
    partial_file = path.with_name(f"{path.name}.{os.getpid()}.partial")
    try:
        with partial_file.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        partial_file.replace(path)
    finally:
        partial_file.unlink(missing_ok=True)
    return path


def _header(vectors: Sequence[Vector], dtype: str) -> dict[str, Any]:
    """Return all but the arrays."""
    described = [
        {"name": v.name, "about": v.about, "loss": v.loss, **v.problem.sizes} for v in vectors
    ]
    cell = vectors[0].cell
    named = {"version": VERSION} if cell is LABS else {"version": WITH_CELL, "cell": name_of(cell)}
    return {"schema": SCHEMA, **named, "dtype": dtype, "vectors": described}


def _as_json(vectors: Sequence[Vector], dtype: str) -> bytes:
    document = _header(vectors, dtype)
    for described, vector in zip(document["vectors"], vectors, strict=True):
        described["inputs"] = {k: _leaf({"value": a}) for k, a in vector.inputs.items()}
        described["expected"] = {k: _leaf(c._asdict()) for k, c in vector.expected.items()}
    return (_lines(document) + "\n").encode("ascii")


def _leaf(arrays: dict[str, Array]) -> dict[str, Any]:
    """Return the shape and, row by row, the numbers of arrays of one shape."""
    numbers = {k: [hexadecimal(float(n)) for n in a.ravel()] for k, a in arrays.items()}
    return {"shape": [*arrays["value"].shape], **numbers}


def hexadecimal(number: float) -> str:
    """Return a number exactly, as C99 writes it and ``strtod`` and ``float.fromhex`` read it.

    Examples
    --------
    >>> hexadecimal(-0.625), hexadecimal(0.1)
    ('-0x1.4p-1', '0x1.999999999999ap-4')
    """
    digits, exponent = number.hex().split("p")
    return f"{digits.rstrip('0').rstrip('.')}p{exponent}" if "." in digits else number.hex()


def _lines(value: Any, indent: str = "\n") -> str:
    """Return JSON, every innermost object on a line of its own."""
    text = json.dumps(value)
    if "{" not in text[1:]:
        return text
    inner = f"{indent} "
    if isinstance(value, list):
        return f"[{inner}{f',{inner}'.join(_lines(m, inner) for m in value)}{indent}]"
    rows = (f"{json.dumps(k)}: {_lines(m, inner)}" for k, m in value.items())
    return f"{{{inner}{f',{inner}'.join(rows)}{indent}}}"


def _as_npz(vectors: Sequence[Vector], dtype: str) -> bytes:
    header = json.dumps(_header(vectors, dtype)).encode("ascii")
    arrays = {"header": np.frombuffer(header, np.uint8)}
    for v in vectors:
        arrays |= {f"{v.name}/{k}": a for k, a in v.inputs.items()}
        for k, (value, *bounds) in v.expected.items():
            names = (f"{v.name}/{k}", f"{v.name}/{k}.error_bound", f"{v.name}/{k}.tolerance")
            arrays |= dict(zip(names, (value, *bounds), strict=True))
    file = io.BytesIO()
    np.savez_compressed(file, **arrays)  # type: ignore[arg-type]
    return file.getvalue()


def read_vectors(path: str | Path) -> list[Vector]:
    """Read what ``write_vectors`` wrote, JSON or .npz, every bit of it the same.

    Raises
    ------
    OSError
        If the file cannot be read.
    ValueError
        If it is of another schema or version, or lacks an array, or holds one of another shape or
        dtype, or a number that is not finite, or a negative bound.

    Examples
    --------
    >>> try:
    ...     read_vectors(__file__)
    ... except ValueError as error:
    ...     print(str(error).split(": ")[1])
    expected manual-bptt/golden-vectors, version 1 or 2
    """
    content = Path(path).read_bytes()
    try:
        return _vectors(*(_from_npz if content.startswith(b"PK") else _from_json)(content))
    except Exception as error:  # the parsers of JSON, zip and .npy raise many kinds of them
        versions = f"version {VERSION} or {WITH_CELL}"
        raise ValueError(f"{path}: expected {SCHEMA}, {versions}: {error}") from error


def _from_json(content: bytes) -> tuple[Any, dict[str, Array]]:
    """Return the header and the arrays, by the names that they have in the .npz."""
    document = json.loads(content)
    _require_version(document)
    arrays = {}
    for vector in document["vectors"]:
        for k, leaf in (vector.pop("inputs") | vector.pop("expected")).items():
            for part in set(leaf) - {"shape"}:
                name = f"{vector['name']}/{k}" + ("" if part == "value" else f".{part}")
                dtype = document["dtype"] if part == "value" else "float64"
                arrays[name] = _parsed(name, leaf[part], dtype).reshape(leaf["shape"])
    return document, arrays


def _parsed(name: str, texts: list[str], dtype: str) -> Array:
    """Return hexadecimal numbers as an array of a dtype that holds them exactly."""
    wrong = [text for text in texts if not HEXADECIMAL.fullmatch(text)]
    if wrong:
        raise ValueError(f"{name} holds {wrong[0]!r}; expected a number like '0x1.8p-1'")
    numbers = np.array([float.fromhex(text) for text in texts])
    with np.errstate(over="ignore"):
        array = numbers.astype(dtype)
    if (array != numbers).any():
        raise ValueError(f"{name} holds a number that is not one of {dtype}")
    return array


def _from_npz(content: bytes) -> tuple[Any, dict[str, Array]]:
    with np.load(io.BytesIO(content), allow_pickle=False) as archive:
        arrays = {k: archive[k] for k in archive.files}
    return json.loads(arrays.pop("header").tobytes()), arrays


def _require_version(header: Any) -> None:
    found = (header["schema"], header["version"], header["dtype"])
    if found[0] != SCHEMA or found[1] not in (VERSION, WITH_CELL) or found[2] not in DTYPES:
        raise ValueError("got schema {}, version {}, dtype {}".format(*found))


def _vectors(header: Any, arrays: dict[str, Array]) -> list[Vector]:
    """Return the vectors that a file describes, or say what is wrong with it."""
    _require_version(header)
    if not header["vectors"]:
        raise ValueError("there are no vectors")
    cell = LABS if header["version"] == VERSION else named_cell(header["cell"])
    return [_vector(described, arrays, header["dtype"], cell) for described in header["vectors"]]


def _vector(described: Any, arrays: dict[str, Array], dtype: str, cell: Cell) -> Vector:
    name, about, loss = (described[k] for k in ("name", "about", "loss"))
    if loss not in LOSSES:
        raise ValueError(f"the loss of {name} is {loss!r}; expected one of {sorted(LOSSES)}")
    every = shapes(described, loss, cell)

    def array(k: str, suffix: str = "") -> Array:
        found = arrays.get(f"{name}/{k}{suffix}")
        if found is None:
            raise ValueError(f"{name}/{k}{suffix} is missing")
        expected = np.dtype("float64" if suffix else dtype)
        if (found.shape, found.dtype) != (every[k], expected):
            got = f"shape {found.shape}, dtype {found.dtype}"
            raise ValueError(f"{name}/{k}{suffix} has {got}; expected {every[k]}, {expected}")
        if not np.isfinite(found).all() or (suffix and (found < 0).any()):
            raise ValueError(f"{name}/{k}{suffix} holds a number that it cannot")
        return found

    given = {k: array(k) for k in inputs(cell)}
    found = {
        k: Certified(array(k), array(k, ".error_bound"), array(k, ".tolerance"))
        for k in expected(cell)
    }
    return Vector(name, about, loss, given, found, cell)
