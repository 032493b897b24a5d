"""The lab's cell (Eq. 1): the simple recurrent network of Elman (1990)."""

from typing import Any

import jax.numpy as jnp

from reference.network.cell import Cell


def step(p: Any, h: Any, x: Any) -> Any:
    """Return h[t] from h[t-1] and x[t]."""
    return jnp.tanh(p["W"] @ h + p["U"] @ x + p["b"])  # Eq. 1


CELL = Cell(step, params={"W": "HH", "U": "HD", "b": "H"}, state="H")
