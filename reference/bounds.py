"""The local check: is every single step of a candidate right, up to its rounding?

From the candidate's own states h[t] and its own dh[t+1], the gradients in them, ``jax.vjp`` of one
step says in float64 what the state h[t+1], the gradient dh[t] and the sums dW, dU, db, dV, dc must
be. Nothing accumulates over time, so what rounding can explain is bounded rigorously, however
chaotic the network. With u the unit roundoff of the candidate plus v = 2^-53, that of autodiff,
gamma_n = n u / (1 - n u), which bounds an inner product of n terms in any order (Higham, 2002,
section 3.1), ' a transpose and |.| taken entry by entry:

    a[t]     e_a  = gamma_{D+H+2} (|W| |h[t-1]| + |U| |x[t]| + |b|)
    h[t]     e_h  = D+ e_a + (4 u + 4 v) |h[t]|,    D+ = 1 - tanh(max(|a| - e_a, 0))^2
    dy[t]    e_dy = |L''| gamma_{H+2} (|V| |h[t]| + |c|) + 4 u |dy|
    da[t]    e_da = |dh| (u h^2 + 4 u (1 - h^2) + delta (2 |h| + delta))
    dh[t]    |V|' e_dy + |W|' e_da + gamma_{H+O+1} (|V|' |dy| + |W|' |da|)
    dW       sum e_da |h[t-1]|' + gamma_{BT+1} sum |da| |h[t-1]|';  dU, db, dV, dc alike
    dx[t]    |U|' e_da + gamma_{H+1} |U|' |da|

The bound on da is absolute, because 1 - h^2 loses all relative accuracy at saturation. delta is how
far the candidate's h[t] lies from the tanh(a[t]) at which JAX takes the derivative. A candidate's
tanh may err by 4 of its u and JAX's by 8 v: XLA's was measured at 7.5 v, NumPy's at 1.7 u.

The bounds are about code that computes dh[t] from dh[t+1], one step at a time, and everything else
from that dh. Code that is right but goes another way (a parallel scan over time; dW by real-time
recurrent learning, or dx by forward mode, beside the h of a recursion) rounds otherwise, and may be
accused of it. Such code leaves out h, and is judged end to end.

A candidate that keeps its states to itself is taken to have those of autodiff, each up to a bound
that the first two lines carry forward in time; delta and every |h| grow by that bound.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from reference.rnn import PARAMETERS, cell, output

V64 = 2.0**-53  # the unit roundoff of autodiff, which is in float64
PROVES = 1e-3  # of the largest entry: a tolerance beyond decides nothing
RUNS = 8  # with other rounding errors, of which the largest deviation is taken
MULTIPLE = 8.0  # of that deviation is what rounding can explain
FLUSHED = 64.0  # times tiny: what is so small may have been flushed to zero on the way


def gamma(n: Any, u: Any) -> Any:
    """Bound the relative error of a sum of n terms, in any order."""
    return n * u / (1 - n * u)


def state_bound(params: Any, h: Any, e_h: Any, x: Any, sizes: Any, u: Any) -> Any:
    """Bound the error of the next state, if h is known up to e_h; rows are sequences or steps."""
    W, U, b = (jnp.abs(params[k]) for k in "WUb")
    a = h @ params["W"].T + x @ params["U"].T + params["b"]
    terms = (jnp.abs(h) + e_h) @ W.T + jnp.abs(x) @ U.T + b
    e_a = e_h @ W.T + gamma(sizes["D"] + sizes["H"] + 2, u) * terms
    steepest = 1 - jnp.tanh(jnp.maximum(jnp.abs(a) - e_a, 0)) ** 2
    return steepest * e_a + 4 * (u + V64) * jnp.abs(jnp.tanh(a))


def state_bounds(params: Any, states: Any, x: Any, sizes: Any, u: Any) -> Any:
    """Bound the error of every state (T+1, B, H) of any correct forward pass; h[0] has none."""

    def step(e_h: Any, inputs: Any) -> Any:
        e_h = state_bound(params, inputs[0], e_h, inputs[1], sizes, u)
        return e_h, e_h

    start = jnp.zeros_like(states[0])
    return jnp.concatenate([start[None], jax.lax.scan(step, start, (states[:-1], x))[1]])


def _cell_backward(params: Any, h_before: Any, x_t: Any, dh: Any) -> Any:
    """Return the next state and what its gradient dh means for the parameters, h_before and x_t."""
    h, pull_back = jax.vjp(cell, params, h_before, x_t)
    return h, *pull_back(dh)


def _output_backward(params: Any, h: Any, dy: Any) -> Any:
    """Return what the gradient dy in an output means for the parameters and the state h."""
    return jax.vjp(output, params, h)[1](dy)


def _everywhere(function: Callable[..., Any], arrays: int) -> Callable[..., Any]:
    """Return function (params, arrays...) for every step and sequence at once."""
    axes = (None, *[0] * arrays)
    return jax.vmap(jax.vmap(function, axes), axes)


def local_check(
    variables: Any,
    arguments: Any,
    states: Any,
    e_h: Any,
    dh: Any,
    sizes: Any,
    u: Any,
    tiny: Any,
    loss: Callable[..., Any],
) -> dict[str, tuple[Any, Any]]:
    """Return, for each gradient and the states, what one step gives and the bound on its error.

    states (T+1, B, H) are the candidate's, exactly (e_h = 0) or up to e_h, and dh its gradients in
    them. The loss is a sum of convex terms, one for each entry of the outputs.
    """
    params, x, h0, _ = variables
    none = jnp.zeros_like(h0)[None]
    y = _everywhere(output, 1)(params, states[1:])
    e_y = _output_bound(params, states[1:], e_h[1:], sizes, u)
    gradient = jax.grad(lambda y: loss(y, *arguments))
    dy, e_dy = jax.jvp(gradient, (y,), (e_y,))  # its Hessian is diagonal and not negative
    e_dy += 4 * u * jnp.abs(dy)

    h, by_cell, dh_before, dx = _everywhere(_cell_backward, 3)(params, states[:-1], x, dh[1:])
    by_output, dh_now = _everywhere(_output_backward, 2)(params, states[1:], dy)
    value = {k: (by_cell[k] + by_output[k]).sum((0, 1)) for k in PARAMETERS}
    value["h"] = jnp.concatenate([dh_before, none]) + jnp.concatenate([none, dh_now])
    value |= {"x": dx, "h0": value["h"][0], "states": jnp.concatenate([h0[None], h])}

    e_da = _slope_bound(states[1:], jnp.abs(states[1:] - h) + e_h[1:], u) * jnp.abs(dh[1:])
    bound = _sum_bounds(params, x, (states, e_h), (dy, e_dy), (by_cell["b"], e_da), sizes, u)
    e_next = state_bound(params, states[:-1], e_h[:-1], x, sizes, u)
    bound["states"] = jnp.concatenate([none, e_next])
    flushed = FLUSHED * (sizes["T"] * sizes["B"] + sizes["H"] + sizes["O"]) * tiny
    return {k: (value[k], bound[k] + flushed) for k in bound}


def _output_bound(params: Any, h: Any, e_h: Any, sizes: Any, u: Any) -> Any:
    """Bound the error of the outputs, if h is known up to e_h."""
    V, c = jnp.abs(params["V"]), jnp.abs(params["c"])
    return e_h @ V.T + gamma(sizes["H"] + 2, u) * ((jnp.abs(h) + e_h) @ V.T + c)


def _slope_bound(h: Any, delta: Any, u: Any) -> Any:
    """Bound the error of 1 - h^2, if the h that it is computed from is known up to delta.

    Up to version 0.11 JAX adds (1 - h) and (1 - h) h, of which the second rounds by V64 |h| |1 - h|
    where nothing fuses it with the sum: by V64 |h| more than h h does for a negative h.
    """
    rounding = u * h**2 + 4 * u * jnp.abs(1 - h**2) + V64 * jnp.maximum(-h, 0)
    return rounding + delta * (2 * jnp.abs(h) + delta)


def _sum_bounds(
    params: Any, x: Any, states: Any, dys: Any, das: Any, sizes: Any, u: Any
) -> dict[str, Any]:
    """Bound the errors of all that is computed from h, dy and da; each comes with its error."""
    (h, e_h), (dy, e_dy), (da, e_da) = states, dys, das
    W, U, V = (jnp.abs(params[k]) for k in "WUV")
    x, h, dy, da = jnp.abs(x), jnp.abs(h) + e_h, jnp.abs(dy) + e_dy, jnp.abs(da) + e_da
    exact, ones = jnp.zeros_like(x), jnp.ones((*x.shape[:2], 1))
    none = jnp.zeros_like(h[:1])
    over_time = gamma(sizes["T"] * sizes["B"] + 1, u)
    over_units = gamma(sizes["H"] + sizes["O"] + 1, u)

    def sums(left: Any, e_left: Any, right: Any, e_right: Any) -> Any:
        """Bound the error of the sum of left right' over time and batch."""
        products = ((e_left, right), (left, e_right), (over_time * left, right))
        return sum(jnp.einsum("tbi,tbj->ij", a, b) for a, b in products)

    from_after = e_da @ W + over_units * (da @ W)
    from_now = e_dy @ V + over_units * (dy @ V)
    dh = jnp.concatenate([from_after, none]) + jnp.concatenate([none, from_now])
    return {
        "W": sums(da, e_da, h[:-1], e_h[:-1]),
        "U": sums(da, e_da, x, exact),
        "b": sums(da, e_da, ones, 0 * ones)[:, 0],
        "V": sums(dy, e_dy, h[1:], e_h[1:]),
        "c": sums(dy, e_dy, ones, 0 * ones)[:, 0],
        "x": e_da @ U + gamma(sizes["H"] + 1, u) * (da @ U),
        "h": dh,
        "h0": dh[0],
    }


def decides(expected: np.ndarray, tolerance: np.ndarray, dtype: Any) -> bool:
    """Return whether a tolerance is small beside the largest entry, or below what is flushed."""
    info = np.finfo(dtype)
    least = float(info.tiny) / float(info.eps)
    return bool(tolerance.max() <= PROVES * np.abs(expected).max() + least)


def over_tolerance(errors: np.ndarray, tolerance: np.ndarray) -> np.ndarray:
    """Return each error in multiples of its tolerance; no error is 0, even of no tolerance."""
    errors = np.abs(errors)
    ratios = np.where(errors > 0, np.inf, 0.0)
    np.divide(errors, tolerance, out=ratios, where=tolerance > 0)
    return ratios
