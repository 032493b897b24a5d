"""Numbers narrower than float32, in which processors multiply, or keep arrays.

Processors that are made for matrices round the factors of a product to such numbers, multiply these
exactly and add in float32. States may be kept so as well, to save memory. Everything else, such as
sums and tanh, is in float32.

An *arithmetic* is what a gradient declares: the format of the factors of its products, and that of
the states, and of the gradients in them, between two steps.
"""

from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np


class Format(NamedTuple):
    """Floating-point numbers: their unit roundoff, the spacing of the smallest, the largest."""

    u: Any
    spacing: Any
    largest: Any

    def nearest(self, value: Any, xp: Any = jnp) -> Any:
        """Return the nearest of these numbers, without a limit to their size.

        Examples
        --------
        >>> FORMATS["tf32"].nearest(np.float64([1 + 2**-10, 1 + 2**-12, 3e-50]), np)
        array([1.00097656, 1.        , 0.        ])
        """
        _, exponent = xp.frexp(value)  # value is below 2^exponent, and not below half of that
        quantum = xp.maximum(xp.ldexp(self.u + 0 * value, exponent), self.spacing)
        return xp.round(value / quantum) * quantum


def _format(digits: int, least_exponent: int, most_exponent: int) -> Format:
    """Return the format of a number of binary digits, for normal numbers from 2^least to 2^most."""
    u = 2.0**-digits
    return Format(u, 2.0**least_exponent * 2 * u, 2.0**most_exponent * (1 - u))


FORMATS = {
    "tf32": _format(11, -126, 128),
    "bfloat16": _format(8, -126, 128),
    "float16": _format(11, -14, 16),
}
"""The formats that can be declared, by name."""


class Arithmetic(NamedTuple):
    """The formats of the factors of products and of the states; None is the problem's own dtype."""

    factors: Format | None = None
    states: Format | None = None

    @property
    def u(self) -> float:
        """The largest unit roundoff of the two, 0 where none is declared."""
        return max((f.u for f in self if f is not None), default=0.0)

    @property
    def like(self) -> "Arithmetic":
        """One that declares as much; a program compiled for it serves this one."""
        return Arithmetic(*(None if form is None else FORMATS["tf32"] for form in self))

    def representable(self, array: np.ndarray) -> np.ndarray:
        """Return the nearest numbers that both formats have, in the dtype of the array."""
        value = array.astype(np.float64)
        for form in self:
            if form is not None:
                value = form.nearest(value, np)
        return value.astype(array.dtype)


PLAIN = Arithmetic()


def named_arithmetic(arithmetic: str | None, storage: str | None) -> Arithmetic:
    """Return the arithmetic of these names.

    Raises
    ------
    ValueError
        If a name is neither None nor one of ``FORMATS``.
    """
    names = {"arithmetic": arithmetic, "storage": storage}
    for argument, name in names.items():
        if name is not None and name not in [*FORMATS]:
            known = ", ".join(map(repr, FORMATS))
            raise ValueError(f"{argument} is {name!r}; expected {known} or None")
    return Arithmetic(*(None if name is None else FORMATS[name] for name in names.values()))


def checked_arithmetic(arithmetic: str | None, storage: str | None, dtype: str) -> Arithmetic:
    """Return the arithmetic of these names, if its sums, which are in float32, fit the dtype."""
    rounding = named_arithmetic(arithmetic, storage)
    if any(rounding) and dtype != "float32":
        raise ValueError(f"dtype is {dtype!r}; expected 'float32' with an arithmetic or a storage")
    return rounding


def default_dtype(arithmetic: str | None, storage: str | None) -> str:
    """Return the dtype of what has no other: formats are declared of float32."""
    return "float32" if arithmetic or storage else "float64"


def formats_in_words(arithmetic: str | None, storage: str | None) -> str:
    """Return what is rounded to which formats."""
    rounded = {"factors": arithmetic, "states": storage}
    return " and ".join(f"{k} in {name}" for k, name in rounded.items() if name is not None)
