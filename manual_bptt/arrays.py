"""What an array is here, and how a message shows a value."""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
# The parameters of any cell, a NamedTuple: W, U and b are the cell's, their rows one gate after the
# other; V (O, H) and c (O,) make the outputs (Eq. 2). Further fields of the cell come after these.
AnyParams = Any


def rows(array: Array) -> Array:
    """View (T, B, N) or (T, N) as one row per step and sequence: (T B, N)."""
    return array if array.ndim == 2 else array.reshape(-1, array.shape[-1])


def sum_of_squares(array: Array) -> float:
    """Return the sum of the squared magnitudes, which is not finite where an entry is not."""
    return float(np.vdot(array, array).real)


def floating_dtype(name: str, dtype: np.dtype[Any]) -> np.dtype[Any]:
    """Return dtype in native byte order, or refuse what the equations cannot be computed in."""
    if dtype.kind not in "fc" or dtype.itemsize < 4:
        raise TypeError(f"{name} is {dtype}; expected float32, float64 or a wider floating type")
    return dtype.newbyteorder("=")


def in_words(value: Any, spell: Callable[[Any], str] = repr) -> str:
    """Return value on one short line, as a message shows it."""
    try:
        text = " ".join(spell(value).split())
    except Exception:  # an object of the caller's may refuse
        text = f"a {type(value).__name__}"
    return text if len(text) <= 160 else text[:157] + "..."
