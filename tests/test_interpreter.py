"""A jaxpr carried out in NumPy gives what JAX gives: each operation, loops, branches and calls."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jax import lax

import reference
from reference.devices import float64_on_cpu
from reference.jaxprs import Interpreter, Tiered, computed, equations, made, name, traced
from reference.jaxprs.in_numpy import OPERATIONS
from reference.jaxprs.tiers import COMPILING

RNG = np.random.default_rng(0)
A, B = RNG.normal(size=(2, 3, 4))
POSITIVE, SMALL = np.abs(A) + 0.5, np.tanh(A)
WHOLE = np.array([[-7, 7, 5, -1], [0, 3, -8, 2], [9, -9, 1, 4]])
BY = np.array([[2, -2, 3, 4], [1, -3, 3, -1], [-4, 4, 2, 3]])
HALVES = np.array([-2.5, -1.5, -0.5, 0.49999999999999994, 0.5, 1.5, 2.5, 1e300, np.inf])
SPECIAL = np.array([0.0, -0.0, np.inf, -np.inf, np.nan, 1e-310, 710.0, -710.0, 1e-8])
NORMAL = SPECIAL[SPECIAL != 1e-310]  # XLA takes what is below the smallest of these for zero
BITS = np.array([0, 1, -1, 2**62, -(2**63), 12345], np.int64)
LOGICAL = np.array([True, False, True])
FOUR = RNG.normal(size=(2, 3, 4, 5))
EMPTY = np.zeros(0)
NARROW = A.astype(np.float16)
STACK, OTHERS = RNG.normal(size=(2, 3, 4)), RNG.normal(size=(2, 5, 4))


EVERY = lax.GatherDimensionNumbers((1, 2), (), ())  # at no index: all windows are the first


def rounded(method):
    return lambda x: lax.round(x, method)


# Whatever makes one of the operations, with what it is tried on.
MADE_BY = {
    "dot_general": [
        (jnp.dot, A, B.T), (jnp.dot, A, B[0]), (jnp.dot, A[0], B[0]), (jnp.outer, A[0], B[1]),
        (lambda a, b: jnp.einsum("bij,bkj->bki", a, b), STACK, OTHERS),
        (lambda a, b: jnp.einsum("bij,bkj->bik", a, b), STACK, OTHERS),
        (lambda a, b: jnp.einsum("bij,bkj->ik", a, b), STACK, OTHERS),
        (lambda a, b: jnp.einsum("bij,bij->bi", a, b), STACK, STACK),
        (jnp.matmul, WHOLE, BY.T), (jnp.matmul, A.astype("f"), B.T.astype("f")),
        (lambda a, b: jnp.dot(a, b, preferred_element_type=float), A.astype("f"), B.T.astype("f")),
        (jnp.dot, A.astype(jnp.bfloat16), B.T.astype(jnp.bfloat16)),
        (jnp.dot, np.zeros((3, 0)), np.zeros((0, 2))), (jnp.dot, A + 1j * B, B.T),
        (lambda a, b: jnp.einsum("abi,bai->ba", a, b), STACK, STACK.swapaxes(0, 1)),
        (lambda a, b: jnp.einsum("abij,bakj->baik", a, b), FOUR, FOUR.swapaxes(0, 1)),
        (jax.vmap(jax.vmap(jnp.dot), (1, 1)), STACK, STACK),
        (jax.vmap(jax.vmap(jnp.matmul, (1, 0)), (2, 0)), FOUR, FOUR.transpose(2, 1, 3, 0)),
        (jnp.dot, np.full(3001, 7777, np.int16), np.full(3001, 7777, np.int16)),
    ],
    "div": [
        (lax.div, A, B), (lax.div, WHOLE, BY), (lax.div, WHOLE, 0 * BY),
        (lax.div, SPECIAL, SPECIAL[::-1].copy()),
    ],
    "logistic": [(jax.nn.sigmoid, a) for a in (A, SPECIAL, NARROW, A + 1j * B)],
    "select_n": [
        (jnp.where, A > 0, A, B), (lambda a, b: jnp.where(jnp.max(a) > 0, a, b), A, B),
        (lax.select_n, np.array([0, 2, 1], np.int32), A[:, 0], B[:, 0], A[:, 1]),
        (lambda i: jnp.select([i == j for j in range(70)], [i + j for j in range(70)]), WHOLE),
        (lambda i: lax.select_n(i, *(i + j for j in range(70))), np.arange(3, dtype=np.int32)),
    ],
    "clamp": [(lambda a: lax.clamp(-0.5, a, 0.5), A), (lax.clamp, A - 1, B, A)],
    "round": [
        (rounded(method), values)
        for method in (lax.RoundingMethod.AWAY_FROM_ZERO, lax.RoundingMethod.TO_NEAREST_EVEN)
        for values in (HALVES, -HALVES, SPECIAL)
    ],
    "integer_pow": [(lambda a, n=n: a**n, A) for n in (-3, -1, 2, 3, 5)]
    + [(lambda a: a**3, WHOLE), (lambda a: lax.integer_pow(a, 200), WHOLE.astype(np.int8))]
    + [(lambda a: lax.integer_pow(a, 3001), -np.ones(2, np.float16))],
    "pow": [(jnp.power, POSITIVE, B), (lax.pow, POSITIVE, BY), (jnp.power, A + 0j, B - 1j)],
    "convert_element_type": [
        (lambda a: a.astype(jnp.float32), A), (lambda a: a.astype(int), 9 * A),
        (lambda a: a.astype(jnp.bfloat16).astype(float), A), (lambda a: a.astype(bool), WHOLE),
        (lambda a: a.astype(complex), A), (lambda a: a.astype(np.int32), SPECIAL * 1e30),
        (lambda a: a.astype(np.uint8), 300 * A), (lambda a: a.astype(np.int8), 300 * WHOLE),
        (jax.grad(lambda a: jnp.sum(a.astype(complex) * (2 + 1j)).real), A),  # complex to real
    ],
    "bitcast_convert_type": [
        (lambda a: lax.bitcast_convert_type(a, jnp.uint64), SPECIAL),
        (lambda a: lax.bitcast_convert_type(a, jnp.uint32), A),
    ],
    **{
        key: [(lambda a, f=f: f(a, a.dtype.type(3)), bits) for bits in (BITS, BITS.view("u8"))]
        for key, f in {
            "shift_right_logical": lax.shift_right_logical,
            "shift_right_arithmetic": lax.shift_right_arithmetic,
            "shift_left": lax.shift_left,
        }.items()
    },
    "iota": [(lambda a: a * lax.broadcasted_iota(float, (3, 4), 1), A)],
    "reduce_sum": [
        (jnp.sum, A), (lambda a: a.sum((0, 2)), STACK), (jnp.sum, LOGICAL),
        (jnp.sum, np.full(5000, 1.01, np.float16)), (jnp.sum, np.zeros((0, 3))),
    ],
    "reduce_max": [
        (lambda a: a.max(1), A), (jnp.max, SPECIAL), (jax.nn.logsumexp, EMPTY),
        (lambda a: jnp.max(a, initial=0.5), EMPTY),
    ],
    "reduce_min": [
        (lambda a: a.min(0), A), (jnp.min, SPECIAL), (lambda a: jnp.min(a, initial=0.5), EMPTY),
    ],
    "reduce_prod": [(jnp.prod, A), (lambda a: a.prod(0), WHOLE)],
    "reduce_and": [(lambda a: (a > 0).all(1), A)],
    "reduce_or": [(lambda a: (a > 1).any(0), A)],
    "cumsum": [
        (lambda a: lax.cumsum(a, 1), A), (lambda a: lax.cumsum(a, 0, reverse=True), A),
        (lax.cumsum, np.full(4, 100, np.int8)), (lax.cumsum, np.full(3, 2**30, np.int32)),
        (lax.cumsum, np.full(5000, 1.01, jnp.bfloat16)),
    ],
    "cumprod": [(lambda a: lax.cumprod(a, 1), A), (lambda a: lax.cumprod(a, 0, reverse=True), A)],
    "broadcast_in_dim": [
        (lambda a: lax.broadcast_in_dim(a, (2, 3, 5, 4), (1, 3)), A),
        (lambda a: jnp.broadcast_to(a, (2, 2)), np.float64(3)),
        (lambda a: a[:, None] + 1, A),
    ],
    "reshape": [(lambda a: a.reshape(2, 6), A), (lambda a: a.T.reshape(-1), A)],
    "squeeze": [(jnp.squeeze, A[:1])],
    "transpose": [(lambda a: jnp.transpose(a, (2, 0, 1)), STACK)],
    "slice": [(lambda a: lax.slice(a, (0, 1), (3, 4), (2, 2)), A)],
    "concatenate": [(lambda a, b: jnp.concatenate([a, b, a], 1), A, B)],
    "split": [(lambda a: jnp.split(a, [1, 3], axis=1), A)],
    "rev": [(lambda a: lax.rev(a, (1,)), A), (lambda a: lax.rev(a, (0, 1)), A)],
    "pad": [
        (lambda a, config=config: lax.pad(a, 2.0, config), A)
        for config in (((1, 0, 0), (0, 2, 0)), ((-1, 2, 0), (0, -1, 0)), ((0, 0, 2), (1, 0, 1)))
    ],
    "dynamic_slice": [
        (lambda a, i: lax.dynamic_slice(a, (i, 1), (2, 2)), A, np.int64(i)) for i in (-9, 0, 1, 9)
    ],
    "dynamic_update_slice": [
        (lambda a, b, i: lax.dynamic_update_slice(a, b, (i, 1)), A, B[:2, :2], np.int64(i))
        for i in (-9, 0, 1, 9)
    ],
    "gather": [
        (lambda a, i: a[i], A, np.array([2, 0, 0, -1])),
        (lambda a, i: a[i], A, np.array([[2, 0], [7, -9]])),
        (lambda a, i: a[:, i], A, np.array([2, 0])),
        (lambda a, i, j: a[i, j], A, np.array([2, 0]), np.array([[1], [3]])),
        (lambda a, i: a.at[i].get(mode="fill"), A, np.array([1, 5])),
        (lambda a, i: jnp.take_along_axis(a, i, 1), A, np.array([[3], [0], [1]])),
        (jax.vmap(lambda a, i: lax.dynamic_slice(a, (i,), (2,))), A, np.array([0, 2, 5])),
        (jax.vmap(lambda a, i: lax.dynamic_slice(a, (i,), (2,)), (0, None)), A, np.int64(5)),
        (jax.vmap(lambda a, i: a[i], (1, 0)), A, np.array([0, 2, 1, 1])),
        (lambda a, i: a.at[i].get(mode="clip"), A, np.array([1, 2**63 + 1], np.uint64)),
        (lambda a, i: lax.gather(a, i, EVERY, (2, 3), mode="clip"), A, np.zeros((3, 0), int)),
    ],
    "copy": [(jnp.copy, A)],
    "stop_gradient": [(lax.stop_gradient, A)],
    **{
        key: [(function, *arguments)]
        for key, (function, *arguments) in {
            "expand_dims": (lambda a: jnp.expand_dims(a, 1), A),
            "add": (jnp.add, A, B), "sub": (jnp.subtract, A, B), "mul": (jnp.multiply, A, B),
            "neg": (jnp.negative, A), "max": (jnp.maximum, SPECIAL, SPECIAL[::-1].copy()),
            "min": (jnp.minimum, SPECIAL, SPECIAL[::-1].copy()), "tanh": (jnp.tanh, A),
            "exp": (jnp.exp, A), "exp2": (jnp.exp2, A), "log": (jnp.log, POSITIVE),
            "log1p": (jnp.log1p, POSITIVE), "expm1": (jnp.expm1, A), "sqrt": (jnp.sqrt, POSITIVE),
            "rsqrt": (lax.rsqrt, POSITIVE), "square": (jnp.square, A), "cbrt": (jnp.cbrt, A),
            "sin": (jnp.sin, A), "cos": (jnp.cos, A), "tan": (jnp.tan, A),
            "asin": (jnp.arcsin, SMALL), "acos": (lax.acos, SMALL), "atan": (jnp.arctan, A),
            "atan2": (jnp.arctan2, A, B), "sinh": (jnp.sinh, A), "cosh": (jnp.cosh, A),
            "asinh": (jnp.arcsinh, A), "acosh": (jnp.arccosh, POSITIVE + 1),
            "atanh": (jnp.arctanh, SMALL), "abs": (jnp.abs, SPECIAL), "sign": (jnp.sign, NORMAL),
            "floor": (jnp.floor, HALVES), "ceil": (jnp.ceil, HALVES),
            "eq": (jnp.equal, WHOLE, BY), "ne": (jnp.not_equal, WHOLE, BY), "lt": (jnp.less, A, B),
            "le": (jnp.less_equal, WHOLE, BY), "gt": (jnp.greater, A, B),
            "ge": (jnp.greater_equal, WHOLE, BY), "and": (jnp.bitwise_and, WHOLE, BY),
            "or": (jnp.bitwise_or, WHOLE, BY), "xor": (jnp.bitwise_xor, WHOLE, BY),
            "not": (jnp.logical_not, LOGICAL), "is_finite": (jnp.isfinite, SPECIAL),
        }.items()
    },
}  # fmt: skip
NOT_MADE = {"add_any", "copy_p", "stop_gradient", "expand_dims"}  # what JAX writes otherwise here


def same(got, expected):
    """Whether two results of an operation are the same but for some units of rounding."""
    got, expected = np.asarray(got), np.asarray(expected)
    assert got.shape == expected.shape
    assert got.dtype == expected.dtype
    with np.errstate(all="ignore"):
        exact = expected.dtype.kind not in "fc"
        u = 0 if exact else float(jnp.finfo(expected.dtype).eps)
        np.testing.assert_allclose(got, expected, rtol=16 * u, atol=16 * u)
    if expected.dtype.kind == "f":
        finite = np.isfinite(expected)
        assert np.array_equal(np.signbit(got[finite]), np.signbit(expected[finite]))


@pytest.mark.parametrize("operation", sorted({*MADE_BY} - NOT_MADE))
def test_an_operation_in_numpy_is_that_of_jax(operation):
    tried = 0
    with float64_on_cpu(), np.errstate(all="ignore"):
        for function, *arguments in MADE_BY[operation]:
            jaxpr = traced(function, *arguments)[0]
            names = {name(equation) for equation in equations(jaxpr)}
            tried += operation in names
            found = Interpreter(jaxpr)(*map(np.asarray, arguments))
            expected = jax.tree.leaves(jax.jit(function)(*arguments))
            for one, other in zip(found, expected, strict=True):
                same(one, other)
    assert tried, f"nothing here is {operation}"


def test_every_operation_of_the_table_is_tried():
    assert {*OPERATIONS} - NOT_MADE == {*MADE_BY} - NOT_MADE


def test_an_operation_that_is_not_in_the_table_is_left_to_jax():
    with float64_on_cpu():
        (equation,) = equations(traced(lax.erf_inv, SMALL)[0])
        assert name(equation) not in OPERATIONS
        (found,), (expected,) = made(equation)(SMALL), computed(equation, [SMALL])
        assert np.array_equal(found, expected)


def looped(x, w):
    def step(carry, x):
        h, n = carry
        h = jnp.tanh(w @ h + x)
        h = lax.cond(n % 3 == 0, lambda h: 2 * h, lambda h: h[::-1], h)
        return (h, n + 1), (h.sum(), n)

    (h, _), (sums, numbers) = lax.scan(step, (jnp.ones(3), 0), x)
    (back, _), more = lax.scan(step, (h, 5), x, reverse=True)
    doubled = lax.while_loop(lambda v: v.max() < 9.0, lambda v: 2 * v, jnp.abs(back) + 0.1)
    several = jax.vmap(lambda v: lax.while_loop(lambda c: c < 100.0, lambda c: 2 * c + 1, v))
    return (
        several(jnp.abs(h)),
        h,
        sums,
        numbers,
        back,
        more,
        lax.fori_loop(0, 3, lambda i, v: v + i, doubled),
    )


@pytest.mark.parametrize("T", [0, 1, 7])
@pytest.mark.parametrize(
    "function", [looped, lambda x, w: jax.grad(lambda w: looped_sum(x, w))(w), jax.jit(looped)]
)
def test_loops_branches_and_calls_are_followed(T, function):
    x, w = RNG.normal(size=(T, 3)), RNG.normal(size=(3, 3)) / 2
    with float64_on_cpu():
        jaxpr = traced(function, x, w)[0]
        for one, other in zip(
            Interpreter(jaxpr)(x, w), jax.tree.leaves(function(x, w)), strict=True
        ):
            np.testing.assert_allclose(one, other, rtol=1e-12, atol=1e-14)


def test_keys_of_random_numbers_are_carried_along():
    def function(x, key):
        def step(h, key):
            return h + x * jax.random.normal(key), jax.random.split(key)[0]

        h, keys = lax.scan(step, x, jax.random.split(key))
        keys = jnp.concatenate([keys, keys[:1]])[:, None]
        return h * jax.random.uniform(jnp.where(x[0, 0] > 0, keys[1, 0], keys[2, 0]))

    with float64_on_cpu():
        key = jax.random.key(1)
        (found,) = Interpreter(traced(function, A, key)[0])(A, key)
        np.testing.assert_allclose(found, function(A, key), rtol=1e-12)
    np.testing.assert_allclose(Tiered(function, A, key)(A, key), found, rtol=1e-12)


def looped_sum(x, w):
    def step(h, x):
        return jax.checkpoint(lambda h: jnp.tanh(w @ h + x))(h), h**2

    h, squares = lax.scan(step, jnp.ones(3), x)
    return jnp.sum(h) + jnp.sum(squares)


def test_an_interpreter_keeps_nothing_and_changes_none_of_its_arguments():
    def function(x):
        return x.at[0].set(5.0), lax.dynamic_update_slice(x, x[:1], (2,)), x[::-1]

    x = np.arange(4.0)
    with float64_on_cpu():
        run = Interpreter(traced(function, x)[0])
        first = run(x)
        assert np.array_equal(x, np.arange(4.0))
        again = run(x + 1)
        assert np.array_equal(first[1], [0.0, 1.0, 0.0, 3.0])
        assert np.array_equal(again[1], [1.0, 2.0, 1.0, 4.0])


def test_what_depends_on_no_argument_is_computed_once():
    def function(x):
        return lax.mul(x, jnp.tanh(jnp.arange(3.0)).sum())

    with float64_on_cpu():
        assert Interpreter(traced(function, np.float64(0))[0]).size == 1


# Tiers -------------------------------------------------------------------------------------------


def sum_of_tanh(x):
    return {"sum": jnp.tanh(x).sum(), "as it was": x}


def test_a_function_is_compiled_when_it_was_called_as_often_as_that_takes():
    x = np.array([0.5, 2.0])
    program = Tiered(sum_of_tanh, x)
    calls = 0
    while not program.compiled:
        program(x)
        calls += 1
        assert calls <= COMPILING + 1
    assert calls == COMPILING + 1  # all of its operations are carried out at each call


@given(calls=st.integers(1, 2 * COMPILING))
def test_a_function_of_which_many_calls_are_expected_is_compiled_before_the_first(calls):
    program = Tiered(sum_of_tanh, np.zeros(2))
    program.expect(calls)
    assert program.compiled == (calls > COMPILING)


def test_both_tiers_give_the_same():
    x = RNG.normal(size=50)
    program = Tiered(sum_of_tanh, x)
    early = program(x)
    program.expect(10**9)
    late = program(x)
    assert early.keys() == late.keys()
    for k, value in early.items():
        same(value, late[k])


@pytest.mark.parametrize("wrong", [np.zeros(3), np.zeros(2, np.float32), np.zeros((2, 1))])
def test_arguments_of_other_shapes_or_dtypes_are_refused(wrong):
    program = Tiered(sum_of_tanh, np.zeros(2))
    with pytest.raises(ValueError, match=r"array 0 .* expected float64 of shape \(2,\)"):
        program(wrong)


# What NumPy computes is compared with what XLA does -----------------------------------------------


@pytest.fixture
def tanh_is_off(monkeypatch):
    """Let NumPy's tanh be wrong by a millionth."""
    monkeypatch.setitem(OPERATIONS, "tanh", lambda _: lambda a: np.tanh(a) * (1 + 1e-6))


