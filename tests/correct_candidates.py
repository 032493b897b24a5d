"""Correct gradients of the squared error in other clothes: none of them may ever be accused.

    python tests/correct_candidates.py --problems 10000

judges each on that many problems of each dtype, half of them batches, and prints a table.
"""

import argparse
import math
import sys
from functools import partial
from importlib.util import find_spec
from itertools import chain

import jax
import jax.numpy as jnp
import numpy as np

from reference import draw_problems
from reference.judging.verdicts import judge_solved
from reference.mistakes import correct
from reference.oracle.answers import solved
from reference.report import FAILURES

CANDIDATES = {"the textbook, step by step": correct()}


def candidate(name):
    """Return a decorator that enters a function into CANDIDATES."""

    def register(function):
        CANDIDATES[name] = function
        return function

    return register


def each_sequence(single):
    """Return the candidate that adds up what another one returns for single sequences."""

    def summed(params, x, h0, target):
        if x.ndim == 2:
            return single(params, x, h0, target)
        parts = [single(params, x[:, i], h0[i], target[:, i]) for i in range(len(h0))]
        grads = {k: sum(part[k] for part in parts) for k in "WUbVc"}
        axes = {"x": 1, "h0": 0, "h": 1, "states": 1}
        rest = {k: np.stack([part[k] for part in parts], axes[k]) for k in parts[0].keys() - grads}
        return grads | rest

    return summed


# What many of them share ------------------------------------------------------------------------


def forward(params, x, h0, target):
    """Return the states and dy."""
    h = [h0]
    for x_t in x:
        h.append(np.tanh(h[-1] @ params.W.T + x_t @ params.U.T + params.b))
    h = np.array(h)
    return h, 2 * (h[1:] @ params.V.T + params.c - target)


def recursion(params, dy, slope):
    """Return dh and da."""
    dh, da = np.zeros((len(dy) + 1, *slope.shape[1:]), dy.dtype), np.zeros_like(slope)
    for t in range(len(dy), 0, -1):
        dh[t] += dy[t - 1] @ params.V
        da[t - 1] = slope[t - 1] * dh[t]
        dh[t - 1] = da[t - 1] @ params.W
    return dh, da


def rows(array):
    return array.reshape(-1, array.shape[-1])


def sums(params, x, h, dy, da):
    """Return the gradients in the parameters and the inputs."""
    return {
        "W": rows(da).T @ rows(h[:-1]),
        "U": rows(da).T @ rows(x),
        "b": rows(da).sum(axis=0),
        "V": rows(dy).T @ rows(h[1:]),
        "c": rows(dy).sum(axis=0),
        "x": da @ params.U,
    }


def with_slope(slope_of, params, x, h0, target):
    h, dy = forward(params, x, h0, target)
    dh, da = recursion(params, dy, slope_of(params, x, h))
    return sums(params, x, h, dy, da) | {"h0": dh[0], "h": dh}


# Loops, sums and layouts ------------------------------------------------------------------------


def in_plain_loops(params, x, h0, target):
    """Every gradient of one sequence, a scalar at a time: correct, and unlike other code here."""
    (T, D), H, O = x.shape, len(h0), len(params.c)
    h = np.zeros((T + 1, H), x.dtype)
    h[0] = h0
    y = np.zeros((T, O), x.dtype)
    for t in range(T):
        for i in range(H):
            a = params.b[i] + sum(params.W[i, j] * h[t, j] for j in range(H))
            h[t + 1, i] = np.tanh(a + sum(params.U[i, d] * x[t, d] for d in range(D)))
        for o in range(O):
            y[t, o] = params.c[o] + sum(params.V[o, i] * h[t + 1, i] for i in range(H))
    dy = 2 * (y - target)
    g = {k: np.zeros_like(getattr(params, k)) for k in "WUbVc"}
    g |= {"x": np.zeros_like(x), "h": np.zeros_like(h)}
    for t in range(T, 0, -1):
        g["h"][t] += sum(dy[t - 1, o] * params.V[o] for o in range(O))
        g["V"] += dy[t - 1, :, None] * h[t]
        g["c"] += dy[t - 1]
        da = g["h"][t] * (1 - h[t]) * (1 + h[t])
        g["b"] += da
        g["W"] += da[:, None] * h[t - 1]
        g["U"] += da[:, None] * x[t - 1]
        g["x"][t - 1] = sum(da[i] * params.U[i] for i in range(H))
        g["h"][t - 1] = sum(da[i] * params.W[i] for i in range(H))
    return g | {"h0": g["h"][0]}


