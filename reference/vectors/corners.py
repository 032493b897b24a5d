"""The problems of the golden vectors: small, and each with a corner of its own.

Their inputs are the same numbers on every machine and with every version of every library, and
those in float32 are those in float64 with bits cut off.
"""

import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from reference.network import CELLS
from reference.network.cell import Cell
from reference.network.losses import named_loss
from reference.problems import Problem
from reference.user_code import parameters_type

LABS = CELLS["tanh"]
LAST = "last_step_squared_error"
# Entries are uniform between minus and plus these, or 1.
GAINS = {"W": 0.5, "b": 0.5, "bh": 0.5}

Array = np.ndarray


def inputs(cell: Cell) -> tuple[str, ...]:
    """Return the names of what a problem has: the parameters, x, h0 and the target."""
    return (*cell.fields, "x", "h0", "target")


def expected(cell: Cell) -> tuple[str, ...]:
    """Return the names of what is computed: states, outputs, loss and gradients."""
    return ("h", "y", "loss", *(f"d{k}" for k in cell.gradients))


def shapes(sizes: Mapping[str, int], loss: str, cell: Cell = LABS) -> dict[str, tuple[int, ...]]:
    """Return the shape of every array of a vector; everything has a batch axis.

    ``h`` are the states and ``dh`` the gradients in them, ``y`` the outputs; the gradient ``dW``
    has the shape of W, and so on.

    Examples
    --------
    >>> shapes({"T": 5, "B": 3, "D": 2, "H": 4, "O": 1}, "squared_error")["dU"]
    (4, 2)
    """
    T, B, D, H, O = (sizes[k] for k in "TBDHO")
    variables = cell.shapes(sizes) | {"x": (T, B, D), "h0": (B, H), "h": (T + 1, B, H)}
    gradients = {f"d{k}": shape for k, shape in variables.items()}
    target = tuple(sizes[axis] for axis in named_loss(loss).axes)
    return variables | gradients | {"y": (T, B, O), "target": target, "loss": ()}


@dataclass(frozen=True)
class Case:
    """How to make a problem: bits from PCG64, seeded by the name, times the gain of each array.

    ``sizes`` are T, B, D, H and O. Gains are powers of two, so that they round nothing. What is
    ``fixed`` under a name, or for all under *, replaces the draw, or changes it if it is a
    function. What a case is about is true of every cell, or of the lab's alone if ``of_lab``.
    """

    name: str
    about: str
    sizes: tuple[int, int, int, int, int] = (4, 2, 3, 4, 2)
    loss: str = "squared_error"
    gains: Mapping[str, float] = field(default_factory=dict)
    fixed: Mapping[str, Any] = field(default_factory=dict)
    of_lab: bool = False

    def problem(self, dtype: str, cell: Cell = LABS) -> Problem:
        """Return the problem, all of its arrays in this dtype.

        Examples
        --------
        >>> CASES[0].name, CASES[0].problem("float32").params.V.tolist()
        ('whole-numbers', [[2.0, -1.0], [1.0, 3.0]])
        """
        generator = np.random.PCG64(zlib.crc32(self.name.encode()))
        every = shapes(dict(zip("TBDHO", self.sizes, strict=True)), self.loss, cell)
        arrays = {}
        for k in sorted(inputs(cell), key=_drawn_in_turn):
            drawn = _uniform(generator, every[k], dtype) * self.gains.get(k, GAINS.get(k, 1.0))
            fixed = self.fixed.get(k, self.fixed.get("*", drawn))
            array = fixed(drawn) if callable(fixed) else fixed
            arrays[k] = np.broadcast_to(array, every[k]).astype(dtype)
        params = parameters_type(cell.fields)(*(arrays.pop(k) for k in cell.fields))
        x, h0, target = (arrays[k] for k in ("x", "h0", "target"))
        return Problem(params, x, h0, target, self.loss, self.name, cell)


def _drawn_in_turn(name: str) -> int:
    """Return when an array is drawn: cells share the numbers of what the lab's network has too."""
    known = inputs(LABS)
    return known.index(name) if name in known else len(known)


def _uniform(generator: np.random.PCG64, shape: tuple[int, ...], dtype: str) -> Array:
    """Return numbers in [-1, 1) with as many binary digits after the point as a dtype has."""
    digits = np.finfo(dtype).nmant
    bits = generator.random_raw(int(np.prod(shape))) >> np.uint64(63 - digits)
    numbers: Array = np.ldexp(bits.astype(np.float64) - 2.0**digits, -digits).astype(dtype)
    return numbers.reshape(shape)


def _every_other_zero(array: Array) -> Array:
    """Return zeros, each of the sign that was drawn, in every other column."""
    return np.asarray(array * (np.arange(array.shape[-1]) % 2 == 0))


def _first_subnormal(x: Array) -> Array:
    """Return the inputs with the first of each step below the smallest normal number."""
    return np.where(np.arange(x.shape[-1]) == 0, x * np.finfo(x.dtype).tiny, x)


