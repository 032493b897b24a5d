"""check_gradient accuses every wrong gradient of any function, no right one, and says where."""

import json
from dataclasses import dataclass
from functools import cache, partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from correct_gradients import EXAMPLES, Judge
from jax import lax

from reference.functions.leaf_report import Leaf, LeafReport
from reference.functions.leaves import check_gradient
from reference.functions.trees import MISSING, match, read
from reference.rounding.noise import narrow_precisions, perturbed

# Of the correct gradients, those that are judged in every run; `python tests/correct_gradients.py`
# judges all of them on many draws.
EACH_RUN = (
    "linear regression",
    "weights that are still zero",
    "logistic regression",
    "softmax, every answer certain",
    "sum of squares of years about their mean",
    "cosine of a small angle",
    "attention",
    "bags of words",
    "Huber loss, by branches",
    "logarithm of a Hilbert determinant",
    "interpolation, by a Vandermonde matrix",
    "logistic map, chaotic",
    "power spectrum",
)


@cache
def judge_of(name):
    return Judge(EXAMPLES[name])


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("name", EACH_RUN)
def test_a_correct_gradient_is_never_accused(name, dtype):
    rows = [row for seed in range(5) for row in judge_of(name).rows(seed, dtype)]
    assert {row.status for row in rows} <= {"match", "nothing proved"}, rows
    if EXAMPLES[name].calm:
        assert {row.status for row in rows} == {"match"}, rows


@pytest.mark.parametrize(("dtype", "error"), [("float64", 1e-11), ("float32", 1e-3)])
@pytest.mark.parametrize("name", [name for name in EACH_RUN if EXAMPLES[name].calm])
def test_one_wrong_entry_is_found_and_the_other_leaves_are_not_accused(name, dtype, error):
    places = [place.label for place, _, _ in judge_of(name).measured(0, dtype)]
    for wrong in places:

        def change(place, leaf, wrong=wrong):
            if place.label != wrong:
                return leaf
            leaf = np.array(leaf)
            index = np.unravel_index(np.abs(leaf).argmax(), leaf.shape)
            leaf[index] *= 1 + error
            return leaf

        rows = judge_of(name).rows(0, dtype, change)
        assert {row.leaf for row in rows if row.status == "mismatch"} == {wrong}
        (row,) = (row for row in rows if row.leaf == wrong)
        assert row.got == pytest.approx(row.expected * (1 + error), rel=error / 10)


@pytest.mark.parametrize("name", ["logistic map, chaotic", "softmax, every answer certain"])
def test_where_rounding_hides_the_answer_nothing_is_proved_and_nan_does_not_pass(name):
    assert {row.status for row in judge_of(name).rows(0, "float32")} == {"nothing proved"}
    rows = judge_of(name).rows(0, "float32", lambda place, leaf: leaf * np.float32(np.nan))
    assert {row.status for row in rows} == {"non-finite"}


# What the tests below differentiate --------------------------------------------------------------

W, X = np.array([[0.5, -1.0, 2.0], [0.25, 3.0, -0.5]]), np.array([1.0, -0.5])


class Layer(NamedTuple):
    w: np.ndarray
    b: np.ndarray


def loss(layer, x):
    return jnp.sum((x @ layer.w + layer.b) ** 2)


def in_first(layer, x):
    dy = 2 * (x @ layer.w + layer.b)
    return Layer(np.outer(x, dy), dy)


def in_each(layer, x):
    first = in_first(layer, x)
    return first, layer.w @ first.b


def args():
    return Layer(W.copy(), np.array([0.1, 0.2, 0.3])), X.copy()


def check(grad_fn, *arguments, **options):
    return check_gradient(loss, grad_fn, *(arguments or args()), **options)


def statuses(report):
    return {row.leaf: row.status for row in report.rows}


LEAVES = ("args[0].w", "args[0].b", "args[1]")


# Which gradient it is ----------------------------------------------------------------------------


