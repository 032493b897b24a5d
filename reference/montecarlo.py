"""Monte-Carlo arithmetic: what rounding alone can make of the result of any JAX function.

The function is traced, and run again with an error in every operation that rounds (Parker, 1997).
With u the unit roundoff and xi a random number from -2 to -1 or from 1 to 2, which no rounding
makes away with, for every entry of every array,

    an argument       x -> x (1 + u xi)
    an operation      z = f(...) -> z (1 + u xi)
    a sum of n terms  s = sum t -> s + u sqrt(n) xi sum |t|
    a factorisation   of a matrix whose entries have been changed like those of an argument

The third line is how the error of a sum grows, in whatever order (Higham and Mary, 2019); products
of matrices, convolutions, cumulative and scattered sums are sums. The fourth is what a backward
stable algorithm promises. Operations that move entries, compare them or change their signs do not
round, nor do sums, differences and products of whole numbers. Where the function computes in a
narrower precision than its arguments have, u is at least that of the operation.

Loops, branches and calls are followed into; an operation that is unknown here gets errors in its
results.
"""

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.extend.core import Literal, jaxpr_as_fun

RUNS = 8
DEVIATES = 32749  # so many xi in one run, a prime; when they are used up, they are used again
STRIDE = 1009  # by which an iteration of a loop starts further on than the one before
finfo: Any = jnp.finfo  # which knows bfloat16 too


def words(text: str) -> frozenset[str]:
    """Return the words of a text."""
    return frozenset(text.split())


EXACT = words("""
    abs broadcast_in_dim ceil clamp complex concatenate conj copy copy_p cummax cummin device_put
    dynamic_slice dynamic_update_slice empty empty2 expand_dims floor gather imag iota max min name
    neg optimization_barrier pad real reduce_max reduce_min reduce_window_max reduce_window_min
    reshape rev round scatter select_n sign slice sort split squeeze stack stop_gradient tile top_k
    transpose unstack
""")
EXACT_IN_WHOLE_NUMBERS = words("add sub mul")
SUMS = words("conv_general_dilated cumsum dot_general reduce_sum scatter-add")
FACTORISATIONS = words("""
    cholesky cholesky_update custom_linear_solve eig eigh ffi_call fft geqrf hessenberg
    householder_product lu ormqr pure_callback qr schur svd symmetric_product triangular_solve
    tridiagonal tridiagonal_solve
""")
CALLS = words("""
    checkpoint closed_call core_call core_closed_call custom_jvp_call custom_vjp_call
    custom_vjp_call_jaxpr jit pjit remat remat2
""")


class Noise:
    """Errors of operations, one after the other from a vector of deviates that starts again."""

    def __init__(self, deviates: Any, u: Any):
        self.deviates, self.u, self.used = deviates, u, 0

    def errors(self, like: Any) -> Any:
        """Return u xi for every entry of an array."""
        size, (many,) = math.prod(like.shape), self.deviates.shape
        if size > many:
            xi = jnp.resize(self.deviates, like.shape)
        else:
            start = self.used % (many - size + 1)
            xi = self.deviates[start : start + size].reshape(like.shape)
        self.used += size
        info = finfo(like.dtype)
        return (jnp.maximum(self.u, float(info.eps) / 2) * xi).astype(info.dtype)

    def rounded(self, value: Any, times: float = 1.0) -> Any:
        """Return value (1 + times u xi), if these are floating numbers."""
        return value * (1 + times * self.errors(value)) if _floating(value) else value

    def further(self, start: Any) -> "Noise":
        """Return the errors of an iteration, from the deviate with this number on."""
        twice = jnp.concatenate([self.deviates, self.deviates])
        return Noise(lax.dynamic_slice(twice, (start,), self.deviates.shape), self.u)


