"""Corners: arguments of every kind and layout, and numbers at both ends of the range.

Each gives the right result or a clear error. What an array is kept in (a list, a file, a view with
gaps) changes no bit of a result. Numbers near the ends of the range are judged by the same call in
a wider type: what is finite is right, and what stays well inside the range is finite.
"""

import warnings
from collections import deque
from fractions import Fraction

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rounding import gamma, rounding_bounds

import manual_bptt as mb
from reference.problems import random_problem
from reference.strategies import problems


def arguments_of(problem):
    """Return every argument of every function by name; those of backward belong together."""
    rng = np.random.default_rng(0)
    trace = mb.forward(problem.params, problem.x, problem.h0)
    weights = rng.uniform(0.5, 2, problem.x.shape[:-1])
    dy, dh_last = (rng.standard_normal(array.shape) for array in (trace.y, problem.h0))
    return {
        **problem.params._asdict(),
        "x": problem.x,
        "h0": problem.h0,
        "states": trace.h,
        "y": trace.y,
        "target": problem.target,
        "last_target": problem.target[-1],
        "weights": weights.astype(problem.dtype),
        "dy": dy.astype(problem.dtype),
        "dh_last": dh_last.astype(problem.dtype),
    }


def arguments(B=3, dtype="float64", **sizes):
    shape = {"T": 5, "D": 3, "H": 4, "O": 2, **sizes}
    return arguments_of(random_problem(B=B, **shape, regime="critical", seed=0, dtype=dtype))


def scaled(a, exponent):
    """Return the arrays, each times its power of two."""
    return {k: np.ldexp(array, exponent.get(k, 0)) for k, array in a.items()}


def params_of(a):
    return mb.Params(*(a[k] for k in mb.Params._fields))


CALLS = {
    "forward": lambda a: mb.forward(params_of(a), a["x"], a["h0"]),
    "squared_error": lambda a: mb.squared_error(a["y"], a["target"], a["weights"]),
    "last_step_squared_error": lambda a: mb.last_step_squared_error(a["y"], a["last_target"]),
    "backward": lambda a: mb.backward(
        params_of(a), mb.Trace(a["x"], a["states"], a["y"]), a["dy"], dh_last=a["dh_last"]
    ),
    "hidden_gradients": lambda a: [
        mb.hidden_gradients(
            params_of(a), mb.Trace(a["x"], a["states"], a["y"]), a["dy"], dh_last=a["dh_last"]
        )
    ],
    "loss_and_gradients": lambda a: mb.loss_and_gradients(
        params_of(a), a["x"], a["target"], h0=a["h0"], weights=a["weights"]
    ),
}
call = pytest.mark.parametrize("call", CALLS)


def arrays_of(result):
    """Return the arrays of a result, those of a Gradients inside it too."""
    for part in result:
        yield from arrays_of(part) if isinstance(part, tuple) else [part]


def assert_same_bits(result, expected):
    for found, array in zip(arrays_of(result), arrays_of(expected), strict=True):
        assert type(found) is type(array)
        assert found.dtype == array.dtype
        assert found.tobytes() == array.tobytes()


# --- containers and layouts ----------------------------------------------------------------------


class Holder:
    """An object that gives an array when asked for one."""

    def __init__(self, array):
        self.array = array

    def __array__(self, dtype=None, copy=None):
        return self.array


def read_only(array):
    array = array.copy()
    array.flags.writeable = False
    return array


def unaligned(array):
    return np.frombuffer(b"-" + array.tobytes(), array.dtype, offset=1).reshape(array.shape)


def with_gaps(array):
    gaps = np.full([2 * n + 1 for n in array.shape], np.nan, array.dtype)
    gaps[tuple(slice(1, None, 2) for _ in array.shape)] = array
    return gaps[tuple(slice(1, None, 2) for _ in array.shape)]


def matrix(array):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PendingDeprecationWarning)
        return np.matrix(array) if array.ndim == 2 else array


