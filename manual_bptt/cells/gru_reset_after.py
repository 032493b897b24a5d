"""The gated recurrent unit, reset after the product: torch's nn.GRU, and Keras' default.

    r[t] = sigma(W_r h[t-1] + U_r x[t] + b_r)                       reset
    z[t] = sigma(W_z h[t-1] + U_z x[t] + b_z)                       update
    q[t] = W_n h[t-1] + bh
    n[t] = tanh(r[t] q[t] + U_n x[t] + b_n)                         candidate
    h[t] = (1 - z[t]) n[t] + z[t] h[t-1]                            (Eq. 1 of this cell)

with vectors side by side multiplied entry by entry, and with r, z and n in this order in W, U and
b, which is torch's; Keras has z, r, n. It is the form of cuDNN (Appleyard, Kocisky and Blunsom,
2016): one product a step serves all gates. Cho et al. (2014) reset before it: see ``gru``. Both
libraries have a second bias for r and z, which only appears in a sum with b; that of n, inside the
reset, is one of its own: bh. It stands last, for the first five parameters are those of every cell.

Back, with dh[t] = V' dy[t] + what h[t] receives from step t + 1:

    da_n = dh (1 - z) (1 - n^2)
    da_z = dh (h[t-1] - n) z (1 - z)            since sigma' = sigma (1 - sigma)
    da_r = da_n q r (1 - r)
    dq   = r da_n
    h[t-1] receives z dh + W_r' da_r + W_z' da_z + W_n' dq

Eqs. 7 and 10 stand, and Eq. 9 for W_r and W_z; dW_n = sum dq h[t-1]', dbh = sum dq. The gates are
not kept: all of a block's follow at once from its inputs and states.
"""

from collections import namedtuple
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from manual_bptt.arithmetic import mark_overflow, sigmoid
from manual_bptt.arrays import Array, rows
from manual_bptt.products import Sides, from_inputs


class Params(NamedTuple):
    """The parameters: W (3 H, H), U (3 H, D), b (3 H,), V (O, H), c (O,) and bh (H,)."""

    W: Array
    U: Array
    b: Array
    V: Array
    c: Array
    bh: Array


Gradients = namedtuple("Gradients", "W U b V c bh x h0")
AXES = {"W": "3HH", "U": "3HD", "b": "3H", "bh": "H"}


def forward_steps(params: Params, a: Array, h: Array) -> None:
    """Write the states that follow h[0] to h[1:], from a = U x + b (Eq. 1)."""
    H = h.shape[-1]
    Wt = np.ascontiguousarray(params.W.T)
    mark_overflow(np.append(params.W, params.bh), a, h[0])
    for (h_before, h_now), a_now in zip(pairwise(h), a, strict=True):
        Wh = h_before.dot(Wt)
        rz = sigmoid(a_now[..., : 2 * H] + Wh[..., : 2 * H])
        r, z = rz[..., :H], rz[..., H:]
        n = np.tanh(a_now[..., 2 * H :] + r * (Wh[..., 2 * H :] + params.bh))
        np.add((1 - z) * n, z * h_before, h_now)  # Eq. 1


def backward_steps(
    params: Params, x: Array, h: Array, dh: Array, da: Array, carried: Array
) -> Sides:
    """Write the gradients with respect to the states and the pre-activations to dh and da."""
    H, h_before = h.shape[-1], h[:-1]
    from_inputs(params, x, da)  # da holds a for now
    mark_overflow(np.append(params.W, params.bh), da, h[0])
    Wh = rows(h_before).dot(params.W.T).reshape(da.shape)
    r, z = np.split(sigmoid(da[..., : 2 * H] + Wh[..., : 2 * H]), 2, axis=-1)
    q = Wh[..., 2 * H :] + params.bh
    n = np.tanh(da[..., 2 * H :] + r * q)
    to_n = (1 - z) * (1 - n * n)  # da_n / dh
    da[...] = np.concatenate([to_n * q * r * (1 - r), (h_before - n) * z * (1 - z), to_n], axis=-1)
    at_W = da.copy()  # da_r, da_z and dq, as da, by dh until it is known
    at_W[..., 2 * H :] *= r
    for t in reversed(range(len(dh))):
        np.add(dh[t], carried, dh[t])  # Eqs. 4-5
        at_W[t] *= np.tile(dh[t], 3)
        np.add(z[t] * dh[t], at_W[t].dot(params.W), carried)  # what h[t-1] receives
    da *= np.tile(dh, 3)
    return {"W": [(at_W, h_before)], "bh": [(at_W[..., 2 * H :], None)]}
