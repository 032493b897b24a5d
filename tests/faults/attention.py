"""One head of self-attention over learnt positions, with a residual path, pooled by the mean."""

import jax
import jax.numpy as jnp
import numpy as np

from faults import Fault, normal, pairs, parts, softmax


def loss(params, x, target):
    e = x + params["P"]
    q = e @ params["Wq"]
    k = e @ params["Wk"]
    v = e @ params["Wv"]
    scores = q @ k.T / jnp.sqrt(q.shape[1])
    weights = jax.nn.softmax(scores, axis=1)
    context = weights @ v
    out = context @ params["Wo"] + e
    pooled = jnp.mean(out, axis=0)
    return jnp.mean((pooled - target) ** 2)


def arguments(rng):
    S, E, K, M = 5, 4, 3, 2
    params = {
        "P": normal(rng, S, E),
        "Wq": normal(rng, E, K),
        "Wk": normal(rng, E, K),
        "Wv": normal(rng, E, M),
        "Wo": normal(rng, M, E),
    }
    return params, rng.normal(size=(S, E)), normal(rng, E)


def gradient(fault, params, x, target):
    wrong = parts(fault)
    P, Wq, Wk, Wv, Wo = (params[name] for name in ["P", "Wq", "Wk", "Wv", "Wo"])
    S, E, K = *P.shape, Wq.shape[1]
    e = x + P
    q, k, v = e @ Wq, e @ Wk, e @ Wv
    scores = q @ k.T / np.sqrt(K)
    weights = softmax(scores)
    context = weights @ v
    out = context @ Wo + e

    # the mean of the squares, and the mean over the positions
    dpooled = 2 * (out.mean(0) - target) / E
    if "sum over the features" in wrong:
        dpooled = dpooled * E
    dout = np.tile(dpooled / S, (S, 1))
    if "sum over the positions" in wrong:
        dout = dout * S
    if "pooled to the last position" in wrong:
        dout[:-1], dout[-1] = 0, dpooled

    # out = context Wo + e, context = weights v
    dWo = (e @ Wv).T @ dout if "Wo with the values" in wrong else context.T @ dout
    dcontext = dout @ Wo.T
    dv = weights @ dcontext if "weights not transposed" in wrong else weights.T @ dcontext
    dweights = dcontext @ v.T

    # weights = softmax(scores)
    if "softmax recomputed without the scale" in wrong:
        weights = softmax(q @ k.T)
    if "softmax's slope at the scores" in wrong:
        weights = scores
    dscores = weights * (dweights - (weights * dweights).sum(1, keepdims=True))
    if "softmax without the sum" in wrong:
        dscores = weights * dweights
    if "softmax by its diagonal" in wrong:
        dscores = weights * (1 - weights) * dweights
    if "softmax summed over the queries" in wrong:
        dscores = weights * (dweights - (weights * dweights).sum(0, keepdims=True))
    if "softmax's sum without the weights" in wrong:
        dscores = weights * dweights - (weights * dweights).sum(1, keepdims=True)
    if "softmax with the plain mean" in wrong:
        dscores = weights * (dweights - dweights.mean(1, keepdims=True))

    # scores = q k' / sqrt(K)
    scale = 1 / np.sqrt(K)
    if "scale forgotten" in wrong:
        scale = 1
    if "scale without the root" in wrong:
        scale = 1 / K
    if "scale of the positions" in wrong:
        scale = 1 / np.sqrt(S)
    dq = dscores @ k * scale
    dk = dscores.T @ q * scale
    if "scale for the queries alone" in wrong:
        dk = dscores.T @ q
    if "scores not transposed" in wrong:
        dk = dscores @ q * scale
    if "keys for queries" in wrong:
        dk = dscores.T @ k * scale

    # q, k, v = e Wq, e Wk, e Wv
    dWq, dWk, dWv = e.T @ dq, e.T @ dk, e.T @ dv
    if "weights with the inputs alone" in wrong:
        dWq, dWk, dWv = x.T @ dq, x.T @ dk, x.T @ dv
    if "Wq and Wk exchanged" in wrong:
        dWq, dWk = dWk, dWq
    de = dq @ Wq.T + dk @ Wk.T + dv @ Wv.T + dout
    if "no path through the queries" in wrong:
        de = de - dq @ Wq.T
    if "no path through the keys" in wrong:
        de = de - dk @ Wk.T
    if "values overwrite queries and keys" in wrong:
        de = dv @ Wv.T + dout
    if "no residual path" in wrong:
        de = de - dout
    return {"P": de, "Wq": dWq, "Wk": dWk, "Wv": dWv, "Wo": dWo}