def test_a_gradient_in_the_first_argument_is_told_from_one_in_each():
    first, each = check(in_first), check(in_each)
    assert first.passed
    assert statuses(first) == dict.fromkeys(LEAVES[:2], "match")
    assert "grad_fn returned the gradient in args[0] alone" in first.notes
    assert each.passed
    assert statuses(each) == dict.fromkeys(LEAVES, "match")
    assert "grad_fn returned the gradient in each of 2 arguments" in each.notes


def test_the_first_argument_may_be_as_long_as_the_list_of_arguments():
    def pairs(pair, x):
        return jnp.sum(pair[0] * pair[1]) + jnp.sum(x**3)

    arguments = (X, 2 * X), X
    by_first = check_gradient(pairs, lambda p, x: (p[1], p[0]), *arguments)
    by_all = check_gradient(pairs, lambda p, x: ([p[1], p[0]], 3 * x**2), *arguments)
    assert statuses(by_first) == {"args[0][0]": "match", "args[0][1]": "match"}
    assert statuses(by_all) == statuses(by_first) | {"args[1]": "match"}


def test_leaves_are_found_by_name_whatever_holds_them():
    report = check(lambda layer, x: (in_first(layer, x)._asdict(), in_each(layer, x)[1]))
    assert statuses(report) == dict.fromkeys(LEAVES, "match")


@pytest.mark.parametrize(("many", "what"), [(1, "args[0]"), (2, "all arguments")])
def test_a_gradient_may_be_one_vector(many, what):
    def ravelled(layer, x):
        leaves = jax.tree.leaves((in_first(layer, x), in_each(layer, x)[1])[:many])
        return np.concatenate([np.ravel(leaf) for leaf in leaves])

    report = check(ravelled)
    assert statuses(report) == dict.fromkeys(LEAVES if many == 2 else LEAVES[:2], "match")
    assert f"one vector, taken apart as the leaves of {what}, in order" in report.notes[0]
    wrong = check(lambda *a: ravelled(*a)[::-1])
    assert {row.status for row in wrong.rows} == {"mismatch"}
    assert statuses(check(lambda *a: ravelled(*a)[1:]))["args[0].w"] == "missing"


def test_a_vector_that_is_the_argument_is_not_taken_apart():
    report = check_gradient(lambda x: jnp.sum(x**3), lambda x: 3 * x**2, X)
    assert (report.passed, report.notes) == (True, [])


def test_arguments_by_name_are_constants():
    def scaled(layer, x, *, scale, how):
        return scale * loss(layer, x) if how == "mean" else None

    def by_hand(layer, x, *, scale, how):
        return jax.tree.map(lambda d: scale * d, in_first(layer, x)) if how == "mean" else None

    report = check_gradient(scaled, by_hand, *args(), kwargs={"scale": 0.25, "how": "mean"})
    assert statuses(report) == dict.fromkeys(LEAVES[:2], "match")
    wrong = partial(by_hand, scale=0.5)
    report = check_gradient(partial(scaled, scale=0.25), wrong, *args(), kwargs={"how": "mean"})
    assert statuses(report) == dict.fromkeys(LEAVES[:2], "mismatch")


@pytest.mark.parametrize(
    ("grad_fn", "left_out"),
    [
        (lambda layer, x: (in_first(layer, x), None), "args[1]"),
        (lambda layer, x: (None, in_each(layer, x)[1]), "args[0].w"),
        (lambda layer, x: in_first(layer, x)._replace(b=None), "args[0].b"),
    ],
)
def test_what_is_left_out_is_not_returned_and_the_rest_is_judged(grad_fn, left_out):
    report = check(grad_fn)
    (row,) = (row for row in report.rows if row.leaf == left_out)
    assert (row.status, row.detail) == ("not returned", "")
    assert report.passed


# What is not a gradient --------------------------------------------------------------------------