CONTAINERS = {
    "Fortran order": np.asfortranarray,
    "axes swapped": lambda a: np.ascontiguousarray(np.swapaxes(a, 0, -1)).swapaxes(0, -1),
    "gaps": with_gaps,
    "negative strides": lambda a: np.flip(np.flip(a).copy()),
    "read-only": read_only,
    "not aligned": unaligned,
    "bytes swapped": lambda a: a.astype(a.dtype.newbyteorder()),
    "bytes swapped, Fortran order": lambda a: np.asfortranarray(a.astype(a.dtype.newbyteorder())),
    "subclass": lambda a: a.view(type("Subclass", (np.ndarray,), {})),
    "matrix": matrix,
    "lists": lambda a: a.tolist(),
    "tuple of arrays": tuple,
    "deque of arrays": deque,
    "memoryview": memoryview,
    "object with __array__": Holder,
}


@pytest.mark.parametrize("B", [None, 3])
@pytest.mark.parametrize("contain", CONTAINERS.values(), ids=CONTAINERS)
@call
def test_what_holds_the_numbers_changes_no_bit(call, contain, B):
    a = arguments(B)
    held = {k: contain(array) for k, array in a.items()}
    assert_same_bits(CALLS[call](held), CALLS[call](a))


@call
def test_memory_mapped_files_change_no_bit(call, tmp_path):
    a, mapped = arguments(), {}
    for k, array in a.items():
        np.save(tmp_path / f"{k}.npy", array)
        mapped[k] = np.load(tmp_path / f"{k}.npy", mmap_mode="r")
    assert_same_bits(CALLS[call](mapped), CALLS[call](a))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@call
def test_jax_arrays_are_taken_for_what_they_hold(call, dtype):
    """JAX rounds to float32 unless told otherwise; beside float64 parameters that is widened."""
    a = arguments(dtype=dtype)
    held = {k: jnp.asarray(array.astype(np.float32)) for k, array in a.items()}
    if dtype == "float64":
        held |= {k: a[k] for k in ("W", "y")}
    rounded = {k: np.asarray(array).astype(dtype) for k, array in held.items()}
    assert_same_bits(CALLS[call](held), CALLS[call](rounded))


@pytest.mark.parametrize("B", [None, 3])
@call
def test_one_number_broadcast_to_an_array_is_that_array(call, B):
    a = arguments(B)
    spread = {k: np.broadcast_to(array.flat[0], array.shape) for k, array in a.items()}
    whole = {k: np.full(array.shape, array.flat[0]) for k, array in a.items()}
    assert_same_bits(CALLS[call](spread), CALLS[call](whole))


OTHER_TYPES = ("bool", "int8", "int64", "uint64", "float16", "float32", "longdouble")


@pytest.mark.parametrize("dtype", OTHER_TYPES)
@call
def test_numbers_of_other_types_count_as_the_nearest_of_the_common_type(call, dtype):
    """W and y stay as they are and set it; the other parameters too, where that would widen it."""
    a = arguments()
    values = {k: 100 * array if dtype == "int64" else array for k, array in a.items()}
    if dtype == "uint64":
        values = {k: np.abs(array) * 2**62 for k, array in a.items()}
    if dtype == "longdouble":
        values = {k: array.astype(dtype) / 3 for k, array in a.items()}
    kept = ("y", *(mb.Params._fields if dtype == "longdouble" else "W"))
    other = {k: values[k].astype(dtype) for k in a if k not in kept}
    nearest = {k: array.astype(np.float64) for k, array in other.items()}
    assert_same_bits(CALLS[call](a | other), CALLS[call](a | nearest))


@pytest.mark.parametrize(
    ("call", "axis"),
    [(name, axis) for name in CALLS for axis in ("TBO" if "error" in name else "TBDHO")],
)
def test_an_empty_axis_is_refused(call, axis):
    n = {"T": 5, "B": 3, "D": 3, "H": 4, "O": 2} | {axis: 0}
    axes = {"W": "HH", "U": "HD", "b": "H", "V": "OH", "c": "O", "x": "TBD", "h0": "BH"}
    axes |= {"states": "THH", "y": "TBO", "target": "TBO", "last_target": "BO", "weights": "TB"}
    axes |= {"dy": "TBO", "dh_last": "BH"}
    empty = {k: np.zeros([n[letter] for letter in letters]) for k, letters in axes.items()}
    empty["states"] = np.zeros((n["T"] + 1, n["B"], n["H"]))
    with pytest.raises(ValueError, match=r"has shape .* expected"):
        CALLS[call](empty)


