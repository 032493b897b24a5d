"""Rules of the reverse pass: what each operation sends to its operands.

A rule takes an equation, what has arrived, the operands, the result and the operand's number.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from reference import jaxprs
from reference.breaks.tape import Node, Tape, UnsearchableError
from reference.devices import float64_on_cpu

LARGEST_JACOBIAN = 1_000_000  # entries, of an operation that has no rule here


def sent(tape: Tape, node: Node, g: Any, operands: list[Any], result: Any, k: int) -> np.ndarray:
    """Return what an operation sends to operand k."""
    slope = SLOPES.get(node.name)
    if slope is not None:
        return np.asarray(g * slope(operands[0], result))
    rule = RULES.get(node.name)
    if rule is not None:
        return rule(node.equation, g, operands, result, k)
    if node.name in jaxprs.MOVES:
        return scattered(g, source_of(tape, node, k), operands[k].shape)
    return _by_jacobian(g, jacobian_of(tape, node, k), operands[k].shape)


def fit(g: np.ndarray, like: Any) -> Any:
    """Undo a broadcast: a number stands for an array in equations of JAX."""
    shape = np.shape(like)
    if g.shape[1:] == shape:
        return g
    if shape == ():
        return g.reshape(len(g), -1).sum(1)
    axes = tuple(i + 1 for i, n in enumerate(shape) if n == 1 and g.shape[i + 1] != 1)
    return g.sum(axes, keepdims=True)


def product(equation: Any, g: np.ndarray, other: np.ndarray, k: int) -> Any:
    """Send back through a product: what arrived times the other factor, which may have versions."""
    axes = jaxprs.axes_of_product(equation)
    out, mine, theirs = axes[2], axes[k], axes[1 - k]
    every = max([*out, *mine, *theirs], default=0) + 1
    if other.ndim > len(theirs):
        return np.einsum(g, [every, *out], other, [every, *theirs], [every, *mine])
    if other.ndim == 2 and g.ndim == 2 and len(mine) == 1:  # a vector, seen through a matrix
        return g @ (other if theirs[0] == out[0] else other.T)
    return np.einsum(g, [every, *out], other, theirs, [every, *mine])


def _add(_: Any, g: Any, xs: Any, y: Any, k: int) -> Any:
    return fit(g, xs[k])


def _sub(_: Any, g: Any, xs: Any, y: Any, k: int) -> Any:
    return fit(-g if k else g, xs[k])


def _mul(_: Any, g: Any, xs: Any, y: Any, k: int) -> Any:
    return fit(g * xs[1 - k], xs[k])


def _div(_: Any, g: Any, xs: Any, y: Any, k: int) -> Any:
    return fit(-g * y / xs[1] if k else g / xs[1], xs[k])


def _integer_power(equation: Any, g: Any, xs: Any, y: Any, k: int) -> np.ndarray:
    n = jaxprs.exponent(equation)
    return np.asarray(g * (n * xs[0] ** float(n - 1)))


def _power(_: Any, g: Any, xs: Any, y: Any, k: int) -> Any:
    slope = np.log(xs[0]) * y if k else xs[1] * xs[0] ** (xs[1] - 1)
    return fit(g * slope, xs[k])


def _extreme(_: Any, g: Any, xs: Any, y: Any, k: int) -> Any:
    return fit(g * ((xs[k] == y) / (1.0 + (xs[0] == xs[1]))), xs[k])


def _choice(_: Any, g: Any, xs: Any, y: Any, k: int) -> Any:
    return fit(g * (xs[0].astype(int) == k - 1), xs[k])


def _dot(equation: Any, g: Any, xs: Any, y: Any, k: int) -> Any:
    return product(equation, g, xs[1 - k], k)


def _spread(equation: Any, g: Any, xs: Any, y: Any, k: int) -> np.ndarray:
    axes = jaxprs.axes(equation)
    return np.broadcast_to(np.expand_dims(g, [a + 1 for a in axes]), (len(g), *xs[0].shape))


def _spread_to_extreme(equation: Any, g: Any, xs: Any, y: Any, k: int) -> Any:
    axes = jaxprs.axes(equation)
    there = xs[0] == np.expand_dims(y, axes)
    return _spread(equation, g, xs, y, k) * (there / there.sum(axes, keepdims=True))


def _broadcast(equation: Any, g: Any, xs: Any, y: Any, k: int) -> Any:
    dims = jaxprs.broadcast_dimensions(equation)
    g = g.sum(tuple(a + 1 for a in range(y.ndim) if a not in dims))
    return fit(g, xs[0])


def _reshape(_: Any, g: Any, xs: Any, y: Any, k: int) -> np.ndarray:
    return np.asarray(g.reshape(len(g), *xs[0].shape))


def _concatenate(equation: Any, g: Any, xs: Any, y: Any, k: int) -> np.ndarray:
    axis = jaxprs.axis(equation)
    start = sum(x.shape[axis] for x in xs[:k])
    return np.asarray(g[(slice(None),) * (axis + 1) + (slice(start, start + xs[k].shape[axis]),)])


def _split(equation: Any, g: Any, xs: Any, y: Any, k: int) -> np.ndarray:
    rows = max(map(len, g))
    parts = [np.broadcast_to(a, (rows, *a.shape[1:])) for a in g]
    return np.concatenate(parts, jaxprs.axis(equation) + 1)


def _transpose(equation: Any, g: Any, xs: Any, y: Any, k: int) -> np.ndarray:
    order = np.argsort(jaxprs.permutation(equation))
    return np.asarray(g.transpose(0, *(order + 1)))


def _slice(equation: Any, g: Any, xs: Any, y: Any, k: int) -> np.ndarray:
    found = np.zeros((len(g), *xs[0].shape))
    found[(slice(None), *jaxprs.slices(equation))] = g
    return found


def _cumulative(equation: Any, g: Any, xs: Any, y: Any, k: int) -> np.ndarray:
    axis = jaxprs.axis(equation) + 1
    if jaxprs.backwards(equation):
        return np.cumsum(g, axis)
    return np.flip(np.cumsum(np.flip(g, axis), axis), axis)


def _same(_: Any, g: Any, xs: Any, y: Any, k: int) -> np.ndarray:
    return np.asarray(g)


def _nothing(_: Any, g: Any, xs: Any, y: Any, k: int) -> np.ndarray:
    return np.zeros((1, *np.shape(xs[k])))


def source_of(tape: Tape, node: Node, k: int) -> np.ndarray:
    """Return which entry of operand k each entry of a result is; -1 for those of other operands."""
    found = tape.derivatives.get((node.out, k))
    if found is None:
        numbers = []
        for j, i in enumerate(node.ins):
            x = tape.values[i]
            if not np.issubdtype(x.dtype, np.floating):
                numbers.append(x)  # an index
            else:
                own = np.arange(x.size, dtype=float).reshape(x.shape)
                numbers.append(own if j == k else np.full(x.shape, -1.0))
        with float64_on_cpu():
            (moved,) = jaxprs.computed(node.equation, numbers)
        found = np.nan_to_num(np.asarray(moved), nan=-1).astype(int)
        tape.derivatives[node.out, k] = found
    return found


def scattered(g: np.ndarray, source: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Add up entries where they came from."""
    there = source.ravel() >= 0
    found = np.zeros((int(np.prod(shape)), len(g)))
    np.add.at(found, source.ravel()[there], g.reshape(len(g), -1)[:, there].T)
    return np.asarray(found.T.reshape(len(g), *shape))


