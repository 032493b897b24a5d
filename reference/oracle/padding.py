"""Problems of many shapes as arrays of a few: zeros are added, and cut off the answers.

A new shape has to be traced and compiled, which takes a second, and a known one a fraction of a
millisecond. A step, a sequence or an output whose error has weight zero sends nothing back; and in
most cells a hidden unit without weights stays at zero, and an input of zero adds nothing. So every
problem is padded to one of a few shapes. Whether zeros are exact for a cell is tried out; where
they are not, units and inputs are as many as they are. Padded and unpadded answers are compared in
the tests.
"""

from functools import lru_cache, partial
from typing import Any, NamedTuple

import jax
import numpy as np

from reference.devices import float64_on_cpu
from reference.jaxprs import Tiered
from reference.network import CELLS
from reference.network.cell import Axis, Cell, resized
from reference.network.sequence import Probes
from reference.problems import Problem, random_problem
from reference.rounding.formats import Arithmetic
from reference.rounding.steps import by_autodiff
from reference.rounding.tolerance import Measure

LABS = CELLS["tanh"]
ABSENT = -1e30  # added to an output that is not there, so that its softmax is zero
LARGEST_CALL = 16 * 40 * 4 * 8 * 8  # entries of all per-step copies of W in one call


class Shape(NamedTuple):
    """Sizes of the arrays that a call of the oracle works on."""

    T: int
    B: int
    D: int
    H: int
    O: int


class Kind(NamedTuple):
    """What problems that one call answers have in common beside their padded shape.

    ``loss`` is None but for a loss that has no name; ``labels``: it has one, and takes labels.
    """

    dtype: np.dtype[Any]
    loss: Any
    of_states: bool
    cell: Cell
    arithmetic: Arithmetic
    labels: bool = False

    @classmethod
    def of(cls, problem: Problem) -> "Kind":
        """Return the kind of a problem."""
        loss = problem.loss if callable(problem.loss) else None
        facts, cell = problem.facts, problem.cell
        labels = facts.labels and loss is None
        return cls(problem.dtype, loss, facts.of_states, cell, problem.rounding, labels)

    @property
    def program(self) -> tuple[Cell, bool, Arithmetic]:
        """What a compiled program depends on."""
        return self.cell, self.of_states, self.arithmetic.like


