"""Shapes as data: "HD" is (H, D), and "3HD", where three gates are stacked, is (3 H, D)."""

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

Shape = tuple[int, ...]


def axes_of(cell: Any) -> dict[str, str]:
    """Return {field: axes} of all parameters of a cell, in their order."""
    axes = {**cell.AXES, "V": "OH", "c": "O"}
    return {name: axes[name] for name in cell.Params._fields}


def factors(axes: str) -> list[tuple[int, str]]:
    """Return how many times what each axis is.

    >>> factors("3HD")
    [(3, 'H'), (1, 'D')]
    """
    return [(int(times or 1), letter) for times, letter in re.findall(r"(\d*)([A-Z])", axes)]


def shape_of(axes: str, sizes: Mapping[str, int]) -> Shape:
    """Return the shape that axes have.

    >>> shape_of("3HD", {"H": 4, "D": 2})
    (12, 2)
    """
    return tuple(times * sizes[letter] for times, letter in factors(axes))


def in_letters(axes: str) -> str:
    """Return axes as a message shows them.

    >>> in_letters("3HD"), in_letters("H")
    ('(3H, D)', '(H,)')
    """
    letters = [f"{times}{letter}" if times > 1 else letter for times, letter in factors(axes)]
    return f"({letters[0]},)" if len(letters) == 1 else f"({', '.join(letters)})"


@lru_cache
def require_shapes(cell: Any, shapes: tuple[Shape, ...]) -> None:
    """Refuse shapes of a cell's parameters that do not agree; those that do are remembered."""
    sizes: dict[str, int] = {}
    for (name, axes), shape in zip(axes_of(cell).items(), shapes, strict=True):
        sizes |= _sizes_in(name, axes, shape, sizes)


def _sizes_in(name: str, axes: str, shape: Shape, known: Mapping[str, int]) -> dict[str, int]:
    """Return the sizes of axes, of which some are known, in a shape that has to fit."""
    pairs = zip(factors(axes), shape, strict=False)
    sizes = {letter: length // times for (times, letter), length in pairs} | dict(known)
    if len(shape) == len(factors(axes)) and 0 not in shape and shape_of(axes, sizes) == shape:
        return sizes
    letters = dict.fromkeys(letter for _, letter in factors(axes))
    given = [f"{letter} = {known[letter]}" for letter in letters if letter in known]
    free = [f"{letter} at least 1" for letter in letters if letter not in known]
    rest = f"with {', '.join(given + free)}" if free else f"= {shape_of(axes, known)}"
    raise ValueError(f"params.{name} has shape {shape}; expected {in_letters(axes)} {rest}")
