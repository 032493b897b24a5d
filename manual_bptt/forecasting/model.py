"""A trained forecaster: what it is, how it forecasts, and its file.

The file is a plain NumPy ``.npz`` of numbers and text. Nothing in it is pickled, so reading one
runs no code, and what is read is checked before it is believed.
"""

import os
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple
from zipfile import BadZipFile

import numpy as np

from manual_bptt.forecasting.table import Array, DataError
from manual_bptt.forecasting.windows import Standardizer
from manual_bptt.forward import forward
from manual_bptt.params import Params
from manual_bptt.validation import as_array, as_params, require_finite, require_shape

FORMAT = 1
TEXTS = ("recipe", "target", "unit")
UNREADABLE = (ValueError, TypeError, RuntimeError, EOFError, BadZipFile, zlib.error)


class Model(NamedTuple):
    """Everything a forecast needs.

    ``features`` name the D columns of x in order, ``target`` the column forecast and ``unit`` its
    unit. ``length`` is T, the hours of a window, and ``recipe`` what the model was trained by.
    """

    params: Params
    standardizer: Standardizer
    features: tuple[str, ...]
    target: str
    unit: str
    length: int
    recipe: str


def predict(model: Model, x: Any) -> Array:
    """Forecast the target of the hour after each window.

    Parameters
    ----------
    model : Model
        What ``train_recipe`` or ``load_model`` returned.
    x : array_like, (T, N, D)
        The features in the units of the table, not standardised.

    Returns
    -------
    array, (N, 1)
        The forecast, in ``model.unit``.

    Raises
    ------
    ValueError
        If x has another shape or is not finite.
    """
    x = as_array("x", x)
    T, D = model.length, len(model.features)
    if x.ndim != 3 or x.shape[0] != T or x.shape[2] != D:
        raise ValueError(f"x has shape {x.shape}; expected (T, N, D) with T = {T} and D = {D}")
    x_mean, x_scale, mean, scale = model.standardizer
    y = forward(model.params, (x - x_mean) / x_scale).y[-1]
    return np.asarray(y * scale + mean)


def save_model(path: str | Path, model: Model) -> None:
    """Write model to path, whole or not at all: a file already there stays until it is replaced.

    Raises
    ------
    OSError
        If the file cannot be written.
    """
    path = Path(path)
    arrays: dict[str, Any] = model.params._asdict() | model.standardizer._asdict()
    arrays |= {name: np.array(getattr(model, name)) for name in (*TEXTS, "features", "length")}
    arrays["format"] = np.array(FORMAT)
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    try:
        with partial.open("wb") as file:
            np.savez(file, **arrays)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def load_model(path: str | Path) -> Model:
    """Read what ``save_model`` wrote, every bit of it the same.

    Raises
    ------
    DataError
        If the file cannot be read, is no such file, holds pickled objects, lacks an array, or holds
        one of the wrong kind or shape, or a number that is not finite.
    """
    path = Path(path)
    try:
        return _checked(_read_arrays(path))
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}") from error
    except UNREADABLE as error:
        raise DataError(f"{path}: expected a model written by save_model: {error}") from error


def _read_arrays(path: Path) -> dict[str, Array]:
    with path.open("rb") as file:
        archive = np.load(file, allow_pickle=False)
        if not isinstance(archive, np.lib.npyio.NpzFile):
            raise TypeError("got a single array")
        with archive:
            return {name: archive[name] for name in archive.files}


def _checked(arrays: Mapping[str, Array]) -> Model:
    """Return the model that arrays describe, or raise ValueError or TypeError."""
    expected = {*Params._fields, *Standardizer._fields, *TEXTS, "format", "features", "length"}
    if set(arrays) != expected:
        raise ValueError(f"arrays missing or unknown: {', '.join(sorted(expected ^ set(arrays)))}")
    if _integer(arrays, "format") != FORMAT:
        raise ValueError(f"format is {arrays['format']}; expected {FORMAT}")
    for name in (*Params._fields, *Standardizer._fields):
        if arrays[name].dtype.kind != "f":
            raise TypeError(
                f"{name} has dtype {arrays[name].dtype}; expected real floating numbers"
            )
    params = as_params(Params(*(arrays[k] for k in Params._fields)), check_finite=True)
    D = params.U.shape[1]
    if arrays["features"].shape != (D,) or arrays["features"].dtype.kind != "U":
        raise ValueError(f"features is {arrays['features']!r}; expected {D} names")
    return Model(
        params,
        _standardizer(arrays, D, len(params.V)),
        features=tuple(arrays["features"].tolist()),
        length=_integer(arrays, "length"),
        **{name: _text(arrays, name) for name in TEXTS},
    )


def _standardizer(arrays: Mapping[str, Array], n_inputs: int, n_outputs: int) -> Standardizer:
    shapes = ((n_inputs,), (n_inputs,), (n_outputs,), (n_outputs,))
    for name, shape in zip(Standardizer._fields, shapes, strict=True):
        require_finite(name, require_shape(name, arrays[name], shape, "one for each column"))
        if name.endswith("scale") and not (arrays[name] > 0).all():
            raise ValueError(f"{name} is {arrays[name]}; expected numbers above 0")
    return Standardizer(*(arrays[name] for name in Standardizer._fields))


def _integer(arrays: Mapping[str, Array], name: str) -> int:
    if arrays[name].shape != () or arrays[name].dtype.kind != "i" or arrays[name] < 1:
        raise ValueError(f"{name} is {arrays[name]!r}; expected one integer of at least 1")
    return int(arrays[name])


def _text(arrays: Mapping[str, Array], name: str) -> str:
    if arrays[name].shape != () or arrays[name].dtype.kind != "U":
        raise ValueError(f"{name} is {arrays[name]!r}; expected one text")
    return str(arrays[name])
