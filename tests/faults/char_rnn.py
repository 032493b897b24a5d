"""A model of the next character: embedded tokens, a tanh network and the cross entropy."""

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from faults import Fault, normal, pairs, parts, softmax, zeros_like


def loss(params, tokens):
    def step(h, token):
        e = params["E"][token]
        a = params["Wxh"] @ e + params["Whh"] @ h + params["bh"]
        h = jnp.tanh(a)
        return h, h

    _, h = lax.scan(step, params["h0"], tokens[:-1])
    logits = h @ params["Why"].T + params["by"]
    log_p = jax.nn.log_softmax(logits, axis=1)
    picked = log_p[jnp.arange(len(h)), tokens[1:]]
    return -jnp.mean(picked)


def arguments(rng):
    C, E, H = 5, 3, 4
    params = {
        "E": rng.normal(size=(C, E)),
        "Wxh": normal(rng, H, E),
        "Whh": normal(rng, H, H),
        "bh": normal(rng, H),
        "h0": normal(rng, H),
        "Why": normal(rng, C, H),
        "by": normal(rng, C),
    }
    return params, np.array([3, 1, 1, 4, 0, 3, 2, 1])


def gradient(fault, params, tokens):
    wrong = parts(fault)
    E, Wxh, Whh, bh, Why = (params[name] for name in ["E", "Wxh", "Whh", "bh", "Why"])
    inputs, labels = tokens[:-1], tokens[1:]
    T, C = len(inputs), len(E)
    h = np.empty((T + 1, len(bh)))
    h[-1] = params["h0"]  # h[t - 1] is the state before step t
    if "initial state taken as zero" in wrong:
        h[-1] = 0
    for t in range(T):
        h[t] = np.tanh(Wxh @ E[inputs[t]] + Whh @ h[t - 1] + bh)
    logits = h[:T] @ Why.T + params["by"]
    p = softmax(logits, axis=0 if "softmax over the steps" in wrong else 1)
    if "softmax without its denominator" in wrong:
        p = np.exp(logits - logits.max(1, keepdims=True))

    answers = labels
    if "inputs for labels" in wrong:
        answers = inputs
    if "labels a step late" in wrong:
        answers = np.roll(labels, -1)
    one_hot = np.eye(C)[answers]
    dlogits = p - one_hot
    if "label not subtracted" in wrong:
        dlogits = p
    if "entry of the label alone" in wrong:
        dlogits = (p - 1) * one_hot
    if "logarithm forgotten" in wrong:
        dlogits = dlogits * (p * one_hot).sum(1, keepdims=True)
    if "sum for mean" not in wrong:
        dlogits = dlogits / (len(tokens) if "mean over the tokens" in wrong else T)

    d = zeros_like(params)
    d["Why"], d["by"] = dlogits.T @ h[:T], dlogits.sum(0)
    if "Why with the state before" in wrong:
        d["Why"] = dlogits.T @ np.roll(h, 1, axis=0)[:T]
    de = np.empty((T, E.shape[1]))
    carried = np.zeros_like(bh)
    for t in reversed(range(T)):
        dh = Why.T @ dlogits[t] + carried
        da = dh * (1 - h[t - 1] ** 2 if "slope of the state before" in wrong else 1 - h[t] ** 2)
        e = E[labels[t]] if "Wxh with the label's embedding" in wrong else E[inputs[t]]
        d["Wxh"] += np.outer(da, e)
        d["Whh"] += np.outer(da, h[t] if "Whh with the new state" in wrong else h[t - 1])
        d["bh"] += dh if "bh before the slope" in wrong else da
        de[t] = Wxh.T @ (dh if "embedding before the slope" in wrong else da)
        carried = Whh.T @ da
        if "state reset at the end of a line" in wrong and inputs[t] == 0:
            carried = np.zeros_like(bh)
        if "truncated after the last three steps" in wrong and t == T - 3:
            break
    d["h0"] = carried
    if "truncated after the last three steps" in wrong:
        de[: T - 3] = 0

    # e = E[token]
    if "embeddings overwritten" in wrong:
        for t in reversed(range(T)):
            d["E"][inputs[t]] = de[t]
    elif "embeddings added once by +=" in wrong:
        d["E"][inputs] += de
    elif "embeddings of the labels" in wrong:
        np.add.at(d["E"], labels, de)
    else:
        np.add.at(d["E"], inputs, de)
    if "embeddings averaged" in wrong:
        d["E"] /= np.bincount(inputs, minlength=C)[:, None]
    if "first token kept as padding" in wrong:
        d["E"][0] = 0
    if "clipped" in wrong:
        d = {name: np.clip(value, -0.05, 0.05) for name, value in d.items()}
    return d


