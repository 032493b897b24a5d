"""Golden vectors: solved problems, for those who write BPTT in a language that JAX does not reach.

A vector is one network, one input, one target, and what a right program makes of them: the states,
the outputs, the loss and every gradient. Each number is

- *certified*: it is the one nearest to the true answer, which interval arithmetic encloses, and
  ``error_bound`` says how far the two are apart at most, hardly ever more than half an ulp;
- *verified*: it agrees with what JAX makes of the same inputs, gradients by ``jax.grad``, within
  ``tolerance``, which is how far the rounding of its own operations may take a right program.

Nothing is written that is not both. docs/golden-vectors.md describes the files.
"""

import io
import json
import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from reference.devices import float64_on_cpu
from reference.golden.corners import LABS, LAST, Case, cases_of, expected, inputs, shapes
from reference.golden.enclosures import bound, values
from reference.network import name_of, named_cell
from reference.network.cell import Cell
from reference.network.gradients import LOSSES, squared_error
from reference.network.sequence import run
from reference.oracle.answers import Solved, solved
from reference.oracle.padding import padded, stack
from reference.problems import Problem
from reference.rounding.known import gamma
from reference.rounding.tolerance import FLUSHED, V64, Measure, decides
from reference.user_code import parameters_type

SCHEMA = "manual-bptt/golden-vectors"
VERSION, WITH_CELL = 1, 2  # the second names the cell: readers of the lab's network know the first
DTYPES = ("float64", "float32")
HEXADECIMAL = re.compile(r"-?0x[01](\.[0-9a-f]+)?p[-+]\d+")

Array = np.ndarray


class NotVerifiedError(ArithmeticError):
    """A value that autodiff contradicts, or a problem that decides nothing."""


class Certified(NamedTuple):
    """What a right program computes, in three arrays of one shape.

    The true number is within ``error_bound`` of ``value``, and a program that rounds every
    operation to the dtype of ``value`` within ``tolerance`` of the true number.
    """

    value: Array
    error_bound: Array
    tolerance: Array

    def accepts(self, computed: Any) -> bool:
        """Return whether each entry is as near to the value as it must be; NaN never is."""
        return bool((np.abs(computed - self.value) <= self.error_bound + self.tolerance).all())


@dataclass(frozen=True, eq=False)
class Vector:
    """One solved problem: ``inputs`` and ``expected``, by the names that ``corners`` gives them.

    Everything has a batch axis: x is (T, B, D), h0 (B, H), target (T, B, O), or (B, O) where the
    loss is ``"last_step_squared_error"``. ``h`` (T+1, B, H) are the states, ``dh`` the gradients in
    them, ``y`` (T, B, O) the outputs; ``dW`` has the shape of W, and so on.
    """

    name: str
    about: str
    loss: str
    inputs: dict[str, Array]
    expected: dict[str, Certified]
    cell: Cell = LABS

    @property
    def problem(self) -> Problem:
        """The arguments of a candidate."""
        fields = self.cell.fields
        params = parameters_type(fields)(*(self.inputs[k] for k in fields))
        x, h0, target = (self.inputs[k] for k in ("x", "h0", "target"))
        return Problem(params, x, h0, target, self.loss, self.name, self.cell)


# What autodiff says ------------------------------------------------------------------------------


def certified(cases: Iterable[Case], dtype: str, cell: Cell = LABS) -> Iterator[Vector]:
    """Yield the vectors of cases of any cell, in an order of its own.

    Raises
    ------
    NotVerifiedError
        If autodiff contradicts a value, or a tolerance is so large that it decides nothing.

    Examples
    --------
    >>> [vector] = certified(cases_of(LABS)[:1], "float32")
    >>> vector.expected["dx"].value.tolist()
    [[[110.0, 60.0]], [[12.0, 16.0]]]
    """
    about = {case.name: case.about for case in cases}
    for chunk in solved(case.problem(dtype, cell) for case in cases):
        for problem, autodiff in _autodiff(chunk):
            name = problem.origin
            found = {
                k: verified(f"{k} of {name}", *certificate, *autodiff[k])
                for k, certificate in values(problem).items()
            }
            yield Vector(name, about[name], problem.loss, problem.arrays, found, cell)


