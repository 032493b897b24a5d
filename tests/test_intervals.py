"""The rules of intervals: what is true lies between the ends, and the ends are near each other.

Each operation is carried out by mpmath with 400 bits on NumPy's arrays, and in intervals with 200:
from numbers that are known, and from intervals, of which numbers are tried.
"""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.ad_checkpoint import checkpoint_name
from mpmath import MPContext, MPIntervalContext

from reference import jaxprs
from reference.devices import float64_on_cpu
from reference.rounding.intervals import RULES, enclosed, evaluate

BITS = 200
mp = MPContext()
mp.prec = 400
exact = np.frompyfunc(lambda number: mp.mpf(float(number)), 1, 1)
exp, log, sin, cos, sqrt, tanh = (
    np.frompyfunc(getattr(mp, name), 1, 1) for name in ("exp", "log", "sin", "cos", "sqrt", "tanh")
)
sign = np.frompyfunc(mp.sign, 1, 1)
RNG = np.random.default_rng(0)
SIGNED = RNG.standard_normal((2, 3, 4))
POSITIVE = np.abs(SIGNED) + 0.5
SQUARES = RNG.standard_normal((2, 3, 3))
BATCHES = RNG.standard_normal((2, 2, 3, 3))
INDEX = np.array([2, 0, 2])


def padded(a):
    found = np.full((3, 8), mp.mpf(3))
    found[1:, :7:2] = a[:2]
    return found


