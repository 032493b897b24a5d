"""Breaks of all gradients at once: they are clipped, or are right at other arguments."""

from collections.abc import Callable, Iterator
from functools import partial

import numpy as np

from reference.breaks.changes import Clipped, Kept, Sent
from reference.breaks.kinds.forms import transposed
from reference.breaks.kinds.site import Break
from reference.breaks.reverse import ARRIVED, Edit, Leaf
from reference.breaks.tape import Tape

SAME = 1e-9  # of a bound: an entry nearer than this to it may have been clipped

Values = list[np.ndarray]


def clipped(returned: Values, wrong: np.ndarray) -> Iterator[Break]:
    """Yield bounds to which gradients may have been clipped, by what was returned.

    Some entry has to lie within the bound: numbers that are all as large may be anything.
    """
    every, chosen = range(len(returned)), [int(i) for i in np.flatnonzero(wrong)]
    alone = [[i] for i in chosen] if len(chosen) > 1 else []
    for leaves in (every, chosen, *alone):
        what = "the gradient with respect to {value} is" if len(leaves) == 1 else "gradients are"
        sizes = np.abs(np.concatenate([returned[i].ravel() for i in leaves]))
        largest, norm = float(sizes.max(initial=0)), float(np.linalg.norm(sizes))
        if ((sizes > 0) & (sizes < (1 - SAME) * largest)).any():
            edits = tuple(Edit(Leaf(i), ARRIVED, Clipped(largest)) for i in leaves)
            yield Break(edits, f"{what} clipped to {largest:.6g}", leaves[0])
        if np.count_nonzero(sizes) > 1:
            edits = tuple(Edit(Leaf(i), ARRIVED, Clipped(norm, tuple(leaves))) for i in leaves)
            yield Break(edits, f"{what} clipped to the norm {norm:.6g}", leaves[0])


def elsewhere(tape: Tape) -> Iterator[Break]:
    """Yield arguments in whose place others stand, in all that is computed."""
    for number, i in enumerate(tape.arguments):
        if not tape.uses[i]:
            continue
        for says, form, change in _forms(tape, number):
            edits = (Edit(Leaf(number), ARRIVED, change),)
            says = f"the gradient is that with {says} for {{value}}"
            yield Break(edits, says, number, other_tape=_with(number, form))


def _forms(
    tape: Tape, number: int
) -> Iterator[tuple[str, Callable[[Values], np.ndarray], Kept | Sent]]:
    """Yield what may stand for an argument, and what then is done to the gradient in it."""
    value = tape.values[tape.arguments[number]]
    begun = tape.arguments[number] in tape.initial.values()
    if value.any() and (begun or (number < tape.program.number and value.ndim == 1)):
        yield "zero", lambda values: np.zeros_like(values[number]), Kept()
    elif number >= tape.program.number and value.ndim and len(value) > 1:
        n = len(value)
        rows = {
            "the rows before": [n - 1, *range(n - 1)],
            "the rows after": [*range(1, n), 0],
            "the rows in reverse order": [*reversed(range(n))],
            "the rows before, and the first twice,": [0, *range(n - 1)],
            "the rows after, and the last twice,": [*range(1, n), n - 1],
        }
        for says, order in rows.items():
            yield says, partial(_ordered, number, order), Kept()
    if value.ndim == 2 and len({*value.shape}) == 1:
        yield "its transpose", lambda values: values[number].T, Kept()
        if number < tape.program.number:
            both = "its transpose, as its own gradient is,"
            yield both, lambda values: values[number].T, Sent(transposed)


def _ordered(number: int, order: list[int], values: Values) -> np.ndarray:
    return values[number][order]


def _with(number: int, form: Callable[[Values], np.ndarray]) -> Callable[[Tape], Tape]:
    def other(tape: Tape) -> Tape:
        values = [tape.values[a] for a in tape.arguments]
        values[number] = form(values)
        return Tape(tape.program, values)

    return other
