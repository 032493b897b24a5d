"""Together: several breaks explain a gradient, each some leaves of it, or meeting in one leaf."""

from typing import Any

import numpy as np

from reference.breaks.case import AT_ONCE, Case, Explanation, bits, flat
from reference.breaks.factors import SETTLED, factors
from reference.breaks.kinds import breaks
from reference.breaks.kinds.site import Break

BASES = 24  # breaks that explain some leaves, of which pairs are tried with all others
JOINED = 256  # ways to join breaks of some leaves each
MOST_TOGETHER = 8  # of these at once
DIRECTIONS, MOST_PAIRED, NEAREST = 32, 5000, 1000  # of looking for pairs


def together(case: Case) -> tuple[list[Explanation], int]:
    """Return breaks that explain a gradient together, and how many were tried."""
    parts: dict[bytes, tuple[Break, np.ndarray, np.ndarray]] = {}
    tried = 0
    for leaf in np.flatnonzero(case.wrong):
        alone = np.arange(len(case.wrong)) == leaf
        some = [Explanation((b,)) for b in breaks(case.tape, bits(alone))]
        some += factors(case, alone)
        tried += len(some)
        for e, makes, keeps in zip(some, *case.measured(some), strict=True):
            if makes[leaf]:
                what = e.breaks[0].says.encode() + makes.tobytes() + keeps.tobytes()
                parts.setdefault(what, (e.breaks[0], makes, keeps))
    found = case.those_that_explain(_joined(case, list(parts.values())))
    if not found:
        found, more = _pairs(case, list(parts.values()))
        tried += more
    if not found:
        found = case.those_that_explain(_near_pairs(case))
    simplest = min((e.simplicity for e in found), default=None)
    return [e for e in found if e.simplicity == simplest], tried


def _joined(case: Case, parts: list[tuple[Break, np.ndarray, np.ndarray]]) -> list[Explanation]:
    """Return breaks that explain some leaves each, and leave the others as they are."""
    apart = [(b, makes & case.wrong) for b, makes, keeps in parts if (makes | keeps).all()]
    found: list[Explanation] = []

    def extend(chosen: tuple[Break, ...], left: np.ndarray) -> None:
        if len(found) >= JOINED or len(chosen) > MOST_TOGETHER:
            return
        if not left.any():
            found.append(Explanation(chosen))
            return
        leaf = np.flatnonzero(left)[0]
        said = {b.says for b in chosen}
        for b, makes in sorted(apart, key=lambda part: (part[0].says not in said, -part[1].sum())):
            if makes[leaf]:
                extend((*chosen, b), left & ~makes)

    extend((), case.wrong)
    return sorted(found, key=lambda e: e.simplicity)


def _pairs(case: Case, parts: list[Any]) -> tuple[list[Explanation], int]:
    """Return pairs of which one explains some leaf by itself, and the other meets it elsewhere."""
    bases: dict[bytes, Any] = {}
    for part in parts:
        bases.setdefault(part[1].tobytes() + part[2].tobytes(), part)
    tried = 0
    for base, makes, _ in sorted(bases.values(), key=lambda part: -part[1].sum())[:BASES]:
        listed = breaks(case.tape, bits(case.wrong & ~makes))
        some = [Explanation((base, b)) for b in listed]
        tried += len(some)
        if found := case.those_that_explain(some):
            return found, tried
    return [], tried


def _near_pairs(case: Case) -> list[Explanation]:
    """Return pairs whose changes add up to nearly what is wrong, the nearest first.

    They would add up exactly if neither met what the other sends. Changes are seen through a few
    random directions.
    """
    every = [Explanation((b,)) for b in breaks(case.tape, 0)]
    if not every:
        return []
    largest = [np.full(r.size, max(np.abs(r).max(initial=0), 1e-300)) for r in case.right]
    size = np.concatenate(largest)[:, None]
    directions = np.random.default_rng(0).standard_normal((len(size), DIRECTIONS)) / size
    right, returned = (flat([a[None] for a in arrays]) for arrays in (case.right, case.returned))
    wrong = (returned - right) @ directions
    seen = []
    for start in range(0, len(every), case.at_once):
        part = every[start : start + case.at_once]
        seen.append((flat(case.in_parts(part)) - right) @ directions)
    changes = np.concatenate(seen)
    sizes = np.linalg.norm(changes, axis=1)
    chosen = np.flatnonzero(np.isfinite(sizes) & (sizes > SETTLED * np.linalg.norm(wrong)))
    alike = {
        np.round(changes[i] / sizes[i], 9).tobytes() + np.round(np.log(sizes[i]), 9).tobytes(): i
        for i in chosen[::-1]
    }
    chosen = np.array(sorted(alike.values())[:MOST_PAIRED], int)
    if len(chosen) < 2:
        return []
    changes = changes[chosen]
    distance = np.empty((len(chosen), len(chosen)))
    squares = np.sum(changes**2, 1)
    for i in range(0, len(chosen), AT_ONCE):
        left = wrong - changes[i : i + AT_ONCE]
        distance[i : i + AT_ONCE] = np.sum(left**2, 1)[:, None] + squares - 2 * left @ changes.T
    distance[np.tril_indices(len(chosen))] = np.inf
    nearest = np.argpartition(distance, min(NEAREST, distance.size - 1), axis=None)[:NEAREST]
    nearest = nearest[np.argsort(distance.flat[nearest])]
    pairs = zip(*np.unravel_index(nearest, distance.shape), strict=True)
    return [
        Explanation((*every[chosen[i]].breaks, *every[chosen[j]].breaks))
        for i, j in pairs
        if np.isfinite(distance[i, j])
    ]
