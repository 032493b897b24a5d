"""A GRU in JAX, its gradient by hand in NumPy with one of three mistakes, and what is said of each.

python named_mistakes.py
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

import reference


def loss(p, x, target):
    """Return the mean squared error of a GRU: x is (T, D), the target (T, O)."""

    def step(h, x_t):
        r = jax.nn.sigmoid(p["Wr"] @ h + p["Ur"] @ x_t)
        z = jax.nn.sigmoid(p["Wz"] @ h + p["Uz"] @ x_t)
        n = jnp.tanh(p["Wn"] @ (r * h) + p["Un"] @ x_t)
        h = (1 - z) * n + z * h
        return h, h

    _, h = jax.lax.scan(step, p["h0"], x)
    return jnp.mean((h @ p["V"].T - target) ** 2)


def sigmoid(a):
    """Return the logistic function."""
    return 1 / (1 + np.exp(-a))


def gradient(p, x, target, mistake):
    """Return the gradient of the loss with respect to p, with a mistake: 1, 2 or 3."""
    h, kept = [p["h0"]], []
    for x_t in x:
        r = sigmoid(p["Wr"] @ h[-1] + p["Ur"] @ x_t)
        z = sigmoid(p["Wz"] @ h[-1] + p["Uz"] @ x_t)
        n = np.tanh(p["Wn"] @ (r * h[-1]) + p["Un"] @ x_t)
        kept.append((r, z, n))
        h.append((1 - z) * n + z * h[-1])
    g = {k: np.zeros_like(v) for k, v in p.items()}
    dh = g["h0"]
    for t in reversed(range(len(x))):
        (r, z, n), before = kept[t], h[t]
        dy = 2 * (p["V"] @ h[t + 1] - target[t]) / target.size
        g["V"] += np.outer(dy, h[t + 1])
        dh = dh + p["V"].T @ dy
        slope = 1 - (h[t + 1] if mistake == 2 else n) ** 2
        dn, dz = dh * (1 - z) * slope, dh * (before - n) * z * (1 - z)
        dr = p["Wn"].T @ dn * before * r * (1 - r)
        for gate, da in (("r", dr), ("z", dz), ("n", dn)):
            g[f"U{gate}"] += np.outer(da, x[t])
            g[f"W{gate}"] += np.outer(da, r * before if gate == "n" else before)
        dh = dh * z + p["Wn"].T @ dn * r + p["Wz"].T @ dz
        if mistake != 1:
            dh = dh + p["Wr"].T @ dr
        if mistake == 3 and t % 3 == 0:
            dh = np.zeros_like(dh)
    g["h0"] = dh
    return g


if __name__ == "__main__":
    T, D, H, O = 8, 3, 4, 2
    rng = np.random.default_rng(0)
    shapes = {"V": (O, H), "h0": (H,)}
    shapes |= {f"W{k}": (H, H) for k in "rzn"} | {f"U{k}": (H, D) for k in "rzn"}
    p = {k: rng.standard_normal(shape) for k, shape in shapes.items()}
    x, target = rng.standard_normal((T, D)), rng.standard_normal((T, O))
    for mistake in (1, 2, 3):
        attempt = partial(gradient, mistake=mistake)
        print(reference.check_gradient(loss, attempt, p, x, target).diagnosis)
