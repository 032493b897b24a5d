"""Jaxprs: tracing a function, what is inside of an equation, and carrying it out.

How much of the operands of a loop is carried from step to step is read off shapes, which every
version has.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.extend.core import Literal, Primitive

from reference.jaxprs.operations import CALLS, CONVERSION, name, ndim


class Call(NamedTuple):
    """A function that is called as it is: jit, checkpoint, one with derivatives of its own."""

    body: Any


class Branches(NamedTuple):
    """Functions of which the first operand chooses one, for the others."""

    bodies: tuple[Any, ...]


class Scan(NamedTuple):
    """A loop over ``length`` steps, from the last one if ``reverse``.

    The body is called with what is the same at every step, ``same`` values, with what is carried,
    ``carried`` values, and with a slice of each of the other operands. It returns what is carried
    on, and slices of the results.
    """

    body: Any
    same: int
    carried: int
    length: int
    reverse: bool


class While(NamedTuple):
    """A loop that goes on while ``condition`` is true of what is carried.

    The first ``of_condition`` operands are the condition's own, the next the body's.
    """

    condition: Any
    body: Any
    of_condition: int
    of_body: int


def traced(function: Callable[..., Any], *like: Any) -> tuple[Any, Any]:
    """Return the jaxpr of a function, and the tree of what it returns.

    Parameters
    ----------
    function : callable
        What JAX can trace: it takes arrays, or trees of them, and returns the like.
    like : trees of arrays
        Arguments like those that it is called with.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> from reference.jaxprs import ROUNDED
    >>> jaxpr, tree = traced(lambda x: {"y": jnp.tanh(x) + 1}, 0.5)
    >>> [(name(e), name(e) in ROUNDED) for e in equations(jaxpr)], tree.num_leaves
    ([('tanh', True), ('add', False)], 1)
    """
    jaxpr, shapes = jax.make_jaxpr(function, return_shape=True)(*like)
    return jaxpr, jax.tree.structure(shapes)


def unrolled(function: Callable[..., Any], *like: Any) -> Any:
    """Return the jaxpr of a function in which loops are unrolled, and calls are followed into.

    Loops and branches remain where traced values decide on them.

    Examples
    --------
    >>> def total(x):
    ...     return jax.lax.fori_loop(0, 3, lambda _, y: jax.jit(lambda z: 2 * z)(y), x)
    >>> [name(e) for e in unrolled(total, 1.0).eqns]
    ['mul', 'mul', 'mul']
    """
    with jax.disable_jit():
        return jax.make_jaxpr(function)(*like)


def inside(equation: Any) -> Call | Branches | Scan | While | None:
    """Return what is inside of an equation, and None if it computes something by itself.

    Raises
    ------
    NotImplementedError
        If a loop or a call does not look like one of any known version of JAX.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> steps = jnp.ones((5, 2))
    >>> def doubled(h):
    ...     return jax.lax.scan(lambda h, x: (2 * h + x, h), h, steps)
    >>> jaxpr, _ = traced(doubled, jnp.ones(2))
    >>> found = [inside(e) for e in equations(jaxpr) if name(e) == "scan"][0]
    >>> found.same, found.carried, found.length
    (0, 1, 5)
    """
    params = equation.params
    try:
        match name(equation):
            case "scan":
                return _scan(equation)
            case "while":
                jaxprs = params["cond_jaxpr"], params["body_jaxpr"]
                return While(*jaxprs, params["cond_nconsts"], params["body_nconsts"])
            case "cond" if params.get("branches_platforms") is None:
                return Branches(tuple(params["branches"]))
            case called if called in CALLS:
                names = ("jaxpr", "call_jaxpr", "fun_jaxpr")
                return Call(next(params[k] for k in names if k in params))
    except (KeyError, StopIteration):
        raise NotImplementedError(
            f"JAX {jax.__version__} writes {name(equation)} in a way that is not known here: "
            f"its parameters are {', '.join(sorted(params))}"
        ) from None
    return None


def _scan(equation: Any) -> Scan:
    params = equation.params
    body = plain(params["jaxpr"])
    # What is scanned over, or stacked up, has one axis more outside of the body than within.
    sliced = [ndim(o) > ndim(i) for o, i in zip(equation.invars, body.invars, strict=True)]
    stacked = [ndim(o) > ndim(i) for o, i in zip(equation.outvars, body.outvars, strict=True)]
    carried = stacked.count(False)
    same = sliced.count(False) - carried
    return Scan(params["jaxpr"], same, carried, params["length"], params["reverse"])


def equations(jaxpr: Any) -> Iterator[Any]:
    """Yield the equations of a jaxpr and those within them."""
    waiting = [jaxpr]
    while waiting:
        for equation in plain(waiting.pop()).eqns:
            yield equation
            params = jax.tree.leaves(list(equation.params.values()), is_leaf=_is_jaxpr)
            waiting += filter(_is_jaxpr, params)


def numbers(jaxpr: Any) -> Iterator[tuple[Any, Any]]:
    """Yield the numbers that stand in a jaxpr, or come from outside, each with its first equation.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> jaxpr = traced(lambda x: jnp.float32(0.3) * x + 1, 0.5)[0]
    >>> [(float(number), name(equation)) for number, equation in numbers(jaxpr)]
    [(0.30000001192092896, 'mul'), (1.0, 'add')]
    """
    outside = dict(zip(plain(jaxpr).constvars, getattr(jaxpr, "consts", ()), strict=False))
    for equation in equations(jaxpr):
        for variable in equation.invars:
            if isinstance(variable, Literal):
                yield variable.val, equation
            elif variable in outside:
                yield outside.pop(variable), equation


def states(loop: Scan) -> set[Any]:
    """Return the variables of the body of a loop that hold a state, or the gradient in one.

    A state is what is carried on, unless it is only added to, as a sum over the steps is. The
    gradient in it is what comes back from the next step with all that autodiff adds to it.

    Examples
    --------
    >>> def summed(h):
    ...     def step(carried, _):
    ...         h, total = carried
    ...         return (2 * h, total + h), None
    ...     return jax.lax.scan(step, (h, 0.0), length=5)[0]
    >>> jaxpr, _ = traced(summed, 1.0)
    >>> [len(states(inside(e))) for e in equations(jaxpr) if name(e) == "scan"]
    [1]
    """
    body = plain(loop.body)
    made = {v for equation in body.eqns for v in equation.outvars}
    before = body.invars[loop.same : loop.same + loop.carried]
    found = []
    for old, new in zip(before, body.outvars[: loop.carried], strict=True):
        if _followed(old, body, {"add", "add_any", CONVERSION}) is not new:
            found += [new, _followed(old, body, {"add_any", CONVERSION})]
    return {v for v in found if not isinstance(v, Literal) and v in made}


def _followed(variable: Any, body: Any, names: set[str]) -> Any:
    """Return what a variable becomes by operations of these names, as long as it is used once."""
    while True:
        users = [e for e in body.eqns for v in e.invars if v is variable]
        returned = any(v is variable for v in body.outvars)
        if len(users) != 1 or name(users[0]) not in names or returned:
            return variable
        (variable,) = users[0].outvars


def evaluate(
    jaxpr: Any,
    arguments: Sequence[Any],
    rule: Callable[[Any, list[Any]], Sequence[Any]],
    taken_for: Callable[[int, Any], Any] | None = None,
) -> list[Any]:
    """Return the results of a jaxpr, where a rule makes the results of an equation of its operands.

    With ``taken_for``, the result of number i, as soon as it is computed, is taken for what
    ``taken_for(i, value)`` returns; what follows is computed from that.

    Examples
    --------
    >>> jaxpr, _ = traced(lambda x: 2 * x + 1, 3.0)
    >>> float(evaluate(jaxpr, [4.0], computed)[0])
    9.0
    """
    body = plain(jaxpr)
    values: dict[Any, Any] = dict(zip(body.constvars, getattr(jaxpr, "consts", ()), strict=True))
    values |= zip(body.invars, arguments, strict=True)
    places = {v: i for i, v in enumerate(body.outvars) if not isinstance(v, Literal)}

    def read(variable: Any) -> Any:
        if isinstance(variable, Literal):
            shaped: Any = variable.aval
            return np.asarray(variable.val, shaped.dtype)  # traced by nobody
        return values[variable]

    for equation in body.eqns:
        results = rule(equation, [read(v) for v in equation.invars])
        for variable, result in zip(equation.outvars, results, strict=True):
            if taken_for is not None and variable in places:
                result = taken_for(places[variable], result)
            values[variable] = result
    return [read(v) for v in body.outvars]


def computed(equation: Any, operands: Sequence[Any]) -> list[Any]:
    """Return what JAX makes of the operands of an equation."""
    primitive = equation.primitive
    params = primitive.get_bind_params(equation.params)
    functions, params = params if isinstance(params, tuple) else ((), params)  # before JAX 0.10
    results = primitive.bind(*functions, *operands, **params)
    return list(results) if primitive.multiple_results else [results]


def opaque(name: str) -> Any:
    """Return a primitive that is only ever traced: one array like its operand comes of it."""
    primitive = Primitive(name)
    primitive.def_abstract_eval(lambda aval: aval)  # type: ignore[no-untyped-call]
    return primitive


def plain(jaxpr: Any) -> Any:
    """Return a jaxpr without its constants, which JAX before 0.12 keeps beside it."""
    return getattr(jaxpr, "jaxpr", jaxpr)


def _is_jaxpr(value: Any) -> bool:
    return hasattr(value, "eqns")
