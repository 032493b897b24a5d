"""Breaks of values: another of the same shape stands for the right one."""

from collections.abc import Callable, Iterator

import numpy as np

from reference.breaks.changes import Other, Valued
from reference.breaks.kinds.site import Break, Site
from reference.breaks.reverse import SLOPES

MOST_VALUES = 40  # that may stand for the right one: more of the same shape are not tried


def elsewhere(site: Site) -> Iterator[Break]:
    """Yield values that stand for the right one: the other factor, or where a slope is taken."""
    if site.name in ("mul", "dot_general") or (site.name == "div" and site.operand == 0):
        right, says = (
            site.other,
            "in the gradient with respect to {operand}, {value} stands for {other}",
        )
    elif site.name in ("tanh", "logistic", "exp", "sqrt", "rsqrt", "integer_pow", "square", "log"):
        right, says = site.y, "the derivative of {expression} is taken at {value}"
    else:
        return
    if right.ndim == 0:
        return
    loop = len(site.nodes) > 1
    for of in site.alike.get(right.shape, ())[:MOST_VALUES]:
        moving = loop and not isinstance(of, int) and len(site.tape.places[of]) > 1
        for later in (0, -1, 1) if moving else (0,):
            at = {0: "", -1: " of the step before", 1: " of the step after"}[later]
            yield site.change(says.replace("{value}", "{value}" + at), Valued(of, later), of)


def moved(site: Site) -> Iterator[Break]:
    """Yield values whose first axis is shifted or reversed, as that of time may be."""
    if site.name in ("mul", "dot_general"):
        shape = site.other.shape
    elif site.name in SLOPES:
        shape = site.y.shape
    else:
        return
    if len(shape) > 1 and shape[0] > 1:
        of = "{operand}" if site.name in ("mul", "dot_general") else "{expression}"
        says = f"in the derivative with respect to {of} the values are "
        yield site.change(f"{says}those of the entry before", Other(_shifted_by(1)))
        yield site.change(f"{says}those of the entry after", Other(_shifted_by(-1)))
        yield site.change(
            f"{says}those of the entry before, the last before the first",
            Other(lambda v: np.roll(v, 1, 0)),
        )
        yield site.change(
            f"{says}those of the entry after, the first after the last",
            Other(lambda v: np.roll(v, -1, 0)),
        )
        yield site.change(f"{says}in reverse order", Other(lambda v: v[::-1]))


def _shifted_by(n: int) -> Callable[[np.ndarray], np.ndarray]:
    def shifted(value: np.ndarray) -> np.ndarray:
        found = np.zeros_like(value)
        found[max(n, 0) : len(value) + min(n, 0)] = value[max(-n, 0) : len(value) - max(n, 0)]
        return found

    return shifted
