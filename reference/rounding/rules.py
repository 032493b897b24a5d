"""How each operation of a jaxpr carries on the errors of what it is given.

Every operation has a rule, which makes a ``Known`` of others. A function such as tanh may err by
FUNCTION u of its value, and by the largest slope in reach times the error of its argument. Whatever
comes of a comparison in doubt may be either.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax.numpy as jnp
from jax import lax

from reference import jaxprs
from reference.rounding.known import Known, Machine, closed, count, exact, narrowed, one_term
from reference.rounding.tolerance import V64

FUNCTION = 4.0  # units by which a candidate's tanh, exp and so on may err, of their value
FORMS = 2.0  # roundings charged to a product: a candidate may use another formula that is equal

Rule = Callable[[Any, list[Known], Machine], Known | list[Known]]


def require_rules(jaxpr: Any) -> None:
    """Raise NotImplementedError, with the line of the user's, for an operation without a rule."""
    for equation in jaxprs.equations(jaxpr):
        if not isinstance(jaxprs.inside(equation), jaxprs.Call):
            _rule(equation)


def _rule(equation: Any) -> Rule:
    name = jaxprs.name(equation)
    if name not in RULES:
        where = jaxprs.line(equation)
        raise NotImplementedError(f"no bound on rounding is known for {name} ({where})")
    return RULES[name]


def carried_on(equation: Any, operands: Sequence[Known], m: Machine) -> list[Known]:
    """Return what an operation makes of numbers that are known up to errors."""
    found = jaxprs.inside(equation)
    if isinstance(found, jaxprs.Call):
        return evaluate(found.body, operands, m)
    rule = _rule(equation)
    results = rule(equation, list(operands), m)
    return [_overflowing(r, m) for r in (results if isinstance(results, list) else [results])]


def evaluate(
    jaxpr: Any,
    operands: Sequence[Known],
    m: Machine,
    taken_for: Callable[[int, Known], Known] | None = None,
) -> list[Known]:
    """Return the results of a jaxpr, sums left open; ``taken_for`` as in ``jaxprs.evaluate``."""

    def rule(equation: Any, operands: list[Any]) -> list[Known]:
        return carried_on(equation, [_known(v) for v in operands], m)

    return [_known(result) for result in jaxprs.evaluate(jaxpr, operands, rule, taken_for)]


def _known(value: Any) -> Known:
    """Return an operand; what is written into the jaxpr is exact."""
    return value if isinstance(value, Known) else exact(value)


def _overflowing(number: Known, m: Machine) -> Known:
    """Return the number; nothing is known of one that may overflow, or whose error is NaN."""
    if number.size is None:
        return number
    there = (number.size <= m.largest) & (number.error >= 0)
    return number._replace(error=jnp.where(there, number.error, jnp.inf))


# Rules: an equation, its operands and the machine give what is known of the result ----------------


def _run(equation: Any, *arrays: Any) -> Any:
    """Carry out an operation with one result."""
    (result,) = jaxprs.computed(equation, arrays)
    return result


def _sum(equation: Any, operands: list[Known], m: Machine) -> Known:
    a, b = operands
    value = _run(equation, a.value, b.value)
    if a.size is None or b.size is None:
        return Known(value, a.error | b.error, None)
    terms = count(a) + count(b)
    return Known(value, a.error + b.error, a.size + b.size, terms)


def _sum_of_entries(equation: Any, operands: list[Known], m: Machine) -> Known:
    """Add up along axes, all of it or what came before."""
    (a,) = operands
    parts = (_run(equation, part) for part in (a.value, a.error, a.size, count(a)))
    return Known(*parts)


def _scattered_sum(equation: Any, operands: list[Known], m: Machine) -> Known:
    """Add at indices: the gradient in an array of which entries were taken."""
    a, where, b = operands
    pairs = ((a.value, b.value), (a.error, b.error), (a.size, b.size), (count(a), count(b)))
    return Known(*(_run(equation, into, where.value, what) for into, what in pairs))


