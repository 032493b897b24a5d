"""A network that reads a sequence in both directions and labels every step of it."""

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from faults import Fault, normal, pairs, parts, softmax, zeros_like


def loss(params, x, labels):
    def run(cell, inputs):
        def step(h, x_t):
            h = jnp.tanh(cell["W"] @ h + cell["U"] @ x_t + cell["b"])
            return h, h

        return lax.scan(step, cell["s"], inputs)[1]

    ahead = run(params["ahead"], x)
    back = run(params["back"], x[::-1])
    back = back[::-1]
    both = jnp.concatenate([ahead, back], axis=1)
    logits = both @ params["V"].T + params["c"]
    log_p = jax.nn.log_softmax(logits, axis=1)
    return -jnp.sum(log_p[jnp.arange(len(x)), labels])


def arguments(rng):
    T, D, H, C = 6, 3, 4, 5

    def cell():
        return {
            "W": normal(rng, H, H),
            "U": normal(rng, H, D),
            "b": normal(rng, H),
            "s": normal(rng, H),
        }

    params = {"ahead": cell(), "back": cell(), "V": normal(rng, C, 2 * H), "c": normal(rng, C)}
    return params, rng.normal(size=(T, D)), np.array([4, 0, 2, 2, 1, 3])


def run(cell, x):
    """Return the states of one direction, the initial one first."""
    h = [cell["s"]]
    for x_t in x:
        h.append(np.tanh(cell["W"] @ h[-1] + cell["U"] @ x_t + cell["b"]))
    return np.array(h)


def run_back(cell, x, h, dh_out, wrong):
    """Return the gradients of one direction from those in its states, in the order it has read."""
    d = zeros_like(cell)
    T = len(x)
    carried = np.zeros_like(cell["s"])
    for t in reversed(range(T)):
        dh = dh_out[t] + carried
        if "carried gradient replaces the output's" in wrong and t < T - 1:
            dh = carried
        da = dh if "no slope" in wrong else dh * (1 - h[t + 1] ** 2)
        before = h[t + 1] if "W with the new state" in wrong else h[t]
        if "W with the state before in time" in wrong:
            before = h[min(t + 2, T)]
        d["W"] += np.outer(da, before)
        d["U"] += np.outer(da, x[t])
        d["b"] = da if "b overwritten" in wrong else d["b"] + da
        carried = cell["W"] @ da if "W not transposed" in wrong else cell["W"].T @ da
        if "nothing carried" in wrong:
            carried = np.zeros_like(carried)
        if "first step left out" in wrong and t == 1:
            break
    d["s"] = dh if "s gets the first state's" in wrong else cell["W"].T @ da
    return d


def gradient(fault, params, x, labels):
    wrong = parts(fault)
    T, H, V = len(x), len(params["ahead"]["b"]), params["V"]
    h_ahead, h_back = run(params["ahead"], x), run(params["back"], x[::-1])
    ahead, back = h_ahead[1:], h_back[:0:-1]
    both = np.concatenate([ahead, back], axis=1)
    p = softmax(both @ V.T + params["c"], axis=0 if "softmax over the steps" in wrong else 1)

    one_hot = np.eye(V.shape[0])[labels[::-1] if "labels reversed" in wrong else labels]
    dlogits = p - one_hot
    if "sign of the label" in wrong:
        dlogits = p + one_hot
    if "entry of the label alone" in wrong:
        dlogits = dlogits * one_hot
    if "mean over the steps" in wrong:
        dlogits = dlogits / T
    if "label of the last step alone" in wrong:
        dlogits[:-1] = p[:-1]

    # logits = [ahead, back] V' + c
    dV = dlogits.T @ both
    if "V with states in reading order" in wrong:
        dV = dlogits.T @ np.concatenate([ahead, h_back[1:]], axis=1)
    if "halves of V exchanged" in wrong:
        dV = dlogits.T @ np.concatenate([back, ahead], axis=1)
    dboth = dlogits @ V
    d_ahead, d_back = dboth[:, :H], dboth[:, H:]
    if "halves exchanged" in wrong:
        d_ahead, d_back = d_back, d_ahead
    if "outputs added, not joined" in wrong:
        d_ahead = d_back = d_ahead + d_back

    # back has read the sequence from its end
    d_back, x_back, read = d_back[::-1], x[::-1], h_back
    if "gradient of back not reversed" in wrong:
        d_back = d_back[::-1]
    if "inputs of back not reversed" in wrong:
        x_back = x
    if "inputs reversed along the other axis" in wrong:
        x_back = x[:, ::-1]
    if "states of back in the order of time" in wrong:
        read = np.concatenate([h_back[:1], back])
    if "states reversed with the initial one" in wrong:
        read = h_back[::-1]

    ahead_wrong = [name.removesuffix(", ahead") for name in wrong if name.endswith(", ahead")]
    back_wrong = [name.removesuffix(", back") for name in wrong if name.endswith(", back")]
    d = {
        "ahead": run_back(params["ahead"], x, h_ahead, d_ahead, ahead_wrong),
        "back": run_back(params["back"], x_back, read, d_back, back_wrong),
        "V": dV,
        "c": dlogits.sum(0),
    }
    if "directions exchanged" in wrong:
        d["ahead"], d["back"] = d["back"], d["ahead"]
    if "directions share their parameters" in wrong:
        d["ahead"] = d["back"] = {name: d["ahead"][name] + d["back"][name] for name in d["ahead"]}
    if "initial states exchanged" in wrong:
        d["ahead"]["s"], d["back"]["s"] = d["back"]["s"], d["ahead"]["s"]
    return d


