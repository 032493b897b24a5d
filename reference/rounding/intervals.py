"""Intervals that hold what a JAX function makes of real numbers, as narrow as one asks for.

Each operation is carried out on intervals of mpmath, whose ends are rounded outwards (Moore, 1966),

    [a] + [b] = [a_low + b_low, a_high + b_high],    f([a]) = [f(a_low), f(a_high)] if f grows,

so what exact arithmetic would make of exactly these inputs lies between the ends. No dtype matters:
what is a floating number to JAX is a real number here, so that all equal ways to write a function
or its derivative are enclosed alike. Whole numbers, such as indices, are computed by JAX.

Truth values are intervals too, [1, 1], [0, 0], or [0, 1] where a comparison is open; what is then
chosen is an interval that holds all cases. A loop or a branch that depends on it is an error.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from mpmath import MPIntervalContext  # type: ignore[import-untyped]
from mpmath.libmp.libmpf import mpf_ge, mpf_lt, mpf_min_max  # type: ignore[import-untyped]

from reference import jaxprs
from reference.devices import float64_on_cpu
from reference.jaxprs import Branches, Call, Scan, While

Array = np.ndarray
INTERVALS = np.dtype(object)
Rule = Callable[[Any, list[Array], Any], Any]
UNITS = 8  # 2**8 units: mpmath rounds the ends of exp, log, sin and cos outwards up to one or so


def enclosed(function: Callable[..., Any], *like: Any) -> Callable[..., Any]:
    """Return what encloses the results of a JAX function.

    Parameters
    ----------
    function : callable
        What JAX can trace: it takes arrays, or trees of them, and returns the like.
    like : trees of arrays
        Arguments, or their shapes, like those that it will be called with.

    Returns
    -------
    callable
        ``run(bits, *arguments)`` returns the results of the function for these numbers, with arrays
        of mpmath's intervals, computed with these bits, as leaves. It raises NotImplementedError,
        with the line of the user's, for an operation without a rule, and ArithmeticError where a
        loop, a branch or an index depends on what the intervals leave open.

    Examples
    --------
    >>> third = enclosed(lambda x: x / 3, 1.0)(200, 1.0)[()]
    >>> third.delta < 2.0**-200, 3 * third.a <= 1 <= 3 * third.b
    (True, True)
    """
    with float64_on_cpu():
        jaxpr, tree = jaxprs.traced(function, *like)

    def run(bits: int, *arguments: Any) -> Any:
        iv = MPIntervalContext()
        iv.prec = bits
        leaves = [np.asarray(leaf) for leaf in jax.tree.leaves(arguments)]
        with float64_on_cpu():
            return jax.tree.unflatten(tree, evaluate(jaxpr, leaves, iv))

    return run


def evaluate(jaxpr: Any, arguments: Sequence[Any], iv: Any) -> list[Array]:
    """Return the results of a jaxpr as arrays of intervals, but whole numbers as they are."""

    def rule(equation: Any, operands: list[Any]) -> list[Array]:
        operands = [_read(v, iv) for v in operands]
        found = jaxprs.inside(equation)
        if found is not None:
            return _follow(found, operands, iv)
        if not any(map(_real, [v.dtype for v in operands] + jaxprs.dtypes(equation))):
            return jaxprs.computed(equation, operands)
        name = jaxprs.name(equation)
        if name not in RULES:
            where = jaxprs.line(equation)
            raise NotImplementedError(f"no rule encloses the results of {name} ({where})")
        results = RULES[name](equation, operands, iv)
        return results if isinstance(results, list) else [results]

    arguments = [_read(v, iv) for v in arguments]
    return [_read(v, iv) for v in jaxprs.evaluate(jaxpr, arguments, rule)]


def _read(value: Any, iv: Any) -> Array:
    """Return an array of intervals in place of one of floating numbers."""
    array = np.asarray(value, getattr(value, "dtype", object))  # of one entry NumPy makes a number
    return array if array.dtype == INTERVALS or not _real(array.dtype) else _exactly(array, iv)


def _exactly(array: Array, iv: Any) -> Array:
    """Return intervals that hold one number each."""
    if array.dtype == INTERVALS:
        return array
    number = float if _real(array.dtype) else int
    intervals = np.frompyfunc(lambda n: iv.mpf(number(n)), 1, 1)(array)
    return np.asarray(intervals, object)


def _real(dtype: Any) -> bool:
    return dtype == INTERVALS or bool(jnp.issubdtype(dtype, jnp.inexact))


# Loops, branches and calls -----------------------------------------------------------------------


def _follow(found: Call | Branches | Scan | While, operands: list[Array], iv: Any) -> list[Array]:
    match found:
        case Call(body):
            return evaluate(body, operands, iv)
        case Branches(bodies):
            return evaluate(bodies[int(operands[0])], operands[1:], iv)
        case Scan():
            return _scan(found, operands, iv)
        case While():
            return _while(found, operands, iv)


def _scan(loop: Scan, operands: list[Array], iv: Any) -> list[Array]:
    n, m = loop.same, loop.same + loop.carried
    carry, rows = operands[n:m], []
    steps = range(loop.length)
    for t in reversed(steps) if loop.reverse else steps:
        inputs = [x[t, ...] for x in operands[m:]]
        results = evaluate(loop.body, [*operands[:n], *carry, *inputs], iv)
        carry = results[: m - n]
        rows.append(results[m - n :])
    stacked = zip(*(reversed(rows) if loop.reverse else rows), strict=True)
    return [*carry, *map(np.stack, stacked)]


def _while(loop: While, operands: list[Array], iv: Any) -> list[Array]:
    n, m = loop.of_condition, loop.of_condition + loop.of_body
    carry = operands[m:]
    while _decided(evaluate(loop.condition, [*operands[:n], *carry], iv)[0], "a loop"):
        carry = evaluate(loop.body, [*operands[n:m], *carry], iv)
    return carry


def _decided(array: Array, what: str) -> Array:
    """Return whole numbers, or truth values, that intervals hold."""
    if array.dtype != INTERVALS:
        return array
    if any(low != high for low, high in (interval._mpi_ for interval in array.ravel())):
        raise ArithmeticError(f"{what} depends on a number that so few bits leave open")
    whole: Array = np.frompyfunc(int, 1, 1)(array)
    return np.asarray(whole, object)


# Rules: an equation, its operands and the context give arrays of intervals ------------------------


def _entrywise(function: Callable[..., Any]) -> Rule:
    """Return the rule of a function of the context and of one interval of each operand."""

    def rule(equation: Any, operands: list[Array], iv: Any) -> Any:
        each = np.frompyfunc(partial(function, iv), len(operands), 1)
        return each(*(_exactly(v, iv) for v in operands))

    return rule


def _moved(equation: Any, operands: list[Array], iv: Any) -> list[Array]:
    return jaxprs.moved(equation, operands)


def _made(equation: Any, operands: list[Array], iv: Any) -> list[Any]:
    """Count; there is no operand."""
    return jaxprs.computed(equation, operands)


def _dot(equation: Any, operands: list[Array], iv: Any) -> Any:
    left, right, result = jaxprs.axes_of_product(equation)
    return np.einsum(operands[0], left, operands[1], right, result)


def _sum_of_entries(equation: Any, operands: list[Array], iv: Any) -> Any:
    return operands[0].sum(equation.params["axes"])


def _scattered_sum(equation: Any, operands: list[Array], iv: Any) -> Array:
    """Add at indices, entry by entry: JAX says where each goes."""
    into, where, what = operands
    (dtype,) = jaxprs.dtypes(equation)
    found = into.copy()
    for entry in np.ndindex(what.shape):
        one = np.zeros(what.shape, dtype)
        one[entry] = 1
        (there,) = jaxprs.computed(equation, [np.zeros(into.shape, dtype), where, one])
        found[np.asarray(there) == 1] += what[entry]
    return found


def _conversion(equation: Any, operands: list[Array], iv: Any) -> Array:
    """Change the type, of which whole numbers alone take notice."""
    (dtype,) = jaxprs.dtypes(equation)
    if _real(dtype):
        return _exactly(operands[0], iv)
    where = jaxprs.line(equation)
    return _decided(operands[0], f"a whole number or a branch ({where})").astype(dtype)


def _power(equation: Any, operands: list[Array], iv: Any) -> Any:
    n = equation.params["y"]
    return np.frompyfunc(lambda a: a**n, 1, 1)(operands[0])


def _any_power(iv: Any, a: Any, b: Any) -> Any:
    """Enclose a**b, for a > 0 where b is no whole number."""
    low, high = b._mpi_
    if low == high and b == int(b):
        return a ** int(b)
    return _exp(iv, b * _log(iv, a))


def _function(name: str) -> Callable[[Any, Any], Any]:
    """Return mpmath's function, exact at zero, and elsewhere allowed to be off by some units."""

    def enclose(iv: Any, a: Any) -> Any:
        value = getattr(iv, name)(a)
        if a == 0:
            return value
        doubt = iv.ldexp(1, UNITS - iv.prec)
        return value * iv.mpf([1 - doubt, 1 + doubt])

    return enclose