def _dot(equation: Any, operands: list[Known], m: Machine) -> Known:
    """Multiply and add: factors are rounded to their format, products too; the sum stays open."""
    a, b = (narrowed(closed(number, m), m.arithmetic.factors) for number in operands)
    size, terms = _run(equation, a.size, b.size), _run(equation, count(a), count(b))
    of_factors = _run(equation, a.error, b.size) + _run(equation, jnp.abs(a.value), b.error)
    return Known(
        _run(equation, a.value, b.value), of_factors + m.u * size + terms * m.tiny, size, terms
    )


def _product(equation: Any, operands: list[Known], m: Machine) -> Known:
    a, b = operands
    return _multiplied(a, b, m)


def _multiplied(a: Known, b: Known, m: Machine) -> Known:
    if a.size is None or b.size is None:
        return Known(a.value * b.value, a.error | b.error, None)
    a, b = closed(a, m), closed(b, m)
    of_factors = a.error * b.size + jnp.abs(a.value) * b.error
    return one_term(a.value * b.value, of_factors + FORMS * m.u * a.size * b.size + m.tiny)


def _quotient(equation: Any, operands: list[Known], m: Machine) -> Known:
    a, b = operands
    return _divided(a, b, m)


def _divided(a: Known, b: Known, m: Machine) -> Known:
    a, b = closed(a, m), closed(b, m)
    value, least = a.value / b.value, jnp.abs(b.value) - b.error
    safe = jnp.where(least > 0, least, 1)
    error = (a.error + jnp.abs(value) * b.error) / safe + FORMS * m.u * a.size / safe + m.tiny
    return one_term(value, jnp.where(least > 0, error, jnp.inf))


def _power(equation: Any, operands: list[Known], m: Machine) -> Known:
    """Multiply a number by itself; for a negative power, invert it."""
    (a,), n = operands, equation.params["y"]
    a = closed(a, m)
    power = a
    for _ in range(abs(n) - 1):
        power = _multiplied(power, a, m)
    return power if n > 0 else _divided(exact(jnp.ones_like(a.value)), power, m)


def _square(equation: Any, operands: list[Known], m: Machine) -> Known:
    (a,) = operands
    return _multiplied(a, a, m)


def _any_power(equation: Any, operands: list[Known], m: Machine) -> Known:
    """Raise a positive number to a power that is known exactly."""
    a, b = (closed(number, m) for number in operands)
    value, least = _run(equation, a.value, b.value), a.value - a.error
    moved = jnp.expm1(jnp.abs(b.value) * a.error / jnp.where(least > 0, least, 1))
    error = jnp.abs(value) * (moved + FUNCTION * m.u) + m.tiny
    return one_term(value, jnp.where((least > 0) & (b.error == 0), error, jnp.inf))


def _moved(equation: Any, operands: list[Known], m: Machine) -> Known | list[Known]:
    """Move entries, or change signs: nothing is rounded, and one sum stays open."""
    if len(operands) == 1 and operands[0].terms is not None:
        (a,) = operands
        parts = [jaxprs.computed(equation, [p]) for p in (a.value, a.error, a.size, a.terms)]
        return [Known(v, *map(jnp.abs, rest)) for v, *rest in zip(*parts, strict=True)]
    operands = [closed(number, m) for number in operands]
    values = jaxprs.computed(equation, [a.value for a in operands])
    errors = jaxprs.computed(equation, [_part(a, "error") for a in operands])
    if operands[0].size is None:
        return [Known(v, e, None) for v, e in zip(values, errors, strict=True)]
    sizes = jaxprs.computed(equation, [_part(a, "size") for a in operands])
    found = zip(values, errors, sizes, strict=True)
    return [Known(v, jnp.abs(e), jnp.abs(s)) for v, e, s in found]


def _part(number: Known, name: str) -> Any:
    """Return the error or size of a number; a whole number, such as an index, has but a value."""
    return number.value if number.size is None else getattr(number, name)


def _made(equation: Any, operands: list[Known], m: Machine) -> Known:
    """Make an array of whole numbers, or of one number."""
    return exact(_run(equation, *(a.value for a in operands)))


