"""Scalar functions in JAX, each with a correct gradient in NumPy: none may ever be accused.

    python tests/correct_gradients.py --draws 40

judges each of them on that many random draws in each precision, and prints a table.
"""

import argparse
import math
import sys
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from correct_candidates import in_plain_loops
from jax import lax

from reference.functions.judging import judge
from reference.functions.leaves import autodiff
from reference.functions.trees import Caller, loss_of_variables, match, read
from reference.network import CELLS
from reference.network.losses import squared_error
from reference.network.sequence import Probes, sequence
from reference.problems import random_problem
from reference.report import FAILURES
from reference.user_code import Parameters


class Example(NamedTuple):
    """A loss in JAX, its gradient in NumPy, and a function that draws arguments for both.

    calm: the rounding errors of autodiff are far below the gradient.
    """

    loss: Callable[..., Any]
    gradient: Callable[..., Any]
    draw: Callable[[np.random.Generator], tuple[Any, ...]]
    calm: bool = True


EXAMPLES: dict[str, Example] = {}


def draw(example, rng, dtype):
    """Return arguments in one precision; Python floats stay what they are."""

    def in_dtype(leaf):
        array = np.asarray(leaf)
        return array.astype(dtype) if array.dtype.kind == "f" and type(leaf) is not float else leaf

    return jax.tree.map(in_dtype, example.draw(rng))


def sigmoid(z):
    return 1 / (1 + np.exp(-z))


