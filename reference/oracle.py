"""Autodiff's answer to many problems at once, each gradient with its tolerance.

A new shape costs JAX seconds of compilation, a known one a fraction of a millisecond. A step, a
sequence or an output whose error has weight zero sends nothing back; and in most cells a hidden
unit without weights stays at zero, and an input of zero adds nothing. So every problem is padded to
one of a few shapes, and problems of one padded shape are answered together by ``vmap``. Whether
zeros are exact for a cell is tried out; where they are not, units and inputs are as many as they
are. Padded and unpadded answers are compared in the tests.

All losses are one to the compiled oracle: L(y) = sum w (y - target)^2 + sum g y. A squared error
has g = 0, and weights w that tell padding from data. Any other loss is expanded about the outputs
y* that autodiff computes: target = y*, g = L'(y*), which gives the same gradients exactly, and
w = |L''| / 2, by which rounding errors in y reach the gradients; |L''| is the largest change of
L'(y*) in 8 directions of random signs, entry by entry, which is exact if L is a sum over entries.
"""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cache, lru_cache, partial
from itertools import islice
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from reference.devices import float64_on_cpu
from reference.network import CELLS
from reference.network.cell import Axis, Cell, resized
from reference.network.gradients import squared_error
from reference.network.sequence import Probes, run
from reference.problems import Problem, random_problem
from reference.rounding.formats import PLAIN, Arithmetic
from reference.rounding.known import Machine
from reference.rounding.steps import by_autodiff, local_check, traced
from reference.rounding.tolerance import V64, Measure
from reference.rounding.whole import deviates, truth_and_tolerance

DIRECTIONS = 8  # in which the curvature of a loss is looked at
READ_AHEAD = 512  # problems sorted by padded shape at a time
LABS = CELLS["tanh"]
LARGEST_CALL = 16 * 40 * 4 * 8 * 8  # entries of all per-step copies of W in one call


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
    """The answers of one call, and the padded arrays from which they were computed.

    ``shapes`` are those that further calls will have.
    """

    answers: list[Answer]
    shape: Shape
    kind: Any
    cell: Cell
    arithmetic: Arithmetic
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
        for shape, _, _, cell, arithmetic in groups:
            _compilation(_compiled, shape, cell, arithmetic.like)
        for chunk in _calls(groups):
            following = (*chunk, shapes, *_start(*chunk))
            if started is not None:
                yield _finish(*started)
            started = following
    if started is not None:
        yield _finish(*started)


Groups = dict[tuple[Shape, np.dtype[Any], Any, Cell, Arithmetic], list[Problem]]
Call = tuple[list[Problem], Shape, np.dtype[Any], Any, Cell, Arithmetic]


def chunks(problems: Iterable[Problem]) -> Iterator[Call]:
    """Yield problems of one padded shape, dtype, loss, cell and arithmetic, a call's worth each."""
    for groups in _read_ahead(problems):
        yield from _calls(groups)


def _read_ahead(problems: Iterable[Problem]) -> Iterator[Groups]:
    """Yield problems sorted by what those of one call have in common, READ_AHEAD at a time."""
    stream = iter(problems)
    while ahead := list(islice(stream, READ_AHEAD)):
        groups: Groups = {}
        for problem in ahead:
            kind = problem.loss if callable(problem.loss) else None
            like = _shape(problem), problem.dtype, kind, problem.cell, problem.rounding
            groups.setdefault(like, []).append(problem)
        yield groups


def _calls(groups: Groups) -> Iterator[Call]:
    """Yield what one call answers."""
    for (shape, *like), group in groups.items():
        many = problems_a_call(shape)
        for start in range(0, len(group), many):
            yield group[start : start + many], shape, *like


