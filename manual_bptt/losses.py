"""Losses, each beside its gradient in the outputs.

    L = sum over t of L(y[t], target[t])                            (Eq. 3)

A loss here is any function ``(y, target, ...) -> (value, dy)`` where dy is the gradient of value in
y. The recursion takes dy and knows nothing else about the loss, so a new loss needs no new
backward pass. y is what the network puts out and target the truth, throughout.
"""

from typing import Any

import numpy as np

from manual_bptt.arithmetic import reports_overflow
from manual_bptt.arrays import Array, floating_dtype
from manual_bptt.validation import as_array, require_finite, require_flag, require_shape


@reports_overflow
def squared_error(
    y: Any, target: Any, weights: Any = None, *, check_finite: bool = True
) -> tuple[Any, Array]:
    """Sum of squared errors over time, batch and outputs, and its gradient (Eq. 3).

        L = sum of weights (y - target)^2            dL/dy = 2 weights (y - target)

    There is no one half and no mean: divide both results alike for those.

    Parameters
    ----------
    y : array_like, (T, B, O) or (T, O)
        The outputs; their dtype is that of the result.
    target : array_like, like y
        The truth. Where a weight is zero its target is ignored, even if it is NaN.
    weights : array_like, (T,), (T, B) or like y, optional
        How much each error counts; 1 if None. A negative weight rewards the error. Weights of zero
        at the end of a sequence are as good as its end. Those at its start are not: the states
        go through these steps all the same, so pad short sequences at the end.
    check_finite : bool
        Whether to look for NaN and infinity in the arguments.

    Returns
    -------
    value : scalar
        The loss, in the dtype of y.
    dy : array, like y
        Its gradient in y.

    Raises
    ------
    TypeError
        If an argument does not hold real numbers.
    ValueError
        If shapes disagree, an axis is empty, or a value that counts is not finite.

    Examples
    --------
    >>> value, dy = squared_error(np.array([[1.0], [2.0]]), np.array([[0.0], [4.0]]))
    >>> float(value), dy.ravel().tolist()
    (5.0, [2.0, -4.0])
    """
    y = _outputs(y, check_finite)
    target = require_shape("target", as_array("target", target, y.dtype), y.shape, _meaning(y))
    if weights is None:
        if check_finite:
            require_finite("target", target)
        return _sum_of_squares(y - target)
    weights = _weights(weights, y, check_finite)
    target = np.where(weights == 0, y, target)  # an error of zero where nothing counts
    if check_finite:
        require_finite("target (where weights are not zero)", target)
    error = y - target
    return (weights * error * error).sum(), 2 * weights * error


@reports_overflow
def last_step_squared_error(y: Any, target: Any, *, check_finite: bool = True) -> tuple[Any, Array]:
    """Squared error of the last output alone, summed over the batch (the lab's Exercise 2).

        L = sum of (y[T] - target)^2            dL/dy[T] = 2 (y[T] - target), zero before T

    Parameters
    ----------
    y : array_like, (T, B, O) or (T, O)
        The outputs; their dtype is that of the result.
    target : array_like, (B, O) or (O,)
        The truth at the last step.
    check_finite : bool
        Whether to look for NaN and infinity in the arguments.

    Returns
    -------
    value : scalar
        The loss, in the dtype of y.
    dy : array, like y
        Its gradient in y.

    Raises
    ------
    TypeError
        If an argument does not hold real numbers.
    ValueError
        If shapes disagree, an axis is empty, or a value is not finite.

    Examples
    --------
    >>> value, dy = last_step_squared_error(np.array([[1.0], [2.0]]), np.array([4.0]))
    >>> float(value), dy.ravel().tolist()
    (4.0, [0.0, -4.0])
    """
    y = _outputs(y, check_finite)
    target = as_array("target", target, y.dtype)
    require_shape("target", target, y.shape[1:], "(B, O)" if y.ndim == 3 else "(O,)")
    if check_finite:
        require_finite("target", target)
    dy = np.zeros_like(y)
    value, dy[-1] = _sum_of_squares(y[-1] - target)
    return value, dy