def perturbed(function: Callable[..., Any], *like: Any) -> Callable[..., list[Any]]:
    """Compile a JAX function that runs with errors in its operations, always the same ones.

    Parameters
    ----------
    function : callable
        What ``jax.make_jaxpr`` can trace: it takes arrays, or trees of them, and returns the like.
    like : trees of arrays
        Arguments like those that it will be called with. Call this, and what it returns, in
        ``jax.enable_x64(True)``.

    Returns
    -------
    callable
        ``runs(u, *arguments)`` returns the results of RUNS runs, with NumPy arrays as leaves. u is
        the unit roundoff whose effect is looked for; that of the computation is part of it.

    Examples
    --------
    >>> x = np.float64(0.01)
    >>> with jax.enable_x64(True):
    ...     results = perturbed(lambda x: (1 - jnp.cos(x)) / x**2, x)(2.0**-53, x)
    >>> bool(1e-12 < np.ptp(results) < 1e-11)  # the rounding of cos, divided by x**2
    True
    """
    traced, shapes = jax.make_jaxpr(function, return_shape=True)(*like)
    tree = jax.tree.structure(shapes)

    @jax.jit
    def run(deviates: Any, u: Any, leaves: list[Any]) -> list[Any]:
        noise = Noise(deviates, u)
        return _evaluate(traced, [noise.rounded(jnp.asarray(leaf)) for leaf in leaves], noise)

    def runs(u: float, *arguments: Any) -> list[Any]:
        rng = np.random.default_rng(0)
        found = []
        for _ in range(RUNS):
            xi = rng.uniform(1, 2, DEVIATES) * rng.choice([-1, 1], DEVIATES)
            leaves = run(xi, u, jax.tree.leaves(arguments))
            found.append(jax.tree.unflatten(tree, [np.asarray(leaf) for leaf in leaves]))
        return found

    return runs


def _evaluate(jaxpr: Any, arguments: Sequence[Any], noise: Noise) -> list[Any]:
    """Return the results of a jaxpr, closed or without constants, with errors."""
    body, consts = getattr(jaxpr, "jaxpr", jaxpr), getattr(jaxpr, "consts", ())
    values: dict[Any, Any] = dict(zip(body.constvars, consts, strict=True))
    values |= zip(body.invars, arguments, strict=True)

    def read(variable: Any) -> Any:
        if isinstance(variable, Literal):
            shaped: Any = variable.aval
            return jnp.asarray(variable.val, shaped.dtype)
        return values[variable]

    for equation in body.eqns:
        rule = RULES.get(equation.primitive.name, _operation)
        results = rule(equation, [read(v) for v in equation.invars], noise)
        values |= zip(equation.outvars, results, strict=True)
    return [read(v) for v in body.outvars]


# Rules: an equation of a jaxpr and its operands give the results with their errors ----------------


def _exact(equation: Any, operands: list[Any], _: Noise) -> list[Any]:
    results = equation.primitive.bind(*operands, **equation.params)
    return list(results) if equation.primitive.multiple_results else [results]


def _operation(equation: Any, operands: list[Any], noise: Noise) -> list[Any]:
    return [noise.rounded(z) for z in _exact(equation, operands, noise)]


def _exact_in_whole_numbers(equation: Any, operands: list[Any], noise: Noise) -> list[Any]:
    (z,) = _exact(equation, operands, noise)
    a, b = operands
    return [jnp.where(_whole(a) & _whole(b), z, noise.rounded(z))] if _floating(z) else [z]


def _conversion(equation: Any, operands: list[Any], noise: Noise) -> list[Any]:
    (z,) = _exact(equation, operands, noise)
    narrower = _floating(z) and jnp.promote_types(operands[0].dtype, z.dtype) != z.dtype
    return [noise.rounded(z) if narrower else z]


def _sum(equation: Any, operands: list[Any], noise: Noise) -> list[Any]:
    (z,) = _exact(equation, operands, noise)
    if not _floating(z):
        return [z]
    sizes = [abs(v).astype(v.dtype) if _floating(v) else v for v in operands]
    (terms,) = map(abs, _exact(equation, sizes, noise))
    error = math.sqrt(_count(equation)) * noise.errors(z) * terms
    return [z + jnp.where(jnp.isfinite(terms), error, 0).astype(z.dtype)]


def _count(equation: Any) -> Any:
    """Return how many terms make up an entry of a sum, at most."""
    first, *others = (tuple(v.aval.shape) for v in equation.invars)
    params = equation.params
    match equation.primitive.name:
        case "reduce_sum":
            return math.prod(first[axis] for axis in params["axes"])
        case "cumsum":
            return first[params["axis"]]
        case "dot_general":
            return math.prod(first[axis] for axis in params["dimension_numbers"][0][0])
        case "conv_general_dilated":
            outputs = others[0][params["dimension_numbers"].rhs_spec[0]]
            return math.prod(others[0]) // max(outputs, 1)
        case _:  # scatter-add: what was there, and one for each index
            return 1 + math.prod(others[0][:-1])


