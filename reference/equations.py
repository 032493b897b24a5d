"""The left-hand sides of the lab's 37 equations, by autodiff, and whether the right sides agree.

A derivation is judged like a candidate: it is a function ``derivation(params, x, h0, target)`` that
returns the members of each equation, as printed and as corrected, for one sequence. What stands on
the left is computed here from the network and its loss alone, by ``jax.grad`` and ``jax.jacobian``:
totals, gradients at every state, the contributions of a parameter's separate copies at every step
(the terms of a sum over t), and Jacobians of one step.

An equation holds if every member equals its left-hand side in every problem, up to what rounding
can explain: five times the largest deviation in eight runs with an error in every operation that
rounds, separately for each time step, plus gamma_n times the sum of the magnitudes of a sum's
terms (see ``reference.rounding.whole``).
"""

from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import lru_cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from reference import jaxprs
from reference.devices import float64_on_cpu
from reference.network import CELLS
from reference.network.sequence import PARAMETERS, output
from reference.oracle.answers import chunks
from reference.oracle.padding import Shape, padded, stack
from reference.problems import Problem, random_problem
from reference.report import json_value
from reference.rounding.known import gamma
from reference.rounding.noise import Noise, evaluate
from reference.rounding.tolerance import FLUSHED, decides, over_tolerance
from reference.rounding.whole import OF_DEVIATION, deviates, largest

LABS = CELLS["tanh"]
Derivation = Callable[[Any, Any, Any, Any], Mapping[int, Mapping[str, list[Any]]]]


class Quantities(NamedTuple):
    """What autodiff knows of one sequence; every array but the totals has time as its first axis.

    ``loss`` (T,) holds the loss of each step; ``h dh`` start at h[1], ``x y dx`` at t = 1; ``W`` to
    ``c`` are the gradients of the total loss and ``W_t`` to ``c_t`` the contributions of the copies
    at each step; ``h_h`` holds the gradient of h[t+1] in h[t] (rows: h[t]) for t = 1 .. T - 1, and
    ``h_W`` (T, H, H) the i-th row of the gradient of h_i[t] in W.
    """

    loss: Any
    h: Any
    y: Any
    dh: Any
    dx: Any
    W: Any
    U: Any
    b: Any
    V: Any
    c: Any
    W_t: Any
    U_t: Any
    b_t: Any
    V_t: Any
    c_t: Any
    h_h: Any
    h_W: Any


# What stands on the left of each equation: a quantity, and for which t it is meant.
LEFT = {
    1: ("h", "every"),
    2: ("y", "every"),
    3: ("loss", "sum"),
    4: ("dh", "last"),
    5: ("dh", "before the last"),
    6: ("c", "sum"),
    7: ("b", "sum"),
    8: ("V", "sum"),
    9: ("W", "sum"),
    10: ("U", "sum"),
    11: ("dx", "every"),
    12: ("dh", "last"),
    13: ("dh", "before the last"),
    14: ("h_h", "before the last"),
    15: ("dh", "before the last"),
    16: ("c", "sum"),
    17: ("b", "sum"),
    18: ("V", "sum"),
    19: ("V", "total"),
    20: ("V", "sum"),
    21: ("V", "sum"),
    22: ("V", "sum"),
    23: ("V", "sum"),
    24: ("V", "sum"),
    25: ("V", "sum"),
    26: ("W", "sum"),
    27: ("h_W", "every"),
    28: ("W", "sum"),
    29: ("U", "sum"),
    30: ("dh", "last"),
    31: ("dh", "before the last"),
    32: ("c", "total"),
    33: ("V", "total"),
    34: ("dh", "last"),
    35: ("dh", "before the last"),
    36: ("c", "total"),
    37: ("V", "total"),
}


def quantities(variables: Any, arguments: Any) -> Quantities:
    """Return what autodiff knows of one sequence.

    variables and arguments are those of ``oracle.padded``; the sequence is the first of the batch.
    """
    params, x, h0, _ = variables
    x, h0, target, weights = x[:, 0], h0[0], arguments[0][:, 0], arguments[1][:, 0]
    T, H = len(x), len(h0)
    copies = {k: jnp.zeros((T, *params[k].shape)) for k in PARAMETERS}

    def losses(params: Any, copies: Any, x: Any, probes: Any) -> Any:
        def step(h: Any, inputs: Any) -> Any:
            own, x_t, probe, target_t, weight = inputs
            at_t = {k: params[k] + own[k] for k in PARAMETERS}
            h = LABS.step(at_t, h, x_t) + probe  # Eq. 1
            y = output(at_t, h)  # Eq. 2
            loss = jnp.sum(weight * (y - target_t) ** 2)  # Eq. 3
            return h, (loss, h, y)

        return jax.lax.scan(step, h0, (copies, x, probes, target, weights))[1]

    def total(*arguments: Any) -> Any:
        loss, h, y = losses(*arguments)
        return loss.sum(), (loss, h, y)

    grad = jax.grad(total, argnums=(0, 1, 2, 3), has_aux=True)
    (d, d_copies, dx, dh), (loss, h, y) = grad(params, copies, x, jnp.zeros((T, H)))
    before = jnp.concatenate([h0[None], h[:-1]])
    in_h = jax.jacobian(LABS.step, argnums=1)
    in_W = jax.jacobian(lambda W, h, x_t: LABS.step({**params, "W": W}, h, x_t))
    h_h = jax.vmap(in_h, in_axes=(None, 0, 0))(params, before, x)
    h_W = jax.vmap(in_W, in_axes=(None, 0, 0))(params["W"], before, x)
    own_rows = jnp.einsum("tiij->tij", h_W)
    contributions = {f"{k}_t": d_copies[k] for k in PARAMETERS}
    jacobians = {"h_h": jnp.swapaxes(h_h, 1, 2)[1:], "h_W": own_rows}
    return Quantities(loss=loss, h=h, y=y, dh=dh, dx=dx, **d, **contributions, **jacobians)


