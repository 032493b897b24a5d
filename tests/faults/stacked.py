"""Two recurrent layers, one above the other, and the cross entropy of yes or no at every step."""

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from faults import Fault, normal, pairs, parts, sigmoid, zeros_like


def loss(params, x, target):
    def step(states, x_t):
        h1, h2 = states
        h1 = jnp.tanh(params["W1"] @ h1 + params["U1"] @ x_t + params["b1"])
        h2 = jnp.tanh(params["W2"] @ h2 + params["U2"] @ h1 + params["b2"])
        return (h1, h2), h2

    _, h = lax.scan(step, (params["s1"], params["s2"]), x)
    p = jax.nn.sigmoid(h @ params["V"].T + params["c"])
    likelihood = target * jnp.log(p) + (1 - target) * jnp.log(1 - p)
    return -jnp.sum(likelihood) / len(x)


def arguments(rng):
    T, D, H1, H2, O = 6, 3, 4, 5, 2
    params = {
        "W1": normal(rng, H1, H1),
        "U1": normal(rng, H1, D),
        "b1": normal(rng, H1),
        "s1": normal(rng, H1),
        "W2": normal(rng, H2, H2),
        "U2": normal(rng, H2, H1),
        "b2": normal(rng, H2),
        "s2": normal(rng, H2),
        "V": normal(rng, O, H2),
        "c": normal(rng, O),
    }
    target = np.array([[0, 1], [1, 1], [1, 0], [0, 0], [1, 0], [0, 1]], float)
    return params, rng.normal(size=(T, D)), target


def gradient(fault, params, x, target):
    wrong = parts(fault)
    W1, U1, b1, s1 = (params[name] for name in ["W1", "U1", "b1", "s1"])
    W2, U2, b2, s2 = (params[name] for name in ["W2", "U2", "b2", "s2"])
    V, c = params["V"], params["c"]
    T = len(x)
    h1, h2 = np.empty((T + 1, len(s1))), np.empty((T + 1, len(s2)))
    h1[0], h2[0] = s1, s2
    for t in range(T):
        h1[t + 1] = np.tanh(W1 @ h1[t] + U1 @ x[t] + b1)
        h2[t + 1] = np.tanh(W2 @ h2[t] + U2 @ h1[t + 1] + b2)
    if "states in half precision" in wrong:
        h1, h2 = h1.astype("float16").astype(float), h2.astype("float16").astype(float)
    p = sigmoid(h2[1:] @ V.T + c)

    dy = (p - target) / T
    if "slope of the sigmoid again" in wrong:
        dy = dy * p * (1 - p)
    if "no slope of the sigmoid" in wrong:
        dy = dy / (p * (1 - p))
    if "likelihood of yes alone" in wrong:
        dy = -target * (1 - p) / T
    if "answers rounded" in wrong:
        dy = ((p > 0.5) - target) / T
    if "sign of the likelihood" in wrong:
        dy = -dy
    if "sum for mean" in wrong:
        dy = dy * T

    d = zeros_like(params)
    d["V"], d["c"] = dy.T @ h2[1:], dy.sum(0)
    carried1, carried2 = np.zeros_like(s1), np.zeros_like(s2)
    for t in reversed(range(T)):
        # h2 = tanh(W2 h2[t-1] + U2 h1 + b2)
        dh2 = V.T @ dy[t] + carried2
        slope2 = h2[t + 1] > 0 if "rectifier's slope above" in wrong else 1 - h2[t + 1] ** 2
        da2 = dh2 * slope2
        before2 = h2[t + 1] if "W2 with the new state" in wrong else h2[t]
        d["W2"] += np.outer(da2, before2)
        d["U2"] += np.outer(
            da2, h1[t] if "U2 with the state below, a step early" in wrong else h1[t + 1]
        )
        d["b2"] += dh2 if "b2 before the slope" in wrong else da2
        carried2 = W2.T @ da2
        if "nothing carried above" in wrong:
            carried2 = np.zeros_like(s2)

        # h1 = tanh(W1 h1[t-1] + U1 x + b1)
        down = U2.T @ (dh2 if "down before the slope" in wrong else da2)
        if "layers joined at the end alone" in wrong and t < T - 1:
            down = 0
        if "down without what is carried above" in wrong:
            down = U2.T @ (V.T @ dy[t] * slope2)
        dh1 = down + carried1
        if "carried below twice" in wrong:
            dh1 = dh1 + carried1
        da1 = dh1 if "no slope below" in wrong else dh1 * (1 - h1[t + 1] ** 2)
        before1 = h1[t - 1] if "W1 two steps back" in wrong and t > 0 else h1[t]
        if "W1 without the first step" not in wrong or t > 0:
            d["W1"] += np.outer(da1, before1)
        d["U1"] += np.outer(da1, x[t])
        d["b1"] += da1
        carried1 = W1 @ da1 if "W1 not transposed" in wrong else W1.T @ da1
        if "nothing carried below" in wrong:
            carried1 = np.zeros_like(s1)
    d["s1"], d["s2"] = carried1, carried2
    if "s2 gets the first state's" in wrong:
        d["s2"] = dh2
    if "weights divided by T again" in wrong:
        d = {name: value / T if name in ("W1", "W2") else value for name, value in d.items()}
    return d