def _factorisation(equation: Any, operands: list[Any], noise: Noise) -> list[Any]:
    root = math.sqrt(max(v.shape[-1] if v.ndim else 1 for v in operands))
    return _operation(equation, [noise.rounded(v, root) for v in operands], noise)


def _call(equation: Any, operands: list[Any], noise: Noise) -> list[Any]:
    names = ("jaxpr", "call_jaxpr", "fun_jaxpr")
    body = next(equation.params[k] for k in names if k in equation.params)
    return _evaluate(body, operands, noise)


def _cond(equation: Any, operands: list[Any], noise: Noise) -> list[Any]:
    if equation.params.get("branches_platforms") is not None:
        return _operation(equation, operands, noise)

    def follow(branch: Any, *operands: Any) -> list[Any]:
        return _evaluate(branch, operands, noise)

    branches = [partial(follow, branch) for branch in equation.params["branches"]]
    return list(lax.switch(operands[0], branches, *operands[1:]))


def _scan(equation: Any, operands: list[Any], noise: Noise) -> list[Any]:
    params = equation.params
    n, length = params["num_consts"], params["length"]
    m = n + params["num_carry"]

    def body(carry: list[Any], inputs: Any) -> tuple[list[Any], list[Any]]:
        start, x = inputs
        step = noise.further(start)
        results = _evaluate(params["jaxpr"], [*operands[:n], *carry, *x], step)
        return results[: m - n], results[m - n :]

    starts = np.arange(1, length + 1) * STRIDE % DEVIATES
    inputs = (starts, operands[m:])
    carry, y = lax.scan(body, operands[n:m], inputs, length, reverse=params["reverse"])
    return [*carry, *y]


def _while(equation: Any, operands: list[Any], noise: Noise) -> list[Any]:
    params = equation.params
    n = params["cond_nconsts"]
    m = n + params["body_nconsts"]

    def goes_on(state: Any) -> Any:
        return jaxpr_as_fun(params["cond_jaxpr"])(*operands[:n], *state[1])[0]

    def body(state: Any) -> Any:
        start, carry = state
        results = _evaluate(params["body_jaxpr"], [*operands[n:m], *carry], noise.further(start))
        return (start + STRIDE) % DEVIATES, results

    state = (jnp.asarray(STRIDE), operands[m:])
    return list(lax.while_loop(goes_on, body, state)[1])


def narrow_precisions(function: Callable[..., Any], *arguments: Any) -> list[str]:
    """Return the names of the floating dtypes below float64 in which a JAX function computes."""
    waiting, found = [jax.make_jaxpr(function)(*arguments).jaxpr], set()
    while waiting:
        for equation in waiting.pop().eqns:
            for value in jax.tree.leaves(list(equation.params.values()), is_leaf=_is_jaxpr):
                waiting += [getattr(value, "jaxpr", value)] if _is_jaxpr(value) else []
            dtypes = [getattr(v.aval, "dtype", None) for v in equation.outvars]
            found |= {d.name for d in dtypes if d is not None and jnp.issubdtype(d, jnp.floating)}
    return sorted(found - {"float64"})


def _is_jaxpr(value: Any) -> bool:
    return hasattr(value, "eqns")


def _floating(value: Any) -> bool:
    return bool(jnp.issubdtype(value.dtype, jnp.inexact))


def _whole(value: Any) -> Any:
    return value == jnp.round(value)


RULES: dict[str, Callable[[Any, list[Any], Noise], list[Any]]] = {
    **dict.fromkeys(EXACT, _exact),
    **dict.fromkeys(EXACT_IN_WHOLE_NUMBERS, _exact_in_whole_numbers),
    **dict.fromkeys(SUMS, _sum),
    **dict.fromkeys(FACTORISATIONS, _factorisation),
    **dict.fromkeys(CALLS, _call),
    "convert_element_type": _conversion,
    "cond": _cond,
    "scan": _scan,
    "while": _while,
}