def _tolerances(
    jaxpr: Any, variables: Any, arguments: Any, plain: Quantities, xi: Any, u: Any
) -> Quantities:
    """Return the tolerances of quantities, which are not computed again."""
    leaves = jax.tree.leaves((variables, arguments))
    runs = jax.vmap(lambda xi: Quantities(*evaluate(jaxpr, leaves, Noise(xi, u))))(xi)

    def tolerance(name: str) -> Any:
        value, perturbed = getattr(plain, name), getattr(runs, name)
        axes = (0, *range(1 if name in PARAMETERS else 2, perturbed.ndim))
        deviation = largest(perturbed - value, axes)
        deviation = deviation.reshape(deviation.shape + (1,) * (value.ndim - deviation.ndim))
        rounding = jnp.abs(value)
        if name in PARAMETERS:
            rounding = jnp.abs(getattr(plain, f"{name}_t")).sum(axis=0)
        n = len(plain.loss) + 2
        flushed = FLUSHED * n * np.finfo(np.float64).tiny
        return OF_DEVIATION * deviation + 2 * gamma(n, u) * rounding + flushed

    return Quantities(*(tolerance(name) for name in Quantities._fields))


@lru_cache(maxsize=8)
def _programs(shape: Shape) -> tuple[Any, jaxprs.Tiered]:
    """Return the quantities of padded problems, which XLA computes, and their tolerances."""
    problem = random_problem(**shape._asdict(), regime="linear", seed=0)
    one = padded(problem, shape)
    values, stacked = jax.jit(jax.vmap(quantities)), stack([one], shape)
    of_one = partial(_tolerances, jaxprs.traced(quantities, *one)[0])
    of_many = jax.vmap(of_one, in_axes=(0, 0, 0, None, None))
    return values, jaxprs.Tiered(of_many, *stacked, values(*stacked), deviates(), 0.0)


def left_hand_sides(
    problems: Iterable[Problem],
) -> Iterator[tuple[Problem, Quantities, Quantities]]:
    """Yield each problem, a single sequence, with autodiff's quantities and their tolerances."""
    for group, shape, kind in chunks(problems):
        if kind.loss is not None or any("B" in problem.sizes for problem in group):
            raise ValueError("equations are about one sequence and a squared error")
        stacked = stack([padded(p, shape) for p in group], shape)
        with float64_on_cpu():
            of, within = _programs(shape)
            values = of(*stacked)
            tolerances = within(*stacked, values, deviates(), 2.0**-53)
            values, tolerances = jax.tree.map(np.asarray, (values, tolerances))
        for i, problem in enumerate(group):
            cut = [
                Quantities(*(_cut(k, a[i], problem) for k, a in q._asdict().items()))
                for q in (values, tolerances)
            ]
            yield problem, cut[0], cut[1]


def _cut(name: str, array: np.ndarray, problem: Problem) -> np.ndarray:
    """Return one quantity of one problem without the padding."""
    T, D, H, O = (problem.sizes[k] for k in "TDHO")
    parameters = {"W": (H, H), "U": (H, D), "b": (H,), "V": (O, H), "c": (O,)}
    outlines = {
        "loss": (T,), "h": (T, H), "y": (T, O), "dh": (T, H), "dx": (T, D),
        **parameters, **{f"{k}_t": (T, *shape) for k, shape in parameters.items()},
        "h_h": (T - 1, H, H), "h_W": (T, H, H),
    }  # fmt: skip
    return array[tuple(map(slice, outlines[name]))]


@dataclass
class EquationRow:
    """The verdict on one equation over all problems.

    ``status`` is ``definition``, ``holds``, ``erratum`` (it is false as printed and the corrected
    form holds) or ``fails``. ``worst_ratio`` is the largest error over its tolerance of the form
    that is meant to hold; ``printed_ratio`` that of the printed form over the problems in which its
    products exist, and ``printed_exists`` whether those are all. ``cases`` counts the problems that
    decide.
    """

    number: int
    status: str
    printed_holds: bool
    corrected_holds: bool | None
    worst_ratio: float
    printed_ratio: float
    printed_exists: bool
    cases: int
    undecided: int
    worst_problem: str
    counterexample: str

    def as_dict(self) -> dict[str, Any]:
        """Return the row as JSON values."""
        return {k: json_value(v) for k, v in asdict(self).items()}