_exp, _log, _sin, _cos = map(_function, ("exp", "log", "sin", "cos"))


def _hull(iv: Any, *cases: Any) -> Any:
    """Return the smallest interval that holds all of these."""
    return iv.make_mpf(mpf_min_max([end for case in cases for end in case._mpi_]))


def _larger(iv: Any, a: Any, b: Any) -> Any:
    lows, highs = zip(a._mpi_, b._mpi_, strict=True)
    return iv.make_mpf((mpf_min_max(lows)[1], mpf_min_max(highs)[1]))


def _smaller(iv: Any, a: Any, b: Any) -> Any:
    return -_larger(iv, -a, -b)


def _chosen(iv: Any, which: Any, *cases: Any) -> Any:
    low, high = which._mpi_
    return cases[int(which)] if low == high else _hull(iv, *cases)


def _less(iv: Any, a: Any, b: Any) -> Any:
    """Return the truth of a < b."""
    if mpf_lt(a._mpi_[1], b._mpi_[0]):
        return iv.mpf(1)
    return iv.mpf(0) if mpf_ge(a._mpi_[0], b._mpi_[1]) else iv.mpf([0, 1])


def _equal(iv: Any, a: Any, b: Any) -> Any:
    return (1 - _less(iv, a, b)) * (1 - _less(iv, b, a))


