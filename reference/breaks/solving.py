"""Solving: the unknown numbers of free breaks that make the gradient that was returned, if any do.

By the method of Gauss and Newton, of many breaks side by side: what a break makes of the gradient
is linear in numbers that stand for what arrives, and a polynomial in factors.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from reference.breaks.kinds.free import Free

ROUNDS = 7
STEP = 1e-4  # in a factor, to see what it does
PROGRESS = 0.5  # of the distance: if more is left after a later round, a break is given up
FIRST = 0.9  # of it, if more would be left were all linear, a break is given up at once
SMALLEST = {True: 1e-13, False: 1e-8}  # of singular values, if slopes are exact or differences
TOUCHED = 1e-12  # of the largest slope: by less, no number touches an entry
LEAST = 1e-6  # of the largest slope: by less, what is right does not hold a number
EVIDENCE = 2  # equations more than the unknown numbers could have met anyway

Gradients = Callable[[list[Any]], np.ndarray]


def solve(
    frees: list[Free],
    gradients: Gradients,
    returned: np.ndarray,
    right: np.ndarray,
    tolerance: np.ndarray,
) -> dict[Free, np.ndarray]:
    """Return the numbers of those free breaks that make a gradient.

    Parameters
    ----------
    frees : list of Free
        Those that are tried.
    gradients : callable
        Returns a row for each list of edits: the gradient that they make, all leaves in one row.
    returned : array
        The gradient that is to be made.
    right : array
        What is right.
    tolerance : array
        How far two of them may be apart and be the same.
    """
    off = np.abs(returned - right)
    wrong = off > tolerance
    least = max(LEAST, 10 * tolerance.max(initial=0) / max(off.max(initial=0), 1e-300))
    numbers = {free: free.start for free in frees}
    slopes: dict[Free, np.ndarray] = {}
    distance: dict[Free, float] = {}
    solved = {}
    for _ in range(ROUNDS):
        if not numbers:
            break
        rows = iter(_rows(numbers, slopes, gradients))
        left = {}
        for free, now in numbers.items():
            base = next(rows)
            if not (free.instead and free in slopes):
                moved = np.stack([next(rows) for _ in range(free.size)])
                slopes[free] = ((moved - base) / _step(free)).T
            if not np.isfinite(slopes[free]).all():
                continue
            if (np.abs(base - returned) <= tolerance).all():
                if _evidence(free, slopes[free], wrong, least) >= EVIDENCE:
                    solved[free] = now
                continue
            change = np.linalg.lstsq(slopes[free], returned - base, rcond=SMALLEST[free.instead])[0]
            there = float(np.linalg.norm(returned - base))
            linear = float(np.linalg.norm(returned - base - slopes[free] @ change))
            if linear < FIRST * there and there < PROGRESS * distance.get(free, np.inf):
                left[free], distance[free] = now + change, there
        numbers = left
    return {free: solved[free] for free in frees if free in solved}


def _step(free: Free) -> float:
    return 1.0 if free.instead else STEP


def _rows(numbers: dict[Free, Any], slopes: dict[Free, Any], gradients: Gradients) -> np.ndarray:
    """Return what all breaks make at their numbers, and where each number is a little larger."""
    versions = []
    for free, now in numbers.items():
        versions.append(free.edits(now))
        if not (free.instead and free in slopes):
            moved = now + _step(free) * np.eye(free.size)
            versions += [free.edits(one) for one in moved]
    return gradients(versions)


def _evidence(free: Free, slopes: np.ndarray, wrong: np.ndarray, least: float) -> int:
    """Return how many equations more hold than numbers could have met, among what is wrong.

    Of the numbers' freedom, what is right takes some. The rest may meet as many entries that are
    wrong, whatever these are, and proves nothing there. A number that moves what is right by less
    than a part ``least`` is free.
    """
    largest = np.linalg.norm(slopes, 2)
    rank = np.linalg.matrix_rank(slopes, SMALLEST[free.instead] * largest)
    fixed = np.linalg.matrix_rank(slopes[~wrong], least * largest) if not wrong.all() else 0
    touched = np.abs(slopes[wrong]) > TOUCHED * largest
    return int(touched.any(1).sum() - (rank - fixed))
