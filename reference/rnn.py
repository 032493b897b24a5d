"""The forward equations in JAX, for one sequence; a batch is ``vmap`` of it.

    h[t] = tanh(W h[t-1] + U x[t] + b)                              (Eq. 1)
    y[t] = V h[t] + c                                               (Eq. 2)

A *probe* is an array of zeros added to every state or output. It changes no value, and the gradient
of the loss in it is the gradient in that state or output, with everything downstream included.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from reference.devices import float64_on_cpu

PARAMETERS = ("W", "U", "b", "V", "c")


class Probes(NamedTuple):
    """Zeros to differentiate in: ``h`` (T+1, H) at every state, ``y`` (T, O) at every output."""

    h: Any
    y: Any


def cell(params: Any, h: Any, x_t: Any) -> Any:
    """Return the next state (H,) of one sequence, from a state and an input (D,)."""
    return jnp.tanh(params["W"] @ h + params["U"] @ x_t + params["b"])  # Eq. 1


def output(params: Any, h: Any) -> Any:
    """Return the output (O,) in a state (H,)."""
    return params["V"] @ h + params["c"]  # Eq. 2


def sequence(params: Any, x: Any, h0: Any, probes: Probes) -> tuple[Any, Any]:
    """Return the states (T+1, H) and the outputs (T, O) of one sequence x (T, D)."""

    def step(h: Any, inputs: Any) -> tuple[Any, tuple[Any, Any]]:
        x_t, probe_h, probe_y = inputs
        h = cell(params, h, x_t) + probe_h
        return h, (h, output(params, h) + probe_y)

    start = h0 + probes.h[0]
    _, (states, outputs) = jax.lax.scan(step, start, (x, probes.h[1:], probes.y))
    return jnp.concatenate([start[None], states]), outputs


batch = jax.vmap(sequence, in_axes=(None, 1, 0, Probes(1, 1)), out_axes=1)
"""``sequence`` for x (T, B, D) and h0 (B, H); states, outputs and probes are (., B, .)."""


def run(params: Any, x: Any, h0: Any, probes: Probes) -> tuple[Any, Any]:
    """Return states and outputs of a sequence (T, D) or of a batch (T, B, D)."""
    return (sequence if x.ndim == 2 else batch)(params, x, h0, probes)


def zero_probes(params: Any, x: Any) -> Probes:
    """Return probes for a sequence or a batch, in the dtype of the parameters."""
    T, *rest = x.shape[:-1]
    dtype = params["W"].dtype
    H, O = len(params["b"]), len(params["c"])
    return Probes(np.zeros((T + 1, *rest, H), dtype), np.zeros((T, *rest, O), dtype))


def parameters(params: Any) -> dict[str, np.ndarray]:
    """Return the arrays of anything that has the attributes W, U, b, V and c."""
    return {k: np.asarray(getattr(params, k)) for k in PARAMETERS}


def forward(params: Any, x: Any, h0: Any = None) -> tuple[np.ndarray, np.ndarray]:
    """Return ``(h, y)``: the states (T+1, ...) and the outputs (T, ...), Eqs. 1-2 in JAX.

    Parameters
    ----------
    params : object
        Anything with the attributes W (H, H), U (H, D), b (H,), V (O, H) and c (O,).
    x : array, (T, D) or (T, B, D)
        The inputs.
    h0 : array, (H,) or (B, H), optional
        The initial state; zeros if None.

    Raises
    ------
    ValueError
        If shapes disagree.

    Examples
    --------
    >>> from reference import random_problem
    >>> problem = random_problem(T=5, B=3, D=2, H=4, O=1, regime="contracting", seed=0)
    >>> h, y = forward(problem.params, problem.x, problem.h0)
    >>> h.shape, y.shape
    ((6, 3, 4), (5, 3, 1))
    """
    values, x, h0 = arguments(params, x, h0)
    with float64_on_cpu():
        h, y = jax.jit(run)(values, x, h0, zero_probes(values, x))
        return np.asarray(h), np.asarray(y)


def arguments(params: Any, x: Any, h0: Any) -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray]:
    """Return the parameters as a dict, x and h0, all of one dtype and with shapes that agree."""
    values = parameters(params)
    dtype = np.result_type(*values.values(), np.float32)
    values = {k: array.astype(dtype) for k, array in values.items()}
    H, O = len(values["b"]), len(values["c"])
    x = as_real("x", x, dtype)
    if x.ndim not in (2, 3):
        raise ValueError(f"x has shape {x.shape}; expected (T, D) or (T, B, D)")
    D = x.shape[-1]
    expected = {"W": (H, H), "U": (H, D), "b": (H,), "V": (O, H), "c": (O,)}
    for k, shape in expected.items():
        require_shape(k, values[k], shape)
    shape = (*x.shape[1:-1], H)
    state = np.zeros(shape, dtype) if h0 is None else as_real("h0", h0, dtype)
    return values, x, require_shape("h0", state, shape)


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
