"""A batch of sequences with missing steps, at which the state is kept and no error is counted.

Rows are sequences: x W, not W x.
"""

import jax.numpy as jnp
import numpy as np

from faults import Fault, normal, pairs, parts, zeros_like


def loss(params, x, target, mask):
    h = jnp.tile(params["h0"], (len(x), 1))
    total = 0.0
    for t in range(x.shape[1]):
        m = mask[:, t, None]
        new = jnp.tanh(x[:, t] @ params["Wx"] + h @ params["Wh"] + params["b"])
        h = m * new + (1 - m) * h
        y = h @ params["Wy"] + params["c"]
        error = m * (y - target[:, t])
        total += jnp.sum(error**2)
    return total / jnp.sum(mask)


def arguments(rng):
    B, T, D, H, O = 3, 6, 2, 4, 5
    params = {
        "Wx": normal(rng, D, H),
        "Wh": normal(rng, H, H),
        "b": normal(rng, H),
        "h0": normal(rng, H),
        "Wy": normal(rng, H, O),
        "c": normal(rng, O),
    }
    mask = np.array([[1, 1, 1, 1, 1, 1], [1, 1, 0, 1, 1, 0], [0, 1, 1, 1, 0, 0]], float)
    return params, rng.normal(size=(B, T, D)), normal(rng, B, T, O), mask


def gradient(fault, params, x, target, mask):
    wrong = parts(fault)
    Wx, Wh, b, Wy, c = (params[name] for name in ["Wx", "Wh", "b", "Wy", "c"])
    B, T, _ = x.shape
    h = np.empty((T + 1, B, len(b)))
    new = np.empty((T, B, len(b)))
    h[0] = params["h0"]
    for t in range(T):
        m = mask[:, t, None]
        new[t] = np.tanh(x[:, t] @ Wx + h[t] @ Wh + b)
        h[t + 1] = m * new[t] + (1 - m) * h[t]

    count = mask.sum()
    if "mean over all steps" in wrong:
        count = B * T
    if "mean over the batch" in wrong:
        count = B
    if "mean of each sequence's mean" in wrong:
        count = B * mask.sum(1)[:, None]

    d = zeros_like(params)
    carried = np.zeros((B, len(b)))
    for t in reversed(range(T)):
        if "steps with any gap left out" in wrong and not mask[:, t].all():
            continue
        m = mask[:, t, None]
        # error = m (y - target), total = sum(error^2) / sum(mask)
        seen = m
        if "no mask on the error" in wrong:
            seen = 1
        if "error under the mask of the step before" in wrong:
            seen = mask[:, t - 1, None]
        if "last real step lost" in wrong:
            seen = m * mask[:, t + 1 :].any(1)[:, None]
        difference = h[t + 1] @ Wy + c - target[:, t]
        dy = 2 * seen * difference / count
        if "no factor 2" in wrong:
            dy = dy / 2

        # y = h Wy + c
        d["Wy"] += (h[t] if "Wy with the state before" in wrong else h[t + 1]).T @ dy
        d["c"] += (2 * difference / count if "c counts the gaps" in wrong else dy).sum(0)
        dh = dy @ Wy.T + carried
        if "output's gradient over the carried one" in wrong and t < T - 1:
            dh = np.where(m > 0, dy @ Wy.T, carried)

        # h = m new + (1 - m) h[t-1]
        updated, kept = m, 1 - m
        if "no mask on the new state" in wrong:
            updated = 1
        if "mask the wrong way round" in wrong:
            updated, kept = 1 - m, m
        if "mask of the step after" in wrong:
            updated = mask[:, min(t + 1, T - 1), None]
            kept = 1 - updated
        if "no path through the gaps" in wrong:
            kept = 0
        if "state kept at every step" in wrong:
            kept = 1
        da = updated * dh * (1 - new[t] ** 2)
        if "no slope" in wrong:
            da = updated * dh

        # new = tanh(x Wx + h[t-1] Wh + b)
        before = h[t]
        if "Wh with the new state" in wrong:
            before = h[t + 1]
        if "Wh with states put to zero in the gaps" in wrong and t > 0:
            before = h[t] * mask[:, t - 1, None]
        into_Wh = before.T @ da
        d["Wx"] += x[:, t].T @ da / (B if "Wx averaged over the batch" in wrong else 1)
        d["Wh"] += into_Wh.T if "Wh transposed" in wrong else into_Wh
        into_b = da.sum(0)
        if "b averaged over the batch" in wrong:
            into_b = da.mean(0)
        if "b of the last sequence" in wrong:
            into_b = da[-1]
        if "b summed over the units" in wrong:
            into_b = np.full_like(b, da.sum())
        d["b"] += into_b
        back = da @ Wh if "back through Wh not transposed" in wrong else da @ Wh.T
        carried = back + kept * dh
    # h0 is the initial state of every sequence
    d["h0"] = carried.sum(0)
    if "h0 averaged over the batch" in wrong:
        d["h0"] = carried.mean(0)
    if "h0 of the first sequence" in wrong:
        d["h0"] = carried[0]
    if "h0 not through a gap at the start" in wrong:
        d["h0"] = back.sum(0)
    return d