def test_a_misspelt_leaf_does_not_pass_and_the_one_that_it_should_be_is_named():
    report = check(lambda layer, x: {"w": in_first(layer, x).w, "bias": in_first(layer, x).b})
    assert statuses(report) == {
        "args[0].w": "match",
        "args[0].b": "missing",
        "args[0]['bias']": "wrong shape",
    }
    assert not report.passed
    assert "expected a leaf at args[0].b" in str(report)
    assert "the arguments have no such leaf" in str(report)


@dataclass
class Unregistered:
    w: np.ndarray
    b: np.ndarray


@pytest.mark.parametrize(
    ("returned", "missing"),
    [
        (lambda w, x, b, t: (w, x, b), ["args[3]['t']"]),
        (lambda w, x, b, t: (w, x), ["args[2]", "args[3]['t']"]),
        (lambda w, x, b, t: (w, x, b, {}), ["args[3]['t']"]),
        (lambda w, x, b, t: (w, x, b, ()), ["args[3]['t']"]),
        (lambda w, x, b, t: (w, x, b, {"T": None}), ["args[3]['t']"]),
        (lambda w, x, b, t: (w, x, b, None), []),
        (lambda w, x, b, t: (w, x, b, {"t": None}), []),
        (lambda w, x, b, t: ({}, x, b, t), ["args[0]['w']"]),
        (lambda w, x, b, t: {}, ["args[0]['w']"]),
        (lambda w, x, b, t: {"W": None}, ["args[0]['w']"]),
        (lambda w, x, b, t: (), ["args[0]['w']"]),
        (lambda w, x, b, t: Unregistered(w["w"], b), ["args[0]['w']"]),
    ],
)
def test_a_leaf_is_left_out_by_none_alone(returned, missing):
    arguments = {"w": W}, X, W[0], {"t": X}
    matched = match(returned(*arguments), read(arguments))
    assert [place.label for place, leaf in matched.leaves if leaf is MISSING] == missing


def test_a_missing_leaf_does_not_pass():
    report = check(lambda *a: {"w": in_first(*a).w})
    assert statuses(report) == {"args[0].w": "match", "args[0].b": "missing"}
    assert not report.passed
    assert "args[0].b: missing, expected a leaf at args[0].b, or None to leave it out" in str(
        report
    )


def test_what_jax_cannot_look_into_is_named():
    report = check(lambda *a: Unregistered(*in_first(*a)))
    assert "it is a Unregistered, which JAX does not know as a tree" in str(report)


def test_a_value_beside_the_gradient_is_recognised():
    report = check(lambda layer, x: (1.0, in_first(layer, x)))
    assert not report.passed
    assert "is this (value, gradient)? Return the gradient alone" in report.notes


class KeepsItsGraph:
    """What a tensor does that refuses to become an array."""

    def __array__(self, *_, **__):
        raise RuntimeError("detach it first")


@pytest.mark.parametrize(
    ("value", "status", "detail"),
    [
        (np.ones(2), "wrong shape", "shape (2,), expected (3,)"),
        (np.ones((3, 1)), "wrong shape", "shape (3, 1), expected (3,)"),
        (np.array([1, np.nan, 3]), "non-finite", "nan where autodiff is finite"),
        (np.array([1, 2, -np.inf]), "non-finite", "-inf where autodiff is finite"),
        (np.ones(3, complex), "raised", "got an array of complex128"),
        ("gradient", "raised", "got an array of <U8"),
        (np.ma.masked_array(np.ones(3), mask=True), "raised", "got a masked array"),
        (KeepsItsGraph(), "raised", "RuntimeError: detach it first"),
    ],
)
def test_what_is_not_a_gradient_gets_a_row_of_its_own(value, status, detail):
    report = check(lambda layer, x: in_first(layer, x)._replace(b=value))
    row = {row.leaf: row for row in report.rows}["args[0].b"]
    assert row.status == status
    assert detail in row.detail
    assert statuses(report)["args[0].w"] == "match"
    assert not report.passed


