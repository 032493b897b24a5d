"""The layouts that candidates are written for: where their axes are, which weights are transposed.

    layout            x          h0      target, y   h, states     b, c          W, U, V
    time_first        (T, B, D)  (B, H)  (T, B, O)   (T+1, B, H)   (H,), (O,)    W @ h
    batch_first       (B, T, D)  (B, H)  (B, T, O)   (B, T+1, H)   (H,), (O,)    W @ h
    columns           (T, D, B)  (H, B)  (T, O, B)   (T+1, H, B)   (H, 1), (O, 1)  W @ h
    rows              (T, B, D)  (B, H)  (T, B, O)   (T+1, B, H)   (H,), (O,)    h @ W
    batch_first_rows  (B, T, D)  (B, H)  (B, T, O)   (B, T+1, H)   (H,), (O,)    h @ W

Where the state of a cell has several arrays, h0, h and states are arranged as it is, in tuples and
mappings, and each array has axes of its own in the place of H.

In rows, every parameter with two axes, and its gradient, is the transpose: W (H, H), U (D, H),
V (H, O), and for gates W (H, 3H), so that they stand side by side along the last axis. Time comes
first there as in time_first, but for batch_first_rows. In columns a single sequence has one column,
elsewhere it has no batch axis. Labels and tokens are integers, (T,) or (T, B), and (B, T) where the
batch comes first. The target of ``last_step_squared_error`` has no axis of time.
"""

import numpy as np

from reference.arrays import root
from reference.problems import Problem

LAYOUTS = ("time_first", "batch_first", "columns", "rows", "batch_first_rows")
BATCH_FIRST = frozenset({"batch_first", "batch_first_rows"})
OF_ROWS = frozenset({"rows", "batch_first_rows"})  # parameters are the transposes
WITH_BATCH = frozenset({"x", "h0", "target", "h", "states"})  # arrays that have a batch axis
OVER_TIME = frozenset({"x", "target", "h", "states"})  # and that have an axis of time before it


def arguments(problem: Problem, layout: str) -> dict[str, np.ndarray]:
    """Return the arrays of a problem as a candidate gets them in a layout."""
    whole = {"x": problem.x.argmax(-1)} if problem.tokens else {}
    if problem.facts.labels:
        whole["target"] = problem.target
    transposed = layout in BATCH_FIRST
    return {
        k: in_layout(k, a, problem, layout)
        if k not in whole
        else np.swapaxes(whole[k], 0, -1)
        if transposed
        else whole[k]
        for k, a in problem.arrays.items()
    }


def in_layout(name: str, array: np.ndarray, problem: Problem, layout: str) -> np.ndarray:
    """Return an array of a problem, or the gradient in it, as a layout has it."""
    batched, name = "B" in problem.sizes, root(name)
    timeless = name == "target" and not problem.facts.over_time
    if layout in OF_ROWS and name in problem.cell.fields:
        return array.T if array.ndim == 2 else array
    if layout in BATCH_FIRST and name in OVER_TIME and batched and not timeless:
        return array.swapaxes(0, 1)
    if layout == "columns" and name in WITH_BATCH and batched:
        return np.moveaxis(array, int(name in OVER_TIME and not timeless), -1)
    if layout == "columns" and not (name in problem.cell.fields and array.ndim > 1):
        return array[..., None]
    return array


def from_layout(name: str, array: np.ndarray, problem: Problem, layout: str) -> np.ndarray:
    """Return an array in a layout as ``Problem`` has it: the inverse of ``in_layout``."""
    if layout == "columns" and root(name) in WITH_BATCH and "B" in problem.sizes:
        return np.moveaxis(array, -1, int(root(name) in OVER_TIME))
    if layout == "columns" and array.ndim > len(problem.gradient_shape(name)):
        return array[..., 0]
    return in_layout(name, array, problem, layout)  # exchanging two axes undoes itself
