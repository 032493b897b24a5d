"""Leaky units in a plain loop, each with a leak of its own, and weight decay in the loss.

Rows are sequences: x W, not W x.
"""

import jax
import jax.numpy as jnp
import numpy as np

from faults import Fault, normal, pairs, parts, sigmoid, zeros_like

DECAY = 0.05


def loss(params, x, target):
    alpha = jax.nn.sigmoid(params["leak"])
    h = params["h0"]
    total = 0.0
    for t in range(len(x)):
        new = jnp.tanh(x[t] @ params["Wx"] + h @ params["Wh"] + params["b"])
        h = (1 - alpha) * h + alpha * new
        y = h @ params["Wy"] + params["c"]
        total += jnp.mean((y - target[t]) ** 2)
    mean = total / len(x)
    weights = jnp.sum(params["Wx"] ** 2) + jnp.sum(params["Wh"] ** 2)
    return mean + DECAY * weights


def arguments(rng):
    T, B, D, H, O = 6, 3, 2, 4, 5
    params = {
        "leak": normal(rng, H),
        "h0": normal(rng, H),
        "Wx": normal(rng, D, H),
        "Wh": normal(rng, H, H),
        "b": normal(rng, H),
        "Wy": normal(rng, H, O),
        "c": normal(rng, O),
    }
    return params, rng.normal(size=(T, B, D)), rng.normal(size=(T, B, O))


def gradient(fault, params, x, target):
    wrong = parts(fault)
    Wx, Wh, b, Wy, c = (params[name] for name in ["Wx", "Wh", "b", "Wy", "c"])
    (T, B, _), H, O = x.shape, len(b), len(c)
    alpha = sigmoid(params["leak"])
    h, new = np.empty((T + 1, B, H)), np.empty((T, B, H))
    h[0] = params["h0"]
    for t in range(T):
        new[t] = np.tanh(x[t] @ Wx + h[t] @ Wh + b)
        h[t + 1] = (1 - alpha) * h[t] + alpha * new[t]
    if "states rounded to three places" in wrong:
        h, new = h.round(3), new.round(3)

    dy = 2 * (h[1:] @ Wy + c - target) / (T * B * O)
    if "mean over the batch alone" in wrong:
        dy = dy * O
    if "sum over the steps" in wrong:
        dy = dy * T
    if "mean over the steps twice" in wrong:
        dy = dy / T

    d = zeros_like(params)
    d["Wy"], d["c"] = np.einsum("tbh,tbo->ho", h[1:], dy), dy.sum((0, 1))
    dalpha = np.zeros((B, H))

    def steps_back(first, last, dy):
        """Add to the gradients what dy gives on the way from the last step to the first."""
        nonlocal dalpha
        carried = np.zeros((B, H))
        for t in range(last, first - 1, -1):
            # h = (1 - alpha) h[t-1] + alpha new
            dh = dy[t] @ Wy.T + carried
            into_alpha = dh * (new[t] - h[t])
            if "leak without the old state" in wrong:
                into_alpha = dh * new[t]
            if "leak against the new state" in wrong:
                into_alpha = dh * (new[t] - h[t + 1])
            if "sign of the leak" in wrong:
                into_alpha = -into_alpha
            dalpha = into_alpha if "leak overwritten" in wrong else dalpha + into_alpha
            taken, kept = alpha, 1 - alpha
            if "alpha not on the way into the unit" in wrong:
                taken = 1
            if "alpha and 1 - alpha exchanged" in wrong:
                taken, kept = kept, taken
            if "no path past the unit" in wrong:
                kept = 0
            if "path past the unit without its factor" in wrong:
                kept = 1

            # new = tanh(x Wx + h[t-1] Wh + b)
            slope = 1 - new[t] ** 2
            if "slope at the leaky state" in wrong:
                slope = 1 - h[t + 1] ** 2
            da = taken * dh if "no slope" in wrong else taken * dh * slope
            before = h[t]
            if "Wh with the unit's last value" in wrong and t > 0:
                before = new[t - 1]
            if "Wh with the new state" in wrong:
                before = h[t + 1]
            d["Wx"] += x[t].T @ da
            d["Wh"] += before.T @ da
            d["b"] += da.mean(0) if "b averaged over the batch" in wrong else da.sum(0)
            if "decay added at every step" in wrong:
                d["Wh"] += 2 * DECAY * Wh
            carried = kept * dh + (da @ Wh if "Wh not transposed" in wrong else da @ Wh.T)
            if "detached every two steps" in wrong and t % 2 == 0 and t > 0:
                carried = np.zeros((B, H))
        return carried

    if "truncated after three steps" in wrong:
        for last in range(T):
            carried = steps_back(max(last - 2, 0), last, dy * (np.arange(T) == last)[:, None, None])
            d["h0"] += carried.sum(0) if last < 3 else 0
    else:
        carried = steps_back(0, T - 1, dy)
        d["h0"] = carried.sum(0)
    if "h0 of one sequence" in wrong:
        d["h0"] = carried[0]

    # alpha = sigmoid(leak)
    d["leak"] = dalpha.sum(0) * alpha * (1 - alpha)
    if "leak without the sigmoid" in wrong:
        d["leak"] = dalpha.sum(0)
    if "leak averaged over the batch" in wrong:
        d["leak"] = d["leak"] / B
    if "one leak for all units" in wrong:
        d["leak"] = np.full(H, d["leak"].sum())

    # DECAY (sum(Wx^2) + sum(Wh^2))
    rate = 2 * DECAY
    if "decay without its 2" in wrong:
        rate = DECAY
    if "decay averaged over the batch" in wrong:
        rate = rate / B
    if "decay subtracted" in wrong:
        rate = -rate
    d["Wx"] += rate * Wx
    if "no decay of Wh" not in wrong and "decay added at every step" not in wrong:
        d["Wh"] += rate * Wh
    if "decay of Wy too" in wrong:
        d["Wy"] = d["Wy"] + rate * Wy
    return d


