"""Classes whose objects have the parameters as attributes."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

from reference.adapting.binding import (
    DATA,
    FIELDS,
    SIZES,
    AdaptError,
    Call,
    Given,
    missing,
    role_of_name,
    roles_of_arguments,
    values_of,
)
from reference.names import role_of

METHODS = (
    "gradients", "gradient", "compute_gradients", "grads", "loss_and_gradients", "loss_and_grads",
    "bptt", "backward", "backprop", "backward_pass",
)  # fmt: skip
STATES = ("h0", "hprev", "h_prev", "a0", "h")  # attributes that hold the initial state


def of_class(kind: type, names: Mapping[str, str], methods: tuple[str, ...]) -> Call:
    """Return how an object of a class is made, given parameters, and asked for gradients.

    An object is made once for sizes D, H and O, and used again, as in training.
    """
    title = kind.__name__
    sizes = roles_of_arguments(kind, names, SIZES)
    own = _attributes(_made(kind, sizes, {"D": 2, "H": 3, "O": 4}), names)
    chosen = methods or _only(kind)
    roles = {m: roles_of_arguments(getattr(kind, m), {"self": "self", **names}) for m in chosen}
    for of_method in roles.values():
        of_method.pop("self", None)
    arguments = {k: role for of_method in roles.values() for k, role in of_method.items()}
    taken = {**own, **arguments}
    zero = missing(taken.values(), title)
    objects: dict[tuple[int, ...], Any] = {}

    def call(given: Given) -> Any:
        key = tuple(given.sizes.values())
        if key not in objects:
            objects[key] = _made(kind, sizes, given.sizes)
        one, found = objects[key], None
        for name, value in values_of(own, given).items():
            setattr(one, name, value)
        for method in chosen:
            found = getattr(one, method)(**values_of(roles[method], given))
        several = isinstance(found, Mapping | tuple | list)
        return found if several else _left(one, own, names)

    return Call(call, taken, {*taken.values()}, zero)


def _made(kind: Callable[..., Any], roles: Mapping[str, str], sizes: Mapping[str, int]) -> Any:
    """Return an object for sizes."""
    return kind(**{name: sizes[role] for name, role in roles.items() if role in sizes})


def _attributes(one: Any, names: Mapping[str, str]) -> dict[str, str]:
    """Return what the attributes of an object stand for: parameters, and the initial state."""
    found = {}
    for name, value in vars(one).items():
        role = "h0" if name in STATES and name not in names else role_of_name(name, names, ())
        if role in (*FIELDS, "bh", "h0") and isinstance(value, np.ndarray):
            found[name] = str(role)
    told = {k: role for k, role in names.items() if role not in (*DATA, *SIZES)}
    return found | told


def _only(kind: type) -> tuple[str, ...]:
    """Return the one method whose name says that it computes gradients."""
    found = [name for name in METHODS if callable(getattr(kind, name, None))]
    if len(found) != 1:
        title, example = kind.__name__, (found or ["bptt"])[0]
        among = f"which of {', '.join(found)}" if found else "which method"
        raise AdaptError(
            f"{among} of {title} computes gradients? reference.adapt({title}, method={example!r}), "
            f"or several in turn, method=('forward', {example!r})"
        )
    return tuple(found)


def _left(one: Any, own: Iterable[str], names: Mapping[str, str]) -> dict[str, Any]:
    """Return the gradients that a method has left in attributes."""
    rest = {k: v for k, v in vars(one).items() if k not in own and v is not None}
    ours = (*FIELDS, "bh", "h0", *names)
    prefixed = {f"d{k}" for k in ours}
    found = {k: v for k, v in rest.items() if k in prefixed or role_of(k, ours)}
    if not found:
        raise TypeError(
            "the method returned no gradients, and left none in attributes such as self.dWxh; "
            'return them, or name the parts of what it returns: returns=("loss", "dWxh", "dWhh")'
        )
    return found
