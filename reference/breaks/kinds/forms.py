"""Breaks of forms: transposed, reshaped, reversed, summed over another part of an axis."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from reference import jaxprs
from reference.breaks.changes import Arrived, Cut, Other, Overwritten, Scaled, Sent
from reference.breaks.kinds.site import Break, Site

WITH = "the gradient with respect to {operand}"


def transposes(site: Site) -> Iterator[Break]:
    """Yield factors and results that are transposed, or that have the right shape by accident."""
    if site.name == "dot_general":
        swapped = _square(site)
        if swapped is not None:
            yield site.change(
                "in the gradient with respect to {operand}, the factor {other} is transposed",
                Other(swapped),
            )
        elif site.other.ndim == 2 and min(site.other.shape) > 1:
            says = f"in {WITH}, the factor {{other}} is reshaped where it should be transposed"
            yield site.change(says, Other(lambda v: v.reshape(v.shape[::-1]).T))
            yield site.change(says, Other(lambda v: v.T.reshape(v.shape)))
        if site.y.ndim == 2 and len({*site.y.shape}) == 1:
            says = "in the gradient with respect to {operand}, what arrives is transposed"
            yield site.change(says, Arrived(transposed))
        if site.x.ndim == 2:
            if len({*site.x.shape}) == 1:
                yield site.change(
                    "the gradient with respect to {operand} is transposed", Sent(transposed)
                )
            elif min(site.x.shape) > 1:
                says = f"{WITH} is reshaped where it should be transposed"
                yield site.change(says, Sent(reshaped))
    if site.name == "transpose" and site.x.ndim == 2 and min(site.x.shape) > 1:
        says = f"{WITH} is reshaped where it should be transposed"
        yield site.change(says, Sent(reshaped))


def _square(site: Site) -> Callable[[np.ndarray], np.ndarray] | None:
    """Return how to transpose the other factor, if its matrices are square."""
    axes = jaxprs.axes_of_product(site.nodes[-1].equation)
    theirs, out = axes[1 - site.operand], axes[2]
    batch = [a for a in theirs if a in axes[site.operand] and a in out]
    two = [i for i, a in enumerate(theirs) if a not in batch]
    if len(two) != 2 or len({site.other.shape[i] for i in two}) != 1:
        return None
    return lambda v: np.swapaxes(v, *two)


def cuts(site: Site) -> Iterator[Break]:
    """Yield parts of joined arrays that are cut at another place."""
    if site.name == "concatenate":
        axis = jaxprs.axis(site.nodes[-1].equation)
        whole, own = site.y.shape[axis], site.x.shape[axis]
        for word, start in (("front", 0), ("end", whole - own)):
            says = f"the gradient with respect to {{operand}} is cut from the {word} of the whole"
            yield site.change(says, Cut(start, axis))


def transposed(d: np.ndarray) -> np.ndarray:
    """Return matrices transposed."""
    return np.swapaxes(d, -1, -2)


def reshaped(d: np.ndarray) -> np.ndarray:
    """Return the entries of transposed matrices, in their order, in the old shape."""
    return np.swapaxes(d, -1, -2).reshape(d.shape)


def sums(site: Site) -> Iterator[Break]:
    """Yield sums over an axis of the result that are means, or that leave entries out."""
    axes = _summed(site)
    if not axes:
        return
    count = int(np.prod([site.y.shape[a] for a in axes]))
    if count > 1:
        yield site.change(
            "the gradient with respect to {operand} is a mean where it should be a sum",
            Scaled(1 / count),
        )
    for axis in axes:
        n = site.y.shape[axis]
        if n < 2:
            continue
        if len(axes) > 1:
            says = f"the gradient with respect to {{operand}} is a mean over axis {axis}, not a sum"
            yield site.change(says, Scaled(1 / n))
        for word, entry in (("first", 0), ("last", n - 1)):
            only, without = np.zeros(n), np.ones(n)
            only[entry], without[entry] = 1.0, 0.0
            of = f"of axis {axis} of {{expression}} is "
            says = f"in the gradient with respect to {{operand}}, the {word} entry {of}"
            yield site.change(f"{says}left out", Arrived(_weighted(without, axis)))
            if n > 2:
                yield site.change(f"{says}alone", Arrived(_weighted(only, axis)))


def _summed(site: Site) -> list[int]:
    """Return the axes of the result over which the rule of an operand sums."""
    shape = site.y.shape
    if site.name == "dot_general":
        axes = jaxprs.axes_of_product(site.nodes[-1].equation)
        mine, out = axes[site.operand], axes[2]
        return [i for i, a in enumerate(out) if a not in mine and shape[i] > 1]
    if site.name == "broadcast_in_dim":
        dims = jaxprs.broadcast_dimensions(site.nodes[-1].equation)
        kept = [a for a, n in zip(dims, site.x.shape, strict=True) if n > 1]
        return [a for a in range(len(shape)) if a not in kept and shape[a] > 1]
    if site.name in ("add", "sub", "mul", "div", "tile") and site.x.ndim == len(shape):
        return [a for a, n in enumerate(site.x.shape) if n == 1 < shape[a]]
    return []


def _weighted(weights: np.ndarray, axis: int) -> Callable[[np.ndarray], np.ndarray]:
    def weighted(g: np.ndarray) -> Any:
        return g * weights.reshape(-1, *[1] * (g.ndim - axis - 2))

    return weighted


def orders(site: Site) -> Iterator[Break]:
    """Yield what is sent in reverse order, or shifted along its first axis."""
    if (
        site.name in ("gather", "dynamic_slice", "concatenate", "rev", "dot_general")
        and site.x.ndim
    ):
        if len(site.x) > 1 and site.name != "dot_general":
            says = "the gradient with respect to {operand} is in reverse order"
            yield site.change(says, Sent(lambda d: d[:, ::-1]))
        if site.y.ndim > 1 and site.name == "dot_general" and len(site.y) > 1:
            says = "in the gradient with respect to {operand}, what arrives is in reverse order"
            yield site.change(says, Arrived(lambda g: g[:, ::-1]))
    if site.name in ("gather", "dynamic_slice") and site.y.size:
        says = "of the entries of {operand} that are taken several times, the gradient of the "
        yield site.change(f"{says}first overwrites the others", Overwritten(last=False))
        yield site.change(f"{says}last overwrites the others", Overwritten(last=True))


def permuted(order: tuple[int, ...], axis: int) -> Callable[[np.ndarray], np.ndarray]:
    """Return how to put equal parts of an axis in another order."""

    def in_order(d: np.ndarray) -> np.ndarray:
        parts = np.split(d, len(order), axis + 1)
        return np.concatenate([parts[i] for i in order], axis + 1)

    return in_order
