"""Factors: the number by which a path is multiplied, the same at all arguments."""

from fractions import Fraction

import numpy as np

from reference.breaks.case import Case, Explanation, bits, flat
from reference.breaks.kinds.paths import scaled_paths

MOST_ENTRIES = 20_000_000  # of the gradients of all paths times factors
LARGEST_DENOMINATOR = 5000
ROUNDS, SETTLED, LARGEST_FACTOR = 8, 1e-9, 1e6  # of looking for a factor


def factors(case: Case, leaves: np.ndarray) -> list[Explanation]:
    """Return a break for each path that is multiplied by some number, with the best number.

    What a path times c makes of the gradient is linear in c, or nearly so where the path is taken
    at several steps: the error and the difference of the last two tries say how to go on.
    """
    chosen = np.flatnonzero(leaves)
    wanted = bits(leaves)
    returned, right = (flat([a[i][None] for i in chosen]) for a in (case.returned, case.right))
    numbers = np.zeros(len(scaled_paths(case.tape, wanted)))
    if not 0 < len(numbers) * returned.size <= MOST_ENTRIES:
        return []
    before, at_before = np.ones(len(numbers)), right
    for _ in range(ROUNDS):
        some = [Explanation((b,)) for b in scaled_paths(case.tape, wanted, numbers.tolist())]
        at = flat([r for i, r in enumerate(case.in_parts(some)) if leaves[i]])
        moved = numbers - before
        slope = (at - at_before) / np.where(moved == 0, 1, moved)[:, None]
        square = np.sum(slope * slope, 1)
        step = np.sum((returned - at) * slope, 1) / np.where(square > 0, square, 1)
        before, at_before = numbers, at
        numbers = np.where(np.isfinite(step) & (np.abs(step) > SETTLED), numbers + step, numbers)
    near = [i for i, c in enumerate(numbers) if abs(c - 1) > SETTLED and abs(c) < LARGEST_FACTOR]
    simple = scaled_paths(case.tape, wanted, [_simple(c) for c in numbers])
    return [Explanation((simple[i],)) for i in near]


def _simple(factor: float) -> float:
    """Return the fraction that a number is, if it is one of small numbers."""
    if not abs(factor) < LARGEST_FACTOR:
        return factor
    fraction = float(Fraction(factor).limit_denominator(LARGEST_DENOMINATOR))
    return fraction if abs(fraction - factor) <= SETTLED * abs(factor) else factor