# Name: the function of JAX, the same in mpmath, the operands.
OPERATIONS = {
    "sum": (lambda a, b: a + b - 2.5 * a, lambda a, b: a + b - 2.5 * a, SIGNED),
    "product": (lambda a, b: -a * b, lambda a, b: -a * b, SIGNED),
    "quotient": (lambda a, b: a / b, lambda a, b: a / b, POSITIVE),
    "powers": (lambda a, b: a**3 + b**-2 + jnp.square(a), lambda a, b: a**3 + 1 / (b * b) + a * a,
               SIGNED),
    "any power": (lambda a, b: a**0.3 + b**2.0 + a**-b,
                  lambda a, b: exp(mp.mpf(0.3) * log(a)) + b * b + exp(-b * log(a)), POSITIVE),
    "roots": (lambda a, b: jnp.sqrt(a) + lax.rsqrt(b), lambda a, b: sqrt(a) + 1 / sqrt(b),
              POSITIVE),
    "magnitude": (lambda a, b: jnp.abs(a) * jnp.sign(b), lambda a, b: np.abs(a) * sign(b), SIGNED),
    "larger": (lambda a, b: jnp.maximum(a, b) + jnp.minimum(a, 0.25),
               lambda a, b: np.maximum(a, b) + np.minimum(a, mp.mpf(0.25)), SIGNED),
    "clipped": (lambda a, b: lax.clamp(-0.5, a, 0.75),
                lambda a, b: np.minimum(np.maximum(a, mp.mpf(-0.5)), mp.mpf(0.75)), SIGNED),
    "exponential": (lambda a, b: jnp.exp(a) + jnp.expm1(b), lambda a, b: exp(a) + exp(b) - 1,
                    SIGNED),
    "logarithm": (lambda a, b: jnp.log(a) + jnp.log1p(b), lambda a, b: log(a) + log(1 + b),
                  POSITIVE),
    "waves": (lambda a, b: jnp.sin(a) + jnp.cos(b), lambda a, b: sin(a) + cos(b), SIGNED),
    "tanh": (lambda a, b: jnp.tanh(a * b), lambda a, b: tanh(a * b), SIGNED),
    "logistic": (lambda a, b: jax.nn.sigmoid(a - b), lambda a, b: 1 / (1 + exp(b - a)), SIGNED),
    "matrix": (lambda a, b: a @ b, lambda a, b: a @ b, SQUARES),
    "matrices": (lambda a, b: jnp.einsum("bij,bkj->kbi", a, b),
                 lambda a, b: np.einsum("bij,bkj->kbi", a, b), BATCHES),
    "sum of entries": (lambda a, b: a.sum(1) + (a * b).sum(),
                       lambda a, b: a.sum(1) + (a * b).sum(), SIGNED),
    "moved": (lambda a, b: jnp.concatenate([a.T[1:, ::2], b.T[:3, 1:]], 1)[::-1].reshape(-1),
              lambda a, b: np.concatenate([a.T[1:, ::2], b.T[:3, 1:]], 1)[::-1].reshape(-1),
              SIGNED),
    "split": (lambda a, b: sum(k * part for k, part in enumerate(jnp.split(a[:, 1:], 3, 1), 1)),
              lambda a, b: sum(k * a[:, k : k + 1] for k in (1, 2, 3)), SIGNED),
    "more axes": (lambda a, b: jnp.broadcast_to(a, (2, 3, 4)) * b[:, 1][:, None],
                  lambda a, b: np.stack([a * b[:, 1:2]] * 2), SIGNED),
    "padded": (lambda a, b: lax.pad(a, 3.0, ((1, -1, 0), (0, 1, 1))),
               lambda a, b: padded(a), SIGNED),
    "taken": (lambda a, b: a[INDEX] * lax.dynamic_slice(b, (jnp.int32(0), jnp.int32(1)), (3, 1)),
              lambda a, b: a[INDEX] * b[:, 1:2], SIGNED),
    "put": (lambda a, b: a.at[1].set(b[0]), lambda a, b: np.stack([a[0], b[0], a[2]]), SIGNED),
    "put in place": (lambda a, b: lax.dynamic_update_slice(a, b[:1], (jnp.int32(2), jnp.int32(0))),
                     lambda a, b: np.stack([a[0], a[1], b[0]]), SIGNED),
    "added in places": (lambda a, b: a.at[INDEX].add(b),
                        lambda a, b: np.stack([a[0] + b[1], a[1], a[2] + b[0] + b[2]]), SIGNED),
    "choice": (lambda a, b: jnp.where((a > b) & ~(a > 1.0) | (b >= a), a, b * b),
               lambda a, b: np.where((a > b) & ~(a > 1) | (b >= a), a, b * b), SIGNED),
    "comparisons": (lambda a, b: (a < b) * 1.0 + (a <= b) * 2.0 + (a == a) * 4.0 + (a != b) * 8.0
                    + (a <= a) * 16.0 + (a >= b) * 32.0,
                    lambda a, b: (a < b) * mp.mpf(3) + (a > b) * mp.mpf(32) + 28, SIGNED),
    "counted": (lambda a, b: jnp.arange(4.0) * b, lambda a, b: exact(np.arange(4)) * b, SIGNED),
    "derivative": (lambda a, b: jax.grad(lambda a: jnp.sum(jnp.tanh(a) * a * b))(a),
                   lambda a, b: (1 - tanh(a) ** 2) * a * b + tanh(a) * b, SIGNED),
    "as it is": (lambda a, b: jnp.copy(a) + jax.checkpoint(jnp.tanh)(b)
                 + lax.optimization_barrier(lax.stop_gradient(checkpoint_name(a, "a"))),
                 lambda a, b: 2 * a + tanh(b), SIGNED),
    "relu": (lambda a, b: jax.nn.relu(a), lambda a, b: np.maximum(a, mp.mpf(0)), SIGNED),
    "scan": (lambda a, b: lax.scan(lambda h, x: (h * x[0] + x[1], h), a[0], (a, b))[1],
             lambda a, b: np.stack([a[0], a[0] * a[0] + b[0],
                                    (a[0] * a[0] + b[0]) * a[1] + b[1]]), SIGNED),
    "scan from the end": (
        lambda a, b: lax.scan(lambda h, x: (h * x, h + x), b[0], a, reverse=True)[1],
        lambda a, b: np.stack([b[0] * a[2] * a[1] + a[0], b[0] * a[2] + a[1], b[0] + a[2]]),
        SIGNED),
    "loop": (lambda a, b: lax.fori_loop(0, 3, lambda i, h: h * b + i, a),
             lambda a, b: (((a * b) * b) + 1) * b + 2, SIGNED),
    "while": (lambda a, b: lax.while_loop(lambda h: h.sum() < 9, lambda h: h + b, a),
              lambda a, b: a + b * next(n for n in range(99) if (a + n * b).sum() >= 9), POSITIVE),
    "branches": (lambda a, b: lax.cond(a[0, 0] > b[0, 0], jnp.sin, jnp.cos, a),
                 lambda a, b: sin(a) if a[0, 0] > b[0, 0] else cos(a), SIGNED),
}  # fmt: skip


