"""Recurrent networks in JAX: cells, each one function of one step of one sequence.

>>> sorted(CELLS)
['gru', 'gru_reset_after', 'relu', 'tanh']
"""

from importlib import import_module
from pkgutil import iter_modules
from typing import Any

from reference.network import cells
from reference.network.cell import Cell

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
        If there is no cell of this name.
    """
    if isinstance(cell, Cell):
        return cell
    if not isinstance(cell, str) or cell not in CELLS:
        names = ", ".join(map(repr, CELLS))
        raise ValueError(f"cell is {cell!r}; expected one of {names}, or a reference.Cell")
    return CELLS[cell]


def name_of(cell: Cell) -> str | None:
    """Return the name of a cell of this package."""
    return next((name for name, known in CELLS.items() if known is cell), None)
