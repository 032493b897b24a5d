"""The evidence is tested too: the shipped code with one line broken no longer passes."""

import importlib.util

import pytest

import reference
from manual_bptt import products
from manual_bptt.candidate import candidate
from manual_bptt.cells import tanh
from manual_bptt.engine import blocks

# name: (line of the lab's cell or of products.py, what breaks it, gradients that are then wrong)
BREAKS = {
    "W for W transposed": (
        "da_now.dot(params.W, carried)", "da_now.dot(params.W.T, carried)", "W U b x h0 h",
    ),
    "h[t] for h[t-1] in dW": ("dW += da.T.dot(h_before)", "dW += da.T.dot(h_now)", "W"),
    "the first step left out of db": (
        "db += ones.dot(da)", "db += ones[len(h[0]) :].dot(da[len(h[0]) :])", "b",
    ),
    "1 - h for 1 - h**2": ("slope = h[1:] * h[1:]", "slope = h[1:] * 1", "W U b x h0 h"),
    "half of dV": ("dV += ys.T.dot(h_now)", "dV += ys.T.dot(h_now) / 2", "V"),
    "h[t-1] for h[t] in dV": ("dV += ys.T.dot(h_now)", "dV += ys.T.dot(h_before)", "V"),
    "mean for sum in dc": ("dc += ones.dot(ys)", "dc += ones.dot(ys) / len(ones)", "c"),
    "the last step left out of dc": (
        "dc += ones.dot(ys)", "dc += ones[: -len(h[0])].dot(ys[: -len(h[0])])", "c",
    ),
    "x left out of the chain": ("rows(da).dot(params.U)", "rows(da).dot(-params.U)", "x"),
    "dU with the steps reversed": (
        "dU += da.T.dot(rows(x))", "dU += da.T.dot(rows(x[::-1]))", "U",
    ),
    "V' dy left out of the carry": (
        "np.add(dh_now, carried, dh_now)", "np.copyto(dh_now, carried)", "W U b x h0 h",
    ),
    "the carry overwritten": (
        "np.add(dh_now, carried, dh_now)", "np.copyto(dh_now, dh_now)", "W U b x h0 h",
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


# Where each function is written, where it is used, and its name.
PLACES = [
    (tanh, tanh, "backward_steps"),
    (products, blocks, "add_up"),
    (products, blocks, "to_inputs"),
]


def candidate_with(old, new, monkeypatch):
    """Return the candidate as it would be if one expression of the two files read otherwise."""
    found = 0
    for written, used, name in PLACES:
        spec = importlib.util.find_spec(written.__name__)
        source = spec.loader.get_source(spec.name)
        if old in source:
            found = source.count(old)
            module = importlib.util.module_from_spec(spec)
            exec(compile(source.replace(old, new), "broken", "exec"), module.__dict__)
            monkeypatch.setattr(used, name, getattr(module, name))
    assert found == 1, f"{old!r} is not one expression of the code any more"
    return candidate()


@pytest.mark.parametrize("name", BREAKS)
def test_a_broken_line_is_caught_and_the_wrong_gradients_named(name, monkeypatch):
    old, new, expected = BREAKS[name]
    report = reference.compare(candidate_with(old, new, monkeypatch), cases=40, explained=False)
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
