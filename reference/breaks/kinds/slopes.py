"""Breaks of slopes: the derivative of another function than the one that is there."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from reference.breaks.changes import Sloped
from reference.breaks.kinds.site import Break, Site


def slopes(site: Site) -> Iterator[Break]:
    """Yield derivatives of other functions than the one that is there."""
    if site.name in ("tanh", "logistic", "max", "erf", "exp"):
        for formula, slope in OTHER_SLOPES.items():
            says = f"the derivative of {{expression}} is {formula}"
            if site.name == "max":
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