class UnprintableError(Exception):
    def __str__(self):
        raise ValueError


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (IndexError("list index\nout of range"), "IndexError: list index out of range"),
        (SystemExit(0), "SystemExit: 0"),
        (UnprintableError(), "UnprintableError"),
    ],
)
def test_a_gradient_that_raises_is_reported(error, words):
    def raises(*_):
        raise error

    report = check(raises)
    assert statuses(report) == dict.fromkeys(LEAVES[:2], "raised")
    assert report.rows[0].detail == words
    assert not report.passed


def test_nothing_returned_does_not_pass():
    report = check(lambda *_: None)
    assert not report.passed
    assert statuses(report) == dict.fromkeys(LEAVES[:2], "not returned")


# Precision and manners ----------------------------------------------------------------------------


def test_float32_for_float64_is_wrong_and_said_to_be_float32():
    report = check(lambda *a: jax.tree.map(np.float32, in_first(*a)))
    assert statuses(report) == dict.fromkeys(LEAVES[:2], "mismatch")
    assert "args[0].w came as float32, though the arguments are float64" in report.notes


def test_float32_arguments_reach_the_gradient_as_float32_and_ask_for_no_more():
    seen = []

    def watched(layer, x):
        seen.extend(leaf.dtype for leaf in (*layer, x))
        return in_each(layer, x)

    single = jax.tree.map(jnp.asarray, args())  # jnp makes float32 of everything
    assert check(watched, *single).passed
    assert set(seen) == {np.dtype(np.float32)}
    rough = check(lambda *a: jax.tree.map(lambda g: g * np.float32(1.0001), in_each(*a)), *single)
    assert statuses(rough) == dict.fromkeys(LEAVES, "mismatch")


def test_what_the_gradient_writes_to_is_said_and_no_argument_changes():
    def writes(layer, x):
        grads = in_each(layer, x)
        layer.w[0] = 0
        return grads

    given = args()
    report = check(writes, *given)
    assert report.passed
    assert "grad_fn writes to its input args[0].w" in report.notes
    assert all(map(np.array_equal, jax.tree.leaves(given), jax.tree.leaves(args())))


def test_integers_strings_and_none_are_constants():
    def scaled(params, labels, mode):
        assert mode == "mean"
        return jnp.mean(params["w"][labels] ** params["power"])

    def by_hand(params, labels, mode):
        dw = np.zeros_like(params["w"])
        np.add.at(dw, labels, params["power"] * params["w"][labels] ** (params["power"] - 1))
        return {"w": dw / len(labels), "power": 0, "nothing": None}

    params = {"w": np.array([1.5, -2.0, 0.5]), "power": 3, "nothing": None}
    report = check_gradient(scaled, by_hand, params, np.array([0, 0, 1]), "mean")
    assert report.passed
    assert statuses(report) == {"args[0]['w']": "match"}
    assert "args[0]['power'] is a constant, and its gradient was not looked at" in report.notes


def test_labels_that_come_as_floating_numbers_are_not_decided_by_rounding_them():
    def one_of(w, label):
        return w[label.astype(int)] ** 2

    def by_hand(w, label):
        return 2 * w * (np.arange(len(w)) == label)

    report = check_gradient(one_of, by_hand, np.array([1.0, 2.0]), np.array(1.0))
    assert statuses(report) == {"args[0]": "nothing proved"}
    assert check_gradient(one_of, by_hand, np.array([1.0, 2.0]), np.array(1)).passed


def test_a_gradient_that_is_exactly_zero_is_decided():
    zero = check_gradient(lambda w: 0 * jnp.sum(w**2), lambda w: 0 * w, W)
    wrong = check_gradient(lambda w: 0 * jnp.sum(w**2), lambda w: 2 * w, W)
    assert [row.status for row in zero.rows + wrong.rows] == ["match", "mismatch"]
    assert zero.rows[0].index == (0, 0)


def test_what_autodiff_gets_exactly_may_be_rounded_elsewhere():
    rounded = 0.3 / 0.1  # 2.9999999999999996
    report = check_gradient(lambda w: jnp.sum(3 * w), lambda w: np.full_like(w, rounded), W)
    assert report.passed
    assert report.rows[0].ulp == 1


