"""Why a gradient of a JAX function is wrong: the break of the reverse pass that makes it."""

from collections.abc import Callable
from typing import Any

import numpy as np

from reference.breaks.diagnosis import LeafDiagnosis, search_for
from reference.breaks.tape import Loss
from reference.functions.trees import Caller, Given, Raised, match
from reference.user_code import as_array

Measure = Callable[[list[np.ndarray], np.dtype[Any]], list[tuple[np.ndarray, np.ndarray]]]


def diagnosed(
    loss: Loss,
    given: Given,
    call: Caller,
    autodiff: Measure,
    of: list[tuple[int, int, str]],
    wrong: tuple[str, ...],
    u: float,
) -> LeafDiagnosis | None:
    """Return why leaves of a gradient are wrong, if the break that makes them is found.

    Parameters
    ----------
    loss : callable
        Of a list of all variables.
    given : Given
        The arguments.
    call : Caller
        Calls what is judged.
    autodiff : callable
        Returns what is right at some values, leaf by leaf of what was matched, with tolerances.
    of : list of (number of the variable, number among the leaves matched, label)
        What is to be explained.
    wrong : tuple of str
        The labels of those that are wrong.
    u : float
        The unit roundoff of what is judged.
    """
    numbers, places, labels = (list(column) for column in zip(*of, strict=True))
    rest = [i for i in range(len(given.variables)) if i not in numbers]
    order = [*numbers, *rest]
    names = [*labels, *(given.variables[i].label for i in rest)]

    def ordered(values: list[Any]) -> list[Any]:
        return [values[i] for i in order]

    def as_given(values: list[Any]) -> list[Any]:
        found: list[Any] = [None] * len(order)
        for i, value in zip(order, values, strict=True):
            found[i] = value
        return found

    def gradient(values: list[np.ndarray]) -> list[np.ndarray] | None:
        returned, _ = call(as_given(values))
        if isinstance(returned, Raised):
            return None
        leaves = [leaf for _, leaf in match(returned, given).leaves]
        found = [as_array(leaves[i]) if i < len(leaves) else "" for i in places]
        shapes = [np.shape(value) for value in values]
        for array, shape in zip(found, shapes, strict=False):
            if isinstance(array, str) or array.shape != shape:
                return None
        return [np.array(array, np.float64) for array in found]

    def measure(values: list[np.ndarray]) -> list[tuple[np.ndarray, np.ndarray]]:
        measured = autodiff(as_given(values), given.dtype)
        return [measured[i] for i in places]

    return search_for(
        lambda values: loss(as_given(values)),
        ordered(given.values()),
        gradient,
        measure,
        u=u or float(np.finfo(given.dtype).eps) / 2,
        dtype=given.dtype,
        wrong=wrong,
        labels=names,
    )