def _sign(equation: Any, operands: list[Known], m: Machine) -> Known:
    """Take the sign, which is in doubt near zero."""
    a = closed(operands[0], m)
    return one_term(_run(equation, a.value), jnp.where(jnp.abs(a.value) <= a.error, 2.0, 0.0))


def _magnitude(equation: Any, operands: list[Known], m: Machine) -> Known:
    a = closed(operands[0], m)
    return one_term(jnp.abs(a.value), a.error)


def _extreme(equation: Any, operands: list[Known], m: Machine) -> Known:
    """Take the larger or the smaller of two."""
    a, b = (closed(number, m) for number in operands)
    return one_term(_run(equation, a.value, b.value), jnp.maximum(a.error, b.error))


def _extreme_entry(equation: Any, operands: list[Known], m: Machine) -> Known:
    a = closed(operands[0], m)
    return one_term(_run(equation, a.value), jnp.max(a.error, equation.params["axes"]))


def _conversion(equation: Any, operands: list[Known], m: Machine) -> Known:
    """Change the type: to a narrower one is a rounding."""
    a = closed(operands[0], m)
    value = _run(equation, a.value)
    if not jnp.issubdtype(value.dtype, jnp.floating):
        return Known(value, a.error > 0, None)
    if a.size is None:
        return one_term(value, a.error.astype(value.dtype))
    finer = jnp.promote_types(a.value.dtype, value.dtype) == value.dtype
    info: Any = jnp.finfo
    coarse = 0.0 if finer else float(info(value.dtype).eps)
    return one_term(value, a.error.astype(value.dtype) + coarse * jnp.abs(value))


def _comparison(equation: Any, operands: list[Known], m: Machine) -> Known:
    """Compare; what may be equal is in doubt."""
    a, b = (closed(number, m) for number in operands)
    value = _run(equation, a.value, b.value)
    if jaxprs.with_itself(equation):  # how JAX asks whether something is a number
        return Known(value, jnp.zeros(value.shape, bool), None)
    if a.size is None or b.size is None:
        return Known(value, a.error | b.error, None)
    error = a.error + b.error
    return Known(value, (jnp.abs(a.value - b.value) <= error) & (error > 0), None)


def _truth(equation: Any, operands: list[Known], m: Machine) -> Known:
    doubt = sum((a.error.astype(int) for a in operands), start=jnp.asarray(0)) > 0
    return Known(_run(equation, *(a.value for a in operands)), doubt, None)


def _choice(equation: Any, operands: list[Known], m: Machine) -> Known:
    """Choose; where the choice is in doubt, any of the cases may be right."""
    which, *cases = operands
    cases = [closed(case, m) for case in cases]
    value, error = (
        _run(equation, which.value, *(getattr(case, k) for case in cases))
        for k in ("value", "error")
    )
    if cases[0].size is None:
        return Known(value, which.error | error, None)
    widest = jnp.stack([jnp.abs(case.value - value) + case.error for case in cases]).max(0)
    return one_term(value, jnp.where(which.error, widest, error))


def _function(slope: Callable[[Any, Any], Any], *, of_one: bool = False) -> Rule:
    """Return the rule of a function, from its largest slope between a - error and a + error.

    Its own error is of its value, or ``of_one`` where forms in use err by that:
    (1 + tanh(a / 2)) / 2 does near 0.
    """

    def rule(equation: Any, operands: list[Known], m: Machine) -> Known:
        a = closed(operands[0], m)
        value = _run(equation, a.value)
        moved = jnp.where(a.error > 0, slope(a.value, a.error) * a.error, 0)
        own = FUNCTION * m.u * (jnp.ones_like(value) if of_one else jnp.abs(value))
        return one_term(value, moved + own + m.tiny)

    return rule


def _steepest_at_zero(slope: Callable[[Any], Any]) -> Callable[[Any, Any], Any]:
    """Return the largest slope of a function whose slope is even and falls away from 0."""
    return lambda a, e: slope(jnp.maximum(jnp.abs(a) - e, 0))