def test_where_float32_may_overflow_nothing_is_proved():
    w = np.float32([88, 89])  # exp(89) is beyond float32
    report = check_gradient(lambda w: jnp.sum(jnp.exp(w)), lambda w: w + np.float32(np.inf), w)
    assert statuses(report) == {"args[0]": "nothing proved"}


def test_a_loss_that_is_not_finite_proves_nothing():
    report = check_gradient(lambda w: jnp.sum(w / 0), lambda w: w / 0.1, W)
    assert statuses(report) == {"args[0]": "nothing proved"}
    assert not report.passed
    assert str(report).splitlines()[-1] == "nothing proved"
    assert "<strong>nothing proved</strong>" in report._repr_html_()


@pytest.mark.parametrize(
    ("others", "verdict"),
    [
        (["match"], "proved in part"),
        (["not returned"], "nothing proved"),
        (["match", "missing"], "FAILED"),
        (["match", "a word of tomorrow"], "FAILED"),
    ],
)
def test_what_is_not_proved_is_no_failure_and_hides_none(others, verdict):
    report = LeafReport([Leaf(str(i), s) for i, s in enumerate(["nothing proved", *others])])
    assert (report.verdict, report.passed) == (verdict, False)


def test_a_leaf_without_entries_matches():
    assert check_gradient(lambda w: jnp.sum(w**2), lambda w: 2 * w, np.zeros((0, 3))).passed


def test_a_loss_that_computes_in_less_than_float64_is_said_to():
    def in_single(w):
        return jnp.sum(w.astype(jnp.float32) ** 2)

    report = check_gradient(in_single, lambda w: 2 * w * (1 + 1e-9), W / 3)
    assert report.passed
    assert "loss_fn computes in float32 on the way, so autodiff knows no better" in report.notes


@pytest.mark.parametrize(
    ("number", "said"),
    [
        (np.float32(0.1), "loss_fn has 0.10000000149011612, which is 0.1 rounded to float32"),
        (jnp.asarray([0.3, 1.0], jnp.float32)[0], "which is 0.3 rounded to float32"),
        (0.1 * (1 + 1e-8), None),
        (np.float32(0.5), None),
    ],
)
def test_numbers_in_float32_are_said_to_be_where_little_is_wrong(number, said):
    meant = float(str(np.float32(number))) * (1 + 1e-9)
    report = check_gradient(lambda w: jnp.sum(number * w**3), lambda w: 3 * meant * w**2, W)
    assert not report.passed
    assert [said in note for note in report.notes] == [True] * (said is not None)
    far = check_gradient(lambda w: jnp.sum(number * w**3), lambda w: 3.1 * meant * w**2, W)
    assert far.notes == []


