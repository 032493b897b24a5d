"""The breaks of any loss: at each operand of each operation, and in what a loop carries on.

To add a kind, write a function that yields its breaks at a site, and put it in KINDS.
"""

from collections.abc import Iterator

from reference.breaks.kinds.forms import cuts, orders, sums, transposes
from reference.breaks.kinds.leaves import of_leaves
from reference.breaks.kinds.loops import of_loops, of_values
from reference.breaks.kinds.paths import factors, left_out, paths, steps
from reference.breaks.kinds.site import Break, reach, sites
from reference.breaks.kinds.slopes import skipped, slopes, softmax
from reference.breaks.kinds.values import elsewhere, exchanged, moved, residuals
from reference.breaks.tape import Tape

KINDS = (
    paths, slopes, left_out, transposes, sums, steps, factors, softmax, exchanged, cuts, orders,
    elsewhere, residuals, skipped, moved,
)  # fmt: skip
"""The kinds of breaks at a site, the simplest first."""


def breaks(tape: Tape, wanted: int) -> Iterator[Break]:
    """Yield every break of a tape that can reach all of some arguments, the simplest first.

    ``wanted`` has a bit for each of these, as in ``Tape.reach``.
    """
    chosen = [site for site in sites(tape) if reach(site) & wanted == wanted]
    for kind in KINDS:
        for site in chosen:
            yield from kind(site)
    yield from of_leaves(tape, wanted)
    yield from of_values(tape, wanted)
    yield from of_loops(tape, wanted)