CANDIDATES["plain loops, a scalar at a time"] = each_sequence(in_plain_loops)


@candidate("einsum throughout")
def einsum_throughout(params, x, h0, target):
    W, U, b, V, c = params
    h = [h0]
    for x_t in x:
        a = np.einsum("ij,...j->...i", W, h[-1]) + np.einsum("id,...d->...i", U, x_t)
        h.append(np.tanh(a + b))
    h = np.array(h)
    dy = 2 * (np.einsum("oi,t...i->t...o", V, h[1:]) + c - target)
    dh, da = np.zeros_like(h), np.zeros_like(h[1:])
    for t in range(len(x), 0, -1):
        dh[t] += np.einsum("oi,...o->...i", V, dy[t - 1])
        da[t - 1] = np.einsum("...i,...i->...i", 1 - h[t] ** 2, dh[t])
        dh[t - 1] = np.einsum("ji,...j->...i", W, da[t - 1])
    return {
        "W": np.einsum("ni,nj->ij", rows(da), rows(h[:-1])),
        "U": np.einsum("ni,nd->id", rows(da), rows(x)),
        "b": np.einsum("ni->i", rows(da)),
        "V": np.einsum("no,ni->oi", rows(dy), rows(h[1:])),
        "c": np.einsum("no->o", rows(dy)),
        "x": np.einsum("id,t...i->t...d", U, da),
        "h0": dh[0],
        "h": dh,
        "states": h,
    }


@candidate("sums from the first step to the last, units in reverse")
def reversed_sums(params, x, h0, target):
    order = slice(None, None, -1)
    flipped = type(params)(params.W[order, order], params.U[order, order], *params[2:])
    flipped = flipped._replace(b=params.b[order], V=params.V[:, order])
    x, h0 = x[..., order], h0[..., order]
    h, dy = forward(flipped, x, h0, target)
    dh, da = recursion(flipped, dy, 1 - h[1:] ** 2)
    g = {k: np.zeros_like(getattr(params, k)) for k in "WUbVc"}
    for t in range(len(x)):
        one = slice(t, t + 1)
        step = sums(flipped, x[one], h[t : t + 2], dy[one], da[one])
        g = {k: g[k] + step[k] for k in g}
    g |= {"x": da @ flipped.U, "h0": dh[0], "h": dh, "states": h}
    axes = {"W": (0, 1), "U": (0, 1), "b": 0, "V": 1, "x": -1, "h0": -1, "h": -1, "states": -1}
    return {k: np.flip(array, axes[k]) if k in axes else array for k, array in g.items()}


@candidate("sums by halves")
def sums_by_halves(params, x, h0, target):
    def total(terms):
        half = len(terms) // 2
        return terms[0] if len(terms) == 1 else total(terms[:half]) + total(terms[half:])

    h, dy = forward(params, x, h0, target)
    dh, da = recursion(params, dy, 1 - h[1:] ** 2)
    pairs = {"W": (da, h[:-1]), "U": (da, x), "V": (dy, h[1:])}
    g = {k: total(rows(a)[:, :, None] * rows(b)[:, None]) for k, (a, b) in pairs.items()}
    return g | {"b": total(rows(da)), "c": total(rows(dy)), "x": da @ params.U, "h0": dh[0]}


