"""Breaks of what is used several times, and of what a step of a loop hands to the next."""

from collections.abc import Callable, Iterator
from itertools import product
from typing import Any

import numpy as np

from reference.breaks.changes import Accumulated, Aged, Scaled, Sent
from reference.breaks.kinds.site import Break, carries
from reference.breaks.reverse import ARRIVED, Edit
from reference.breaks.tape import Tape

LONG = 16  # steps, from which on not every phase of a cut is tried
BOUNDS = (0.1, 0.25, 0.5, 1.0, 5.0, 10.0)  # to which gradients are clipped


def of_values(tape: Tape, wanted: int) -> Iterator[Break]:
    """Yield values of several uses of which one alone is kept: it overwrites the others."""
    for key, nodes in tape.places.items():
        if len(nodes[0].outs) > 1 or not carries(tape, key, wanted):
            continue
        uses = sorted({(n.key, k) for node in nodes for n, k in tape.uses[node.out]}, key=repr)
        if 2 < len(uses) < 9:
            for kept in uses:
                edits = tuple(Edit(*use, Scaled(0.0)) for use in uses if use != kept)
                says = "the gradient with respect to {value} is overwritten, not added to"
                yield Break((*edits,), says, key, about=key)
        if len(nodes) > 1 and key in tape.carried:
            number = np.arange(len(nodes))
            for word, there in (("first", number > 0), ("last", number < len(nodes) - 1)):
                says = f"the {word} step is left out of all that passes through {{value}}"
                yield Break((Edit(key, ARRIVED, Scaled(1.0 * there)),), says, key)
        if len(nodes) > 1 or nodes[0].name == "dot_general":
            for bound in BOUNDS:
                clip = Sent(_clipped(bound))
                says = f"the gradient with respect to {{value}} is clipped to {bound:g}"
                yield Break((Edit(key, ARRIVED, clip),), says, key)


def _clipped(bound: float) -> Callable[[np.ndarray], np.ndarray]:
    return lambda d: np.clip(d, -bound, bound)


def of_loops(tape: Tape, wanted: int) -> Iterator[Break]:
    """Yield cuts of what one step hands to the next, one by one and all together."""
    chosen = {key: uses for key, uses in tape.carried.items() if carries(tape, key, wanted)}
    for key, uses in chosen.items():
        yield from _cuts(tape, "the gradient with respect to {value}", key, uses)
    if len(chosen) > 1:
        every = [use for uses in chosen.values() for use in uses]
        yield from _cuts(
            tape, "the gradient of all that a step hands to the next", next(iter(chosen)), every
        )


def _cuts(tape: Tape, what: str, key: Any, uses: list[tuple[Any, int]]) -> Iterator[Break]:
    n = max(len(tape.places[k]) for k, _ in uses)
    number = np.arange(n)

    def scaled(says: str, factor: Any) -> Break:
        of_use = (factor if np.isscalar(factor) else factor[: len(tape.places[k])] for k, _ in uses)
        edits = (Edit(*use, Scaled(f)) for use, f in zip(uses, of_use, strict=True))
        return Break(tuple(edits), f"{what} {says}", key, about=key)

    yield scaled("is not carried to the step before", 0.0)
    yield scaled("is carried to the step before with the wrong sign", -1.0)
    yield scaled("is carried to the step before twice", 2.0)
    yield scaled("is carried to the step before by half", 0.5)
    first = number == 0
    yield scaled("is not carried to the step before, but to what the loop begins with", 1.0 * first)
    yield scaled("is not carried to what the loop begins with", 1.0 * ~first)
    added = tuple(Edit(*use, Accumulated()) for use in uses)
    yield Break(added, f"{what} is added to what was carried before", key, about=key)
    for j in range(1, n):
        if n <= LONG or j in (1, 2, 3, n - 2, n - 1):
            yield scaled(f"is not carried from step {j + 1} to step {j}", 1.0 * (number != j))
    for every in range(2, n):
        for phase in range(every) if n <= LONG else {0, n % every}:
            says = f"is carried through {every} steps at most, cut before step {phase + 1}"
            yield scaled(f"{says} and every {every} from there", 1.0 * (number % every != phase))


def windows(tape: Tape, wanted: int) -> Iterator[Break]:
    """Yield truncations: what arrives at an output is carried back a number of steps, at most."""
    chosen = [uses for key, uses in tape.carried.items() if carries(tape, key, wanted)]
    every = [use for uses in chosen for use in uses]
    for uses in [every, *chosen][: None if len(chosen) > 1 else 1]:
        longest = max((len(tape.places[k]) for k, _ in uses), default=1)
        for steps, begun in product(range(1, longest), (True, False)):
            edits = tuple(Edit(*use, Aged(begun)) for use in uses)
            says = f"from each output, the gradient is carried back through {steps} steps at most"
            yield Break(edits, says, None, steps)