E = 'e = x + params["P"]'
Q = 'q = e @ params["Wq"]'
K = 'k = e @ params["Wk"]'
V = 'v = e @ params["Wv"]'
SCORES = "scores = q @ k.T / jnp.sqrt(q.shape[1])"
WEIGHTS = "weights = jax.nn.softmax(scores, axis=1)"
CONTEXT = "context = weights @ v"
OUT = 'out = context @ params["Wo"] + e'
POOLED = "pooled = jnp.mean(out, axis=0)"
MEAN = "return jnp.mean((pooled - target) ** 2)"

FAULTS = {
    "sum over the features": Fault("The mean of the squares is taken for their sum.", (MEAN,)),
    "sum over the positions": Fault("Each position gets all of the pooled gradient.", (POOLED,)),
    "pooled to the last position": Fault(
        "The last position gets all of the pooled gradient, as if it alone were read.", (POOLED,)
    ),
    "Wo with the values": Fault("Wo's gradient uses the values where it met the context.", (OUT,)),
    "weights not transposed": Fault("The values' gradient uses weights, not weights'.", (CONTEXT,)),
    "softmax recomputed without the scale": Fault(
        "The weights are computed again on the way back, from scores without their scale.",
        (SCORES, WEIGHTS),
    ),
    "softmax's slope at the scores": Fault(
        "The softmax's derivative is written with its input for its output.", (WEIGHTS,)
    ),
    "softmax without the sum": Fault(
        "The softmax's derivative lacks the sum that comes from the denominator.", (WEIGHTS,)
    ),
    "softmax by its diagonal": Fault(
        "The softmax's derivative is w (1 - w), the diagonal of the Jacobian alone.", (WEIGHTS,)
    ),
    "softmax summed over the queries": Fault(
        "The sum in the softmax's derivative runs over the other axis.", (WEIGHTS,)
    ),
    "softmax's sum without the weights": Fault(
        "The sum in the softmax's derivative is not multiplied by the weights.", (WEIGHTS,)
    ),
    "softmax with the plain mean": Fault(
        "The softmax's derivative subtracts the mean that has equal weights.", (WEIGHTS,)
    ),
    "scale forgotten": Fault("The scale of the scores is left out on the way back.", (SCORES,)),
    "scale without the root": Fault("The scale on the way back is 1 / K.", (SCORES,)),
    "scale of the positions": Fault(
        "The scale on the way back has the number of positions for that of features.", (SCORES,)
    ),
    "scale for the queries alone": Fault("The keys' gradient lacks the scale.", (SCORES,)),
    "scores not transposed": Fault("The keys' gradient uses dscores, not dscores'.", (SCORES,)),
    "keys for queries": Fault("The keys' gradient has the keys for the queries.", (SCORES,)),
    "weights with the inputs alone": Fault(
        "The weights' gradients use x where the products had x + P.", (E, Q, K, V)
    ),
    "Wq and Wk exchanged": Fault(
        "The gradients of Wq and Wk are returned in each other's place.", (Q, K)
    ),
    "no path through the queries": Fault("e lacks its gradient through the queries.", (Q,)),
    "no path through the keys": Fault("e lacks its gradient through the keys.", (K,)),
    "values overwrite queries and keys": Fault(
        "e's gradient is assigned three times, not added to: only the values' is left.", (Q, K)
    ),
    "no residual path": Fault("e lacks its gradient through the residual path.", (OUT,)),
}
FAULTS |= pairs(
    FAULTS,
    ("scale forgotten", "no residual path"),
    ("softmax without the sum", "weights not transposed"),
)
