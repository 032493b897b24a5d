"""Autodiff's answer to many problems at once, each gradient with its tolerance.

A new shape costs JAX seconds of compilation, a known one a fraction of a millisecond. Zeros are
exact in this model: a hidden unit without weights stays at zero, an input of zero adds nothing, and
a step, sequence or output whose error has weight zero sends nothing back. So every problem is
padded to one of a few shapes, and problems of one padded shape are answered together by ``vmap``.
Padded and unpadded answers are compared in the tests. The two squared errors are one weighted
squared error here, which is how padding is told from data; any other loss is answered at its exact
shape.
"""

from collections.abc import Iterable, Iterator
from functools import lru_cache, partial
from itertools import islice
from typing import Any, NamedTuple

import jax
import numpy as np

from reference.bounds import V64, local_check
from reference.conditioning import perturbations, truth_and_tolerance
from reference.gradients import squared_error
from reference.problems import Problem
from reference.rnn import Probes

READ_AHEAD = 512  # problems sorted by padded shape at a time
LARGEST_CALL = 16 * 40 * 4 * 8 * 8  # entries of all per-step copies of W in one call


Measure = tuple[np.ndarray, np.ndarray]
"""What a gradient must be, and the tolerance of each entry."""


class Answer(NamedTuple):
    """A problem and, for each gradient, autodiff's value and the tolerance of each entry.

    ``truth`` has the states as well, by the name ``states``.
    """

    problem: Problem
    truth: dict[str, Measure]


class Shape(NamedTuple):
    """Sizes of the arrays that a call of the oracle works on."""

    T: int
    B: int
    D: int
    H: int
    O: int


class Solved(NamedTuple):
    """The answers of one call, and the padded arrays from which they were computed."""

    answers: list[Answer]
    shape: Shape
    kind: Any
    stacked: tuple[Any, Any]
    states: Measure


def answers(problems: Iterable[Problem]) -> Iterator[Answer]:
    """Yield the problems with autodiff's answers, in an order of its own, in bounded memory."""
    for chunk in solved(problems):
        yield from chunk.answers


def solved(problems: Iterable[Problem]) -> Iterator[Solved]:
    """Yield the answers to the problems call by call, ready for the local check.

    JAX computes the next call while the caller works on this one.
    """
    started = None
    for chunk in chunks(problems):
        following = (*chunk, *_start(*chunk))
        if started is not None:
            yield _finish(*started)
        started = following
    if started is not None:
        yield _finish(*started)


def chunks(
    problems: Iterable[Problem],
) -> Iterator[tuple[list[Problem], Shape, np.dtype[Any], Any]]:
    """Yield problems of one padded shape, dtype and kind of loss, as many as one call answers."""
    stream = iter(problems)
    while ahead := list(islice(stream, READ_AHEAD)):
        groups: dict[Any, list[Problem]] = {}
        for problem in ahead:
            groups.setdefault((_shape(problem), problem.dtype, _kind(problem)), []).append(problem)
        for (shape, dtype, kind), group in groups.items():
            many = problems_a_call(shape)
            for start in range(0, len(group), many):
                yield group[start : start + many], shape, dtype, kind


