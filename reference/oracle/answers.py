"""Autodiff's answer to many problems at once, each gradient with its tolerance.

Problems are padded to one of a few shapes (``reference.oracle.padding``), and those of one padded
shape are answered together, by programs that are made once (``reference.oracle.programs``).

The cross entropy of labels is a loss of its own to the compiled oracle, and all others are one:
L(y) = sum w (y - target)^2 + sum g y. A squared error has g = 0, and weights w that tell padding
from data, and hold the scale of a loss that has one. Any other loss is expanded about the outputs
y* that autodiff computes: target = y*, g = L'(y*), which gives the same gradients exactly, and
w = |L''| / 2, by which rounding errors in y reach the gradients; |L''| is the largest change of
L'(y*) in 8 directions of random signs, entry by entry, which is exact if L is a sum over entries.
"""

from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any, NamedTuple

import jax
import numpy as np

from reference.devices import float64_on_cpu
from reference.oracle.padding import (
    Kind,
    Shape,
    cut,
    filled,
    given_to_loss,
    padded_states,
    padded_variables,
    problems_a_call,
    shape_of,
    sizes_of,
    stack,
    with_batch_axis,
)
from reference.oracle.programs import (
    DIRECTIONS,
    Whole,
    compilation,
    compiled,
    expect,
    loss_program,
    machine,
    outputs_program,
    steps_program,
    whole_program,
)
from reference.problems import Problem
from reference.rounding.known import Machine
from reference.rounding.tolerance import V64, Measure

READ_AHEAD = 512  # problems sorted by padded shape at a time


class Answer(NamedTuple):
    """A problem and, for each gradient, autodiff's value and the tolerance of each entry.

    ``truth`` has the states as well, by the name ``states``.
    """

    problem: Problem
    truth: dict[str, Measure]


class Solved(NamedTuple):
    """The answers of one call, and the padded arrays from which they were computed.

    ``shapes`` are those that further calls will have.
    """

    answers: list[Answer]
    shape: Shape
    kind: Kind
    stacked: tuple[Any, Any]
    states: Measure
    shapes: tuple[Shape, ...]


def answers(problems: Iterable[Problem]) -> Iterator[Answer]:
    """Yield the problems with autodiff's answers, in an order of its own, in bounded memory."""
    for chunk in solved(problems):
        yield from chunk.answers


def solved(problems: Iterable[Problem]) -> Iterator[Solved]:
    """Yield the answers to the problems call by call, ready for the local check.

    JAX computes the next call while the caller works on this one.
    """
    started = None
    for groups in _read_ahead(problems):
        shapes = tuple(dict.fromkeys(shape for shape, *_ in groups))
        calls = {key: _calls(group, *key) for key, group in groups.items()}
        for shape, kind in calls:
            compilation(whole_program, shape, *kind.program, kind.labels)
        times: Counter[Whole] = Counter()
        for (shape, kind), chunks in calls.items():
            times[compiled(whole_program, shape, *kind.program, kind.labels)] += len(chunks)
        expect(times)
        for chunks in calls.values():
            for chunk in chunks:
                following = (*chunk, shapes, *_start(*chunk))
                if started is not None:
                    yield _finish(*started)
                started = following
    if started is not None:
        yield _finish(*started)


Groups = dict[tuple[Shape, Kind], list[Problem]]
Call = tuple[list[Problem], Shape, Kind]


def chunks(problems: Iterable[Problem]) -> Iterator[Call]:
    """Yield problems of one padded shape and kind, as many as one call answers."""
    for groups in _read_ahead(problems):
        for key, group in groups.items():
            yield from _calls(group, *key)


def _read_ahead(problems: Iterable[Problem]) -> Iterator[Groups]:
    """Yield problems sorted by what those of one call have in common, READ_AHEAD at a time."""
    stream = iter(problems)
    while ahead := list(islice(stream, READ_AHEAD)):
        groups: Groups = {}
        for problem in ahead:
            groups.setdefault((shape_of(problem), Kind.of(problem)), []).append(problem)
        yield groups


def _calls(group: list[Problem], shape: Shape, kind: Kind) -> list[Call]:
    """Return a group in parts that one call answers."""
    many = problems_a_call(shape)
    starts = range(0, len(group), many)
    return [(group[start : start + many], shape, kind) for start in starts]