# --- both ends of the range ----------------------------------------------------------------------


def run(a, dtype=None):
    """Return the gradients, in the dtype given."""
    a = {k: array.astype(dtype or array.dtype) for k, array in a.items()}
    trace = mb.forward(params_of(a), a["x"], a["h0"], check_finite=False)
    arriving = {"dy": a["dy"], "dh_last": a["dh_last"], "check_finite": False}
    return mb.backward(params_of(a), trace, **arriving)._asdict()


def bounds(a, u):
    a = {k: array.astype(np.float64) for k, array in a.items()}
    return rounding_bounds(params_of(a), a["x"], a["h0"], a["dy"], a["dh_last"], u)


@pytest.mark.parametrize(("dtype", "wider"), [("float32", "float64"), ("float64", "longdouble")])
def test_a_run_in_a_wider_type_agrees_within_rounding_in_every_regime(dtype, wider):
    @given(problems(dtype=dtype, longest=12))
    def holds(problem):
        a, u = arguments_of(problem), float(np.finfo(dtype).eps) / 2
        narrow, wide = run(a), run(a, wider)
        for k, bound in bounds(a, u).items():
            assert narrow[k].dtype == dtype
            assert wide[k].dtype == wider
            assert (np.abs(narrow[k] - wide[k]) <= 2 * bound + np.finfo(dtype).tiny).all(), k

    holds()


def largest_sum(a):
    """Return the largest sum of magnitudes that a run can meet on its way."""
    a = {k: np.abs(array.astype(np.float64)) for k, array in a.items()}
    W, U, b, V, c = params_of(a)
    x, dy, carried = a["x"], a["dy"], a["dh_last"]
    unit = max(1, a["h0"].max())  # of states
    da = np.empty((len(x), *carried.shape))
    for t in reversed(range(len(x))):
        da[t] = dy[t] @ V + carried
        carried = da[t] @ W
    forward = (x @ U.T).max() + b.max() + W.sum() * unit, V.sum() + c.sum()
    return max(*forward, da.max(), (da @ W).max(), (da @ U).max(), dy.sum() * unit,
               da.sum() * unit, da.sum() * x.max())  # fmt: skip


LARGE = (0, 0, 20, 60, 100, 120)
exponents = st.fixed_dictionaries(
    {k: st.sampled_from(LARGE) for k in ("V", "c", "dy", "dh_last")}
    | {k: st.sampled_from((-40, -40, *LARGE)) for k in ("U", "b", "x", "h0")}
    | {"W": st.sampled_from((0, 10, 20, 60, 120))}
)


@given(problems(dtype="float32", longest=4), exponents)
def test_what_is_finite_is_right_however_large_the_arguments_are(problem, exponent):
    a = scaled(arguments_of(problem), exponent)
    with np.errstate(all="ignore"):
        narrow, wide = run(a), run(a, np.float64)
        safe = largest_sum(a) < np.finfo(np.float32).max / 1024
    for k, bound in bounds(a, 2.0**-24).items():
        finite = np.isfinite(narrow[k])
        allowed = 2 * bound + np.finfo(np.float32).tiny
        assert (np.abs(narrow[k] - wide[k]) <= allowed)[finite].all(), k
        assert finite.all() or not safe, k


FLOATS = [np.float32, np.float64, np.longdouble]