TILE = 'h = jnp.tile(params["h0"], (len(x), 1))'
M = "m = mask[:, t, None]"
NEW = 'new = jnp.tanh(x[:, t] @ params["Wx"] + h @ params["Wh"] + params["b"])'
H = "h = m * new + (1 - m) * h"
Y = 'y = h @ params["Wy"] + params["c"]'
ERROR = "error = m * (y - target[:, t])"
TOTAL = "total += jnp.sum(error**2)"
MEAN = "return total / jnp.sum(mask)"

FAULTS = {
    "mean over all steps": Fault(
        "The sum is divided by all steps, also the missing ones.", (MEAN,)
    ),
    "mean over the batch": Fault("The sum is divided by the number of sequences.", (MEAN,)),
    "mean of each sequence's mean": Fault(
        "Each sequence's sum is divided by its own length.", (MEAN,)
    ),
    "steps with any gap left out": Fault(
        "The loop skips every step that is missing in one of the sequences.", (H, M)
    ),
    "no mask on the error": Fault("The errors of missing steps are sent back.", (ERROR,)),
    "error under the mask of the step before": Fault(
        "The error's mask is a step late.", (ERROR, M)
    ),
    "last real step lost": Fault(
        "The mask on the way back ends a step too early in every sequence.", (ERROR, M)
    ),
    "no factor 2": Fault("The square's derivative lacks its factor 2.", (TOTAL,)),
    "Wy with the state before": Fault("Wy's gradient uses h[t-1] for h[t].", (Y,)),
    "c counts the gaps": Fault("c gets the errors of missing steps as well.", (ERROR, Y)),
    "output's gradient over the carried one": Fault(
        "Where a step is real the output's gradient replaces the carried one.", (Y, NEW, H)
    ),
    "no mask on the new state": Fault(
        "The gradient reaches the new state at missing steps too, where it was dropped.", (H,)
    ),
    "mask the wrong way round": Fault("The state's m and 1 - m are exchanged.", (H,)),
    "mask of the step after": Fault("The state's mask on the way back is a step early.", (H, M)),
    "no path through the gaps": Fault("Nothing is carried back over a missing step.", (H,)),
    "state kept at every step": Fault("The kept state's gradient lacks its factor 1 - m.", (H,)),
    "no slope": Fault("The derivative of tanh is left out.", (NEW,)),
    "Wh with the new state": Fault("Wh's gradient uses h[t] for h[t-1].", (NEW,)),
    "Wh with states put to zero in the gaps": Fault(
        "Wh's gradient takes the state after a missing step for zero; it was kept.", (NEW, H)
    ),
    "Wx averaged over the batch": Fault("Wx's gradient is divided by the batch size.", (NEW,)),
    "Wh transposed": Fault("Wh's gradient is da' h, the transpose of h' da.", (NEW,)),
    "b averaged over the batch": Fault("b's gradient is a mean over the batch.", (NEW,)),
    "b of the last sequence": Fault("b's gradient is that of the last sequence alone.", (NEW,)),
    "b summed over the units": Fault("b's gradient is summed over the units as well.", (NEW,)),
    "back through Wh not transposed": Fault("Wh is not transposed on the way back.", (NEW,)),
    "h0 averaged over the batch": Fault("h0's gradient is a mean over the batch.", (TILE,)),
    "h0 of the first sequence": Fault(
        "h0's gradient is that of the first sequence alone.", (TILE,)
    ),
    "h0 not through a gap at the start": Fault(
        "h0 gets nothing from a sequence that begins with a missing step.", (H, TILE)
    ),
}
FAULTS |= pairs(
    FAULTS,
    ("mean over all steps", "no path through the gaps"),
    ("no mask on the error", "b averaged over the batch"),
)
