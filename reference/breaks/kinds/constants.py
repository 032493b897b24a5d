"""Breaks of constants: a mask or a weight is that of another step, turned round or left out.

Either in the rules alone, or in all that is computed: then the gradient is that of another loss.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from reference.breaks.changes import Constant, Kept
from reference.breaks.kinds.site import Break, reach_of
from reference.breaks.reverse import Edit
from reference.breaks.tape import Tape

Values = list[np.ndarray]
Place = tuple[Any, int]

USERS = frozenset({"mul", "div", "select_n"})


def constants(tape: Tape, wanted: int) -> Iterator[Break]:
    """Yield other constants in the rules of the operations that take them, line by line."""
    for places in _lines(tape, wanted):
        for says, other in _others(tape, places):
            edits = [
                Edit(key, k, Constant(j, other))
                for key, j in places
                for k, i in enumerate(tape.places[key][0].ins)
                if k != j and i in tape.reach
            ]
            if edits:
                value = _made(tape, places[0])
                yield Break((*edits,), f"in the gradient, {{value}} is {says}", value)


def other_losses(tape: Tape, wanted: int) -> Iterator[Break]:
    """Yield other constants in all that is computed."""
    for places in _lines(tape, wanted):
        for says, other in _others(tape, places):
            (key, j), value = places[0], _made(tape, places[0])
            edits = (Edit(key, j, Kept()),)
            says = f"the gradient is that of a loss in which {{value}} is {says}"
            yield Break(edits, says, value, other_tape=_swapped(places, other))


def _lines(tape: Tape, wanted: int) -> Iterator[list[Place]]:
    """Yield the operands that are constant, those of one line together, and those of all lines."""
    lines: dict[Any, list[Place]] = defaultdict(list)
    for key, nodes in tape.places.items():
        if nodes[0].name not in USERS or reach_of(tape, key) & wanted != wanted:
            continue
        for j, i in enumerate(nodes[0].ins):
            if i not in tape.reach and tape.values[i].ndim and _made(tape, (key, j)) is not None:
                where = nodes[0].source
                lines[None if where is None else (where.file, where.line)].append((key, j))
    yield from lines.values()
    if len(lines) > 1:
        yield [place for places in lines.values() for place in places]


def _made(tape: Tape, place: Place) -> Any:
    """Return what makes a constant, or the number of the argument that it is."""
    key, j = place
    i = tape.places[key][0].ins[j]
    made = tape.made.get(i)
    return made.key if made else tape.arguments.index(i) if i in tape.arguments else None


Other = Callable[[Values, int], np.ndarray]


def _others(tape: Tape, places: list[Place]) -> Iterator[tuple[str, Other]]:
    """Yield what may stand for constants: a function of theirs at all steps, and the step."""
    values = [tape.values[node.ins[j]] for key, j in places for node in tape.places[key]]
    if all(((v == 0) | (v == 1)).all() for v in values):
        yield "the wrong way round", lambda of, step: _as(1 - of[step].astype(float), of[step])
        yield "one everywhere", lambda of, step: np.ones_like(of[step])
    if any(len(tape.places[key]) > 1 for key, _ in places):
        for word, by in (("before", -1), ("after", 1)):
            yield f"that of the step {word}, all round", _shifted(by, wraps=True)
            yield f"that of the step {word}, or of the nearest step", _shifted(by, wraps=False)


def _as(value: np.ndarray, like: np.ndarray) -> np.ndarray:
    return value.astype(like.dtype)


def _shifted(by: int, *, wraps: bool) -> Other:
    def shifted(of: Values, step: int) -> np.ndarray:
        at = step + by
        return of[at % len(of) if wraps else min(max(at, 0), len(of) - 1)]

    return shifted


def _swapped(places: list[Place], other: Other) -> Callable[[Tape], Tape]:
    def swapped(tape: Tape) -> Tape:
        found = {}
        for number, node in enumerate(tape.nodes):
            for key, j in places:
                if node.key == key:
                    of = [tape.values[n.ins[j]] for n in tape.places[key]]
                    found[number, j] = other(of, node.step)
        return Tape(tape.program, [tape.values[a] for a in tape.arguments], found)

    return swapped