H1 = 'h1 = jnp.tanh(params["W1"] @ h1 + params["U1"] @ x_t + params["b1"])'
H2 = 'h2 = jnp.tanh(params["W2"] @ h2 + params["U2"] @ h1 + params["b2"])'
SCAN = '_, h = lax.scan(step, (params["s1"], params["s2"]), x)'
P = 'p = jax.nn.sigmoid(h @ params["V"].T + params["c"])'
LIKELIHOOD = "likelihood = target * jnp.log(p) + (1 - target) * jnp.log(1 - p)"
MEAN = "return -jnp.sum(likelihood) / len(x)"

FAULTS = {
    "states in half precision": Fault("The states are kept in half precision for the way back."),
    "slope of the sigmoid again": Fault(
        "p - target is multiplied by p (1 - p), as for a squared error.", (P, LIKELIHOOD)
    ),
    "no slope of the sigmoid": Fault("dp is taken for the gradient before the sigmoid.", (P,)),
    "likelihood of yes alone": Fault(
        "The gradient lacks the term of the answers that are no.", (LIKELIHOOD,)
    ),
    "answers rounded": Fault(
        "The answer, yes or no, is compared with the target in place of p.", (P, LIKELIHOOD)
    ),
    "sign of the likelihood": Fault("The gradient is that of the likelihood itself.", (MEAN,)),
    "sum for mean": Fault("The gradient is not divided by the number of steps.", (MEAN,)),
    "rectifier's slope above": Fault("The upper layer's tanh is taken for a rectifier.", (H2,)),
    "W2 with the new state": Fault("W2's gradient uses h2[t] for h2[t-1].", (H2,)),
    "U2 with the state below, a step early": Fault(
        "U2's gradient uses h1[t-1], but the upper layer reads h1[t].", (H2,)
    ),
    "b2 before the slope": Fault("b2 gets the state's gradient, without the tanh's slope.", (H2,)),
    "nothing carried above": Fault("The upper layer carries no gradient back in time.", (H2,)),
    "down before the slope": Fault(
        "The lower layer gets U2' dh2: the upper tanh's slope is left out.", (H2,)
    ),
    "layers joined at the end alone": Fault(
        "The upper layer's gradient reaches the lower one at the last step alone.", (H2,)
    ),
    "down without what is carried above": Fault(
        "The lower layer gets what comes from the output, not what the upper one carries.", (H2,)
    ),
    "carried below twice": Fault("The lower layer adds the carried gradient twice.", (H1,)),
    "no slope below": Fault("The derivative of the lower layer's tanh is left out.", (H1,)),
    "W1 two steps back": Fault("W1's gradient uses h1[t-2] for h1[t-1].", (H1,)),
    "W1 without the first step": Fault(
        "W1's gradient lacks the first step, as if s1 were zero.", (H1, SCAN)
    ),
    "W1 not transposed": Fault("W1 is not transposed on the way back.", (H1,)),
    "nothing carried below": Fault("The lower layer carries no gradient back in time.", (H1,)),
    "s2 gets the first state's": Fault(
        "The gradient of the first upper state is returned for that of s2.", (H2, SCAN)
    ),
    "weights divided by T again": Fault(
        "The gradients of W1 and W2 are divided by the number of steps a second time.",
        (MEAN, H1, H2),
    ),
}
FAULTS |= pairs(
    FAULTS,
    ("sum for mean", "W2 with the new state"),
    ("no slope below", "nothing carried above"),
)
