"""The gated recurrent unit, reset before the product (Cho et al., 2014, Eqs. 5-8).

    r[t] = sigma(W_r h[t-1] + U_r x[t] + b_r)                       reset
    z[t] = sigma(W_z h[t-1] + U_z x[t] + b_z)                       update
    n[t] = tanh(W_n (r[t] h[t-1]) + U_n x[t] + b_n)                 candidate
    h[t] = (1 - z[t]) n[t] + z[t] h[t-1]                            (Eq. 1 of this cell)

where vectors side by side are multiplied entry by entry, and W, U and b hold r, z and n in this
order, which is torch's. As in the paper, z keeps the old state; in Chung et al. (2014) 1 - z does.
Keras has the order z, r, n. torch's nn.GRU and Keras, unless told reset_after=False, reset after
the product: see ``gru_reset_after``.

Back, with dh[t] = V' dy[t] + what h[t] receives from step t + 1, and s[t] for the gradient of the
loss with respect to r[t] h[t-1]:

    da_n = dh (1 - z) (1 - n^2)
    da_z = dh (h[t-1] - n) z (1 - z)            since sigma' = sigma (1 - sigma)
    s    = W_n' da_n
    da_r = s h[t-1] r (1 - r)
    h[t-1] receives z dh + r s + W_r' da_r + W_z' da_z

Eqs. 7 and 10 stand as they are, and Eq. 9 for W_r and W_z; dW_n = sum da_n (r h[t-1])'. The gates
are not kept: all of a block's follow at once from its inputs and states.
"""

from itertools import pairwise
from typing import NamedTuple

import numpy as np

from manual_bptt.arithmetic import mark_overflow, sigmoid
from manual_bptt.arrays import Array, rows
from manual_bptt.products import Sides, from_inputs


class Params(NamedTuple):
    """The parameters: W (3 H, H), U (3 H, D), b (3 H,), V (O, H) and c (O,)."""

    W: Array
    U: Array
    b: Array
    V: Array
    c: Array


AXES = {"W": "3HH", "U": "3HD", "b": "3H"}


def forward_steps(params: Params, a: Array, h: Array) -> None:
    """Write the states that follow h[0] to h[1:], from a = U x + b (Eq. 1)."""
    H = h.shape[-1]
    Wt_rz, Wt_n = (np.ascontiguousarray(W.T) for W in np.split(params.W, [2 * H]))
    mark_overflow(params.W, a, h[0])
    for (h_before, h_now), a_now in zip(pairwise(h), a, strict=True):
        rz = sigmoid(a_now[..., : 2 * H] + h_before.dot(Wt_rz))
        r, z = rz[..., :H], rz[..., H:]
        n = np.tanh(a_now[..., 2 * H :] + (r * h_before).dot(Wt_n))
        np.add((1 - z) * n, z * h_before, h_now)  # Eq. 1


def backward_steps(
    params: Params, x: Array, h: Array, dh: Array, da: Array, carried: Array
) -> Sides:
    """Write the gradients with respect to the states and the pre-activations to dh and da."""
    H, h_before = h.shape[-1], h[:-1]
    W_rz, W_n = np.split(params.W, [2 * H])
    a_rz, a_n = da_rz, da_n = np.split(da, [2 * H], axis=-1)  # da holds a for now
    from_inputs(params, x, da)
    mark_overflow(params.W, da, h[0])
    a_rz += rows(h_before).dot(W_rz.T).reshape(a_rz.shape)
    r, z = np.split(sigmoid(a_rz), 2, axis=-1)
    reset = r * h_before
    n = np.tanh(a_n + rows(reset).dot(W_n.T).reshape(a_n.shape))
    by_s, by_dh = h_before * r * (1 - r), (h_before - n) * z * (1 - z)  # da_r / s, da_z / dh
    to_n = (1 - z) * (1 - n * n)  # da_n / dh
    for t in reversed(range(len(dh))):
        np.add(dh[t], carried, dh[t])  # Eqs. 4-5
        np.multiply(dh[t], to_n[t], da_n[t])
        s = da_n[t].dot(W_n)
        np.multiply(s, by_s[t], da_rz[t, ..., :H])
        np.multiply(dh[t], by_dh[t], da_rz[t, ..., H:])
        np.add(z[t] * dh[t] + r[t] * s, da_rz[t].dot(W_rz), carried)  # what h[t-1] receives
    return {"W": [(da_rz, h_before), (da_n, reset)]}
