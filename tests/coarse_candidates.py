"""Gradients in the arithmetic of processors made for matrices, right ones and broken ones.

    python tests/coarse_candidates.py --problems 2000

judges each on that many problems under the arithmetic that it declares, and prints a table of how
many accuse it, and by how many tolerances at most: a right one may never be accused, and a broken
one must be found.

The arithmetic is emulated: factors of a product are rounded to tf32, bfloat16 or float16, and
multiplied and added in float32, as NumPy does. So code stays as it is, and is given arrays of a
type of their own.
"""

import argparse
import sys
from functools import partial

import jax.numpy as jnp
import numpy as np

from reference import draw_problems
from reference.judging.verdicts import judge_solved
from reference.mistakes import MISTAKES, Derivation
from reference.oracle.answers import solved
from reference.report import FAILURES


def to_tf32(array):
    """Round to 10 bits after the first, ties away from zero, as an NVIDIA H200 was seen to do."""
    bits = np.asarray(array, np.float32).view(np.uint32).astype(np.uint64)
    return ((bits + 0x1000) & ~np.uint64(0x1FFF)).astype(np.uint32).view(np.float32)


def through(dtype):
    return lambda array: np.asarray(array, np.float32).astype(dtype).astype(np.float32)


ROUND = {"tf32": to_tf32, "bfloat16": through(jnp.bfloat16), "float16": through(np.float16)}


class Coarse(np.ndarray):
    """Arrays whose products have rounded factors; ``rounded`` says how."""

    rounded = staticmethod(to_tf32)

    def __array_ufunc__(self, ufunc, method, *inputs, out=(), **options):
        inputs = [np.asarray(v) if isinstance(v, np.ndarray) else v for v in inputs]
        if ufunc is np.matmul:
            inputs = map(self.rounded, inputs)
        if out:
            options["out"] = tuple(map(np.asarray, out))
        result = getattr(ufunc, method)(*inputs, **options)
        return result.view(type(self)) if isinstance(result, np.ndarray) else result


KINDS = {k: type(k, (Coarse,), {"rounded": staticmethod(f)}) for k, f in ROUND.items()}


def in_arithmetic(name, candidate):
    """Return a candidate whose products have factors rounded to a format."""

    def coarse(params, x, h0, target):
        params = type(params)(*(array.view(KINDS[name]) for array in params))
        found = candidate(params, *(array.view(KINDS[name]) for array in (x, h0, target)))
        return {k: np.asarray(array) for k, array in found.items()}

    return coarse


def mistaken(name, mistake=None):
    """Return the derivation of the registry, with a mistake or right, in an arithmetic."""

    class Mistaken(mistake.derivation if mistake else Derivation):
        def __init__(self, *arguments):
            super().__init__(*arguments)
            for k in ["W", "U", "V", "x", "dx", "a", "h", "da", "dh", "y", "dy", "target", "ones"]:
                setattr(self, k, getattr(self, k).view(KINDS[name]))

        def pair(self, left, right):
            """Return the sum over the batch, which is no product where one factor is ones."""
            if right is self.ones:
                return left.sum(0)[:, None]
            return super().pair(left, right)

    def candidate(params, x, h0, target):
        results = Mistaken(params, x, h0, target, "squared_error").gradients()
        return {k: np.asarray(array) for k, array in results.items()}

    return candidate


# The gated recurrent unit by hand ----------------------------------------------------------------


def sigmoid(a):
    with np.errstate(over="ignore"):
        return 1 / (1 + np.exp(-a))


