"""The rules of bounds: what another correct computation gives lies within, and not far within.

Each operation is carried out in float32 by NumPy, and in float64 with bounds at the unit roundoff
of float32, from operands that are known exactly and from operands that are known up to an error.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from reference import jaxprs
from reference.devices import float64_on_cpu
from reference.rounding.known import Known, Machine, closed, exact, one_term
from reference.rounding.recognition import recognised
from reference.rounding.rules import evaluate
from reference.rounding.steps import REWRITTEN, _over_time
from reference.rounding.tolerance import V64

INFO = np.finfo(np.float32)
SINGLE = Machine(float(INFO.eps) / 2 + V64, float(INFO.tiny), float(INFO.max))
RNG = np.random.default_rng(0)
SIGNED = RNG.standard_normal((2, 3, 6)).astype(np.float32)
POSITIVE = np.abs(SIGNED) + np.float32(0.5)
MATRICES = RNG.standard_normal((2, 6, 6)).astype(np.float32)
ABOVE_ONE = 60.0  # times u, of the size of the result: no rule is looser, from exact operands


def softplus_like(a):
    return np.log1p(np.exp(a))


# Name: the function of JAX, that of NumPy in float32, the operands.
OPERATIONS = {
    "sums": (lambda a, b: a + b - 2 * a, lambda a, b: a + b - 2 * a, SIGNED),
    "sum of entries": (lambda a, b: (a * b).sum(1), lambda a, b: (a * b).sum(1), SIGNED),
    "cumulative sum": (lambda a, b: jnp.cumsum(a + b, 1), lambda a, b: np.cumsum(a + b, 1), SIGNED),
    "products": (lambda a, b: a * b * a, lambda a, b: a * (b * a), SIGNED),
    "quotient": (lambda a, b: a / b, lambda a, b: a * (1 / b), POSITIVE),
    "matrix": (lambda a, b: a @ b, lambda a, b: a @ b, MATRICES),
    "matrix and more": (lambda a, b: a @ b + a, lambda a, b: a + a @ b, MATRICES),
    "power": (lambda a, b: a**3 + b**-2, lambda a, b: a * a * a + 1 / (b * b), POSITIVE),
    "square": (lambda a, b: jnp.square(a) - b, lambda a, b: a * a - b, SIGNED),
    "any power": (lambda a, b: a**0.3 + b, lambda a, b: a ** np.float32(0.3) + b, POSITIVE),
    "moved": (lambda a, b: jnp.concatenate([a.T, -b.T])[::-1, 1:],
              lambda a, b: np.concatenate([a.T, -b.T])[::-1, 1:], SIGNED),
    "other signs": (lambda a, b: a - (a + b + b), lambda a, b: a - (b + (a + b)), SIGNED),
    "minus": (lambda a, b: -(a + b + b) + a, lambda a, b: a - (b + (a + b)), SIGNED),
    "magnitude": (lambda a, b: jnp.abs(a - b), lambda a, b: np.abs(a - b), SIGNED),
    "larger": (lambda a, b: jnp.maximum(a, b) + jnp.minimum(a, 0),
               lambda a, b: np.maximum(a, b) + np.minimum(a, 0), SIGNED),
    "largest": (lambda a, b: (a * b).max(1), lambda a, b: (a * b).max(1), SIGNED),
    "choice": (lambda a, b: jnp.where(a > b, a, b * b), lambda a, b: np.where(a > b, a, b * b),
               SIGNED),
    "narrower": (lambda a, b: (a * b).astype(jnp.float32) + 0.0 * b,
                 lambda a, b: a * b, SIGNED),
    "tanh": (lambda a, b: jnp.tanh(a + b), lambda a, b: np.tanh(a + b), SIGNED),
    "logistic": (lambda a, b: lax.logistic(a - b), lambda a, b: 1 / (1 + np.exp(b - a)), SIGNED),
    "exponential": (lambda a, b: jnp.exp(a * b), lambda a, b: np.exp(a * b), SIGNED),
    "logarithms": (lambda a, b: jnp.log(a) + jnp.log1p(jnp.exp(b)),
                   lambda a, b: np.log(a) + softplus_like(b), POSITIVE),
    "roots": (lambda a, b: jnp.sqrt(a) + lax.rsqrt(b), lambda a, b: np.sqrt(a) + 1 / np.sqrt(b),
              POSITIVE),
    "waves": (lambda a, b: jnp.sin(a) + jnp.cos(b), lambda a, b: np.sin(a) + np.cos(b), SIGNED),
}  # fmt: skip


def bounded(function, *operands):
    """Return the value and the error of what a function of JAX makes of operands."""
    with float64_on_cpu():
        like = [operand.value for operand in operands]
        with jax.disable_jit():
            jaxpr, _ = jaxprs.traced(function, *like)
        (known,) = (closed(k, SINGLE) for k in evaluate(jaxpr, operands, SINGLE))
        return np.asarray(known.value), np.asarray(known.error)


@pytest.mark.parametrize("name", OPERATIONS)
def test_a_computation_in_float32_is_within_its_bound(name):
    in_jax, in_numpy, operands = OPERATIONS[name]
    with float64_on_cpu():
        known = [exact(a.astype(np.float64)) for a in operands]
    value, error = bounded(in_jax, *known)
    got = in_numpy(*operands)
    assert got.dtype == np.float32
    assert (np.abs(got - value) <= error).all()
    assert error.max() <= ABOVE_ONE * SINGLE.u * max(1, np.abs(value).max())


@pytest.mark.parametrize("name", OPERATIONS)
@pytest.mark.parametrize("size", [1e-3, 0.05])
def test_whatever_the_operands_may_be_the_result_is_within_its_bound(name, size):
    in_jax, _, operands = OPERATIONS[name]
    rng = np.random.default_rng(1)
    errors = [size * np.abs(rng.standard_normal(a.shape)) for a in operands]
    with float64_on_cpu():
        known = [
            one_term(*map(jnp.asarray, (np.float64(a), e)))
            for a, e in zip(operands, errors, strict=True)
        ]
    value, error = bounded(in_jax, *known)
    farthest = np.zeros_like(error)
    for _ in range(60):
        signs = [rng.choice([-1.0, 1.0], a.shape) for a in operands]
        moved = [a + s * e for a, s, e in zip(operands, signs, errors, strict=True)]
        with float64_on_cpu():
            farthest = np.maximum(farthest, np.abs(np.asarray(in_jax(*moved)) - value))
    assert (farthest <= error * (1 + 1e-6)).all()
    assert farthest.max() > 0
    assert np.median(error) <= 8 * np.median(farthest) + 1e-5


def test_what_is_in_doubt_may_be_either():
    with float64_on_cpu():
        near = one_term(jnp.array([0.01, 1.0, -1.0]), jnp.full(3, 0.1))
    _, error = bounded(lambda a: jnp.where(a > 0, a, 0 * a - 5), near)
    np.testing.assert_allclose(error, [5.01, 0.1, 0.0], atol=1e-6)
    _, error = bounded(jnp.sign, near)
    assert error.tolist() == [2.0, 0.0, 0.0]
    _, error = bounded(lambda a: 1 / a, near)
    assert np.isinf(error).tolist() == [True, False, False]
    _, error = bounded(jnp.log1p, near)
    assert np.isinf(error).tolist() == [False, False, True]
    _, error = bounded(jnp.log, near)
    assert np.isinf(error).tolist()[:2] == [True, False]
    _, error = bounded(lambda a: 1e38 * (a + 9), near)
    assert np.isinf(error).all()


def test_a_sum_counts_the_terms_that_are_not_zero():
    rows = np.ones((1, 64))
    rows[:, 8:] = 0
    with float64_on_cpu():
        full, sparse = exact(np.ones((1, 64))), exact(rows)
    column = exact(np.ones((64, 1)))
    _, of_all = bounded(lambda a, b: a @ b, full, column)
    _, of_few = bounded(lambda a, b: a @ b, sparse, column)
    assert of_all == pytest.approx(64 * 64 * SINGLE.u, rel=1e-3)  # a product and 63 additions each
    assert of_few == pytest.approx(8 * 8 * SINGLE.u, rel=1e-3)


@pytest.mark.parametrize(("name", "sign"), [("max", 1), ("min", -1)])
def test_the_larger_of_two_passes_its_gradient_on_to_itself(name, sign):
    slopes = jax.grad(REWRITTEN[name], (0, 1))
    assert [float(slope) for slope in slopes(2.0 * sign, 1.0 * sign)] == [1.0, 0.0]
    assert [float(slope) for slope in slopes(1.0 * sign, 2.0 * sign)] == [0.0, 1.0]


def test_a_sum_over_time_rounds_as_often_as_there_are_steps_of_sequences():
    contributions = exact(np.ones((8, 4, 3)))  # padded: there are 5 steps of 2 sequences
    _, error = _over_time(contributions, {"T": 5.0, "B": 2.0}, SINGLE)
    np.testing.assert_allclose(error, np.full(3, 9 * SINGLE.u * 10), rtol=1e-5)


ALMOST = {
    "upside down": lambda a: (1 + jnp.exp(-a)) / 1,
    "twice": lambda a: 2 / (1 + jnp.exp(-a)),
    "from two": lambda a: 1 / (2 + jnp.exp(-a)),
    "squared": lambda a: (1 + jnp.exp(-a)) ** -2,
    "of two": lambda a: 1 / (jnp.exp(-a) + jnp.exp(-2 * a)),
    "without a sign": lambda a: 1 / (1 + jnp.exp(a)),
}
WRITTEN_OUT = {
    "quotient": lambda a: 1 / (1 + jnp.exp(-a)),
    "power": lambda a: (jnp.exp(-a) + 1) ** -1,
}


@pytest.mark.parametrize("name", [*ALMOST, *WRITTEN_OUT])
def test_the_logistic_function_is_recognised_and_nothing_else(name):
    formula = (ALMOST | WRITTEN_OUT)[name]

    def step(p, h, x):
        return formula(p * h + x)

    given = 0.7, 1.3, -0.4
    assert float(recognised(step)(*given)) == pytest.approx(float(step(*given)), rel=1e-6)
    jaxpr, _ = jaxprs.traced(recognised(step), *given)
    names = {jaxprs.name(equation) for equation in jaxprs.equations(jaxpr)}
    assert ("logistic" in names) == (name in WRITTEN_OUT)


def test_nothing_is_known_of_what_may_overflow_or_has_no_error_that_is_a_number():
    with jax.enable_x64(True):
        jaxpr, _ = jaxprs.traced(lambda a: -a, 1.0)
        operand = Known(*(jnp.array([1.0, 2.0, 3.0]), jnp.array([0.0, np.nan, 1.0])), None)
        sizes = jnp.array([1.0, 2.0, 1e39])
        (result,) = evaluate(jaxpr, [operand._replace(size=sizes)], SINGLE)
    assert result.error.tolist() == [0.0, np.inf, np.inf]
