"""The simple recurrent network with rectified units (Le, Jaitly and Hinton, 2015).

    a[t] = W h[t-1] + U x[t] + b
    h[t] = max(a[t], 0)                                             (Eq. 1 of this cell)

and back, as in the lab's Eqs. 4-5 with another slope:

    dh[t] = V' dy[t] + W' da[t+1]
    da[t] = dh[t] where h[t] > 0, else 0

The slope at a = 0, where there is none, is 0, as it is in torch, Keras and JAX; so h[t] alone tells
it. W' da[t] is what is carried to h[t-1], and Eqs. 7, 9 and 10 stand as they are. Nothing keeps the
states small: what overflows is infinite or NaN from there on, never a plausible 0.
"""

from itertools import pairwise
from typing import NamedTuple

import numpy as np

from manual_bptt.arrays import Array
from manual_bptt.products import Sides


class Params(NamedTuple):
    """The parameters: W (H, H), U (H, D), b (H,), V (O, H) and c (O,)."""

    W: Array
    U: Array
    b: Array
    V: Array
    c: Array


AXES = {"W": "HH", "U": "HD", "b": "H"}


def forward_steps(params: Params, a: Array, h: Array) -> None:
    """Write the states that follow h[0] to h[1:], which is a = U x + b for now (Eq. 1)."""
    Wt, Wh = np.ascontiguousarray(params.W.T), np.empty_like(h[0])
    for h_before, h_now in pairwise(h):
        h_before.dot(Wt, Wh)
        np.add(h_now, Wh, h_now)  # a[t]
        np.multiply(h_now, h_now.real > 0, h_now)  # Eq. 1; minus infinity becomes NaN


def backward_steps(
    params: Params, x: Array, h: Array, dh: Array, da: Array, carried: Array
) -> Sides:
    """Write the gradients with respect to the states and the pre-activations to dh and da."""
    at_rest = ~(h[1:].real > 0)  # where h[t] is 0, or NaN
    for t in reversed(range(len(dh))):
        np.add(dh[t], carried, dh[t])  # Eqs. 4-5
        np.copyto(da[t], dh[t])
        np.copyto(da[t], h[t + 1], where=at_rest[t])  # da[t], 0 even if dh[t] has overflowed
        da[t].dot(params.W, carried)  # W' da[t], what h[t-1] receives
    return {}
