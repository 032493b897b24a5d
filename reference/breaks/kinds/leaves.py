"""Breaks of whole gradients, after all: in another order, transposed, times a number."""

from collections.abc import Callable, Iterator
from itertools import permutations, product

import numpy as np

from reference.breaks.changes import Arriving, Exchanged, Scaled, Sent
from reference.breaks.kinds.forms import permuted, reshaped, transposed
from reference.breaks.kinds.site import Break, reach_of
from reference.breaks.reverse import ARRIVED, Edit, Leaf
from reference.breaks.tape import Tape

MOST_LEFT_OUT = 16  # steps at the beginning of a loop


def of_leaves(tape: Tape, wanted: int) -> Iterator[Break]:
    """Yield what may be done to a whole gradient in the end."""
    for number, i in enumerate(tape.arguments):
        if wanted & ~(1 << number):
            continue
        shape = tape.values[i].shape
        for says, change in _after(shape):
            yield Break((Edit(Leaf(number), ARRIVED, change),), says, number)
        for says, factor in (("zero", 0.0), ("taken twice", 2.0), ("halved", 0.5)):
            says = f"the gradient with respect to {{value}} is {says}"
            yield Break((Edit(Leaf(number), ARRIVED, Scaled(factor)),), says, number)
        for other, j in enumerate(tape.arguments[: tape.program.number]):
            if other != number and tape.values[j].shape == shape:
                says = "the gradient with respect to {value} is that with respect to {other}"
                yield Break((Edit(Leaf(number), ARRIVED, Exchanged(other)),), says, number)
        says = "the gradient with respect to {value} has the wrong sign"
        yield Break((Edit(Leaf(number), ARRIVED, Scaled(-1.0)),), says, number)


def of_beginnings(tape: Tape, wanted: int) -> Iterator[Break]:
    """Yield gradients with respect to what a loop begins with that are those of the first step.

    Or that come through one use of it alone, of several.
    """
    for key, begun in tape.initial.items():
        if begun not in tape.arguments[: tape.program.number]:
            continue
        number = tape.arguments.index(begun)
        if wanted & ~(1 << number):
            continue
        says = "the gradient with respect to {value} is that with respect to the state after it"
        yield Break((Edit(Leaf(number), ARRIVED, Arriving(key)),), says, number)
        uses = tape.carried[key]
        steps = np.arange(len(tape.places[uses[0][0]])) > 0
        for kept in uses if len(uses) > 1 else ():
            edits = tuple(Edit(*use, Scaled(1.0 * steps)) for use in uses if use != kept)
            says = "the gradient with respect to {value} comes through one of its uses alone"
            yield Break(edits, says, number, about=kept[0])


def of_first_steps(tape: Tape, wanted: int) -> Iterator[Break]:
    """Yield first steps that are left out: what arrives at the state after them is returned.

    All of it, or what comes from later steps alone.
    """
    arguments = tape.arguments[: tape.program.number]
    begun = {key: i for key, i in tape.initial.items() if i in arguments}
    reached = [reach_of(tape, key) for key in begun]
    groups = [[key] for key, bits in zip(begun, reached, strict=True) if bits & wanted == wanted]
    groups += [list(begun)] if len(begun) > 1 and any(r & wanted == wanted for r in reached) else []
    for keys in groups:
        steps = len(tape.places[keys[0]])
        for left_out, carried in product(range(1, min(steps, MOST_LEFT_OUT + 1)), (False, True)):
            edits = []
            for key in keys:
                later = np.arange(len(tape.places[key])) >= left_out
                leaf = Leaf(arguments.index(begun[key]))
                edits.append(Edit(leaf, ARRIVED, Arriving(key, left_out - 1, carried)))
                edits.append(Edit(key, ARRIVED, Scaled(1.0 * later)))
            what = f"the first {left_out} steps are" if left_out > 1 else "the first step is"
            says = f"{what} left out: the gradient with respect to {{value}} is that with respect "
            says += "to the state after, " + ("its own output left out" if carried else "with all")
            yield Break((*edits,), says, edits[0].key.number, about=keys[0])


def _after(shape: tuple[int, ...]) -> Iterator[tuple[str, Sent]]:
    gradient = "the gradient with respect to {value}"
    if len(shape) == 2 and min(shape) > 1:
        if shape[0] == shape[1]:
            yield f"{gradient} is transposed", Sent(transposed)
        else:
            yield f"{gradient} is reshaped where it should be transposed", Sent(reshaped)
    for axis, n in enumerate(shape):
        if n > 1:
            yield f"{gradient} is in reverse order along axis {axis}", Sent(_flipped(axis))
            for by, word in ((1, "late"), (-1, "early")):
                says = f"{gradient} is one entry too {word} along axis {axis}"
                yield says, Sent(_shifted(axis, by))
        for blocks in (2, 3, 4):
            if (n % blocks == 0 and n > blocks) or n == blocks:
                for order in permutations(range(blocks)):
                    if order != tuple(range(blocks)):
                        names = " ".join(str(i + 1) for i in order)
                        parts = f"the {blocks} parts of {gradient} along axis {axis}"
                        yield f"{parts} are in the order {names}", Sent(permuted(order, axis))


def _shifted(axis: int, by: int) -> Callable[[np.ndarray], np.ndarray]:
    def shifted(d: np.ndarray) -> np.ndarray:
        found = np.roll(d, by, axis + 1)
        end = [slice(None)] * (axis + 1) + [0 if by > 0 else -1]
        found[tuple(end)] = 0.0
        return found

    return shifted


def _flipped(axis: int) -> Callable[[np.ndarray], np.ndarray]:
    return lambda d: np.flip(d, axis + 1)
