"""Taking trees of arguments apart, and finding a gradient's leaves in what was returned.

A leaf is found again by the names on the way to it, so that it does not matter whether a gradient
comes in a dict, a namedtuple or an object of another class than the argument's.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import keystr, tree_flatten_with_path

from reference.devices import cpu, float64_on_cpu
from reference.user_code import in_words

Names = tuple[Any, ...]
MISSING = object()


class Place(NamedTuple):
    """Where a leaf of the arguments is: names from the argument's number on, label, position."""

    names: Names
    label: str
    position: int


class Given(NamedTuple):
    """The leaves of all arguments; ``variables`` are those to differentiate in."""

    leaves: list[Any]
    tree: Any
    variables: list[Place]
    constants: list[Place]
    dtype: np.dtype[Any]

    def arguments(self, leaves: list[Any]) -> Any:
        """Return the arguments with these leaves."""
        return jax.tree.unflatten(self.tree, leaves)

    def values(self) -> list[np.ndarray]:
        """Return the variables in float64."""
        return [np.array(self.leaves[v.position], np.float64) for v in self.variables]

    def by_position(self, values: list[np.ndarray]) -> dict[int, np.ndarray]:
        """Return values of the variables by where these are among the leaves."""
        return {v.position: a for v, a in zip(self.variables, values, strict=True)}

    def of_first(self) -> list[Place]:
        """Return the variables of the first argument."""
        return [v for v in self.variables if v.names[0] == 0]


class Raised(NamedTuple):
    """Why a call returned nothing."""

    reason: str


def read(args: tuple[Any, ...]) -> Given:
    """Take the arguments apart, and find out in which precision they are."""
    pairs, tree = tree_flatten_with_path(args)
    leaves: list[Any] = []
    variables: list[Place] = []
    constants: list[Place] = []
    precisions: dict[np.dtype[Any], str] = {}
    for path, value in pairs:
        place = Place(_names(path), f"args{keystr(path)}", len(leaves))
        leaf = np.asarray(value) if _is_array(value) else value
        dtype = _precision(place.label, leaf)
        leaves.append(leaf)
        (constants if dtype is None else variables).append(place)
        if dtype is not None and type(leaf) is not float:
            precisions.setdefault(dtype, place.label)
    if len(precisions) > 1:
        (a, at_a), (b, at_b) = precisions.items()
        raise ValueError(f"{at_a} is {a} and {at_b} is {b}; expected one precision")
    return Given(leaves, tree, variables, constants, [*precisions, np.dtype(float)][0])


def _is_array(value: Any) -> bool:
    if isinstance(value, jax.Array):
        return not jnp.issubdtype(value.dtype, jax.dtypes.prng_key)
    return isinstance(value, np.ndarray)


def _precision(label: str, leaf: Any) -> np.dtype[Any] | None:
    """Return the dtype of a leaf to differentiate in, and None for one that is a constant."""
    if not isinstance(leaf, np.ndarray | np.generic | float | complex):
        return None
    dtype = np.asarray(leaf).dtype
    if dtype in (np.float32, np.float64):
        return dtype
    if jnp.issubdtype(dtype, np.inexact):
        convert = "" if dtype.kind == "c" else "; convert it, and those that go with it, by .astype"
        raise TypeError(f"{label} is {dtype}; expected float32 or float64{convert}")
    return None


def _names(path: Any) -> Names:
    """Return what the keys of a path are called, be they keys, indices or fields."""
    kinds = ("key", "idx", "name")
    return tuple(next(getattr(k, kind) for kind in kinds if hasattr(k, kind)) for k in path)


def loss_of_variables(loss_fn: Callable[..., Any], given: Given) -> Callable[[list[Any]], Any]:
    """Return the loss as a function of the variables alone.

    Raises ValueError unless JAX can trace it and it returns a real scalar.
    """

    with float64_on_cpu():  # what is an array of JAX here is a key of random numbers
        moved = [jax.device_put(a, cpu()) if isinstance(a, jax.Array) else a for a in given.leaves]

    def loss(values: list[Any]) -> Any:
        leaves = list(moved)
        for variable, value in zip(given.variables, values, strict=True):
            leaves[variable.position] = value
        return loss_fn(*given.arguments(leaves))

    try:
        with float64_on_cpu():
            result = jax.eval_shape(loss, given.values())
    except Exception as error:  # user code
        raise ValueError(f"JAX cannot trace loss_fn in float64: {in_words(error)}") from error
    kind = f"a {type(result).__name__}"
    if isinstance(result, jax.ShapeDtypeStruct):
        kind = f"an array of {result.dtype} and shape {result.shape}"
        if result.shape == () and jnp.issubdtype(result.dtype, np.floating):
            return loss
    raise ValueError(f"loss_fn returned {kind}; expected a real scalar")