TANH = 'h = jnp.tanh(cell["W"] @ h + cell["U"] @ x_t + cell["b"])'
SCAN = 'return lax.scan(step, cell["s"], inputs)[1]'
AHEAD = 'ahead = run(params["ahead"], x)'
BACK = 'back = run(params["back"], x[::-1])'
REVERSED = "back = back[::-1]"
BOTH = "both = jnp.concatenate([ahead, back], axis=1)"
LOGITS = 'logits = both @ params["V"].T + params["c"]'
SOFTMAX = "log_p = jax.nn.log_softmax(logits, axis=1)"
SUM = "return -jnp.sum(log_p[jnp.arange(len(x)), labels])"

FAULTS = {
    "softmax over the steps": Fault(
        "The softmax on the way back runs over the other axis.", (SOFTMAX,)
    ),
    "labels reversed": Fault("The labels are reversed, though the outputs are in order.", (SUM,)),
    "sign of the label": Fault("The 1 of the label is added to p, not subtracted.", (SUM, SOFTMAX)),
    "entry of the label alone": Fault("Only the label's logit gets a gradient.", (SOFTMAX, SUM)),
    "mean over the steps": Fault("The sum over the steps is taken for a mean.", (SUM,)),
    "label of the last step alone": Fault(
        "The label is subtracted at the last step alone.", (SUM, SOFTMAX)
    ),
    "V with states in reading order": Fault(
        "V's gradient uses back's states in the order in which it has read.", (REVERSED, LOGITS)
    ),
    "halves of V exchanged": Fault(
        "V's gradient has back's states in the half of ahead's, and the reverse.", (LOGITS, BOTH)
    ),
    "halves exchanged": Fault("Each direction gets the other's half of the gradient.", (BOTH,)),
    "outputs added, not joined": Fault(
        "Each direction gets the sum of both halves of the gradient.", (BOTH,)
    ),
    "gradient of back not reversed": Fault(
        "The gradient of back's states is not turned to the order in which it has read.",
        (REVERSED,),
    ),
    "inputs of back not reversed": Fault(
        "U's gradient uses the inputs in order, but back has read them reversed.", (BACK,)
    ),
    "inputs reversed along the other axis": Fault(
        "The inputs' features are reversed, not their steps.", (BACK,)
    ),
    "states of back in the order of time": Fault(
        "The way back through back uses its states after they have been reversed.",
        (REVERSED, TANH),
    ),
    "states reversed with the initial one": Fault(
        "The states of back are reversed, the initial one with them, so that all are misplaced.",
        (REVERSED, TANH),
    ),
    "carried gradient replaces the output's, ahead": Fault(
        "Ahead gets its output's gradient at the last step alone.", (AHEAD, BOTH)
    ),
    "no slope, ahead": Fault("The derivative of ahead's tanh is left out.", (TANH,)),
    "W with the new state, back": Fault("back's W gets the new state for the one before.", (TANH,)),
    "W with the state before in time, back": Fault(
        "The state before is taken from the step before in time; back comes from the one after.",
        (TANH,),
    ),
    "b overwritten, back": Fault("back's b is assigned in the loop, not added to.", (TANH,)),
    "W not transposed, ahead": Fault("ahead's W is not transposed on the way back.", (TANH,)),
    "nothing carried, back": Fault("back carries no gradient from step to step.", (TANH,)),
    "first step left out, back": Fault("The loop over back stops a step early.", (TANH, SCAN)),
    "s gets the first state's, back": Fault(
        "The gradient of back's first state is returned for its initial one.", (TANH, SCAN)
    ),
    "directions exchanged": Fault(
        "The gradients of the two cells are returned in each other's place.", (AHEAD, BACK)
    ),
    "directions share their parameters": Fault(
        "Each cell gets the sum of both cells' gradients, as if they were one.", (AHEAD, BACK)
    ),
    "initial states exchanged": Fault(
        "The gradients of the two initial states are in each other's place.", (SCAN, AHEAD, BACK)
    ),
}
FAULTS |= pairs(
    FAULTS,
    ("gradient of back not reversed", "mean over the steps"),
    ("no slope, ahead", "nothing carried, back"),
)
