"""Free breaks: the place of the mistake is known, its numbers are not, and are solved for.

They come where no break with a number of its own explains a gradient. A family has the breaks of
one kind, the fewest unknown numbers first; the last says no more than from where on all is right.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np

from reference.breaks.changes import Instead, Weighted
from reference.breaks.kinds.site import Break, Site, carries, reach, reach_of, sites
from reference.breaks.reverse import ARRIVED, Edit, Leaf
from reference.breaks.rules import SLOPES
from reference.breaks.tape import Node, Tape

MOST_UNKNOWN = 200  # numbers of one break
MOST_IN_GROUP = 8
SHOWN, ZERO = 8, 1e-9  # numbers, in words

FROM_HERE = "wrong, and all that follows from it is right"
WITH, OWN = "the gradient with respect to", "is multiplied by a number of its own"

Place = tuple[Any, int]


@dataclass(frozen=True)
class Free:
    """A break with unknown numbers.

    ``shape`` is that of the numbers: a first axis over the steps (or 1), and one for each axis of
    what is sent (or 1), the same at all places; or else, ``each`` place has one number. ``instead``
    of what arrives there stand the numbers themselves; otherwise they are factors.
    """

    places: tuple[Place, ...]
    shape: tuple[int, ...]
    says: str
    instead: bool = False
    each: bool = False
    value: Any = None
    near: tuple[Any, ...] = ()

    @property
    def size(self) -> int:
        """How many numbers are unknown."""
        return prod(self.shape)

    @property
    def start(self) -> np.ndarray:
        """Numbers to begin with: of factors, those that change nothing."""
        return np.zeros(self.size) if self.instead else np.ones(self.size)

    def edits(self, numbers: np.ndarray) -> list[Edit]:
        """Return the edits that these numbers make."""
        change = Instead if self.instead else Weighted
        if self.each:
            return [Edit(*place, change(n)) for place, n in zip(self.places, numbers, strict=True)]
        return [Edit(*place, change(numbers.reshape(self.shape))) for place in self.places]

    def broken(self, numbers: np.ndarray) -> Break:
        """Return the break with its numbers, as they are at some arguments."""
        tidy = np.where(np.abs(numbers) < ZERO, 0, numbers)
        shown = ", ".join(f"{n:.4g}" for n in tidy[:SHOWN])
        shown += ", ..." if len(numbers) > SHOWN else ""
        says = self.says.replace("{numbers}", shown)
        edits = tuple(self.edits(numbers))
        return Break(edits, says, self.value, free=self, near=self.near)


def families(tape: Tape, wanted: int) -> Iterator[list[Free]]:
    """Yield the free breaks that can reach all of some arguments, family by family."""
    chosen = [site for site in sites(tape) if reach(site) & wanted == wanted]
    chosen.sort(key=lambda site: -tape.order[site.key])
    yield list(_numbers(tape, chosen, wanted))
    yield [*_uses(tape, wanted), *_terms(tape, wanted)]
    yield [*_steps(tape, chosen), *_carried(tape, wanted)]
    yield [*_entries(tape, chosen), *_of_leaves(tape, wanted)]
    for place in _instead(tape, wanted):
        yield [place]


def _numbers(tape: Tape, chosen: list[Site], wanted: int) -> Iterator[Free]:
    says = (
        f"{WITH} {{operand}} is multiplied by a number that depends on the arguments: {{numbers}}"
    )
    for site in chosen:
        yield Free(((site.key, site.operand),), (1,), says, near=_makers(site))
    for number in range(tape.program.number):
        if wanted == 1 << number:
            of_leaf = says.replace("operand", "value")
            yield Free(((Leaf(number), ARRIVED),), (1,), of_leaf, value=number)


def _makers(site: Site) -> tuple[Any, ...]:
    """Return what makes an operand, and the factors of which: a rule there may be wrong."""
    made = site.tape.made
    found = [made[i] for i in (site.nodes[-1].ins[site.operand],) if i in made]
    if found and found[0].name in ("mul", "div"):
        found += [made[i] for i in found[0].ins if i in made]
    return tuple(node.key for node in found)


def _uses(tape: Tape, wanted: int) -> Iterator[Free]:
    """Yield values that are used several times in a step: each use has a factor of its own."""
    places: dict[Any, list[Place]] = {}
    for i, uses in tape.uses.items():
        made = tape.made.get(i)
        if made is not None and reach_of(tape, made.key) & wanted == wanted:
            places.setdefault(made.key, []).extend((user.key, k) for user, k in uses)
    for key, found in places.items():
        each = tuple(dict.fromkeys(found))
        if 2 < len(each) <= MOST_IN_GROUP:
            says = "the gradients that the uses of {value} send to it are multiplied by {numbers}"
            yield Free(each, (len(each),), says, each=True, value=key, near=(key,))


def _terms(tape: Tape, wanted: int) -> Iterator[Free]:
    """Yield sums of several terms: each term has a factor of its own."""
    for key, nodes in tape.places.items():
        if nodes[0].name not in ADDED or reach_of(tape, key) & wanted != wanted:
            continue
        if any(user.name in ADDED for user, _ in tape.uses[nodes[-1].out]):
            continue  # a part of a longer sum
        found = list(_added(tape, nodes[-1]))
        if 2 < len(found) <= MOST_IN_GROUP:
            says = "the gradients with respect to the terms of {value} are multiplied by {numbers}"
            yield Free(tuple(found), (len(found),), says, each=True, value=key)


def _added(tape: Tape, node: Node) -> Iterator[Place]:
    """Yield the operands of a sum of sums, from left to right."""
    for k, i in enumerate(node.ins):
        made = tape.made.get(i)
        if made and made.name in ADDED and made.step == node.step:
            yield from _added(tape, made)
        elif i in tape.reach:
            yield node.key, k


ADDED = frozenset({"add", "add_any", "sub"})


def _steps(tape: Tape, chosen: list[Site]) -> Iterator[Free]:
    for site in chosen:
        n = len(site.nodes)
        if 1 < n <= MOST_UNKNOWN:
            says = f"{WITH} {{operand}} {OWN} at each step: {{numbers}}"
            shape = n, *[1] * site.x.ndim
            yield Free(((site.key, site.operand),), shape, says, near=_makers(site))


def _carried(tape: Tape, wanted: int) -> Iterator[Free]:
    for key, uses in tape.carried.items():
        n = max(len(tape.places[user]) for user, _ in uses)
        if carries(tape, key, wanted) and len(uses) > 1 and n <= MOST_UNKNOWN:
            says = f"{WITH} {{value}}, as it is carried to the step before, {OWN} at each: "
            yield Free(tuple(uses), (n,), f"{says}{{numbers}}", value=key, near=(key,))


def _entries(tape: Tape, chosen: list[Site]) -> Iterator[Free]:
    for site in chosen:
        for shape, along in _axes(site.x.shape):
            says = f"{WITH} {{operand}} {OWN} for each entry of axis {along}: {{numbers}}"
            yield Free(((site.key, site.operand),), shape, says, near=_makers(site))


def _of_leaves(tape: Tape, wanted: int) -> Iterator[Free]:
    for number, i in enumerate(tape.arguments[: tape.program.number]):
        for shape, along in _axes(tape.values[i].shape) if wanted == 1 << number else ():
            says = f"{WITH} {{value}} {OWN} for each entry of axis {along}: {{numbers}}"
            yield Free(((Leaf(number), ARRIVED),), shape, says, value=number)


def _axes(shape: tuple[int, ...]) -> Iterator[tuple[tuple[int, ...], int]]:
    for axis, n in enumerate(shape):
        if 1 < n <= MOST_UNKNOWN:
            yield (1, *(n if a == axis else 1 for a in range(len(shape)))), axis


def _instead(tape: Tape, wanted: int) -> Iterator[Free]:
    """Yield the results of operations, those nearest the loss first.

    Of results of which each is a function of the one before, entry by entry, the first stands for
    all: what arrives there may be any, if and only if it may be any at the last.
    """
    last = {node.key: number for number, node in enumerate(tape.nodes)}
    for key in sorted(last, key=lambda key: -last[key]):
        nodes = tape.places[key]
        shape = (len(nodes), *np.shape(tape.values[nodes[-1].out]))
        if len(nodes[0].outs) > 1 or not 0 < prod(shape) <= MOST_UNKNOWN:
            continue
        if _entry_by_entry(tape, key):
            continue
        if nodes[-1].out == tape.result or reach_of(tape, key) & wanted != wanted:
            continue
        users = tuple(_used_by(tape, key))
        says = f"what arrives at {{expression}} is {FROM_HERE}"
        yield Free(((key, ARRIVED),), shape, says, instead=True, near=users)
        if key in tape.carried and np.shape(tape.values[tape.initial[key]]) == shape[1:]:
            use = tape.carried[key][0]
            shape = (len(tape.places[use[0]]), *shape[1:])
            says = f"in each step, what arrives at {{value}} of the step before is {FROM_HERE}"
            yield Free((use,), shape, says, instead=True, value=key, near=users)


def _entry_by_entry(tape: Tape, key: Any) -> bool:
    """Return whether a result is a function of the one before alone, entry by entry."""
    for node in tape.places[key]:
        reaching = [i for i in node.ins if i in tape.reach]
        if len(reaching) != 1 or node.name not in ENTRY_BY_ENTRY:
            return False
        made = tape.made.get(reaching[0])
        if made is None or made.step != node.step or len(tape.uses[reaching[0]]) > 1:
            return False
        if np.shape(tape.values[reaching[0]]) != np.shape(tape.values[node.out]):
            return False
    return True


ENTRY_BY_ENTRY = frozenset({*SLOPES, "add", "sub", "mul", "div", "integer_pow", "reshape", "copy"})


def _used_by(tape: Tape, key: Any) -> Iterator[Any]:
    """Yield what uses a result, and what uses that if it is a function of it entry by entry."""
    for user in dict.fromkeys(u.key for node in tape.places[key] for u, _ in tape.uses[node.out]):
        yield user
        if _entry_by_entry(tape, user):
            yield from _used_by(tape, user)