def gru(params, x, h0, target, *, after=False, wrong=""):
    """Return every gradient of a batch; ``after``: the reset gate follows the product."""
    W, U, b = params.W, params.U, params.b
    (Wr, Wz, Wn), (Ur, Uz, Un), (br, bz, bn) = (np.split(array, 3) for array in (W, U, b))
    h, kept = [h0], []
    for x_t in x:
        before = h[-1]
        r = sigmoid(before @ Wr.T + x_t @ Ur.T + br)
        z = sigmoid(before @ Wz.T + x_t @ Uz.T + bz)
        inner = before @ Wn.T + params.bh if after else r * before
        n = np.tanh((r * inner if after else inner @ Wn.T) + x_t @ Un.T + bn)
        kept.append((r, z, n, inner))
        h.append((1 - z) * n + z * before)
    h = np.stack(h)
    dy = 2 * (h[1:] @ params.V.T + params.c - target)
    g = {k: np.zeros_like(getattr(params, k)) for k in params._fields}
    dh, dx, carried = np.zeros_like(h), np.zeros_like(x), np.zeros_like(h0)
    for t in range(len(x), 0, -1):
        (r, z, n, inner), before = kept[t - 1], h[t - 1]
        d = dh[t] = dy[t - 1] @ params.V + carried
        da_n = d * (1 - z) * (1 - n * n)
        da_z = d * (n - before if wrong == "sign" else before - n) * z * (1 - z)
        s = da_n * r if after else da_n @ (Wn.T if wrong == "transposed" else Wn)
        da_r = (da_n * inner if after else s * before) * r * (1 - r)
        da_r = 0 * da_r if wrong == "reset gate" else da_r
        back = s @ Wn if after else s * r
        carried = d * (z if wrong != "update path" else 1 - z) + da_r @ Wr
        carried = carried + (0 if wrong == "reset path" else back)
        carried = carried + (0 if wrong == "update gate" else da_z @ Wz)
        lefts = (before, before, before if after or wrong == "dW" else inner)
        sides = zip((da_r, da_z, s if after else da_n), lefts, strict=True)
        g["W"] += np.concatenate([side.T @ left for side, left in sides])
        da = np.concatenate([da_r, da_z, da_n], axis=-1)
        g["U"] += da.T @ (x[t - 2] if wrong == "dU one step early" else x[t - 1])
        g["b"] += da.sum(0) / (2 if wrong == "half of db" else 1)
        if after:
            g["bh"] += s.sum(0)
        g["V"] += dy[t - 1].T @ (before if wrong == "dV one step early" else h[t])
        g["c"] += dy[t - 1].sum(0)
        dx[t - 1] = da @ U
    dh[0] = carried
    return {**g, "x": dx, "h0": dh[0], "h": dh, "states": h}


BREAKS = (
    "sign", "transposed", "reset gate", "update path", "reset path", "update gate", "dW",
    "dU one step early", "half of db", "dV one step early",
)  # fmt: skip
# One of each family of the registry, but for those that are smaller than this rounding.
REGISTERED = (
    "W for its transpose", "h[t] for h[t-1] in dW", "dh0 left at zero", "1 - h", "no recurrence",
    "dh for da in dW", "factor 2 lost", "dc from the last step alone", "weight decay in dW",
    "last sequence alone",
)  # fmt: skip


# The table ---------------------------------------------------------------------------------------


def candidates(name):
    """Yield a cell, what is computed, whether it is right, and the candidate in an arithmetic."""
    yield "tanh", "the textbook", True, mistaken(name)
    yield "gru", "by hand", True, in_arithmetic(name, gru)
    yield "gru_reset_after", "by hand", True, in_arithmetic(name, partial(gru, after=True))
    for wrong in BREAKS:
        yield "gru", wrong, False, in_arithmetic(name, partial(gru, wrong=wrong))
    for wrong in REGISTERED:
        yield "tanh", wrong, False, mistaken(name, MISTAKES[wrong])


def rows(cases, seed, names):
    """Yield, for each arithmetic and candidate, how many of so many problems accuse it."""
    for name in names:
        judged = [*candidates(name)]
        for cell in dict.fromkeys(cell for cell, *_ in judged):
            own = [(what, right, f) for of, what, right, f in judged if of == cell]
            options = {"dtype": "float32", "arithmetic": name, "cell": cell}
            options |= {"batched": True, "no_longer": True}
            accused, worst = dict.fromkeys((what for what, *_ in own), 0), {}
            for chunk in solved(draw_problems(cases, seed, **options)):
                for what, _, candidate in own:
                    for verdicts, _ in judge_solved(candidate, chunk):
                        accused[what] += any(v.status in FAILURES for v in verdicts)
                        ratios = [r for v in verdicts for r in (v.ratio, v.local) if r is not None]
                        worst[what] = max([worst.get(what, 0.0), *ratios])
            for what, right, _ in own:
                yield name, cell, what, right, accused[what], worst[what]


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--problems", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--arithmetic", nargs="+", choices=ROUND, default=["tf32", "bfloat16"])
    given = parser.parse_args(arguments)
    found, good = {}, True
    for _, cell, what, right, accused, worst in rows(given.problems, given.seed, given.arithmetic):
        found.setdefault((cell, what), []).append(f"{accused} | {worst:.3g}")
        good = good and (accused == 0) == right
    print("| cell | gradient |", " | ".join(f"{k} | worst" for k in given.arithmetic), "|")
    print("|---|---|" + "---:|" * 2 * len(given.arithmetic))
    for (cell, what), columns in found.items():
        print(f"| {cell} | {what} | {' | '.join(columns)} |")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
