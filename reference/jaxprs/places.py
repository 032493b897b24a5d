"""Which place in the user's code an operation comes from."""

from typing import Any, NamedTuple

from jax.extend.source_info_util import summarize

from reference.jaxprs.operations import name


def origin(equation: Any) -> Any:
    """Return what is the same for one operation of the source at every step of a loop.

    It is made of all the calls that led to it, down to the place in each line.
    """
    shapes = tuple(v.aval.shape for v in equation.outvars)
    return equation.source_info.traceback, name(equation), shapes


def without_shape(origin: Any) -> Any:
    """Return an origin that is the same whatever the shapes of the results are."""
    return origin[:2]


def line(equation: Any) -> str:
    """Return where in the user's code an equation comes from: file:line:column (function)."""
    return summarize(equation.source_info)


class Source(NamedTuple):
    """Where in the user's code an operation is: lines from 1, columns from 0, in characters."""

    file: str
    function: str
    line: int
    column: int
    end_line: int
    end_column: int


def source(equation: Any) -> Source | None:
    """Return where an operation is in the user's code, and None if that is not known."""
    traceback, place = equation.source_info.traceback, line(equation)
    for code, offset in zip(*(traceback.raw_frames() if traceback else ((), ())), strict=True):
        if place.startswith(f"{code.co_filename}:"):
            first, last, column, end = [*code.co_positions()][offset // 2]
            if None not in (first, last, column, end):
                return Source(code.co_filename, code.co_qualname, first, column, last, end)
    return None