@candidate("sums by math.fsum, rounded once")
def sums_rounded_once(params, x, h0, target):
    def total(left, right):
        """Return left' right, each entry the rounded exact sum of products in float64."""
        products = rows(left).astype(float).T[:, None] * rows(right).astype(float).T
        entries = [math.fsum(terms) for terms in products.reshape(-1, products.shape[-1])]
        return np.array(entries, x.dtype).reshape(products.shape[:-1])

    h, dy = forward(params, x, h0, target)
    dh, da = recursion(params, dy, 1 - h[1:] ** 2)
    ones = np.ones_like(x[..., :1])
    pairs = {"W": (da, h[:-1]), "U": (da, x), "b": (da, ones), "V": (dy, h[1:]), "c": (dy, ones)}
    g = {k: total(*pair) for k, pair in pairs.items()}
    return g | {"b": g["b"][:, 0], "c": g["c"][:, 0], "x": da @ params.U, "h": dh}


@candidate("checkpoints every 5 steps")
def checkpointed(params, x, h0, target):
    """Keep every fifth state alone, and compute those between again on the way back."""
    starts, h = [], h0
    for first in range(0, len(x), 5):
        starts.append(h)
        h = forward(params, x[first : first + 5], h, target[first : first + 5])[0][-1]
    total, dx, carried = dict.fromkeys("WUbVc", 0), [], np.zeros_like(h0)
    for first in range(5 * (len(starts) - 1), -1, -5):
        part = slice(first, first + 5)
        h, dy = forward(params, x[part], starts.pop(), target[part])
        da = np.zeros_like(h[1:])
        for t in range(len(dy) - 1, -1, -1):
            da[t] = (dy[t] @ params.V + carried) * (1 - h[t + 1] ** 2)
            carried = da[t] @ params.W
        step = sums(params, x[part], h, dy, da)
        total = {k: total[k] + step[k] for k in total}
        dx.insert(0, step["x"])
    return total | {"x": np.concatenate(dx), "h0": carried}


@candidate("one matrix [W U b]")
def one_matrix(params, x, h0, target):
    """h[t] = tanh(K z[t]) with z[t] = (h[t-1], x[t], 1)."""
    H, D = params.U.shape
    K, ones = np.hstack([params.W, params.U, params.b[:, None]]), np.ones_like(h0[..., :1])
    h, z = [h0], []
    for x_t in x:
        z.append(np.concatenate([h[-1], x_t, ones], axis=-1))
        h.append(np.tanh(z[-1] @ K.T))
    h = np.array(h)
    dy = 2 * (h[1:] @ params.V.T + params.c - target)
    dK, dh, dx = np.zeros_like(K), np.zeros_like(h), np.zeros_like(x)
    for t in range(len(x), 0, -1):
        dh[t] += dy[t - 1] @ params.V
        da = dh[t] * (1 - h[t] ** 2)
        dK += rows(da).T @ rows(z[t - 1])
        dz = da @ K
        dh[t - 1], dx[t - 1] = dz[..., :H], dz[..., H : H + D]
    outer = {"V": rows(dy).T @ rows(h[1:]), "c": rows(dy).sum(axis=0)}
    return outer | {"W": dK[:, :H], "U": dK[:, H:-1], "b": dK[:, -1], "x": dx, "h": dh}


@candidate("columns for sequences")
def columns(params, x, h0, target):
    """Keep (H, B) where others keep (B, H), as the equations are written."""
    W, U, b, V, c = params
    one = x.ndim == 2
    x, target = (np.moveaxis(a[:, None] if one else a, 1, 2) for a in (x, target))
    h = [h0[:, None] if one else h0.T]
    for x_t in x:
        h.append(np.tanh(W @ h[-1] + U @ x_t + b[:, None]))
    y = [V @ h_t + c[:, None] for h_t in h[1:]]
    dy = [2 * (y_t - target_t) for y_t, target_t in zip(y, target, strict=True)]
    da, dh = [None], [np.zeros_like(h[0])]
    for t in range(len(x), 0, -1):
        dh[0] = V.T @ dy[t - 1] + dh[0]
        da.insert(0, (1 - h[t] ** 2) * dh[0])
        dh.insert(0, W.T @ da[0])
    dx = [U.T @ da_t for da_t in da[:-1]]
    g = {
        "W": sum(da_t @ h_t.T for da_t, h_t in zip(da[:-1], h[:-1], strict=True)),
        "U": sum(da_t @ x_t.T for da_t, x_t in zip(da[:-1], x, strict=True)),
        "b": sum(da_t.sum(axis=1) for da_t in da[:-1]),
        "V": sum(dy_t @ h_t.T for dy_t, h_t in zip(dy, h[1:], strict=True)),
        "c": sum(dy_t.sum(axis=1) for dy_t in dy),
    }
    back = {"x": np.array(dx), "h": np.array(dh), "states": np.array(h)}
    back = {k: a[:, :, 0] if one else np.moveaxis(a, 1, 2) for k, a in back.items()}
    return g | back | {"h0": back["h"][0]}


