"""Attention in JAX, its gradient by hand in NumPy with one of two mistakes, and what is said.

python attention_mistakes.py
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

import reference


def loss(p, x, target):
    """Return the mean squared error of one head with a residual path; x and target are (T, D)."""
    q, k, v = x @ p["Wq"], x @ p["Wk"], x @ p["Wv"]
    scores = q @ k.T / jnp.sqrt(k.shape[1])
    weights = jax.nn.softmax(scores, axis=1)
    y = weights @ v + x
    return jnp.mean((y - target) ** 2)


def gradient(p, x, target, mistake):
    """Return the gradient of the loss with respect to p, with a mistake: 1 or 2."""
    q, k, v = x @ p["Wq"], x @ p["Wk"], x @ p["Wv"]
    scores = q @ k.T / np.sqrt(k.shape[1])
    weights = np.exp(scores - scores.max(1, keepdims=True))
    weights /= weights.sum(1, keepdims=True)
    dy = 2 * (weights @ v + x - target) / target.size
    if mistake == 1:  # large errors count as 0.01, as in Huber's loss
        dy = np.clip(dy, -0.01, 0.01)
    dweights = dy @ v.T
    sums = (dweights * weights).sum(1, keepdims=True)
    dscores = weights * (dweights if mistake == 2 else dweights - sums) / np.sqrt(k.shape[1])
    return {"Wq": x.T @ dscores @ k, "Wk": x.T @ dscores.T @ q, "Wv": x.T @ weights.T @ dy}


if __name__ == "__main__":
    T, D, H = 4, 6, 3
    rng = np.random.default_rng(0)
    p = {name: rng.standard_normal((D, n)) for name, n in (("Wq", H), ("Wk", H), ("Wv", D))}
    x, target = rng.standard_normal((T, D)), rng.standard_normal((T, D))
    for mistake in (1, 2):
        attempt = partial(gradient, mistake=mistake)
        print(reference.check_gradient(loss, attempt, p, x, target).diagnosis)