def problems_a_call(shape: Shape) -> int:
    """Return how many problems of a padded shape are answered in one call, in little memory."""
    return min(16, max(1, LARGEST_CALL // (shape.T * shape.B * shape.H**2)))


def _shape(problem: Problem) -> Shape:
    """Return the shape that a problem is padded to."""
    sizes = {"B": 1, **problem.sizes}
    width = _bucket(max(sizes["D"], sizes["H"], sizes["O"]), 8, 16)
    B = _bucket(sizes["B"], 4, 8) if width == 8 else _bucket(sizes["B"], 8)
    D, H = (width, width) if zeros_are_exact(problem.cell) else (sizes["D"], sizes["H"])
    # Gated cells take longer to compile than short problems gain from a shape of their own.
    short = (8,) if problem.cell is LABS else ()
    return Shape(_bucket(sizes["T"], *short, 40, 256), B, D, H, width)


def each_shape_compiles(loss: Any, cell: Cell) -> bool:
    """Return whether every shape of a problem needs a compilation of its own."""
    return callable(loss) or not zeros_are_exact(cell)


@lru_cache(maxsize=64)
def zeros_are_exact(cell: Cell) -> bool:
    """Return whether a step of a cell is the same with units and inputs of zero beside its own."""
    sizes, wide = {"D": 2, "H": 3, "O": 1}, {"D": 4, "H": 5, "O": 1}
    problems = [
        random_problem(T=1, B=None, D=2, H=3, O=1, regime=regime, seed=seed, cell=cell)
        for regime in ("expanding", "saturated")
        for seed in range(2)
    ]
    with float64_on_cpu():
        return all(_same_step(problem, sizes, wide) for problem in problems)


def _same_step(problem: Problem, sizes: dict[str, int], wide: dict[str, int]) -> bool:
    """Return whether one step and its gradient are the same with zeros beside all arrays."""
    cell = problem.cell  # no parameter has the names x, h0, h, states
    axes = {**cell.axes, "x": (Axis(1, "D"),)} | dict.fromkeys(
        ("h0", "h", "states"), (Axis(1, "H"),)
    )
    arrays = {k: getattr(problem.params, k) for k in cell.params}
    arrays |= {"h0": problem.h0, "x": problem.x[0], "h": np.cos(np.arange(sizes["H"]))}

    def step(to: dict[str, int]) -> dict[str, np.ndarray]:
        given = {k: resized(array, axes[k], sizes, to) for k, array in arrays.items()}
        before, x, dh = (given.pop(k) for k in ("h0", "x", "h"))
        after, (gradients, dh_before, dx) = by_autodiff(cell, given, before, x, dh)
        found = {**gradients, "states": after, "h0": dh_before, "x": dx}
        return {k: np.asarray(v) for k, v in found.items()}

    narrow, with_zeros = step(sizes), step(wide)
    return all(
        np.allclose(with_zeros[k], resized(v, axes[k], sizes, wide), 1e-12, 1e-12 * np.abs(v).max())
        for k, v in narrow.items()
    )


def _bucket(n: int, *ends: int) -> int:
    """Return the first end that is not below n; from the last on, they double."""
    for end in ends:
        if n <= end:
            return end
    while end < n:
        end *= 2
    return end


def _start(
    problems: list[Problem],
    shape: Shape,
    dtype: np.dtype[Any],
    kind: Any,
    cell: Cell,
    arithmetic: Arithmetic,
) -> Any:
    """Return padded arrays and, still being computed, the answers to problems of one shape."""
    variables = stack([_variables(p, shape) for p in problems], shape)
    with float64_on_cpu():
        losses: list[tuple[np.ndarray, ...]]
        if kind is None:
            losses = [(*_target_and_weights(p, shape), _no_slope(shape)) for p in problems]
        else:
            y = np.asarray(_compiled_outputs(shape, cell)(variables))
            losses = [_expanded(p, y[i], shape) for i, p in enumerate(problems)]
        stacked = variables, stack(losses, shape)
        sizes = _sizes(problems, shape)
        solve = _program(_compiled, shape, cell, arithmetic.like)
        return stacked, solve(*stacked, _deviates(), sizes, machine(dtype, arithmetic))


def _finish(
    problems: list[Problem],
    shape: Shape,
    _: np.dtype[Any],
    kind: Any,
    cell: Cell,
    arithmetic: Arithmetic,
    shapes: tuple[Shape, ...],
    stacked: Any,
    result: Any,
) -> Solved:
    """Wait for the answers, and take the padding off."""
    with float64_on_cpu():
        truth = jax.tree.map(np.asarray, result)
    found = [
        Answer(p, {k: _cut(k, truth[k], i, p, shape) for k in truth})
        for i, p in enumerate(problems)
    ]
    return Solved(found, shape, kind, cell, arithmetic, stacked, truth["states"], shapes)


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
    m, of = machine(problems[0].dtype, chunk.arithmetic), (chunk.cell, chunk.arithmetic.like)
    for shape in (chunk.shape, *chunk.shapes):
        _compilation(_compiled_steps, shape, *of)
    with float64_on_cpu():
        check = _program(_compiled_steps, chunk.shape, *of)
        sizes = _sizes(problems, chunk.shape)
        both = m._replace(u=m.u + V64)
        steps = jax.tree.map(np.asarray, check(*chunk.stacked, *own, sizes, both))
    found = []
    for i, (problem, (_, dh)) in enumerate(zip(problems, returned, strict=True)):
        names = set(steps) if dh is not None else {"V", "c", "states"}
        if chunk.kind is not None:
            names -= {"h", "V", "c"}
        found.append({k: _cut(k, steps[k], i, problem, chunk.shape) for k in names})
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


def machine(dtype: Any, arithmetic: Arithmetic = PLAIN) -> Machine:
    """Return what is computed in, for a dtype and the formats of factors and states."""
    info = np.finfo(dtype)
    return Machine(float(info.eps) / 2, float(info.tiny), float(info.max), arithmetic)


@cache
def _deviates() -> np.ndarray:
    return deviates()


@cache  # and not at import: a process that is forked later has none of its threads
def _compilers() -> ThreadPoolExecutor:
    """Return threads that compile, each a program: XLA uses one core for it."""
    return ThreadPoolExecutor(thread_name_prefix="compile")


@lru_cache(maxsize=64)
def _compilation(program: Callable[..., Any], *of: Any) -> Future[Any]:
    """Return the future of a program for a shape, cell and arithmetic, which a thread compiles."""
    return _compilers().submit(program, *of)


def _program(program: Callable[..., Any], *of: Any) -> Any:
    """Wait for such a program; where it failed, the next call tries again."""
    future = _compilation(program, *of)
    try:
        return future.result()
    except Exception:
        _compilation.cache_clear()
        raise


def _compiled(shape: Shape, cell: Cell, arithmetic: Arithmetic) -> Any:
    """Return the compiled oracle for one padded shape."""
    variables, loss, sizes = _example(shape, cell)
    like = jax.tree.map(lambda array: array[0], (variables, loss))
    with float64_on_cpu():
        one = truth_and_tolerance(cell, traced(cell, *shape[2:]), like, _any_loss)
        solve = jax.jit(jax.vmap(one, (0, 0, None, 0, None)))
        solve(variables, loss, _deviates(), sizes, machine(float, arithmetic))
    return solve


def _compiled_steps(shape: Shape, cell: Cell, arithmetic: Arithmetic) -> Any:
    """Return the compiled local check for one padded shape."""
    variables, loss, sizes = _example(shape, cell)
    states = stack([np.zeros((shape.T + 1, shape.B, shape.H))], shape)
    with float64_on_cpu():
        one = partial(local_check, cell, traced(cell, *shape[2:]), loss=_any_loss)
        check = jax.jit(jax.vmap(one, (0, 0, 0, 0, 0, 0, None)))
        check(variables, loss, states, states, states, sizes, machine(float, arithmetic))
    return check


def _example(shape: Shape, cell: Cell) -> tuple[Any, Any, Any]:
    """Return variables, arguments of the loss and sizes for one call: what a compiler looks at."""
    problem = random_problem(**shape._asdict(), regime="linear", seed=0, cell=cell)
    loss = (*_target_and_weights(problem, shape), _no_slope(shape))
    rows = _variables(problem, shape), loss
    return *(stack([row], shape) for row in rows), _sizes([problem], shape)


@lru_cache(maxsize=16)
def _compiled_outputs(shape: Shape, cell: Cell) -> Any:
    """Return the compiled forward pass for one padded shape."""
    del shape
    return jax.jit(jax.vmap(lambda variables: run(cell, *variables)[1]))


@lru_cache(maxsize=64)
def _compiled_loss(loss: Any, shape: tuple[int, ...]) -> Any:
    """Return the compiled gradient of a loss and its change in some directions, at y (T, ...)."""
    del shape

    def expand(y: Any, target: Any, directions: Any) -> tuple[Any, Any]:
        slope = jax.grad(loss)
        changes = jax.vmap(lambda v: jax.jvp(lambda y: slope(y, target), (y,), (v,))[1])(directions)
        return slope(y, target), jnp.max(jnp.abs(changes), axis=0)

    return jax.jit(expand)


def _any_loss(y: Any, target: Any, weights: Any, slope: Any) -> Any:
    """Return what stands for every loss here."""
    return squared_error(y, target, weights) + jnp.sum(slope * y)


def _expanded(problem: Problem, y: np.ndarray, shape: Shape) -> tuple[np.ndarray, ...]:
    """Return the target, weights and slope that stand for a loss near the outputs y, padded."""
    T, B, O = (problem.sizes.get(k, 1) for k in "TBO")
    y = y[:T, :B, :O] if "B" in problem.sizes else y[:T, 0, :O]
    signs = np.random.default_rng(0).choice([-1.0, 1.0], size=(DIRECTIONS, *y.shape))
    expand = _compiled_loss(problem.loss, y.shape)
    slope, curvature = map(np.asarray, expand(y, problem.target.astype(np.float64), signs))
    parts = (_with_batch_axis(problem, array) for array in (y, curvature / 2, slope))
    return tuple(_filled(array, shape.T, shape.B, shape.O) for array in parts)


def _no_slope(shape: Shape) -> np.ndarray:
    return np.zeros((shape.T, shape.B, shape.O))


def padded(problem: Problem, shape: Shape) -> tuple[Any, Any]:
    """Return (variables, (target, weights)) in float64, batched, with zeros appended."""
    return _variables(problem, shape), _target_and_weights(problem, shape)


def _variables(problem: Problem, shape: Shape) -> Any:
    """Return parameters, x, h0 and probes in float64, batched, with zeros appended."""
    T, B, D, H, O = shape
    sizes, cell = problem.sizes, problem.cell
    params = {
        k: resized(getattr(problem.params, k), axes, sizes, shape._asdict()).astype(float)
        for k, axes in cell.axes.items()
    }
    return (
        params,
        _filled(_with_batch_axis(problem, problem.x), T, B, D),
        _filled(_with_batch_axis(problem, problem.h0[None])[0], B, H),
        Probes(np.zeros((T + 1, B, H)), np.zeros((T, B, O))),
    )


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


def _cut(name: str, results: Any, i: int, problem: Problem, shape: Shape) -> Measure:
    """Return value and tolerance of one gradient of problem i, without the padding."""
    value, tolerance = (array[i] for array in results)
    axes = problem.cell.axes.get(name)
    if axes is not None:
        sizes, padded = problem.sizes, shape._asdict()
        return resized(value, axes, padded, sizes), resized(tolerance, axes, padded, sizes)
    if "B" not in problem.sizes:
        axis = 0 if name == "h0" else 1
        value, tolerance = value.take(0, axis), tolerance.take(0, axis)
    corner = tuple(map(slice, problem.gradient_shape(name)))
    return value[corner], tolerance[corner]