# Here W h[0] + U x[1] + b = 0 and U x[2] + b = 0, so that every tanh is that of zero.
WHOLE = {
    "W": [[1, 2], [3, 4]],
    "U": [[1, 0], [1, 1]],
    "b": [-2, -3],
    "V": [[2, -1], [1, 3]],
    "c": [1, 2],
    "x": [[[3, 1]], [[2, 1]]],
    "h0": [[1, -1]],
    "target": [[[0, 1]], [[3, 0]]],
}
TINY = {"U": 2.0**-10, "b": 2.0**-12, "h0": 2.0**-10}

CASES = (
    Case(
        "whole-numbers",
        "Small whole numbers, to check by hand.",
        (2, 1, 2, 2, 2),
        fixed=WHOLE,
        of_lab=True,
    ),
    Case(
        "whole-numbers-fitted",
        "The same with the outputs as targets: the loss and every gradient are exactly zero.",
        (2, 1, 2, 2, 2),
        fixed=WHOLE | {"target": [1, 2]},
        of_lab=True,
    ),
    # Sizes
    Case("all-sizes-one", "One step, sequence, input, unit and output.", (1, 1, 1, 1, 1)),
    Case("one-step", "T = 1: only dh0 goes through W.", (1, 2, 3, 4, 2)),
    Case("two-steps", "T = 2: the gradient goes from step to step once.", (2, 1, 2, 3, 2)),
    Case("one-sequence", "B = 1: laid out like a sequence without a batch axis.", (6, 1, 3, 4, 2)),
    Case("batch", "B = 4: gradients in parameters are sums over sequences.", (5, 4, 2, 4, 3)),
    Case("one-unit", "H = 1: the recursion is one of plain numbers.", (5, 2, 3, 1, 2)),
    Case("one-input-one-output", "D = O = 1 with several units.", (5, 2, 1, 4, 1)),
    Case("more-inputs-than-units", "D > H > O.", (4, 2, 6, 3, 1)),
    Case("more-outputs-than-units", "O > H > D.", (4, 2, 2, 3, 6)),
    Case("eight-of-each", "D = H = O = 8.", (4, 3, 8, 8, 8), gains={"W": 0.25, "U": 0.5, "V": 0.5}),
    # Zeros
    Case("zero-h0", "h[0] = 0: the first step adds nothing to dW.", fixed={"h0": 0}),
    Case("zero-x", "x = 0: dU is zero, and dx is not.", fixed={"x": 0}),
    Case("zero-W", "W = 0: dh0 is zero, and dW is not.", fixed={"W": 0}, of_lab=True),
    Case("zero-U", "U = 0: dx is zero, and dU is not.", fixed={"U": 0}),
    Case("zero-V", "V = 0: nothing but dV and dc is left.", fixed={"V": 0}),
    Case("all-zeros", "All inputs and parameters are zero.", fixed={"*": 0}),
    Case(
        "signed-zeros",
        "Every other column of everything is zero, of either sign.",
        fixed={"*": _every_other_zero},
    ),
    # Regimes
    Case(
        "shift",
        "W hands each state to the next unit.",
        fixed={"W": np.eye(4, k=-1)},
        of_lab=True,
    ),
    Case(
        "rotation",
        "W is orthogonal: gradients hardly shrink.",
        (12, 1, 2, 2, 1),
        gains={"U": 0.25, "b": 0.125},
        fixed={"W": [[0, -1], [1, 0]]},
        of_lab=True,
    ),
    Case("norm-above-one", "The spectral norm of W is above 3.", (6, 2, 3, 4, 2), gains={"W": 2.0}),
    Case("long", "T = 40.", (40, 2, 2, 3, 2)),
    Case(
        "long-norm-above-one",
        "T = 40, and the spectral norm of W is above 1.",
        (40, 1, 2, 3, 2),
        gains={"W": 1.0},
        of_lab=True,
    ),
    Case(
        "nearly-linear",
        "States are below 1/100, where tanh is almost linear.",
        gains=TINY,
        of_lab=True,
    ),
    Case("nearly-saturated", "Many states are near 1 and -1.", gains={"U": 4.0}, of_lab=True),
    Case(
        "saturated-units",
        "Two units of four are 1 and -1 to all digits, and no gradient passes through them.",
        fixed={"b": [24, -24, 0.25, -0.125]},
        of_lab=True,
    ),
    Case("large-targets", "Targets are in millions.", gains={"target": 2.0**22}),
    Case(
        "subnormal-inputs",
        "The first input of each step is below the smallest normal number.",
        fixed={"x": _first_subnormal},
    ),
    # Exercise 2 of the lab
    Case("last-step", "The loss looks at the last output alone.", (6, 2, 3, 4, 2), LAST),
    Case("last-step-of-one", "The same where the last step is the first.", (1, 2, 3, 4, 2), LAST),
    Case(
        "last-step-long",
        "The same after 40 steps: dh0 is all but gone.",
        (40, 1, 2, 3, 1),
        LAST,
    ),
)


def cases_of(cell: Cell) -> tuple[Case, ...]:
    """Return the cases of a cell.

    Examples
    --------
    >>> len(cases_of(CELLS["tanh"])), len(cases_of(CELLS["gru"]))
    (32, 23)
    """
    return tuple(case for case in CASES if cell is LABS or not case.of_lab)
