"""Where training stands, in a file: numbers and one text, written whole or not at all.

The text, ``tag``, is the caller's: what the training is of, so that nobody goes on with another.
"""

from collections.abc import Mapping
from math import inf
from pathlib import Path
from typing import Any

import numpy as np

from manual_bptt.archive import read_arrays, write_arrays
from manual_bptt.arrays import Array
from manual_bptt.params import Params
from manual_bptt.training.trainer import Step, Training
from manual_bptt.validation import as_params, require_finite, require_labs_cell, require_shape

FORMAT = 1
COLUMNS = ("loss", "rate", "gradient_norm", "validation")
_WORDS = {"i": "integer", "f": "floating number", "b": "truth value", "U": "text"}


def save_training(path: str | Path, training: Training, tag: str = "") -> None:
    """Write the state of training to path; until that is done, the file that was there stays.

    Raises
    ------
    OSError
        If the file cannot be written.
    TypeError
        If the parameters are not those of the lab's network.

    Examples
    --------
    >>> import tempfile
    >>> from manual_bptt import init_params
    >>> from manual_bptt.training import Settings, begin
    >>> training = begin(init_params(2, 3, 1, rng=0), Settings(steps=10, batch_size=1))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save_training(Path(folder, "checkpoint.npz"), training, tag="mine")
    ...     loaded, tag = load_training(Path(folder, "checkpoint.npz"))
    >>> bool((loaded.params.W == training.params.W).all()), tag
    (True, 'mine')
    """
    require_labs_cell(training.params)
    sets = {"params": training.params, "best": training.best}
    sets |= {f"memory{i}": moment for i, moment in enumerate(training.memory)}
    arrays = {f"{name}.{k}": v for name, p in sets.items() for k, v in p._asdict().items()}
    columns = [[getattr(step, name) for step in training.steps] for name in COLUMNS]
    write_arrays(
        path,
        {
            **arrays,
            "format": FORMAT,
            "tag": tag,
            "moments": len(training.memory),
            "best_error": training.best_error,
            "finished": training.finished,
            "steps": np.array(columns, float),  # NaN where no validation error was taken
        },
    )


def load_training(path: str | Path) -> tuple[Training, str]:
    """Return the state of training and the tag that ``save_training`` wrote, every bit the same.

    Raises
    ------
    OSError
        If the file cannot be read.
    ValueError
        If it is no such file, is damaged, or holds arrays of the wrong kind or shape.
    """
    arrays = read_arrays(path)
    try:
        return _checked(arrays)
    except KeyError as error:
        raise ValueError(f"the array {error} is missing") from None


def _checked(arrays: Mapping[str, Array]) -> tuple[Training, str]:
    """Return the state and the tag that arrays hold, or raise ValueError, or KeyError for one."""
    form = _one(arrays, "format", "i")
    if form != FORMAT:
        raise ValueError(f"format is {form}; expected {FORMAT}")
    moments = _one(arrays, "moments", "i")
    if not 0 <= moments < len(arrays):
        raise ValueError(f"moments is {moments}; expected at least 0, and arrays for each")
    params, best, *memory = (
        _params(arrays, name, like=arrays["params.W"].dtype)
        for name in ("params", "best", *(f"memory{i}" for i in range(moments)))
    )
    for name, other in (("best", best), *((f"memory{i}", m) for i, m in enumerate(memory))):
        for k, array, like in zip(Params._fields, other, params, strict=True):
            require_shape(f"{name}.{k}", array, like.shape, "the shape of the parameter")
    steps = _steps(arrays["steps"])
    best_error = _one(arrays, "best_error", "f")
    lowest = min((step.validation for step in steps if step.validation is not None), default=inf)
    if best_error != lowest:
        raise ValueError(f"best_error is {best_error}; expected the lowest there is, {lowest}")
    finished = _one(arrays, "finished", "b")
    if finished and not steps:
        raise ValueError("it is finished without a step")
    training = Training(params, tuple(memory), best, best_error, steps, finished)
    return training, _one(arrays, "tag", "U")


def _one(arrays: Mapping[str, Array], name: str, kind: str) -> Any:
    """Return the one value of an array."""
    array = arrays[name]
    if array.shape != () or array.dtype.kind != kind:
        raise ValueError(
            f"{name} has shape {array.shape} and dtype {array.dtype}; expected one {_WORDS[kind]}"
        )
    return array.item()


def _params(arrays: Mapping[str, Array], name: str, like: np.dtype[Any]) -> Params:
    """Return a set of five finite arrays, of one floating dtype, that fit together."""
    values = Params(*(arrays[f"{name}.{k}"] for k in Params._fields))
    for k, array in zip(Params._fields, values, strict=True):
        if array.dtype != like or like.kind != "f":
            raise ValueError(
                f"{name}.{k} has dtype {array.dtype}; expected one floating dtype for all"
            )
    try:
        return Params(*as_params(values, check_finite=True))
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name}: {error}") from None


def _steps(columns: Array) -> tuple[Step, ...]:
    if columns.ndim != 2 or len(columns) != len(COLUMNS) or columns.dtype != float:
        raise ValueError(
            f"steps has shape {columns.shape} and dtype {columns.dtype}; expected {len(COLUMNS)} "
            "rows of float64"
        )
    require_finite("steps (but for validation)", columns[:-1])
    return tuple(
        Step(number, loss, rate, norm, None if np.isnan(error) else error)
        for number, (loss, rate, norm, error) in enumerate(columns.T.tolist(), start=1)
    )