class Caller:
    """Calls grad_fn with copies of the arguments: the same arrays each time, filled anew."""

    def __init__(self, grad_fn: Callable[..., Any], given: Given) -> None:
        self._grad_fn, self._given = grad_fn, given
        self._copies = [a.copy() if isinstance(a, np.ndarray) else a for a in given.leaves]

    def __call__(self, values: list[np.ndarray] | None = None) -> tuple[Any, list[str]]:
        """Return what grad_fn makes of the arguments, or Raised; and what it wrote to.

        With values, arrays that are differentiated in have those.
        """
        others = {} if values is None else self._given.by_position(values)
        leaves, filled = list(self._copies), []
        for i, (leaf, copy) in enumerate(zip(self._given.leaves, self._copies, strict=True)):
            if isinstance(copy, np.ndarray):
                np.copyto(copy, others.get(i, leaf), casting="same_kind")
                filled.append((i, copy, copy.tobytes()))
            elif i in others:
                leaves[i] = type(leaf)(others[i])
        try:
            returned = self._grad_fn(*self._given.arguments(leaves))
        except (Exception, SystemExit) as error:  # user code
            return Raised(in_words(error)), []
        labels = {v.position: v.label for v in self._given.variables + self._given.constants}
        return returned, [
            f"grad_fn writes to its input {labels[i]}"
            for i, copy, before in filled
            if copy.tobytes() != before
        ]


class Matched(NamedTuple):
    """The leaves of a gradient: None if left out, MISSING if there is none where one should be.

    ``strays`` are leaves that belong nowhere: the label of each, and what is wrong with it.
    """

    leaves: list[tuple[Place, Any]]
    strays: list[tuple[str, str]]
    notes: list[str]


def match(returned: Any, given: Given) -> Matched:
    """Find the gradient in each variable in what was returned."""
    returned, notes = _taken_apart(returned, given)
    pairs, _ = tree_flatten_with_path(returned, is_leaf=_is_none)
    leaves = {_names(path): leaf for path, leaf in pairs}
    left_out = [names for names, leaf in leaves.items() if leaf is None]
    in_all = _is_in_all(leaves, given)
    skip = 0 if in_all else 1  # names in the gradient begin within the first argument

    def leaf_of(variable: Place) -> Any:
        names = variable.names[skip:]
        if any(names[: len(k)] == k for k in left_out):
            return None
        return leaves.get(names, MISSING)

    variables = given.variables if in_all else given.of_first()
    known = {v.names[skip:] for v in variables}
    constant = {c.names[skip:] for c in given.constants if in_all or c.names[0] == 0}
    matched = Matched([(v, leaf_of(v)) for v in variables], [], notes)
    number = len(given.arguments(given.leaves))
    if number > 1:
        which = f"each of {number} arguments" if in_all else "args[0] alone"
        matched.notes.append(f"grad_fn returned the gradient in {which}")
    for path, leaf in pairs:
        label = f"args{'' if in_all else '[0]'}{keystr(path)}"
        if _names(path) in constant and leaf is not None:
            matched.notes.append(f"{label} is a constant, and its gradient was not looked at")
        elif _names(path) not in known and leaf is not None:
            matched.strays.append((label, _stray(leaf)))
    if matched.strays and _is_value_and_gradient(returned, given):
        matched.notes.append("is this (value, gradient)? Return the gradient alone")
    return matched


def _taken_apart(returned: Any, given: Given) -> tuple[Any, list[str]]:
    """Return one vector of a whole gradient as a tree, and say so; all else as it is."""
    args = given.arguments(given.leaves)
    if not _is_array(returned) or returned.ndim != 1 or _is_array(args[0]):
        return returned, []
    for tree, what in ((args[0], "args[0]"), (args, "all arguments")):
        leaves, structure = jax.tree.flatten(tree)
        numbers = all(isinstance(a, np.ndarray | np.generic | float | int) for a in leaves)
        ends = np.cumsum([np.size(leaf) for leaf in leaves]).tolist() if numbers else []
        if ends[-1:] == [len(returned)]:
            parts = np.split(np.asarray(returned), ends[:-1])
            shaped = [p.reshape(np.shape(a)) for p, a in zip(parts, leaves, strict=True)]
            note = f"grad_fn returned one vector, taken apart as the leaves of {what}, in order"
            return jax.tree.unflatten(structure, shaped), [note]
    return returned, []


def _stray(leaf: Any) -> str:
    """Return why a leaf belongs nowhere; JAX takes for one what it cannot look into."""
    if _is_array(leaf) or isinstance(leaf, np.generic | int | float):
        return "the arguments have no such leaf"
    kind = type(leaf).__name__
    return f"the arguments have no such leaf; it is a {kind}, which JAX does not know as a tree"


def _is_none(leaf: Any) -> bool:
    return leaf is None


def _is_value_and_gradient(returned: Any, given: Given) -> bool:
    """Return whether this looks like what ``jax.value_and_grad`` gives."""
    args = given.arguments(given.leaves)
    if not isinstance(returned, tuple) or len(returned) != 2:
        return False
    return jax.tree.structure(returned[1]) in map(jax.tree.structure, (args[0], args))


def _is_in_all(leaves: dict[Names, Any], given: Given) -> bool:
    """Return whether a gradient is one in every argument, rather than in the first.

    The leaves that it shares with either are counted. One that is like the first argument has all
    of its leaves in common with that.
    """
    args = given.arguments(given.leaves)
    places = given.variables + given.constants
    in_first = {place.names[1:] for place in places if place.names[0] == 0}
    in_all = {place.names for place in places} | {(i,) for i in range(len(args))}
    return len(leaves.keys() & in_all) > len(leaves.keys() & in_first)
