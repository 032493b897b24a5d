"""A gated recurrent unit, reset before the product; half the mean squared error of its outputs."""

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from faults import Fault, normal, pairs, parts, sigmoid, zeros_like


def loss(params, x, target):
    def step(h, x_t):
        z = jax.nn.sigmoid(params["Wz"] @ x_t + params["Uz"] @ h + params["bz"])
        r = jax.nn.sigmoid(params["Wr"] @ x_t + params["Ur"] @ h + params["br"])
        reset = r * h
        n = jnp.tanh(params["Wn"] @ x_t + params["Un"] @ reset + params["bn"])
        h = (1 - z) * n + z * h
        return h, h

    _, h = lax.scan(step, params["h0"], x)
    y = h @ params["V"].T + params["c"]
    squares = jnp.sum((y - target) ** 2, axis=1)
    return jnp.mean(squares) / 2


def arguments(rng):
    T, D, H, O = 5, 3, 4, 2
    params = {}
    for gate in "zrn":
        params[f"W{gate}"] = normal(rng, H, D)
        params[f"U{gate}"] = normal(rng, H, H)
        params[f"b{gate}"] = normal(rng, H)
    params |= {"h0": normal(rng, H), "V": normal(rng, O, H), "c": normal(rng, O)}
    return params, normal(rng, T, D), normal(rng, T, O)


def gradient(fault, params, x, target):
    wrong = parts(fault)
    Wz, Uz, bz = params["Wz"], params["Uz"], params["bz"]
    Wr, Ur, br = params["Wr"], params["Ur"], params["br"]
    Wn, Un, bn = params["Wn"], params["Un"], params["bn"]
    V, c = params["V"], params["c"]
    T, H = len(x), len(bz)
    z, r, n, h = (np.empty((T + 1, H)) for _ in range(4))
    h[-1] = params["h0"]  # h[t - 1] is the state before step t
    for t in range(T):
        z[t] = sigmoid(Wz @ x[t] + Uz @ h[t - 1] + bz)
        r[t] = sigmoid(Wr @ x[t] + Ur @ h[t - 1] + br)
        n[t] = np.tanh(Wn @ x[t] + Un @ (r[t] * h[t - 1]) + bn)
        h[t] = (1 - z[t]) * n[t] + z[t] * h[t - 1]
    y = h[:T] @ V.T + c

    dy = (y - target) / T
    if "sum for mean" in wrong:
        dy = y - target
    if "half forgotten" in wrong:
        dy = 2 * dy

    d = zeros_like(params)
    d["V"], d["c"] = dy.T @ h[:T], dy.sum(0)
    carried = np.zeros(H)
    for t in reversed(range(T)):
        h_before = h[t - 1]
        dh = V.T @ dy[t] + carried

        # h[t] = (1 - z) n + z h[t-1]
        dz = dh * (h_before - n[t])
        dn = dh * (1 - z[t])
        direct = dh * z[t]
        if "sign of the update gate" in wrong:
            dz = -dz
        if "update gate without the old state" in wrong:
            dz = -dh * n[t]
        if "z and 1 - z exchanged" in wrong:
            dn, direct = direct, dn
        if "dh overwritten too early" in wrong:
            dn = direct * (1 - z[t])
        if "no direct path" in wrong:
            direct = 0

        # n = tanh(Wn x + Un (r h[t-1]) + bn)
        slope_n = (
            n[t] * (1 - n[t]) if "sigmoid's slope for the candidate" in wrong else 1 - n[t] ** 2
        )
        dn = dn * slope_n
        dreset = Un.T @ dn
        dr = dreset * h_before
        through_reset = dreset * r[t]
        into_Un = np.outer(
            dn, h_before if "Un with the state not reset" in wrong else r[t] * h_before
        )
        if "reset after the product" in wrong:
            dr = dn * (Un @ h_before)
            through_reset = Un.T @ (dn * r[t])
            into_Un = np.outer(dn * r[t], h_before)
        if "no path through the reset" in wrong:
            through_reset = 0
        if "reset path without the gate" in wrong:
            through_reset = dreset

        # z and r = sigmoid(W x + U h[t-1] + b)
        slope_z, slope_r = z[t] * (1 - z[t]), r[t] * (1 - r[t])
        if "sigmoid of a sigmoid" in wrong:
            slope_r = sigmoid(r[t]) * (1 - sigmoid(r[t]))
        if "tanh's slope for the reset gate" in wrong:
            slope_r = 1 - r[t] ** 2
        dz = dz if "no slope of the update gate" in wrong else dz * slope_z
        dr = dr * slope_r

        for gate, da in (("z", dz), ("r", dr), ("n", dn)):
            d[f"W{gate}"] += np.outer(da, x[t])
            d[f"b{gate}"] += da
        d["Uz"] += np.outer(dz, h[t] if "Uz with the new state" in wrong else h_before)
        d["Ur"] += np.outer(dr, h_before)
        d["Un"] += into_Un
        if "br of one step" in wrong:
            d["br"] = dr

        carried = direct + through_reset
        if "no path through the update gate" not in wrong:
            carried = carried + Uz.T @ dz
        if "no path through the reset gate" not in wrong:
            carried = carried + (Ur @ dr if "Ur not transposed" in wrong else Ur.T @ dr)
    d["h0"] = direct if "h0 by the direct path alone" in wrong else carried
    if "biases in each other's place" in wrong:
        d["bz"], d["br"] = d["br"], d["bz"]
    return d