def softmax(z):
    e = np.exp(z - z.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def one_hot(labels, like):
    return np.eye(like.shape[-1], dtype=like.dtype)[labels]


def mean_over(rows, array):
    """Return an array divided by a number of rows, in its own precision."""
    return array / array.dtype.type(len(rows))


# Linear models ----------------------------------------------------------------------------------


def linear_regression(params, X, y):
    return jnp.mean((X @ params["w"] + params["b"] - y) ** 2)


def linear_regression_gradient(params, X, y):
    residual = X @ params["w"] + params["b"] - y
    return {"w": mean_over(y, 2 * X.T @ residual), "b": 2 * residual.mean()}


EXAMPLES["linear regression"] = Example(
    linear_regression,
    linear_regression_gradient,
    lambda rng: (
        {"w": rng.standard_normal(5), "b": rng.standard_normal()},
        rng.standard_normal((20, 5)),
        rng.standard_normal(20),
    ),
)


def sum_of_squares(w, X, y):
    return jnp.sum((X @ w - y) ** 2)


def added_up_in_a_loop(w, X, y):
    dw = np.zeros_like(w)
    for x_i, y_i in zip(X, y, strict=True):
        prediction = w.dtype.type(0)
        for j in range(len(w)):
            prediction += x_i[j] * w[j]
        dw += 2 * (prediction - y_i) * x_i
    return dw


EXAMPLES["2,000 rows added up in a loop"] = Example(
    sum_of_squares,
    added_up_in_a_loop,
    lambda rng: (
        rng.standard_normal(3),
        rng.standard_normal((2000, 3)),
        3 + rng.standard_normal(2000),
    ),
)
EXAMPLES["weights that are still zero"] = Example(
    sum_of_squares,
    added_up_in_a_loop,
    lambda rng: (np.zeros(3), rng.standard_normal((300, 3)), rng.standard_normal(300)),
)


def logistic_regression(w, b, X, y):
    z = X @ w + b
    return jnp.mean(jnp.logaddexp(0, z) - y * z)


def logistic_regression_gradient(w, b, X, y):
    z = X @ w + b
    error = mean_over(y, sigmoid(z) - y)
    return X.T @ error, error.sum(), np.outer(error, w), mean_over(y, -z)


EXAMPLES["logistic regression"] = Example(
    logistic_regression,
    logistic_regression_gradient,
    lambda rng: (
        rng.standard_normal(4),
        rng.standard_normal(),
        rng.standard_normal((30, 4)),
        rng.integers(0, 2, 30).astype(float),
    ),
)


def cross_entropy(logits, labels):
    chosen = jnp.take_along_axis(logits, labels[:, None], axis=1)[:, 0]
    return jnp.mean(jax.nn.logsumexp(logits, axis=1) - chosen)


def cross_entropy_gradient(logits, labels):
    return mean_over(labels, softmax(logits) - one_hot(labels, logits))


def softmax_regression(params, X, labels):
    W, b = params
    return cross_entropy(X @ W + b, labels)


def softmax_regression_gradient(params, X, labels):
    W, b = params
    error = cross_entropy_gradient(X @ W + b, labels)
    return X.T @ error, error.sum(axis=0)


def draw_softmax(scale):
    return lambda rng: (
        (scale * rng.standard_normal((5, 3)), rng.standard_normal(3)),
        rng.standard_normal((16, 5)),
        np.arange(16) % 3,
    )


EXAMPLES["softmax regression"] = Example(
    softmax_regression, softmax_regression_gradient, draw_softmax(1)
)
EXAMPLES["softmax regression, saturated"] = Example(
    softmax_regression, softmax_regression_gradient, draw_softmax(30)
)


def certain(logits, labels):
    return cross_entropy(30 * jax.nn.one_hot(labels, 4) + logits, labels)


EXAMPLES["softmax, every answer certain"] = Example(
    certain,
    lambda logits, labels: cross_entropy_gradient(30 * one_hot(labels, logits) + logits, labels),
    lambda rng: (rng.standard_normal((6, 4)), np.arange(6) % 4),
    calm=False,
)


def poisson_regression(w, X, counts):
    return jnp.sum(jnp.exp(X @ w) - counts * (X @ w))


EXAMPLES["Poisson regression"] = Example(
    poisson_regression,
    lambda w, X, counts: X.T @ (np.exp(X @ w) - counts),
    lambda rng: (
        rng.standard_normal(4),
        rng.standard_normal((25, 4)),
        rng.poisson(2, 25).astype(float),
    ),
)


# Normalisation ----------------------------------------------------------------------------------


def layer_norm(x, gain, bias, target):
    centred = x - x.mean(axis=-1, keepdims=True)
    n = centred / jnp.sqrt((centred**2).mean(axis=-1, keepdims=True) + 1e-5)
    return jnp.sum((n * gain + bias - target) ** 2)


def layer_norm_gradient(x, gain, bias, target):
    """By the closed form dx = (dn - mean dn - n mean(dn n)) / deviation."""
    deviation = np.sqrt(x.var(axis=-1, keepdims=True) + x.dtype.type(1e-5))
    n = (x - x.mean(axis=-1, keepdims=True)) / deviation
    dy = 2 * (n * gain + bias - target)
    dn = dy * gain
    dx = (dn - dn.mean(-1, keepdims=True) - n * (dn * n).mean(-1, keepdims=True)) / deviation
    return dx, (dy * n).sum(axis=0), dy.sum(axis=0), -dy


def draw_layer_norm(offset):
    return lambda rng: (
        rng.standard_normal((4, 8)) + offset,
        rng.standard_normal(8),
        rng.standard_normal(8),
        rng.standard_normal((4, 8)),
    )


EXAMPLES["layer norm"] = Example(layer_norm, layer_norm_gradient, draw_layer_norm(0))
EXAMPLES["layer norm, far from zero"] = Example(
    layer_norm, layer_norm_gradient, draw_layer_norm(1000), calm=False
)


def batch_norm(x, gain, target):
    n = (x - x.mean(axis=0)) * lax.rsqrt(x.var(axis=0) + 1e-3)
    return jnp.mean((jnp.tanh(n * gain) - target) ** 2)


def batch_norm_gradient(x, gain, target):
    """Step by step through the mean and the variance; nothing for the target."""
    m = x.dtype.type(len(x))
    centred = x - x.sum(axis=0) / m
    root = 1 / np.sqrt((centred * centred).sum(axis=0) / m + x.dtype.type(1e-3))
    y = np.tanh(centred * root * gain)
    dn = 2 * (y - target) / y.dtype.type(y.size) * (1 - y * y)
    dx = dn * gain * root
    dx += (dn * gain * centred).sum(axis=0) * -(root**3) * centred / m
    return dx - dx.sum(axis=0) / m, (dn * centred * root).sum(axis=0), None


EXAMPLES["batch norm"] = Example(
    batch_norm,
    batch_norm_gradient,
    lambda rng: (
        rng.standard_normal((10, 3)),
        rng.standard_normal(3),
        rng.standard_normal((10, 3)),
    ),
)

EXAMPLES["sum of squares about a mean of 1e6"] = Example(
    lambda x: jnp.sum((x - x.mean()) ** 2),
    lambda x: 2 * (x - x.mean()),
    lambda rng: (1e6 + rng.standard_normal(50),),
    calm=False,
)
EXAMPLES["sum of squares of years about their mean"] = Example(
    lambda x: jnp.sum((x - x.mean()) ** 2),
    lambda x: 2 * (x - x.mean()),
    lambda rng: (rng.integers(1900, 2030, 50).astype(float),),
)


def cosine(a, b):
    return a @ b / jnp.sqrt((a @ a) * (b @ b))


def cosine_gradient(a, b):
    a1, b1 = a / np.linalg.norm(a), b / np.linalg.norm(b)
    c = a1 @ b1
    return (b1 - c * a1) / np.linalg.norm(a), (a1 - c * b1) / np.linalg.norm(b)


def draw_directions(angle):
    def drawn(rng):
        a, b = rng.standard_normal((2, 12))
        return a, b if angle is None else a + angle * b

    return drawn


EXAMPLES["cosine of an angle"] = Example(cosine, cosine_gradient, draw_directions(None))
EXAMPLES["cosine of a small angle"] = Example(
    cosine, cosine_gradient, draw_directions(1e-5), calm=False
)


# Networks ---------------------------------------------------------------------------------------


def attention(q, k, v, out):
    scores = q @ k.T / math.sqrt(q.shape[-1])
    scores = jnp.where(np.tri(len(q), dtype=bool), scores, -jnp.inf)
    return jnp.sum(out * (jax.nn.softmax(scores, axis=-1) @ v))


def attention_gradient(q, k, v, out):
    root = q.dtype.type(math.sqrt(q.shape[-1]))
    p = softmax(np.where(np.tri(len(q), dtype=bool), q @ k.T / root, q.dtype.type(-np.inf)))
    dp = out @ v.T
    ds = p * (dp - (p * dp).sum(axis=-1, keepdims=True)) / root
    return ds @ k, ds.T @ q, p.T @ out, p @ v


EXAMPLES["attention"] = Example(
    attention, attention_gradient, lambda rng: tuple(rng.standard_normal((4, 7, 4)))
)


def perceptron(layers, X, labels):
    for layer in layers[:-1]:
        X = jax.nn.relu(X @ layer["w"] + layer["b"])
    return cross_entropy(X @ layers[-1]["w"] + layers[-1]["b"], labels)


def perceptron_gradient(layers, X, labels):
    inputs = [X]
    for layer in layers[:-1]:
        inputs.append(np.maximum(inputs[-1] @ layer["w"] + layer["b"], 0))
    dz = cross_entropy_gradient(inputs[-1] @ layers[-1]["w"] + layers[-1]["b"], labels)
    grads = []
    for x, layer in zip(inputs[::-1], layers[::-1], strict=True):
        grads.insert(0, {"w": np.einsum("ni,no->io", x, dz), "b": dz.sum(axis=0)})
        dz = (dz @ layer["w"].T) * (x > 0)
    return grads


def draw_perceptron(rng):
    sizes = ((6, 9), (9, 9), (9, 4))
    layers = [
        {"w": rng.standard_normal((m, n)) / math.sqrt(m), "b": rng.standard_normal(n)}
        for m, n in sizes
    ]
    return layers, rng.standard_normal((12, 6)), np.arange(12) % 4


EXAMPLES["perceptron with two hidden layers"] = Example(
    perceptron, perceptron_gradient, draw_perceptron
)


def gru(params, x, h, out):
    z = jax.nn.sigmoid(x @ params["Uz"] + h @ params["Wz"])
    r = jax.nn.sigmoid(x @ params["Ur"] + h @ params["Wr"])
    n = jnp.tanh(x @ params["Un"] + r * (h @ params["Wn"]))
    return jnp.sum(out * ((1 - z) * n + z * h))


def gru_gradient(params, x, h, out):
    z = sigmoid(x @ params["Uz"] + h @ params["Wz"])
    r = sigmoid(x @ params["Ur"] + h @ params["Wr"])
    m = h @ params["Wn"]
    n = np.tanh(x @ params["Un"] + r * m)
    da = {"n": out * (1 - z) * (1 - n**2), "z": out * (h - n) * z * (1 - z)}
    da["r"] = da["n"] * m * r * (1 - r)
    da_h = da | {"n": da["n"] * r}  # what arrives at h W
    grads = {f"U{k}": x.T @ da[k] for k in "zrn"} | {f"W{k}": h.T @ da_h[k] for k in "zrn"}
    dx = sum(da[k] @ params[f"U{k}"].T for k in "zrn")
    dh = out * z + sum(da_h[k] @ params[f"W{k}"].T for k in "zrn")
    return grads, dx, dh, (1 - z) * n + z * h


def draw_gru(rng):
    params = {f"U{k}": rng.standard_normal((3, 5)) for k in "zrn"}
    params |= {f"W{k}": rng.standard_normal((5, 5)) for k in "zrn"}
    return params, rng.standard_normal((2, 3)), *rng.standard_normal((2, 2, 5))


EXAMPLES["step of a GRU"] = Example(gru, gru_gradient, draw_gru)


def lstm(W, x, h, c, out):
    i, f, o, g = jnp.split(jnp.concatenate([x, h]) @ W, 4)
    c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
    return out @ (jax.nn.sigmoid(o) * jnp.tanh(c))


def lstm_gradient(W, x, h, c, out):
    z = np.concatenate([x, h])
    i, f, o, g = np.split(z @ W, 4)
    i, f, o, g = sigmoid(i), sigmoid(f), sigmoid(o), np.tanh(g)
    t = np.tanh(f * c + i * g)
    dc = out * o * (1 - t * t)
    da = (dc * g * i * (1 - i), dc * c * f * (1 - f), out * t * o * (1 - o), dc * i * (1 - g * g))
    dz = W @ np.concatenate(da)
    return np.outer(z, np.concatenate(da)), dz[: len(x)], dz[len(x) :], dc * f, o * t


EXAMPLES["step of an LSTM"] = Example(
    lstm,
    lstm_gradient,
    lambda rng: (
        rng.standard_normal((8, 20)),
        rng.standard_normal(3),
        *rng.standard_normal((3, 5)),
    ),
)


def recurrent_network(params, x, h0, target):
    probes = Probes(jnp.zeros((len(x) + 1, len(h0))), jnp.zeros((len(x), len(params.c))))
    return squared_error(sequence(CELLS["tanh"], params._asdict(), x, h0, probes)[1], target)


def recurrent_network_gradient(params, x, h0, target):
    grads = in_plain_loops(params, x, h0, target)
    return Parameters(*(grads[k] for k in Parameters._fields)), grads["x"], grads["h0"], None


def draw_recurrent_network(regime):
    def drawn(rng):
        seed = int(rng.integers(2**32))
        p = random_problem(T=12, B=None, D=3, H=4, O=2, regime=regime, seed=seed)
        return p.params, p.x, p.h0, p.target

    return drawn


for regime in ("contracting", "expanding", "saturated", "chaotic"):
    EXAMPLES[f"recurrent network, {regime}"] = Example(
        recurrent_network,
        recurrent_network_gradient,
        draw_recurrent_network(regime),
        calm=regime == "contracting",
    )


def bags_of_words(table, w, words, target):
    return jnp.sum((jnp.tanh(table[words].mean(axis=1)) @ w - target) ** 2)


def bags_of_words_gradient(table, w, words, target):
    s = np.tanh(table[words].mean(axis=1))
    dy = 2 * (s @ w - target)
    da = np.outer(dy, w) * (1 - s * s) / w.dtype.type(words.shape[1])
    d_table = np.zeros_like(table)
    for bag, da_i in zip(words, da, strict=True):
        for word in bag:
            d_table[word] += da_i
    return d_table, s.T @ dy, None, -dy


EXAMPLES["bags of words"] = Example(
    bags_of_words,
    bags_of_words_gradient,
    lambda rng: (
        rng.standard_normal((7, 4)),
        rng.standard_normal(4),
        np.arange(60).reshape(12, 5) ** 2 % 7,
        rng.standard_normal(12),
    ),
)


def convolution(kernel, signal, target):
    y = lax.conv_general_dilated(signal[None], kernel, (1,), "VALID")[0]
    return jnp.sum((jax.nn.softplus(y) - target) ** 2)


def convolution_gradient(kernel, signal, target):
    windows = np.lib.stride_tricks.sliding_window_view(signal, kernel.shape[2], axis=1)
    y = np.einsum("oik,itk->ot", kernel, windows)
    dy = 2 * (np.logaddexp(y.dtype.type(0), y) - target) * sigmoid(y)
    d_signal = np.zeros_like(signal)
    for k in range(kernel.shape[2]):
        d_signal[:, k : k + dy.shape[1]] += kernel[:, :, k].T @ dy
    return np.einsum("ot,itk->oik", dy, windows), d_signal, None


EXAMPLES["convolution"] = Example(
    convolution,
    convolution_gradient,
    lambda rng: (
        rng.standard_normal((3, 2, 4)),
        rng.standard_normal((2, 20)),
        rng.standard_normal((3, 17)),
    ),
)


def largest_of_each_block(x, w):
    return jnp.sum(w * jnp.tanh(x.reshape(5, 4).max(axis=1)))


def largest_of_each_block_gradient(x, w):
    blocks = x.reshape(5, 4)
    t = np.tanh(blocks.max(axis=1))
    dx = np.zeros_like(blocks)
    dx[np.arange(5), blocks.argmax(axis=1)] = w * (1 - t * t)
    return dx.ravel(), t


EXAMPLES["largest of each block"] = Example(
    largest_of_each_block,
    largest_of_each_block_gradient,
    lambda rng: (rng.standard_normal(20), rng.standard_normal(5)),
)


def huber(x, y):
    def one(e):
        return lax.cond(abs(e) < 1, lambda e: e * e / 2, lambda e: abs(e) - 0.5, e)

    return lax.map(one, x - y).sum()


EXAMPLES["Huber loss, by branches"] = Example(
    huber,
    lambda x, y: (np.clip(x - y, -1, 1), np.clip(y - x, -1, 1)),
    lambda rng: tuple(rng.standard_normal((2, 9))),
)


# Linear algebra ---------------------------------------------------------------------------------


def log_determinant(A):
    return jnp.linalg.slogdet(A)[1]


def log_determinant_gradient(A):
    return np.linalg.inv(A).T


def draw_hilbert(rng):
    n = np.arange(6)
    return (1 / (n[:, None] + n + 1) + 1e-4 * np.diag(rng.uniform(1, 2, 6)),)


EXAMPLES["logarithm of a determinant"] = Example(
    log_determinant, log_determinant_gradient, lambda rng: (rng.standard_normal((5, 5)),), False
)
EXAMPLES["logarithm of a Hilbert determinant"] = Example(
    log_determinant, log_determinant_gradient, draw_hilbert, calm=False
)


def gaussian_process(theta, x, y):
    """Minus the log likelihood, by the factor of Cholesky."""
    scaled = (x[:, None] - x) ** 2 / jnp.exp(2 * theta["length"])
    K = jnp.exp(theta["size"] - scaled / 2) + jnp.exp(theta["noise"]) * jnp.eye(len(x))
    L = jnp.linalg.cholesky(K)
    z = jax.scipy.linalg.solve_triangular(L, y, lower=True)
    return z @ z / 2 + jnp.log(jnp.diag(L)).sum()


def gaussian_process_gradient(theta, x, y):
    """By the inverse: dK = (K^-1 - K^-1 y y' K^-1) / 2."""
    scaled = (x[:, None] - x) ** 2 / np.exp(2 * theta["length"])
    S = np.exp(theta["size"] - scaled / 2)
    inverse = np.linalg.inv(S + np.exp(theta["noise"]) * np.eye(len(x), dtype=x.dtype))
    alpha = inverse @ y
    dK = (inverse - np.outer(alpha, alpha)) / 2
    grads = {"size": (dK * S).sum(), "length": (dK * S * scaled).sum()}
    return grads | {"noise": np.exp(theta["noise"]) * np.trace(dK)}


def draw_gaussian_process(noise):
    def drawn(rng):
        centres = {"size": 0, "length": 0, "noise": noise}
        theta = {k: np.float64(centre + 0.3 * rng.normal()) for k, centre in centres.items()}
        return theta, np.sort(rng.uniform(-3, 3, 8)), rng.standard_normal(8)

    return drawn


EXAMPLES["Gaussian process"] = Example(
    gaussian_process, gaussian_process_gradient, draw_gaussian_process(-1), calm=False
)
EXAMPLES["Gaussian process, nearly singular"] = Example(
    gaussian_process, gaussian_process_gradient, draw_gaussian_process(-12), calm=False
)


def interpolation(nodes, y):
    return jnp.sum(jnp.linalg.solve(jnp.vander(nodes), y) ** 2)


def interpolation_gradient(nodes, y):
    V = np.vander(nodes).astype(y.dtype)
    c = np.linalg.solve(V, y)
    dy = np.linalg.solve(V.T, 2 * c)
    slope = np.zeros_like(V)
    slope[:, :-1] = np.arange(len(nodes) - 1, 0, -1, dtype=y.dtype) * V[:, 1:]
    return -dy * (slope @ c), dy


EXAMPLES["interpolation, by a Vandermonde matrix"] = Example(
    interpolation,
    interpolation_gradient,
    lambda rng: (np.linspace(-1, 1, 7) + 0.05 * rng.standard_normal(7), rng.standard_normal(7)),
    calm=False,
)


def polynomial(c, x, y):
    return jnp.sum((jnp.vander(x, len(c)) @ c - y) ** 2)


def polynomial_gradient(c, x, y):
    dp = 2 * (np.polyval(c, x) - y)
    return np.vander(x, len(c)).astype(c.dtype).T @ dp, dp * np.polyval(np.polyder(c), x), -dp


EXAMPLES["polynomial of degree 9"] = Example(
    polynomial,
    polynomial_gradient,
    lambda rng: (rng.standard_normal(10), rng.uniform(-2, 2, 15), rng.standard_normal(15)),
)


def largest_eigenvalue_gradient(A):
    v = np.linalg.eigh(A + A.T)[1][:, -1]
    return 2 * np.outer(v, v)


EXAMPLES["largest eigenvalue"] = Example(
    lambda A: jnp.linalg.eigh(A + A.T)[0][-1],
    largest_eigenvalue_gradient,
    lambda rng: (rng.standard_normal((4, 4)),),
    calm=False,
)


def nuclear_norm_gradient(A):
    U, _, Vh = np.linalg.svd(A, full_matrices=False)
    return U @ Vh


EXAMPLES["nuclear norm"] = Example(
    lambda A: jnp.linalg.svd(A, compute_uv=False).sum(),
    nuclear_norm_gradient,
    lambda rng: (rng.standard_normal((5, 3)),),
    calm=False,
)


# Series and iterations ---------------------------------------------------------------------------


def logistic_map(r, x):
    return lax.fori_loop(0, 60, lambda _, x: r * x * (1 - x), x)


def logistic_map_gradient(r, x):
    dr, dx = 0 * r, 0 * r + 1
    for _ in range(60):
        dr, dx, x = x * (1 - x) + r * (1 - 2 * x) * dr, r * (1 - 2 * x) * dx, r * x * (1 - x)
    return dr, dx


def draw_logistic_map(*rates):
    return lambda rng: (np.float64(rng.uniform(*rates)), np.float64(rng.uniform(0.1, 0.9)))


EXAMPLES["logistic map, periodic"] = Example(
    logistic_map, logistic_map_gradient, draw_logistic_map(3.45, 3.5), calm=False
)
EXAMPLES["logistic map, chaotic"] = Example(
    logistic_map, logistic_map_gradient, draw_logistic_map(3.9, 4), calm=False
)

EXAMPLES["square root by Newton's method"] = Example(
    lambda x: jnp.sum(lax.fori_loop(0, 12, lambda _, r: (r + x / r) / 2, (x + 1) / 2)),
    lambda x: 1 / (2 * np.sqrt(x)),
    lambda rng: (rng.uniform(0.1, 10, 6),),
)


def fixed_point(A, b):
    x, _ = lax.scan(lambda x, _: (A @ x + b, None), b, None, 40)
    return x @ x


def fixed_point_gradient(A, b):
    """By the equation x = A x + b that the iteration solves."""
    system = np.eye(len(b), dtype=b.dtype) - A
    x = np.linalg.solve(system, b)
    dx = np.linalg.solve(system.T, 2 * x)
    return np.outer(dx, x), dx


EXAMPLES["fixed point of an iteration"] = Example(
    fixed_point,
    fixed_point_gradient,
    lambda rng: (rng.standard_normal((4, 4)) / 20, rng.standard_normal(4)),
)


def power_spectrum(x):
    return jnp.sum(jnp.log1p(jnp.abs(jnp.fft.rfft(x)) ** 2))


def power_spectrum_gradient(x):
    n = np.arange(len(x))
    angle = 2 * np.pi * np.outer(n[: len(x) // 2 + 1], n) / len(x)
    C, S = np.cos(angle).astype(x.dtype), np.sin(angle).astype(x.dtype)
    re, im = C @ x, S @ x
    return 2 * (C.T @ (re / (1 + re**2 + im**2)) + S.T @ (im / (1 + re**2 + im**2)))


EXAMPLES["power spectrum"] = Example(
    power_spectrum, power_spectrum_gradient, lambda rng: (rng.standard_normal(16),)
)

EXAMPLES["remainder of a series"] = Example(
    lambda x: jnp.sum(jnp.expm1(x) - x),
    np.expm1,
    lambda rng: (1e-6 * rng.standard_normal(7),),
    calm=False,
)


def cumulative(x, w):
    return jnp.sum(w * jnp.sin(jnp.cumsum(x)))


def cumulative_gradient(x, w):
    total, totals, dx = 0 * x[0], [], np.zeros_like(x)
    for x_t in x:
        total = total + x_t
        totals.append(total)
    for t in range(len(x)):
        for s in range(t, len(x)):
            dx[t] += w[s] * np.cos(totals[s])
    return dx, np.sin(np.array(totals))


EXAMPLES["sines of cumulative sums"] = Example(
    cumulative, cumulative_gradient, lambda rng: tuple(rng.standard_normal((2, 40)))
)


def energy(points):
    apart = 1 - jnp.eye(len(points))
    r2 = ((points[:, None] - points) ** 2).sum(axis=-1) + jnp.eye(len(points))
    return jnp.sum(apart * (r2**-3.0 - r2**-1.0))


def energy_gradient(points):
    d = points[:, None] - points
    r2 = (d**2).sum(axis=-1) + np.eye(len(points), dtype=points.dtype)
    return 4 * ((r2**-2 - 3 * r2**-4)[:, :, None] * d).sum(axis=1)


EXAMPLES["energy of points that attract and repel"] = Example(
    energy, energy_gradient, lambda rng: (2 * rng.standard_normal((6, 3)),), calm=False
)


# Judging many draws ------------------------------------------------------------------------------


class Judge:
    """Judges draws of one example; it is compiled once for all of them."""

    def __init__(self, example):
        self.example = example
        self.measures = None

    def rows(self, seed, dtype, change=lambda place, leaf: leaf):
        """Return the verdicts on every leaf of a draw, after a change to the gradient."""
        found = self.measured(seed, dtype)
        return [judge(p.label, change(p, leaf), *m, np.dtype(dtype), []) for p, leaf, m in found]

    def measured(self, seed, dtype):
        """Return each leaf's place, the correct gradient, and autodiff's with its tolerance."""
        given = read(draw(self.example, np.random.default_rng(seed), dtype))
        returned, _ = Caller(self.example.gradient, given)()
        leaves = [(p, leaf) for p, leaf in match(returned, given).leaves if leaf is not None]
        if self.measures is None:
            loss = loss_of_variables(self.example.loss, given)
            positions = [given.variables.index(place) for place, _ in leaves]
            self.measures = autodiff(loss, given.values(), positions)
        measures = self.measures(given.values(), given.dtype)
        return [(p, leaf, m) for (p, leaf), m in zip(leaves, measures, strict=True)]


HEADER = ("gradient", "dtype", "leaves", "false alarms", "undecided", "error", "tolerance")


def cells(name, dtype, rows):
    """Return a line of the table: the largest error over its tolerance, the median tolerance."""
    alarms = sum(row.status in FAILURES for row in rows)
    decided = [row for row in rows if row.status != "nothing proved"]
    ratios = [row.ratio for row in decided if row.ratio is not None]
    relative = [row.tolerance / abs(row.expected) for row in decided if row.expected]
    worst = f"{max(ratios):.3f}" if ratios else "-"
    median = f"{np.median(relative):.1e}" if relative else "-"
    return (name, dtype, f"{len(rows)}", f"{alarms}", f"{len(rows) - len(decided)}", worst, median)


def main(arguments=None):
    parser = argparse.ArgumentParser(description="judge correct gradients, and count false alarms")
    parser.add_argument("--draws", type=int, default=40, help="of each dtype (%(default)s)")
    options = parser.parse_args(arguments)
    print("\n".join(f"| {' | '.join(line)} |" for line in (HEADER, ["---"] * len(HEADER))))
    alarms = 0
    for name, example in EXAMPLES.items():
        judged = Judge(example)
        for dtype in ("float64", "float32"):
            rows = [row for seed in range(options.draws) for row in judged.rows(seed, dtype)]
            print(f"| {' | '.join(cells(name, dtype, rows))} |", flush=True)
            alarms += sum(row.status in FAILURES for row in rows)
    return 1 if alarms else 0


if __name__ == "__main__":
    sys.exit(main())
