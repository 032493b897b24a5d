"""Arrays that came from elsewhere, with their names in messages, and the parameters they make."""

from typing import Any, NamedTuple

import numpy as np

from manual_bptt.arrays import Array, floating_dtype
from manual_bptt.params import Params
from manual_bptt.validation import as_array, attributes, require_labs_cell

Arrays = dict[str, Array]
GATED = {3: "; 3 H is what a GRU has", 4: "; 4 H is what an LSTM has"}


class Entry(NamedTuple):
    """An array, and its name in messages."""

    name: str
    array: Array


def as_entry(name: str, value: Any) -> Entry:
    """Return value as an array of finite numbers, a tensor of torch's too."""
    array = as_array(name, _detached(value))
    finite = np.isfinite(array)
    if not finite.all():
        where = tuple(int(i) for i in np.argwhere(~finite)[0])
        raise ValueError(
            f"{name} holds {array[where]} at index {where}; expected finite {array.dtype} values"
        )
    return Entry(name, array)


def _detached(value: Any) -> Any:
    """Return a torch tensor as one that NumPy can read, and anything else as it is."""
    try:
        return value.detach().cpu()
    except Exception:  # not a tensor, or one that NumPy will say cannot be read
        return value


def own_params(name: str, holder: Any) -> Params:
    """Return the five arrays of Params or Gradients, checked and copied."""
    require_labs_cell(holder)
    kind = "Gradients" if name == "grads" else "Params"
    expected = f"{kind}, or an object with the attributes W, U, b, V and c"
    fields = attributes(name, holder, Params._fields, expected)
    return params_of(*(as_entry(f"{name}.{k}", value) for k, value in fields.items()))


def params_of(
    W: Entry, U: Entry, b: Entry | None, V: Entry, c: Entry | None, *, kernels: bool = False
) -> Params:
    """Return new arrays of one dtype whose shapes agree; kernels come transposed, None is zeros."""
    H = hidden_units(W)
    axis = 1 if kernels else 0  # that of the H in U; in V it is the other
    _require_matrix(U, ("(H, D)", "(D, H)")[axis], axis, H)
    _require_matrix(V, ("(O, H)", "(H, O)")[axis], 1 - axis, H)
    O = V.array.shape[axis]
    _require_vector(b, "(H,)", H)
    _require_vector(c, "(O,)", O)
    kinds = [entry.array.dtype for entry in (W, U, b, V, c) if entry is not None]
    dtype = floating_dtype(f"the common dtype of {W.name} and the rest", np.result_type(*kinds))
    sized = ((W, H), (U, H), (b, H), (V, O), (c, O))
    return Params(*(_copy(entry, n, dtype, transposed=kernels) for entry, n in sized))


def _copy(entry: Entry | None, n: int, dtype: np.dtype[Any], *, transposed: bool) -> Array:
    """Return a C-ordered copy, or n zeros for nothing."""
    if entry is None:
        return np.zeros(n, dtype)
    return np.array(entry.array.T if transposed else entry.array, dtype, order="C")


def hidden_units(W: Entry) -> int:
    """Return H, if W is square."""
    shape = W.array.shape
    if len(shape) != 2 or shape[0] != shape[1] or 0 in shape:
        hint = "" if len(shape) != 2 or 0 in shape else GATED.get(max(shape) / min(shape), "")
        raise ValueError(f"{W.name} has shape {shape}; expected (H, H) with H at least 1{hint}")
    return int(shape[0])


def _require_matrix(entry: Entry, meaning: str, axis: int, H: int) -> None:
    """Refuse what has not H entries along this axis, and at least one along the other."""
    shape = entry.array.shape
    if len(shape) != 2 or shape[axis] != H or 0 in shape:
        raise ValueError(f"{entry.name} has shape {shape}; expected {meaning} with H = {H}")


def _require_vector(entry: Entry | None, meaning: str, n: int) -> None:
    if entry is not None and entry.array.shape != (n,):
        raise ValueError(f"{entry.name} has shape {entry.array.shape}; expected {meaning} = {(n,)}")


def as_kernel(matrix: Array) -> Array:
    """Return the transpose, laid out in C order."""
    return np.ascontiguousarray(matrix.T)
