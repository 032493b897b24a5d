"""Candidates out of functions and classes: what is recognised, what is refused, what to write."""

from typing import NamedTuple

import numpy as np
import pytest

import manual_bptt as mb
import reference
from reference.adapting import AdaptError
from reference.judging.conventions import agreed, zero_of
from reference.mistakes import correct

NAMES = {"Whh": "W", "Wxh": "U", "bh": "b", "Why": "V", "by": "c"}


def compare(candidate, **options):
    return reference.compare(candidate, **{"cases": 8, "explained": False} | options)


def matched(report):
    return {row.gradient for row in report.rows if row.status == "match"}


def right(**given):
    """Return right gradients, from our names."""
    params = mb.Params(*(given[k] for k in "WUbVc"))
    _, grads = mb.loss_and_gradients(params, given["x"], given["target"], h0=given["h0"])
    return {f"d{own}": getattr(grads, ours) for own, ours in NAMES.items()} | {"dh0": grads.h0}


def by_position(xs, targets, Wxh, Whh, Why, bh, by, hprev, clip=5.0):
    return right(W=Whh, U=Wxh, b=bh, V=Why, c=by, x=xs, target=targets, h0=hprev)


def of_strange_names(inputs, labels, A, B, C, d, e, start):
    found = right(W=B, U=A, b=d, V=C, c=e, x=inputs, target=labels, h0=start)
    own = {"dWhh": "dB", "dWxh": "A_grad", "dWhy": "dC", "dbh": "grad_d", "dby": "e"}
    return {own.get(k, k): v for k, v in found.items()}


def test_arguments_in_any_order_are_recognised_and_the_report_says_so():
    report = compare(reference.adapt(by_position))
    assert report.passed
    assert matched(report) == {*"WUbVc", "h0"}
    said = report.assumed
    assert any("Wxh is U" in line and "hprev is h0" in line for line in said)
    assert any("dWhh is dW" in line for line in said)


def test_names_that_follow_no_pattern_are_told():
    told = {"A": "U", "B": "W", "C": "V", "d": "b", "e": "c", "start": "h0"}
    report = compare(reference.adapt(of_strange_names, names=told))
    assert report.passed, report
    assert matched(report) == {*"WUbVc", "h0"}
    told |= {"A": "W", "B": "U"}
    assert not compare(reference.adapt(of_strange_names, names=told)).passed


def test_a_decorator_leaves_the_function_to_be_called_by_the_judge():
    @reference.adapt(returns=("_", "dV"))
    def decorated(params, x, h0, target):
        """Return two things."""
        return 1.0, correct()(params, x, h0, target)["V"]

    assert decorated.__name__ == "decorated"
    assert decorated.__doc__ == "Return two things."
    assert matched(compare(decorated)) == {"V"}


class Result(NamedTuple):
    dWhy: np.ndarray


RESULTS = {
    "loss and gradients": lambda grads: (0.5, grads),
    "a list": lambda grads: [0.5, grads, grads["dWhh"]],
    "a namedtuple": lambda grads: Result(grads["dWhy"]),
    "a list of dictionaries": lambda grads: [{"dWhh": grads["dWhh"]}, {"dWhy": grads["dWhy"]}],
}


@pytest.mark.parametrize("kind", RESULTS)
def test_gradients_are_found_in_what_is_returned(kind):
    def function(params, x, h0, target):
        W, U, b, V, c = params
        return RESULTS[kind](right(W=W, U=U, b=b, V=V, c=c, x=x, target=target, h0=h0))

    plain = [] if kind == "a list of dictionaries" else [function]
    for candidate in (reference.adapt(function), *plain):
        report = compare(candidate)
        assert report.passed, report
        assert "V" in matched(report)


def test_a_gradient_in_two_dictionaries_is_refused():
    candidate = reference.adapt(lambda params, x, h0, target: [{"dW": 1}, {"dW": 2}])
    report = compare(candidate)
    assert "'dW' is in several of the dictionaries" in report.rows[0].detail


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda params, x, y, rate: 0, "what is rate of"),
        (lambda params, x, y, rate: 0, "functools.partial"),
        (lambda params, y: 0, "has no x"),
        (lambda x, y, W, U: 0, "has no V"),
        (lambda params, x, y, target: 0, "y and target of"),
        (lambda params, x, xs, y: 0, "x and xs of"),
    ],
)
def test_what_cannot_be_told_is_refused_with_what_to_write(function, message):
    with pytest.raises(AdaptError, match=r"reference\.adapt") as refused:
        reference.adapt(function)
    assert message in str(refused.value)