def jacobian_of(tape: Tape, node: Node, k: int) -> np.ndarray:
    """Return the Jacobian of an operation that has no rule here: JAX has its derivative."""
    found = tape.derivatives.get((node.out, k))
    operands = [tape.values[i] for i in node.ins]
    if found is None and jaxprs.helps_only(node.equation, k):
        size = sum(np.size(tape.values[out]) for out in node.outs)
        found = tape.derivatives[node.out, k] = np.zeros((size, operands[k].size))
    if found is None:
        size = sum(np.size(tape.values[out]) for out in node.outs)
        if size * operands[k].size > LARGEST_JACOBIAN:
            where = f"{node.name} ({jaxprs.line(node.equation)})"
            raise UnsearchableError(f"there is no rule for the derivative of {where}")

        compiled = tape.program.compiled.get((node.key, k))
        if compiled is None:
            with float64_on_cpu():
                slopes_of = jax.jacrev(partial(_floating_results, node.equation, k))
                compiled = jaxprs.Tiered(slopes_of, operands[k], operands)
            tape.program.compiled[node.key, k] = compiled
        slopes = compiled(operands[k], operands)
        found = np.asarray(slopes).reshape(-1, operands[k].size)
        tape.derivatives[node.out, k] = found
    return found


def _floating_results(equation: Any, k: int, x: Any, operands: list[Any]) -> Any:
    """Return the results of an operation with x for operand k, in one vector."""
    results = jaxprs.computed(equation, [x if j == k else o for j, o in enumerate(operands)])
    floating = (r for r in results if jnp.issubdtype(r.dtype, jnp.floating))
    return jnp.concatenate([jnp.ravel(r) for r in floating])


def _by_jacobian(g: Any, jacobian: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    arrived = g if isinstance(g, list) else [g]
    rows = max(map(len, arrived))
    flat = [np.broadcast_to(a.reshape(len(a), -1), (rows, a[0].size)) for a in arrived]
    return np.asarray((np.concatenate(flat, axis=1) @ jacobian).reshape(rows, *shape))


SLOPES: dict[str, Callable[[Any, Any], Any]] = {
    "tanh": lambda x, y: 1 - y * y,
    "logistic": lambda x, y: y * (1 - y),
    "exp": lambda x, y: y,
    "expm1": lambda x, y: y + 1,
    "log": lambda x, y: 1 / x,
    "log1p": lambda x, y: 1 / (1 + x),
    "sqrt": lambda x, y: 0.5 / y,
    "rsqrt": lambda x, y: -0.5 * y**3,
    "neg": lambda x, y: -1.0,
    "square": lambda x, y: 2 * x,
    "sin": lambda x, y: np.cos(x),
    "cos": lambda x, y: -np.sin(x),
    "abs": lambda x, y: np.sign(x),
}
"""The derivative of a function of single numbers, at x and with the value y."""

RULES: dict[str, Callable[..., np.ndarray]] = {
    "add": _add, "add_any": _add, "sub": _sub, "mul": _mul, "div": _div,
    "integer_pow": _integer_power, "pow": _power, "max": _extreme, "min": _extreme,
    "select_n": _choice, "dot_general": _dot, "reduce_sum": _spread,
    "reduce_max": _spread_to_extreme, "reduce_min": _spread_to_extreme,
    "broadcast_in_dim": _broadcast, "reshape": _reshape, "squeeze": _reshape,
    "expand_dims": _reshape, "concatenate": _concatenate, "split": _split,
    "transpose": _transpose, "slice": _slice, "cumsum": _cumulative, "convert_element_type": _same,
    "copy": _same, "copy_p": _same, "stop_gradient": _nothing, "sign": _nothing, "floor": _nothing,
    "round": _nothing, "ceil": _nothing,
}  # fmt: skip
"""The other rules, by the name of the primitive."""
