"""The products that are the same for every cell: all that is outside of the recursion.

    a[t] = U x[t] + b + ...        what the inputs contribute          (Eq. 1)
    y[t] = V h[t] + c                                                   (Eq. 2)
    dh[t] = V' dy[t] + ...         what a state receives from its own output  (Eqs. 4-5)

and, with every da[t] known, each gradient is one sum over time:

    dc = sum dy[t]            db = sum da[t]                            (Eqs. 6, 7)
    dV = sum dy[t] h[t]'      dW = sum da[t] h[t-1]'                    (Eqs. 8, 9)
    dU = sum da[t] x[t]'      dx[t] = U' da[t]                          (Eq. 10)

a and da hold all gates, one after the other. Where a cell multiplies something else by W, or
something else than da arrives there, it says what stands on both sides.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from manual_bptt.arrays import AnyParams, Array, rows

# By the name of the parameter: pairs (left, right), arrays over time, for the sum of left[t]
# right[t]', or the sum of left[t] where right is None. Sums of several pairs are stacked.
Sides = Mapping[str, Sequence[tuple[Array, Array | None]]]


def from_inputs(params: AnyParams, x: Array, out: Array) -> None:
    """Write U x[t] + b to out (T, B, G H) or (T, G H)."""
    np.matmul(rows(x), np.ascontiguousarray(params.U.T), out=rows(out))
    out += params.b


def from_outputs(params: AnyParams, dy: Array, out: Array) -> None:
    """Write V' dy[t], what each state receives from its own output, to out."""
    product = np.matmul if len(params.V) > 1 else np.dot  # matmul is slow with nothing to sum
    product(rows(dy), params.V, out=rows(out))


def to_inputs(params: AnyParams, da: Array, dx: Array) -> None:
    """Write U' da[t], the gradients with respect to the inputs, to dx."""
    dx[...] = rows(da).dot(params.U).reshape(dx.shape)


def add_up(
    sums: AnyParams, x: Array, h: Array, dy: Array, da: Array, sides: Sides, ones: Array
) -> None:
    """Add to sums what a block contributes to the gradients in the parameters (Eqs. 6-10).

    ``ones`` are at least as many as the block has rows: a product with them rounds less than
    ``.sum(axis=0)``.
    """
    dW, dU, db, dV, dc, *_ = sums
    h_before, h_now, da, ys = rows(h[:-1]), rows(h[1:]), rows(da), rows(dy)
    ones = ones[: len(ys)]
    if "W" not in sides:
        dW += da.T.dot(h_before)  # Eq. 9
    dU += da.T.dot(rows(x))  # Eq. 10
    db += ones.dot(da)  # Eq. 7
    dV += ys.T.dot(h_now)  # Eq. 8
    dc += ones.dot(ys)  # Eq. 6
    for name, pairs in sides.items():
        _add_stacked(getattr(sums, name), pairs, ones)


def _add_stacked(total: Array, pairs: Sequence[tuple[Array, Array | None]], ones: Array) -> None:
    start = 0
    for left, right in pairs:
        end = start + left.shape[-1]
        each = rows(left)
        total[start:end] += ones.dot(each) if right is None else each.T.dot(rows(right))
        start = end
