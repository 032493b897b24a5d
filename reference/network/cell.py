"""A cell: how a recurrent network comes from one state to the next, as JAX can trace it."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from keyword import iskeyword
from math import prod
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from reference.user_code import arranged, places

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
        arrays, h the state, (H,) or the arrays that ``state`` names, x_t an input (D,).
    params : mapping
        The axes of each parameter: letters H (units) and D (inputs), each with a number before it
        where several blocks are stacked, or a number alone, set off by a comma or a space, for an
        axis of that length. ``"HD"`` is (H, D), ``"3HD"`` is (3 H, D), ``"H 2"`` is (H, 2). The
        names V and c belong to the output y = V h + c, which follows every cell.
    state : str, tuple or mapping
        The axes of the state, ``"H"``, or those of each array that it consists of, in tuples and
        mappings as step takes and returns them: ``("H", "H")`` for the h and s of an LSTM. The
        first array is the h of the output, and has the axes ``"H"``.

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

    A state of two arrays, of which the second is a running mean of the inputs:

    >>> def with_mean(p, state, x):
    ...     h, mean = state
    ...     mean = 0.9 * mean + 0.1 * x
    ...     return jnp.tanh(p["W"] @ h + p["U"] @ (x - mean)), mean
    >>> Cell(with_mean, params={"W": "HH", "U": "HD"}, state=("H", "D")).size({"H": 4, "D": 3})
    7
    """

    step: Callable[[Any, Any, Any], Any]
    params: Mapping[str, str]
    state: Any = "H"

    def __post_init__(self) -> None:
        if not callable(self.step):
            raise TypeError(f"step is a {type(self.step).__name__}; expected a function")
        if not isinstance(self.params, Mapping) or not self.params:
            raise ValueError(f"params is {self.params!r}; expected the axes of each by its name")
        for name, axes in self.params.items():
            _require_name(name)
            _axes(f"params[{name!r}]", axes)
        if next(iter(self.leaves.values()), None) != (Axis(1, "H"),):
            raise ValueError(f"state is {self.state!r}; expected 'H', for its first array at least")

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

    # The state --------------------------------------------------------------------------------

    @cached_property
    def leaves(self) -> dict[str, tuple[Axis, ...]]:
        """The axes of each array of the state, by its place: ``""`` for one alone, ``"[0]"``."""
        found = dict(places(self.state, self.state))
        return {place: _axes(f"state{place}", text) for place, text in found.items()}

    @property
    def of_several(self) -> bool:
        """Whether the state is arranged in tuples or mappings, and not an array."""
        return not isinstance(self.state, str)

    @cached_property
    def flat_step(self) -> Callable[[Any, Any, Any], Any]:
        """The step with the state as one vector, in which its arrays lie side by side."""
        if not self.of_several:
            return self.step

        def step(params: Any, h: Any, x: Any) -> Any:
            sizes = {"H": self._units(len(h), len(x)), "D": len(x)}
            after = places(self.step(params, self.unpacked(h, sizes), x), self.state)
            return jnp.concatenate([array.ravel() for _, array in after])

        return step

    def size(self, sizes: Mapping[str, int]) -> int:
        """Return how many numbers the state of a sequence consists of."""
        return sum(_counts(self.leaves, sizes))

    def _units(self, size: int, D: int) -> int:
        """Return H from how many numbers the state consists of."""
        return next(H for H in range(1, size + 1) if self.size({"H": H, "D": D}) == size)

    def unpacked(self, vector: Any, sizes: Mapping[str, int]) -> Any:
        """Return the arrays of the state from the vectors (..., size) in which they lie.

        Examples
        --------
        >>> pair = Cell(lambda p, state, x: state, params={"W": "HH"}, state=("H", "H"))
        >>> pair.unpacked(np.arange(4), {"H": 2})
        (array([0, 1]), array([2, 3]))
        """
        ends = [*accumulate(_counts(self.leaves, sizes))]
        starts, before = [0, *ends], vector.shape[:-1]
        arrays = {
            place: vector[..., start:end].reshape(*before, *(axis.size(sizes) for axis in axes))
            for (place, axes), start, end in zip(self.leaves.items(), starts, ends, strict=False)
        }
        return arranged(self.state, arrays)

    def packed(self, state: Any) -> np.ndarray:
        """Return the vectors (..., size) in which the arrays of a state lie side by side.

        Raises
        ------
        ValueError
            If the state is not arranged as that of the cell.
        """
        if not self.of_several:
            return np.asarray(state)
        arrays = {place: np.asarray(array) for place, array in places(state, self.state)}
        first, *_ = arrays.values()
        before = first.shape[:-1]
        return np.concatenate([a.reshape(*before, -1) for a in arrays.values()], axis=-1)

    def resized(
        self, vectors: np.ndarray, sizes: Mapping[str, int], to: Mapping[str, int]
    ) -> np.ndarray:
        """Return vectors (..., size) of the state for other sizes, each array cut or with zeros."""
        before = [Axis(n, "") for n in vectors.shape[:-1]]
        arrays = dict(places(self.unpacked(vectors, sizes), self.state))
        return self.packed(
            arranged(
                self.state,
                {k: resized(a, (*before, *self.leaves[k]), sizes, to) for k, a in arrays.items()},
            )
        )


def _counts(leaves: Mapping[str, tuple[Axis, ...]], sizes: Mapping[str, int]) -> list[int]:
    """Return how many numbers each array has."""
    return [prod(axis.size(sizes) for axis in axes) for axes in leaves.values()]


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
