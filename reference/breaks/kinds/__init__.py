"""The breaks of any loss: at each operand of each operation, and in what a loop carries on.

To add a kind, write a function that yields its breaks at a site, and put it in KINDS.
"""

from collections.abc import Callable, Iterator
from typing import Any

from reference.breaks.changes import Later
from reference.breaks.kinds.constants import constants
from reference.breaks.kinds.forms import cuts, orders, sums, transposes
from reference.breaks.kinds.leaves import of_beginnings, of_first_steps, of_leaves
from reference.breaks.kinds.loops import of_loops, of_values
from reference.breaks.kinds.parts import parts
from reference.breaks.kinds.paths import factors, left_out, paths, steps
from reference.breaks.kinds.site import Break, Site, reach, sites
from reference.breaks.kinds.slopes import inserted, skipped, slopes, softmax
from reference.breaks.kinds.values import elsewhere, exchanged, moved, residuals
from reference.breaks.tape import Tape

Kind = Callable[[Site], Iterator[Break]]

KINDS: tuple[Kind, ...] = (
    paths, slopes, left_out, transposes, sums, steps, factors, softmax, inserted, exchanged, cuts,
    parts, orders, elsewhere, residuals, skipped, moved,
)  # fmt: skip
"""The kinds of breaks at a site, the simplest first."""


def breaks(tape: Tape, wanted: int) -> Iterator[Break]:
    """Yield every break of a tape that can reach all of some arguments, the simplest first.

    ``wanted`` has a bit for each of these, as in ``Tape.reach``.
    """
    every = list(sites(tape))
    chosen = [site for site in every if reach(site) & wanted == wanted]
    called = list(_called(tape, every, wanted))
    for kind in KINDS:
        for site in chosen:
            yield from kind(site)
            yield from _but_first(kind, site)
        for together in called:
            yield from _at_all(kind, together)
    yield from of_leaves(tape, wanted)
    yield from of_beginnings(tape, wanted)
    yield from of_first_steps(tape, wanted)
    yield from of_values(tape, wanted)
    yield from constants(tape, wanted)
    yield from of_loops(tape, wanted)


def _but_first(kind: Kind, site: Site) -> Iterator[Break]:
    """Yield breaks that are made at all steps but the first, of what each hands to the next.

    At the first step it comes from what the loop begins with, which often has a line of its own.
    """
    if kind not in (steps, factors) and site.operand in site.tape.taken.get(site.key, ()):
        for broken in kind(site):
            edits = tuple(e._replace(change=Later(e.change)) for e in broken.edits)
            yield broken._replace(edits=edits, says=f"at all steps but the first, {broken.says}")


def _called(tape: Tape, every: list[Site], wanted: int) -> Iterator[list[Site]]:
    """Yield the sites of one operation of a function that is called at several places."""
    by_place = {(site.key, site.operand): site for site in every}
    for (key, k), site in by_place.items():
        keys = tape.calls.get(key, [key])
        together = [by_place[other, k] for other in keys if (other, k) in by_place]
        if len(together) > 1 and together[0] is site:
            reached = 0
            for one in together:
                reached |= reach(one)
            if reached & wanted == wanted:
                yield together


def _at_all(kind: Kind, together: list[Site]) -> Iterator[Break]:
    """Yield breaks that are made at all calls of a function."""
    first, *others = together
    of_others = [{(b.says, b.value): b for b in kind(site)} for site in others]
    for broken in kind(first):
        found = [broken]
        for site, listed in zip(others, of_others, strict=True):
            value = _of_call(site.tape, broken.value, first.key, site.key)
            if (same := listed.get((broken.says, value))) is not None:
                found.append(same)
        if len(found) == len(together):
            edits = tuple(edit for b in found for edit in b.edits)
            yield Break(edits, broken.says, broken.value, about=broken.key)


def _of_call(tape: Tape, value: Any, first: Any, other: Any) -> Any:
    """Return what a value of one call is in another: as far from the operation there as here."""
    if value is None or isinstance(value, int):
        return value
    away = tape.order[value] - tape.order[first] + tape.order[other]
    return min(tape.calls.get(value, [value]), key=lambda key: abs(tape.order[key] - away))