Z = 'z = jax.nn.sigmoid(params["Wz"] @ x_t + params["Uz"] @ h + params["bz"])'
R = 'r = jax.nn.sigmoid(params["Wr"] @ x_t + params["Ur"] @ h + params["br"])'
RESET = "reset = r * h"
N = 'n = jnp.tanh(params["Wn"] @ x_t + params["Un"] @ reset + params["bn"])'
H = "h = (1 - z) * n + z * h"
SQUARES = "squares = jnp.sum((y - target) ** 2, axis=1)"
MEAN = "return jnp.mean(squares) / 2"

FAULTS = {
    "sum for mean": Fault("The gradient is of the sum over the steps, not the mean.", (MEAN,)),
    "half forgotten": Fault(
        "The factor 2 of the square is kept, though half the error is the loss.", (MEAN, SQUARES)
    ),
    "sign of the update gate": Fault("n - h[t-1] is written for h[t-1] - n.", (H,)),
    "update gate without the old state": Fault(
        "The update gate's gradient lacks the term of z h[t-1].", (H,)
    ),
    "z and 1 - z exchanged": Fault(
        "The candidate's gradient has the factor z and the old state's 1 - z.", (H,)
    ),
    "dh overwritten too early": Fault(
        "dh is multiplied by z in place before the candidate's gradient is computed from it.", (H,)
    ),
    "no direct path": Fault("The old state lacks its gradient through z h[t-1].", (H,)),
    "sigmoid's slope for the candidate": Fault("n (1 - n) is written for 1 - n^2.", (N,)),
    "Un with the state not reset": Fault("Un's gradient uses h[t-1] where it met r h[t-1].", (N,)),
    "reset after the product": Fault(
        "The gradient is of the variant that multiplies Un h[t-1] by r.", (N, RESET)
    ),
    "no path through the reset": Fault(
        "The old state lacks its gradient through r h[t-1].", (RESET,)
    ),
    "reset path without the gate": Fault(
        "The gradient of r h[t-1] goes to h[t-1] without the factor r.", (RESET,)
    ),
    "sigmoid of a sigmoid": Fault(
        "The sigmoid's derivative applies the sigmoid to r, which is one already.", (R,)
    ),
    "tanh's slope for the reset gate": Fault("1 - r^2 is written for r (1 - r).", (R,)),
    "no slope of the update gate": Fault("The sigmoid's derivative is left out of z.", (Z,)),
    "Uz with the new state": Fault("Uz's gradient uses h[t] for h[t-1].", (Z,)),
    "br of one step": Fault("br's gradient is assigned in the loop, not added to.", (R,)),
    "no path through the update gate": Fault("The old state lacks its gradient through z.", (Z,)),
    "no path through the reset gate": Fault("The old state lacks its gradient through r.", (R,)),
    "Ur not transposed": Fault("Ur is not transposed on the way back.", (R,)),
    "h0 by the direct path alone": Fault(
        "h0 gets what came through z h0, nothing of the gates and the candidate.", (Z, R, RESET)
    ),
    "biases in each other's place": Fault(
        "The gradients of bz and br are returned under each other's name.", (Z, R)
    ),
}
FAULTS |= pairs(
    FAULTS,
    ("no path through the reset", "Un with the state not reset"),
    ("sum for mean", "no slope of the update gate"),
)
