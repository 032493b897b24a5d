"""What this package knows of JAX's insides: the equations into which JAX turns a function.

Names of primitives and of their parameters change from one version of JAX to the next. They stand
here and nowhere else: which operations there are and what each does to rounding errors, what is
inside of a loop, a branch or a call, how many terms a sum has, and which line of the user's an
equation comes from. How much of the operands of a loop is carried from step to step is read off
shapes, which every version has.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.extend.core import Literal, Primitive
from jax.extend.source_info_util import summarize


def words(text: str) -> frozenset[str]:
    """Return the words of a text."""
    return frozenset(text.split())


# Move entries, compare them or change their signs, or compute whole numbers.
EXACT = words("""
    abs and argmax argmin broadcast_in_dim ceil clamp clz complex concatenate conj copy copy_p
    cummax cummin device_put dynamic_slice dynamic_update_slice empty empty2 eq eq_to expand_dims
    floor gather ge gt imag iota iota_2x32_shape is_finite le le_to lt lt_to max min mulhi name ne
    neg not optimization_barrier or pad platform_index population_count random_bits random_clone
    random_fold_in random_seed random_split random_unwrap random_wrap real reduce_and reduce_max
    reduce_min reduce_or reduce_window_max reduce_window_min reduce_xor reshape rev
    rng_bit_generator round scatter scatter-max scatter-min select_n shift_left
    shift_right_arithmetic shift_right_logical sign slice sort split squeeze stack stop_gradient
    threefry2x32 tile top_k transpose unstack xor
""")
EXACT_IN_WHOLE_NUMBERS = words("add sub mul")
PRODUCTS = words("conv_general_dilated dot_general")
SUMS = PRODUCTS | words("cumsum reduce_sum scatter-add")
FACTORISATIONS = words("""
    cholesky cholesky_update custom_linear_solve eig eigh ffi_call fft geqrf hessenberg
    householder_product lu ormqr pure_callback qr schur svd symmetric_product triangular_solve
    tridiagonal tridiagonal_solve
""")
# Round each entry of their results.
ROUNDED = words("""
    acos acosh add_any approx_top_k asin asinh atan atan2 atanh bessel_i0e bessel_i1e
    bitcast_convert_type call_hi_primitive cbrt cos cosh cumlogsumexp cumprod digamma div erf
    erf_inv erfc exp exp2 expm1 igamma igamma_grad_a igammac integer_pow lgamma log log1p log2
    logistic nextafter one_minus_square polygamma polynomial pow ragged_dot_general random_gamma
    reduce reduce_precision reduce_prod reduce_window reduce_window_sum
    regularized_incomplete_beta rem rng_uniform rsqrt scatter-mul scatter-sub select_and_gather_add
    select_and_scatter select_and_scatter_add sin sinh sqrt square tan tanh zeta
""")
# Of EXACT, those whose result has entries of one operand, where an index, if any, says.
MOVES = words("""
    broadcast_in_dim concatenate copy copy_p dynamic_slice dynamic_update_slice expand_dims gather
    pad reshape rev slice squeeze tile transpose
""")
CONVERSION = "convert_element_type"
CALLS = words("""
    checkpoint closed_call core_call core_closed_call custom_jvp_call custom_vjp_call
    custom_vjp_call_jaxpr jit pjit remat remat2
""")
KNOWN = (
    EXACT | EXACT_IN_WHOLE_NUMBERS | SUMS | FACTORISATIONS | ROUNDED | {CONVERSION} | CALLS
) | words("cond scan while")


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


def name(equation: Any) -> str:
    """Return the name of the primitive of an equation."""
    return str(equation.primitive.name)


def origin(equation: Any) -> Any:
    """Return what is the same for one operation of the source at every step of a loop.

    It is made of all the calls that led to it, down to the place in each line.
    """
    shapes = tuple(v.aval.shape for v in equation.outvars)
    return equation.source_info.traceback, name(equation), shapes


def line(equation: Any) -> str:
    """Return where in the user's code an equation comes from: file:line:column (function)."""
    return summarize(equation.source_info)


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
    body = _plain(params["jaxpr"])
    # What is scanned over, or stacked up, has one axis more outside of the body than within.
    sliced = [_ndim(o) > _ndim(i) for o, i in zip(equation.invars, body.invars, strict=True)]
    stacked = [_ndim(o) > _ndim(i) for o, i in zip(equation.outvars, body.outvars, strict=True)]
    carried = stacked.count(False)
    same = sliced.count(False) - carried
    return Scan(params["jaxpr"], same, carried, params["length"], params["reverse"])


