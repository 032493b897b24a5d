"""Breaks of paths: forgotten, taken twice, with another factor, at some steps alone."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from reference.breaks.changes import Scaled, Unruled
from reference.breaks.kinds.site import Break, Site, carries, reach, sites
from reference.breaks.reverse import ARRIVED, Edit, Leaf
from reference.breaks.rules import SLOPES
from reference.breaks.tape import Tape


def paths(site: Site) -> Iterator[Break]:
    """Yield what happens to a whole path."""
    yield site.change("the gradient does not pass through {operand}", Scaled(0.0))
    yield site.change("the gradient with respect to {operand} is taken twice", Scaled(2.0))
    yield site.change("the gradient with respect to {operand} has the wrong sign", Scaled(-1.0))
    yield site.change("the gradient with respect to {operand} is taken by half", Scaled(0.5))


def factors(site: Site) -> Iterator[Break]:
    """Yield factors that are sizes: of a mean for a sum, or the reverse."""
    if site.name in ("reduce_sum", "div", "mul", "integer_pow", "square", "dot_general"):
        for size in _sizes(site.tape):
            says = "the gradient with respect to {operand} is "
            yield site.change(f"{says}{size} times too large", Scaled(float(size)))
            yield site.change(f"{says}{size} times too small", Scaled(1 / size))


def _sizes(tape: Tape) -> list[int]:
    shapes = {n for value in tape.values for n in np.shape(value)}
    products = {tape.values[a].size for a in tape.arguments}
    return sorted(n for n in shapes | products | {tape.steps, 3, 4} if n > 2)


def left_out(site: Site) -> Iterator[Break]:
    """Yield operations whose derivative is left out."""
    if site.name == "dot_general" and site.x.shape == site.y.shape:
        says = "in the gradient with respect to {operand}, the factor {other} is left out"
        yield site.change(says, Unruled())
        if len(site.nodes) > 1:
            yield site.change(f"{says} at the first step", Unruled(0))
    if site.name in ("mul", "div"):
        yield site.change(
            "in the gradient with respect to {operand}, the factor {other} is left out", Unruled()
        )
    elif site.name in ("max", "min", "select_n", "clamp"):
        yield site.change(
            "the condition is left out of the gradient with respect to {operand}", Unruled()
        )
    elif site.name == "stop_gradient":
        yield site.change("the gradient passes through {expression}, where it stops", Unruled())
    elif site.name in SLOPES or site.name == "integer_pow":
        yield site.change("the derivative of {expression} is left out", Unruled())
    if site.name in ("rev", "transpose", "reshape") and site.x.shape == site.y.shape:
        yield site.change("{expression} is not undone on the way back", Unruled())


def steps(site: Site) -> Iterator[Break]:
    """Yield steps of a loop that are left out, or that alone are taken."""
    n = len(site.nodes)
    if n == 1:
        return
    first, last = np.arange(n) == 0, np.arange(n) == n - 1
    says = "the gradient does not pass through {operand} at the "
    yield site.change(f"{says}first step", Scaled(1.0 - first))
    yield site.change(f"{says}last step", Scaled(1.0 - last))
    says = "the gradient passes through {operand} at the "
    yield site.change(f"{says}last step alone", Scaled(1.0 * last))
    yield site.change(f"{says}first step alone", Scaled(1.0 * first))


def scaled_paths(tape: Tape, wanted: int, factors: Sequence[float] | None = None) -> list[Break]:
    """Return a break for each path, and for all that is carried: it is multiplied by a factor."""
    found: list[tuple[tuple[Any, int], ...]] = []
    for site in sites(tape):
        if reach(site) & wanted == wanted:
            found.append(((site.key, site.operand),))
    carried = [tuple(uses) for key, uses in tape.carried.items() if carries(tape, key, wanted)]
    found += [*carried, tuple(use for uses in carried for use in uses)] if carried else []
    found += [((Leaf(i), ARRIVED),) for i in range(tape.program.number) if wanted == 1 << i]
    says = "the gradient with respect to {operand} is multiplied by "
    return [
        Break(tuple(Edit(*use, Scaled(c)) for use in uses), says + in_digits(c))
        for uses, c in zip(found, [0.0] * len(found) if factors is None else factors, strict=True)
    ]


def in_digits(factor: float) -> str:
    """Return a factor with as many digits as tell it from 1."""
    off = factor - 1
    return f"{factor:.6g}" if abs(off) > 1e-4 else f"1 {'-' if off < 0 else '+'} {abs(off):.3g}"
