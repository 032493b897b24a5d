r"""The 37 numbered equations of the lab, literally: one small function for each right-hand side.

Clarity before speed: ``diag(1 - h**2)`` is written out, a sum over time is a sum of terms, and a
Jacobian that an equation only names, such as the gradient of h^[t+1] in h^[t], is computed from
Eq. 1 or 2 itself by the complex step, without any derivation. Every function takes the quantities
of one unrolled sequence (``Unrolled``), indexed as the lab indexes them, and the step t.

An equation that is false as printed is kept as it is printed, beside its corrected form.

>>> from manual_bptt import init_params
>>> s = unroll(init_params(3, 4, 2, rng=0), np.ones((5, 3)), np.zeros(4), np.ones((5, 2)))
>>> bool(np.allclose(eq5(s, 2), s.W.T @ np.diag(1 - s.h[3] ** 2) @ s.dh[3] + s.V.T @ s.dy[2]))
True
>>> len(EQUATIONS)
37
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np
from numpy import diag, outer, tanh

from manual_bptt.arithmetic import reports_overflow
from manual_bptt.arrays import Array
from manual_bptt.params import Params
from manual_bptt.validation import as_inputs, as_params, as_state, require_finite, require_labs_cell

__all__ = ["EQUATIONS", "Equation", "Unrolled", "derivation", "evaluate", "literal", "unroll"]


class Unrolled(NamedTuple):
    """One sequence by the lab's indices: ``x[t]``, ``h[t]``, ``y[t]`` for t = 1 .. tau, ``h[0]``.

    ``dy[t]`` and ``dh[t]`` are the gradients of the loss in y^[t] and h^[t]; ``target[t]`` is the
    truth, y-hat in Eq. 3. Row 0 of x, y, target and dy is NaN: the lab has no such entry.
    """

    W: Array
    U: Array
    b: Array
    V: Array
    c: Array
    x: Array
    h: Array
    y: Array
    target: Array
    dy: Array
    dh: Array

    @property
    def tau(self) -> int:
        """The last step."""
        return len(self.x) - 1


Side = Callable[[Unrolled, int], Array]
Register = Callable[[Side], Side]

# For which t an equation is stated. "sum": its right-hand side is a sum over t = 1 .. tau, and its
# function returns one term.
EVERY, BEFORE_THE_LAST, LAST, SUM = "every t", "t < tau", "t = tau", "sum over t"


@dataclass(frozen=True)
class Equation:
    """A numbered equation: what it states, and its members as functions.

    ``kind`` is ``"definition"``, ``"result"`` or ``"step"`` (of a derivation). ``sides`` are what
    stands to the right of each equals sign, as printed. Where that is false, ``corrected`` holds
    the same with the error mended, ``corrected_latex`` its text, ``reason`` what was wrong, and
    ``counterexample`` a smallest network that shows it: one input, unit and output, T steps (1 if
    not given), and zeros but for the entries named (see ``smallest``).
    """

    number: int
    kind: str
    quantity: str
    steps: str
    latex: str
    sides: tuple[Side, ...] = ()
    corrected: tuple[Side, ...] = ()
    corrected_latex: str = ""
    reason: str = ""
    counterexample: Mapping[str, float] = field(default_factory=dict)

    @property
    def exercise(self) -> int:
        """1: a loss at every step. 2: one scalar output, after the last step."""
        return 1 if self.number < 30 else 2


EQUATIONS: dict[int, Equation] = {}


def equation(number: int, kind: str, quantity: str, steps: str, latex: str) -> Register:
    """Register the last member of an equation."""

    def register(side: Side) -> Side:
        if number in EQUATIONS:
            raise ValueError(f"two equations are numbered {number}")
        EQUATIONS[number] = Equation(number, kind, quantity, steps, latex, (side,))
        side.__doc__ = f"Eq. {number}: {quantity} ({steps})."
        return side

    return register


def middle(number: int) -> Register:
    """Register a member between the left-hand side and the last one."""

    def register(side: Side) -> Side:
        known = EQUATIONS[number]
        EQUATIONS[number] = replace(known, sides=(*known.sides[:-1], side, known.sides[-1]))
        side.__doc__ = f"Eq. {number}, a middle member: {known.quantity} ({known.steps})."
        return side

    return register


def erratum(number: int, latex: str, reason: str, **counterexample: float) -> Register:
    """Register what the last member should be, and a network that tells the two apart."""

    def register(side: Side) -> Side:
        known = EQUATIONS[number]
        corrected = (*known.sides[:-1], side)
        EQUATIONS[number] = replace(
            known,
            corrected=corrected,
            corrected_latex=latex,
            reason=reason,
            counterexample=counterexample,
        )
        side.__doc__ = f"Eq. {number}, corrected: {known.quantity} ({known.steps})."
        return side

    return register


def gradient(f: Callable[[Array], Array], at: Array) -> Array:
    """Return the gradient of f by the complex step, laid out like the lab's: n x m.

    Entry (i.., k) is the derivative of f_k in at_i. f must broadcast over leading axes of its
    argument. There is no difference of nearly equal numbers, so the result is exact to rounding
    (Squire and Trapp, 1998).
    """
    step = 1e-20
    units = np.eye(at.size).reshape(at.size, *at.shape)
    slopes: Array = f(at + 1j * step * units).imag / step
    return slopes.reshape(*at.shape, *slopes.shape[1:])


def dot(matrix: Array, vector: Array) -> Array:
    """Matrix times vector, over leading axes of either."""
    return (matrix * vector[..., None, :]).sum(axis=-1)


def in_row(i: int, row: Array, n_rows: int) -> Array:
    """A matrix of zeros but for row i."""
    matrix = np.zeros((n_rows, len(row)))
    matrix[i] = row
    return matrix


# Exercise 1: the network, the loss, and what is to be shown --------------------------------------


@equation(
    1, "definition", "the states", EVERY,
    r"\mathbf{h}^{[t]} = \tanh\left(\mathbf{W}\mathbf{h}^{[t-1]} + \mathbf{U}\mathbf{x}^{[t]}"
    r" + \mathbf{b}\right)",
)  # fmt: skip
def eq1(s: Unrolled, t: int) -> Array:
    return tanh(s.W @ s.h[t - 1] + s.U @ s.x[t] + s.b)


@equation(
    2, "definition", "the outputs", EVERY,
    r"\mathbf{y}^{[t]} = \mathbf{V}\mathbf{h}^{[t]} + \mathbf{c}",
)  # fmt: skip
def eq2(s: Unrolled, t: int) -> Array:
    return s.V @ s.h[t] + s.c


@equation(
    3, "definition", "the loss, with squared error at each step", SUM,
    r"\mathcal{L} = \sum_{t=1}^{\tau} \mathcal{L}\left(\mathbf{y}^{[t]},"
    r" \hat{\mathbf{y}}^{[t]}\right)",
)  # fmt: skip
def eq3(s: Unrolled, t: int) -> Array:
    return np.sum((s.y[t] - s.target[t]) ** 2)


@equation(
    4, "result", "the gradient in the last state", LAST,
    r"\nabla_{\mathbf{h}^{[\tau]}} \mathcal{L} = \mathbf{V}^T"
    r" (\nabla_{\mathbf{y}^{[\tau]}} \mathcal{L})",
)  # fmt: skip
def eq4(s: Unrolled, t: int) -> Array:
    return s.V.T @ s.dy[t]


@equation(
    5, "result", "the gradient in every earlier state", BEFORE_THE_LAST,
    r"\nabla_{\mathbf{h}^{[t]}} \mathcal{L} = \mathbf{W}^T \mathrm{diag}\left(1 -"
    r" \left(\mathbf{h}^{[t+1]}\right)^2\right) (\nabla_{\mathbf{h}^{[t+1]}} \mathcal{L}) +"
    r" \mathbf{V}^T (\nabla_{\mathbf{y}^{[t]}} \mathcal{L})",
)  # fmt: skip
def eq5(s: Unrolled, t: int) -> Array:
    return s.W.T @ diag(1 - s.h[t + 1] ** 2) @ s.dh[t + 1] + s.V.T @ s.dy[t]


@equation(
    6, "result", "the gradient in c", SUM,
    r"\nabla_{\mathbf{c}} \mathcal{L} = \sum_{t=1}^{\tau} \nabla_{\mathbf{y}^{[t]}} \mathcal{L}",
)  # fmt: skip
def eq6(s: Unrolled, t: int) -> Array:
    return s.dy[t]


@equation(
    7, "result", "the gradient in b", SUM,
    r"\nabla_{\mathbf{b}} \mathcal{L} = \sum_{t=1}^{\tau} \mathrm{diag}\left(1 -"
    r" \left(\mathbf{h}^{[t]}\right)^2\right) \nabla_{\mathbf{h}^{[t]}} \mathcal{L}",
)  # fmt: skip
def eq7(s: Unrolled, t: int) -> Array:
    return diag(1 - s.h[t] ** 2) @ s.dh[t]


@equation(
    8, "result", "the gradient in V", SUM,
    r"\nabla_{\mathbf{V}} \mathcal{L} = \sum_{t=1}^{\tau} (\nabla_{\mathbf{y}^{[t]}} \mathcal{L})"
    r" {\mathbf{h}^{[t]}}^{T}",
)  # fmt: skip
def eq8(s: Unrolled, t: int) -> Array:
    return outer(s.dy[t], s.h[t])


@equation(
    9, "result", "the gradient in W", SUM,
    r"\nabla_{\mathbf{W}} \mathcal{L} = \sum_{t=1}^{\tau} \mathrm{diag}\left(1 -"
    r" \left(\mathbf{h}^{[t]}\right)^2\right) (\nabla_{\mathbf{h}^{[t]}} \mathcal{L})"
    r" {\mathbf{h}^{[t-1]}}^{T}",
)  # fmt: skip
def eq9(s: Unrolled, t: int) -> Array:
    return diag(1 - s.h[t] ** 2) @ outer(s.dh[t], s.h[t - 1])


@equation(
    10, "result", "the gradient in U", SUM,
    r"\nabla_{\mathbf{U}} \mathcal{L} = \sum_{t=1}^{\tau} \mathrm{diag}\left(1 -"
    r" \left(\mathbf{h}^{[t]}\right)^2\right) (\nabla_{\mathbf{h}^{[t]}} \mathcal{L})"
    r" {\mathbf{x}^{[t]}}^{T}",
)  # fmt: skip
def eq10(s: Unrolled, t: int) -> Array:
    return diag(1 - s.h[t] ** 2) @ outer(s.dh[t], s.x[t])


@equation(
    11, "step", "the chain rule, for x[t] to h[t] to the loss", EVERY,
    r"\nabla_{\mathbf{x}} z = \nabla_{\mathbf{x}} \mathbf{y} \cdot \nabla_{\mathbf{y}} z",
)  # fmt: skip
def eq11(s: Unrolled, t: int) -> Array:
    def f(x: Array) -> Array:
        return tanh(s.W @ s.h[t - 1] + dot(s.U, x) + s.b)

    return gradient(f, s.x[t]) @ s.dh[t]


# Exercise 1: the states --------------------------------------------------------------------------


@equation(
    12, "step", "the gradient in the last state", LAST,
    r"\nabla_{\mathbf{h}^{[\tau]}} \mathcal{L} = \nabla_{\mathbf{h}^{[\tau]}} \mathbf{y}^{[\tau]}"
    r" \cdot \nabla_{\mathbf{y}^{[\tau]}} \mathcal{L} = \mathbf{V}^T \cdot"
    r" \nabla_{\mathbf{y}^{[\tau]}} \mathcal{L}",
)  # fmt: skip
def eq12(s: Unrolled, t: int) -> Array:
    return s.V.T @ s.dy[t]


@middle(12)
def eq12_middle(s: Unrolled, t: int) -> Array:
    return gradient(lambda h: dot(s.V, h) + s.c, s.h[t]) @ s.dy[t]


@equation(
    13, "step", "the gradient in an earlier state, by its two paths", BEFORE_THE_LAST,
    r"\nabla_{\mathbf{h}^{[t]}} \mathcal{L} = \nabla_{\mathbf{h}^{[t]}} \mathbf{y}^{[t]} \cdot"
    r" \nabla_{\mathbf{y}^{[t]}} \mathcal{L} + \nabla_{\mathbf{h}^{[t]}} \mathbf{h}^{[t+1]} \cdot"
    r" \nabla_{\mathbf{h}^{[t+1]}} \mathcal{L}",
)  # fmt: skip
def eq13(s: Unrolled, t: int) -> Array:
    def y(h: Array) -> Array:
        return dot(s.V, h) + s.c

    return gradient(y, s.h[t]) @ s.dy[t] + eq14_middle(s, t) @ s.dh[t + 1]


@equation(
    14, "step", "the Jacobian of one step", BEFORE_THE_LAST,
    r"\nabla_{\mathbf{h}^{[t]}} \mathbf{h}^{[t+1]} = \nabla_{\mathbf{h}^{[t]}} \tanh\left("
    r"\mathbf{W}\mathbf{h}^{[t]} + \mathbf{U}\mathbf{x}^{[t+1]} + \mathbf{b}\right) ="
    r" \mathbf{W}^T \cdot \mathrm{diag}\left(1 - {\mathbf{h}^{[t]}}^2\right)",
)  # fmt: skip
def eq14(s: Unrolled, t: int) -> Array:
    return s.W.T @ diag(1 - s.h[t] ** 2)


@middle(14)
def eq14_middle(s: Unrolled, t: int) -> Array:
    return gradient(lambda h: tanh(dot(s.W, h) + s.U @ s.x[t + 1] + s.b), s.h[t])


@erratum(
    14,
    r"\nabla_{\mathbf{h}^{[t]}} \mathbf{h}^{[t+1]} = \mathbf{W}^T \cdot"
    r" \mathrm{diag}\left(1 - {\mathbf{h}^{[t+1]}}^2\right)",
    "The derivative of tanh is taken at the pre-activation of step t + 1, so it is"
    " 1 minus the square of the state at t + 1, not at t.",
    T=2,
    W=1,
    b=1,
)
def eq14_corrected(s: Unrolled, t: int) -> Array:
    return s.W.T @ diag(1 - s.h[t + 1] ** 2)


@equation(
    15, "step", "the gradient in an earlier state", BEFORE_THE_LAST,
    r"\nabla_{\mathbf{h}^{[t]}} \mathcal{L} = \mathbf{V}^T \cdot \nabla_{\mathbf{y}^{[t]}}"
    r" \mathcal{L} + \mathbf{W}^T \cdot \mathrm{diag}\left(1 - {\mathbf{h}^{[t]}}^2\right)"
    r" \cdot \nabla_{\mathbf{h}^{[t+1]}} \mathcal{L}",
)  # fmt: skip
def eq15(s: Unrolled, t: int) -> Array:
    return s.V.T @ s.dy[t] + s.W.T @ diag(1 - s.h[t] ** 2) @ s.dh[t + 1]


@erratum(
    15,
    r"\nabla_{\mathbf{h}^{[t]}} \mathcal{L} = \mathbf{V}^T \cdot \nabla_{\mathbf{y}^{[t]}}"
    r" \mathcal{L} + \mathbf{W}^T \cdot \mathrm{diag}\left(1 - {\mathbf{h}^{[t+1]}}^2\right)"
    r" \cdot \nabla_{\mathbf{h}^{[t+1]}} \mathcal{L}",
    "It inherits the time index from Eq. 14, and so contradicts Eq. 5, which it is meant to show.",
    T=2,
    W=1,
    b=1,
    V=1,
)
def eq15_corrected(s: Unrolled, t: int) -> Array:
    return s.V.T @ s.dy[t] + s.W.T @ diag(1 - s.h[t + 1] ** 2) @ s.dh[t + 1]


# Exercise 1: the biases --------------------------------------------------------------------------


@equation(
    16, "step", "the gradient in c", SUM,
    r"\nabla_{\mathbf{c}} \mathcal{L} = \sum_{t=1}^{\tau} \nabla_{\mathbf{c}} \mathbf{y}^{[t]}"
    r" \cdot \nabla_{\mathbf{y}^{[t]}} \mathcal{L} = \sum_{t=1}^{\tau}"
    r" \nabla_{\mathbf{y}^{[t]}} \mathcal{L}",
)  # fmt: skip
def eq16(s: Unrolled, t: int) -> Array:
    return s.dy[t]


@middle(16)
def eq16_middle(s: Unrolled, t: int) -> Array:
    return gradient(lambda c: s.V @ s.h[t] + c, s.c) @ s.dy[t]


@equation(
    17, "step", "the gradient in b", SUM,
    r"\nabla_{\mathbf{b}} \mathcal{L} = \sum_{t=1}^{\tau} \nabla_{\mathbf{b}} \mathbf{h}^{[t]}"
    r" \cdot \nabla_{\mathbf{h}^{[t]}} \mathcal{L} = \sum_{t=1}^{\tau} \mathrm{diag}\left("
    r"1 - {\mathbf{h}^{[t]}}^2\right) \cdot \nabla_{\mathbf{h}^{[t]}} \mathcal{L}",
)  # fmt: skip
def eq17(s: Unrolled, t: int) -> Array:
    return diag(1 - s.h[t] ** 2) @ s.dh[t]


@middle(17)
def eq17_middle(s: Unrolled, t: int) -> Array:
    return gradient(lambda b: tanh(s.W @ s.h[t - 1] + s.U @ s.x[t] + b), s.b) @ s.dh[t]


# Exercise 1: V -----------------------------------------------------------------------------------


@equation(
    18, "step", "the gradient in V, through a copy of V at each step", SUM,
    r"\nabla_{\mathbf{V}} \mathcal{L} = \sum_{t=1}^{\tau} \nabla_{\mathbf{V}^{[t]}}"
    r" \mathbf{y}^{[t]} \cdot \nabla_{\mathbf{y}^{[t]}} \mathcal{L}",
)  # fmt: skip
def eq18(s: Unrolled, t: int) -> Array:
    return gradient(lambda V: dot(V, s.h[t]) + s.c, s.V) @ s.dy[t]  # (n, m, n) times (n,)


@equation(
    19, "definition", "an entry of the gradient in V", "once",
    r"(\nabla_{\mathbf{V}} \mathcal{L})_{ij} = \frac{\partial}{\partial V_{ij}} \mathcal{L}",
)  # fmt: skip
def eq19(s: Unrolled, t: int) -> Array:
    def loss(V: Array) -> Array:
        terms = [(dot(V, s.h[k]) + s.c - s.target[k]) ** 2 for k in range(1, s.tau + 1)]
        return np.sum(terms, axis=(0, -1))

    return gradient(loss, s.V)


@equation(
    20, "step", "the same, through every output", SUM,
    r"= \sum_{t=1}^{\tau} \sum_{k=1}^{n} \frac{\partial \mathcal{L}}{\partial y_k^{[t]}} \cdot"
    r" \frac{\partial y_k^{[t]}}{\partial V_{ij}^{[t]}}",
)  # fmt: skip
def eq20(s: Unrolled, t: int) -> Array:
    return np.einsum("k,ijk->ij", s.dy[t], gradient(lambda V: dot(V, s.h[t]) + s.c, s.V))


@equation(
    21, "step", "the same, with the product written out", SUM,
    r"= \sum_{t=1}^{\tau} \sum_{k=1}^{n} \frac{\partial \mathcal{L}}{\partial y_k^{[t]}} \cdot"
    r" \frac{\partial}{\partial V_{ij}^{[t]}} \sum_{\ell=1}^{m} V_{k\ell}^{[t]} h_\ell^{[t]}",
)  # fmt: skip
def eq21(s: Unrolled, t: int) -> Array:
    def sum_over_l(V: Array) -> Array:
        return np.einsum("...kl,l->...k", V, s.h[t])

    return np.einsum("k,ijk->ij", s.dy[t], gradient(sum_over_l, s.V))


@equation(
    22, "step", "the same, with Kronecker's delta", SUM,
    r"= \sum_{t=1}^{\tau} \sum_{k=1}^{n} \frac{\partial \mathcal{L}}{\partial y_k^{[t]}} \cdot"
    r" \delta_{ik} h_j^{[t]}",
)  # fmt: skip
def eq22(s: Unrolled, t: int) -> Array:
    return np.einsum("k,ik,j->ij", s.dy[t], np.eye(len(s.c)), s.h[t])


@equation(
    23, "step", "the same, with the sum over k done", SUM,
    r"= \sum_{t=1}^{\tau} \frac{\partial \mathcal{L}}{\partial y_i^{[t]}} \cdot h_j^{[t]}",
)  # fmt: skip
def eq23(s: Unrolled, t: int) -> Array:
    return np.einsum("i,j->ij", s.dy[t], s.h[t])


@equation(
    24, "step", "the gradient in V, by outer products", SUM,
    r"\nabla_{\mathbf{V}} \mathcal{L} = \sum_{t=1}^{\tau} \nabla_{\mathbf{y}^{[t]}} \mathcal{L}"
    r" \cdot {\mathbf{h}^{[t]}}^{T}",
)  # fmt: skip
def eq24(s: Unrolled, t: int) -> Array:
    return outer(s.dy[t], s.h[t])


@equation(
    25, "step", "the gradient in V, row by row", SUM,
    r"\nabla_{\mathbf{V}} \mathcal{L} = \sum_{t=1}^{\tau} \sum_{i=1}^{n} \nabla_{\mathbf{V}}"
    r" y_i^{[t]} \cdot \nabla_{y_i^{[t]}} \mathcal{L}",
)  # fmt: skip
def eq25(s: Unrolled, t: int) -> Array:
    n = len(s.c)
    return sum((in_row(i, s.h[t], n) * s.dy[t][i] for i in range(n)), np.zeros_like(s.V))


# Exercise 1: W and U -----------------------------------------------------------------------------


@equation(
    26, "step", "the gradient in W, unit by unit", SUM,
    r"\nabla_{\mathbf{W}} \mathcal{L} = \sum_{t=1}^{\tau} \nabla_{\mathbf{W}} \mathbf{h}^{[t]}"
    r" \cdot \nabla_{\mathbf{h}^{[t]}} \mathcal{L} = \sum_{t=1}^{\tau} \sum_{i=1}^{n}"
    r" \nabla_{\mathbf{W}} h_i^{[t]} \cdot \nabla_{h_i^{[t]}} \mathcal{L}",
)  # fmt: skip
def eq26(s: Unrolled, t: int) -> Array:
    dh_dW = gradient(lambda W: tanh(dot(W, s.h[t - 1]) + s.U @ s.x[t] + s.b), s.W)
    return sum((dh_dW[..., i] * s.dh[t][i] for i in range(len(s.b))), np.zeros_like(s.W))


@middle(26)
def eq26_middle(s: Unrolled, t: int) -> Array:
    dh_dW = gradient(lambda W: tanh(dot(W, s.h[t - 1]) + s.U @ s.x[t] + s.b), s.W)
    return dh_dW @ s.dh[t]


@equation(
    27, "step", "row i of the gradient of unit i in W", EVERY,
    r"\nabla_{\mathbf{W}} h_i^{[t]} = \left(1 - {h_i^{[t]}}^2\right) \cdot"
    r" {\mathbf{h}^{[t-1]}}^{T}",
)  # fmt: skip
def eq27(s: Unrolled, t: int) -> Array:
    return np.stack([(1 - s.h[t][i] ** 2) * s.h[t - 1] for i in range(len(s.b))])


@equation(
    28, "step", "the gradient in W", SUM,
    r"\nabla_{\mathbf{W}} \mathcal{L} = \sum_{t=1}^{\tau} \sum_{i=1}^{n} \nabla_{\mathbf{W}}"
    r" h_i^{[t]} \cdot \nabla_{h_i^{[t]}} \mathcal{L} = \sum_{t=1}^{\tau}"
    r" \mathrm{diag}\left(1 - {\mathbf{h}^{[t]}}^2\right) \cdot"
    r" \nabla_{\mathbf{y}^{[t]}} \mathcal{L} \cdot {\mathbf{h}^{[t-1]}}^{T}",
)  # fmt: skip
def eq28(s: Unrolled, t: int) -> Array:
    return diag(1 - s.h[t] ** 2) @ outer(s.dy[t], s.h[t - 1])


@middle(28)
def eq28_middle(s: Unrolled, t: int) -> Array:
    n, rows = len(s.b), eq27(s, t)
    return sum((in_row(i, rows[i], n) * s.dh[t][i] for i in range(n)), np.zeros_like(s.W))


@erratum(
    28,
    r"\nabla_{\mathbf{W}} \mathcal{L} = \sum_{t=1}^{\tau} \mathrm{diag}\left(1 -"
    r" {\mathbf{h}^{[t]}}^2\right) \cdot \nabla_{\mathbf{h}^{[t]}} \mathcal{L} \cdot"
    r" {\mathbf{h}^{[t-1]}}^{T}",
    "The gradient in the output stands where the gradient in the state belongs (compare Eq. 9)."
    " Unless there are as many outputs as hidden units, the product does not even exist.",
    h0=1,
    target=1,
)
def eq28_corrected(s: Unrolled, t: int) -> Array:
    return diag(1 - s.h[t] ** 2) @ outer(s.dh[t], s.h[t - 1])


@equation(
    29, "step", "the gradient in U", SUM,
    r"\nabla_{\mathbf{U}} \mathcal{L} = \sum_{t=1}^{\tau} \nabla_{\mathbf{U}} \mathbf{h}^{[t]}"
    r" \cdot \nabla_{\mathbf{h}^{[t]}} \mathcal{L} = \sum_{t=1}^{\tau} \sum_{i=1}^{n}"
    r" \nabla_{\mathbf{U}} h_i^{[t]} \cdot \nabla_{h_i^{[t]}} \mathcal{L} = \sum_{t=1}^{\tau}"
    r" \mathrm{diag}\left(1 - {\mathbf{h}^{[t]}}^2\right) \cdot"
    r" \nabla_{\mathbf{y}^{[t]}} \mathcal{L} \cdot {\mathbf{x}^{[t]}}^{T}",
)  # fmt: skip
def eq29(s: Unrolled, t: int) -> Array:
    return diag(1 - s.h[t] ** 2) @ outer(s.dy[t], s.x[t])


@middle(29)
def eq29_tensor(s: Unrolled, t: int) -> Array:
    dh_dU = gradient(lambda U: tanh(s.W @ s.h[t - 1] + dot(U, s.x[t]) + s.b), s.U)
    return dh_dU @ s.dh[t]


@middle(29)
def eq29_rows(s: Unrolled, t: int) -> Array:
    dh_dU = gradient(lambda U: tanh(s.W @ s.h[t - 1] + dot(U, s.x[t]) + s.b), s.U)
    return sum((dh_dU[..., i] * s.dh[t][i] for i in range(len(s.b))), np.zeros_like(s.U))


@erratum(
    29,
    r"\nabla_{\mathbf{U}} \mathcal{L} = \sum_{t=1}^{\tau} \mathrm{diag}\left(1 -"
    r" {\mathbf{h}^{[t]}}^2\right) \cdot \nabla_{\mathbf{h}^{[t]}} \mathcal{L} \cdot"
    r" {\mathbf{x}^{[t]}}^{T}",
    "As in Eq. 28, the gradient in the output stands where the gradient in the state belongs"
    " (compare Eq. 10).",
    x=1,
    target=1,
)
def eq29_corrected(s: Unrolled, t: int) -> Array:
    return diag(1 - s.h[t] ** 2) @ outer(s.dh[t], s.x[t])


# Exercise 2: one scalar output after the last step, L = (y - y-hat)^2 ----------------------------

SIGN = (
    "With y the output and y-hat the truth, as in Eqs. 2 and 3, the derivative of (y - y-hat)^2 in"
    " y is 2 (y - y-hat): Exercise 2 swaps the two, except in Eq. 34."
)


@equation(
    30, "result", "Exercise 2: the gradient in the last state", LAST,
    r"\nabla_{\mathbf{h}^{[\tau]}} \mathcal{L} = 2(\hat{y} - y) \mathbf{V}^T",
)  # fmt: skip
def eq30(s: Unrolled, t: int) -> Array:
    return (2 * (s.target[t] - s.y[t]) * s.V.T)[:, 0]


@erratum(
    30,
    r"\nabla_{\mathbf{h}^{[\tau]}} \mathcal{L} = 2(y - \hat{y}) \mathbf{V}^T",
    SIGN,
    V=1,
    target=1,
)
def eq30_corrected(s: Unrolled, t: int) -> Array:
    return (2 * (s.y[t] - s.target[t]) * s.V.T)[:, 0]


@equation(
    31, "result", "Exercise 2: the gradient in every earlier state", BEFORE_THE_LAST,
    r"\nabla_{\mathbf{h}^{[t]}} \mathcal{L} = \mathbf{W}^T \cdot \mathrm{diag}\left(1 -"
    r" {\mathbf{h}^{[t+1]}}^2\right) \cdot \nabla_{\mathbf{h}^{[t+1]}} \mathcal{L}",
)  # fmt: skip
def eq31(s: Unrolled, t: int) -> Array:
    return s.W.T @ diag(1 - s.h[t + 1] ** 2) @ s.dh[t + 1]


@equation(
    32, "result", "Exercise 2: the gradient in c", LAST,
    r"\nabla_{\mathbf{c}} \mathcal{L} = 2(\hat{y} - y)",
)  # fmt: skip
def eq32(s: Unrolled, t: int) -> Array:
    return 2 * (s.target[t] - s.y[t])


@erratum(32, r"\nabla_{\mathbf{c}} \mathcal{L} = 2(y - \hat{y})", SIGN, target=1)
def eq32_corrected(s: Unrolled, t: int) -> Array:
    return 2 * (s.y[t] - s.target[t])


@equation(
    33, "result", "Exercise 2: the gradient in V", LAST,
    r"\nabla_{\mathbf{V}} \mathcal{L} = 2(\hat{y} - y) {\mathbf{h}^{[\tau]}}^{T}",
)  # fmt: skip
def eq33(s: Unrolled, t: int) -> Array:
    return 2 * (s.target[t] - s.y[t]) * s.h[t][None, :]


@erratum(
    33,
    r"\nabla_{\mathbf{V}} \mathcal{L} = 2(y - \hat{y}) {\mathbf{h}^{[\tau]}}^{T}",
    SIGN,
    b=1,
    target=1,
)
def eq33_corrected(s: Unrolled, t: int) -> Array:
    return 2 * (s.y[t] - s.target[t]) * s.h[t][None, :]


@equation(
    34, "step", "Exercise 2: the gradient in the last state", LAST,
    r"\nabla_{\mathbf{h}^{[\tau]}} \mathcal{L} = \mathbf{V}^T \cdot"
    r" \nabla_{\mathbf{y}^{[\tau]}} \mathcal{L} = \mathbf{V}^T \cdot 2(y - \hat{y})",
)  # fmt: skip
def eq34(s: Unrolled, t: int) -> Array:
    return s.V.T @ (2 * (s.y[t] - s.target[t]))


@middle(34)
def eq34_middle(s: Unrolled, t: int) -> Array:
    return s.V.T @ gradient(lambda y: ((y - s.target[t]) ** 2).sum(axis=-1), s.y[t])


@equation(
    35, "step", "Exercise 2: the gradient in every earlier state", BEFORE_THE_LAST,
    r"\nabla_{\mathbf{h}^{[t]}} \mathcal{L} = \nabla_{\mathbf{h}^{[t]}} \mathbf{h}^{[t+1]} \cdot"
    r" \nabla_{\mathbf{h}^{[t+1]}} \mathcal{L} = \mathbf{W}^T \cdot \mathrm{diag}\left(1 -"
    r" {\mathbf{h}^{[t]}}^2\right) \cdot \nabla_{\mathbf{h}^{[t+1]}} \mathcal{L}",
)  # fmt: skip
def eq35(s: Unrolled, t: int) -> Array:
    return s.W.T @ diag(1 - s.h[t] ** 2) @ s.dh[t + 1]


@middle(35)
def eq35_middle(s: Unrolled, t: int) -> Array:
    return eq14_middle(s, t) @ s.dh[t + 1]


@erratum(
    35,
    r"\nabla_{\mathbf{h}^{[t]}} \mathcal{L} = \mathbf{W}^T \cdot \mathrm{diag}\left(1 -"
    r" {\mathbf{h}^{[t+1]}}^2\right) \cdot \nabla_{\mathbf{h}^{[t+1]}} \mathcal{L}",
    "The time index of Eq. 14 again; Eq. 31, which it is meant to show, has it right.",
    T=2,
    W=1,
    b=1,
    V=1,
)
def eq35_corrected(s: Unrolled, t: int) -> Array:
    return s.W.T @ diag(1 - s.h[t + 1] ** 2) @ s.dh[t + 1]


@equation(
    36, "step", "Exercise 2: the gradient in c", LAST,
    r"\nabla_{\mathbf{c}} \mathcal{L} = \nabla_{\mathbf{c}} \mathbf{y}^{[\tau]} \cdot"
    r" \nabla_{\mathbf{y}^{[\tau]}} \mathcal{L} = 2(\hat{y} - y)",
)  # fmt: skip
def eq36(s: Unrolled, t: int) -> Array:
    return 2 * (s.target[t] - s.y[t])


@middle(36)
def eq36_middle(s: Unrolled, t: int) -> Array:
    return gradient(lambda c: s.V @ s.h[t] + c, s.c) @ s.dy[t]


@erratum(36, r"\nabla_{\mathbf{c}} \mathcal{L} = 2(y - \hat{y})", SIGN, target=1)
def eq36_corrected(s: Unrolled, t: int) -> Array:
    return 2 * (s.y[t] - s.target[t])


@equation(
    37, "step", "Exercise 2: the gradient in V", LAST,
    r"\nabla_{\mathbf{V}} \mathcal{L} = \nabla_{\mathbf{V}} \mathbf{y}^{[\tau]} \cdot"
    r" \nabla_{\mathbf{y}^{[\tau]}} \mathcal{L} = 2(\hat{y} - y) {\mathbf{h}^{[\tau]}}^{T}",
)  # fmt: skip
def eq37(s: Unrolled, t: int) -> Array:
    return 2 * (s.target[t] - s.y[t]) * s.h[t][None, :]


@middle(37)
def eq37_middle(s: Unrolled, t: int) -> Array:
    return gradient(lambda V: dot(V, s.h[t]) + s.c, s.V) @ s.dy[t]


@erratum(
    37,
    r"\nabla_{\mathbf{V}} \mathcal{L} = 2(y - \hat{y}) {\mathbf{h}^{[\tau]}}^{T}",
    SIGN,
    b=1,
    target=1,
)
def eq37_corrected(s: Unrolled, t: int) -> Array:
    return 2 * (s.y[t] - s.target[t]) * s.h[t][None, :]


# The equations at work ---------------------------------------------------------------------------


@reports_overflow
def unroll(params: Any, x: Any, h0: Any, target: Any) -> Unrolled:
    """Compute every quantity of one sequence by the equations themselves: 1, 2, then 4 and 5.

    Parameters
    ----------
    params : Params
        The parameters.
    x : array_like, (T, D)
        One sequence of inputs.
    h0 : array_like, (H,), or None
        The initial state; zeros if None.
    target : array_like, (T, O) or (O,)
        The truth at every step (Exercise 1), or at the last one alone (Exercise 2). The loss is the
        squared error.

    Raises
    ------
    TypeError, ValueError
        As ``forward`` does; also if target has neither shape.
    """
    require_labs_cell(params)
    params = as_params(params, check_finite=True)
    x = as_inputs(params, x, check_finite=True)
    if x.ndim != 2:
        raise ValueError(f"x has shape {x.shape}; expected (T, D): one sequence")
    h0 = as_state("h0", h0, params, (), check_finite=True)
    (T, D), H, O = x.shape, len(params.b), len(params.c)
    target = require_finite("target", np.asarray(target, float))
    if target.shape not in ((T, O), (O,)):
        raise ValueError(f"target has shape {target.shape}; expected (T, O) = {(T, O)} or (O,)")
    s = Unrolled(*params, *(np.full((T + 1, n), np.nan) for n in (D, H, O, O, O, H)))
    s.x[1:], s.h[0], s.target[1:] = x, h0, target
    for t in range(1, T + 1):
        s.h[t] = eq1(s, t)
        s.y[t] = eq2(s, t)
    s.dy[1:] = 0 if target.ndim == 1 else 2 * (s.y[1:] - s.target[1:])
    s.dy[T] = 2 * (s.y[T] - s.target[T])
    s.dh[T] = eq4(s, T)
    for t in range(T - 1, 0, -1):
        s.dh[t] = eq5(s, t)
    s.dh[0] = s.W.T @ diag(1 - s.h[1] ** 2) @ s.dh[1]  # Eq. 5 without an output at step 0
    return s


@reports_overflow
def evaluate(side: Side, steps: str, s: Unrolled) -> Array:
    """Return one member of an equation for every t that it is stated for; terms, if it is a sum."""
    if steps in (LAST, "once"):
        return side(s, s.tau)
    end = s.tau if steps == BEFORE_THE_LAST else s.tau + 1
    return np.stack([side(s, t) for t in range(1, end)])


def smallest(equation: Equation) -> tuple[Params, Array, Array, Array]:
    """Return (params, x, h0, target) of an erratum's counterexample."""
    given = dict(equation.counterexample)
    T = int(given.pop("T", 1))
    shapes = {"W": (1, 1), "U": (1, 1), "b": (1,), "V": (1, 1), "c": (1,), "x": (T, 1), "h0": (1,)}
    shapes["target"] = (T, 1) if equation.exercise == 1 else (1,)
    arrays = {k: np.full(shape, float(given.pop(k, 0))) for k, shape in shapes.items()}
    params = Params(*(arrays[k] for k in Params._fields))
    return params, arrays["x"], arrays["h0"], arrays["target"]


