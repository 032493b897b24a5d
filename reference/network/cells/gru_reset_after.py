"""The gated recurrent unit of cuDNN, PyTorch and Keras: the reset gate acts after the product.

Gates are stacked in the order r, z, n; ``bh`` is the bias that the reset gate multiplies.
"""

from typing import Any

import jax.numpy as jnp
from jax.nn import sigmoid

from reference.network.cell import Cell


def step(p: Any, h: Any, x: Any) -> Any:
    """Return h[t] from h[t-1] and x[t]."""
    W_r, W_z, W_n = jnp.split(p["W"], 3)
    a_r, a_z, a_n = jnp.split(p["U"] @ x + p["b"], 3)
    r = sigmoid(W_r @ h + a_r)
    z = sigmoid(W_z @ h + a_z)
    n = jnp.tanh(a_n + r * (W_n @ h + p["bh"]))
    return (1 - z) * n + z * h


CELL = Cell(step, params={"W": "3HH", "U": "3HD", "b": "3H", "bh": "H"}, state="H")
