"""A cell: how a recurrent network comes from one state to the next, as JAX can trace it."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from keyword import iskeyword
from typing import Any, NamedTuple

import numpy as np

AXIS = re.compile(r"(\d*)([HDO])[ ,]*|(\d+)[ ,]*")
OUTPUT = {"V": "OH", "c": "O"}  # of the output y = V h + c, which is the same for all cells
STATES = ("x", "h0", "h")  # what there is a gradient in beside the parameters
TAKEN = frozenset((*OUTPUT, "x", "h0", "h", "y", "target", "states"))


class Axis(NamedTuple):
    """An axis of ``times`` blocks of the size with this letter; a fixed size has no letter."""

    times: int
    letter: str

    def size(self, sizes: Mapping[str, int]) -> int:
        """Return the length of the axis."""
        return self.times * sizes.get(self.letter, 1)


@dataclass(frozen=True, eq=False)
class Cell:
    """One step of a recurrent network, a function of JAX; the output y = V h + c follows it.

    Parameters
    ----------
    step : callable
        ``step(params, h, x_t)`` returns the next state of one sequence: params is a mapping of
        arrays, h the state (H,), x_t an input (D,).
    params : mapping
        The axes of each parameter: letters H (units) and D (inputs), each with a number before it
        where several blocks are stacked, or a number alone, set off by a comma or a space, for an
        axis of that length. ``"HD"`` is (H, D), ``"3HD"`` is (3 H, D), ``"H 2"`` is (H, 2). The
        names V and c belong to the output y = V h + c, which follows every cell.
    state : str
        The axes of the state.

    Raises
    ------
    TypeError
        If step is not callable.
    ValueError
        If a name is taken, or axes cannot be read.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> leaky = Cell(
    ...     lambda p, h, x: (1 - p["a"]) * h + p["a"] * jnp.tanh(p["W"] @ h + p["U"] @ x),
    ...     params={"W": "HH", "U": "HD", "a": "H"},
    ... )
    >>> leaky.shapes({"H": 4, "D": 3, "O": 2})
    {'W': (4, 4), 'U': (4, 3), 'a': (4,), 'V': (2, 4), 'c': (2,)}
    """

    step: Callable[[Any, Any, Any], Any]
    params: Mapping[str, str]
    state: str = "H"

    def __post_init__(self) -> None:
        if not callable(self.step):
            raise TypeError(f"step is a {type(self.step).__name__}; expected a function")
        if not isinstance(self.params, Mapping) or not self.params:
            raise ValueError(f"params is {self.params!r}; expected the axes of each by its name")
        for name, axes in self.params.items():
            _require_name(name)
            _axes(f"params[{name!r}]", axes)
        if self.state != "H":
            raise ValueError(f"state is {self.state!r}; expected 'H'")

    @property
    def fields(self) -> tuple[str, ...]:
        """The names of all parameters, those of the output last."""
        return (*self.params, *OUTPUT)

    @property
    def gradients(self) -> tuple[str, ...]:
        """The names of all that there is a gradient in: parameters, inputs, states."""
        return (*self.fields, *STATES)

    @property
    def axes(self) -> dict[str, tuple[Axis, ...]]:
        """The axes of every parameter."""
        return {k: _axes(k, text) for k, text in {**self.params, **OUTPUT}.items()}

    def shapes(self, sizes: Mapping[str, int]) -> dict[str, tuple[int, ...]]:
        """Return the shape of every parameter, for sizes D, H and O."""
        return {k: tuple(axis.size(sizes) for axis in axes) for k, axes in self.axes.items()}


def _axes(name: str, text: Any) -> tuple[Axis, ...]:
    """Return the axes that a text names."""
    if not isinstance(text, str) or AXIS.sub("", text):
        raise ValueError(f"{name} is {text!r}; expected axes such as 'HD', '3HH' or 'H 2'")
    return tuple(
        Axis(int(number or times or 1), letter) for times, letter, number in AXIS.findall(text)
    )


def _require_name(name: Any) -> None:
    """Refuse what cannot be the name of a parameter."""
    usable = isinstance(name, str) and name.isidentifier() and not iskeyword(name)
    if not usable or name.startswith("_") or name in TAKEN:
        taken = " ".join(sorted(TAKEN))
        raise ValueError(f"params names {name!r}; expected a name, and none of {taken}")


def resized(
    array: np.ndarray, axes: tuple[Axis, ...], sizes: Mapping[str, int], to: Mapping[str, int]
) -> np.ndarray:
    """Return an array for other sizes: cut, or with zeros after the entries of each block.

    Examples
    --------
    >>> row = np.array([1, 2, 3, 4, 5, 6])
    >>> resized(row, (Axis(2, "H"),), {"H": 3}, {"H": 4})
    array([1, 2, 3, 0, 4, 5, 6, 0])
    """

    def blocks(of: Mapping[str, int]) -> list[int]:
        return [n for axis in axes for n in (axis.times, of.get(axis.letter, 1))]

    found = np.zeros(blocks(to), array.dtype)
    corner = tuple(slice(min(pair)) for pair in zip(blocks(sizes), blocks(to), strict=True))
    found[corner] = array.reshape(blocks(sizes))[corner]
    return found.reshape([axis.size(to) for axis in axes])
