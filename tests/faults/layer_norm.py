"""A recurrent network of rectified units, normalised over the layer before they are rectified."""

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from faults import Fault, normal, pairs, parts, zeros_like

EPSILON = 1e-2


def loss(params, x, target):
    def step(h, x_t):
        a = params["W"] @ h + params["U"] @ x_t
        mu = jnp.mean(a)
        variance = jnp.mean((a - mu) ** 2)
        s = jnp.sqrt(variance + EPSILON)
        unit = (a - mu) / s
        n = params["gamma"] * unit + params["beta"]
        h = jax.nn.relu(n)
        return h, h

    _, h = lax.scan(step, params["h0"], x)
    y = h @ params["V"].T + params["c"]
    return jnp.mean((y - target) ** 2)


def arguments(rng):
    T, D, H, O = 7, 3, 5, 2
    params = {
        "W": normal(rng, H, H),
        "U": normal(rng, H, D),
        "gamma": rng.uniform(0.6, 1.4, H),
        "beta": rng.uniform(0.1, 0.7, H),
        "h0": normal(rng, H),
        "V": normal(rng, O, H),
        "c": normal(rng, O),
    }
    return params, rng.normal(size=(T, D)), normal(rng, T, O)


def gradient(fault, params, x, target):
    wrong = parts(fault)
    W, U, gamma, beta, V, c = (params[name] for name in ["W", "U", "gamma", "beta", "V", "c"])
    T, H, O = len(x), len(beta), len(c)
    a, unit, n, h = (np.empty((T + 1, H)) for _ in range(4))
    variance = np.empty(T)
    h[-1] = params["h0"]  # h[t - 1] is the state before step t
    for t in range(T):
        a[t] = W @ h[t - 1] + U @ x[t]
        variance[t] = a[t].var()
        unit[t] = (a[t] - a[t].mean()) / np.sqrt(variance[t] + EPSILON)
        n[t] = gamma * unit[t] + beta
        h[t] = np.maximum(n[t], 0)
    y = h[:T] @ V.T + c

    dy = 2 * (y - target) / (T * O)
    if "mean over the steps alone" in wrong:
        dy = dy * O

    d = zeros_like(params)
    d["V"], d["c"] = dy.T @ h[:T], dy.sum(0)
    carried = np.zeros(H)
    for t in reversed(range(T)):
        dh = V.T @ dy[t] + carried

        # h = relu(n)
        active = n[t] > 0
        if "rectifier open at the product" in wrong:
            active = a[t] > 0
        if "rectifier open at the state before" in wrong:
            active = h[t - 1] > 0
        if "rectifier's slope is its value" in wrong:
            active = h[t]
        dn = dh if "no slope of the rectifier" in wrong else dh * active

        # n = gamma unit + beta
        into_gamma = dn * unit[t]
        if "gamma with the product" in wrong:
            into_gamma = dn * a[t]
        if "gamma with the deviations" in wrong:
            into_gamma = dn * (a[t] - a[t].mean())
        if "gamma with the output" in wrong:
            into_gamma = dn * n[t]
        d["gamma"] += into_gamma
        d["beta"] = dn if "beta overwritten" in wrong else d["beta"] + dn
        dunit = dn if "gamma not on the way back" in wrong else dn * gamma

        # unit = (a - mean(a)) / sqrt(var(a) + epsilon)
        s = np.sqrt(variance[t] + EPSILON)
        if "epsilon forgotten" in wrong:
            s = np.sqrt(variance[t])
        if "root forgotten" in wrong:
            s = variance[t] + EPSILON
        if "variance over H - 1" in wrong:
            s = np.sqrt(variance[t] * H / (H - 1) + EPSILON)
        through_mean = dunit.mean()
        through_variance = unit[t] * (dunit * unit[t]).mean()
        if "no path through the mean" in wrong:
            through_mean = 0
        if "no path through the variance" in wrong:
            through_variance = 0
        if "statistics are constants" in wrong:
            through_mean, through_variance = 0, 0
        if "variance's path twice" in wrong:
            through_variance = 2 * through_variance
        if "sign of the variance's path" in wrong:
            through_variance = -through_variance
        if "sum over the layer" in wrong:
            through_mean, through_variance = H * through_mean, H * through_variance
        da = (dunit - through_mean - through_variance) / s
        if "gamma after the means" in wrong:
            da = gamma * (dn - dn.mean() - unit[t] * (dn * unit[t]).mean()) / s

        # a = W h[t-1] + U x
        d["W"] += np.outer(da, h[t] if "W with the new state" in wrong else h[t - 1])
        d["U"] += np.outer(da, x[t])
        carried = W.T @ da
        if "carried past the statistics" in wrong:
            carried = W.T @ (dunit / s)
        if "carried past the normalisation" in wrong:
            carried = W.T @ dunit
        if "W not transposed" in wrong:
            carried = W @ da
    d["h0"] = carried
    return d


