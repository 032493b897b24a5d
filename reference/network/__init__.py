"""Recurrent networks in JAX: cells, each one function of one step of one sequence.

>>> sorted(CELLS)
['gru', 'gru_reset_after', 'relu', 'tanh']
"""

import sys
from functools import lru_cache, partial
from importlib import import_module
from pkgutil import iter_modules
from typing import Any

import jax
import jax.numpy as jnp

from reference.network import cells
from reference.network.cell import Cell
from reference.user_code import arranged, in_words, places

CELLS: dict[str, Cell] = {
    module.name: import_module(f"{cells.__name__}.{module.name}").CELL
    for module in iter_modules(cells.__path__)
}
"""Every cell of this package, by the name of its file."""


def named_cell(cell: Any) -> Cell:
    """Return a cell, if it is not one already by its name.

    Raises
    ------
    ValueError
        If there is no cell of this name, or JAX cannot trace the step of one, or what it returns is
        no next state.
    """
    if isinstance(cell, Cell):
        _require_step(cell)
        return cell
    if not isinstance(cell, str) or cell not in CELLS:
        names = ", ".join(map(repr, CELLS))
        raise ValueError(f"cell is {cell!r}; expected one of {names}, or a reference.Cell")
    return CELLS[cell]


@lru_cache(maxsize=64)
def _require_step(cell: Cell) -> None:
    """Refuse a cell whose step fails, or returns anything but a state."""
    array = partial(jax.ShapeDtypeStruct, dtype=jnp.float32)
    sizes = {"D": 2, "H": 3, "O": 1}
    shapes = cell.shapes(sizes)
    try:
        params = {k: array(shapes[k]) for k in cell.params}
        before = {k: array(tuple(a.size(sizes) for a in axes)) for k, axes in cell.leaves.items()}
        state = arranged(cell.state, before)
        after = jax.eval_shape(cell.step, params, state, array((2,)))
    except Exception as error:  # user code may raise anything
        raise ValueError(f"JAX cannot trace the step of the cell: {in_words(error)}") from error
    try:
        arrays = dict(places(after, cell.state))
    except ValueError as error:
        raise ValueError(f"what the step of the cell returned: {error}") from None
    for place, expected in before.items():
        found = arrays[place]
        shape, dtype = getattr(found, "shape", None), getattr(found, "dtype", jnp.int32)
        if shape != expected.shape or not jnp.issubdtype(dtype, jnp.floating):
            came = type(found).__name__ if shape is None else f"{dtype} of shape {shape}"
            where = f" at {place}" if place else ""
            raise ValueError(
                f"the step of the cell returned {came}{where} for 3 units; expected real numbers "
                f"of shape {expected.shape}"
            )


def name_of(cell: Cell) -> str | None:
    """Return the name of a cell of this package."""
    return next((name for name, known in CELLS.items() if known is cell), None)


def in_code(cell: Cell) -> tuple[str, tuple[str, ...]]:
    """Return how a cell is written in a line of Python, and what that line has to import.

    Examples
    --------
    >>> in_code(CELLS["gru"])
    ("'gru'", ())
    """
    name = name_of(cell)
    if name is not None:
        return repr(name), ()
    module = getattr(cell.step, "__module__", "")
    known = vars(sys.modules.get(module, object)) if module != "__main__" else {}
    own = next((k for k, value in known.items() if value is cell), None)
    return ("cell", ()) if own is None else (own, (f"from {module} import {own}",))