@candidate("Fortran order and strides")
def fortran_ordered(params, x, h0, target):
    params = type(params)(*(np.asfortranarray(array) for array in params))
    grads = with_slope(lambda p, x, h: 1 - h[1:] ** 2, params, np.asfortranarray(x), h0, target)
    return {k: np.repeat(np.asfortranarray(g), 2, axis=-1)[..., ::2] for k, g in grads.items()}


# The derivative of tanh -------------------------------------------------------------------------


def factored_slope(params, x, h):
    return (1 - h[1:]) * (1 + h[1:])


def slope_by_cosh(params, x, h):
    with np.errstate(over="ignore"):  # where cosh overflows, the slope is zero
        return 1 / np.cosh(h[:-1] @ params.W.T + x @ params.U.T + params.b) ** 2


def slope_by_exponentials(params, x, h):
    """4 e / (1 + e)^2 with e = exp(-2 |a|)."""
    e = np.exp(-2 * np.abs(h[:-1] @ params.W.T + x @ params.U.T + params.b))
    return 4 * e / (1 + e) ** 2


CANDIDATES["slope (1 - h) (1 + h)"] = partial(with_slope, factored_slope)
CANDIDATES["slope 1 / cosh(a)^2"] = partial(with_slope, slope_by_cosh)
CANDIDATES["slope by exponentials"] = partial(with_slope, slope_by_exponentials)


# Precision --------------------------------------------------------------------------------------


@candidate("twice the precision inside")
def wider_inside(params, x, h0, target):
    wider = np.float64 if x.dtype == np.float32 else np.longdouble
    params = type(params)(*(array.astype(wider) for array in params))
    arrays = (a.astype(wider) for a in (x, h0, target))
    grads = with_slope(lambda p, x, h: 1 - h[1:] ** 2, params, *arrays)
    return {k: array.astype(x.dtype) for k, array in grads.items()}


# No backward recursion --------------------------------------------------------------------------


@candidate("real-time recurrent learning")
def forward_jacobians(params, x, h0, target):
    """Carry the derivative of the state in K = [W U b] and in h0 on (Williams, Zipser 1989)."""
    single = x.ndim == 2
    x, h0, target = (x[:, None], h0[None], target[:, None]) if single else (x, h0, target)
    (B, H), D = h0.shape, x.shape[-1]
    n = H + D + 1
    P = np.zeros((B, H, H * n + H), x.dtype)  # dh_i / d(K_kl, h0_j)
    P[:, :, H * n :] = np.eye(H)
    gradient, dV, dc = np.zeros((B, H * n + H), x.dtype), 0, 0
    h = h0
    for x_t, target_t in zip(x, target, strict=True):
        z = np.concatenate([h, x_t, np.ones((B, 1), x.dtype)], axis=1)
        h = np.tanh(h @ params.W.T + x_t @ params.U.T + params.b)
        P = params.W @ P
        P[:, :, : H * n].reshape(B, H, H, n)[:, range(H), range(H)] += z[:, None]
        P = (1 - h**2)[:, :, None] * P
        dy = 2 * (h @ params.V.T + params.c - target_t)
        gradient += ((dy @ params.V)[:, None] @ P)[:, 0]
        dV, dc = dV + dy.T @ h, dc + dy.sum(axis=0)
    dK, dh0 = gradient[:, : H * n].sum(axis=0).reshape(H, n), gradient[:, H * n :]
    g = {"W": dK[:, :H], "U": dK[:, H:-1], "b": dK[:, -1], "V": dV, "c": dc}
    return g | {"h0": dh0[0] if single else dh0}


