"""What operations that move entries do, to arrays of any kind."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from reference.jaxprs.operations import name, slices
from reference.jaxprs.programs import computed


def moved(equation: Any, operands: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Return what an operation that moves entries makes of arrays of objects.

    What every network needs is done by NumPy at once. For the rest JAX moves the numbers of the
    entries, and compiles that for each shape.

    Examples
    --------
    >>> from reference.jaxprs import equations, traced
    >>> jaxpr, _ = traced(lambda x: x[::-1], np.zeros(3))
    >>> moved(next(equations(jaxpr)), [np.array(["a", "b", "c"], object)])
    [array(['c', 'b', 'a'], dtype=object)]
    """
    first, params = operands[0], equation.params
    shape = equation.outvars[0].aval.shape
    match name(equation):
        case "reshape" | "squeeze":
            return [first.reshape(shape)]
        case "broadcast_in_dim":
            stretched = np.ones(len(shape), int)
            stretched[[*params["broadcast_dimensions"]]] = first.shape
            return [np.broadcast_to(first.reshape(stretched), shape)]
        case "transpose":
            return [first.transpose(params["permutation"])]
        case "concatenate":
            return [np.concatenate(operands, params["dimension"])]
        case "split":
            return np.split(first, np.cumsum(params["sizes"])[:-1], params["axis"])
        case "slice":
            return [first[slices(equation)]]
        case "pad":
            return [_padded(first, operands[1], params["padding_config"], shape)]
    return _moved_by_number(equation, operands)


def _padded(array: np.ndarray, value: Any, config: Any, shape: tuple[int, ...]) -> np.ndarray:
    """Return an array with values before, after and between its entries, or with ends cut off."""
    if all(low >= 0 and high >= 0 and between == 0 for low, high, between in config):
        found = np.full(shape, value, array.dtype)
        ends = zip(config, array.shape, strict=True)
        found[tuple(slice(low, low + n) for (low, *_), n in ends)] = array
        return found
    places = [
        low + (between + 1) * np.arange(n)
        for n, (low, _, between) in zip(array.shape, config, strict=True)
    ]
    within = [(p >= 0) & (p < n) for p, n in zip(places, shape, strict=True)]
    found = np.full(shape, value)
    found[np.ix_(*(p[i] for p, i in zip(places, within, strict=True)))] = array[np.ix_(*within)]
    return found


def _moved_by_number(equation: Any, operands: Sequence[np.ndarray]) -> list[np.ndarray]:
    entries: list[Any] = []
    numbers = [*operands]
    for i, operand in enumerate(operands):
        if operand.dtype == object:  # and no index
            numbers[i] = len(entries) + np.arange(operand.size).reshape(operand.shape)
            entries += operand.ravel().tolist()
    every = np.array(entries, object)
    return [np.asarray(every[np.asarray(n)], object) for n in computed(equation, numbers)]
