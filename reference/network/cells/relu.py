"""The simple recurrent network with rectified linear units (Le, Jaitly and Hinton, 2015)."""

from typing import Any

import jax

from reference.network.cell import Cell


def step(p: Any, h: Any, x: Any) -> Any:
    """Return h[t] from h[t-1] and x[t]; the derivative at 0 is 0."""
    return jax.nn.relu(p["W"] @ h + p["U"] @ x + p["b"])


CELL = Cell(step, params={"W": "HH", "U": "HD", "b": "H"}, state="H")
