"""Files in the safetensors format, which hold the arrays as they are here."""

import os
from pathlib import Path
from typing import Any

import numpy as np

from manual_bptt.arrays import in_words
from manual_bptt.files import write_whole
from manual_bptt.interop.entries import as_entry, own_params, params_of
from manual_bptt.params import Params


def save_safetensors(path: str | os.PathLike[str], params: Params) -> None:
    """Write params to path, whole or not at all: a file already there stays until it is replaced.

    The file holds the arrays W, U, b, V and c and runs no code when it is read.

    Parameters
    ----------
    path : str or path
        Where to; the folder has to be there.
    params : Params
        The parameters, of float32 or float64.

    Raises
    ------
    ImportError
        If safetensors is not installed.
    TypeError
        If an argument is of the wrong kind, or params are of another dtype or another cell.
    ValueError
        If shapes disagree or a value is not finite.
    OSError
        If the file cannot be written.

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> from manual_bptt import init_params
    >>> with TemporaryDirectory() as folder:
    ...     save_safetensors(f"{folder}/rnn.safetensors", init_params(3, 4, 2, rng=0))
    ...     os.listdir(folder)
    ['rnn.safetensors']
    """
    path, own = _path(path), own_params("params", params)
    if own.W.dtype not in (np.float32, np.float64):
        raise TypeError(f"params' common dtype is {own.W.dtype}; expected float32 or float64")
    data = _safetensors().save(own._asdict())
    write_whole(path, lambda file: file.write(data))


def load_safetensors(path: str | os.PathLike[str]) -> Params:
    """Read what ``save_safetensors`` wrote, every bit of it the same.

    Parameters
    ----------
    path : str or path
        The file.

    Raises
    ------
    ImportError
        If safetensors is not installed.
    TypeError
        If path is none.
    ValueError
        If the file is of another format or cut short, or does not hold W, U, b, V and c alone, all
        finite, of shapes that agree, and of one dtype, float32 or float64.
    OSError
        If the file cannot be read.

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> from manual_bptt import init_params
    >>> params = init_params(3, 4, 2, rng=0)
    >>> with TemporaryDirectory() as folder:
    ...     save_safetensors(f"{folder}/rnn.safetensors", params)
    ...     again = load_safetensors(f"{folder}/rnn.safetensors")
    >>> all((ours == theirs).all() for ours, theirs in zip(params, again))
    True
    """
    path, library = _path(path), _safetensors()
    data = path.read_bytes()
    try:
        arrays = library.load(data)
    except Exception as error:  # whatever the library makes of untrusted bytes
        message = f"expected a file that save_safetensors wrote: {in_words(error, str)}"
        raise ValueError(f"{path}: {message}") from None
    if set(arrays) != set(Params._fields):
        came = in_words(sorted(arrays))
        raise ValueError(f"{path}: holds the arrays {came}; expected W, U, b, V and c")
    dtypes = {name: arrays[name].dtype for name in Params._fields}
    if dtypes["W"] not in (np.float32, np.float64) or len(set(dtypes.values())) > 1:
        came = ", ".join(f"{name} {dtype}" for name, dtype in dtypes.items())
        raise ValueError(f"{path}: holds {came}; expected float32 or float64 in all")
    return params_of(*(as_entry(f"{path}: {name}", arrays[name]) for name in Params._fields))


def _safetensors() -> Any:
    """Return safetensors.numpy, if it is installed."""
    try:
        import safetensors.numpy
    except ImportError:
        message = "this function needs safetensors: pip install 'manual-bptt[interop]'"
        raise ImportError(message) from None
    return safetensors.numpy


def _path(path: Any) -> Path:
    try:
        return Path(path)
    except Exception:  # whatever an unknown object raises
        raise TypeError(f"path is {in_words(path)}; expected a str or a path") from None
