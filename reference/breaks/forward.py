"""What the operations of a loss compute, in NumPy: JAX needs a hundred times as long for each.

An operation that is not here is left to JAX.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from reference import jaxprs


def _dot(equation: Any, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    left, right, out = jaxprs.axes_of_product(equation)
    return np.asarray(np.einsum(a, left, b, right, out))


def _logistic(_: Any, a: np.ndarray) -> np.ndarray:
    e: np.ndarray = np.exp(-np.abs(a))
    return np.where(a >= 0, 1 / (1 + e), e / (1 + e))


def _choice(_: Any, which: np.ndarray, *cases: np.ndarray) -> np.ndarray:
    return np.choose(which.astype(int), cases)


def _power(equation: Any, a: np.ndarray) -> np.ndarray:
    return np.asarray(a ** float(jaxprs.exponent(equation)))


def _along(function: Callable[..., Any]) -> Callable[..., Any]:
    return lambda equation, a: function(a, axis=jaxprs.axes(equation))


def _moved(equation: Any, *operands: np.ndarray) -> np.ndarray:
    return jaxprs.moved(equation, operands)[0]


def _plain(function: Callable[..., Any]) -> Callable[..., Any]:
    return lambda _, *operands: function(*operands)


FORWARD: dict[str, Callable[..., Any]] = {
    "dot_general": _dot,
    "logistic": _logistic,
    "select_n": _choice,
    "integer_pow": _power,
    "reduce_sum": _along(np.sum),
    "reduce_max": _along(np.max),
    "reduce_min": _along(np.min),
    **dict.fromkeys(
        jaxprs.words("reshape squeeze broadcast_in_dim transpose concatenate slice"), _moved
    ),
    "div": lambda _, a, b: a / b if np.issubdtype(a.dtype, np.floating) else a // b,
    "rsqrt": lambda _, a: 1 / np.sqrt(a),
    "stop_gradient": lambda _, a: a,
    "convert_element_type": lambda equation, a: a.astype(jaxprs.dtypes(equation)[0]),
    **{
        name: _plain(function)
        for name, function in {
            "add": np.add, "add_any": np.add, "sub": np.subtract, "mul": np.multiply,
            "neg": np.negative, "max": np.maximum, "min": np.minimum, "tanh": np.tanh,
            "exp": np.exp, "log": np.log, "log1p": np.log1p, "expm1": np.expm1, "sqrt": np.sqrt,
            "square": np.square, "sin": np.sin, "cos": np.cos, "abs": np.abs, "sign": np.sign,
            "eq": np.equal, "ne": np.not_equal, "lt": np.less, "le": np.less_equal,
            "gt": np.greater, "ge": np.greater_equal, "pow": np.power,
            "and": np.bitwise_and, "or": np.bitwise_or, "not": np.invert, "is_finite": np.isfinite,
        }.items()
    },
}  # fmt: skip
"""By the name of the primitive: the equation and its operands to its one result."""