@reports_overflow
def cross_entropy(
    y: Any, target: Any, weights: Any = None, *, check_finite: bool = True
) -> tuple[Any, Array]:
    """Cross entropy of class labels, summed over time and batch, and its gradient.

        p = softmax(y)      L = -sum of weights log p[target]      dL/dy = weights (p - one_hot)

    log p is y less log sum exp y, with the largest output taken off first, so that nothing
    overflows, and a p that is too small for its dtype still has a logarithm.

    Parameters
    ----------
    y : array_like, (T, B, O) or (T, O)
        The outputs; their dtype is that of the result.
    target : array_like of int, (T, B) or (T,)
        The labels: for each step and sequence the number of an output, from 0 to O - 1.
    weights : array_like, (T,) or (T, B), optional
        How much each label counts; 1 if None. With zeros at the end, sequences of different lengths
        share a batch; their labels must be numbers of outputs all the same.
    check_finite : bool
        Whether to look for NaN and infinity in the arguments.

    Returns
    -------
    value : scalar
        The loss, in the dtype of y.
    dy : array, like y
        Its gradient in y.

    Raises
    ------
    TypeError
        If the target does not hold integers, or another argument no real numbers.
    ValueError
        If shapes disagree, an axis is empty, a label is no number of an output, or a value is not
        finite.

    Examples
    --------
    >>> value, dy = cross_entropy(np.log([[1.0, 3.0]]), np.array([1]))
    >>> round(float(value), 4), dy.round(4).tolist()
    (0.2877, [[0.25, -0.25]])
    """
    y = _outputs(y, check_finite)
    places = _labels(target, y)
    log_p = y - y.max(axis=-1, keepdims=True)
    p = np.exp(log_p)
    total = p.sum(axis=-1, keepdims=True)
    log_p -= np.log(total)
    dy = p / total
    dy[places] -= 1
    losses = -log_p[places]
    if weights is None:
        return losses.sum(), dy
    weights = _weights(weights, y, check_finite, losses.shape)
    return (weights * losses).sum(), weights[..., None] * dy


def _labels(target: Any, y: Array) -> tuple[Array, ...]:
    """Return the indices at which the outputs of the labels stand."""
    labels = as_array("target", target)
    if labels.dtype.kind not in "iu":
        raise TypeError(
            f"target has dtype {labels.dtype}; expected integers, the labels of classes"
        )
    require_shape("target", labels, y.shape[:-1], "(T, B)" if y.ndim == 3 else "(T,)")
    largest = y.shape[-1] - 1
    if (labels < 0).any() or (labels > largest).any():
        wrong = labels[(labels < 0) | (labels > largest)][0]
        raise ValueError(f"target has the label {wrong}; expected numbers from 0 to {largest}")
    return (*np.indices(labels.shape, sparse=True), labels)


def _sum_of_squares(error: Array) -> tuple[Any, Array]:
    """Return the sum of error^2, and 2 error in the place of error."""
    value = (error * error).sum()
    error *= 2
    return value, error


def _outputs(y: Any, check_finite: bool) -> Array:
    require_flag("check_finite", check_finite)
    y = as_array("y", y)
    kind = np.dtype(np.float64) if y.dtype.kind in "iub" else floating_dtype("y", y.dtype)
    y = y.astype(kind, order="C", copy=False)
    if y.ndim not in (2, 3) or 0 in y.shape:
        raise ValueError(f"y has shape {y.shape}; expected (T, O) or (T, B, O), no axis empty")
    return require_finite("y", y) if check_finite else y


def _meaning(y: Array) -> str:
    return "(T, B, O)" if y.ndim == 3 else "(T, O)"


def _weights(
    weights: Any, y: Array, check_finite: bool, shape: tuple[int, ...] | None = None
) -> Array:
    """Return weights in the shape of y, or in that of its first axes."""
    shape = y.shape if shape is None else shape
    weights = as_array("weights", weights, y.dtype)
    if weights.ndim == 0 or weights.shape != shape[: weights.ndim]:
        allowed = ", ".join(str(shape[:n]) for n in range(1, len(shape) + 1))
        names = ["(T,)", "(T, B)", "(T, B, O)"] if y.ndim == 3 else ["(T,)", "(T, O)"]
        *first, last = names[: len(shape)]
        meaning = f"{', '.join(first)} or {last}" if first else last
        raise ValueError(f"weights has shape {weights.shape}; expected {meaning}: {allowed}")
    if check_finite:
        require_finite("weights", weights)
    return np.broadcast_to(
        weights.reshape(weights.shape + (1,) * (len(shape) - weights.ndim)), shape
    )
