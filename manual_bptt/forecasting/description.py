"""Reading values from a file in JSON: one of the wrong type is refused, with its name."""

from collections.abc import Callable, Mapping
from typing import Any


def fields(name: str, value: Any, kinds: Mapping[str, Callable[[Any], Any]]) -> dict[str, Any]:
    """Return the fields of an object, each as its kind makes it.

    Raises
    ------
    TypeError
        If a field is of another kind.
    ValueError
        If there are other fields than these.

    Examples
    --------
    >>> fields("size", {"hours": 24}, {"hours": integer})
    {'hours': 24}
    """
    if not isinstance(value, dict) or set(value) != set(kinds):
        raise ValueError(f"{name} is {str(value)[:60]!r}; expected {', '.join(kinds)}")
    found = {}
    for field, kind in kinds.items():
        try:
            found[field] = kind(value[field])
        except (TypeError, ValueError):
            raise TypeError(f"{field} is {str(value[field])[:60]!r}, of the wrong kind") from None
    return found


def text(value: Any) -> str:
    """Return a text that can be written as UTF-8, or raise TypeError or ValueError."""
    if not isinstance(value, str):
        raise TypeError
    value.encode()
    return value


def optional_text(value: Any) -> str | None:
    """Return None or a text, or raise."""
    return None if value is None else text(value)


def texts(value: Any) -> tuple[str, ...]:
    """Return distinct texts, or raise."""
    if not isinstance(value, list | tuple) or len({*map(text, value)}) != len(value):
        raise TypeError
    return tuple(value)


def levels(value: Any) -> dict[str, tuple[str, ...]]:
    """Return distinct texts by name, or raise."""
    if not isinstance(value, dict):
        raise TypeError
    return {text(name): texts(names) for name, names in value.items()}


def integer(value: Any) -> int:
    """Return an integer, not a bool, or raise."""
    if type(value) is not int:
        raise TypeError
    return value


def flag(value: Any) -> bool:
    """Return a bool, or raise."""
    if not isinstance(value, bool):
        raise TypeError
    return value


def anything(value: Any) -> Any:
    """Return what is checked elsewhere."""
    return value
