"""Breaks of slopes: the derivative of another function than the one that is there."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from reference.breaks.changes import Scaled, Sloped, Softmax, Times, Unsloped
from reference.breaks.kinds.site import Break, Site
from reference.breaks.reverse import ARRIVED, Edit
from reference.breaks.rules import SLOPES

MOST_SUMS = 4  # between an operation and the function that is applied to its result


def slopes(site: Site) -> Iterator[Break]:
    """Yield derivatives of other functions than the one that is there."""
    if site.name in ("tanh", "logistic", "max", "erf", "exp"):
        for formula, slope in OTHER_SLOPES.items():
            says = f"the derivative of {{expression}} is {formula}"
            if site.name == "max" and formula not in ("h", "a"):
                continue
            yield site.change(f"{says}, with a its argument and h its value", Sloped(slope))


OTHER_SLOPES: dict[str, Callable[[Any, Any], Any]] = {
    "1 - h": lambda a, h: 1 - h,
    "h": lambda a, h: h,
    "a": lambda a, h: a,
    "1 - h^2": lambda a, h: 1 - h * h,
    "h (1 - h)": lambda a, h: h * (1 - h),
    "1 - a^2": lambda a, h: 1 - a * a,
    "a (1 - a)": lambda a, h: a * (1 - a),
    "1 - tanh(h)^2": lambda a, h: 1 - np.tanh(h) ** 2,
    "s(h)": lambda a, h: 1 / (1 + np.exp(-h)),
    "s(h) (1 - s(h))": lambda a, h: 1 / (2 + np.exp(h) + np.exp(-h)),
    "s(a) (1 - s(a))": lambda a, h: 1 / (2 + np.exp(a) + np.exp(-a)),
    "1 - tanh(a)^2": lambda a, h: 1 - np.tanh(a) ** 2,
    "1 + h^2": lambda a, h: 1 + h * h,
    "h (1 + h)": lambda a, h: h * (1 + h),
    "1 - |h|": lambda a, h: 1 - np.abs(h),
    "(1 - h)^2": lambda a, h: (1 - h) ** 2,
    "1 / (1 - h^2)": lambda a, h: 1 / (1 - h * h),
    "a > 0": lambda a, h: a > 0,
}


def skipped(site: Site) -> Iterator[Break]:
    """Yield slopes that are left out on one of several paths: before an operation, or after it."""
    tape = site.tape
    last = site.nodes[-1]
    for of in _after(site):
        if len(tape.uses[last.ins[site.operand]]) > 1 or last.name == "dot_general":
            says = "the gradient with respect to {operand} leaves out the derivative of {value}"
            yield site.change(says, Unsloped(of, 0, arrived=True), of)
    made = tape.made.get(last.ins[site.operand])
    if made is not None and made.name in SLOPES and len(tape.uses[made.out]) > 1:
        later = made.step - last.step
        says = "the derivative of {value} is left out of what comes from {operand}"
        edits = (Edit(site.key, site.operand, Unsloped(made.key, later, arrived=False)),)
        yield Break(edits, says, made.key, about=made.key)


def _after(site: Site) -> Iterator[Any]:
    """Yield the functions to which sums carry a result, at the same step."""
    node = site.nodes[-1]
    for _ in range(MOST_SUMS):
        users = site.tape.uses[node.out]
        if len(users) != 1 or users[0][0].step != node.step:
            return
        node = users[0][0]
        if node.name in SLOPES and node.name != "neg":
            yield node.key
            return
        if node.name not in ("add", "sub"):
            return


def softmax(site: Site) -> Iterator[Break]:
    """Yield other derivatives of a softmax, such as if each entry were a function of its own."""
    made = site.tape.made.get(site.nodes[-1].ins[0])
    if site.name != "div" or site.operand or made is None or made.name != "exp":
        return
    if site.other.ndim != site.y.ndim:
        return
    forms = {
        "taken entry by entry": Softmax("entries"),
        "with a sum that lacks the softmax": Softmax("sum"),
        "with a plain mean in the place of the sum": Softmax("mean"),
        **{f"summed over axis {axis}": Softmax("axis", axis) for axis in range(site.y.ndim)},
    }
    for says, change in forms.items():
        edits = Edit(site.key, 0, change), Edit(site.key, 1, Scaled(0.0))
        yield Break(edits, f"the derivative of {{expression}} is {says}")


def inserted(site: Site) -> Iterator[Break]:
    """Yield slopes of functions that are not there, or that were taken already."""
    if site.operand == 0 and site.name in ("add", "sub", "dot_general", "logistic", "tanh", "mul"):
        for formula, slope in INSERTED.items():
            says = f"what arrives at {{expression}} is multiplied by {formula}, with v its value"
            yield Break((Edit(site.key, ARRIVED, Times(slope)),), says)


INSERTED: dict[str, Callable[[Any], Any]] = {
    "1 - v^2": lambda v: 1 - v * v,
    "v (1 - v)": lambda v: v * (1 - v),
    "(v > 0)": lambda v: v > 0,
    "v": lambda v: v,
}
