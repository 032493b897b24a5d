"""What is said of a wrong leaf: what it looks like, and nothing where it looks like nothing."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from reference import check_gradient
from reference.devices import float64_on_cpu
from reference.rounding.formats import FORMATS

RNG = np.random.default_rng(5)
SHAPES = {"W": (6, 6), "U": (6, 6), "V": (3, 6), "b": (6,)}
PARAMS = {k: RNG.uniform(-0.5, 0.5, s).astype(np.float32) for k, s in SHAPES.items()}
X, TARGET = (RNG.standard_normal((5, 4, n)).astype(np.float32) for n in (6, 3))


def loss(params, x, target):
    def step(h, x_t):
        h = jnp.tanh(h @ params["W"].T + x_t @ params["U"].T + params["b"])
        return h, h @ params["V"].T

    _, y = jax.lax.scan(step, jnp.zeros((4, 6), x.dtype), x)
    return jnp.sum((y - target) ** 2)


def by_hand(params, x, target, rounded=lambda a: a):
    """The gradient, where the factors of products are rounded and all else is in float64."""

    def product(a, b):
        return rounded(a) @ rounded(b)

    params = {k: v.astype(float) for k, v in params.items()}
    h, grads = [np.zeros((4, 6))], {k: np.zeros(v.shape) for k, v in params.items()}
    for x_t in x:
        a = product(h[-1], params["W"].T) + product(x_t, params["U"].T) + params["b"]
        h.append(np.tanh(a))
    dh = 0
    for t in reversed(range(len(x))):
        dy = 2 * (product(h[t + 1], params["V"].T) - target[t])
        da = (dh + product(dy, params["V"])) * (1 - h[t + 1] ** 2)
        grads["V"] += product(dy.T, h[t + 1])
        grads["W"] += product(da.T, h[t])
        grads["U"] += product(da.T, x[t])
        grads["b"] += da.sum(axis=0)
        dh = product(da, params["W"])
    return {k: g.astype(np.float32) for k, g in grads.items()}


def to_digits(digits):
    """Return a function that rounds as the hardware does: it cuts bits off float32 numbers."""
    cut = 24 - digits

    def rounded(a):
        bits = np.ascontiguousarray(a, np.float32).view(np.uint32).astype(np.uint64)
        bits = (bits + (1 << (cut - 1))) >> cut << cut
        return bits.astype(np.uint32).view(np.float32).astype(float)

    return rounded


def details(grad_fn):
    report = check_gradient(loss, grad_fn, PARAMS, X, TARGET)
    return {row.leaf[9]: row.detail for row in report.rows if row.status == "mismatch"}


@pytest.mark.parametrize(("kind", "digits"), [("TF32", 11), ("bfloat16", 8)])
def test_products_of_rounded_factors_are_told_from_each_other_and_from_mistakes(kind, digits):
    rounded = to_digits(digits)
    said = details(lambda *a: by_hand(*a, rounded=rounded))
    words = f"rounded like {kind}, in the factors of its products"
    allowed = f'(arithmetic="{kind.lower()}" allows for it)'
    assert said == dict.fromkeys(said, f"{words} {allowed}")
    assert {"W", "U", "V"} <= said.keys()


@pytest.mark.parametrize(("name", "digits"), [("bfloat16", 8), ("tf32", 11)])
def test_factors_are_rounded_to_the_nearest_numbers_of_a_format(name, digits):
    values = RNG.standard_normal(1000).astype(np.float32) * np.exp2(RNG.integers(-90, 90, 1000))
    with float64_on_cpu():
        found = FORMATS[name].nearest(jnp.asarray(values, float))
    np.testing.assert_array_equal(found, to_digits(digits)(values))


@pytest.mark.parametrize("kind", ["bfloat16", "float16"])
def test_numbers_of_a_narrow_kind_are_told(kind):
    said = details(
        lambda *a: {k: np.array(jnp.asarray(g, kind), np.float32) for k, g in by_hand(*a).items()}
    )
    assert said["W"] == f"rounded like {kind}: every entry is such a number"


def test_an_error_of_that_size_by_anything_else_is_not_called_rounding():
    def noisy(*args):
        rng = np.random.default_rng(0)
        grads = by_hand(*args)
        return {k: g + 5e-4 * abs(g).max() * rng.standard_normal(g.shape) for k, g in grads.items()}

    assert set(details(noisy).values()) <= {"", "wrong in [0] alone"}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda g: {"W": g["W"].T}, "the right answer transposed"),
        (lambda g: {"W": g["U"]}, "what is right for args[0]['U']"),
        (lambda g: {"W": g["W"] / 2}, "0.5 times the right answer"),
        (lambda g: {"W": -g["W"]}, "-1 times the right answer"),
        (lambda g: {"W": 0 * g["W"]}, "zero"),
        (lambda g: {"W": g["W"] + 3 * np.eye(6)[2][:, None] * np.eye(6)[1]}, "wrong in this entry"),
        (lambda g: {"W": g["W"] + 3 * np.eye(6)[2][:, None]}, "wrong in [2, :] alone"),
        (lambda g: {"W": g["W"] + 3 * np.eye(6)[4]}, "wrong in [:, 4] alone"),
        (lambda g: {"W": g["W"] + np.arange(36).reshape(6, 6) + 1.0}, ""),
    ],
)
def test_what_a_wrong_leaf_looks_like_is_said(change, words):
    def grad_fn(*args):
        grads = by_hand(*args)
        return {k: g.astype(np.float32) for k, g in (grads | change(grads)).items()}

    said = details(grad_fn)
    assert said.keys() == {"W"}
    assert said["W"].startswith(words)
    assert bool(said["W"]) == bool(words)
