"""The end-to-end check: how far a correct gradient may lie from autodiff's.

Two things separate two correct codes. One is the rounding of every step, amplified by all that
follows: in a chaotic network it reaches every digit, so no tolerance that ignores the conditioning
of the problem is both safe and sharp. It is measured: the gradient is computed again with an error
in every operation that rounds (``reference.rounding.noise``). The other is the rounding of the sums
over time and batch, which Higham (2002, section 3.1) bounds by gamma_n times the sum of magnitudes.
Hence, with gamma_n = n u / (1 - n u),

    tolerance = 5 max |perturbed - plain| + 2 gamma_n sum |terms| + 64 n tiny

with the largest of 8 perturbed runs, u the unit roundoff of the candidate's dtype, and 64 n tiny
for results so small that they are flushed to zero. The second term is of the gradients in the
parameters alone; the sums of a step are among the operations with errors. Where the tolerance
exceeds a thousandth of the gradient, the problem proves nothing end to end, and only its steps can
be checked.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from reference import jaxprs
from reference.network.cell import Cell
from reference.network.gradients import autodiff
from reference.rounding.known import Machine, gamma
from reference.rounding.noise import ASTRAY, DEVIATES, Noise, apart, evaluate
from reference.rounding.recognition import recognised
from reference.rounding.steps import Traced, by_autodiff, everywhere, state_bounds
from reference.rounding.tolerance import FLUSHED, RUNS, V64

OF_DEVIATION = 5.0  # times the largest deviation, of errors of one to two units, is explained


def deviates() -> np.ndarray:
    """Return the errors of RUNS runs, in units of roundoff, always the same ones."""
    rng = np.random.default_rng(0)
    xi: np.ndarray = rng.uniform(1, 2, (RUNS, DEVIATES)) * rng.choice([-1, 1], (RUNS, DEVIATES))
    return xi


def tolerances(
    cell: Cell, traced: Traced, like: Any, loss: Callable[..., Any], *, of_states: bool
) -> Callable[..., dict[str, Any]]:
    """Return a function that returns the tolerances of autodiff's gradients and states.

    It is called with the variables (params as a dict, x, h0, probes), what the loss is given beside
    the outputs, or the states, what ``autodiff`` returned, the deviates, the sizes and the machine;
    ``like`` are arguments like the first two. With the tolerances it returns, as ``astray``,
    whether the gradients without errors lie further from autodiff's than errors can take them: then
    they are not computed as they should be.
    """
    equal = replace(cell, step=recognised(cell.step))
    jaxpr, tree = jaxprs.traced(
        lambda variables, given: autodiff(variables, given, loss, equal, of_states=of_states),
        *like,
    )

    def tolerances(
        variables: Any, given: Any, plain: Any, xi: Any, sizes: Any, m: Machine
    ) -> dict[str, Any]:
        leaves = jax.tree.leaves((variables, given))

        def run(xi: Any) -> dict[str, Any]:
            noise = Noise(xi, m.u, m.arithmetic)
            found: dict[str, Any] = jax.tree.unflatten(tree, evaluate(jaxpr, leaves, noise))
            return found

        runs = jax.vmap(run)(jnp.concatenate([xi, jnp.zeros_like(xi[:1])]))  # the last without
        spread = {k: largest(runs[k][:-1] - plain[k]) for k in cell.gradients}
        off = [apart(runs[k][-1], plain[k]) for k in cell.gradients]
        own = [apart(runs[k][:-1], runs[k][-1:]) for k in cell.gradients]
        astray = jnp.any(jnp.array(off) > ASTRAY * jnp.array(own))
        params, x, *_ = variables
        n = sizes["T"] * sizes["B"] + sizes["H"] + sizes["O"]
        sums = magnitudes(cell, params, x, plain)
        of_sums = 2 * gamma(sizes["T"] * sizes["B"] + 1, m.u)

        def tolerance(k: str) -> Any:
            return OF_DEVIATION * spread[k] + of_sums * sums.get(k, 0.0) + FLUSHED * n * m.tiny

        e_h = state_bounds(cell, traced, params, plain["states"], x, m._replace(u=m.u + V64))
        found = {k: tolerance(k) + 0 * plain[k] for k in cell.gradients}
        return found | {"states": e_h, "astray": astray}

    return tolerances


def largest(difference: Any, axes: Any = None) -> Any:
    """Return the largest magnitude, infinite where one is NaN: XLA's maximum leaves NaN out."""
    size = jnp.abs(difference)
    return jnp.max(jnp.where(jnp.isnan(size), jnp.inf, size), axis=axes)


def magnitudes(cell: Cell, params: Any, x: Any, plain: Any) -> dict[str, Any]:
    """Return the sum of the magnitudes of what each step adds to the gradients in the parameters.

    plain are what ``autodiff`` returns.
    """
    h, dh, dy = plain["states"], plain["h"], plain["y"]
    p = {k: params[k] for k in cell.params}
    _, (of_steps, _, _) = everywhere(by_autodiff, 3)(cell, p, h[:-1], x, dh[1:])
    sums = {k: jnp.abs(g).sum((0, 1)) for k, g in of_steps.items()}
    seen = h[1:, :, : params["V"].shape[1]]
    sums["V"] = jnp.einsum("tbi,tbj->ij", jnp.abs(dy), jnp.abs(seen))
    sums["c"] = jnp.abs(dy).sum((0, 1))
    return sums