def _start(problems: list[Problem], shape: Shape, kind: Kind) -> Any:
    """Return padded arrays and, still being computed, the answers to problems of one shape."""
    variables = stack([padded_variables(p, shape) for p in problems], shape)
    with float64_on_cpu():
        losses: list[tuple[np.ndarray, ...]]
        if kind.loss is None:
            losses = [given_to_loss(p, shape) for p in problems]
        else:
            y = np.asarray(outputs_program(shape, kind.cell)(variables))
            losses = [_expanded(p, y[i], shape) for i, p in enumerate(problems)]
        stacked = variables, stack(losses, shape)
        sizes = sizes_of(problems, shape)
        solve = compiled(whole_program, shape, *kind.program, kind.labels)
        m = machine_of(kind)
        return stacked, solve(*stacked, sizes, m)


def _finish(
    problems: list[Problem],
    shape: Shape,
    kind: Kind,
    shapes: tuple[Shape, ...],
    stacked: Any,
    result: Any,
) -> Solved:
    """Wait for the answers, and take the padding off."""
    with float64_on_cpu():
        truth = jax.tree.map(np.asarray, result)
    found = [
        Answer(p, {k: cut(k, truth[k], i, p, shape) for k in truth}) for i, p in enumerate(problems)
    ]
    return Solved(found, shape, kind, stacked, truth["states"], shapes)


def check_steps(
    chunk: Solved, returned: list[tuple[np.ndarray | None, np.ndarray | None]]
) -> list[dict[str, Measure]]:
    """Return, problem by problem, what single steps give, each entry with the bound on its error.

    returned holds (states, dh) of a candidate for each problem. Where the states are None, those of
    autodiff stand for them, and are known up to their tolerance; where dh is None, only V, c and
    the states can be looked at. Nothing is known of the rounding of a single step in a loss of
    labels, or one that is a callable, and so of h, V and c.
    """
    problems = [answer.problem for answer in chunk.answers]
    own = stack([_own(chunk, i, *arrays) for i, arrays in enumerate(returned)], chunk.shape)
    m, kind = machine_of(chunk.kind), chunk.kind
    for shape in (chunk.shape, *chunk.shapes):
        compilation(steps_program, shape, *kind.program)
    with float64_on_cpu():
        check = compiled(steps_program, chunk.shape, *kind.program)
        sizes = sizes_of(problems, chunk.shape)
        both = m._replace(u=m.u + V64)
        variables, loss = chunk.stacked
        if kind.labels:
            loss = (np.zeros_like(loss[2]),) * 3
        steps = jax.tree.map(np.asarray, check(variables, loss, *own, sizes, both))
    found = []
    for i, (problem, (_, dh)) in enumerate(zip(problems, returned, strict=True)):
        names = set(steps) if dh is not None else {"V", "c", "states"}
        if kind.loss is not None or kind.labels:
            names -= {"h", "V", "c"}
        found.append({k: cut(k, steps[k], i, problem, chunk.shape) for k in names})
    return found


def _own(chunk: Solved, i: int, states: np.ndarray | None, dh: np.ndarray | None) -> Any:
    """Return states, their uncertainty and dh, padded, of a candidate in problem i of a chunk."""

    def padded(array: np.ndarray) -> np.ndarray:
        return padded_states(chunk.answers[i].problem, array, chunk.shape, chunk.shape.T + 1)

    zeros = np.zeros_like(chunk.states[0][i])
    if states is None:
        h, e_h = (array[i] for array in chunk.states)
    else:
        h, e_h = padded(states), zeros
    return h, e_h, zeros if dh is None else padded(dh)


def machine_of(kind: Kind) -> Machine:
    """Return what problems of a kind are computed in."""
    return machine(kind.dtype, kind.arithmetic)


def _expanded(problem: Problem, y: np.ndarray, shape: Shape) -> tuple[np.ndarray, ...]:
    """Return the target, weights and slope that stand for a loss near the outputs y, padded."""
    T, B, O = (problem.sizes.get(k, 1) for k in "TBO")
    y = y[:T, :B, :O] if "B" in problem.sizes else y[:T, 0, :O]
    signs = np.random.default_rng(0).choice([-1.0, 1.0], size=(DIRECTIONS, *y.shape))
    expand = loss_program(problem.loss, y.shape)
    slope, curvature = map(np.asarray, expand(y, problem.target.astype(np.float64), signs))
    parts = (with_batch_axis(problem, array) for array in (y, curvature / 2, slope))
    return tuple(filled(array, shape.T, shape.B, shape.O) for array in parts)
