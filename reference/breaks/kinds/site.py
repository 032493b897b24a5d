"""Break and Site: what a mistake is, and where one can be."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from reference.breaks.reverse import Edit
from reference.breaks.tape import Node, Tape


class Break(NamedTuple):
    """Edits that make one mistake, and what it is in words.

    With a ``window``, the edits count the steps that a gradient is carried back, and it is dropped
    after that many.

    In those stand {operand}, {other} and {expression}, of the first of the edits, and {value}, the
    source of the operation or argument that stands for another. ``near`` are operations of which
    the lines are told, too. The numbers of a ``free`` break are solved for. ``other_tape`` makes
    of a tape the one with which everything is computed instead.
    """

    edits: tuple[Edit, ...]
    says: str
    value: Any = None
    window: int | None = None
    about: Any = None
    free: Any = None
    other_tape: Any = None
    near: tuple[Any, ...] = ()

    @property
    def alone(self) -> bool:
        """Whether it needs a reverse pass of its own."""
        return self.window is not None or self.other_tape is not None

    @property
    def key(self) -> Any:
        """The operation that the mistake is about: that of the first edit, unless said."""
        return self.edits[0].key if self.about is None else self.about


class Site(NamedTuple):
    """An operand of an operation, at all its steps."""

    tape: Tape
    key: Any
    nodes: list[Node]
    operand: int
    alike: dict[tuple[int, ...], list[Any]]

    @property
    def name(self) -> str:
        """The operation's name."""
        return self.nodes[0].name

    @property
    def x(self) -> np.ndarray:
        """The operand's value, at the last step."""
        value: np.ndarray = self.tape.values[self.nodes[-1].ins[self.operand]]
        return value

    @property
    def y(self) -> np.ndarray:
        """The result's value, at the last step."""
        value: np.ndarray = self.tape.values[self.nodes[-1].out]
        return value

    @property
    def other(self) -> np.ndarray:
        """The value of the other factor, at the last step."""
        value: np.ndarray = self.tape.values[self.nodes[-1].ins[1 - self.operand]]
        return value

    def change(self, says: str, change: Any, value: Any = None) -> Break:
        """Return the break that makes a change here."""
        return Break((Edit(self.key, self.operand, change),), says, value)


def sites(tape: Tape) -> Iterator[Site]:
    """Yield every operand that a gradient passes through."""
    alike: dict[tuple[int, ...], list[Any]] = {}
    for i, argument in enumerate(tape.arguments):
        alike.setdefault(tape.values[argument].shape, []).append(i)
    for key, nodes in tape.places.items():
        value = tape.values[nodes[-1].out]
        if np.issubdtype(value.dtype, np.floating):
            alike.setdefault(value.shape, []).append(key)
    for key, nodes in tape.places.items():
        if len(nodes[0].outs) > 1:
            continue
        for k in range(len(nodes[0].ins)):
            if any(node.ins[k] in tape.reach for node in nodes):
                yield Site(tape, key, nodes, k, alike)


def reach(site: Site) -> int:
    """Return which arguments a gradient can come to through an operand: a bit for each."""
    reached = 0
    for node in site.nodes:
        reached |= site.tape.reach.get(node.ins[site.operand], 0)
    return reached


def reach_of(tape: Tape, key: Any) -> int:
    """Return which arguments a gradient can come to from the result of an operation."""
    reached = 0
    for node in tape.places[key]:
        reached |= tape.reach.get(node.out, 0)
    return reached


def carries(tape: Tape, key: Any, wanted: int) -> bool:
    """Return whether what a step hands to the next can reach all of some arguments."""
    return reach_of(tape, key) & wanted == wanted