ALPHA = 'alpha = jax.nn.sigmoid(params["leak"])'
H0 = 'h = params["h0"]'
NEW = 'new = jnp.tanh(x[t] @ params["Wx"] + h @ params["Wh"] + params["b"])'
H = "h = (1 - alpha) * h + alpha * new"
SQUARES = "total += jnp.mean((y - target[t]) ** 2)"
MEAN = "mean = total / len(x)"
WEIGHTS = 'weights = jnp.sum(params["Wx"] ** 2) + jnp.sum(params["Wh"] ** 2)'
SUM = "return mean + DECAY * weights"

FAULTS = {
    "states rounded to three places": Fault("The states are rounded to three decimal places."),
    "mean over the batch alone": Fault(
        "The mean over sequences and outputs is taken for one over the sequences.", (SQUARES,)
    ),
    "sum over the steps": Fault("The gradient is not divided by the number of steps.", (MEAN,)),
    "mean over the steps twice": Fault("The gradient is divided by the steps twice.", (MEAN,)),
    "leak without the old state": Fault("alpha's gradient lacks the term -h[t-1].", (H,)),
    "leak against the new state": Fault("alpha's gradient has new - h[t] for new - h[t-1].", (H,)),
    "sign of the leak": Fault("alpha's gradient has h[t-1] - new for new - h[t-1].", (H,)),
    "leak overwritten": Fault("alpha's gradient is assigned in the loop, not added to.", (H,)),
    "alpha not on the way into the unit": Fault("The unit gets dh without the factor alpha.", (H,)),
    "alpha and 1 - alpha exchanged": Fault("dh is split the wrong way: alpha for 1 - alpha.", (H,)),
    "no path past the unit": Fault("The old state lacks its gradient in (1 - alpha) h.", (H,)),
    "path past the unit without its factor": Fault(
        "The old state gets dh without the factor 1 - alpha.", (H,)
    ),
    "slope at the leaky state": Fault("1 - h^2 is written for 1 - new^2.", (NEW,)),
    "no slope": Fault("The derivative of tanh is left out.", (NEW,)),
    "Wh with the unit's last value": Fault(
        "Wh's gradient uses the last new value, without the leak, for the state.", (NEW,)
    ),
    "Wh with the new state": Fault("Wh's gradient uses h[t] for h[t-1].", (NEW,)),
    "b averaged over the batch": Fault("b's gradient is a mean over the batch.", (NEW,)),
    "decay added at every step": Fault(
        "Wh's decay is added inside the loop, once for each step.", (WEIGHTS, SUM)
    ),
    "Wh not transposed": Fault("Wh is not transposed on the way back.", (NEW,)),
    "detached every two steps": Fault("The state is cut off every two steps.", (H, NEW)),
    "truncated after three steps": Fault(
        "Each step's error is sent back over three steps and no further.", (H, NEW)
    ),
    "h0 of one sequence": Fault("h0 gets the gradient of the first sequence alone.", (H0, NEW, H)),
    "leak without the sigmoid": Fault("The sigmoid's derivative is left out.", (ALPHA,)),
    "leak averaged over the batch": Fault("The leak's gradient is a mean over the batch.", (H,)),
    "one leak for all units": Fault("The leak's gradient is summed over the units.", (ALPHA, H)),
    "decay without its 2": Fault("The decay lacks the factor 2 of the squares.", (WEIGHTS,)),
    "decay averaged over the batch": Fault(
        "The decay is divided by the batch size.", (SUM, WEIGHTS)
    ),
    "decay subtracted": Fault(
        "The decay's gradient is subtracted, as in an update.", (SUM, WEIGHTS)
    ),
    "no decay of Wh": Fault("Wh's gradient lacks the decay.", (WEIGHTS, SUM)),
    "decay of Wy too": Fault(
        "The output's weights decay too, though the loss has none.", (WEIGHTS, SUM)
    ),
}
FAULTS |= pairs(
    FAULTS,
    ("leak without the sigmoid", "no path past the unit"),
    ("decay without its 2", "slope at the leaky state"),
)