class _Form:
    """One form of one equation, printed or corrected, over all problems."""

    def __init__(self) -> None:
        self.ratio, self.worst, self.cases, self.undecided = 0.0, "", 0, 0
        self.exists, self.broken_by = True, ""

    def add(self, ratio: float | None, exists: bool, problem: Problem) -> None:
        if ratio is None:
            self.undecided += 1
            return
        self.cases += 1
        self.exists &= exists
        if exists and (not ratio <= self.ratio or not self.worst):
            self.ratio, self.worst = ratio, problem.origin
        if not ratio <= 1 and not self.broken_by:
            self.broken_by = problem.origin

    @property
    def holds(self) -> bool:
        return self.cases > 0 and not self.broken_by


def judge_equations(
    derivation: Derivation, problems: Iterable[Problem], definitions: Container[int]
) -> list[EquationRow]:
    """Return a verdict for each of the 37 equations.

    Parameters
    ----------
    derivation : callable
        ``(params, x, h0, target) -> {number: {"printed": members, "corrected": members}}``; a
        member is an array, by t or by term where the equation has those, or an exception for a
        product that does not exist. ``"corrected"`` is empty where nothing is to be corrected.
    problems : iterable of Problem
        Single sequences; those with the loss ``"squared_error"`` decide Eqs. 1-29 (Exercise 1) and
        those with ``"last_step_squared_error"`` Eqs. 30-37 (Exercise 2).
    definitions : container of int
        Equations that define a symbol rather than claim something.
    """
    printed: dict[int, _Form] = {n: _Form() for n in LEFT}
    corrected: dict[int, _Form] = {}
    for problem, values, tolerances in left_hand_sides(problems):
        found = derivation(problem.params, problem.x, problem.h0, problem.target)
        for number, forms in found.items():
            left = _left(number, values, tolerances)
            exists = not any(isinstance(side, Exception) for side in forms["printed"])
            printed[number].add(_ratio(left, forms["printed"]), exists, problem)
            if forms["corrected"]:
                form = corrected.setdefault(number, _Form())
                form.add(_ratio(left, forms["corrected"]), True, problem)
    return [_row(n, printed[n], corrected.get(n), n in definitions) for n in LEFT]


def _row(number: int, printed: _Form, corrected: _Form | None, definition: bool) -> EquationRow:
    if corrected is None:
        good = "definition" if definition else "holds"
        status = good if printed.holds else "fails"
    else:
        status = "erratum" if corrected.holds and not printed.holds else "fails"
    meant = corrected or printed
    return EquationRow(
        number=number,
        status=status,
        printed_holds=printed.holds,
        corrected_holds=corrected.holds if corrected else None,
        worst_ratio=meant.ratio,
        printed_ratio=printed.ratio,
        printed_exists=printed.exists,
        cases=meant.cases,
        undecided=meant.undecided,
        worst_problem=meant.worst,
        counterexample=printed.broken_by,
    )


def _left(
    number: int, values: Quantities, tolerances: Quantities
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return (value, tolerance) of a left-hand side; of the sum and of its terms, if it is one."""
    name, steps = LEFT[number]

    def pair(name: str, steps: Any = slice(None)) -> tuple[np.ndarray, np.ndarray]:
        return getattr(values, name)[steps], getattr(tolerances, name)[steps]

    if name == "loss":
        value, tolerance = pair("loss")
        return [(value.sum(), tolerance.sum()), (value, tolerance)]
    if steps == "sum":
        return [pair(name), pair(f"{name}_t")]
    if steps == "last":
        return [pair(name, -1)]
    # The Jacobians of one step, from t to t + 1, end before the last step by themselves.
    return [pair(name, slice(-1) if steps == "before the last" and name != "h_h" else slice(None))]


def _ratio(left: list[tuple[np.ndarray, np.ndarray]], sides: list[Any]) -> float | None:
    """Return the largest error over tolerance of any member; None if nothing is decided."""
    for value, tolerance in left:
        if not (np.isfinite(value).all() and decides(value, tolerance, np.float64)):
            return None
    return max(_side_ratio(left, side) for side in sides)


def _side_ratio(left: list[tuple[np.ndarray, np.ndarray]], side: Any) -> float:
    if isinstance(side, Exception):
        return float("inf")
    forms = [side] if len(left) == 1 else [side.sum(axis=0), side]
    return max(_largest(v, t, form) for (v, t), form in zip(left, forms, strict=True))


def _largest(value: np.ndarray, tolerance: np.ndarray, side: np.ndarray) -> float:
    if side.shape != value.shape or not np.isfinite(side).all():
        return float("inf")
    return float(over_tolerance(side - value, tolerance).max())