A = 'a = params["W"] @ h + params["U"] @ x_t'
MU = "mu = jnp.mean(a)"
VARIANCE = "variance = jnp.mean((a - mu) ** 2)"
S = "s = jnp.sqrt(variance + EPSILON)"
UNIT = "unit = (a - mu) / s"
N = 'n = params["gamma"] * unit + params["beta"]'
RELU = "h = jax.nn.relu(n)"
MEAN = "return jnp.mean((y - target) ** 2)"

FAULTS = {
    "mean over the steps alone": Fault(
        "The mean over steps and outputs is taken for a mean over the steps.", (MEAN,)
    ),
    "rectifier open at the product": Fault(
        "The rectifier is held open where a > 0, before normalisation.", (RELU,)
    ),
    "rectifier open at the state before": Fault(
        "The rectifier is held open where the state before was positive.", (RELU,)
    ),
    "rectifier's slope is its value": Fault("relu(n) is written for its derivative.", (RELU,)),
    "no slope of the rectifier": Fault("The rectifier's derivative is left out.", (RELU,)),
    "gamma with the product": Fault("gamma's gradient uses a, not the normalised a.", (N,)),
    "gamma with the deviations": Fault("gamma's gradient uses a - mu, not yet divided by s.", (N,)),
    "gamma with the output": Fault("gamma's gradient uses n, its product, with beta in it.", (N,)),
    "beta overwritten": Fault("beta's gradient is assigned in the loop, not added to.", (N,)),
    "gamma not on the way back": Fault("The factor gamma is left out on the way back.", (N,)),
    "epsilon forgotten": Fault("The deviation on the way back lacks epsilon.", (S,)),
    "root forgotten": Fault("The gradient is divided by the variance, not its root.", (S, UNIT)),
    "variance over H - 1": Fault("The variance on the way back is divided by H - 1.", (VARIANCE,)),
    "no path through the mean": Fault("a lacks its gradient through the mean.", (MU,)),
    "no path through the variance": Fault(
        "a lacks its gradient through the variance.", (VARIANCE, S)
    ),
    "statistics are constants": Fault(
        "Mean and variance are taken for constants: the gradient is divided by s, that is all.",
        (MU, VARIANCE, S, UNIT),
    ),
    "variance's path twice": Fault(
        "The gradient through the variance has the square's 2, not the root's 1/2.",
        (S, VARIANCE),
    ),
    "sign of the variance's path": Fault(
        "The gradient through the variance is added, not subtracted.", (UNIT, S, VARIANCE)
    ),
    "sum over the layer": Fault(
        "The gradients through mean and variance lack their 1 / H.", (MU, VARIANCE)
    ),
    "gamma after the means": Fault(
        "The means are taken before the factor gamma, which units do not share.",
        (N, UNIT),
    ),
    "W with the new state": Fault("W's gradient uses h[t] for h[t-1].", (A,)),
    "carried past the statistics": Fault(
        "What is carried back takes mean and variance for constants.", (MU, VARIANCE, S, UNIT)
    ),
    "carried past the normalisation": Fault(
        "What is carried back has not been through the normalisation.", (UNIT,)
    ),
    "W not transposed": Fault("W is not transposed on the way back.", (A,)),
}
FAULTS |= pairs(
    FAULTS,
    ("no path through the mean", "mean over the steps alone"),
    ("gamma not on the way back", "W with the new state"),
)
