"""The evidence is tested too: the shipped code with one line broken no longer passes."""

import importlib.util
from functools import partial

import pytest

import manual_bptt.candidate
import manual_bptt.checkpointing
import manual_bptt.gradients
import reference
from manual_bptt.checkpointing import Kernel

# name: (line of backward.py, what breaks it, gradients that are then wrong)
BREAKS = {
    "W for W transposed": (
        "da_now.dot(params.W, carried)", "da_now.dot(params.W.T, carried)", "W U b x h0 h",
    ),
    "h[t] for h[t-1] in dW": ("dW += da.T.dot(h_before)", "dW += da.T.dot(h_now)", "W"),
    "the first step left out of db": (
        "db += ones.dot(da)", "db += ones[len(carried) :].dot(da[len(carried) :])", "b",
    ),
    "1 - h for 1 - h**2": ("slope = h[1:] * h[1:]", "slope = h[1:] * 1", "W U b x h0 h"),
    "half of dV": ("dV += ys.T.dot(h_now)", "dV += ys.T.dot(h_now) / 2", "V"),
    "h[t-1] for h[t] in dV": ("dV += ys.T.dot(h_now)", "dV += ys.T.dot(h_before)", "V"),
    "mean for sum in dc": ("dc += ones.dot(ys)", "dc += ones.dot(ys) / len(ones)", "c"),
    "the last step left out of dc": (
        "dc += ones.dot(ys)", "dc += ones[: -len(carried)].dot(ys[: -len(carried)])", "c",
    ),
    "x left out of the chain": ("da.dot(params.U)", "da.dot(-params.U)", "x"),
    "dU with the steps reversed": (
        "dU += da.T.dot(rows(x[block]))", "dU += da.T.dot(rows(x[block][::-1]))", "U",
    ),
    "V' dy left out of the carry": (
        "np.add(da_now, carried, dh_now)", "np.copyto(dh_now, carried)", "W U b x h0 h",
    ),
    "the carry overwritten": (
        "np.add(da_now, carried, dh_now)", "np.copyto(dh_now, da_now)", "W U b x h0 h",
    ),
    "the derivative left out": (
        "np.multiply(dh_now, slope_now, da_now)", "np.copyto(da_now, dh_now)", "W U b x h0 h",
    ),
    "1 - 1.0000001 h**2": (
        "np.subtract(1, slope, out=slope)",
        "np.subtract(1, slope * 1.0000001, out=slope)",
        "W U b x h0 h",
    ),
}  # fmt: skip


def candidate_with(old, new, monkeypatch):
    """Return the candidate as it would be if one expression of backward.py read otherwise."""
    spec = importlib.util.find_spec("manual_bptt.backward")
    source = spec.loader.get_source(spec.name)
    assert source.count(old) == 1, f"{old!r} is not one expression of backward.py any more"
    module = importlib.util.module_from_spec(spec)
    exec(compile(source.replace(old, new), "broken", "exec"), module.__dict__)
    monkeypatch.setattr(manual_bptt.checkpointing, "run_backward", module.run_backward)
    monkeypatch.setattr(manual_bptt.gradients, "Kernel", partial(Kernel, da=module.da_of_block))
    monkeypatch.setattr(manual_bptt.candidate, "hidden_gradients", module.hidden_gradients)
    return manual_bptt.candidate.candidate()


@pytest.mark.parametrize("name", BREAKS)
def test_a_broken_line_is_caught_and_the_wrong_gradients_named(name, monkeypatch):
    old, new, expected = BREAKS[name]
    report = reference.compare(candidate_with(old, new, monkeypatch), cases=40)
    assert not report.passed
    assert {row.gradient for row in report.rows if row.status == "mismatch"} == {*expected.split()}


def test_a_sum_over_the_first_block_alone_is_caught_in_a_long_sequence(monkeypatch):
    old, new = "dW += da.T.dot(h_before)", "dW[:] = da.T.dot(h_before)"
    judged = candidate_with(old, new, monkeypatch)
    long = reference.draw_problems(2, 0, dtype="float64", batched=False, sizes={"T": 600})
    report = reference.Report.of(reference.judge(judged, long))
    assert {row.gradient for row in report.rows if row.status == "mismatch"} == {"W"}


def test_the_unbroken_source_loaded_in_the_same_way_passes(monkeypatch):
    same = "dV += ys.T.dot(h_now)"
    assert reference.compare(candidate_with(same, same, monkeypatch), cases=40).passed
