"""Reading what a candidate returned, without guessing.

A gradient has our name, W or dW, or one that follows a pattern (``reference.names``) and is then
said to be assumed. Axes of length one may be missing or added, which is said too.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from reference.arrays import OF_STATE, root
from reference.judging.layouts import BATCH_FIRST, WITH_BATCH, from_layout, in_layout
from reference.names import role_of
from reference.network.cell import Cell
from reference.problems import Problem
from reference.user_code import Outcome, arranged


class Flaw(NamedTuple):
    """What is in the place of a gradient that cannot be compared: a status and what came."""

    status: str
    detail: str


def returned(cell: Cell) -> tuple[str, ...]:
    """Return the names of what a candidate may return for a cell."""
    return (*cell.gradients, "states")


def prefixed(cell: Cell) -> dict[str, str]:
    """Return names that people give the gradients: dW for W."""
    return {f"d{k}": k for k in cell.gradients if f"d{k}" not in returned(cell)}


def one_array_each(cell: Cell) -> tuple[str, ...]:
    """Return the gradients of which people write names of their own."""
    return tuple(k for k in cell.gradients if not (cell.of_several and k in OF_STATE))


def read_outcome(
    outcome: Outcome,
    problem: Problem,
    layout: str,
    notes: dict[str, str],
    told: Mapping[str, str],
) -> dict[str, np.ndarray | Flaw] | Flaw:
    """Return {gradient: array or flaw} from what a candidate returned, and add to the notes.

    ``told`` are names that were said to stand for ours.
    """
    if outcome.failure:
        return Flaw("raised", outcome.failure)
    cell = problem.cell
    named, torn = _by_role(outcome.values, cell, notes, told)
    there, known = {root(k) for k in named}, returned(cell)
    if not any(k in there for k in cell.gradients):
        names = [*map(repr, outcome.values), *outcome.others]
        expected = f"expected any of {' '.join(cell.gradients)}"
        return Flaw("raised", f"the candidate returned [{', '.join(names)}]; {expected}")
    for k in (*outcome.others, *(repr(k) for k in there if k not in known)):
        notes[f"name {k}"] = f"{k} is not the name of a gradient, and was not looked at"

    def read(name: str) -> np.ndarray | Flaw:
        if name in torn:
            return Flaw("raised", _torn(name, torn[name]))
        return _read_one(name, named[name], problem, layout, notes)

    return {
        k: read(k) if k in named else _read_several(k, problem, read) for k in known if k in there
    }


def _by_role(
    values: dict[str, Any], cell: Cell, notes: dict[str, str], told: Mapping[str, str]
) -> tuple[dict[str, Any], dict[str, list[str]]]:
    """Return what was returned by our names, and where several names stand for one, these."""
    came, known = list(dict.fromkeys(map(root, values))), returned(cell)
    told = {k: v for k, v in told.items() if k in came}
    free = [k for k in came if k not in told]
    others = {k: v for k, v in prefixed(cell).items() if k in free and v not in free}
    if others:
        notes["read names"] = f"{' '.join(others)} were taken for {' '.join(others.values())}"
    taken = {others.get(k, k) for k in free} | {*told.values()}
    alike: dict[str, list[str]] = {}
    for k in free:
        role = None if k in known or k in others else role_of(k, one_array_each(cell))
        if role is not None and role not in taken:
            alike.setdefault(role, []).append(k)
    if alike:
        said = (f"{' and '.join(names)} is d{k}" for k, names in alike.items())
        notes["read patterns"] = f"assumed: {', '.join(said)}"
    torn = {k: names for k, names in alike.items() if not _equal([values[n] for n in names])}
    repeated = {name for names in alike.values() for name in names[1:]}
    of = others | told | {names[0]: k for k, names in alike.items()}
    named = {
        k.replace(root(k), of.get(root(k), root(k)), 1): v
        for k, v in values.items()
        if k not in repeated
    }
    return named, torn


def _equal(values: Sequence[np.ndarray | str]) -> bool:
    """Return whether all are the same array, as where two biases stand side by side."""
    first, *rest = values
    return all(np.array_equal(first, value) for value in rest)


def _torn(name: str, names: Sequence[str]) -> str:
    """Return what to write where two names may stand for one gradient, and differ."""
    which = f"names={{{names[0]!r}: {name!r}}}"
    return (
        f"{' and '.join(names)} may all be d{name}, and differ: return one of them, or say which "
        f"it is, reference.adapt(function, {which})"
    )


def _read_several(
    name: str, problem: Problem, read: Callable[[str], np.ndarray | Flaw]
) -> np.ndarray | Flaw:
    """Return the arrays of something like a state as vectors, or what is wrong with one."""
    arrays: dict[str, np.ndarray] = {}
    for place in problem.cell.leaves:
        found = read(f"{name}{place}")
        if isinstance(found, Flaw):
            return Flaw(found.status, f"{name}{place}: {found.detail}")
        arrays[place] = found
    return problem.cell.packed(arranged(problem.cell.state, arrays))


def _read_one(
    name: str, array: np.ndarray | str, problem: Problem, layout: str, notes: dict[str, str]
) -> np.ndarray | Flaw:
    """Return one gradient as an array in the layout of ``Problem``, or what is wrong with it."""
    if isinstance(array, str):
        arranged_otherwise = array.startswith("expected")
        return Flaw(
            "raised",
            array if arranged_otherwise else f"expected an array of real numbers, got {array}",
        )
    if array.dtype != problem.dtype:
        notes[f"dtype {name}"] = (
            f"{name} came as {array.dtype}, though the problem is {problem.dtype}"
        )
    expected = _shape(name, problem, layout)
    if array.shape != expected:
        if _without_ones(array.shape) != _without_ones(expected):
            hint = _hint(name, array.shape, expected, problem, layout)
            return Flaw("wrong shape", f"shape {array.shape}, expected {expected}{hint}")
        notes[f"read {name}"] = f"{name} came as {array.shape} and was read as {expected}"
        array = array.reshape(expected)
    return from_layout(name, array, problem, layout)


def _shape(name: str, problem: Problem, layout: str) -> tuple[int, ...]:
    """Return the shape of a gradient in a layout."""
    return in_layout(name, np.empty(problem.gradient_shape(name)), problem, layout).shape


def _without_ones(shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(n for n in shape if n != 1)


def _hint(
    name: str, shape: tuple[int, ...], expected: tuple[int, ...], problem: Problem, layout: str
) -> str:
    """Return what a wrong shape looks like, if it looks like something."""
    sizes = problem.sizes
    if root(name) in ("h", "states"):
        axis = int(layout in BATCH_FIRST and "B" in sizes)
        if shape == (*expected[:axis], sizes["T"], *expected[axis + 1 :]):
            return "; one state is missing: there are T+1, from h[0] to h[T]"
    if shape == expected[::-1] and len(shape) == 2:
        return "; it looks transposed"
    if root(name) not in WITH_BATCH:
        for size, over in (("T", "step"), ("B", "sequence")):
            if shape == (sizes.get(size), *expected):
                return f"; one for each {over}? The gradient is their sum"
        like = [k for k in problem.cell.fields if shape == _shape(k, problem, layout)]
        if len(like) == 1:
            return f"; it has the shape of d{like[0]}"
    return ""
