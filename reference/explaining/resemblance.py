"""What a wrong array looks like: the right one scaled, transposed, in coarser arithmetic, another.

These are words for the eye; they decide nothing.
"""

from collections.abc import Iterator, Mapping
from functools import lru_cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from reference.devices import float64_on_cpu
from reference.network.gradients import autodiff
from reference.network.sequence import arguments, zero_probes
from reference.problems import Problem
from reference.rounding.formats import FORMATS
from reference.rounding.noise import with_rounded_factors
from reference.rounding.tolerance import over_tolerance

# The numbers that processors multiply, where they are told to be quick.
FACTORS = {"TF32": FORMATS["tf32"], "bfloat16": FORMATS["bfloat16"]}
NARROW = {"bfloat16": jnp.bfloat16, "float16": np.float16}
COARSE = 2.0**-5  # of the right answer: more than the arithmetic of these explains
SEVERAL = 8  # entries, before it is no accident that each is a number of a narrow kind
CLOSER = 3.0  # times as close to the rounded answer as to the right one

Measure = tuple[np.ndarray, np.ndarray]


def factor(returned: np.ndarray, truth: np.ndarray, dtype: Any) -> float | None:
    """Return the number that the right array must be multiplied by, if there is one.

    It fits if what remains is small beside the largest entry: half of the digits are zero.

    Examples
    --------
    >>> factor(np.array([1.0, 3.0]), np.array([2.0, 6.0]), np.float64)
    0.5
    """
    square = float(np.vdot(truth, truth))
    if square == 0:
        return None
    ratio = float(np.vdot(returned, truth)) / square
    left = np.abs(returned - ratio * truth).max()
    return ratio if left <= half_the_digits(dtype) * np.abs(returned).max() else None


def half_the_digits(dtype: Any) -> float:
    """Return the root of the spacing of a dtype's numbers at 1."""
    return float(np.sqrt(np.finfo(dtype).eps))


def described(
    returned: np.ndarray, label: str, right: Mapping[str, Measure], dtype: Any
) -> Iterator[str]:
    """Yield what can be said of a wrong array, where ``right`` has every array by its label.

    Examples
    --------
    >>> zero = np.zeros((2, 2))
    >>> right = {"W": (np.array([[1.0, 2.0], [3.0, 4.0]]), zero), "b": (np.ones((2, 2)), zero)}
    >>> W = right["W"][0]
    >>> for wrong in (0 * W, 2 * W, W.T, right["b"][0], W + [[0, 0], [0, 1]]):
    ...     print(next(described(wrong, "W", right, np.float64)))
    zero
    2 times the right answer
    the right answer transposed
    what is right for b
    wrong in this entry alone
    """
    truth, tolerance = right[label]
    ratio = factor(returned, truth, dtype)
    if not returned.any():
        yield "zero"
    elif returned.size > 1 and ratio is not None and abs(ratio - 1) > half_the_digits(dtype):
        yield f"{ratio:.6g} times the right answer"
    if returned.ndim > 1 and _is(returned.T, truth, tolerance):
        yield "the right answer transposed"
    for other, measure in right.items():
        if other != label and returned.size > 1 and measure[0].any() and _is(returned, *measure):
            yield f"what is right for {other}"
    wrong = over_tolerance(returned - truth, tolerance) > 1
    if wrong.sum() == 1 < wrong.size:
        yield "wrong in this entry alone"
    elif not wrong.all():
        for axis, indices in enumerate(np.nonzero(wrong)):
            if len(set(indices)) == 1 < wrong.ndim:
                place = [":"] * wrong.ndim
                place[axis] = str(indices[0])
                yield f"wrong in [{', '.join(place)}] alone"


def _is(returned: np.ndarray, truth: np.ndarray, tolerance: np.ndarray) -> bool:
    same = returned.shape == truth.shape
    return same and bool((over_tolerance(returned - truth, tolerance) <= 1).all())


def coarse(returned: np.ndarray, truth: np.ndarray) -> bool:
    """Return whether an array is off by so little that its arithmetic may be the reason."""
    return bool(0 < _distance(returned, truth) <= COARSE * np.linalg.norm(truth))


def coarse_numbers(returned: np.ndarray) -> str:
    """Say of which narrow kind every entry is.

    Examples
    --------
    >>> third = np.arange(1, 10) / 3
    >>> coarse_numbers(third), coarse_numbers(third.astype(np.float16).astype(float))
    ('', 'rounded like float16: every entry is such a number')
    """
    if np.count_nonzero(returned) >= SEVERAL:
        for kind, dtype in NARROW.items():
            with np.errstate(over="ignore"):
                if np.array_equal(returned, returned.astype(dtype).astype(returned.dtype)):
                    return f"rounded like {kind}: every entry is such a number"
    return ""


def coarse_products(
    returned: np.ndarray, truth: np.ndarray, rounded: Mapping[str, np.ndarray]
) -> str:
    """Say which arithmetic, by whose name ``rounded`` has its answer, explains an array."""
    distance = {kind: _distance(returned, value) for kind, value in rounded.items()}
    kind = min(distance, key=distance.__getitem__)
    if CLOSER * distance[kind] > _distance(returned, truth):
        return ""
    allowed = f'arithmetic="{kind.lower()}" allows for it'
    return f"rounded like {kind}, in the factors of its products ({allowed})"


@lru_cache(maxsize=8)
def in_coarse_products(problem: Problem) -> dict[str, dict[str, np.ndarray]]:
    """Return every gradient of a problem as it is with factors rounded, by the names of FACTORS."""
    cell, loss = problem.cell, problem.facts
    values, x, h0 = arguments(problem.params, problem.x, problem.h0, cell)
    variables = (values, x, h0, zero_probes(values, x, h0)), (problem.goal,)
    variables = jax.tree.map(lambda array: array.astype(np.float64), variables)
    with float64_on_cpu():
        options: dict[str, Any] = {"loss": loss.function, "cell": cell, "of_states": loss.of_states}
        run = with_rounded_factors(partial(autodiff, **options), *variables)
        return {kind: run(form, *variables) for kind, form in FACTORS.items()}


def _distance(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.linalg.norm(a - b))
