"""Which operations there are, what each does to rounding errors, and with what parameters."""

import math
from typing import Any


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


def name(equation: Any) -> str:
    """Return the name of the primitive of an equation."""
    return str(equation.primitive.name)


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
    first, other = map(ndim, equation.invars)
    left, right = [*range(first)], [*range(first, first + other)]
    for i, j in [*zip(of_left, of_right, strict=True), *zip(batch_left, batch_right, strict=True)]:
        right[j] = left[i]
    free = [i for i in left if i not in right] + [j for j in right if j not in left]
    return left, right, [left[i] for i in batch_left] + free


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


def ndim(variable: Any) -> int:
    """Return the number of axes of a variable of a jaxpr."""
    return len(variable.aval.shape)
