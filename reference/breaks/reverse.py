"""The reverse pass over a tape, with many breaks at once: a first axis is over versions of it.

``arriving`` has what arrives at each value, and the rule of an operation sends on to operand k what
arrives at its result. A version is a list of edits, each of which changes what one operation sends
to one operand. Where no version differs yet, the first axis has the size 1.
"""

from collections import defaultdict
from collections.abc import Sequence
from contextlib import nullcontext, suppress
from typing import Any, NamedTuple, Protocol

import numpy as np

from reference.breaks.rules import sent
from reference.breaks.tape import Node, Tape

ARRIVED = -1  # stands for an operand: what has arrived at the result, before any is sent on


class Change(Protocol):
    """What is done to what an operation sends to an operand."""

    def apply(self, at: "At", g: np.ndarray, d: np.ndarray) -> Any:
        """Return what is sent instead of d; g has arrived. Both have a first axis of size 1."""


class Edit(NamedTuple):
    """A change at one operand of one operation, at all of its steps."""

    key: Any
    operand: int
    change: Any


class Leaf(NamedTuple):
    """Stands for an operation: the whole gradient in an argument, after all."""

    number: int


class At(NamedTuple):
    """Where a change is made; ``memory`` is of the walk, for changes that add up over steps."""

    tape: Tape
    node: Node
    operand: int
    memory: dict[Any, np.ndarray]

    @property
    def operands(self) -> list[Any]:
        """The values of all operands."""
        return [self.tape.values[i] for i in self.node.ins]

    @property
    def result(self) -> Any:
        """The value of the result."""
        return self.tape.values[self.node.out]

    @property
    def is_usual(self) -> bool:
        """Whether shapes are those of the last step; a change may not fit where they are not."""
        last = self.tape.places[self.node.key][-1]
        return self.node is last or all(
            np.shape(self.tape.values[i]) == np.shape(self.tape.values[j])
            for i, j in zip((*self.node.ins, self.node.out), (*last.ins, last.out), strict=True)
        )

    def sent(self, g: np.ndarray, operands: list[Any], result: Any) -> np.ndarray:
        """Return what the rule sends if the values were these."""
        return sent(self.tape, self.node, g, operands, result, self.operand)


def reverse(
    tape: Tape, versions: Sequence[Sequence[Edit]] = (), start: np.ndarray | None = None
) -> list[np.ndarray]:
    """Return the gradient in every argument, with a first axis of 1 or of all versions.

    ``start`` is what arrives at the result, 1 in every version unless given.
    """
    edits = _by_place(versions)
    asked = {e.change.asked for v in versions for e in v if hasattr(e.change, "asked")}
    kept: dict[Any, np.ndarray] = {}
    memory: dict[Any, np.ndarray] = {}
    arriving: dict[int, np.ndarray] = {tape.result: np.ones(1) if start is None else start}
    for node in reversed(tape.nodes):
        g = _arrived(tape, node, arriving)
        if g is None:
            continue
        if (node.key, node.step, False) in asked:
            kept[node.key, node.step, False] = g
        for kind, some in edits.get((node.key, ARRIVED), {}).items():
            g = _edited(At(tape, node, ARRIVED, memory), kind, some, g, g, len(versions))
        operands = [tape.values[i] for i in node.ins]
        for k, i in enumerate(node.ins):
            if i not in tape.reach:
                continue
            d = sent(tape, node, g, operands, tape.values[node.out], k)
            for kind, some in edits.get((node.key, k), {}).items():
                d = _edited(At(tape, node, k, memory), kind, some, g, d, len(versions))
            arriving[i] = arriving[i] + d if i in arriving else d
            made = tape.made.get(i) if asked else None
            if made is not None and (place := (made.key, made.step, True)) in asked:
                kept[place] = kept.get(place, 0.0) + (d if made.step == node.step - 1 else 0.0 * d)
    whole = [arriving.get(i, np.zeros((1, *tape.values[i].shape))) for i in tape.arguments]
    found = []
    for number, d in enumerate(whole):
        for kind, some in edits.get((Leaf(number), ARRIVED), {}).items():
            d = _edited([*whole, kept], kind, some, d, d, len(versions))
        found.append(d)
    return found


