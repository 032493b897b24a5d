"""The right answers to a problem, enclosed in intervals and rounded to the nearest number.

The function that JAX differentiates, and its derivatives as JAX writes them, are carried out in
interval arithmetic (``reference.rounding.intervals``). Bits are added until both ends of every
interval have the same nearest number of the dtype.
"""

from collections.abc import Callable
from fractions import Fraction
from functools import lru_cache
from math import ceil
from typing import Any

import jax
import numpy as np
from mpmath.libmp import finf, fninf, to_rational  # type: ignore[import-untyped]

from reference.network.cell import Cell
from reference.network.losses import named_loss
from reference.network.sequence import Probes, run, zero_probes
from reference.problems import Problem
from reference.rounding.intervals import enclosed
from reference.vectors.corners import expected

PRECISIONS = (256, 512, 1024, 2048, 4096)  # bits, one after the other until all is certain
DIGITS = 8  # binary ones of a bound, which is rounded upwards

Array = np.ndarray


def enclosures(problem: Problem, bits: int) -> dict[str, Array]:
    """Return intervals that hold the true states, outputs, loss and gradients of a batch.

    They are intervals of mpmath, in arrays with the names that ``expected`` gives.

    Examples
    --------
    >>> from reference import random_problem
    >>> problem = random_problem(T=2, B=1, D=1, H=1, O=1, regime="critical", seed=0)
    >>> dW = enclosures(problem, bits=256)["dW"][0, 0]
    >>> float(dW.delta) < 1e-70  # the width
    True
    """
    arrays = problem.arrays
    shapes = tuple((k, array.shape) for k, array in arrays.items())
    found: dict[str, Array] = _answers(problem.cell, problem.loss, shapes)(bits, arrays)
    return found


@lru_cache(maxsize=128)
def _answers(cell: Cell, loss: Any, shapes: tuple[tuple[str, tuple[int, ...]], ...]) -> Any:
    """Return what encloses the answers to the problems of these shapes."""
    like = {k: np.zeros(shape) for k, shape in shapes}
    function = named_loss(loss).function

    def answers(arrays: dict[str, Any]) -> dict[str, Any]:
        params = {k: arrays[k] for k in cell.fields}
        x, h0, target = (arrays[k] for k in ("x", "h0", "target"))

        def total(params: Any, x: Any, h0: Any, probes: Probes) -> Any:
            h, y = run(cell, params, x, h0, probes)
            return function(y, target), (h, y)

        by_autodiff = jax.value_and_grad(total, argnums=(0, 1, 2, 3), has_aux=True)
        variables = params, x, h0, zero_probes(params, x, h0)
        (value, (h, y)), (of_params, dx, dh0, probes) = by_autodiff(*variables)
        gradients = {**of_params, "x": dx, "h0": dh0, "h": probes.h}
        return {"h": h, "y": y, "loss": value} | {f"d{k}": g for k, g in gradients.items()}

    return enclosed(answers, like)


def rounded(number: Fraction, digits: int, lowest: int, to: Callable[[Fraction], int]) -> float:
    """Round to a number of binary digits, the last of which is worth 2**lowest at least.

    ``to`` makes the choice: ``round`` for the nearest number, even in a tie, or ``ceil``.

    Examples
    --------
    >>> [rounded(Fraction(1, 3), 2, lowest, round) for lowest in (-9, -2, -1)]
    [0.375, 0.25, 0.5]
    """
    if not number:
        return 0.0
    over, under = abs(number.numerator), number.denominator
    exponent = over.bit_length() - under.bit_length()
    if over * 2 ** max(-exponent, 0) < under * 2 ** max(exponent, 0):
        exponent -= 1  # now 2**exponent <= |number| < 2**(exponent + 1)
    unit = Fraction(2) ** max(exponent - digits + 1, lowest)
    return float(to(number / unit) * unit)


def nearest(number: Fraction, dtype: str) -> float:
    """Return the number of a dtype that is nearest to a number in its range.

    Examples
    --------
    >>> nearest(Fraction(1, 10), "float64") == 0.1
    True
    """
    info = np.finfo(dtype)
    return rounded(number, info.nmant + 1, int(info.minexp) - info.nmant, round)


def bound(number: Fraction | float) -> float:
    """Return a bound of few digits that is hardly larger than a number.

    Examples
    --------
    >>> bound(0.1).hex()
    '0x1.9a00000000000p-4'
    """
    return rounded(Fraction(number), DIGITS, -1074, ceil)


def values(problem: Problem) -> dict[str, tuple[Array, Array]]:
    """Return the numbers nearest to the true answers of a batch, with bounds on their errors.

    The bounds, in float64, say how far a number of the problem's dtype may be from the true one.

    Examples
    --------
    >>> from reference import random_problem
    >>> problem = random_problem(T=2, B=1, D=1, H=1, O=1, regime="critical", seed=0)
    >>> loss, error_bound = values(problem)["loss"]
    >>> bool(0 < error_bound <= np.spacing(loss) / 2)
    True
    """
    dtype = problem.dtype.name
    for bits in PRECISIONS:
        intervals = enclosures(problem, bits)
        ends = {k: _ends(array) for k, array in intervals.items()}
        lower, upper = ({k: [nearest(e[i], dtype) for e in ends[k]] for k in ends} for i in (0, 1))
        if lower == upper:
            break

    def certified(k: str) -> tuple[Array, Array]:
        errors = [_distance(value, *e) for value, e in zip(lower[k], ends[k], strict=True)]
        shape = intervals[k].shape
        return np.array(lower[k], dtype).reshape(shape), np.array(errors).reshape(shape)

    return {k: certified(k) for k in expected(problem.cell)}


def _ends(intervals: Array) -> list[tuple[Fraction, Fraction]]:
    """Return the ends of intervals, exactly."""
    both = [interval._mpi_ for interval in intervals.ravel()]
    if any(end in (fninf, finf) for ends in both for end in ends):
        raise ZeroDivisionError("a quotient has no bounds: its denominator may be zero")
    return [(Fraction(*to_rational(low)), Fraction(*to_rational(high))) for low, high in both]


def _distance(value: float, low: Fraction, high: Fraction) -> float:
    """Bound the distance of a value from whatever lies between two ends."""
    return bound(max(high - Fraction(value), Fraction(value) - low))
