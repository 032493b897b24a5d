"""Breaks of values: another of the same shape stands for the right one."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from reference.breaks.changes import Begun, Other, Own, Residual, Valued
from reference.breaks.kinds.site import Break, Site
from reference.breaks.reverse import Edit
from reference.breaks.rules import SLOPES

MOST_VALUES = 60  # that may stand for the right one: more of the same shape are not tried


def elsewhere(site: Site) -> Iterator[Break]:
    """Yield values that stand for the right one: the other factor, or where a slope is taken."""
    if site.name in ("mul", "dot_general") or (site.name == "div" and site.operand == 0):
        right, of_right = site.other, site.nodes[-1].ins[1 - site.operand]
        says = "in the gradient with respect to {operand}, {value} stands for {other}"
    elif site.name in SLOPED:
        right, of_right = site.y, site.nodes[-1].ins[0]
        says = "the derivative of {expression} is taken at {value}"
    else:
        return
    if right.ndim == 0:
        return
    for change, at, of in _values(site, right.shape, of_right):
        yield site.change(says.replace("{value}", "{value}" + at), change, of)


SLOPED = frozenset(
    ["tanh", "logistic", "exp", "sqrt", "rsqrt", "integer_pow", "square", "log", "max"]
)


def _values(site: Site, shape: tuple[int, ...], right: int) -> Iterator[tuple[Valued, str, Any]]:
    """Yield values of a shape, with words for their step, and whose they are."""
    tape, loop = site.tape, len(site.nodes) > 1
    made = tape.made.get(right)
    candidates = site.alike.get(shape, [])
    if made is not None and len(candidates) > MOST_VALUES:  # those that the loop carries come first
        first = [made.key, *tape.carried]
        candidates = sorted(candidates, key=lambda of: of not in first)
    if loop and made is not None and len(tape.places[made.key]) > 1:
        for later in (-2, 2):
            yield Valued(made.key, later), f" of {later:+} steps", made.key
        for later in (-2, -1, 1, 2):
            clamped = f" of {later:+} steps, or of the nearest step there is,"
            yield Valued(made.key, later, clamped=True), clamped, made.key
        many = len(tape.places[made.key])
        yield Valued(made.key, many, clamped=True), " of the last step, at every step,", made.key
        yield Valued(made.key, -many, clamped=True), " of the first step, at every step,", made.key
    for of in candidates[:MOST_VALUES]:
        count = 1 if isinstance(of, int) else len(tape.places[of])
        if not loop and count > 1:  # what a loop leaves behind
            yield Valued(of, count - 1), " of the last step", of
            yield Valued(of, count - 2), " of the last step but one", of
        yield Valued(of), "", of
        if not loop or count == 1:
            continue
        yield Valued(of, -1), " of the step before", of
        yield Valued(of, 1), " of the step after", of
        if tape.initial.get(of) is None:
            yield Valued(of, -1, kept=True), " of the step before, but at the first step,", of
            yield Valued(of, 1, kept=True), " of the step after, but at the last step,", of
        yield Valued(of, mirrored=True), ", the steps in reverse order,", of
        wrapped = " of the step before, that of the last step before the first,"
        yield Valued(of, -1, wraps=True), wrapped, of
        yield Valued(of, 1, wraps=True), " of the step after, the first after the last,", of


def residuals(site: Site) -> Iterator[Break]:
    """Yield squares of differences from another value, as from the target of another step."""
    if site.name not in ("integer_pow", "square"):
        return
    tape = site.tape
    made = tape.made.get(site.nodes[-1].ins[0])
    if made is None or made.name != "sub":
        return
    for k in (0, 1):
        fixed = made.ins[k]
        if fixed in tape.reach:
            continue
        for change, at, of in _values(site, tape.values[fixed].shape, fixed):
            says = "the derivative of {expression} is taken with {value}" + at + " subtracted"
            edits = (Edit(site.key, site.operand, Residual(1 - k, change)),)
            yield Break(edits, says, of, about=made.key)


def exchanged(site: Site) -> Iterator[Break]:
    """Yield factors that are exchanged, in the gradients of a product with respect to both."""
    if site.name == "mul" and site.operand == 0 and site.x.shape == site.other.shape:
        edits = tuple(Edit(site.key, k, Own()) for k in (0, 1))
        yield Break(edits, "the factors of {expression} are exchanged in its gradients")


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
        yield site.change(f"{says}all those of the last entry", Other(_all_of(-1)))
        yield site.change(f"{says}all those of the first entry", Other(_all_of(0)))
        for number in site.alike.get(shape[1:], ()):
            if isinstance(number, int):
                before = f"{says}those of the entry before, with {{value}} before the first"
                yield site.change(before, Begun(number), number)


def _all_of(entry: int) -> Callable[[np.ndarray], np.ndarray]:
    return lambda value: np.broadcast_to(value[entry], value.shape)


def _shifted_by(n: int) -> Callable[[np.ndarray], np.ndarray]:
    def shifted(value: np.ndarray) -> np.ndarray:
        found = np.zeros_like(value)
        found[max(n, 0) : len(value) + min(n, 0)] = value[max(-n, 0) : len(value) - max(n, 0)]
        return found

    return shifted
