"""What operations compute, in NumPy.

JAX compiles each for each shape before it carries it out, and then takes ten times as long, if the
arrays are small. An operation that is not here is left to JAX, and so is what is of other types
than the usual ones: in narrow and in complex numbers the two differ in more than rounding.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from reference.jaxprs.entries import moved
from reference.jaxprs.operations import (
    axes,
    axes_of_product,
    axis,
    broadcast_dimensions,
    dtypes,
    exponent,
    name,
    permutation,
    slices,
    words,
)
from reference.jaxprs.programs import computed

Operation = Callable[..., list[Any]]

USUAL = frozenset(map(np.dtype, ("bool", "int32", "int64", "uint64", "float32", "float64")))


def made(equation: Any) -> Operation:
    """Return what an equation makes of NumPy arrays, as a function of its operands.

    Examples
    --------
    >>> from reference.jaxprs import equations, traced
    >>> equation = next(equations(traced(lambda x: x @ x, np.ones(2))[0]))
    >>> name(equation), made(equation)(np.array([3.0, 4.0]), np.array([1.0, 2.0]))
    ('dot_general', [array(11.)])
    """
    make = OPERATIONS.get(name(equation))
    usual = all(v.aval.dtype in USUAL for v in (*equation.invars, *equation.outvars))
    function = make(equation) if make is not None and usual else None
    if function is None:
        return lambda *operands: [as_numpy(r) for r in computed(equation, operands)]
    results: Operation = function
    return results if equation.primitive.multiple_results else lambda *of: [function(*of)]


def as_numpy(value: Any) -> Any:
    """Return an array as NumPy's; keys of random numbers, of which NumPy knows nothing, as is."""
    return value if are_keys(getattr(value, "dtype", None)) else np.asarray(value)


def are_keys(dtype: Any) -> bool:
    """Return whether arrays of a dtype hold keys of random numbers."""
    return dtype is not None and bool(jnp.issubdtype(dtype, jax.dtypes.extended))


# Makers: an equation gives a function of its operands, or None where NumPy has none ---------------


def _plain(function: Callable[..., Any]) -> Callable[..., Any]:
    return lambda _: function


def _floating(function: Callable[..., Any]) -> Callable[..., Any]:
    """Leave to JAX what becomes of whole numbers: a division by zero, a power, a shift of signs."""
    return lambda equation: function if np.issubdtype(dtypes(equation)[0], np.floating) else None


def _logistic(_: Any) -> Any:
    def logistic(a: Any) -> Any:
        e = np.exp(-np.abs(a))
        return np.where(a >= 0, 1, e) / (1 + e)

    return logistic


def _choice(equation: Any) -> Any:
    of_two = len(equation.invars) == 3
    return (lambda which, no, yes: np.where(which, yes, no)) if of_two else None


def _clamp(_: Any) -> Any:
    return lambda low, a, high: np.minimum(np.maximum(a, low), high)


def _rounded(equation: Any) -> Any:
    if equation.params["rounding_method"] == jax.lax.RoundingMethod.TO_NEAREST_EVEN:
        return np.rint

    def away_from_zero(a: Any) -> Any:
        whole = np.trunc(a)
        return np.where(np.abs(a - whole) >= 0.5, whole + np.copysign(1, a), whole).astype(a.dtype)

    return away_from_zero


def _integer_power(equation: Any) -> Any:
    n = exponent(equation)
    return np.square if n == 2 else _floating(lambda a: a ** a.dtype.type(n))(equation)


def _conversion(equation: Any) -> Any:
    (operand,), (dtype,) = equation.invars, dtypes(equation)
    if np.issubdtype(operand.aval.dtype, np.floating) and np.issubdtype(dtype, np.integer):
        return None  # what is too large becomes the largest number there is
    return lambda a: a.astype(dtype)


def _bitcast(equation: Any) -> Any:
    (operand,), (dtype,) = equation.invars, dtypes(equation)
    same = np.dtype(operand.aval.dtype).itemsize == np.dtype(dtype).itemsize
    return (lambda a: a.view(dtype)) if same else None


def _of_bits(function: Callable[..., Any], kind: str) -> Callable[..., Any]:
    """Make a shift that takes numbers for signed, or for unsigned ones."""

    def make(_: Any) -> Any:
        def shifted(a: Any, by: Any) -> Any:
            taken_for = np.dtype(f"{kind}{a.dtype.itemsize}")
            return function(a.view(taken_for), by.astype(taken_for)).view(a.dtype)

        return shifted

    return make


def _numbers(equation: Any) -> Any:
    params, (dtype,) = equation.params, dtypes(equation)
    shape = [1] * len(params["shape"])
    shape[params["dimension"]] = -1
    numbers = np.arange(params["shape"][params["dimension"]], dtype=dtype).reshape(shape)
    return lambda *_: np.broadcast_to(numbers, params["shape"])