def problems_a_call(shape: Shape) -> int:
    """Return how many problems of a padded shape are answered in one call, in little memory."""
    return min(16, max(1, LARGEST_CALL // (shape.T * shape.B * shape.H**2)))


def shape_of(problem: Problem) -> Shape:
    """Return the shape that a problem is padded to."""
    sizes = {"B": 1, **problem.sizes}
    width = bucket(max(sizes["D"], sizes["H"], sizes["O"]), 8, 16)
    B = bucket(sizes["B"], 4, 8) if width == 8 else bucket(sizes["B"], 8)
    D, H = (width, width) if zeros_are_exact(problem.cell) else (sizes["D"], sizes["H"])
    return Shape(bucket(sizes["T"], 8, 40, 256), B, D, H, width)


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
        return all(same_step(problem, sizes, wide) for problem in problems)


def same_step(problem: Problem, sizes: dict[str, int], wide: dict[str, int]) -> bool:
    """Return whether one step and its gradient are the same with zeros beside all arrays."""
    cell = problem.cell  # no parameter has the names x, h0, h, states
    axes = {**cell.axes, "x": (Axis(1, "D"),)}
    arrays = {k: getattr(problem.params, k) for k in cell.params}
    dh = np.cos(np.arange(cell.size(sizes)))
    arrays |= {"h0": problem.start, "x": problem.x[0], "h": dh}

    def wider(name: str, array: np.ndarray, to: dict[str, int]) -> np.ndarray:
        if name in ("h0", "h", "states"):
            return cell.resized(array, sizes, to)
        return resized(array, axes[name], sizes, to)

    def step(to: dict[str, int]) -> dict[str, np.ndarray]:
        given = {k: wider(k, array, to) for k, array in arrays.items()}
        before, x, dh = (given.pop(k) for k in ("h0", "x", "h"))
        arguments = given, before, x, dh
        one_step = Tiered(partial(by_autodiff, cell), *arguments)
        after, (gradients, dh_before, dx) = one_step(*arguments)
        found = {**gradients, "states": after, "h0": dh_before, "x": dx}
        return {k: np.asarray(v) for k, v in found.items()}

    narrow, with_zeros = step(sizes), step(wide)
    return all(
        np.allclose(with_zeros[k], wider(k, v, wide), 1e-12, 1e-12 * np.abs(v).max())
        for k, v in narrow.items()
    )


def bucket(n: int, *ends: int) -> int:
    """Return the first end that is not below n; from the last on, they double."""
    for end in ends:
        if n <= end:
            return end
    while end < n:
        end *= 2
    return end


def padded(problem: Problem, shape: Shape) -> tuple[Any, Any]:
    """Return (variables, (target, weights)) in float64, batched, with zeros appended."""
    return padded_variables(problem, shape), target_and_weights(problem, shape)


def padded_variables(problem: Problem, shape: Shape) -> Any:
    """Return parameters, x, h0 and probes in float64, batched, with zeros appended."""
    T, B, D, _, O = shape
    sizes, cell, to = problem.sizes, problem.cell, shape._asdict()
    params = {
        k: resized(getattr(problem.params, k), axes, sizes, to).astype(float)
        for k, axes in cell.axes.items()
    }
    (h0,) = padded_states(problem, problem.start[None], shape, 1)
    h = np.zeros((T + 1, B, cell.size(to)))
    x = filled(with_batch_axis(problem, problem.x), T, B, D)
    return params, x, h0, Probes(h, np.zeros((T, B, O)))


def padded_states(problem: Problem, states: np.ndarray, shape: Shape, steps: int) -> np.ndarray:
    """Return states, or what is like them, as vectors, batched, with zeros appended."""
    vectors = problem.cell.resized(states, problem.sizes, shape._asdict())
    return filled(with_batch_axis(problem, vectors), steps, shape.B, vectors.shape[-1])


def target_and_weights(problem: Problem, shape: Shape) -> tuple[np.ndarray, np.ndarray]:
    """Return a target for every output, or state, and weight 1 for those that the loss looks at."""
    T, B, loss, cell = problem.sizes["T"], problem.sizes.get("B", 1), problem.facts, problem.cell
    found = np.zeros((2, *_seen(shape, cell, of_states=loss.of_states)))
    given = [problem.goal, np.full(problem.goal.shape, loss.scale(problem.sizes))]
    if loss.of_states:
        given = [cell.resized(array, problem.sizes, shape._asdict()) for array in given]
    last = T if loss.of_states else T - 1
    steps = slice(T) if loss.over_time else slice(last, last + 1)
    for into, array in zip(found, given, strict=True):
        n = array.shape[-1]
        into[steps, :B, :n] = array.reshape(-1, B, n)
    return found[0], found[1]


def given_to_loss(problem: Problem, shape: Shape) -> tuple[np.ndarray, ...]:
    """Return what the compiled loss is given beside the outputs: see ``reference.oracle.programs``.

    These are targets, weights, and a slope; or labels, weights, and what is added to the outputs.
    """
    if not problem.facts.labels:
        none = no_slope(shape, problem.cell, of_states=problem.facts.of_states)
        return (*target_and_weights(problem, shape), none)
    T, B, O = problem.sizes["T"], problem.sizes.get("B", 1), problem.sizes["O"]
    labels, weights = np.zeros((shape.T, shape.B), np.int64), np.zeros((shape.T, shape.B))
    labels[:T, :B] = problem.target.reshape(T, B)
    weights[:T, :B] = problem.facts.scale(problem.sizes)
    added = np.zeros((shape.T, shape.B, shape.O))
    added[..., O:] = ABSENT
    return labels, weights, added


def no_slope(shape: Shape, cell: Cell, *, of_states: bool = False) -> np.ndarray:
    """Return the linear term of a loss that has none."""
    return np.zeros(_seen(shape, cell, of_states=of_states))


def _seen(shape: Shape, cell: Cell, *, of_states: bool) -> tuple[int, ...]:
    """Return the shape of what a loss is a function of: outputs, or states."""
    if of_states:
        return shape.T + 1, shape.B, cell.size(shape._asdict())
    return shape.T, shape.B, shape.O


def with_batch_axis(problem: Problem, array: np.ndarray) -> np.ndarray:
    """Return an array whose first axis is time with a batch axis after it, if it has none."""
    return array if "B" in problem.sizes else array[:, None]


def filled(array: np.ndarray, *shape: int) -> np.ndarray:
    """Return zeros of this shape with the array in the first corner."""
    zeros = np.zeros(shape)
    zeros[tuple(map(slice, array.shape))] = array
    return zeros


def cut(name: str, results: Any, i: int, problem: Problem, shape: Shape) -> Measure:
    """Return value and tolerance of one gradient of problem i, without the padding."""
    value, tolerance = (array[i] for array in results)
    axes = problem.cell.axes.get(name)
    if axes is not None:
        sizes, padded = problem.sizes, shape._asdict()
        return resized(value, axes, padded, sizes), resized(tolerance, axes, padded, sizes)
    if name in ("h0", "h", "states"):
        to = problem.sizes
        value, tolerance = (
            problem.cell.resized(a, shape._asdict(), to) for a in (value, tolerance)
        )
    if "B" not in problem.sizes:
        axis = 0 if name == "h0" else 1
        value, tolerance = value.take(0, axis), tolerance.take(0, axis)
    corner = tuple(map(slice, problem.gradient_shape(name)))
    return value[corner], tolerance[corner]


def stack(rows: list[Any], shape: Shape) -> Any:
    """Stack like trees of arrays for one call; the last one fills it up."""
    filled = rows + [rows[-1]] * (problems_a_call(shape) - len(rows))
    return jax.tree.map(lambda *a: np.stack(a), *filled)


def sizes_of(problems: list[Problem], shape: Shape) -> Any:
    """Return T, B, D, H and O of the problems themselves, as arrays."""
    sizes = [{k: float(n) for k, n in {"B": 1, **p.sizes}.items()} for p in problems]
    return stack(sizes, shape)