def _comparison(truth: Callable[[Any, Any, Any], Any]) -> Rule:
    """Return the rule of a comparison; what is compared with itself may as well be zero."""

    def rule(equation: Any, operands: list[Array], iv: Any) -> Any:
        if jaxprs.with_itself(equation):
            operands = [0 * v for v in operands]
        return _entrywise(truth)(equation, operands, iv)

    return rule


words = jaxprs.words
RULES: dict[str, Rule] = {
    **dict.fromkeys(
        words("""
            broadcast_in_dim concatenate copy dynamic_slice dynamic_update_slice gather name
            optimization_barrier pad reshape rev scatter slice split squeeze stop_gradient transpose
        """),
        _moved,
    ),
    "iota": _made,
    **dict.fromkeys(words("add add_any"), _entrywise(lambda iv, a, b: a + b)),
    "sub": _entrywise(lambda iv, a, b: a - b),
    "mul": _entrywise(lambda iv, a, b: a * b),
    "div": _entrywise(lambda iv, a, b: a / b),
    "neg": _entrywise(lambda iv, a: -a),
    "abs": _entrywise(lambda iv, a: abs(a)),
    "sign": _entrywise(lambda iv, a: _less(iv, 0 * a, a) - _less(iv, a, 0 * a)),
    "square": _entrywise(lambda iv, a: a**2),
    "one_minus_square": _entrywise(lambda iv, a: 1 - a**2),
    "integer_pow": _power,
    "pow": _entrywise(_any_power),
    "dot_general": _dot,
    "reduce_sum": _sum_of_entries,
    "scatter-add": _scattered_sum,
    "max": _entrywise(_larger),
    "min": _entrywise(_smaller),
    "clamp": _entrywise(lambda iv, low, a, high: _smaller(iv, _larger(iv, a, low), high)),
    "lt": _comparison(_less),
    "gt": _comparison(lambda iv, a, b: _less(iv, b, a)),
    "le": _comparison(lambda iv, a, b: 1 - _less(iv, b, a)),
    "ge": _comparison(lambda iv, a, b: 1 - _less(iv, a, b)),
    "eq": _comparison(_equal),
    "ne": _comparison(lambda iv, a, b: 1 - _equal(iv, a, b)),
    "not": _entrywise(lambda iv, a: 1 - a),
    "and": _entrywise(lambda iv, a, b: a * b),
    "or": _entrywise(lambda iv, a, b: 1 - (1 - a) * (1 - b)),
    "select_n": _entrywise(_chosen),
    "convert_element_type": _conversion,
    "exp": _entrywise(_exp),
    "expm1": _entrywise(lambda iv, a: _exp(iv, a) - 1),
    "log": _entrywise(_log),
    "log1p": _entrywise(lambda iv, a: _log(iv, 1 + a)),
    "sin": _entrywise(_sin),
    "cos": _entrywise(_cos),
    "sqrt": _entrywise(lambda iv, a: iv.sqrt(a)),
    "rsqrt": _entrywise(lambda iv, a: 1 / iv.sqrt(a)),
    # In these the argument occurs once, which keeps the intervals narrow.
    "tanh": _entrywise(lambda iv, a: 1 - 2 / (_exp(iv, 2 * a) + 1)),
    "logistic": _entrywise(lambda iv, a: 1 / (_exp(iv, -a) + 1)),
}
"""The rule of each operation, by the name of its primitive."""