def _along(function: Callable[..., Any]) -> Callable[..., Any]:
    def make(equation: Any) -> Any:
        along, (dtype,) = axes(equation), dtypes(equation)
        if 0 in equation.invars[0].aval.shape:
            return None  # the least number there is, or the largest
        return lambda a: function(a, axis=along).astype(dtype, copy=False)

    return make


def _product(equation: Any) -> Any:
    """Make the product of two arrays one of stacks of matrices: BLAS's, where einsum loops."""
    left, right, out = axes_of_product(equation)
    (dtype,) = dtypes(equation)
    first, other = (v.aval for v in equation.invars)
    if not first.dtype == other.dtype == dtype or not np.issubdtype(dtype, np.floating):
        return None
    stacked = [i for i in out if i in left and i in right]
    summed = [i for i in left if i in right and i not in out]
    rows, columns = ([i for i in one if i not in stacked + summed] for one in (left, right))
    sizes = dict(zip(left + right, (*first.shape, *other.shape), strict=True))
    order_left = [left.index(i) for i in stacked + rows + summed]
    order_right = [right.index(i) for i in stacked + summed + columns]
    of_stack = [sizes[i] for i in stacked]
    m, k, n = (int(np.prod([sizes[i] for i in part])) for part in (rows, summed, columns))
    shape_left, shape_right = (*of_stack, m, k), (*of_stack, k, n)
    shape = equation.outvars[0].aval.shape

    def product(a: Any, b: Any) -> Any:
        a = a.transpose(order_left).reshape(shape_left)
        return np.matmul(a, b.transpose(order_right).reshape(shape_right)).reshape(shape)

    return product


def _spread(equation: Any) -> Any:
    (variable, *dynamic), shape = equation.invars, equation.outvars[0].aval.shape
    if dynamic:
        return None
    stretched = [1] * len(shape)
    for i, n in zip(broadcast_dimensions(equation), variable.aval.shape, strict=True):
        stretched[i] = n
    if tuple(stretched) == shape:
        return lambda a: a.reshape(shape)

    def spread(a: Any) -> Any:
        result = np.empty(shape, a.dtype)
        result[...] = a.reshape(stretched)
        return result

    return spread


def _reshaped(equation: Any) -> Any:
    shape = equation.outvars[0].aval.shape
    return lambda a, *_: a.reshape(shape)


def _transposed(equation: Any) -> Any:
    order = permutation(equation)
    return lambda a: a.transpose(order)


def _taken(equation: Any) -> Any:
    taken = slices(equation)
    return lambda a: a[taken]


def _joined(equation: Any) -> Any:
    along = axis(equation)
    return lambda *operands: np.concatenate(operands, along)


def _split(equation: Any) -> Any:
    ends, along = np.cumsum(equation.params["sizes"])[:-1], axis(equation)
    return lambda a: np.split(a, ends, along)


def _reversed(equation: Any) -> Any:
    along = equation.params["dimensions"]
    return lambda a: np.flip(a, along)


def _window(equation: Any) -> Any:
    """Make dynamic_slice, which begins where it would not reach beyond the end."""
    sizes = equation.params["slice_sizes"]

    def window(a: Any, *starts: Any) -> Any:
        return a[_from(starts, sizes, a.shape)]

    return window


def _written_window(_: Any) -> Any:
    def written(a: Any, new: Any, *starts: Any) -> Any:
        result = a.copy()
        result[_from(starts, new.shape, a.shape)] = new
        return result

    return written


def _from(starts: Any, sizes: Any, shape: Any) -> tuple[slice, ...]:
    firsts = [
        min(max(int(start), 0), n - size)
        for start, size, n in zip(starts, sizes, shape, strict=True)
    ]
    return tuple(slice(i, i + size) for i, size in zip(firsts, sizes, strict=True))


def _gathered(equation: Any) -> Any:
    indices = equation.invars[1].aval
    if indices.shape[-1] == 0 or indices.dtype == np.uint64:
        return None
    indices_of, dimensions = _places(equation), equation.params["dimension_numbers"]
    beyond = computed if "FILL" in str(equation.params["mode"]) else None

    def gathered(a: Any, indices: Any) -> Any:
        places, inside = indices_of(indices)
        if beyond is not None and not inside:
            return as_numpy(beyond(equation, [a, indices])[0])
        batch, windows = indices.ndim - 1, len(dimensions.offset_dims)
        return np.moveaxis(a[places], range(batch, batch + windows), dimensions.offset_dims)

    return gathered


