"""The simple recurrent network of the lab (Elman, 1990).

    a[t] = W h[t-1] + U x[t] + b
    h[t] = tanh(a[t])                                               (Eq. 1)

With dh[t] the gradient of the loss with respect to h[t], from the last step to the first:

    dh[T] = V' dy[T] + dh_last                                      (Eq. 4)
    dh[t] = V' dy[t] + W' da[t+1]                                   (Eq. 5)
    da[t] = diag(1 - h[t]^2) dh[t]

since tanh' = 1 - tanh^2. W' da[t] is what is carried to h[t-1]. Eqs. 7, 9 and 10 stand as they are.
torch's nn.RNN has a second bias, beside W h; the two only ever appear as their sum, b.
"""

from itertools import pairwise
from typing import NamedTuple

import numpy as np

from manual_bptt.arithmetic import mark_overflow
from manual_bptt.arrays import Array
from manual_bptt.products import Sides


class Params(NamedTuple):
    """The parameters of Eqs. 1-2: W (H, H), U (H, D), b (H,), V (O, H) and c (O,)."""

    W: Array
    U: Array
    b: Array
    V: Array
    c: Array


AXES = {"W": "HH", "U": "HD", "b": "H"}


def forward_steps(params: Params, a: Array, h: Array) -> None:
    """Write the states that follow h[0] to h[1:], which is a = U x + b for now (Eq. 1)."""
    Wt, Wh = np.ascontiguousarray(params.W.T), np.empty_like(h[0])
    mark_overflow(params.W, a, h[0])
    for h_before, h_now in pairwise(h):
        h_before.dot(Wt, Wh)
        np.add(h_now, Wh, h_now)  # a[t]
        np.tanh(h_now, h_now)  # Eq. 1


def backward_steps(
    params: Params, x: Array, h: Array, dh: Array, da: Array, carried: Array
) -> Sides:
    """Write the gradients with respect to the states and the pre-activations to dh and da."""
    slope = h[1:] * h[1:]
    np.subtract(1, slope, out=slope)  # 1 - h[t]^2
    for dh_now, da_now, slope_now in zip(dh[::-1], da[::-1], slope[::-1], strict=True):
        np.add(dh_now, carried, dh_now)  # Eq. 4 at T, then Eq. 5
        np.multiply(dh_now, slope_now, da_now)  # da[t]
        da_now.dot(params.W, carried)  # W' da[t], what h[t-1] receives
    return {}