EMBED = 'e = params["E"][token]'
A = 'a = params["Wxh"] @ e + params["Whh"] @ h + params["bh"]'
TANH = "h = jnp.tanh(a)"
SCAN = '_, h = lax.scan(step, params["h0"], tokens[:-1])'
LOGITS = 'logits = h @ params["Why"].T + params["by"]'
SOFTMAX = "log_p = jax.nn.log_softmax(logits, axis=1)"
PICK = "picked = log_p[jnp.arange(len(h)), tokens[1:]]"
MEAN = "return -jnp.mean(picked)"

FAULTS = {
    "initial state taken as zero": Fault(
        "The gradient is computed from states that start at zero.", (SCAN,)
    ),
    "softmax over the steps": Fault(
        "The softmax on the way back runs over the other axis.", (SOFTMAX,)
    ),
    "softmax without its denominator": Fault(
        "The exponentials are not divided by their sum.", (SOFTMAX,)
    ),
    "inputs for labels": Fault("The label is the token read, not the one that follows.", (PICK,)),
    "labels a step late": Fault("The label is the token after the one that follows.", (PICK,)),
    "label not subtracted": Fault("The 1 of the label is not subtracted from p.", (PICK, SOFTMAX)),
    "entry of the label alone": Fault(
        "Only the logit of the label gets a gradient, the others none.", (SOFTMAX, PICK)
    ),
    "logarithm forgotten": Fault(
        "The gradient is that of the label's probability, not of its logarithm.", (SOFTMAX,)
    ),
    "sum for mean": Fault("The gradient is not divided by the number of steps.", (MEAN,)),
    "mean over the tokens": Fault(
        "The gradient is divided by the number of tokens, one more than of labels.", (MEAN,)
    ),
    "Why with the state before": Fault("Why's gradient uses h[t-1] for h[t].", (LOGITS,)),
    "slope of the state before": Fault("1 - h^2 is taken at h[t-1], not h[t].", (TANH,)),
    "Wxh with the label's embedding": Fault(
        "Wxh's gradient uses the next token's embedding.", (A, EMBED)
    ),
    "Whh with the new state": Fault("Whh's gradient uses h[t] for h[t-1].", (A,)),
    "bh before the slope": Fault(
        "bh gets the state's gradient, without the tanh's slope.", (A, TANH)
    ),
    "embedding before the slope": Fault(
        "The embedding gets the state's gradient, without the tanh's slope.", (A, TANH)
    ),
    "state reset at the end of a line": Fault(
        "Nothing is carried back over a certain token, as if the state were reset there.", (A, SCAN)
    ),
    "truncated after the last three steps": Fault(
        "The loop goes back three steps, no more.", (A, SCAN)
    ),
    "embeddings overwritten": Fault(
        "A token's row is assigned at each of its occurrences: the earliest one is left.", (EMBED,)
    ),
    "embeddings added once by +=": Fault(
        "dE[tokens] += de adds to each row once: the token's last occurrence is left.", (EMBED,)
    ),
    "embeddings of the labels": Fault("The rows of the labels get the gradient.", (EMBED,)),
    "embeddings averaged": Fault(
        "A row gets the mean over its occurrences, not the sum.", (EMBED,)
    ),
    "first token kept as padding": Fault(
        "The row of token 0 is left at zero, as padding.", (EMBED,)
    ),
    "clipped": Fault("The gradients are clipped before they are returned."),
}
FAULTS |= pairs(
    FAULTS,
    ("embeddings added once by +=", "sum for mean"),
    ("Whh with the new state", "embedding before the slope"),
)
