"""Golden vectors: solved problems, for those who write BPTT in a language that JAX does not reach.

A vector is one network, one input, one target, and what a right program makes of them: the states,
the outputs, the loss and every gradient. Each number is

- *certified*: it is the one nearest to the true answer, which interval arithmetic encloses, and
  ``error_bound`` says how far the two are apart at most, hardly ever more than half an ulp;
- *verified*: it agrees with what JAX makes of the same inputs, gradients by ``jax.grad``, within
  ``tolerance``, which is how far the rounding of its own operations may take a right program.

Nothing is written that is not both. docs/golden-vectors.md describes the files.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

import jax
import numpy as np

from reference.devices import float64_on_cpu
from reference.network.cell import Cell
from reference.network.losses import squared_error
from reference.network.sequence import run
from reference.oracle.answers import Solved, solved
from reference.oracle.padding import padded, stack
from reference.problems import Problem
from reference.rounding.known import gamma
from reference.rounding.tolerance import FLUSHED, V64, Measure, decides
from reference.user_code import parameters_type
from reference.vectors.corners import LABS, Case
from reference.vectors.enclosures import bound, values

DTYPES = ("float64", "float32")

Array = np.ndarray


class NotVerifiedError(ArithmeticError):
    """A value that autodiff contradicts, or a problem that decides nothing."""


class Certified(NamedTuple):
    """What a right program computes, in three arrays of one shape.

    The true number is within ``error_bound`` of ``value``, and a program that rounds every
    operation to the dtype of ``value`` within ``tolerance`` of the true number.
    """

    value: Array
    error_bound: Array
    tolerance: Array

    def accepts(self, computed: Any) -> bool:
        """Return whether each entry is as near to the value as it must be; NaN never is."""
        return bool((np.abs(computed - self.value) <= self.error_bound + self.tolerance).all())


@dataclass(frozen=True, eq=False)
class Vector:
    """One solved problem: ``inputs`` and ``expected``, by the names that ``corners`` gives them.

    Everything has a batch axis: x is (T, B, D), h0 (B, H), target (T, B, O), or (B, O) where the
    loss is ``"last_step_squared_error"``. ``h`` (T+1, B, H) are the states, ``dh`` the gradients in
    them, ``y`` (T, B, O) the outputs; ``dW`` has the shape of W, and so on.
    """

    name: str
    about: str
    loss: str
    inputs: dict[str, Array]
    expected: dict[str, Certified]
    cell: Cell = LABS

    @property
    def problem(self) -> Problem:
        """The arguments of a candidate."""
        fields = self.cell.fields
        params = parameters_type(fields)(*(self.inputs[k] for k in fields))
        x, h0, target = (self.inputs[k] for k in ("x", "h0", "target"))
        return Problem(params, x, h0, target, self.loss, self.name, self.cell)


# What autodiff says ------------------------------------------------------------------------------


def certified(cases: Iterable[Case], dtype: str, cell: Cell = LABS) -> Iterator[Vector]:
    """Yield the vectors of cases of any cell, in an order of its own.

    Raises
    ------
    NotVerifiedError
        If autodiff contradicts a value, or a tolerance is so large that it decides nothing.

    Examples
    --------
    >>> from reference.vectors.corners import cases_of
    >>> [vector] = certified(cases_of(LABS)[:1], "float32")
    >>> vector.expected["dx"].value.tolist()
    [[[110.0, 60.0]], [[12.0, 16.0]]]
    """
    about = {case.name: case.about for case in cases}
    for chunk in solved(case.problem(dtype, cell) for case in cases):
        for problem, autodiff in _autodiff(chunk):
            name = problem.origin
            found = {
                k: verified(f"{k} of {name}", *certificate, *autodiff[k])
                for k, certificate in values(problem).items()
            }
            yield Vector(name, about[name], problem.loss, problem.arrays, found, cell)


def verified(
    what: str, value: Array, error_bound: Array, autodiff: Array, tolerance: Array
) -> Certified:
    """Return a certified value with its tolerance, if it agrees with autodiff's.

    Raises
    ------
    NotVerifiedError
        If it does not, or if the tolerance is not small beside the largest entry. That of exact
        zeros is absolute: there is nothing to compare it with.

    Examples
    --------
    >>> verified("dW", np.float64(2), np.float64(0), np.float64(3), np.float64(1e-15))
    Traceback (most recent call last):
        ...
    reference.vectors.certified.NotVerifiedError: dW: autodiff contradicts the certified value
    """
    found = Certified(value, error_bound, np.vectorize(bound, otypes=[float])(tolerance))
    if not found.accepts(autodiff):
        raise NotVerifiedError(f"{what}: autodiff contradicts the certified value")
    exact_zeros = not value.any() and not error_bound.any()
    if not exact_zeros and not decides(value, found.tolerance, value.dtype):
        raise NotVerifiedError(f"{what}: the tolerance is too large to decide anything")
    return found


def _autodiff(chunk: Solved) -> Iterator[tuple[Problem, dict[str, Measure]]]:
    """Yield problems with what JAX computes by the names of a vector, and the tolerances."""
    arguments = stack(
        [padded(answer.problem, chunk.shape) for answer in chunk.answers], chunk.shape
    )
    with float64_on_cpu():
        y, loss = map(np.asarray, _outputs(chunk.kind.cell)(*arguments))
    for i, (problem, truth) in enumerate(chunk.answers):
        found = {f"d{k}": truth[k] for k in chunk.kind.cell.gradients} | {"h": truth["states"]}
        yield problem, found | _with_tolerances(problem, truth["states"], y[i], loss[i])


@lru_cache(maxsize=16)
def _outputs(cell: Cell) -> Any:
    """Return the compiled outputs and loss of padded problems."""

    def one(variables: Any, target_and_weights: Any) -> Any:
        _, y = run(cell, *variables)
        return y, squared_error(y, *target_and_weights)

    return jax.jit(jax.vmap(one))


@np.errstate(invalid="ignore")  # some versions of OpenBLAS raise the flag on finite numbers
def _with_tolerances(
    problem: Problem, states: Measure, outputs: Array, loss: Array
) -> dict[str, Measure]:
    """Return outputs and loss with bounds on what rounding adds, if h is known up to e_h.

    As in ``reference.rounding.steps``, and with e = |y - target| and n the number of its entries,

        y     e_y = |V| e_h + gamma_{H+2} (|V| (|h| + e_h) + |c|)
        e     e_e = e_y + u (e + e_y)
        L     sum e_e (2 e + e_e) + gamma_{n+2} sum (e + e_e)^2
    """
    T, B, _, H, O = (problem.sizes[k] for k in "TBDHO")
    h, e_h = (array[1:] for array in states)
    info = np.finfo(problem.dtype)
    u, flushed = float(info.eps) / 2 + V64, FLUSHED * float(info.tiny)
    V, c = np.abs(problem.params.V), np.abs(problem.params.c)
    y = outputs[:T, :B, :O]
    e_y = e_h @ V.T + gamma(H + 2, u) * ((np.abs(h) + e_h) @ V.T + c) + flushed * (H + 2)
    counted = slice(0 if problem.facts.over_time else -1, None)
    e, e_e = np.abs(y - problem.target)[counted], e_y[counted]
    e_e = e_e + u * (e + e_e)
    e_loss = (e_e * (2 * e + e_e)).sum() + gamma(e.size + 2, u) * ((e + e_e) ** 2).sum()
    return {"y": (y, e_y), "loss": (loss, e_loss + flushed * (e.size + 2))}
