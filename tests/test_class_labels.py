"""Softmax and class labels, tokens in the place of inputs, and losses that are divided."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import manual_bptt as mb
import reference
from manual_bptt.candidate import candidate
from reference.judging.candidates import Caller
from reference.judging.layouts import LAYOUTS, arguments
from reference.mistakes import MISTAKES, results_of
from reference.network.losses import LOSSES, cross_entropy, named_loss
from reference.oracle.answers import answers
from reference.problems import make_problem, random_problem


def slope(y, labels, weights=1.0):
    """Return the gradient of the cross entropy in the outputs: softmax less one-hot."""
    p = np.exp(y - y.max(-1, keepdims=True))
    p /= p.sum(-1, keepdims=True)
    return weights * (p - (labels[..., None] == np.arange(y.shape[-1])))


def classifier(params, x, h0, target, factor=1.0, slope=slope):
    trace = mb.forward(params, x, h0)
    dy = slope(trace.y, target).astype(x.dtype)
    grads = mb.backward(params, trace, x.dtype.type(factor) * dy)._asdict()
    return grads | {"h": mb.hidden_gradients(params, trace, x.dtype.type(factor) * dy)}


def compare(candidate, **options):
    options = {"loss": "cross_entropy", "cases": 24, "explained": False} | options
    return reference.compare(candidate, **options)


def problem(**changes):
    sizes = {"T": 4, "B": 2, "D": 3, "H": 5, "O": 4, "loss": "cross_entropy"} | changes
    return random_problem(**sizes, regime="contracting", seed=0)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("batched", [True, False])
def test_right_gradients_of_the_cross_entropy_match_and_a_small_error_does_not(batched, dtype):
    options = {"batched": batched, "dtype": dtype, "cases": 60}
    report = compare(classifier, **options)
    assert report.passed, report
    assert min(row.cases for row in report.rows) > 50
    off = 1 + (1e-11 if dtype == "float64" else 1e-3)
    report = compare(lambda *given: classifier(*given, factor=off), **options)
    assert {row.status for row in report.rows} == {"mismatch"}


def naive(y, labels):
    e = np.exp(y)
    dy = e / e.sum(-1, keepdims=True)
    dy[(*np.indices(labels.shape), labels)] -= 1
    return dy


def by_differences(y, labels):
    """Return exp(y[j] - log sum exp y) less one-hot, each entry by itself."""
    log_sum = np.log(np.exp(y).sum(-1, keepdims=True))
    return np.exp(y - log_sum) - np.eye(y.shape[-1])[labels]


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("form", [naive, by_differences])
def test_other_ways_to_write_the_softmax_are_right_too(form, dtype):
    report = compare(lambda *given: classifier(*given, slope=form), cases=100, seed=3, dtype=dtype)
    assert report.passed, report


def test_labels_are_certain_to_be_judged_where_the_softmax_is_nearly_one():
    """What is left of 1 - p has the error of p, and no more is allowed."""
    drawn = problem(B=None)
    confident = {k: 12 * v if k == "c" else v for k, v in drawn.params._asdict().items()}
    made = make_problem(
        **confident, x=drawn.x, h0=drawn.h0, target=drawn.target * 0, loss="cross_entropy"
    )
    for form in (slope, naive, by_differences):
        report = reference.Report.of(
            reference.judge(lambda *given, form=form: classifier(*given, slope=form), [made])
        )
        assert not {"mismatch", "raised"} & {row.status for row in report.rows}, report


def test_padding_adds_nothing_to_the_softmax():
    drawn = list(reference.draw_problems(5, 1, dtype="float64", batched=True,
                                         loss="cross_entropy/T"))  # fmt: skip
    for made, truth in answers(drawn):
        exact = reference.gradients(
            made.params, made.x, made.target, h0=made.h0, loss="cross_entropy/T"
        )
        for k, value in exact.items():
            assert (np.abs(value - truth[k][0]) <= truth[k][1]).all()


def test_the_value_is_that_of_jax_and_weights_count():
    y, labels = problem().x @ np.ones((3, 6)) * np.arange(6), np.array([[0, 5], [1, 2]] * 2)
    log_p = jax.nn.log_softmax(y)
    each = -jnp.take_along_axis(log_p, labels[..., None], -1)[..., 0]
    np.testing.assert_allclose(cross_entropy(y, labels), each.sum(), rtol=1e-6)
    weights = np.arange(4.0)
    weighted = cross_entropy(y, labels, weights)
    np.testing.assert_allclose(weighted, (weights[:, None] * each).sum(), rtol=1e-6)


def test_the_mistakes_of_the_registry_are_named_with_any_loss():
    for loss in ("cross_entropy", "cross_entropy/TB", "squared_error/T", "squared_error/2"):
        mistake = MISTAKES["W for its transpose"]

        def mistaken(params, x, h0, target, loss=loss, mistake=mistake):
            made = make_problem(
                **params._asdict(), x=x, h0=h0, target=target, loss=loss, dtype=str(x.dtype)
            )
            return results_of(mistake.derivation, made)

        report = compare(mistaken, loss=loss, explained=True, cases=8)
        assert report.diagnosis.names == ["W for its transpose"], loss
        wrong = [row.gradient for row in report.rows if row.status == "mismatch"]
        assert wrong == [*mistake.affects], loss
        assert report.smallest is not None
        assert f"loss={loss!r}" in report.smallest.lines[1]


def mean_of_squares(params, x, h0, target, *, of):
    trace = mb.forward(params, x, h0)
    grads = mb.backward(params, trace, 2 * (trace.y - target) / of(trace.y))
    return {k: v for k, v in grads._asdict().items() if v is not None}


@pytest.mark.parametrize(
    ("loss", "of"),
    [
        ("squared_error/T", len),
        ("squared_error/B", lambda y: y.shape[1]),
        ("squared_error/TB", lambda y: len(y) * y.shape[1]),
        ("squared_error/TBO", lambda y: y.size),
        ("squared_error/2", lambda y: 2),
        ("squared_error/2/T", lambda y: 2 * len(y)),
    ],
)
def test_a_loss_is_divided_by_what_stands_after_the_stroke(loss, of):
    def mean(*given):
        return mean_of_squares(*given, of=of)

    assert compare(mean, loss=loss).passed
    wrong = compare(mean, loss="squared_error")
    assert {row.status for row in wrong.rows} <= {"mismatch", "not returned"}


def test_single_steps_are_judged_with_a_divided_loss_too():
    def of_mean(params, x, h0, target):
        trace = mb.forward(params, x, h0)
        dy = 2 * (trace.y - target) / len(x)
        dh = mb.hidden_gradients(params, trace, dy)
        return mb.backward(params, trace, dy)._asdict() | {"h": dh, "states": trace.h}

    report = compare(of_mean, loss="squared_error/T")
    assert report.passed
    assert all(row.local_cases for row in report.rows)


def test_the_last_state_and_the_last_step_are_divided_as_well():
    for loss in ("last_step_squared_error/B", "final_state_squared_error/2"):
        made = problem(loss=loss)
        base, *_ = loss.split("/")
        whole = reference.gradients(made.params, made.x, made.target, h0=made.h0, loss=base)
        parts = reference.gradients(made.params, made.x, made.target, h0=made.h0, loss=loss)
        np.testing.assert_allclose(2 * parts["W"], whole["W"], rtol=1e-12)
        (answer,) = answers([made])
        assert (np.abs(parts["W"] - answer.truth["W"][0]) <= answer.truth["W"][1]).all()


@pytest.mark.parametrize(
    "loss",
    ["cross_entropy/", "squared_error/D", "squared_error/0", "cross_entropy/T/", "/T",
     "squared_error/1.5", "final_state_squared_error/O", "hinge/T", "squared_error//T"],
)  # fmt: skip
def test_a_loss_that_is_divided_by_anything_else_is_refused(loss):
    with pytest.raises(ValueError, match="loss is"):
        named_loss(loss)


@pytest.mark.parametrize("target", [[[0, 4], [1, 1]], [[0, -1], [1, 1]], [[0.5, 0], [1, 1]]])
def test_what_is_no_label_is_refused(target):
    drawn = problem(T=2)
    given = {**drawn.params._asdict(), "x": drawn.x, "h0": drawn.h0}
    with pytest.raises(ValueError, match="integers from 0 to 3"):
        make_problem(**given, target=target, loss="cross_entropy")
    with pytest.raises(ValueError, match="integers from 0 to 3"):
        reference.gradients(drawn.params, drawn.x, np.array(target), loss="cross_entropy")


@pytest.mark.parametrize("batch", [2, None])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_labels_and_tokens_are_integers_in_every_layout(layout, batch):
    made = problem(B=batch, tokens=True)
    assert np.array_equal(made.x.sum(-1), np.ones(made.x.shape[:-1]))
    expected = made.x.argmax(-1), made.target
    if layout.startswith("batch_first"):
        expected = tuple(a.T for a in expected)
    given = arguments(made, layout)
    for k, array in zip(("x", "target"), expected, strict=True):
        assert given[k].dtype.kind == "i"
        assert np.array_equal(given[k], array)


def of_tokens(params, x, h0, target, back=np.transpose):
    """Backpropagation of a classifier whose inputs are tokens (T,) or (T, B)."""
    one_hot = np.eye(params.U.shape[1])[x]
    found = classifier(params._replace(), one_hot, h0, target)
    dU = found["U"] if back is np.transpose else 2 * found["U"]
    return {"W": found["W"], "U": dU, "b": found["b"], "V": found["V"], "c": found["c"]}


@pytest.mark.parametrize("batched", [True, False])
def test_a_network_of_tokens_is_judged(batched):
    report = compare(of_tokens, batched=batched, tokens=True)
    assert report.passed, report
    report = compare(
        lambda *given: of_tokens(*given, back=None), batched=batched, tokens=True, explained=True
    )
    assert {row.gradient for row in report.rows if row.status == "mismatch"} == {"U"}
    assert (report.smallest.problem.x.sum(-1) == 1).all()
    assert "tokens=True" in report.smallest.lines[1]


def test_the_line_that_repeats_a_problem_of_tokens_makes_the_same():
    for made in (problem(tokens=True), problem(B=None, tokens=True, zero=("h0", "b"))):
        again = eval(made.origin, {"reference": reference})
        for k, array in made.arrays.items():
            assert np.array_equal(array, again.arrays[k])
        assert (again.tokens, again.zero) == (made.tokens, made.zero)


def test_what_is_zero_stays_zero_in_every_problem_that_a_candidate_sees():
    seen = []

    def looks(params, x, h0, target):
        seen.append(not (h0.any() or params.b.any()) and params.c.any())
        return {"b": 0 * params.b}

    caller = Caller(looks)
    made = problem(zero=("h0", "b"))
    caller(made)
    assert seen == [True]
    with pytest.raises(ValueError, match="zero names 'W'"):
        problem(zero=("W",))


def test_inputs_that_are_no_tokens_are_refused():
    drawn = problem()
    given = {**drawn.params._asdict(), "h0": drawn.h0, "target": drawn.target}
    with pytest.raises(ValueError, match="no tokens"):
        make_problem(**given, x=drawn.x, loss="cross_entropy", tokens=True)


def test_the_losses_have_the_facts_that_they_are_used_by():
    assert {k for k, loss in LOSSES.items() if loss.labels} == {"cross_entropy"}
    assert named_loss("cross_entropy/T") is named_loss("cross_entropy/T")  # else compiled anew


@pytest.mark.parametrize("cell", ["tanh", "gru"])
@pytest.mark.parametrize("way", [{}, {"workers": 2}, {"checkpoint_every": "sqrt"}])
def test_the_cross_entropy_of_this_package_is_that_of_autodiff(cell, way):
    report = compare(candidate(mb.cross_entropy, cell, **way), cell=cell)
    assert report.passed, report


def test_weights_of_labels_mean_the_same_on_both_sides():
    made = problem()
    for weights in (np.arange(4.0), np.arange(8.0).reshape(4, 2)):
        _, ours = mb.loss_and_gradients(
            mb.Params(*made.params), made.x, made.target, h0=made.h0, loss=mb.cross_entropy,
            weights=weights,
        )  # fmt: skip
        theirs = reference.gradients(
            made.params, made.x, made.target, h0=made.h0, loss="cross_entropy", weights=weights
        )
        for k, array in ours._asdict().items():
            np.testing.assert_allclose(array, theirs[k], rtol=1e-10, atol=1e-13)