def test_no_jax_setting_changes():
    before = dict(jax.config.values)
    check(in_first)
    assert dict(jax.config.values) == before
    assert jnp.ones(1).dtype == np.float32


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"loss_fn": 1}, TypeError, "loss_fn is a int; expected a function"),
        ({"grad_fn": None}, TypeError, "grad_fn is a NoneType; expected a function"),
        (
            {"third_voice": "mine"},
            ValueError,
            "third_voice is 'mine'; expected 'complex step' or 'finite differences'",
        ),
        ({"kwargs": [1]}, TypeError, "kwargs is [1]; expected a mapping of names to values"),
        ({"kwargs": {1: 2}}, TypeError, "kwargs is {1: 2}; expected a mapping of names"),
        ({"args": ()}, ValueError, "args[0] holds no floating numbers; expected some"),
        ({"args": (np.arange(3), X)}, ValueError, "args[0] holds no floating numbers"),
        ({"args": (X + 0j,)}, TypeError, "args[0] is complex128; expected float32 or float64"),
        ({"args": ([1j],)}, TypeError, "args[0][0] is complex128; expected float32 or float64"),
        ({"args": (np.float16(1),)}, TypeError, "args[0] is float16; expected float32 or"),
        ({"args": (jnp.ones(1, "bfloat16"),)}, TypeError, "float64; convert it, and those"),
        (
            {"args": ({"w": X}, np.float32(1))},
            ValueError,
            "args[0]['w'] is float64 and args[1] is float32; expected one precision",
        ),
        (
            {"loss_fn": lambda w: 2 * w},
            ValueError,
            "loss_fn returned an array of float64 and shape (2,); expected a real scalar",
        ),
        (
            {"loss_fn": lambda w: jnp.sum(w) * 1j},
            ValueError,
            "loss_fn returned an array of complex128 and shape (); expected a real scalar",
        ),
        ({"loss_fn": lambda w: (jnp.sum(w), w)}, ValueError, "loss_fn returned a tuple; expected"),
        (
            {"loss_fn": lambda w: float(jnp.sum(w))},
            ValueError,
            "JAX cannot trace loss_fn in float64: ConcretizationTypeError: Abstract tracer value",
        ),
    ],
)
def test_check_gradient_refuses_in_one_line(change, error, message):
    options = {"loss_fn": jnp.sum, "grad_fn": np.ones_like, "args": (X,)} | change
    loss_fn, grad_fn, arguments = (options.pop(k) for k in ("loss_fn", "grad_fn", "args"))
    with pytest.raises(error) as caught:
        check_gradient(loss_fn, grad_fn, *arguments, **options)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


# The third voice ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("third_voice", "digits"), [("complex step", 1e-15), ("finite differences", 1e-8)]
)
def test_a_third_voice_speaks_of_the_worst_entry_and_does_not_decide(third_voice, digits):
    report = check(lambda *a: in_first(*a)._replace(b=np.array([1.0, 2.0, 3.0])))
    asked = check(
        lambda *a: in_first(*a)._replace(b=np.array([1.0, 2.0, 3.0])), third_voice=third_voice
    )
    assert statuses(asked) == statuses(report)
    for row in asked.rows:
        truth = getattr(in_first(*args()), row.leaf.removeprefix("args[0]."))[row.index]
        assert row.third == pytest.approx(truth, rel=digits)
    assert f"; {third_voice}: " in str(asked)


def test_the_complex_step_goes_through_loops_that_begin_with_real_numbers():
    def loss(W, x):
        def step(h, x_t):
            h = jnp.tanh(W @ h + x_t)
            return h, jnp.sum(h * h)

        h, terms = jax.lax.scan(step, jnp.zeros(2), x)
        h = jax.lax.fori_loop(0, 3, lambda i, h: jnp.sin(W @ h) + i, jnp.zeros(2)) * h
        return jnp.sum(terms) + jnp.sum(h)

    W, x = np.array([[0.5, -0.25], [0.125, 0.75]]), np.linspace(-1, 1, 10).reshape(5, 2)
    (row,) = check_gradient(loss, lambda W, x: 0 * W, W, x, third_voice="complex step").rows
    assert row.third == pytest.approx(row.expected, rel=1e-13)


def test_the_complex_step_has_all_digits():
    report = check_gradient(lambda w: jnp.sum(jnp.exp(w)), np.exp, W, third_voice="complex step")
    assert report.rows[0].third == pytest.approx(report.rows[0].expected, rel=1e-15)


@pytest.mark.parametrize(
    ("loss_fn", "grad_fn", "why"),
    [
        (jnp.linalg.norm, lambda w: w / np.linalg.norm(w), "returns a real number of complex"),
        (
            lambda w: jnp.sum(jnp.abs(w) + w**2),
            lambda w: np.sign(w) + 2 * w,
            "as where loss_fn is not analytic",
        ),
        (
            lambda w: jnp.sum(jax.nn.relu(jnp.floor(w) + w)),
            lambda w: np.where(np.floor(w) + w > 0, 1.0, 0.0),
            "floor",
        ),
    ],
)
def test_the_complex_step_has_no_opinion_of_a_function_that_is_not_analytic(loss_fn, grad_fn, why):
    report = check_gradient(loss_fn, grad_fn, W + 0.1, third_voice="complex step")
    assert report.passed
    assert report.rows[0].third is None
    assert any("no opinion on args[0]" in note and why in note for note in report.notes)


