"""The end-to-end check: how far a correct gradient may lie from autodiff's.

Two things separate two correct codes. One is the rounding of every step, amplified by all that
follows: in a chaotic network it reaches every digit, so no tolerance that ignores the conditioning
of the problem is both safe and sharp. It is measured: the gradient is computed again with an error
of one rounding, u times a normal deviate, on every entry of every parameter at every step, on every
tanh and on every derivative of tanh (Monte-Carlo arithmetic; Parker, 1997). The other is the
rounding of the sums over time and batch, which Higham (2002, section 3.1) bounds by gamma_n times
the sum of magnitudes. Hence, with gamma_n = n u / (1 - n u),

    tolerance = 8 max |perturbed - plain| + 2 gamma_n sum |terms| + 64 n tiny

with the largest of 8 perturbed runs, u the unit roundoff of the candidate's dtype, and 64 n tiny
for results so small that they are flushed to zero. Where the tolerance exceeds a thousandth of the
gradient, the problem proves nothing end to end, and only its steps can be checked.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from reference.bounds import FLUSHED, MULTIPLE, RUNS, V64, gamma, state_bounds
from reference.gradients import GRADIENTS, autodiff
from reference.rnn import PARAMETERS, Probes


def perturbations(T: int, B: int, D: int, H: int, O: int) -> dict[str, np.ndarray]:
    """Return normal deviates for every operation of RUNS runs, always the same ones."""
    rng = np.random.default_rng(0)
    shapes = {"W": (H, H), "U": (H, D), "b": (H,), "V": (O, H), "c": (O,)}
    shapes |= {"tanh": (H,), "slope": (H,), "loss": (O,)}
    return {k: rng.standard_normal((RUNS, B, T, *shape)) for k, shape in shapes.items()}


@jax.custom_jvp
def rounded_tanh(a: Any, tanh_error: Any, slope_error: Any) -> Any:
    """Return tanh(a) with a relative error; its derivative 1 - tanh(a)^2 has an absolute one."""
    return jnp.tanh(a) * (1 + tanh_error)


@rounded_tanh.defjvp
def _rounded_tanh_jvp(primals: Any, tangents: Any) -> Any:
    a, tanh_error, slope_error = primals
    h = rounded_tanh(a, tanh_error, slope_error)
    return h, (1 - h * h + slope_error) * tangents[0]


def perturbed_sequence(params: Any, x: Any, h0: Any, probes: Probes, errors: Any) -> Any:
    """Return the outputs of one sequence with an error in every operation."""

    def step(h: Any, inputs: Any) -> Any:
        x_t, probe_h, probe_y, e = inputs
        W, U, b, V, c = (params[k] * (1 + e[k]) for k in PARAMETERS)
        # Two units for tanh: elementary functions are not rounded correctly.
        h = rounded_tanh(W @ h + U @ x_t + b, 2 * e["tanh"], e["slope"]) + probe_h
        return h, V @ h + c + probe_y

    return jax.lax.scan(step, h0 + probes.h[0], (x, probes.h[1:], probes.y, errors))[1]


perturbed_batch = jax.vmap(perturbed_sequence, in_axes=(None, 1, 0, Probes(1, 1), 0), out_axes=1)


def spread(
    variables: Any, arguments: Any, loss: Callable[..., Any], errors: Any, plain: Any
) -> Any:
    """Return, for each gradient, the largest deviation of any entry in any perturbed run."""

    def total(params: Any, x: Any, h0: Any, probes: Probes, e: Any) -> Any:
        y = perturbed_batch(params, x, h0, probes, e)
        # The loss rounds as well: this term adds a relative error to each entry of its gradient.
        dy = jax.lax.stop_gradient(jax.grad(loss)(y, *arguments))
        return loss(y, *arguments) + jnp.sum(dy * jnp.swapaxes(e["loss"], 0, 1) * y)

    def run_once(e: Any) -> dict[str, Any]:
        grads = jax.grad(total, argnums=(0, 1, 2, 3))(*variables, e)
        params, dx, dh0, probes = grads
        return {**params, "x": dx, "h0": dh0, "h": probes.h}

    runs = jax.vmap(run_once)(errors)
    return {k: jnp.max(jnp.abs(runs[k] - plain[k])) for k in GRADIENTS}


def magnitudes(variables: Any, grads: Any) -> dict[str, Any]:
    """Return the sum of the magnitudes of the terms that make up each entry of each gradient.

    grads are what ``autodiff`` returns.
    """
    params, x, *_ = variables
    W, U, V = (jnp.abs(params[k]) for k in "WUV")
    h, x, dy, dh = (jnp.abs(a) for a in (grads["states"], x, grads["y"], grads["h"]))
    da = (1 - h[1:] ** 2) * dh[1:]
    da_after = jnp.concatenate([da, jnp.zeros_like(da[:1])])
    dy_now = jnp.concatenate([jnp.zeros_like(dy[:1]), dy])
    arriving = dy_now @ V + da_after @ W
    return {
        "W": jnp.einsum("tbi,tbj->ij", da, h[:-1]),
        "U": jnp.einsum("tbi,tbj->ij", da, x),
        "b": da.sum((0, 1)),
        "V": jnp.einsum("tbi,tbj->ij", dy, h[1:]),
        "c": dy.sum((0, 1)),
        "x": da @ U,
        "h0": arriving[0],
        "h": arriving,
    }


def truth_and_tolerance(
    variables: Any,
    arguments: Any,
    errors: Any,
    sizes: Any,
    u: Any,
    tiny: Any,
    loss: Callable[..., Any],
) -> dict[str, tuple[Any, Any]]:
    """Return autodiff's gradients and states, each with the tolerance of each entry."""
    plain = autodiff(variables, arguments, loss)
    scaled = jax.tree.map(lambda e: u * e, errors)
    deviation = spread(variables, arguments, loss, scaled, plain)
    terms = magnitudes(variables, plain)
    n = dict.fromkeys(PARAMETERS, sizes["T"] * sizes["B"] + 1)
    n |= {"x": sizes["H"] + 1} | dict.fromkeys(("h0", "h"), sizes["H"] + sizes["O"] + 1)

    def tolerance(k: str) -> Any:
        return MULTIPLE * deviation[k] + 2 * gamma(n[k], u) * terms[k] + FLUSHED * n[k] * tiny

    (params, x, *_), states = variables, plain["states"]
    e_h = state_bounds(params, states, x, sizes, u + V64)
    return {k: (plain[k], tolerance(k)) for k in GRADIENTS} | {"states": (states, e_h)}