def _by_place(versions: Sequence[Sequence[Edit]]) -> dict[Any, dict[type, list[tuple[int, Any]]]]:
    """Return which versions have edits of which kind, by operation and operand."""
    edits: dict[Any, dict[type, list[tuple[int, Any]]]] = defaultdict(dict)
    for row, version in enumerate(versions):
        for key, operand, change in version:
            edits[key, operand].setdefault(type(change), []).append((row, change))
    return edits


def _arrived(tape: Tape, node: Node, arriving: dict[int, np.ndarray]) -> Any:
    """Return what has arrived at the results of an operation, if anything has."""
    if len(node.outs) == 1:
        return arriving.pop(node.out, None)
    found = [arriving.pop(out, None) for out in node.outs]
    if all(g is None for g in found):
        return None
    return [
        np.zeros((1, *np.shape(tape.values[out]))) if g is None else g
        for g, out in zip(found, node.outs, strict=True)
        if np.issubdtype(tape.values[out].dtype, np.floating)
    ]


def _edited(
    at: Any, kind: Any, some: list[Any], g: Any, d: np.ndarray, versions: int
) -> np.ndarray:
    """Return what is sent, with the edits of one kind in their versions."""
    d = np.array(np.broadcast_to(d, (versions, *d.shape[1:])))
    rows = [row for row, _ in some]
    if isinstance(at, list) and not hasattr(kind, "apply_all"):
        for row, change in some:
            own = d[row : row + 1]
            _put(own, change.apply(_version(at, row), _row(g, row), own))
    else:
        d[rows] = _of_kind(kind, [c for _, c in some], at, _rows(g, rows), d[rows])
    return d


def changed(changes: Sequence[Any], at: At, g: Any, d: np.ndarray) -> np.ndarray:
    """Return what is sent with changes of any kinds, each in a version of its own."""
    kinds: dict[type, list[int]] = defaultdict(list)
    for row, change in enumerate(changes):
        kinds[type(change)].append(row)
    found = np.array(d)
    for kind, rows in kinds.items():
        some = [changes[row] for row in rows]
        found[rows] = _of_kind(kind, some, at, _rows(g, rows), d[rows])
    return found


def _of_kind(kind: Any, changes: list[Any], at: Any, g: Any, d: np.ndarray) -> np.ndarray:
    together = hasattr(kind, "apply_all")
    if together and (isinstance(at, list) or at.is_usual):
        return np.asarray(kind.apply_all(changes, at, g, d))
    found = np.array(d)
    for row, change in enumerate(changes):
        arrived, own = _row(g, row), d[row : row + 1]
        with nullcontext() if at.is_usual else suppress(ValueError):
            if together:
                made = kind.apply_all([change], at, arrived, own)
            else:
                made = change.apply(at, arrived, own)
            _put(found[row : row + 1], made)
    return found


def _rows(g: Any, rows: list[int]) -> Any:
    return g[rows] if len(g) > 1 else g


def _put(d: np.ndarray, made: Any) -> None:
    """Put what a change makes in the place of what is sent; one that does not fit here is none."""
    if np.shape(made)[1:] == d.shape[1:]:
        d[...] = made


def _version(leaves: list[Any], row: int) -> list[Any]:
    """Return one version of all gradients, and of what has arrived at the states."""
    *whole, kept = leaves
    return [*(_row(a, row) for a in whole), {key: _row(a, row) for key, a in kept.items()}]


def _row(a: np.ndarray, row: int) -> np.ndarray:
    """Return one version."""
    return a[row : row + 1] if len(a) > 1 else a