def test_a_small_error_shows_though_the_interpreter_has_a_larger_one(tanh_is_off):
    def loss(w):
        return jnp.sum(jnp.tanh(w) ** 2)

    def gradient(w):
        return 2 * np.tanh(w) * (1 - np.tanh(w) ** 2)

    assert reference.check_gradient(loss, gradient, A).passed
    assert not reference.check_gradient(loss, lambda w: (1 + 1e-9) * gradient(w), A).passed


def test_so_it_does_where_the_interpreter_is_right_in_other_arguments(tanh_is_off):
    def loss(both):
        return jnp.sum(jnp.tanh(both[0]) ** 2) + jnp.sum(both[1] ** 2)

    def gradient(both, factor=1.0):
        return factor * 2 * np.tanh(both[0]) * (1 - np.tanh(both[0]) ** 2), 2 * both[1]

    assert reference.check_gradient(loss, gradient, (A, B)).passed
    assert not reference.check_gradient(loss, lambda v: gradient(v, 1 + 1e-9), (A, B)).passed


def test_nor_is_a_right_gradient_left_undecided_by_what_is_no_number(monkeypatch):
    monkeypatch.setitem(OPERATIONS, "tanh", lambda _: lambda a: np.nan * a)
    report = reference.check_gradient(lambda w: jnp.sum(jnp.tanh(w)), lambda w: np.cosh(w) ** -2, A)
    assert report.passed, report