def _steepest_below(slope: Callable[[Any], Any], pole: float = 0.0) -> Callable[[Any, Any], Any]:
    """Return the largest slope of a function that is steeper the nearer to its pole."""

    def largest(a: Any, e: Any) -> Any:
        least = a - e - pole
        return jnp.where(least > 0, slope(jnp.where(least > 0, least, 1)), jnp.inf)

    return largest


def _slope_rule(
    slope: Callable[[Any], Any], bend: Callable[[Any], Any], by_autodiff: Callable[[Any], Any]
) -> Rule:
    """Return the rule of a slope, from how fast it changes.

    Where the slope is small it is a difference of numbers of order one, and errs by u of those.
    ``by_autodiff`` is what JAX's way to write it rounds beyond that.
    """

    def rule(equation: Any, operands: list[Known], m: Machine) -> Known:
        a = closed(operands[0], m)
        value = slope(a.value)
        moved = a.error * (bend(a.value) + a.error)
        own = m.u * a.value**2 + FUNCTION * m.u * jnp.abs(value) + by_autodiff(a.value)
        return one_term(value, moved + own)

    return rule


words = jaxprs.words

RULES: dict[str, Rule] = {
    **dict.fromkeys(
        words("""
            broadcast_in_dim concatenate copy copy_p dynamic_slice expand_dims gather name neg pad
            reshape rev scatter slice split squeeze stop_gradient transpose
        """),
        _moved,
    ),
    **dict.fromkeys(words("add sub add_any"), _sum),
    **dict.fromkeys(words("reduce_sum cumsum"), _sum_of_entries),
    "scatter-add": _scattered_sum,
    "dot_general": _dot,
    "mul": _product,
    "div": _quotient,
    "integer_pow": _power,
    "square": _square,
    "pow": _any_power,
    "abs": _magnitude,
    "sign": _sign,
    "iota": _made,
    **dict.fromkeys(words("max min"), _extreme),
    **dict.fromkeys(words("reduce_max reduce_min"), _extreme_entry),
    "convert_element_type": _conversion,
    **dict.fromkeys(words("eq ne lt gt le ge"), _comparison),
    **dict.fromkeys(words("and or not xor"), _truth),
    "select_n": _choice,
    **dict.fromkeys(words("sin cos"), _function(lambda a, e: 1.0)),
    **dict.fromkeys(words("exp expm1"), _function(lambda a, e: jnp.exp(a + e))),
    **dict.fromkeys(
        words("erf erfc"),
        _function(
            _steepest_at_zero(lambda a: 2 / math.sqrt(math.pi) * jnp.exp(-(a**2))), of_one=True
        ),
    ),
    "tanh": _function(_steepest_at_zero(lambda a: 1 - jnp.tanh(a) ** 2)),
    "logistic": _function(
        _steepest_at_zero(lambda a: lax.logistic(a) * lax.logistic(-a)), of_one=True
    ),
    "log": _function(_steepest_below(lambda d: 1 / d)),
    "log1p": _function(_steepest_below(lambda d: 1 / d, pole=-1.0)),
    "sqrt": _function(_steepest_below(lambda d: 0.5 / jnp.sqrt(d))),
    "rsqrt": _function(_steepest_below(lambda d: 0.5 * d**-1.5)),
    # Up to version 0.11 JAX adds (1 - h) and (1 - h) h, of which the second rounds by
    # V64 |h| |1 - h| where nothing fuses it with the sum: by V64 |h| more than h h, if h < 0.
    "tanh_slope": _slope_rule(
        lambda h: (1 - h) * (1 + h), lambda h: 2 * jnp.abs(h), lambda h: V64 * jnp.maximum(-h, 0)
    ),
    "logistic_slope": _slope_rule(
        lambda s: s * (1 - s), lambda s: jnp.abs(1 - 2 * s), lambda s: 0.0
    ),
}

"""The rule of each operation, by the name of its primitive."""