def verified(
    what: str, value: Array, error_bound: Array, autodiff: Array, tolerance: Array
) -> Certified:
    """Return a certified value with its tolerance, if it agrees with autodiff's.

    Raises
    ------
    NotVerifiedError
        If it does not, or if the tolerance is not small beside the largest entry. That of exact
        zeros is absolute: there is nothing to compare it with.

    Examples
    --------
    >>> verified("dW", np.float64(2), np.float64(0), np.float64(3), np.float64(1e-15))
    Traceback (most recent call last):
        ...
    reference.golden.vectors.NotVerifiedError: dW: autodiff contradicts the certified value
    """
    found = Certified(value, error_bound, np.vectorize(bound, otypes=[float])(tolerance))
    if not found.accepts(autodiff):
        raise NotVerifiedError(f"{what}: autodiff contradicts the certified value")
    exact_zeros = not value.any() and not error_bound.any()
    if not exact_zeros and not decides(value, found.tolerance, value.dtype):
        raise NotVerifiedError(f"{what}: the tolerance is too large to decide anything")
    return found


def _autodiff(chunk: Solved) -> Iterator[tuple[Problem, dict[str, Measure]]]:
    """Yield problems with what JAX computes by the names of a vector, and the tolerances."""
    arguments = stack(
        [padded(answer.problem, chunk.shape) for answer in chunk.answers], chunk.shape
    )
    with float64_on_cpu():
        y, loss = map(np.asarray, _outputs(chunk.cell)(*arguments))
    for i, (problem, truth) in enumerate(chunk.answers):
        found = {f"d{k}": truth[k] for k in chunk.cell.gradients} | {"h": truth["states"]}
        yield problem, found | _with_tolerances(problem, truth["states"], y[i], loss[i])


@lru_cache(maxsize=16)
def _outputs(cell: Cell) -> Any:
    """Return the compiled outputs and loss of padded problems."""

    def one(variables: Any, target_and_weights: Any) -> Any:
        _, y = run(cell, *variables)
        return y, squared_error(y, *target_and_weights)

    return jax.jit(jax.vmap(one))


@np.errstate(invalid="ignore")  # some versions of OpenBLAS raise the flag on finite numbers
def _with_tolerances(
    problem: Problem, states: Measure, outputs: Array, loss: Array
) -> dict[str, Measure]:
    """Return outputs and loss with bounds on what rounding adds, if h is known up to e_h.

    As in ``reference.rounding.steps``, and with e = |y - target| and n the number of its entries,

        y     e_y = |V| e_h + gamma_{H+2} (|V| (|h| + e_h) + |c|)
        e     e_e = e_y + u (e + e_y)
        L     sum e_e (2 e + e_e) + gamma_{n+2} sum (e + e_e)^2
    """
    T, B, _, H, O = (problem.sizes[k] for k in "TBDHO")
    h, e_h = (array[1:] for array in states)
    info = np.finfo(problem.dtype)
    u, flushed = float(info.eps) / 2 + V64, FLUSHED * float(info.tiny)
    V, c = np.abs(problem.params.V), np.abs(problem.params.c)
    y = outputs[:T, :B, :O]
    e_y = e_h @ V.T + gamma(H + 2, u) * ((np.abs(h) + e_h) @ V.T + c) + flushed * (H + 2)
    counted = slice(-1 if problem.loss == LAST else 0, None)
    e, e_e = np.abs(y - problem.target)[counted], e_y[counted]
    e_e = e_e + u * (e + e_e)
    e_loss = (e_e * (2 * e + e_e)).sum() + gamma(e.size + 2, u) * ((e + e_e) ** 2).sum()
    return {"y": (y, e_y), "loss": (loss, e_loss + flushed * (e.size + 2))}


# The files ---------------------------------------------------------------------------------------

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