@pytest.mark.parametrize("dtype", FLOATS)
def test_a_gradient_that_explodes_is_right_to_the_end_of_the_range_and_infinite_after(dtype):
    """W turns and stretches by 2^k, h is 0: dh[t] is a turned dh[T] times 2^(k (T-t)), exactly."""
    T, k = 40, np.finfo(dtype).maxexp // 25
    turn = np.array([[0, -1, 0], [0, 0, 1], [1, 0, 0]])
    zeros, one = np.zeros((T, 3), dtype), np.eye(3, dtype=dtype)
    params = mb.Params(np.ldexp(turn.astype(dtype), k), one, zeros[0], one, zeros[0])
    dh_last = np.array([1, 2, -4], dtype)
    with np.errstate(all="ignore"):
        dh = mb.hidden_gradients(params, mb.forward(params, zeros), zeros, dh_last=dh_last)
        expected = [dh_last]
        for _ in range(T):
            first, second, third = np.ldexp(expected[0], k)
            expected.insert(0, np.array([third, -first, second]))
    assert np.isfinite(expected[T - 24]).all()
    assert np.isinf(expected[0]).all()
    for found, right in zip(dh, expected, strict=True):
        finite = np.isfinite(found)
        assert np.array_equal(found[finite], right[finite])
        assert finite.all() == np.isfinite(right).all()


def test_a_loss_beyond_the_range_is_infinite_and_so_is_the_gradient_of_a_sum_beyond_it():
    a = arguments(dtype="float32")
    huge = a | {"V": a["V"] * np.float32(1e30)}
    with np.errstate(over="ignore"):
        loss, dy = mb.squared_error(mb.forward(params_of(huge), a["x"], a["h0"]).y, a["target"])
    assert np.isinf(loss)
    with np.errstate(all="ignore"):
        grads = run(huge | {"dy": dy * np.float32(1e8)})
    assert not np.isfinite(grads["b"]).any()


def test_overflow_inside_a_sum_is_not_hidden_by_tanh():
    """The terms cancel to 0, but their partial sums overflow: tanh of that is a plausible 1."""
    big = 1.5e308
    cancels = np.array([[big, big, -big, -big]])
    zero, one = np.zeros(1), np.ones((1, 1))
    inputs = mb.Params(zero[None], np.ones((1, 4)), zero, one, zero)
    states = mb.Params(
        np.tile(cancels, (4, 1)), np.ones((4, 1)), np.zeros(4), np.ones((1, 4)), zero
    )
    with np.errstate(all="ignore"):
        for x in (cancels, np.tile(cancels, (2, 3, 1))):
            h = mb.forward(inputs, x).h[1:]
            assert np.isnan(h).all() or (h == 0).all()
        assert np.isnan(mb.forward(states, np.zeros((2, 1)), np.ones(4)).h[1:]).all()


@pytest.mark.parametrize("k", [900, -900])
def test_factors_of_any_size_that_cancel_leave_no_trace(k):
    """Inputs by 2^k and U by 2^-k, outputs by 2^k and dy by 2^-k: exponents move, digits stay."""
    a = arguments()
    factors = {"x": k, "U": -k, "V": k, "c": k, "dy": -k}
    found = run(scaled(a, factors))
    expected = scaled(run(a), {name: -factor for name, factor in factors.items()})
    assert all(found[name].tobytes() == expected[name].tobytes() for name in expected)


def test_gradients_too_small_for_full_precision_lose_no_more_than_their_last_digits():
    """Each operation on numbers next to 0 may lose half of the smallest of them.

    An error of e in every operation reaches each gradient at most n times: W shrinks what it
    carries, and nothing that multiplies an error exceeds 1.
    """
    a = arguments(T=5, B=3, D=3, H=4, O=2)
    a |= {k: a[k] / (2 * np.abs(a[k]).sum(0).max()) for k in "WU"} | {"x": np.tanh(a["x"])}
    n, smallest = 5 * 3 * (4 + 2 + 4), np.finfo(np.float64).smallest_subnormal
    for k in range(-1080, -1040, 5):
        small = scaled(a, {"dy": k, "dh_last": k})
        found, wide = run(small), run(small, np.longdouble)
        assert all((np.abs(found[name] - wide[name]) <= n * smallest).all() for name in wide)