def test_a_key_that_follows_no_pattern_is_told_what_to_write():
    report = compare(reference.adapt(lambda params, x, h0, target: {"dW": params["kern"]}))
    assert "reference.adapt(..., names={'kern': 'W', ...})" in report.rows[0].detail


def test_a_parameter_of_the_cell_without_a_place_is_no_zero():
    def function(W, U, b, V, c, x, h0, target):
        return {"W": W}

    report = compare(reference.adapt(function), cell="gru_reset_after")
    assert "names={'its name': 'bh'}" in report.rows[0].detail


def test_of_two_biases_in_one_place_the_first_has_all_and_both_have_the_gradient():
    def function(weight_ih, weight_hh, bias_ih, bias_hh, fc_weight, fc_bias, x, target, h0):
        given = {"W": weight_hh, "U": weight_ih, "b": bias_ih + bias_hh, "V": fc_weight}
        found = right(**given, c=fc_bias, x=x, target=target, h0=h0)
        return {"bias_ih": found["dbh"], "bias_hh": found["dbh"], "weight_hh": found["dWhh"]}

    report = compare(reference.adapt(function))
    assert report.passed, report
    assert matched(report) == {"W", "b"}


def test_what_a_function_has_no_place_for_is_zero_and_said():
    seen = []

    def function(Wxh, Whh, Why, xs, ys):
        b, c, h0 = np.zeros(len(Whh)), np.zeros(len(Why)), np.zeros((xs.shape[1], len(Whh)))
        found = right(W=Whh, U=Wxh, b=b, V=Why, c=c, x=xs, target=ys, h0=h0)
        seen.append(1)
        return {k: found[k] for k in ("dWxh", "dWhh", "dWhy")}

    report = compare(reference.adapt(function))
    assert report.passed, report
    line = "h0 b c are zero in every problem: the candidate has no place for another"
    assert line in report.assumed


class Model:
    """Keeps its gradients from call to call, unless it forgets to."""

    forget = True

    def __init__(self, n_in, n_hidden, n_out, seed=0):
        self.Wx, self.Wh, self.Wy = (np.zeros(n) for n in ((n_hidden, n_in),) * 3)
        self.bh, self.by = np.zeros(n_hidden), np.zeros(n_out)
        self.dWy = 0.0

    def bptt(self, xs, ys):
        h0 = np.zeros((xs.shape[1], len(self.bh)))
        found = right(W=self.Wh, U=self.Wx, b=self.bh, V=self.Wy, c=self.by, x=xs, target=ys, h0=h0)
        self.dWy = found["dWhy"] + (0 if self.forget else self.dWy)


class Keeps(Model):
    """Adds up."""

    forget = False


def test_an_object_is_kept_as_in_training_so_that_a_sum_that_is_kept_shows():
    assert matched(compare(reference.adapt(Model), cases=12)) == {"V"}
    report = compare(reference.adapt(Keeps), cases=12)
    assert not report.passed
    assert "depends on earlier calls" in " ".join(report.objections)


class TwoWays(Model):
    """Has two methods by such names."""

    def backward(self, xs, ys):
        return {}


class Silent(Model):
    """Leaves nothing."""

    def __init__(self, n_in, n_hidden, n_out):
        super().__init__(n_in, n_hidden, n_out)
        del self.dWy

    def bptt(self, xs, ys):
        return 0.0


def test_the_method_of_a_class_is_told_where_there_are_several():
    with pytest.raises(AdaptError, match="which of bptt, backward of TwoWays"):
        reference.adapt(TwoWays)
    assert compare(reference.adapt(TwoWays, method="bptt")).passed
    report = compare(reference.adapt(Silent))
    assert "left none in attributes such as self.dWxh" in report.rows[0].detail


def test_attributes_that_a_function_has_for_itself_mean_nothing():
    def function(*given):
        return correct()(*given)

    function.declared, function.said = "nothing", 3
    assert compare(function).passed


def test_an_option_is_said_once():
    candidate = reference.adapt(by_position, layout="rows")
    assert compare(candidate, layout="rows").assumed
    with pytest.raises(ValueError, match="layout is 'columns', and the candidate says 'rows'"):
        compare(candidate, layout="columns")
    with pytest.raises(ValueError, match="the candidate says 3"):
        agreed({"loss": 3}, loss="squared_error")
    with pytest.raises(ValueError, match="expected names"):
        zero_of({"zero": "h0"})
    with pytest.raises(TypeError, match="target is a int"):
        reference.adapt(3)