def demonstrate(equation: Equation) -> tuple[Unrolled, Array, Array]:
    """Return an erratum's counterexample, unrolled, and its printed and corrected last members."""
    s = unroll(*smallest(equation))
    values = (
        evaluate(form[-1], equation.steps, s) for form in (equation.sides, equation.corrected)
    )
    printed, corrected = (v.sum(axis=0) if equation.steps == SUM else v for v in values)
    return s, printed, corrected


def derivation(params: Any, x: Any, h0: Any, target: Any) -> dict[int, dict[str, list[Any]]]:
    """Evaluate all equations of an exercise on one sequence; the shape of target says which.

    Returns
    -------
    dict
        For each number ``{"printed": members, "corrected": members}``, the second empty where
        nothing is to be corrected. A member is an array, with one entry for each t that the
        equation is stated for or for each term of its sum, or the ValueError of a product that does
        not exist. An equation that is stated for no t, since T = 1, is left out.
    """
    s = unroll(params, x, h0, target)
    exercise = 1 if np.ndim(target) == 2 else 2

    def value(side: Side, steps: str) -> Any:
        try:
            return evaluate(side, steps, s)
        except ValueError as error:  # the product of such shapes does not exist
            return error

    return {
        e.number: {
            "printed": [value(side, e.steps) for side in e.sides],
            "corrected": [value(side, e.steps) for side in e.corrected],
        }
        for e in EQUATIONS.values()
        if e.exercise == exercise and not (e.steps == BEFORE_THE_LAST and s.tau == 1)
    }


def literal(params: Any, x: Any, h0: Any, target: Any) -> dict[str, Array]:
    """Return all gradients of one sequence by the literal Eqs. 4-10, and dx by Eq. 11.

    A third route beside ``backward`` and autodiff, in the form that a comparison takes.
    """
    s = unroll(params, x, h0, target)
    totals = {"c": eq6, "b": eq7, "V": eq8, "W": eq9, "U": eq10}
    grads = {k: evaluate(side, SUM, s).sum(axis=0) for k, side in totals.items()}
    return {**grads, "x": evaluate(eq11, EVERY, s), "h0": s.dh[0], "h": s.dh}