@candidate("forward mode, a column at a time")
def tangent_columns(params, x, h0, target):
    """Follow a small change of every entry of h0 and of every input through the forward pass.

    It leaves out h: beside the h of a recursion, its dx would be held to steps it never took.
    """
    (T, *batch, D), H = x.shape, h0.shape[-1]
    states, dy = forward(params, x, h0, target)
    column = (slice(None), *[None] * len(batch))
    by_h0 = np.broadcast_to(np.eye(H, dtype=x.dtype)[column], (H, *batch, H))
    by_x = np.zeros(
        (T, D, *batch, H), x.dtype
    )  # the change of h[t] with each entry of x[s], s <= t
    dh0, dx = np.zeros((H, *batch), x.dtype), np.zeros((T, D, *batch), x.dtype)
    for t in range(T):
        slope, from_output = 1 - states[t + 1] ** 2, dy[t] @ params.V
        by_h0 = slope * (by_h0 @ params.W.T)
        by_x[:t] = slope * (by_x[:t] @ params.W.T)
        by_x[t] = slope * params.U.T[column]
        dh0 += (by_h0 * from_output).sum(axis=-1)
        dx[: t + 1] += (by_x[: t + 1] * from_output).sum(axis=-1)
    return {"x": np.moveaxis(dx, 1, -1), "h0": np.moveaxis(dh0, 0, -1), "states": states}


@candidate("one linear system for all of dh")
def linear_system(params, x, h0, target):
    """Solve dh[t] - W' diag(1 - h[t+1]^2) dh[t+1] = V' dy[t] for all t at once."""
    h, dy = forward(params, x, h0, target)
    T, *rest, H = h[1:].shape
    slope = 1 - h[1:] ** 2
    system = np.zeros((*rest, T, H, T, H), x.dtype)
    system[..., range(T), :, range(T), :] = np.eye(H).reshape(1, *[1] * len(rest), H, H)
    for t in range(T - 1):
        system[..., t, :, t + 1, :] = -(slope[t + 1][..., None, :] * params.W.T)
    right = np.moveaxis(dy @ params.V, 0, -2).reshape(*rest, T * H, 1)
    dh = np.linalg.solve(system.reshape(*rest, T * H, T * H), right)
    dh = np.moveaxis(dh.reshape(*rest, T, H), -2, 0)
    da = slope * dh
    dh = np.concatenate([(da[0] @ params.W)[None], dh])
    return sums(params, x, h, dy, da) | {"h0": dh[0], "h": dh}


@candidate("parallel scan")
def parallel_scan(params, x, h0, target):
    """Compose the maps dh[t+1] -> dh[t] = A[t] dh[t+1] + g[t], twice as many steps each time.

    It leaves out h: the check of each step is about code that takes one, and this rounds otherwise.
    """
    h, dy = forward(params, x, h0, target)
    slope = 1 - h[1:] ** 2
    A, g = np.zeros((*slope.shape, slope.shape[-1]), x.dtype), dy @ params.V
    A[:-1] = slope[1:][..., None, :] * params.W.T
    steps = 1
    with np.errstate(over="ignore", invalid="ignore"):
        while steps < len(x):
            g[:-steps] += (A[:-steps] @ g[steps:, ..., None])[..., 0]
            A[:-steps] = A[:-steps] @ A[steps:]
            steps *= 2
    da = slope * g
    dh = np.concatenate([(da[0] @ params.W)[None], g])
    return sums(params, x, h, dy, da) | {"h0": dh[0]}


