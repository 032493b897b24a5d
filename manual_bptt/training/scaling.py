"""Mean and deviation, by which inputs and targets are standardised."""

import numpy as np

from manual_bptt.arithmetic import reports_overflow
from manual_bptt.arrays import Array


@reports_overflow
def moments(values: Array) -> tuple[Array, Array]:
    """Return the mean and the standard deviation of each column, (C,) of (R, C).

    The deviation is 1 where nothing varies. Squares of very large or small values would overflow
    or vanish: powers of two come out first, which changes no bit of anything else.

    Examples
    --------
    >>> mean, deviation = moments(np.array([[1e300, 5.0], [3e300, 5.0]]))
    >>> mean.tolist(), deviation.tolist()
    ([2e+300, 5.0], [1e+300, 1.0])
    """
    constant = values.min(axis=0) == values.max(axis=0)
    _, power = np.frexp(np.abs(values).max(axis=0))
    values = np.ldexp(values, -power)
    mean, deviation = np.ldexp(values.mean(axis=0), power), np.ldexp(values.std(axis=0), power)
    return mean, np.where(constant | (deviation == 0), 1.0, deviation)
