"""What a candidate declares of its own convention, beside what a comparison is told.

A candidate that ``reference.adapt`` has made carries the options of the comparison, and what it has
no place for. It may come from a process that is not trusted, so all of it is checked.
"""

from collections.abc import Mapping
from typing import Any

DEFAULTS: dict[str, Any] = {
    "layout": "time_first", "loss": "squared_error", "batched": True, "tokens": False,
    "sizes": None,
}  # fmt: skip
KINDS = {"layout": str, "loss": str, "batched": bool, "tokens": bool, "sizes": dict}


def agreed(declared: Mapping[str, Any], **told: Any) -> dict[str, Any]:
    """Return each option as it was told, or as the candidate declares it where it was not.

    Raises
    ------
    ValueError
        If the two differ, or what is declared is of the wrong kind.

    Examples
    --------
    >>> agreed({"layout": "rows"}, layout="time_first"), agreed({}, layout="columns")
    ({'layout': 'rows'}, {'layout': 'columns'})
    """
    found = {}
    for name, value in told.items():
        own = declared.get(name)
        if own is None or (isinstance(own, KINDS[name]) and own == value):
            found[name] = value
        elif not isinstance(own, KINDS[name]) or value not in (DEFAULTS[name], {}):
            raise ValueError(f"{name} is {value!r}, and the candidate says {own!r}; say it once")
        else:
            found[name] = own
    return found


def zero_of(declared: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the names of what a candidate has no place for."""
    zero = declared.get("zero", ())
    if not isinstance(zero, list | tuple) or not all(isinstance(name, str) for name in zero):
        raise ValueError(f"the candidate says that {zero!r} are zero; expected names")
    return tuple(zero)


def zero_in_words(zero: tuple[str, ...]) -> list[str]:
    """Return a line on what is zero in every problem, if anything is."""
    if not zero:
        return []
    are = "is" if len(zero) == 1 else "are"
    return [f"{' '.join(zero)} {are} zero in every problem: the candidate has no place for another"]
