"""Vectors as rows, h @ W: every parameter with two axes is the transpose, as are the gradients."""

import numpy as np
import pytest

import manual_bptt as mb
import reference
from manual_bptt.cells import CELLS


def rows(params, x, h0, target, *, back=np.transpose):
    """Backpropagation through time for x (T, B, D) and weights that stand on the right."""
    W, U, b, V, c = params
    h = [h0]
    for x_t in x:
        h.append(np.tanh(x_t @ U + h[-1] @ W + b))
    h = np.array(h)
    dy = 2 * (h[1:] @ V + c - target)
    dh, da = np.zeros_like(h), np.zeros_like(h[1:])
    for t in range(len(x), 0, -1):
        dh[t] += dy[t - 1] @ V.T
        da[t - 1] = (1 - h[t] ** 2) * dh[t]
        dh[t - 1] = da[t - 1] @ back(W)
    over = tuple(range(x.ndim - 1))  # time, and sequences if there are any
    return {
        "W": np.tensordot(h[:-1], da, (over, over)),
        "U": np.tensordot(x, da, (over, over)),
        "b": da.sum(over),
        "V": np.tensordot(h[1:], dy, (over, over)),
        "c": dy.sum(over),
        "x": da @ U.T,
        "h0": dh[0],
        "h": dh,
        "states": h,
    }


def batch_first_rows(params, x, h0, target):
    found = rows(params, x.swapaxes(0, 1), h0, target.swapaxes(0, 1))
    return found | {k: found[k].swapaxes(0, 1) for k in ("x", "h", "states")}


@pytest.mark.parametrize(
    ("candidate", "options"),
    [
        (rows, {"layout": "rows"}),
        (rows, {"layout": "rows", "batched": False}),
        (batch_first_rows, {"layout": "batch_first_rows"}),
        (rows, {"layout": "rows", "sizes": {"D": 4, "H": 4, "O": 4}}),
        (rows, {"layout": "rows", "sizes": {"D": 1, "H": 1, "O": 1}}),
    ],
    ids=["rows", "one sequence", "batch first", "square", "of one unit"],
)
def test_a_candidate_with_weights_on_the_right_is_called_and_read(candidate, options):
    report = reference.compare(candidate, cases=24, **options)
    assert report.passed, report
    assert {row.status for row in report.rows} == {"match"}
    assert not report.notes


def test_a_missing_transpose_in_rows_is_named_as_in_any_layout():
    report = reference.compare(
        lambda *given: rows(*given, back=lambda W: W), layout="rows", cases=24
    )
    assert not report.passed
    assert report.diagnosis.names == ["W for its transpose"]
    assert "layout='rows'" in report.smallest.lines[2]


def test_rows_taken_for_the_first_layout_are_told_their_own():
    report = reference.compare(rows, cases=4, sizes={"D": 3, "H": 5, "T": 7})
    assert not report.passed
    assert any("--layout rows)" in note for note in report.notes)


@pytest.mark.parametrize("cell", ["gru", "gru_reset_after"])
def test_the_gates_of_rows_lie_side_by_side_along_the_last_axis(cell):
    kind = CELLS[cell].Params

    def candidate(params, x, h0, target):
        H = h0.shape[-1]
        assert params.W.shape == (H, 3 * H)
        assert params.U.shape == (x.shape[-1], 3 * H)
        own = kind(**{k: np.transpose(v) for k, v in params._asdict().items()})
        _, grads = mb.loss_and_gradients(own, x, target, h0=h0)
        found = grads._asdict()
        return {k: found[k].T if k in ("W", "U", "V") else found[k] for k in found}

    assert reference.compare(candidate, cell=cell, layout="rows", cases=8).passed
    wrong = reference.compare(
        lambda *given: candidate(*given) | {"W": 2 * candidate(*given)["W"]},
        cell=cell, layout="rows", cases=8, explained=False,
    )  # fmt: skip
    assert {row.gradient for row in wrong.rows if row.status == "mismatch"} == {"W"}
