"""Numbers known up to an error, on which each operation of a jaxpr is carried out.

Each operation is carried out on four things at once:

    value   what autodiff computes
    error   how far another correct computation may lie from it, but for
    size    the sum of the magnitudes of the terms, and
    terms   how many of these are not zero: additions that may yet be done in any order

A sum stays *open* while it is only added to, moved about or changed in sign. Where anything else
follows it is *closed*: its error becomes error + gamma_{terms-1} size, with gamma_n = n u / (1 - n
u) (Higham, 2002, section 3.1), and from then on it is one term. So W h + U x + b is one sum of
H + D + 1 terms, in whatever order it is added up; and 1 - z errs by u (1 + |z|), so that
(1 - z) n + z h may as well be computed as n + z (h - n).

The factors of products and the states may be rounded to a narrower format
(``reference.rounding.formats``): what is known without error has the error that rounding it makes.

An error that is infinite says that nothing is known.
"""

from typing import Any, NamedTuple

import jax.numpy as jnp

from reference import jaxprs
from reference.rounding.formats import PLAIN, Arithmetic, Format

# The derivatives of tanh and of the logistic function by their values. JAX writes 1 - h^2 as a sum
# that cancels at saturation; as operations of their own they do not depend on how it is written.
TANH_SLOPE, LOGISTIC_SLOPE = map(jaxprs.opaque, ("tanh_slope", "logistic_slope"))


class Machine(NamedTuple):
    """What a candidate computes in: its unit roundoff, its least normal number, its largest.

    ``arithmetic`` has the formats to which it rounds factors and states, if it does.
    """

    u: Any
    tiny: Any
    largest: Any
    arithmetic: Arithmetic = PLAIN


class Known(NamedTuple):
    """A number and its error; size and terms of the sum that it is, if still open.

    Whole numbers and truth values have no size; the error of a truth value is whether it may be the
    other one.
    """

    value: Any
    error: Any
    size: Any
    terms: Any = None


def exact(value: Any) -> Known:
    """Return what is known without error."""
    value = jnp.asarray(value)
    if not jnp.issubdtype(value.dtype, jnp.floating):
        return Known(value, jnp.zeros(value.shape, bool), None)
    return Known(value, jnp.zeros_like(value), jnp.abs(value))


def one_term(value: Any, error: Any) -> Known:
    """Return a value with its error, as one term."""
    return Known(value, error, jnp.abs(value) + error)


def closed(number: Known, m: Machine) -> Known:
    """Add up an open sum."""
    if number.terms is None:
        return number
    return one_term(number.value, number.error + gamma(number.terms - 1, m.u) * number.size)


def narrowed(number: Known, form: Format | None) -> Known:
    """Return a number that is no open sum, as it is after rounding it to a format."""
    if form is None or number.size is None:
        return number
    at_most = jnp.maximum(form.u * number.size, form.spacing / 2)
    off = jnp.abs(form.nearest(number.value) - number.value)
    error = number.error + jnp.where(number.error == 0, off, at_most)
    return one_term(number.value, jnp.where(number.size <= form.largest, error, jnp.inf))


def count(number: Known) -> Any:
    """Return how many terms of a number are not zero."""
    return (number.size > 0).astype(number.size.dtype) if number.terms is None else number.terms


def gamma(n: Any, u: Any) -> Any:
    """Bound the relative error of n additions or multiplications, one after the other."""
    n = jnp.maximum(n, 0)
    return n * u / (1 - n * u)