def test_so_it_does_in_a_network(tanh_is_off):
    def step(p, h, x):
        return jnp.tanh(p["W"] @ h + p["U"] @ x)

    cell = reference.Cell(step, params={"W": "HH", "U": "HD"}, state="H")
    options = {"T": 5, "B": 2, "D": 3, "H": 3, "O": 2, "regime": "critical", "seed": 0}
    problem = reference.random_problem(**options, cell=cell)

    def by_autodiff(p, x, h0, target, factor=1.0):
        found = reference.gradients(p, x, target, h0=h0, cell=cell)
        return {k: factor * found[k] for k in ("W", "V", "h0")}

    for factor, status in ((1.0, "match"), (1 + 1e-9, "mismatch")):
        judged = reference.judge(lambda *given, f=factor: by_autodiff(*given, factor=f), [problem])
        rows = [row for row in reference.Report.of(judged).rows if row.ratio is not None]
        assert {row.status for row in rows} == {status}


def test_loops_at_once_of_which_some_end_before_others_have_tolerances_of_their_own():
    def grown(v):
        return lax.while_loop(lambda c: c < 100.0, lambda c: 2.5 * c + 0.3, v)

    def loss(x):
        return jnp.sum(x * jax.vmap(grown)(lax.stop_gradient(jnp.abs(x))))

    def gradient(x):
        c = np.abs(x)
        while (c < 100).any():
            c = np.where(c < 100, 2.5 * c + 0.3, c)
        return c

    x = np.array([0.01, 3.0, 40.0, 150.0])
    assert reference.check_gradient(loss, gradient, x).passed
    assert not reference.check_gradient(loss, lambda x: gradient(x) * (1 + 1e-9), x).passed
