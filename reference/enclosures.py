"""The right answers to a problem, enclosed in intervals and rounded to the nearest number.

Interval arithmetic rounds every operation of

    h[t] = tanh(W h[t-1] + U x[t] + b),   tanh(a) = 1 - 2 / (exp(2 a) + 1)         (Eq. 1)
    y[t] = V h[t] + c,   L = sum (y - target)^2                                    (Eqs. 2, 3)
    dy = 2 (y - target),   dh[t] = V' dy[t] + W' da[t+1],   da = (1 - h^2) dh      (Eqs. 4, 5)
    dW = sum da[t] h[t-1]',   dc, db, dV, dU alike,   dx = U' da                   (Eqs. 6-10)

outwards, so the real number that is the answer for exactly these inputs lies between the two ends.
Bits are added until both ends of every interval have the same nearest number of the dtype.
"""

from collections.abc import Callable
from fractions import Fraction
from functools import partial
from math import ceil
from typing import Any

import numpy as np
from mpmath import MPIntervalContext  # type: ignore[import-untyped]
from mpmath.libmp import to_rational  # type: ignore[import-untyped]

from reference.corners import LAST, shapes
from reference.network.gradients import GRADIENTS
from reference.problems import Problem

EXPECTED = ("h", "y", "loss", *(f"d{k}" for k in GRADIENTS))
PRECISIONS = (256, 512, 1024, 2048, 4096)  # bits, one after the other until all is certain
DIGITS = 8  # binary ones of a bound, which is rounded upwards

Array = np.ndarray


def enclosures(problem: Problem, bits: int) -> dict[str, Array]:
    """Return intervals that hold the true states, outputs, loss and gradients of a batch.

    They are intervals of mpmath, in arrays named by ``EXPECTED`` and shaped as ``shapes`` says.

    Examples
    --------
    >>> from reference import random_problem
    >>> problem = random_problem(T=2, B=1, D=1, H=1, O=1, regime="critical", seed=0)
    >>> dW = enclosures(problem, bits=256)["dW"][0, 0]
    >>> float(dW.delta) < 1e-70  # the width
    True
    """
    iv = MPIntervalContext()
    iv.prec = bits
    exactly = np.frompyfunc(lambda number: iv.mpf(float(number)), 1, 1)
    tanh = np.frompyfunc(partial(_tanh, iv), 1, 1)
    W, U, b, V, c = map(exactly, problem.params)
    x, h0, target = map(exactly, (problem.x, problem.h0, problem.target))
    T = len(x)

    h = np.array([h0] * (T + 1))
    for t in range(1, T + 1):
        h[t] = tanh(h[t - 1] @ W.T + x[t - 1] @ U.T + b)  # Eq. 1
    y = h[1:] @ V.T + c  # Eq. 2
    error = y - target
    if problem.loss == LAST:
        error[:-1] = 0 * error[:-1]
    dy = 2 * error

    da, dh = np.empty_like(h[1:]), np.empty_like(h)
    dh[T] = dy[T - 1] @ V  # Eq. 4
    for t in range(T, 0, -1):
        da[t - 1] = (1 - h[t] ** 2) * dh[t]
        dh[t - 1] = da[t - 1] @ W  # Eq. 5
        if t > 1:
            dh[t - 1] += dy[t - 2] @ V
    found = {"h": h, "y": y, "loss": np.array((error**2).sum()), "dh": dh, "dh0": dh[0]}
    found |= {"dW": _sum(da, h[:-1]), "dU": _sum(da, x), "db": da.sum((0, 1)), "dx": da @ U}
    return found | {"dV": _sum(dy, h[1:]), "dc": dy.sum((0, 1))}


def _sum(left: Array, right: Array) -> Array:
    """Return the sum of left right' over time and batch."""
    product: Array = left.reshape(-1, left.shape[-1]).T @ right.reshape(-1, right.shape[-1])
    return product


def _tanh(iv: Any, a: Any) -> Any:
    """Enclose tanh(a), exactly at zero; a occurs once, which keeps the interval narrow."""
    e = iv.exp(2 * a)
    if a != 0:  # what mpmath rounds outwards is exp(2 a) up to a unit or so: 2**8 units are allowed
        doubt = iv.ldexp(1, 8 - iv.prec)
        e *= iv.mpf([1 - doubt, 1 + doubt])
    return 1 - 2 / (e + 1)


def rounded(number: Fraction, digits: int, lowest: int, to: Callable[[Fraction], int]) -> float:
    """Round to so many binary digits, the last of which is worth 2**lowest at least.

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
        ends = {k: _ends(intervals) for k, intervals in enclosures(problem, bits).items()}
        lower, upper = ({k: [nearest(e[i], dtype) for e in ends[k]] for k in ends} for i in (0, 1))
        if lower == upper:
            break
    every = shapes(problem.sizes, problem.loss)

    def certified(k: str) -> tuple[Array, Array]:
        errors = [_distance(value, *e) for value, e in zip(lower[k], ends[k], strict=True)]
        return np.array(lower[k], dtype).reshape(every[k]), np.array(errors).reshape(every[k])

    return {k: certified(k) for k in EXPECTED}


def _ends(intervals: Array) -> list[tuple[Fraction, Fraction]]:
    """Return the ends of intervals, exactly."""
    both = [interval._mpi_ for interval in intervals.ravel()]
    return [(Fraction(*to_rational(low)), Fraction(*to_rational(high))) for low, high in both]


def _distance(value: float, low: Fraction, high: Fraction) -> float:
    """Bound the distance of a value from whatever lies between two ends."""
    return bound(max(high - Fraction(value), Fraction(value) - low))