def ends(intervals):
    """Return the lower and the upper ends of an array of intervals."""
    low = np.frompyfunc(lambda interval: mp.make_mpf(interval._mpi_[0]), 1, 1)(intervals)
    high = np.frompyfunc(lambda interval: mp.make_mpf(interval._mpi_[1]), 1, 1)(intervals)
    return low, high


def assert_holds(intervals, true, width):
    assert intervals.shape == np.shape(true)
    low, high = ends(intervals)
    assert np.all(low <= true)
    assert np.all(true <= high)
    assert np.all(high - low <= width)


@pytest.mark.parametrize("name", OPERATIONS)
def test_what_is_true_lies_between_ends_that_are_near(name):
    in_jax, in_mpmath, (a, b) = OPERATIONS[name]
    found = enclosed(in_jax, a, b)(BITS, a, b)
    assert_holds(found, in_mpmath(exact(a), exact(b)), mp.ldexp(1, 20 - BITS))


def used(function, *arguments):
    with float64_on_cpu():
        return {jaxprs.name(e) for e in jaxprs.equations(jaxprs.traced(function, *arguments)[0])}


def test_every_rule_is_among_the_operations_but_what_newer_versions_write():
    found = set.union(*(used(in_jax, *operands) for in_jax, _, operands in OPERATIONS.values()))
    assert set(RULES) - found <= {"one_minus_square"}


@pytest.mark.parametrize("name", [name for name in OPERATIONS if name not in ("while", "branches")])
def test_whatever_lies_in_the_operands_gives_what_lies_in_the_result(name):
    in_jax, in_mpmath, operands = OPERATIONS[name]
    rng = np.random.default_rng(1)
    widths = [2e-3 * rng.random(a.shape) for a in operands]
    wide = [between(a, a + w) for a, w in zip(operands, widths, strict=True)]
    (found,) = of_intervals(in_jax, *wide)
    low, high = ends(found)
    lowest, highest = high, low
    for _ in range(20):
        where = [rng.choice([0.0, rng.random(), 1.0], a.shape) for a in operands]
        tried = zip(operands, widths, where, strict=True)
        true = in_mpmath(*(exact(a) + exact(s) * (exact(a + w) - exact(a)) for a, w, s in tried))
        lowest, highest = np.minimum(lowest, true), np.maximum(highest, true)
    assert np.all(low <= lowest)
    assert np.all(highest <= high)
    known = np.minimum(high - low, 1)  # where a choice is open, the cases may lie far apart
    assert np.median(known.astype(float)) <= 20 * np.median((highest - lowest).astype(float))


def context():
    iv = MPIntervalContext()
    iv.prec = BITS
    return iv


def between(low, high):
    return np.frompyfunc(lambda a, b: context().mpf([float(a), float(b)]), 2, 1)(low, high)


def of_intervals(function, *operands):
    """Return what a function of JAX makes of arrays of intervals."""
    with float64_on_cpu():
        jaxpr, _ = jaxprs.traced(function, *(np.zeros(np.shape(a)) for a in operands))
        return evaluate(jaxpr, operands, context())


@pytest.mark.parametrize(
    ("function", "argument", "value"),
    [
        (jnp.exp, 0, 1), (jnp.tanh, 0, 0), (jax.nn.sigmoid, 0, 0.5), (jnp.expm1, 0, 0),
        (jnp.log1p, 0, 0), (jnp.log, 1, 0), (jnp.sin, 0, 0), (jnp.cos, 0, 1), (jnp.sqrt, 9, 3),
        (jnp.sign, 0, 0), (jax.nn.relu, 0, 0), (jax.grad(jax.nn.relu), 0, 0),
        (jax.grad(jnp.tanh), 0, 1), (lambda a: a**0.0, 2, 1), (lambda a: a / 2, 3, 1.5),
    ],
)  # fmt: skip
def test_what_is_exact_has_no_width(function, argument, value):
    found = enclosed(function, 1.0)(BITS, float(argument))[()]
    assert found == value


