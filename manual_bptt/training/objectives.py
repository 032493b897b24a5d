"""Losses as means, so that a step of training does not depend on the size of its batch."""

from typing import Any

import numpy as np

from manual_bptt.arithmetic import reports_overflow
from manual_bptt.arrays import Array
from manual_bptt.losses import last_step_squared_error, squared_error


@reports_overflow
def mean_squared_error(y: Array, target: Array) -> tuple[Any, Array]:
    """Return the mean of the squared errors where target is known, and its gradient in y.

    Both are (T, B, O); a target of NaN is not known. Not finite in y, not finite out: training
    looks at the value.

    Examples
    --------
    >>> value, dy = mean_squared_error(np.ones((2, 1, 1)), np.array([[[np.nan]], [[3.0]]]))
    >>> float(value), dy.ravel().tolist()
    (4.0, [0.0, -4.0])
    """
    known = ~np.isnan(target)
    return squared_error(y, target, known / max(known.sum(), 1), check_finite=False)


@reports_overflow
def mean_last_step_squared_error(y: Array, target: Array) -> tuple[Any, Array]:
    """Return ``last_step_squared_error`` as a mean over the batch, and its gradient in y.

    Not finite in, not finite out: training looks at the value.

    Examples
    --------
    >>> value, dy = mean_last_step_squared_error(np.ones((3, 2, 1)), np.array([[0.0], [2.0]]))
    >>> float(value), dy[-1].ravel().tolist()
    (1.0, [1.0, -1.0])
    """
    value, dy = last_step_squared_error(y, target, check_finite=False)
    return value / y.shape[1], dy / y.shape[1]
