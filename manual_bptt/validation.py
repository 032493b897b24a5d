"""Checks of arguments: a bad one gets one message that names it, what was expected, what came.

Every public function passes its arguments through here once, before any arithmetic, so that the
kernels see C-ordered arrays of one native floating dtype whose shapes agree: NumPy's broadcasting
never hides a mistake, and the layout of an argument changes no bit of a result. ``TypeError`` is
for a wrong kind, ``ValueError`` for a wrong shape or value.
"""

from collections.abc import Iterable
from functools import cache
from itertools import repeat
from math import isfinite
from typing import Any

import numpy as np

from manual_bptt.arrays import AnyParams, Array, floating_dtype, in_words, sum_of_squares
from manual_bptt.axes import Shape, require_shapes
from manual_bptt.cells import CELLS, cell_of, name_of


def as_array(name: str, value: Any, dtype: np.dtype[Any] | None = None) -> Array:
    """Return value as an array of numbers; where a dtype is given, C-ordered and of that dtype."""
    array = value if type(value) is np.ndarray else _from_anything(name, value)
    if dtype is not None and array.dtype == dtype and array.flags.c_contiguous:
        return array
    if array.dtype.kind not in "fiubc":
        raise TypeError(f"{name} has dtype {in_words(array.dtype, str)}; expected numbers")
    if dtype is None:
        return array
    if array.dtype.kind == "c" and dtype.kind != "c":
        raise TypeError(f"{name} is complex; expected real numbers, since the rest is {dtype}")
    with np.errstate(over="ignore", under="ignore"):  # what overflows fails the finiteness scan
        return array.astype(dtype, order="C", copy=False)


def _from_anything(name: str, value: Any) -> Array:
    """Return what is no plain array as one."""
    _require_plain_lists(name, value)
    try:
        return np.asarray(value)
    except Exception as error:  # whatever the object raises when it is asked for its numbers
        raise ValueError(f"{name} is not an array: {in_words(error, str)}") from None


def _require_plain_lists(name: str, value: Any, depth: int = 0) -> None:
    """Refuse masked arrays, which lose their masks in a list, and lists that have no end."""
    if isinstance(value, np.ma.MaskedArray):
        raise TypeError(f"{name} is a masked array; expected plain numbers (use .filled())")
    if isinstance(value, list | tuple):
        if depth == 3:
            raise ValueError(f"{name} is nested more than three lists deep; expected an array")
        nested = (list, tuple, np.ma.MaskedArray)
        if any(issubclass(kind, nested) for kind in set(map(type, value))):
            for part in value:
                _require_plain_lists(name, part, depth + 1)


def require_shape(name: str, array: Array, shape: Shape, meaning: str) -> Array:
    """Return array if it has exactly this shape; meaning says it in terms of T, B, D, H, O."""
    if array.shape != shape:
        raise ValueError(f"{name} has shape {array.shape}; expected {meaning} = {shape}")
    return array


def require_finite(name: str, array: Array) -> Array:
    """Return array if it holds neither NaN nor infinity."""
    if array.size < 2**13 and isfinite(sum_of_squares(array)):  # BLAS starts threads for more
        return array
    finite = np.isfinite(array)
    if not finite.all():
        where = tuple(int(i) for i in np.argwhere(~finite)[0])
        raise ValueError(
            f"{name} holds {array[where]} at index {where}; expected finite {array.dtype} values "
            "(check_finite=False skips this scan)"
        )
    return array


def require_flag(name: str, value: Any) -> None:
    """Refuse what is neither True nor False: text such as "no" would count as True."""
    if not isinstance(value, bool | np.bool_):
        raise TypeError(f"{name} is {in_words(value)}; expected True or False")


def attributes(name: str, holder: Any, names: Iterable[str], expected: str) -> dict[str, Any]:
    """Return {name: attribute} of an object that has to have them all."""
    try:
        return {k: getattr(holder, k) for k in names}
    except Exception:  # an attribute is missing, or an object of the caller's fails to give it
        raise TypeError(f"{name} is a {type(holder).__name__}; expected {expected}") from None


def parameters_in(holder: Any, kind: Any) -> AnyParams:
    """Return what an object has as attributes as the parameters of a cell, unchecked."""
    if type(holder) is kind:
        return holder
    *names, last = kind._fields
    expected = f"Params, or an object with the attributes {', '.join(names)} and {last}"
    return kind(**attributes("params", holder, kind._fields, expected))


def as_params(params: Any, *, check_finite: bool) -> Any:
    """Return the parameters of a cell in one native dtype, with shapes that agree."""
    require_flag("check_finite", check_finite)
    cell = cell_of(params)
    kind, names = cell.Params, _names(cell)
    arrays = [*map(as_array, names, parameters_in(params, kind))]
    dtype = floating_dtype("params' common dtype", np.result_type(*arrays))
    native = kind(*map(as_array, names, arrays, repeat(dtype)))
    require_shapes(cell, tuple([array.shape for array in native]))
    if check_finite:
        for name, array in zip(names, native, strict=True):
            require_finite(name, array)
    return native


def require_labs_cell(params: Any) -> None:
    """Refuse the parameters of another cell, where there is a meaning for the lab's alone."""
    cell = cell_of(params)
    if cell is not CELLS["tanh"]:
        raise TypeError(
            f"params are those of the cell {name_of(cell)}; expected the lab's network, Params"
        )


@cache
def _names(cell: Any) -> tuple[str, ...]:
    """Return what a message calls the parameters of a cell."""
    return tuple(f"params.{name}" for name in cell.Params._fields)


def as_inputs(params: AnyParams, x: Any, *, check_finite: bool, name: str = "x") -> Array:
    """Return x as (T, D) or (T, B, D) in the dtype of params."""
    x = as_array(name, x, params.W.dtype)
    D = params.U.shape[1]
    if x.ndim not in (2, 3) or x.shape[-1] != D:
        raise ValueError(
            f"{name} has shape {x.shape}; expected (T, D) or (T, B, D) with D = {D}, "
            "the number of columns of params.U"
        )
    if 0 in x.shape:
        raise ValueError(
            f"{name} has shape {x.shape}; expected at least one time step and one sequence"
        )
    return require_finite(name, x) if check_finite else x


def as_state(
    name: str, value: Any, params: AnyParams, batch: Shape, *, check_finite: bool
) -> Array:
    """Return one hidden state, or a gradient in one, as (H,) or (B, H); None stands for zeros."""
    shape = (*batch, params.V.shape[1])
    if value is None:
        return np.zeros(shape, params.W.dtype)
    array = as_array(name, value, params.W.dtype)
    require_shape(name, array, shape, "(B, H)" if batch else "(H,)")
    return require_finite(name, array) if check_finite else array


def as_outputs(name: str, value: Any, params: AnyParams, x: Array, *, check_finite: bool) -> Array:
    """Return a gradient in the outputs as (T, O) or (T, B, O), matching x and params."""
    array = as_array(name, value, params.W.dtype)
    shape = (*x.shape[:-1], len(params.V))
    require_shape(name, array, shape, "(T, B, O)" if x.ndim == 3 else "(T, O)")
    return require_finite(name, array) if check_finite else array