def _ndim(variable: Any) -> int:
    return len(variable.aval.shape)


def equations(jaxpr: Any) -> Iterator[Any]:
    """Yield the equations of a jaxpr and those within them."""
    waiting = [jaxpr]
    while waiting:
        for equation in _plain(waiting.pop()).eqns:
            yield equation
            params = jax.tree.leaves(list(equation.params.values()), is_leaf=_is_jaxpr)
            waiting += filter(_is_jaxpr, params)


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
    body = _plain(loop.body)
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
    body = _plain(jaxpr)
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


def exponent(equation: Any) -> int:
    """Return n of integer_pow, which is x to the n."""
    return int(equation.params["y"])


def axes(equation: Any) -> tuple[int, ...]:
    """Return the axes that a reduction makes away with."""
    return tuple(equation.params["axes"])


def axis(equation: Any) -> int:
    """Return the axis of concatenate, split, or a cumulative sum."""
    return int(equation.params["dimension" if name(equation) == "concatenate" else "axis"])


def backwards(equation: Any) -> bool:
    """Return whether a cumulative sum begins at the end."""
    return bool(equation.params["reverse"])


def broadcast_dimensions(equation: Any) -> tuple[int, ...]:
    """Return which axes of the result of broadcast_in_dim are those of its operand."""
    return tuple(equation.params["broadcast_dimensions"])


def permutation(equation: Any) -> tuple[int, ...]:
    """Return the order of the axes that transpose gives."""
    return tuple(equation.params["permutation"])


def slices(equation: Any) -> tuple[slice, ...]:
    """Return what slice takes of each axis."""
    start, limit = equation.params["start_indices"], equation.params["limit_indices"]
    steps = equation.params["strides"] or [1] * len(start)
    return tuple(map(slice, start, limit, steps))


def helps_only(equation: Any, k: int) -> bool:
    """Return whether operand k of an equation has no derivative: it helps to solve a system."""
    lengths = equation.params.get("const_lengths")
    if name(equation) != "custom_linear_solve" or lengths is None:
        return False
    return bool(lengths.matvec <= k < sum(lengths))


def with_itself(equation: Any) -> bool:
    """Return whether both operands of an equation are one variable."""
    first, second = equation.invars
    return first is second


def terms(equation: Any) -> int:
    """Return how many terms make up an entry of the result of one of SUMS, at most."""
    first, *others = (tuple(v.aval.shape) for v in equation.invars)
    params = equation.params
    match name(equation):
        case "reduce_sum":
            count = math.prod(first[axis] for axis in params["axes"])
        case "cumsum":
            count = first[params["axis"]]
        case "dot_general":
            count = math.prod(first[axis] for axis in params["dimension_numbers"][0][0])
        case "conv_general_dilated":
            outputs = others[0][params["dimension_numbers"].rhs_spec[0]]
            count = math.prod(others[0]) // max(outputs, 1)
        case _:  # scatter-add: what was there, and one for each index
            count = 1 + math.prod(others[0][:-1])
    return int(count)


def dtypes(equation: Any) -> list[Any]:
    """Return the dtypes of the results of an equation."""
    return [variable.aval.dtype for variable in equation.outvars]


