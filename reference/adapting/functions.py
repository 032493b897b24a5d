"""Functions whose arguments, or whose module's globals, are the parameters."""

from collections.abc import Callable, Mapping, Sequence
from inspect import Parameter, signature, unwrap
from typing import Any

import numpy as np

from reference.adapting.binding import (
    FIELDS,
    SIZES,
    Call,
    Given,
    missing,
    role_of_name,
    roles_of_arguments,
    values_of,
)
from reference.names import role_of


def of_function(
    function: Callable[..., Any], names: Mapping[str, str], several: Sequence[Mapping[str, str]]
) -> Call:
    """Return how a function in a convention of its own is called.

    ``several`` are the keys of each dictionary, where the parameters are a list of them.
    """
    title = getattr(function, "__qualname__", "the function")
    roles = roles_of_arguments(function, names)
    own = _globals(function, names) if "params" not in roles.values() else {}
    taken = {**own, **roles}
    there = {*taken.values()}
    keys = {k: role for k, role in names.items() if k not in taken}
    if "params" in there:
        told = [*keys.values(), *(role for part in several for role in part.values())]
        there = (there - {"params"}) | {*told} if told else there | {*FIELDS}
    zero = missing(there, title)
    kinds = signature(function).parameters

    def call(given: Given) -> Any:
        if own:
            unwrap(function).__globals__.update(values_of(own, given))
        values = values_of(roles, given)
        for name, role in roles.items():
            if role == "params":
                values[name] = _parameters(given, keys, several, taken)
        first = [k for k in values if kinds[k].kind is Parameter.POSITIONAL_ONLY]
        rest = {k: value for k, value in values.items() if k not in first}
        return function(*(values[k] for k in first), **rest)

    return Call(call, taken, there, zero)


def _globals(function: Callable[..., Any], names: Mapping[str, str]) -> dict[str, str]:
    """Return what the globals of a function stand for: arrays that are parameters, and sizes."""
    plain = unwrap(function)
    code, own = getattr(plain, "__code__", None), getattr(plain, "__globals__", {})
    found = {}
    for name in getattr(code, "co_names", ()):
        role = role_of_name(name, names, SIZES)
        kind = int if role in SIZES else np.ndarray
        if role is not None and isinstance(own.get(name), kind):
            found[name] = role
    return found


def _parameters(
    given: Given,
    keys: Mapping[str, str],
    several: Sequence[Mapping[str, str]],
    taken: dict[str, str],
) -> Any:
    """Return all parameters in one: as dictionaries of the keys that were told, or by any name."""
    if several:
        return [values_of(part, given) for part in several]
    return values_of(keys, given) if keys else ByAnyName(given, taken)


class ByAnyName(tuple[Any, ...]):
    """The parameters in their order, and by every name that stands for one, as in a dictionary.

    What names were taken for is entered in ``taken``.
    """

    _given: Given
    _taken: dict[str, str]

    def __new__(cls, given: Given, taken: dict[str, str]) -> "ByAnyName":
        """Return the parameters of a call."""
        made = super().__new__(cls, given.params)
        made._given, made._taken = given, taken
        return made

    def __getitem__(self, key: Any) -> Any:
        """Return a parameter by its place, or by a name that stands for it."""
        """Return a parameter by its place, or by a name that stands for it."""
        if not isinstance(key, str):
            return super().__getitem__(key)
        role = self._role(key)
        if role is None:
            raise KeyError(
                f"{key!r} follows no pattern: reference.adapt(..., names={{{key!r}: 'W', ...}}) "
                f"says for which of {' '.join(self._given.params._fields)} it stands"
            )
        biases = [k for k, known in self._taken.items() if known == role == "b"]
        self._taken.setdefault(key, role)
        value = getattr(self._given.params, role)
        return np.zeros_like(value) if biases and biases[0] != key else value

    def __contains__(self, key: object) -> bool:
        return isinstance(key, str) and self._role(key) is not None

    def _role(self, name: str) -> str | None:
        """Return which parameter of the cell a name stands for."""
        fields = self._given.params._fields
        return name if name in fields else role_of(name, fields, decorated=False)

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError as error:
            raise AttributeError(*error.args) from None