@pytest.mark.parametrize("dtype", FLOATS)
def test_where_tanh_saturates_nothing_flows_back(dtype):
    """h is 1 or -1 to the last bit, and 1 - h^2 is 0, not a small number of either sign."""
    a = {k: array.astype(dtype) for k, array in arguments().items()}
    a |= {"x": a["x"] * 1e6, "b": a["b"] * 0, "W": a["W"] / 8}
    grads, trace = run(a), mb.forward(params_of(a), a["x"], a["h0"])
    assert (np.abs(trace.h[1:]) == 1).all()
    assert not any(grads[k].any() for k in ("W", "U", "b", "x", "h0"))
    sums = {"V": np.einsum("tbo,tbh->oh", a["dy"], trace.h[1:]), "c": a["dy"].sum((0, 1))}
    bound = gamma(15, np.finfo(dtype).eps) * np.abs(a["dy"]).sum()
    assert all((np.abs(grads[k] - right) <= bound).all() for k, right in sums.items())


def test_what_cancels_leaves_no_more_than_rounding():
    """Every sequence comes twice, with opposite dy: the truth is 0, though no term is."""
    a = arguments(T=40, B=4, D=8, H=8, O=8)
    twice = {"x": np.concatenate([a["x"], a["x"]], 1), "h0": np.concatenate([a["h0"], a["h0"]])}
    for k, axis in (("dy", 1), ("dh_last", 0)):
        twice[k] = np.concatenate([a[k], -a[k]], axis)
    found, bound = run(a | twice), bounds(a | twice, 2.0**-53)
    assert all((np.abs(found[k]) <= bound[k]).all() for k in mb.Params._fields)


@given(problems(longest=8), st.booleans())
def test_losses_are_within_rounding_of_exact_arithmetic(problem, weigh):
    a = arguments_of(problem)
    weights = np.broadcast_to(a["weights"][..., None] if weigh else 1.0, a["y"].shape)
    y, target, w = (
        np.vectorize(Fraction, otypes=[object])(v) for v in (a["y"], a["target"], weights)
    )
    right, right_dy = (w * (y - target) ** 2).sum(), (2 * w * (y - target)).astype(np.longdouble)
    value, dy = mb.squared_error(a["y"], a["target"], a["weights"] if weigh else None)
    assert (np.abs(dy - right_dy) <= 2 * gamma(3, 2.0**-53) * np.abs(right_dy)).all()
    assert abs(Fraction(float(value)) - right) <= gamma(dy.size + 4, 2.0**-53) * right


def test_a_target_next_to_the_output_gives_the_exact_difference():
    y = arguments()["y"]
    target = np.nextafter(y, np.inf)
    _, dy = mb.squared_error(y, target)
    assert np.array_equal(dy, 2 * (y.astype(np.longdouble) - target))
    assert (dy < 0).all()


def test_five_thousand_steps_agree_with_a_wider_run():
    a = arguments(T=5000, B=2, D=2, H=3, O=1)
    narrow, wide, bound = run(a), run(a, np.longdouble), bounds(a, 2.0**-53)
    assert all((np.abs(narrow[k] - wide[k]) <= 2 * bound[k]).all() for k in bound)


@given(st.sampled_from(("critical", "expanding", "saturated")), st.integers(0, 2**32 - 1))
def test_one_step_of_one_unit_is_the_chain_rule_as_taught_at_school(regime, seed):
    problem = random_problem(T=1, B=None, D=1, H=1, O=1, regime=regime, seed=seed)
    a = arguments_of(problem) | {"dh_last": np.zeros(1)}
    w, u, b, v, x, h0, dy = (a[k].item() for k in ("W", "U", "b", "V", "x", "h0", "dy"))
    h = np.tanh(w * h0 + u * x + b)
    da = dy * v * (1 - h * h)
    expected = {"W": da * h0, "U": da * x, "b": da, "V": dy * h, "c": dy, "x": da * u, "h0": da * w}
    found, bound = run(a), bounds(a, 2.0**-53)
    assert all(abs(found[k].item() - expected[k]) <= 2 * bound[k].item() for k in expected)
