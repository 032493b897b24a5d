"""What is said of a loss that does not compute in float64 throughout."""

import math
from collections.abc import Iterator
from typing import Any

import jax.numpy as jnp
import numpy as np

from reference import jaxprs
from reference.devices import float64_on_cpu
from reference.functions.leaf_report import Leaf
from reference.functions.voices import Loss
from reference.rounding.noise import narrow_precisions

SMALL = 4 * float(np.finfo(np.float32).eps)  # of an entry: what numbers in float32 may be off by


def narrow(loss: Loss, values: list[np.ndarray]) -> list[str]:
    """Return a note on precisions below float64 in which a loss computes, if there are any."""
    with float64_on_cpu():
        found = " and ".join(narrow_precisions(loss, values))
    return [f"loss_fn computes in {found} on the way, so autodiff knows no better"] * bool(found)


def rounded_numbers(loss: Loss, values: list[np.ndarray], rows: list[Leaf]) -> list[str]:
    """Return a note on numbers of a loss that are rounded to float32, if little is wrong.

    A gradient is off by as much if it has them in float64.
    """
    wrong = [(r.got or 0.0, r.expected or 0.0) for r in rows if r.status == "mismatch"]
    if not wrong or any(abs(got - right) > SMALL * abs(right) for got, right in wrong):
        return []
    with float64_on_cpu():
        found = next(_rounded(jaxprs.traced(loss, values)[0]), None)
    if found is None:
        return []
    number, meant, line = found
    return [
        f"loss_fn has {number!r}, which is {meant} rounded to float32 ({line}), and autodiff takes "
        "it at its word: should it be of float64, or grad_fn have the same?"
    ]


def _rounded(jaxpr: Any) -> Iterator[tuple[float, str, str]]:
    """Yield numbers that a shorter one is rounded to in float32, the shorter one, and where."""
    for value, equation in jaxprs.numbers(jaxpr):
        if not jnp.issubdtype(jnp.result_type(value), jnp.floating):
            continue
        for number in np.asarray(value, np.float64).ravel().tolist():
            if math.isfinite(number) and float(np.float32(number)) == number:
                meant = str(np.float32(number))
                if float(meant) != number:
                    yield number, meant, jaxprs.line(equation)
