"""An Elman network: h[t] = tanh(W h[t-1] + U x[t] + b), y[t] = V h[t] + c, squared error."""

import jax.numpy as jnp
import numpy as np
from jax import lax

from faults import Fault, normal, pairs, parts, zeros_like


def loss(params, x, target):
    def step(h, x_t):
        a = params["W"] @ h + params["U"] @ x_t + params["b"]
        h = jnp.tanh(a)
        return h, h

    _, h = lax.scan(step, params["h0"], x)
    y = h @ params["V"].T + params["c"]
    error = y - target
    return jnp.sum(error**2)


def arguments(rng):
    T, D, H, O = 6, 3, 4, 2
    params = {
        "W": normal(rng, H, H),
        "U": normal(rng, H, D),
        "b": normal(rng, H),
        "V": normal(rng, O, H),
        "c": normal(rng, O),
        "h0": normal(rng, H),
    }
    return params, normal(rng, T, D), normal(rng, T, O)


def gradient(fault, params, x, target):
    wrong = parts(fault)
    W, U, b, V, c, h0 = (params[name] for name in ["W", "U", "b", "V", "c", "h0"])
    T = len(x)
    a, h = np.empty((T, len(b))), np.empty((T + 1, len(b)))
    h[0] = h0
    for t in range(T):
        a[t] = W @ h[t] + U @ x[t] + b
        h[t + 1] = np.tanh(a[t])
    y = h[1:] @ V.T + c

    dy = 2 * (y - target)
    if "no factor 2" in wrong:
        dy = y - target
    if "mean over the steps" in wrong:
        dy = dy / T
    if "tanh of the output" in wrong:
        dy = dy * (1 - y**2)

    d = zeros_like(params)
    d["V"] = dy.T @ (h[:-1] if "V with the state before" in wrong else h[1:])
    d["c"] = dy[-1] if "c of the last step" in wrong else dy.sum(0)
    carried = np.zeros_like(h0)
    for t in reversed(range(T)):
        if "first step left out" in wrong and t == 0:
            break
        dh = V.T @ dy[t] + carried
        if "nothing carried" in wrong:
            dh = V.T @ dy[t]
        if "outputs of the last step alone" in wrong and t < T - 1:
            dh = carried

        slope = 1 - h[t + 1] ** 2
        if "tanh at the pre-activation" in wrong:
            slope = 1 - a[t] ** 2
        if "reciprocal slope" in wrong:
            slope = 1 / slope
        if "slope of the state before" in wrong:
            slope = 1 - h[t] ** 2
        da = dh if "no slope" in wrong else dh * slope
        if "clipped" in wrong:
            da = np.clip(da, -0.5, 0.5)

        before = h[t]
        if "W with the state after" in wrong:
            before = h[t + 1]
        if "last state for the initial one" in wrong and t == 0:
            before = h[-1]
        if "initial state taken as zero" in wrong and t == 0:
            before = np.zeros_like(h0)
        d["W"] += np.outer(before, da) if "W transposed" in wrong else np.outer(da, before)
        d["U"] += np.outer(da, x[(t + 1) % T] if "U with the next input" in wrong else x[t])
        d["b"] = da if "b overwritten" in wrong else d["b"] + da

        back = W @ da if "back through W not transposed" in wrong else W.T @ da
        carried = carried + back if "carried gradients pile up" in wrong else back
        if "detached every three steps" in wrong and t % 3 == 0 and t > 0:
            carried = np.zeros_like(h0)
    d["h0"] = dh if "h0 gets the first state's" in wrong else carried
    return d


A = 'a = params["W"] @ h + params["U"] @ x_t + params["b"]'
TANH = "h = jnp.tanh(a)"
SCAN = '_, h = lax.scan(step, params["h0"], x)'
Y = 'y = h @ params["V"].T + params["c"]'
SQUARE = "return jnp.sum(error**2)"

FAULTS = {
    "no factor 2": Fault("The square's derivative lacks its factor 2.", (SQUARE,)),
    "mean over the steps": Fault("The sum over the steps is taken for a mean.", (SQUARE,)),
    "tanh of the output": Fault("The linear output is taken for the tanh of one.", (Y,)),
    "V with the state before": Fault("V's gradient uses h[t-1] where y[t] used h[t].", (Y,)),
    "c of the last step": Fault("The output's bias gets the error of the last step alone.", (Y,)),
    "first step left out": Fault("The loop back stops before the first step.", (A, SCAN)),
    "nothing carried": Fault("A state's gradient lacks what comes from the next step.", (A,)),
    "outputs of the last step alone": Fault(
        "Before the last step a state gets the carried gradient alone, not its output's.",
        (Y,),
    ),
    "tanh at the pre-activation": Fault("1 - a^2 is written for 1 - tanh(a)^2.", (TANH,)),
    "reciprocal slope": Fault("The gradient is divided by 1 - h^2, not multiplied.", (TANH,)),
    "slope of the state before": Fault("1 - h^2 is taken at h[t-1], not h[t].", (TANH,)),
    "no slope": Fault("The derivative of tanh is left out.", (TANH,)),
    "clipped": Fault("The gradient is clipped in the loop, against explosion."),
    "W with the state after": Fault("W's gradient uses h[t] where the step used h[t-1].", (A,)),
    "last state for the initial one": Fault(
        "h[t-1] at t = 0 is index -1 of the states: the last one, not h0.", (A, SCAN)
    ),
    "initial state taken as zero": Fault(
        "W's gradient lacks the first step's product, as if h0 were zero.", (A, SCAN)
    ),
    "W transposed": Fault("The outer product of W's gradient has its factors exchanged.", (A,)),
    "U with the next input": Fault("U's gradient uses x[t+1] for x[t].", (A,)),
    "b overwritten": Fault("b's gradient is assigned in the loop, not added to.", (A,)),
    "back through W not transposed": Fault("W is not transposed on the way back.", (A,)),
    "carried gradients pile up": Fault(
        "The carried gradient is added to that of the step after, not put in its place.", (A,)
    ),
    "detached every three steps": Fault(
        "The gradient is cut off every three steps, as in truncated training.", (A, SCAN)
    ),
    "h0 gets the first state's": Fault(
        "The gradient of the first state is returned for that of the one before it.", (A, SCAN)
    ),
}
FAULTS |= pairs(
    FAULTS,
    ("no factor 2", "W with the state after"),
    ("b overwritten", "back through W not transposed"),
)