def axes_of_product(equation: Any) -> tuple[list[int], list[int], list[int]]:
    """Return a number for each axis of the operands and of the result of dot_general.

    Axes with one number are one, as in Einstein's sums.
    """
    (of_left, of_right), (batch_left, batch_right) = equation.params["dimension_numbers"]
    ndim, other = map(_ndim, equation.invars)
    left, right = [*range(ndim)], [*range(ndim, ndim + other)]
    for i, j in [*zip(of_left, of_right, strict=True), *zip(batch_left, batch_right, strict=True)]:
        right[j] = left[i]
    free = [i for i in left if i not in right] + [j for j in right if j not in left]
    return left, right, [left[i] for i in batch_left] + free


def moved(equation: Any, operands: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Return what an operation that moves entries makes of arrays of objects.

    What every network needs is done by NumPy at once. For the rest JAX moves the numbers of the
    entries, and compiles that for each shape.

    Examples
    --------
    >>> jaxpr, _ = traced(lambda x: x[::-1], np.zeros(3))
    >>> moved(next(equations(jaxpr)), [np.array(["a", "b", "c"], object)])
    [array(['c', 'b', 'a'], dtype=object)]
    """
    first, params = operands[0], equation.params
    shape = equation.outvars[0].aval.shape
    match name(equation):
        case "reshape" | "squeeze":
            return [first.reshape(shape)]
        case "broadcast_in_dim":
            stretched = np.ones(len(shape), int)
            stretched[[*params["broadcast_dimensions"]]] = first.shape
            return [np.broadcast_to(first.reshape(stretched), shape)]
        case "transpose":
            return [first.transpose(params["permutation"])]
        case "concatenate":
            return [np.concatenate(operands, params["dimension"])]
        case "split":
            return np.split(first, np.cumsum(params["sizes"])[:-1], params["axis"])
        case "slice":
            return [first[slices(equation)]]
        case "pad":
            return [_padded(first, operands[1], params["padding_config"], shape)]
    return _moved_by_number(equation, operands)


def _padded(array: np.ndarray, value: Any, config: Any, shape: tuple[int, ...]) -> np.ndarray:
    """Return an array with values before, after and between its entries, or with ends cut off."""
    places = [
        low + (between + 1) * np.arange(n)
        for n, (low, _, between) in zip(array.shape, config, strict=True)
    ]
    within = [(p >= 0) & (p < n) for p, n in zip(places, shape, strict=True)]
    found = np.full(shape, value)
    found[np.ix_(*(p[i] for p, i in zip(places, within, strict=True)))] = array[np.ix_(*within)]
    return found


def _moved_by_number(equation: Any, operands: Sequence[np.ndarray]) -> list[np.ndarray]:
    entries: list[Any] = []
    numbers = [*operands]
    for i, operand in enumerate(operands):
        if operand.dtype == object:  # and no index
            numbers[i] = len(entries) + np.arange(operand.size).reshape(operand.shape)
            entries += operand.ravel().tolist()
    every = np.array(entries, object)
    return [np.asarray(every[np.asarray(n)], object) for n in computed(equation, numbers)]


def _plain(jaxpr: Any) -> Any:
    """Return a jaxpr without its constants, which JAX before 0.12 keeps beside it."""
    return getattr(jaxpr, "jaxpr", jaxpr)


def _is_jaxpr(value: Any) -> bool:
    return hasattr(value, "eqns")


class Source(NamedTuple):
    """Where in the user's code an operation is: lines from 1, columns from 0, in characters."""

    file: str
    function: str
    line: int
    column: int
    end_line: int
    end_column: int


def source(equation: Any) -> Source | None:
    """Return where an operation is in the user's code, and None if that is not known."""
    traceback, place = equation.source_info.traceback, line(equation)
    for code, offset in zip(*(traceback.raw_frames() if traceback else ((), ())), strict=True):
        if place.startswith(f"{code.co_filename}:"):
            first, last, column, end = [*code.co_positions()][offset // 2]
            if None not in (first, last, column, end):
                return Source(code.co_filename, code.co_qualname, first, column, last, end)
    return None