# The report ---------------------------------------------------------------------------------------


def deep(tree):
    return jnp.sum(tree["encoder"]["layers"][0]["attention"]["query_projection"]["kernel"] ** 3)


def deep_gradient(tree):
    grads = jax.tree.map(lambda a: 3 * a**2, tree)
    grads["encoder"]["layers"][0]["attention"]["query_projection"]["kernel"][1, 2] *= 1 + 1e-9
    return grads


def deep_report(**options):
    kernel = {"query_projection": {"kernel": W / 3}}
    tree = {"encoder": {"layers": [{"attention": kernel}]}}
    return check_gradient(deep, deep_gradient, tree, **options)


def test_a_report_fits_a_terminal_and_shows_paths_and_wrong_numbers_in_full():
    report = deep_report(third_voice="finite differences")
    path = "args[0]['encoder']['layers'][0]['attention']['query_projection']['kernel']"
    table = str(report).splitlines()[:3]
    assert all(len(line) <= 100 for line in table)
    assert table[0].split() == [
        *("leaf", "verdict", "worst", "at", "expected", "got", "ulp", "tolerances"),
        *("finite", "differences"),
    ]
    assert table[1] == path
    assert table[2].split()[:2] == ["mismatch", "[1,"]
    (row,) = report.rows
    assert (row.leaf, row.index) == (path, (1, 2))
    assert f"{path}[1, 2] is {row.got!r}, expected {row.expected!r}" in str(report)
    assert row.ulp == pytest.approx(1e-9 * row.expected / np.spacing(3.0), rel=1e-6)
    assert row.ratio == pytest.approx(abs(row.got - row.expected) / row.tolerance)


def test_a_report_is_json_text_and_html():
    report = check(lambda *a: in_first(*a)._replace(b=np.array([np.nan, np.inf, 1])))
    document = json.loads(report.to_json())
    assert document["passed"] is False
    assert [row["status"] for row in document["rows"]] == ["match", "non-finite"]
    assert document["rows"][1]["index"] == [0]
    assert document["rows"][1]["got"] is None
    assert "FAILED" in str(report)
    html = report._repr_html_()
    assert html.count("<tr>") == 3
    assert "<strong>failed</strong>" in html


# Monte-Carlo arithmetic ---------------------------------------------------------------------------

SMALL, U = 2.0**-10, 2.0**-30


def cancels(x):
    """Return (1 - cos x) / x^2; the rounding of the cosine is amplified by 1 / x^2."""
    return (1 - jnp.cos(x)) / x**2


@jax.custom_vjp
def with_its_own_rule(x):
    return cancels(x)


with_its_own_rule.defvjp(lambda x: (cancels(x), x), lambda x, g: (x * g,))

FOLLOWED = {
    "jit": jax.jit(cancels),
    "checkpoint": jax.checkpoint(cancels),
    "custom_vjp": with_its_own_rule,
    "cond": lambda x: lax.cond(x > 0, cancels, lambda x: x, x),
    "switch": lambda x: lax.switch(1, [lambda x: x, cancels], x),
    "scan": lambda x: lax.scan(lambda c, x: (c, cancels(x)), 0.0, x[None])[1][0],
    "while": lambda x: lax.while_loop(lambda s: s[0] < 1, lambda s: (s[0] + 1, cancels(x)), (0, x))[
        1
    ],
    "vmap": lambda x: jax.vmap(cancels)(x[None])[0],
}


