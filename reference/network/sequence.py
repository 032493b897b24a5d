"""The forward equations in JAX, for one sequence of any cell; a batch is ``vmap`` of it.

    h[t] = step(h[t-1], x[t])      for the lab's cell, tanh(W h[t-1] + U x[t] + b)      (Eq. 1)
    y[t] = V h[t] + c                                                                   (Eq. 2)

A state of several arrays is one vector here, in which they lie side by side.

A *probe* is an array of zeros added to every state or output. It changes no value, and the gradient
of the loss in it is the gradient in that state or output, with everything downstream included.
"""

from collections.abc import Mapping
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from reference.devices import float64_on_cpu
from reference.network import named_cell
from reference.network.cell import Cell
from reference.user_code import arranged, places

PARAMETERS = ("W", "U", "b", "V", "c")  # of the lab's network


class Probes(NamedTuple):
    """Zeros to differentiate in: ``h`` (T+1, H) at every state, ``y`` (T, O) at every output."""

    h: Any
    y: Any


def output(params: Any, h: Any) -> Any:
    """Return the output (O,) in a state, of which the first H numbers are h."""
    H = params["V"].shape[1]
    return params["V"] @ (h if len(h) == H else h[:H]) + params["c"]  # Eq. 2


def sequence(cell: Cell, params: Any, x: Any, h0: Any, probes: Probes) -> tuple[Any, Any]:
    """Return the states (T+1, H) and the outputs (T, O) of one sequence x (T, D)."""

    def step(h: Any, inputs: Any) -> tuple[Any, Any]:
        x_t, probe = inputs
        h = cell.flat_step(params, h + probe, x_t)  # Eq. 1
        return h, h

    _, following = jax.lax.scan(step, h0, (x, probes.h[:-1]))
    states = jnp.concatenate([h0[None], following]) + probes.h
    return states, jax.vmap(partial(output, params))(states[1:]) + probes.y


def run(cell: Cell, params: Any, x: Any, h0: Any, probes: Probes) -> tuple[Any, Any]:
    """Return states and outputs of a sequence (T, D) or of a batch (T, B, D)."""
    one = partial(sequence, cell)
    if x.ndim == 2:
        return one(params, x, h0, probes)
    return jax.vmap(one, (None, 1, 0, Probes(1, 1)), 1)(params, x, h0, probes)


_run = partial(jax.jit, static_argnums=0)(run)


def zero_probes(params: Any, x: Any, h0: Any) -> Probes:
    """Return probes for a sequence or a batch, in the dtype of the inputs."""
    T, O = len(x), len(params["c"])
    h = np.zeros((T + 1, *h0.shape), x.dtype)
    return Probes(h, np.zeros((*x.shape[:-1], O), x.dtype))


def parameters(params: Any, cell: Cell) -> dict[str, np.ndarray]:
    """Return the arrays of anything that has the parameters of a cell as attributes."""
    return {k: np.asarray(getattr(params, k)) for k in cell.fields}


def forward(
    params: Any, x: Any, h0: Any = None, *, cell: str | Cell = "tanh"
) -> tuple[np.ndarray, np.ndarray]:
    """Return ``(h, y)``: the states (T+1, ...) and the outputs (T, ...), Eqs. 1-2 in JAX.

    Parameters
    ----------
    params : object
        Anything with the parameters of the cell as attributes, for the lab's W (H, H), U (H, D) and
        b (H,), and with V (O, H) and c (O,).
    x : array, (T, D) or (T, B, D)
        The inputs.
    h0 : array, (H,) or (B, H), optional
        The initial state; zeros if None. Where that of the cell has several arrays, h0 and h are
        arranged so too.
    cell : str or Cell
        The cell.

    Raises
    ------
    ValueError
        If shapes disagree, or there is no such cell.

    Examples
    --------
    >>> from reference import random_problem
    >>> problem = random_problem(T=5, B=3, D=2, H=4, O=1, regime="contracting", seed=0)
    >>> h, y = forward(problem.params, problem.x, problem.h0)
    >>> h.shape, y.shape
    ((6, 3, 4), (5, 3, 1))
    """
    cell = named_cell(cell)
    values, x, h0 = arguments(params, x, h0, cell)
    with float64_on_cpu():
        h, y = _run(cell, values, x, h0, zero_probes(values, x, h0))
        return cell.unpacked(np.asarray(h), sizes_of(values, x)), np.asarray(y)


def arguments(
    params: Any, x: Any, h0: Any, cell: Cell
) -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray]:
    """Return the parameters as a dict, x and h0, all of one dtype and with shapes that agree.

    h0 is returned as vectors, whatever the state consists of.
    """
    values = parameters(params, cell)
    dtype = np.result_type(*values.values(), np.float32)
    values = {k: array.astype(dtype) for k, array in values.items()}
    x = as_real("x", x, dtype)
    if x.ndim not in (2, 3):
        raise ValueError(f"x has shape {x.shape}; expected (T, D) or (T, B, D)")
    if values["V"].ndim != 2:
        raise ValueError(f"V has shape {values['V'].shape}; expected (O, H)")
    for k, shape in cell.shapes(sizes_of(values, x)).items():
        require_shape(k, values[k], shape)
    batch, sizes = x.shape[1:-1], sizes_of(values, x)
    if h0 is None:
        return values, x, np.zeros((*batch, cell.size(sizes)), dtype)
    return values, x, packed_state("h0", h0, cell, sizes, batch).astype(dtype)


def sizes_of(params: Any, x: Any) -> dict[str, int]:
    """Return D, H and O."""
    O, H = params["V"].shape
    return {"D": x.shape[-1], "H": H, "O": O}


def packed_state(
    name: str, state: Any, cell: Cell, sizes: Mapping[str, int], before: tuple[int, ...]
) -> np.ndarray:
    """Return a state as vectors, if its arrays have the axes of the cell after those before."""
    try:
        arrays = dict(places(state, cell.state))
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None
    for place, axes in cell.leaves.items():
        array = arrays[place] = as_real(f"{name}{place}", arrays[place], float)
        require_shape(f"{name}{place}", array, (*before, *(axis.size(sizes) for axis in axes)))
    return cell.packed(arranged(cell.state, arrays))


def as_real(name: str, value: Any, dtype: Any) -> np.ndarray:
    """Return value as an array of this dtype, if it holds real numbers."""
    array = np.asarray(value)
    if array.dtype.kind not in "fiub":
        raise ValueError(f"{name} has dtype {array.dtype}; expected real numbers")
    return array.astype(dtype)


def require_shape(name: str, array: np.ndarray, *shapes: tuple[int, ...]) -> np.ndarray:
    """Return array if it has one of these shapes: broadcasting would hide a mistake."""
    if array.shape not in shapes:
        expected = " or ".join(map(str, shapes))
        raise ValueError(f"{name} has shape {array.shape}; expected {expected}")
    return array
