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

from reference.bounds import perturbations, truth_and_tolerance
from reference.gradients import squared_error
from reference.problems import Problem
from reference.rnn import Probes

CHUNK = 16  # problems answered in one call
READ_AHEAD = 32 * CHUNK  # problems sorted by padded shape at a time


class Answer(NamedTuple):
    """A problem and, for each gradient, autodiff's value and the tolerance of each entry."""

    problem: Problem
    truth: dict[str, tuple[np.ndarray, np.ndarray]]


class Shape(NamedTuple):
    """Sizes of the arrays that a call of the oracle works on."""

    T: int
    B: int
    D: int
    H: int
    O: int


def answers(problems: Iterable[Problem]) -> Iterator[Answer]:
    """Yield the problems with autodiff's answers, in an order of its own, in bounded memory."""
    for group, shape, dtype, kind in chunks(problems):
        yield from _answer(group, shape, dtype, kind)


def chunks(
    problems: Iterable[Problem],
) -> Iterator[tuple[list[Problem], Shape, np.dtype[Any], Any]]:
    """Yield up to CHUNK problems of one padded shape, dtype and kind of loss at a time."""
    stream = iter(problems)
    while ahead := list(islice(stream, READ_AHEAD)):
        groups: dict[Any, list[Problem]] = {}
        for problem in ahead:
            groups.setdefault((_shape(problem), problem.dtype, _kind(problem)), []).append(problem)
        for (shape, dtype, kind), group in groups.items():
            for start in range(0, len(group), CHUNK):
                yield group[start : start + CHUNK], shape, dtype, kind


def _kind(problem: Problem) -> Any:
    """Return what decides how a problem is compiled: its loss, and whether it has a batch axis."""
    return (problem.loss, "B" in problem.sizes) if callable(problem.loss) else None


def _shape(problem: Problem) -> Shape:
    """Return the shape that a problem is padded to: its own, if its loss is a callable."""
    sizes = {"B": 1, **problem.sizes}
    if callable(problem.loss):
        return Shape(**sizes)
    width = _at_least(max(sizes["D"], sizes["H"], sizes["O"]), 8)
    T = sizes["T"]
    steps = next((n for n in (8, 40) if n >= T), _at_least(T, 64))
    return Shape(steps, _at_least(sizes["B"], 4), width, width, width)


def _at_least(n: int, smallest: int) -> int:
    """Return the first of smallest, 2 smallest, 4 smallest ... that is not below n."""
    while smallest < n:
        smallest *= 2
    return smallest


def _answer(
    problems: list[Problem], shape: Shape, dtype: np.dtype[Any], kind: Any
) -> Iterator[Answer]:
    """Yield the answers to problems of one padded shape; the last one fills up the chunk."""
    filled = problems + [problems[-1]] * (CHUNK - len(problems))
    stacked = jax.tree.map(lambda *a: np.stack(a), *(padded(p, shape) for p in filled))
    info = np.finfo(dtype)
    with jax.enable_x64(True):
        solve = _compiled(shape, kind)
        result = solve(*stacked, _errors(shape), float(info.eps) / 2, float(info.tiny))
        truth = jax.tree.map(np.asarray, result)
    for i, problem in enumerate(problems):
        yield Answer(problem, {k: _cut(k, truth[k], i, problem) for k in truth})


@lru_cache(maxsize=16)
def _errors(shape: Shape) -> dict[str, np.ndarray]:
    return perturbations(*shape)


@lru_cache(maxsize=16)
def _compiled(shape: Shape, kind: Any) -> Any:
    """Return the compiled oracle for one padded shape."""
    del shape  # one compilation each, so that old ones can be forgotten
    loss = squared_error if kind is None else partial(_exact_loss, *kind)
    solve = partial(truth_and_tolerance, loss=loss)
    return jax.jit(jax.vmap(solve, in_axes=(0, 0, None, None, None)))


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


def _cut(name: str, results: Any, i: int, problem: Problem) -> tuple[np.ndarray, np.ndarray]:
    """Return value and tolerance of one gradient of problem i, without the padding."""
    value, tolerance = (array[i] for array in results)
    if name in ("x", "h0", "h") and "B" not in problem.sizes:
        axis = 0 if name == "h0" else 1
        value, tolerance = value.take(0, axis), tolerance.take(0, axis)
    corner = tuple(map(slice, problem.gradient_shape(name)))
    return value[corner], tolerance[corner]