def _places(equation: Any) -> Callable[[Any], tuple[Any, bool]]:
    """Return a function of indices: where gather takes its entries, and whether all are there.

    The entries come in an order of their own: the axes of the indices first, then those of what is
    taken at each.
    """
    params, shape = equation.params, equation.invars[0].aval.shape
    dimensions, sizes = params["dimension_numbers"], params["slice_sizes"]
    batching = getattr(dimensions, "operand_batching_dims", ())
    single = {*dimensions.collapsed_slice_dims, *batching}
    windows = [d for d in range(len(shape)) if d not in single]

    def first(d: int, indices: Any) -> Any:
        """Return where what is taken begins along an axis, for each of the indices."""
        if d in batching:
            along = dimensions.start_indices_batching_dims[batching.index(d)]
            return np.arange(shape[d]).reshape(
                [-1 if i == along else 1 for i in range(indices.ndim - 1)]
            )
        if d not in dimensions.start_index_map:
            return np.zeros((1,) * (indices.ndim - 1), int)
        return indices[..., dimensions.start_index_map.index(d)].astype(int)

    def places(indices: Any) -> tuple[Any, bool]:
        given = [first(d, indices) for d in range(len(shape))]
        starts = [np.clip(i, 0, n - m) for i, n, m in zip(given, shape, sizes, strict=True)]
        inside = all(map(np.array_equal, starts, given))
        if indices.ndim == 1:  # a slice, which NumPy need not copy
            ends = zip(starts, sizes, strict=True)
            slices = [slice(int(i), int(i) + size) for i, size in ends]
            return tuple(s if d in windows else s.start for d, s in enumerate(slices)), inside
        found = [
            start.reshape(*start.shape, *[1] * len(windows))
            + np.arange(sizes[d]).reshape([-1 if i == d else 1 for i in windows])
            for d, start in enumerate(starts)
        ]
        return tuple(found), inside

    return places


def _moved(equation: Any) -> Any:
    return lambda *operands: moved(equation, operands)[0]


def _cumulative(function: Callable[..., Any]) -> Callable[..., Any]:
    def make(equation: Any) -> Any:
        along, reverse = axis(equation), equation.params["reverse"]
        if not np.issubdtype(dtypes(equation)[0], np.floating):
            return None
        if reverse:
            return lambda a: np.flip(function(np.flip(a, along), along), along)
        return lambda a: function(a, along)

    return make


OPERATIONS: dict[str, Callable[[Any], Any]] = {
    "dot_general": _product,
    "div": _floating(np.divide),
    "logistic": _logistic,
    "select_n": _choice,
    "clamp": _clamp,
    "round": _rounded,
    "integer_pow": _integer_power,
    "pow": _floating(lambda a, b: np.power(a, np.asarray(b, a.dtype))),
    "convert_element_type": _conversion,
    "bitcast_convert_type": _bitcast,
    "shift_right_logical": _of_bits(np.right_shift, "u"),
    "shift_right_arithmetic": _of_bits(np.right_shift, "i"),
    "shift_left": _of_bits(np.left_shift, "u"),
    "iota": _numbers,
    "reduce_sum": _along(np.sum),
    "reduce_max": _along(np.max),
    "reduce_min": _along(np.min),
    "reduce_prod": _along(np.prod),
    "reduce_and": _along(np.bitwise_and.reduce),
    "reduce_or": _along(np.bitwise_or.reduce),
    "cumsum": _cumulative(np.cumsum),
    "cumprod": _cumulative(np.cumprod),
    "broadcast_in_dim": _spread,
    "reshape": _reshaped,
    "squeeze": _reshaped,
    "expand_dims": _reshaped,
    "transpose": _transposed,
    "slice": _taken,
    "concatenate": _joined,
    "split": _split,
    "rev": _reversed,
    "pad": _moved,
    "dynamic_slice": _window,
    "dynamic_update_slice": _written_window,
    "gather": _gathered,
    **dict.fromkeys(words("stop_gradient copy copy_p"), _plain(lambda a: a)),
    "sign": _plain(lambda a: np.where(a == 0, a, np.sign(a))),  # a zero keeps its sign
    "rsqrt": _plain(lambda a: 1 / np.sqrt(a)),
    **{
        key: _plain(function)
        for key, function in {
            "add": np.add, "add_any": np.add, "sub": np.subtract, "mul": np.multiply,
            "neg": np.negative, "max": np.maximum, "min": np.minimum, "tanh": np.tanh,
            "exp": np.exp, "log": np.log, "log1p": np.log1p, "expm1": np.expm1, "sqrt": np.sqrt,
            "square": np.square, "sin": np.sin, "cos": np.cos, "abs": np.abs,
            "floor": np.floor, "ceil": np.ceil, "exp2": np.exp2, "tan": np.tan,
            "sinh": np.sinh, "cosh": np.cosh, "asin": np.arcsin, "acos": np.arccos,
            "atan": np.arctan, "atan2": np.arctan2, "asinh": np.arcsinh, "acosh": np.arccosh,
            "atanh": np.arctanh, "cbrt": np.cbrt,
            "eq": np.equal, "ne": np.not_equal, "lt": np.less, "le": np.less_equal,
            "gt": np.greater, "ge": np.greater_equal,
            "and": np.bitwise_and, "or": np.bitwise_or, "xor": np.bitwise_xor, "not": np.invert,
            "is_finite": np.isfinite,
        }.items()
    },
}  # fmt: skip
"""By the name of the primitive: from an equation to a function of its operands."""