@pytest.mark.parametrize("name", FOLLOWED)
def test_rounding_errors_are_made_inside_of_loops_branches_and_calls(name):
    with jax.enable_x64(True):
        runs = perturbed(FOLLOWED[name], np.float64(SMALL))(U, np.float64(SMALL))
    deviation = np.abs(np.array(runs) - 0.5).max() * SMALL**2 / U
    assert 1 < deviation < 4


def test_each_iteration_of_a_loop_makes_errors_of_its_own():
    def doubled(x):
        return lax.scan(lambda c, _: (jnp.exp(jnp.log(c)), c), x, None, 8)[1]

    with jax.enable_x64(True):
        runs = perturbed(doubled, np.float64(3.0))(U, np.float64(3.0))
    for run in runs:
        assert len(set(np.diff(run))) == 7


def test_errors_of_sums_grow_with_the_root_of_the_number_of_terms():
    x = np.ones(2500)
    with jax.enable_x64(True):
        for function in (jnp.sum, lambda x: x @ x, lambda x: jnp.cumsum(x)[-1]):
            errors = np.array(perturbed(function, x)(U, x)) - 2500
            assert 50 * 2500 * U < np.abs(errors).max() < 4 * 50 * 2500 * U


def test_a_factorisation_errs_by_the_size_of_its_matrix():
    A = np.array([[1, 1], [1, 1 + 2.0**-20]])  # eigenvalues near 2 and 2^-21
    with jax.enable_x64(True):
        runs = perturbed(lambda x: x * jnp.linalg.eigvalsh(A), np.float64(1))(U, np.float64(1))
    small, large = np.ptp(runs, axis=0) / U
    assert 0.5 < small < 20
    assert 0.5 < large < 20


def test_whole_numbers_that_come_of_whole_numbers_are_exact():
    x = np.array([-1.5, 0.5, 2.0])
    with jax.enable_x64(True):
        runs = np.array(perturbed(lambda x: jnp.vander(x, 4), x)(U, x))
    assert np.isfinite(runs).all()  # a power of -1.5 that is not whole is not


def test_the_errors_are_the_same_in_every_call():
    with jax.enable_x64(True):
        a, b = (perturbed(cancels, np.float64(SMALL))(U, np.float64(SMALL)) for _ in range(2))
    assert a == b


def test_narrow_precisions_are_found_inside_of_calls():
    def narrow(x):
        return jax.jit(lambda x: x.astype(jnp.bfloat16).astype(x.dtype) * 2)(x)

    with jax.enable_x64(True):
        assert narrow_precisions(narrow, np.ones(2)) == ["bfloat16"]
        assert narrow_precisions(cancels, np.float64(1)) == []


# Calls after the first ---------------------------------------------------------------------------


def added_up():
    total = []

    def gradient(layer, x):
        total.append(in_first(layer, x))
        return Layer(sum(g.w for g in total), sum(g.b for g in total))

    return gradient


def cached(key):
    kept = {}

    def gradient(layer, x):
        return kept.setdefault(key(layer, x), in_first(layer, x))

    return gradient


@pytest.mark.parametrize(
    "gradient",
    [
        added_up(),
        cached(lambda layer, x: layer.w.shape),
        cached(lambda layer, x: id(layer.w)),
        cached(lambda layer, x: None),
    ],
    ids=["a sum", "by shape", "by identity", "once"],
)
def test_what_depends_on_earlier_calls_does_not_pass(gradient):
    report = check(gradient)
    assert not report.passed
    assert set(statuses(report).values()) == {"mismatch"}
    assert "right in the first call, wrong in a later one: it depends on earlier" in str(report)


def test_a_cache_by_what_the_arrays_hold_passes():
    assert check(
        cached(lambda layer, x: (layer.w.tobytes(), layer.b.tobytes(), x.tobytes()))
    ).passed


def test_what_raises_when_it_is_called_again_does_not_pass():
    calls = []

    def gradient(layer, x):
        calls.append(1)
        if len(calls) > 1:
            raise ValueError("in use")
        return in_first(layer, x)

    report = check(gradient)
    assert not report.passed
    assert "ValueError: in use, and not in the first call" in str(report)
