"""A trained forecaster: what it is, how it forecasts, and its file.

The file holds numbers and one text in JSON. Nothing in it is pickled, so reading one runs no code,
and what is read is checked before it is believed.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from manual_bptt.archive import read_arrays, write_arrays
from manual_bptt.arithmetic import reports_overflow
from manual_bptt.arrays import Array
from manual_bptt.forecasting.baselines import in_chunks
from manual_bptt.forecasting.columns import DataError
from manual_bptt.forecasting.description import anything, fields, flag, integer, levels, text, texts
from manual_bptt.forecasting.features import Inputs, compute_features
from manual_bptt.forecasting.sources import Layout, as_layout
from manual_bptt.forecasting.table import Table
from manual_bptt.forecasting.windows import (
    MAX_FILL,
    Standardizer,
    Windows,
    cut_windows,
    fill_forward,
)
from manual_bptt.forward import forward
from manual_bptt.params import Params
from manual_bptt.validation import as_params, require_finite, require_labs_cell, require_shape

FORMAT = 2
MAX_LENGTH = 10_000  # hours of a window


class Model(NamedTuple):
    """Everything a forecast needs.

    ``layout`` says what the columns of a file hold, ``inputs`` which features they become;
    ``length`` is T, the hours of a window. The network puts out the standardised target, or, if
    ``of_change``, the standardised change of the target since the last hour of the window.
    ``recipe`` is what the model was trained by.
    """

    params: Params
    standardizer: Standardizer
    layout: Layout
    inputs: Inputs
    length: int
    of_change: bool
    recipe: str


def windows_of(model: Model, table: Table, *, ahead: bool = False) -> Windows:
    """Return the windows of a table that the model can forecast from.

    Parameters
    ----------
    model : Model
        What ``train_recipe`` or ``load_model`` returned.
    table : Table
        Observations, as ``read_source`` returns them.
    ahead : bool
        Whether to keep windows whose hour to forecast was not observed, or is yet to come.

    Raises
    ------
    DataError
        If the table lacks what the model reads, or has no complete window.
    """
    features = compute_features(model.inputs, table)
    target = model.inputs.target
    known = fill_forward(table, MAX_FILL).column(target)
    windows = cut_windows(table, features, known, table.column(target), model.length, ahead=ahead)
    if not len(windows.time):
        raise DataError(
            f"expected {model.length + (not ahead)} consecutive hours of one group with "
            f"{', '.join(model.inputs.numbers)} known; no such stretch begins in any of the "
            f"{len(table.time)} rows"
        )
    return windows


@reports_overflow
def predict(model: Model, windows: Windows) -> Array:
    """Forecast the target of the hour after each window, (N, 1), in the unit of the table.

    Examples
    --------
    >>> from manual_bptt.forecasting import load_weather, train_recipe
    >>> model = train_recipe("lab9").model
    >>> windows = windows_of(model, load_weather())
    >>> predict(model, windows).shape == windows.target.shape
    True
    """
    return np.concatenate([_predict(model, part) for part in in_chunks(windows)])


def _predict(model: Model, windows: Windows) -> Array:
    x_mean, x_scale, mean, scale = model.standardizer
    x = ((windows.x - x_mean) / x_scale).astype(model.params.W.dtype)
    y = forward(model.params, x, check_finite=False).y[-1].astype(float)
    return np.asarray(y * scale + mean + (windows.last if model.of_change else 0))


# The file ------------------------------------------------------------------------------------


def save_model(path: str | Path, model: Model) -> None:
    """Write model to path, whole or not at all: a file already there stays until it is replaced.

    Raises
    ------
    OSError
        If the file cannot be written.
    TypeError
        If the parameters are not those of the lab's network.
    """
    require_labs_cell(model.params)
    described = {
        "format": FORMAT,
        "layout": model.layout._asdict(),
        "inputs": model.inputs._asdict() | {"levels": dict(model.inputs.levels)},
        "length": model.length,
        "of_change": model.of_change,
        "recipe": model.recipe,
    }
    arrays = model.params._asdict() | model.standardizer._asdict()
    write_arrays(path, {**arrays, "description": json.dumps(described)})


def load_model(path: str | Path) -> Model:
    """Read what ``save_model`` wrote, every bit of it the same.

    Raises
    ------
    DataError
        If the file cannot be read, is no such file, holds pickled objects, lacks an array, or holds
        one of the wrong kind or shape, or a number that is not finite.
    """
    try:
        return _checked(read_arrays(path))
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}") from error
    except (ValueError, TypeError, RecursionError) as error:
        raise DataError(f"{path}: expected a model written by save_model: {error}") from error


def _checked(arrays: Mapping[str, Array]) -> Model:
    """Return the model that arrays describe, or raise ValueError or TypeError."""
    expected = {*Params._fields, *Standardizer._fields, "description"}
    if set(arrays) != expected:
        raise ValueError(f"arrays missing or unknown: {', '.join(sorted(expected ^ set(arrays)))}")
    for name in (*Params._fields, *Standardizer._fields):
        if arrays[name].dtype.kind != "f":
            raise TypeError(
                f"{name} has dtype {arrays[name].dtype}; expected real floating numbers"
            )
    params = as_params(Params(*(arrays[k] for k in Params._fields)), check_finite=True)
    if arrays["description"].shape != () or arrays["description"].dtype.kind != "U":
        raise ValueError("description is not one text")
    model = _described(json.loads(str(arrays["description"])), params, arrays)
    D, O = len(model.inputs.names), 1
    if params.U.shape[1] != D or len(params.V) != O:
        raise ValueError(
            f"params.U has shape {params.U.shape}, params.V {params.V.shape}; expected "
            f"{D} columns, one for each feature, and {O} row"
        )
    _check_standardizer(model.standardizer, D, O)
    return model


def _described(described: Any, params: Params, arrays: Mapping[str, Array]) -> Model:
    """Return the model with everything that the text says of it, checked."""
    described = fields("description", described, _KINDS_OF_DESCRIPTION)
    if described["format"] != FORMAT:
        raise ValueError(f"format is {described['format']}; expected {FORMAT}")
    inputs = fields("inputs", described["inputs"], _KINDS_OF_INPUTS)
    layout = as_layout(described["layout"])
    if not 1 <= described["length"] <= MAX_LENGTH:
        raise ValueError(f"length is {described['length']}; expected 1 to {MAX_LENGTH}")
    if inputs["target"] not in inputs["numbers"] or inputs["target"] != layout.target:
        raise ValueError(f"target is {inputs['target']!r}; expected {layout.target!r}")
    return Model(
        params,
        Standardizer(*(arrays[name] for name in Standardizer._fields)),
        layout,
        Inputs(**inputs),
        described["length"],
        described["of_change"],
        described["recipe"],
    )


_KINDS_OF_DESCRIPTION = {
    "format": integer,
    "layout": anything,
    "inputs": anything,
    "length": integer,
    "of_change": flag,
    "recipe": text,
}
_KINDS_OF_INPUTS = {
    "numbers": texts,
    "levels": levels,
    "groups": texts,
    "target": text,
    "derived": flag,
}


def _check_standardizer(standardizer: Standardizer, n_inputs: int, n_outputs: int) -> None:
    shapes = ((n_inputs,), (n_inputs,), (n_outputs,), (n_outputs,))
    for name, array, shape in zip(Standardizer._fields, standardizer, shapes, strict=True):
        require_finite(name, require_shape(name, array, shape, "one for each column"))
        if name.endswith("scale") and not (array > 0).all():
            raise ValueError(f"{name} is {array}; expected numbers above 0")