@candidate("complex step")
@each_sequence
def complex_step(params, x, h0, target):
    """Add a small imaginary part to one variable at a time; forward passes alone."""
    kind, step = (np.complex64, 2.0**-20) if x.dtype == np.float32 else (complex, 2.0**-66)
    variables = {**params._asdict(), "h0": h0}
    ends = np.cumsum([array.size for array in variables.values()])
    point = np.concatenate([array.ravel() for array in variables.values()])
    points = (point + 1j * step * np.eye(len(point))).astype(kind)
    parts = np.split(points, ends[:-1], axis=1)
    v = {
        k: part.reshape(-1, *array.shape)
        for (k, array), part in zip(variables.items(), parts, strict=True)
    }
    h, loss = v["h0"], 0
    for t in range(len(x)):
        a = np.einsum("nij,nj->ni", v["W"], h) + v["U"] @ x[t]
        h = np.tanh(a + v["b"])
        y = np.einsum("noi,ni->no", v["V"], h) + v["c"]
        loss = loss + ((y - target[t]) ** 2).sum(axis=1)
    derivatives = np.split(loss.imag / x.dtype.type(step), ends[:-1])
    return {
        k: part.reshape(array.shape)
        for (k, array), part in zip(variables.items(), derivatives, strict=True)
    }


# Other people's autodiff ------------------------------------------------------------------------


@candidate("jax.grad of a loop in Python")
def jax_loop(params, x, h0, target):
    """Pad to one of two widths, so that little is compiled: one step, forward and backward."""
    single = x.ndim == 2
    x, h0, target = (x[:, None], h0[None], target[:, None]) if single else (x, h0, target)
    n = 8 if max(*params.U.shape, len(params.c), 2 * len(h0)) <= 8 else 16
    B = n // 2
    arrays = (*params, h0)
    corners = [tuple(map(slice, array.shape)) for array in arrays]
    shapes = ((n, n), (n, n), (n,), (n, n), (n,), (B, n))
    variables = [_filled(array, *shape) for array, shape in zip(arrays, shapes, strict=True)]
    inputs = [_filled(x_t, B, n) for x_t in x]
    weight = _filled(np.ones_like(target[0]), B, n)
    with jax.enable_x64(True):
        loss = jax.grad(_loop_loss, argnums=(0, 1))
        grads, dx = loss(variables, inputs, [_filled(t, B, n) for t in target], weight)
    cut = [np.asarray(g)[corner] for g, corner in zip(grads, corners, strict=True)]
    results = dict(zip(("W", "U", "b", "V", "c", "h0"), cut, strict=True))
    results["x"] = np.array(dx)[:, : x.shape[1], : x.shape[2]]
    return results | ({"x": results["x"][:, 0], "h0": results["h0"][0]} if single else {})


def _filled(array, *shape):
    zeros = np.zeros(shape, array.dtype)
    zeros[tuple(map(slice, array.shape))] = array
    return zeros


def _loop_loss(variables, inputs, targets, weight):
    *params, h = variables
    loss = np.zeros((), weight.dtype)
    for x_t, target_t in zip(inputs, targets, strict=True):
        h, loss = _step(params, h, loss, x_t, target_t, weight)
    return loss


@jax.jit
def _step(params, h, loss, x_t, target_t, weight):
    W, U, b, V, c = params
    h = jnp.tanh(h @ W.T + x_t @ U.T + b)
    return h, loss + jnp.sum(weight * (h @ V.T + c - target_t) ** 2)