def test_an_open_choice_holds_all_cases_and_a_decided_one_its_own():
    near_zero = between(np.array([-0.5, 0.25, -2.0]), np.array([1.0, 3.0, -1.0]))
    for function, expected in {
        lambda a: jnp.where(a > 0, a + 10, 5.0): [(5, 11), (10.25, 13), (5, 5)],
        lambda a: jnp.where(a > 0, 2.0, jnp.where(a < 0, 1.0, 0.0)): [(0, 2), (2, 2), (1, 1)],
        lambda a: jnp.where((a > 0) | (a < -9), 1.0, 0.0): [(0, 1), (1, 1), (0, 0)],
        lambda a: jnp.where((a > 0) | (a > -9), 1.0, 0.0): [(1, 1), (1, 1), (1, 1)],
        lambda a: jnp.where(~(a == 0), 1.0, 0.0): [(0, 1), (1, 1), (1, 1)],
        lambda a: jax.nn.relu(a): [(0, 1), (0.25, 3), (0, 0)],
        jnp.sign: [(-1, 1), (1, 1), (-1, -1)],
        jnp.abs: [(0, 1), (0.25, 3), (1, 2)],
    }.items():
        (found,) = of_intervals(function, near_zero)
        assert [*zip(*ends(found), strict=True)] == expected


def test_every_floating_number_is_a_real_number_and_whole_numbers_are_exact():
    def third(x):
        narrow = x.astype(jnp.float32) / 3
        return narrow.astype(jnp.bfloat16) + jnp.float32(2**60 + jnp.arange(2, dtype=jnp.int64))

    for dtype in ("float32", "float64"):
        found = enclosed(third, np.ones(2, dtype))(BITS, np.ones(2, dtype))
        whole = np.array([mp.mpf(2**60), mp.mpf(2**60 + 1)])
        assert_holds(found, whole + mp.mpf(1) / 3, mp.ldexp(1, 70 - BITS))


def test_a_number_is_cut_to_a_whole_one_where_it_is_known():
    found = enclosed(lambda x: x.astype(int) * 2.0, 1.0)(BITS, 2.75)[()]
    assert found == 4


def test_more_bits_make_narrower_intervals():
    for bits in (100, 200, 300):
        width = float(enclosed(jnp.exp, 1.0)(bits, 0.3)[()].delta)
        assert 0 < width <= 2.0 ** (12 - bits)


def test_mpmath_may_be_off_by_some_units():
    for function, true in {jnp.exp: exp, jnp.log: log, jnp.sin: sin, jnp.cos: cos}.items():
        low, high = ends(enclosed(function, 1.0)(BITS, 2.3))
        value = true(mp.mpf(2.3))
        units = 100 * abs(value) * mp.ldexp(1, -BITS)
        assert low <= value - units
        assert value + units <= high


@pytest.mark.parametrize(
    "function",
    [
        lambda a: lax.while_loop(lambda h: h < 1, lambda h: h + 1, a),
        lambda a: lax.cond(a > 1, jnp.sin, jnp.cos, a),
        lambda a: jnp.arange(3.0)[(3 * a).astype(int)],
    ],
)
def test_what_depends_on_an_open_number_is_refused(function):
    with pytest.raises(ArithmeticError, match="depends on a number that so few bits leave open"):
        of_intervals(function, between(np.array(0.5), np.array(1.5)))


def test_an_operation_without_a_rule_is_named_with_its_line():
    def unknown(a):
        return lax.lgamma(a) + 1

    line = inspect.getsourcelines(unknown)[1] + 1
    with pytest.raises(NotImplementedError, match=rf"lgamma \(.*test_intervals.py:{line}\b"):
        enclosed(unknown, 1.0)(BITS, 2.0)
