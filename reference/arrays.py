"""The arrays of a problem: their names, their axes, and how those of a state are arranged.

A state is one array, or several in tuples and mappings. Each of several is named by its place:
``h0[1]`` is the second array of h0, and ``h0`` its root.
"""

from collections.abc import Mapping
from typing import Any

from reference.network.cell import Axis, Cell
from reference.network.losses import named_loss
from reference.user_code import places

OF_STATE = ("h0", "h", "states")  # what is arranged like a state


def root(name: str) -> str:
    """Return what an array belongs to: ``"h0"`` for ``"h0[1]"``."""
    return name.partition("[")[0]


def given_trees(cell: Cell, loss: Any) -> dict[str, Any]:
    """Return how h0 and the target are arranged; in the place of an array is its name or axes."""
    return {"h0": cell.state, "target": cell.state if named_loss(loss).of_states else "target"}


def named_arrays(given: Mapping[str, Any], trees: Mapping[str, Any]) -> dict[str, Any]:
    """Return all arrays by name, a name and a place where there are several.

    Raises
    ------
    ValueError
        If something is not arranged as it should be.
    """
    found: dict[str, Any] = {}
    for k, tree in trees.items():
        try:
            found |= {f"{k}{place}": array for place, array in places(given[k], tree)}
        except ValueError as error:
            raise ValueError(f"{k}: {error}") from None
    return found


def axes_of(cell: Cell, loss: Any) -> dict[str, tuple[Axis, ...]]:
    """Return the axes of all arrays of a problem, those of time and of sequences among them."""
    T, B, D = (Axis(1, letter) for letter in "TBD")
    known, found = named_loss(loss), {**cell.axes, "x": (T, B, D)}
    found |= {f"h0{place}": (B, *axes) for place, axes in cell.leaves.items()}
    if known.of_states:
        return found | {f"target{place}": (B, *axes) for place, axes in cell.leaves.items()}
    return found | {"target": tuple(Axis(1, letter) for letter in known.axes)}


def shape_for(axes: tuple[Axis, ...], sizes: Mapping[str, int]) -> tuple[int, ...]:
    """Return the shape of an array; there is no axis of sequences without B."""
    return tuple(axis.size(sizes) for axis in axes if axis.letter != "B" or "B" in sizes)
