"""Breaks of parts: of arrays that hold several gates side by side, one is wrong, or their order."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import permutations
from typing import Any

import numpy as np

from reference import jaxprs
from reference.breaks.changes import Arrived, Sent, Sloped
from reference.breaks.kinds.forms import permuted
from reference.breaks.kinds.site import Break, Site
from reference.breaks.kinds.slopes import OTHER_SLOPES
from reference.breaks.reverse import ARRIVED, At, Edit
from reference.breaks.rules import SLOPES
from reference.breaks.tape import Node, Tape

MOST_PARTS = 4
MOST_BETWEEN = 4  # operations between an array and what takes it apart

Part = tuple[int, int]


@dataclass(frozen=True)
class OfPart:
    """Make a change in the entries of one part of the last axis alone."""

    part: Part
    change: Any

    def apply(self, at: At, g: Any, d: np.ndarray) -> Any:
        """Return what is sent instead."""
        found, place = np.array(d), (..., slice(*self.part))
        found[place] = self.change.apply(at, g, d)[place]
        return found


def parts(site: Site) -> Iterator[Break]:
    """Yield breaks of one of several parts of an array, or of their order."""
    found = _parts(site)
    if not found:
        return
    axis, n = site.y.ndim - 1, len(found)
    if site.operand == 0 and len({stop - start for start, stop in found}) == 1:
        for order in permutations(range(n)):
            if order != tuple(range(n)):
                names = " ".join(str(i + 1) for i in order)
                says = f"the {n} parts of what arrives at {{expression}} are in the order {names}"
                yield Break((Edit(site.key, ARRIVED, Sent(permuted(order, axis))),), says)
    for number, part in enumerate(found, 1):
        if site.name == "dot_general":
            says = f"part {number} of {{expression}} is left out of the gradient"
            yield site.change(f"{says} with respect to {{operand}}", Arrived(_without(part)))
        elif site.name in ("tanh", "logistic"):
            for formula, slope in OTHER_SLOPES.items():
                says = f"the derivative of part {number} of {{expression}} is {formula}"
                change = OfPart(part, Sloped(slope))
                yield site.change(f"{says}, with a its argument and h its value", change)


def _without(part: Part) -> Any:
    def without(g: np.ndarray) -> np.ndarray:
        left = np.array(g)
        left[..., slice(*part)] = 0.0
        return left

    return without


def _parts(site: Site) -> list[Part]:
    """Return the parts of the last axis into which a result is taken apart, sums in between."""
    tape, node = site.tape, site.nodes[-1]
    for _ in range(MOST_BETWEEN):
        if found := _taken(tape, node):
            return found
        users = tape.uses[node.out]
        if len(users) != 1 or users[0][0].step != node.step:
            return []
        node = users[0][0]
        if node.name not in ("add", "sub", *SLOPES) or len(node.outs) > 1:
            return []
    return []


def _taken(tape: Tape, node: Node) -> list[Part]:
    """Return the parts of the last axis that the users of a result take."""
    shape = tape.values[node.out].shape
    users = [user for user, _ in tape.uses[node.out]]
    if not shape or not users:
        return []
    if len(users) == 1 and users[0].name == "split":
        if jaxprs.axis(users[0].equation) != len(shape) - 1:
            return []
        ends = np.cumsum([tape.values[out].shape[-1] for out in users[0].outs]).tolist()
        return list(zip([0, *ends], ends, strict=False))[:MOST_PARTS]
    if len(users) > 1 and all(user.name == "slice" for user in users):
        last = [jaxprs.slices(user.equation)[-1] for user in users]
        found = sorted({(s.start, s.stop) for s in last if s.step == 1})
        return found if 1 < len(found) <= MOST_PARTS else []
    return []