if find_spec("torch"):
    import torch

    torch.set_num_threads(1)

    @candidate("torch, operation by operation")
    def torch_operations(params, x, h0, target):
        variables = [torch.tensor(a, requires_grad=True) for a in (*params, x, h0)]
        W, U, b, V, c, inputs, start = variables
        h, loss = [start], 0
        for x_t, target_t in zip(inputs, torch.tensor(target), strict=True):
            h.append(torch.tanh(torch.nn.functional.linear(h[-1], W, b) + x_t @ U.T))
            h[-1].retain_grad()
            y = torch.nn.functional.linear(h[-1], V, c)
            loss = loss + torch.nn.functional.mse_loss(y, target_t, reduction="sum")
        loss.backward()
        results = {k: v.grad.numpy() for k, v in zip("WUbVc", variables, strict=False)}
        results |= {"x": inputs.grad.numpy(), "h0": start.grad.numpy()}
        results["h"] = np.array([h_t.grad.numpy() for h_t in h])
        return results | {"states": np.array([h_t.detach().numpy() for h_t in h])}

    @candidate("torch.nn.RNN")
    def torch_rnn(params, x, h0, target):
        H, D = params.U.shape
        dtype = torch.tensor(x).dtype
        rnn = torch.nn.RNN(D, H, dtype=dtype)
        linear = torch.nn.Linear(H, len(params.c), dtype=dtype)
        own = (rnn.weight_hh_l0, rnn.weight_ih_l0, rnn.bias_ih_l0, linear.weight, linear.bias)
        with torch.no_grad():
            rnn.bias_hh_l0.zero_()
            for theirs, ours in zip(own, params, strict=True):
                theirs.copy_(torch.tensor(ours))
        inputs, start = (torch.tensor(a, requires_grad=True) for a in (x, h0))
        h, _ = rnn(inputs, start[None])
        ((linear(h) - torch.tensor(target)) ** 2).sum().backward()
        results = {k: v.grad.numpy() for k, v in zip("WUbVc", own, strict=True)}
        return results | {"x": inputs.grad.numpy(), "h0": start.grad.numpy()}


# The command ------------------------------------------------------------------------------------

HEADER = ("candidate", "dtype", "problems", "false alarms", "end to end", "each step")


class Row:
    """What judging one candidate on many problems found."""

    def __init__(self, name, dtype):
        self.name, self.dtype = name, dtype
        self.problems, self.alarms, self.worst = 0, [], {"ratio": None, "local": None}

    def add(self, verdicts):
        self.problems += 1
        self.alarms += [v for v in verdicts if v.status in FAILURES][:1]
        for check, worst in self.worst.items():
            ratios = [getattr(v, check) for v in verdicts if getattr(v, check) is not None]
            self.worst[check] = max([*ratios, *([] if worst is None else [worst])], default=None)

    def cells(self):
        ratios = ("-" if worst is None else f"{worst:.3f}" for worst in self.worst.values())
        return (self.name, self.dtype, f"{self.problems:,}", str(len(self.alarms)), *ratios)


def judge_all(problems, candidates, progress=lambda done: None):
    """Judge every candidate on the same problems of one dtype; autodiff answers each once."""
    found, done = {}, 0
    for chunk in solved(problems):
        for name, function in candidates.items():
            dtype = chunk.answers[0].problem.dtype.name
            row = found.setdefault(name, Row(name, dtype))
            for verdicts, _ in judge_solved(function, chunk):
                row.add(verdicts)
        progress(done := done + len(chunk.answers))
    return [*found.values()]


def problems_of(cases, seed, dtype):
    """Return half batches and half single sequences."""
    drawn = (
        draw_problems(n, seed, dtype=dtype, batched=batched)
        for n, batched in ((cases - cases // 2, True), (cases // 2, False))
    )
    return chain(*drawn)


def markdown(found):
    lines = [HEADER, ("---", "---", *["---:"] * 4), *(row.cells() for row in found)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def main(arguments=None):
    parser = argparse.ArgumentParser(description="judge correct gradients in other clothes")
    parser.add_argument("--problems", type=int, default=10000, help="of each dtype (%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="which problems (%(default)s)")
    options = parser.parse_args(arguments)

    def progress(dtype, done):
        if sys.stderr.isatty():
            print(f"\r{dtype}: {done:,} of {options.problems:,}", end="", file=sys.stderr)

    found = []
    for dtype in ("float64", "float32"):
        drawn = problems_of(options.problems, options.seed, dtype)
        found += judge_all(drawn, CANDIDATES, partial(progress, dtype))
    print(markdown(found))
    for row in found:
        for v in row.alarms[:3]:
            ratios = f"end to end {v.ratio}, each step {v.local} {v.detail}"
            print(f"\n{row.name}: {v.gradient} is accused of {v.status} in {v.problem}, {ratios}")
    return 1 if any(row.alarms for row in found) else 0


if __name__ == "__main__":
    sys.exit(main())
