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

Where an arithmetic is declared (``reference.rounding.formats``), the factors of products, and what
is kept as a state, get errors of its formats on top. These depend on the number alone, as rounding
does: an array that is used at every step is rounded to the same numbers at every step. A number of
the format itself, up to a few u, has no such error.

Loops, branches and calls are followed into; an operation that is unknown here gets errors in its
results.
"""

import math
from collections.abc import Callable, Collection, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from reference import jaxprs
from reference.jaxprs import Branches, Call, Scan, Tiered, While, computed
from reference.rounding.formats import FORMATS, PLAIN, Arithmetic, Format
from reference.rounding.tolerance import RUNS

DEVIATES = 32749  # number of xi in a run, a prime; when they are used up, they are used again
NEAR = 8.0  # units of roundoff: a number so near to one of a format is one of it
ASTRAY = 4.0  # times the largest effect of errors: so far apart are no two right results
STRIDE = 1009  # by which an iteration of a loop starts further on than the one before
finfo: Any = jnp.finfo  # which knows bfloat16 too


class Noise:
    """Errors of operations, one after the other from a vector of deviates that starts again."""

    def __init__(self, deviates: Any, u: Any, arithmetic: Arithmetic = PLAIN):
        self.deviates, self.u, self.arithmetic, self.used = deviates, u, arithmetic, 0

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

    def iterations(self) -> Callable[[Any], "Noise"]:
        """Return a function to the errors of an iteration from the number of its first deviate."""
        twice = jnp.concatenate([self.deviates, self.deviates])

        def further(start: Any) -> "Noise":
            deviates = lax.dynamic_slice(twice, (start,), self.deviates.shape)
            return Noise(deviates, self.u, self.arithmetic)

        return further

    def narrowed(self, value: Any, form: Format | None) -> Any:
        """Return an array with the errors of rounding it to a format, if one is declared."""
        if form is None or not _floating(value):
            return value
        if jnp.iscomplexobj(value):
            return lax.complex(*(self.narrowed(part, form) for part in (value.real, value.imag)))
        size = jnp.abs(value)
        there = jnp.abs(value - form.nearest(value)) <= NEAR * self.u * size
        error = jnp.maximum(form.u * size, form.spacing / 2) * _of_numbers(value, self.deviates[0])
        error = jnp.where(size <= form.largest, jnp.where(there, 0, error), jnp.inf)
        return value + error.astype(value.dtype)

    def kept(self, value: Any) -> Any:
        """Return a state with the errors of keeping it."""
        return self.narrowed(value, self.arithmetic.states)

    def results(self, equation: Any, operands: list[Any]) -> list[Any]:
        """Return the results of an equation with their errors."""
        if jaxprs.name(equation) in jaxprs.PRODUCTS:
            operands = [self.narrowed(v, self.arithmetic.factors) for v in operands]
        return RULES.get(jaxprs.name(equation), _operation)(equation, operands, self)


class RoundedFactors(NamedTuple):
    """What some processors do: the factors of products rounded to a format."""

    form: Format

    def iterations(self) -> Callable[[Any], "RoundedFactors"]:
        """Return a function to what happens in an iteration: the same."""
        return lambda _: self

    def kept(self, value: Any) -> Any:
        """Return a state as it is."""
        return value

    def results(self, equation: Any, operands: list[Any]) -> list[Any]:
        """Return the results of an equation."""
        if jaxprs.name(equation) in jaxprs.PRODUCTS:
            operands = [self.form.nearest(v) if _floating(v) else v for v in operands]
        return computed(equation, operands)


Interpreter = Noise | RoundedFactors


def perturbed(
    function: Callable[..., Any], *like: Any, arithmetic: Arithmetic = PLAIN
) -> Callable[..., list[Any]]:
    """Make a JAX function run with errors in its operations, always the same ones.

    Parameters
    ----------
    function : callable
        What JAX can trace: it takes arrays, or trees of them, and returns the like.
    like : trees of arrays
        Arguments like those that it will be called with. Call this, and what it returns, in
        ``jax.enable_x64(True)``.
    arithmetic : Arithmetic
        The formats of factors and of states; a state is what a loop carries from step to step.

    Returns
    -------
    callable
        ``runs(u, *arguments)`` returns the results of RUNS runs, with NumPy arrays as leaves. u is
        the unit roundoff whose effect is looked for; that of the computation is part of it. With
        ``right=``, the results that XLA computes, those of NumPy without errors have to be as near
        to them as results with errors are; where they are not, XLA computes those too.

    Examples
    --------
    >>> x = np.float64(0.01)
    >>> with jax.enable_x64(True):
    ...     results = perturbed(lambda x: (1 - jnp.cos(x)) / x**2, x)(2.0**-53, x)
    >>> bool(1e-12 < np.ptp(results) < 1e-11)  # the rounding of cos, divided by x**2
    True
    """
    jaxpr, tree = jaxprs.traced(function, *like)

    def noisy(deviates: Any, u: Any, leaves: list[Any]) -> list[Any]:
        noise = Noise(deviates, u, arithmetic)
        return evaluate(jaxpr, [noise.rounded(jnp.asarray(leaf)) for leaf in leaves], noise)

    run = Tiered(noisy, np.zeros(DEVIATES), 0.0, jax.tree.leaves(like))

    def once(xi: np.ndarray, u: float, arguments: Any) -> list[np.ndarray]:
        return [np.asarray(leaf) for leaf in run(xi, u, jax.tree.leaves(arguments))]

    def runs(u: float, *arguments: Any, right: Any = None) -> list[Any]:
        rng = np.random.default_rng(0)
        xi = [rng.uniform(1, 2, DEVIATES) * rng.choice([-1, 1], DEVIATES) for _ in range(RUNS)]
        found = [once(errors, u, arguments) for errors in xi]
        if right is not None and not run.compiled:
            plain = once(np.zeros(DEVIATES), u, arguments)
            if any(map(_astray, plain, zip(*found, strict=True), jax.tree.leaves(right))):
                run.compile()
                found = [once(errors, u, arguments) for errors in xi]
        return [jax.tree.unflatten(tree, leaves) for leaves in found]

    return runs


def _astray(plain: np.ndarray, noisy: tuple[np.ndarray, ...], right: np.ndarray) -> bool:
    """Return whether results of NumPy lie further from those of XLA than errors can take them."""
    off, spread = apart(plain, right, np), max(apart(one, plain, np) for one in noisy)
    return bool(off > ASTRAY * spread)


def apart(a: Any, b: Any, xp: Any = jnp) -> Any:
    """Return how far arrays lie apart: not at all where both are NaN, and infinitely where one is.

    Examples
    --------
    >>> nan, inf = np.nan, np.inf
    >>> [float(apart(np.array(a), np.array(b), np)) for a, b in ((1, 3), (inf, inf), (nan, nan))]
    [2.0, 0.0, 0.0]
    >>> float(apart(np.array(nan), np.array(3.0), np))
    inf
    """
    same = (a == b) | (xp.isnan(a) & xp.isnan(b))
    size = xp.abs(xp.where(same, 0, a) - xp.where(same, 0, b))
    return xp.max(xp.where(xp.isnan(size), xp.inf, size), initial=0)


def with_rounded_factors(function: Callable[..., Any], *like: Any) -> Callable[..., Any]:
    """Make a JAX function in which the factors of every product are rounded to nearest.

    ``run(form, *arguments)`` returns its results, for a ``Format``, with NumPy arrays as leaves.
    Call this, and what it returns, in ``float64_on_cpu``. The function is one of real numbers.

    Examples
    --------
    >>> from reference.rounding.formats import FORMATS
    >>> x = np.array([1 + 2.0**-10, 1.0])
    >>> with jax.enable_x64(True):
    ...     run = with_rounded_factors(jnp.dot, x, x)
    ...     print(run(FORMATS["tf32"], x, x) == x @ x, run(FORMATS["bfloat16"], x, x))
    True 2.0
    """
    jaxpr, tree = jaxprs.traced(function, *like)

    def with_factors(form: Format, leaves: list[Any]) -> list[Any]:
        return evaluate(jaxpr, list(map(jnp.asarray, leaves)), RoundedFactors(form))

    rounded = Tiered(with_factors, next(iter(FORMATS.values())), jax.tree.leaves(like))

    def run(form: Format, *arguments: Any) -> Any:
        leaves = rounded(form, jax.tree.leaves(arguments))
        return jax.tree.unflatten(tree, [np.asarray(leaf) for leaf in leaves])

    return run


def evaluate(
    jaxpr: Any, arguments: Sequence[Any], noise: Interpreter, states: Collection[Any] = ()
) -> list[Any]:
    """Return the results of a jaxpr with errors; ``states`` are its variables that hold states."""

    def with_errors(equation: Any, operands: list[Any]) -> list[Any]:
        found = jaxprs.inside(equation)
        results = (
            noise.results(equation, operands) if found is None else _follow(found, operands, noise)
        )
        kept = zip(equation.outvars, results, strict=True)
        return [noise.kept(value) if v in states else value for v, value in kept]

    return jaxprs.evaluate(jaxpr, arguments, with_errors)


# Loops, branches and calls -----------------------------------------------------------------------


def _follow(
    found: Call | Branches | Scan | While, operands: list[Any], noise: Interpreter
) -> list[Any]:
    match found:
        case Call(body):
            return evaluate(body, operands, noise)
        case Branches(bodies):
            return _branches(bodies, operands, noise)
        case Scan():
            return _scan(found, operands, noise)
        case While():
            return _while(found, operands, noise)


def _branches(bodies: tuple[Any, ...], operands: list[Any], noise: Interpreter) -> list[Any]:
    def follow(body: Any, *operands: Any) -> list[Any]:
        return evaluate(body, operands, noise)

    return list(lax.switch(operands[0], [partial(follow, b) for b in bodies], *operands[1:]))


def _scan(loop: Scan, operands: list[Any], noise: Interpreter) -> list[Any]:
    n, m = loop.same, loop.same + loop.carried
    states, further = jaxprs.states(loop), noise.iterations()

    def body(carry: list[Any], inputs: Any) -> tuple[list[Any], list[Any]]:
        start, x = inputs
        body = [*operands[:n], *carry, *x]
        results = evaluate(loop.body, body, further(start), states)
        return results[: m - n], results[m - n :]

    starts = np.arange(1, loop.length + 1) * STRIDE % DEVIATES
    inputs = (starts, operands[m:])
    carry, y = lax.scan(body, operands[n:m], inputs, loop.length, reverse=loop.reverse)
    return [*carry, *y]


def _while(loop: While, operands: list[Any], noise: Interpreter) -> list[Any]:
    n, m = loop.of_condition, loop.of_condition + loop.of_body
    further = noise.iterations()

    def going_on(carry: Any) -> Any:
        return jaxprs.evaluate(loop.condition, [*operands[:n], *carry], computed)[0]

    def goes_on(state: Any) -> Any:
        return jnp.any(going_on(state[1]))

    def body(state: Any) -> Any:
        start, carry = state
        results = evaluate(loop.body, [*operands[n:m], *carry], further(start))
        there = going_on(carry)  # of several loops at once, some may have ended
        ends = (there.reshape(there.shape + (1,) * (r.ndim - there.ndim)) for r in results)
        kept = [jnp.where(e, r, c) for e, r, c in zip(ends, results, carry, strict=True)]
        return (start + STRIDE) % DEVIATES, kept if there.ndim else results

    state = (jnp.asarray(STRIDE), operands[m:])
    return list(lax.while_loop(goes_on, body, state)[1])


# Rules: an equation of a jaxpr and its operands give the results with their errors ----------------


def _exact(equation: Any, operands: list[Any], _: Noise) -> list[Any]:
    return computed(equation, operands)


def _operation(equation: Any, operands: list[Any], noise: Noise) -> list[Any]:
    return [noise.rounded(z) for z in computed(equation, operands)]


def _exact_in_whole_numbers(equation: Any, operands: list[Any], noise: Noise) -> list[Any]:
    (z,) = computed(equation, operands)
    a, b = operands
    return [jnp.where(_whole(a) & _whole(b), z, noise.rounded(z))] if _floating(z) else [z]


def _conversion(equation: Any, operands: list[Any], noise: Noise) -> list[Any]:
    (z,) = computed(equation, operands)
    narrower = _floating(z) and jnp.promote_types(operands[0].dtype, z.dtype) != z.dtype
    return [noise.rounded(z) if narrower else z]


def _sum(equation: Any, operands: list[Any], noise: Noise) -> list[Any]:
    (z,) = computed(equation, operands)
    if not _floating(z):
        return [z]
    sizes = [abs(v).astype(v.dtype) if _floating(v) else v for v in operands]
    (terms,) = map(abs, computed(equation, sizes))
    error = math.sqrt(jaxprs.terms(equation)) * noise.errors(z) * terms
    return [z + jnp.where(jnp.isfinite(terms), error, 0).astype(z.dtype)]


def _factorisation(equation: Any, operands: list[Any], noise: Noise) -> list[Any]:
    root = math.sqrt(max(v.shape[-1] if v.ndim else 1 for v in operands))
    return _operation(equation, [noise.rounded(v, root) for v in operands], noise)


def narrow_precisions(function: Callable[..., Any], *arguments: Any) -> list[str]:
    """Return the names of the floating dtypes below float64 in which a JAX function computes."""
    found = set()
    for equation in jaxprs.equations(jaxprs.traced(function, *arguments)[0]):
        dtypes = [getattr(v.aval, "dtype", None) for v in equation.outvars]
        found |= {d.name for d in dtypes if d is not None and jnp.issubdtype(d, jnp.floating)}
    return sorted(found - {"float64"})


def keeps_states(function: Callable[..., Any], *arguments: Any) -> bool:
    """Return whether a loop of a JAX function carries a state from step to step."""
    found = map(jaxprs.inside, jaxprs.equations(jaxprs.traced(function, *arguments)[0]))
    return any(jaxprs.states(loop) for loop in found if isinstance(loop, Scan))


def unknown_operations(function: Callable[..., Any], *arguments: Any) -> dict[str, str]:
    """Return {name: where it is used} of the operations of a JAX function with no rule here."""
    found: dict[str, str] = {}
    for equation in jaxprs.equations(jaxprs.traced(function, *arguments)[0]):
        if jaxprs.name(equation) not in jaxprs.KNOWN:
            found.setdefault(jaxprs.name(equation), jaxprs.line(equation))
    return found


def _floating(value: Any) -> bool:
    return bool(jnp.issubdtype(value.dtype, jnp.inexact))


def _whole(value: Any) -> Any:
    return value == jnp.round(value)


def _of_numbers(value: Any, key: Any) -> Any:
    """Return xi for every entry of an array, always the same for a number and a key."""
    bits, key = (lax.bitcast_convert_type(jnp.float64(v), jnp.uint64) for v in (value, key))
    for shift, factor in ((32, 0x9E3779B97F4A7C15), (29, 0xBF58476D1CE4E5B9)):  # splitmix64's
        bits = (bits ^ key ^ (bits >> shift)) * np.uint64(factor)
    bits ^= bits >> 32
    size = 1 + (bits >> 12).astype(jnp.float64) * 2.0**-52
    return jnp.where(bits & 1 == 0, size, -size)


RULES: dict[str, Callable[[Any, list[Any], Noise], list[Any]]] = {
    **dict.fromkeys(jaxprs.EXACT, _exact),
    **dict.fromkeys(jaxprs.EXACT_IN_WHOLE_NUMBERS, _exact_in_whole_numbers),
    **dict.fromkeys(jaxprs.SUMS, _sum),
    **dict.fromkeys(jaxprs.FACTORISATIONS, _factorisation),
    jaxprs.CONVERSION: _conversion,
}
