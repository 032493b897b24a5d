"""A third voice about single entries of a gradient, for the eye: it decides nothing.

With e the unit vector of an entry x,

    complex step        Im L(x + i s e) / s,                s = 1e-20
    finite differences  (L(x + s e) - L(x - s e)) / 2 s,    s = cbrt(eps) |x|

The first is exact to rounding where L is analytic. Where it is not, as after ``abs``, the two
disagree, and the first is not reported. The second has about ten digits; where x is smaller than
the mean size of its leaf, that takes its place in s.

A compiled loop carries on numbers of the kind that it began with, such as a state of real zeros.
Where that stops the complex step, the loss runs operation by operation, and carries what comes.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

import jax
import numpy as np

from reference.devices import float64_on_cpu
from reference.functions.leaf_report import Leaf
from reference.user_code import in_words

Loss = Callable[[list[Any]], Any]
THIRD_VOICES = ("complex step", "finite differences")
COMPLEX_STEP = 1e-20
REAL_STEP = float(np.cbrt(np.finfo(np.float64).eps))
DISAGREE = 1e-3  # relative to either: far more than finite differences are off by


def ask(
    voice: str,
    loss: Loss,
    values: list[np.ndarray],
    rows: list[Leaf],
    positions: list[int],
    notes: list[str],
) -> list[Leaf]:
    """Return the rows with what the third voice says of the entry that each is about.

    The loss is a function of all values; positions are those of the rows' leaves among them.
    """
    compiled = jax.jit(loss)
    asked = []
    for row, position in zip(rows, positions, strict=True):
        if row.index is not None:
            entry = _Entry(compiled, values, position, row.index)
            try:
                opinion = _complex_step if voice == "complex step" else _central_difference
                row = replace(row, third=opinion(entry))
            except Exception as error:  # such as a function that knows real numbers only
                notes.append(f"{voice} has no opinion on {row.leaf}: {in_words(error)}")
        asked.append(row)
    return asked


class _Entry(NamedTuple):
    """The loss as a function of a change in one entry of one of the values."""

    loss: Loss
    values: list[np.ndarray]
    position: int
    place: tuple[int, ...]

    def at(self, change: complex, *, compiled: bool = True) -> np.ndarray:
        """Return the loss; a complex change makes the whole leaf complex, and nothing else."""
        leaf = self.values[self.position].astype(np.result_type(change))
        leaf[self.place] += change
        before, after = self.values[: self.position], self.values[self.position + 1 :]
        with float64_on_cpu(), jax.disable_jit(not compiled):
            return np.asarray(self.loss([*before, leaf, *after]))


def _central_difference(entry: _Entry) -> float:
    leaf = np.abs(entry.values[entry.position])
    step = REAL_STEP * float(max(leaf[entry.place], leaf.mean()) or 1)
    return float((entry.at(step) - entry.at(-step)) / (2 * step))


def _complex_step(entry: _Entry) -> float:
    try:
        result = entry.at(1j * COMPLEX_STEP)
    except TypeError:  # such as a loop that begins with real numbers
        result = entry.at(1j * COMPLEX_STEP, compiled=False)
    if not np.iscomplexobj(result):
        raise TypeError("loss_fn returns a real number of complex arguments")
    says, slope = float(result.imag / COMPLEX_STEP), _central_difference(entry)
    if not abs(says - slope) <= DISAGREE * max(abs(says), abs(slope)):
        raise ValueError(
            f"{says:.6g} is far from the {slope:.6g} of finite differences, as where loss_fn is "
            "not analytic"
        )
    return says
