"""What the names of arguments, attributes and globals stand for."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from inspect import Parameter, signature
from typing import Any, NamedTuple

import numpy as np

from reference.names import role_of

FIELDS = ("W", "U", "b", "V", "c")  # of the lab's network, and of every gated cell
MAY_BE_ZERO = ("h0", "b", "c")  # what a network need not have
DATA: dict[str, tuple[str, ...]] = {
    "params": ("params", "parameters", "weights", "theta", "model", "p"),
    "x": ("x", "xs", "inputs", "input", "input_seq", "inputs_seq", "tokens", "x_seq"),
    "target": ("target", "targets", "ys", "y", "y_true", "labels", "outputs", "t_seq"),
    "h0": ("h0", "h_0", "hprev", "h_prev", "a0", "a_prev", "h_init", "initial_state", "h"),
}
SIZES: dict[str, tuple[str, ...]] = {
    "D": ("input_size", "input_dim", "n_inputs", "n_in", "n_x", "vocab_size", "word_dim"),
    "H": ("hidden_size", "hidden_dim", "n_hidden", "n_h", "n_a", "units"),
    "O": ("output_size", "output_dim", "n_outputs", "n_out", "n_y", "n_classes", "num_classes"),
}


class AdaptError(ValueError):
    """What something stands for cannot be told; the message has what to write."""


class Given(NamedTuple):
    """The arguments of one call of a candidate."""

    params: Any
    x: Any
    h0: Any
    target: Any

    @property
    def sizes(self) -> dict[str, int]:
        """D, H and O; the bias of the output, which is a vector, tells O."""
        D, O = _other(self.params.U.shape, self.params), int(np.size(self.params.c))
        return {"D": D, "H": min(self.params.W.shape), "O": O}

    def value(self, role: str) -> Any:
        """Return what has a role: one of the arguments, a parameter, or a size."""
        if role in ("params", "x", "h0", "target"):
            return getattr(self, role)
        return self.sizes[role] if role in SIZES else getattr(self.params, role)


def _other(shape: tuple[int, ...], params: Any) -> int:
    """Return the axis of U that is not that of the units, which W and gates have."""
    first, last = shape
    return last if first == max(params.W.shape) else first


@dataclass
class Call:
    """Something to call, and what its names were taken for.

    ``roles`` is all that it has a place for, ``zero`` what it has none for.
    """

    function: Callable[[Given], Any]
    taken: dict[str, str]
    roles: set[str]
    zero: list[str]

    def __call__(self, given: Given) -> Any:
        """Call it with these arguments.

        Raises AdaptError where the cell has a parameter for which there is no place.
        """
        lacking = [k for k in given.params._fields if k not in {*self.roles, *self.zero, *FIELDS}]
        if lacking and "params" not in self.roles:
            raise AdaptError(
                f"the cell has a parameter {lacking[0]}, and no name stands for it: say which one, "
                f"reference.adapt(..., names={{'its name': {lacking[0]!r}}})"
            )
        return self.function(given)


def role_of_name(name: str, names: Mapping[str, str], known: Iterable[str] = DATA) -> str | None:
    """Return what a name stands for: as told, as ours, or by its pattern.

    ``known`` are the roles beside parameters that it may have.
    """
    if name in names:
        return names[name]
    lists = {**DATA, **SIZES}
    for role in known:
        if name.lower() in lists[role]:
            return role
    return name if name in FIELDS else role_of(name, FIELDS, decorated=False)


def roles_of_arguments(
    function: Callable[..., Any], names: Mapping[str, str], known: Iterable[str] = DATA
) -> dict[str, str]:
    """Return what the arguments of a function stand for, those without a default all of them.

    Raises AdaptError where one stands for nothing, or two for the same.
    """
    known, roles = tuple(known), dict[str, str]()
    title = getattr(function, "__qualname__", "the function")
    for name, parameter in signature(function).parameters.items():
        if parameter.kind in (Parameter.VAR_POSITIONAL, Parameter.VAR_KEYWORD):
            continue
        role = role_of_name(name, names, known)
        if role is not None:
            roles[name] = role
        elif parameter.default is Parameter.empty:
            raise AdaptError(
                f"what is {name} of {title}? Say what it stands for: reference.adapt("
                f"{_short(title)}, names={{{name!r}: 'x'}}), with any of {' '.join(FIELDS)} "
                f"{' '.join(known)}; or give it a value, functools.partial({_short(title)}, "
                f"{name}=...)"
            )
    for role in {*roles.values()} - {"b"}:
        same = [name for name, found in roles.items() if found == role]
        if len(same) > 1:
            raise AdaptError(
                f"{' and '.join(same)} of {title} may all be {role}: say which is what, "
                f"reference.adapt({_short(title)}, names={{{same[1]!r}: ...}})"
            )
    return roles


def values_of(roles: Mapping[str, str], given: Given) -> dict[str, Any]:
    """Return the values of names; of several biases in one place, the first has all of b."""
    found, biases = {}, 0
    for name, role in roles.items():
        biases += role == "b"
        value = given.value(role)
        found[name] = np.zeros_like(value) if role == "b" and biases > 1 else value
    return found


def missing(roles: Iterable[str], title: str) -> list[str]:
    """Return what has to be zero, as there is no place for it.

    Raises AdaptError where there is none for a weight, the inputs or the target.
    """
    there = {*roles}
    absent = [k for k in ("x", "target", "W", "U", "V") if k not in there]
    if absent:
        one = absent[0]
        raise AdaptError(
            f"{title} has no {' and no '.join(absent)}, by any name that is known: say which it "
            f"is, reference.adapt({_short(title)}, names={{'its name': {one!r}}})"
        )
    return [k for k in MAY_BE_ZERO if k not in there]


def _short(title: str) -> str:
    return title.rpartition(".")[2]