def problems_a_call(shape: Shape) -> int:
    """Return how many problems of a padded shape are answered in one call, in little memory."""
    return min(16, max(1, LARGEST_CALL // (shape.T * shape.B * shape.H**2)))


def _kind(problem: Problem) -> Any:
    """Return what decides how a problem is compiled: its loss, and whether it has a batch axis."""
    return (problem.loss, "B" in problem.sizes) if callable(problem.loss) else None


def _shape(problem: Problem) -> Shape:
    """Return the shape that a problem is padded to: its own, if its loss is a callable."""
    sizes = {"B": 1, **problem.sizes}
    if callable(problem.loss):
        return Shape(**sizes)
    width = _bucket(max(sizes["D"], sizes["H"], sizes["O"]), 8, 16)
    B = _bucket(sizes["B"], 4, 8) if width == 8 else _bucket(sizes["B"], 8)
    return Shape(_bucket(sizes["T"], 8, 40, 256), B, width, width, width)


def _bucket(n: int, *ends: int) -> int:
    """Return the first end that is not below n; from the last on, they double."""
    for end in ends:
        if n <= end:
            return end
    while end < n:
        end *= 2
    return end


def _start(problems: list[Problem], shape: Shape, dtype: np.dtype[Any], kind: Any) -> Any:
    """Return padded arrays and, still being computed, the answers to problems of one shape."""
    stacked = stack([padded(p, shape) for p in problems], shape)
    sizes = _sizes(problems, shape)
    with jax.enable_x64(True):
        solve = _compiled(shape, kind)
        return stacked, solve(*stacked, _errors(shape), sizes, *_rounding(dtype))


def _finish(
    problems: list[Problem], shape: Shape, _: np.dtype[Any], kind: Any, stacked: Any, result: Any
) -> Solved:
    """Wait for the answers, and take the padding off."""
    truth = jax.tree.map(np.asarray, result)
    found = [Answer(p, {k: _cut(k, truth[k], i, p) for k in truth}) for i, p in enumerate(problems)]
    return Solved(found, shape, kind, stacked, truth["states"])


def check_steps(
    chunk: Solved, returned: list[tuple[np.ndarray | None, np.ndarray | None]]
) -> list[dict[str, Measure]]:
    """Return, problem by problem, what single steps give, each entry with the bound on its error.

    returned holds (states, dh) of a candidate for each problem. Where the states are None, those of
    autodiff stand for them, and are known up to their tolerance; where dh is None, only V, c and
    the states can be looked at. Nothing is known of the rounding in a loss that is a callable, and
    so of h, V and c.
    """
    problems = [answer.problem for answer in chunk.answers]
    own = stack([_own(chunk, i, *arrays) for i, arrays in enumerate(returned)], chunk.shape)
    u, tiny = _rounding(problems[0].dtype)
    with jax.enable_x64(True):
        check = _compiled_steps(chunk.shape, chunk.kind is None)
        sizes = _sizes(problems, chunk.shape)
        steps = jax.tree.map(np.asarray, check(*chunk.stacked, *own, sizes, u + V64, tiny))
    found = []
    for i, (problem, (_, dh)) in enumerate(zip(problems, returned, strict=True)):
        names = set(steps) if dh is not None else {"V", "c", "states"}
        if chunk.kind is not None:
            names -= {"h", "V", "c"}
        found.append({k: _cut(k, steps[k], i, problem) for k in names})
    return found


def _own(chunk: Solved, i: int, states: np.ndarray | None, dh: np.ndarray | None) -> Any:
    """Return states, their uncertainty and dh, padded, of a candidate in problem i of a chunk."""

    def padded_states(array: np.ndarray) -> np.ndarray:
        problem, (T, B, _, H, _) = chunk.answers[i].problem, chunk.shape
        return _filled(_with_batch_axis(problem, array), T + 1, B, H)

    zeros = np.zeros_like(chunk.states[0][i])
    if states is None:
        h, e_h = (array[i] for array in chunk.states)
    else:
        h, e_h = padded_states(states), zeros
    return h, e_h, zeros if dh is None else padded_states(dh)


def stack(rows: list[Any], shape: Shape) -> Any:
    """Stack like trees of arrays for one call; the last one fills it up."""
    filled = rows + [rows[-1]] * (problems_a_call(shape) - len(rows))
    return jax.tree.map(lambda *a: np.stack(a), *filled)


def _sizes(problems: list[Problem], shape: Shape) -> Any:
    """Return T, B, D, H and O of the problems themselves, as arrays."""
    sizes = [{k: float(n) for k, n in {"B": 1, **p.sizes}.items()} for p in problems]
    return stack(sizes, shape)


def _rounding(dtype: np.dtype[Any]) -> tuple[float, float]:
    """Return the unit roundoff of a dtype and its smallest normal number."""
    info = np.finfo(dtype)
    return float(info.eps) / 2, float(info.tiny)


@lru_cache(maxsize=16)
def _errors(shape: Shape) -> dict[str, np.ndarray]:
    return perturbations(*shape)


@lru_cache(maxsize=16)
def _compiled(shape: Shape, kind: Any) -> Any:
    """Return the compiled oracle for one padded shape."""
    del shape  # one compilation each, so that old ones can be forgotten
    loss = squared_error if kind is None else partial(_exact_loss, *kind)
    solve = partial(truth_and_tolerance, loss=loss)
    return jax.jit(jax.vmap(solve, in_axes=(0, 0, None, 0, None, None)))


@lru_cache(maxsize=16)
def _compiled_steps(shape: Shape, known_loss: bool) -> Any:
    """Return the compiled local check for one padded shape."""
    del shape
    check = partial(local_check, loss=squared_error if known_loss else _no_loss)
    return jax.jit(jax.vmap(check, in_axes=(0, 0, 0, 0, 0, 0, None, None)))


def _no_loss(y: Any, *_: Any) -> Any:
    """Stand for a loss whose gradient is not looked at."""
    return 0 * y.sum()


def _exact_loss(loss: Any, batched: bool, y: Any, target: Any) -> Any:
    """Call a loss with the shapes that its author expects."""
    return loss(y, target) if batched else loss(y[:, 0], target[:, 0])


def padded(problem: Problem, shape: Shape) -> tuple[Any, Any]:
    """Return (variables, arguments of the loss) in float64, batched, with zeros appended."""
    T, B, D, H, O = shape
    params = problem.params
    variables = (
        {
            "W": _filled(params.W, H, H),
            "U": _filled(params.U, H, D),
            "b": _filled(params.b, H),
            "V": _filled(params.V, O, H),
            "c": _filled(params.c, O),
        },
        _filled(_with_batch_axis(problem, problem.x), T, B, D),
        _filled(_with_batch_axis(problem, problem.h0[None])[0], B, H),
        Probes(np.zeros((T + 1, B, H)), np.zeros((T, B, O))),
    )
    if callable(problem.loss):
        return variables, (_with_batch_axis(problem, problem.target),)
    return variables, _target_and_weights(problem, shape)


def _target_and_weights(problem: Problem, shape: Shape) -> tuple[np.ndarray, np.ndarray]:
    """Return a target for every padded output, and weight 1 for those that the loss looks at."""
    sizes = {"B": 1, **problem.sizes}
    T, B, O = sizes["T"], sizes["B"], sizes["O"]
    steps = slice(T - 1, T) if problem.loss == "last_step_squared_error" else slice(T)
    target, weights = np.zeros((2, shape.T, shape.B, shape.O))
    target[steps, :B, :O] = problem.target.reshape(-1, B, O)
    weights[steps, :B, :O] = 1
    return target, weights


def _with_batch_axis(problem: Problem, array: np.ndarray) -> np.ndarray:
    """Return an array whose first axis is time with a batch axis after it, if it has none."""
    return array if "B" in problem.sizes else array[:, None]


def _filled(array: np.ndarray, *shape: int) -> np.ndarray:
    """Return zeros of this shape with the array in the first corner."""
    zeros = np.zeros(shape)
    zeros[tuple(map(slice, array.shape))] = array
    return zeros


def _cut(name: str, results: Any, i: int, problem: Problem) -> Measure:
    """Return value and tolerance of one gradient of problem i, without the padding."""
    value, tolerance = (array[i] for array in results)
    if name in ("x", "h0", "h", "states") and "B" not in problem.sizes:
        axis = 0 if name == "h0" else 1
        value, tolerance = value.take(0, axis), tolerance.take(0, axis)
    corner = tuple(map(slice, problem.gradient_shape(name)))
    return value[corner], tolerance[corner]
