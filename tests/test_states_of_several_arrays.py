"""Cells whose state has several arrays: a long short-term memory, and fast weights.

The memory s of an LSTM (Hochreiter and Schmidhuber, 1997; the forget gate of Gers et al., 2000) is
carried beside h. Fast weights (Ba et al., 2016, without their normalisation) are a matrix for each
sequence.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_cells_of_users import of_the_output, report_on

import reference
from reference.oracle.answers import solved
from reference.oracle.padding import zeros_are_exact


def lstm(p, state, x):
    h, s = state
    i, f, g, o = jnp.split(p["W"] @ h + p["U"] @ x + p["b"], 4)
    s = jax.nn.sigmoid(f) * s + jax.nn.sigmoid(i) * jnp.tanh(g)
    return jax.nn.sigmoid(o) * jnp.tanh(s), s


def fast(p, state, x):
    h, A = state["h"], state["A"]
    A = 0.9 * A + p["eta"][:, None] * jnp.outer(h, h)
    return {"h": jnp.tanh(p["W"] @ h + p["U"] @ x + A @ h), "A": A}


LSTM = reference.Cell(lstm, params={"W": "4HH", "U": "4HD", "b": "4H"}, state=("H", "H"))
FAST = reference.Cell(fast, params={"W": "HH", "U": "HD", "eta": "H"}, state={"h": "H", "A": "HH"})


def logistic(a):
    return 1 / (1 + np.exp(-a))


def lstm_by_hand(p, x, state, target, wrong="", of_states=False):
    h, s, gates = [state[0]], [state[1]], []
    for x_t in x:
        i, f, g, o = np.split(h[-1] @ p.W.T + x_t @ p.U.T + p.b, 4, axis=-1)
        i, f, g, o = logistic(i), logistic(f), np.tanh(g), logistic(o)
        s.append(f * s[-1] + i * g)
        h.append(o * np.tanh(s[-1]))
        gates.append((i, f, g, o))
    h, s = np.array(h), np.array(s)
    W, U, b = (np.zeros_like(getattr(p, k)) for k in "WUb")
    dh, ds, dx = np.zeros_like(h), np.zeros_like(s), np.zeros_like(x)
    if of_states:
        dh[-1], ds[-1] = 2 * (h[-1] - target[0]), 2 * (s[-1] - target[1])
    outputs = h[1:] @ p.V.T + p.c
    dy, found = of_the_output(p, h, outputs if of_states else target)
    for t in range(len(x), 0, -1):
        dh[t] += dy[t - 1] @ p.V
        (i, f, g, o), q = gates[t - 1], np.tanh(s[t])
        through_h = dh[t] * o * (1 - q * (q if wrong != "slope" else q * q))
        d = ds[t] + through_h
        ds[t] = d if wrong == "h within ds" else ds[t]
        da = [d * g * i * (1 - i), d * s[t - 1] * f * (1 - f), d * i * (1 - g * g)]
        da = np.concatenate([*da, dh[t] * q * o * (1 - o)], axis=-1)
        da = -da if wrong == "sign" else da
        dh[t - 1] = da @ p.W
        ds[t - 1] = 0 * d if wrong == "memory cut" else d * f
        W += da.T @ (h[t] if wrong == "dW one step late" else h[t - 1])
        U += da.T @ x[t - 1]
        b += da.sum(0)
        dx[t - 1] = da @ p.U
    h0 = (dh[0], 0 * ds[0] if wrong == "ds0 forgotten" else ds[0])
    return {**found, "W": W, "U": U, "b": b, "x": dx, "h0": h0, "h": (dh, ds), "states": (h, s)}


def fast_by_hand(p, x, state, target, wrong=""):
    h, A = [state["h"]], [state["A"]]
    for x_t in x:
        A.append(0.9 * A[-1] + p.eta[:, None] * h[-1][:, :, None] * h[-1][:, None, :])
        h.append(np.tanh(h[-1] @ p.W.T + x_t @ p.U.T + np.einsum("bij,bj->bi", A[-1], h[-1])))
    h, A = np.array(h), np.array(A)
    dy, found = of_the_output(p, h, target)
    W, U, eta = (np.zeros_like(getattr(p, k)) for k in ("W", "U", "eta"))
    dh, dA, dx = np.zeros_like(h), np.zeros_like(A), np.zeros_like(x)
    for t in range(len(x), 0, -1):
        dh[t] += dy[t - 1] @ p.V
        before, da = h[t - 1], dh[t] * (1 - h[t] * h[t])
        inner = dA[t] + da[:, :, None] * before[:, None, :]
        both = (
            np.einsum("bij,bj->bi", inner, before),
            np.einsum("bij,bi->bj", inner, p.eta * before),
        )
        dh[t - 1] = da @ p.W + np.einsum("bij,bi->bj", A[t], da) + p.eta * both[0] + both[1]
        dh[t - 1] -= both[1] if wrong == "one factor of the outer product" else 0
        dA[t - 1] = inner if wrong == "decay" else 0.9 * inner
        W += da.T @ before
        U += da.T @ x[t - 1]
        eta += (before * both[0]).sum(0)
        dx[t - 1] = da @ p.U
    trees = {"h0": (dh[0], dA[0]), "h": (dh, dA), "states": (h, A)}
    trees = {k: dict(zip(("h", "A"), pair, strict=True)) for k, pair in trees.items()}
    return {**found, "W": W, "U": U, "eta": eta, "x": dx, **trees}


OF_LSTM = ("slope", "sign", "memory cut", "dW one step late", "ds0 forgotten", "h within ds")
OF_FAST = ("one factor of the outer product", "decay")


@pytest.mark.parametrize(
    ("cell", "by_hand", "breaks"),
    [(LSTM, lstm_by_hand, OF_LSTM), (FAST, fast_by_hand, OF_FAST)],
    ids=["lstm", "fast weights"],
)
def test_a_right_gradient_passes_and_each_break_of_it_is_found(cell, by_hand, breaks):
    assert zeros_are_exact(cell)
    drawn = reference.draw_problems(160, 3, dtype="float64", batched=True, cell=cell)
    chunks = [*solved(drawn)]
    right = report_on(chunks, by_hand)
    assert right.passed, right
    assert all(row.local_ratio <= 1 and row.ratio <= 1 for row in right.rows)
    for wrong in breaks:
        report = report_on(chunks[:2], partial(by_hand, wrong=wrong))
        failed = [row for row in report.rows if row.status != "match"]
        assert {row.status for row in failed} == {"mismatch"}, wrong


SMALL = {"T": 4, "B": 2, "D": 2, "H": 3, "O": 1, "regime": "critical", "seed": 1}


def test_autodiff_takes_and_returns_arrays_as_the_state_has_them():
    problem = reference.random_problem(**SMALL, cell=LSTM)
    found = reference.gradients(problem.params, problem.x, problem.target, h0=problem.h0, cell=LSTM)
    (h, s), _ = reference.forward(problem.params, problem.x, problem.h0, cell=LSTM)
    by_hand = lstm_by_hand(problem.params, problem.x, problem.h0, problem.target)
    for k, of_hand in by_hand.items():
        expected = {**found, "states": (h, s)}[k]
        np.testing.assert_allclose(np.array(of_hand), np.array(expected), rtol=1e-12, atol=1e-12)
    with pytest.raises(ValueError, match=r"h0: expected a tuple of 2, got ndarray"):
        reference.forward(problem.params, problem.x, problem.h0[0], cell=LSTM)
    with pytest.raises(ValueError, match=r"h0\[1\] has shape \(2, 4\); expected \(2, 3\)"):
        reference.forward(problem.params, problem.x, (h[0], np.ones((2, 4))), cell=LSTM)


@pytest.mark.parametrize("layout", ["batch_first", "columns"])
@pytest.mark.parametrize("cell", [LSTM, FAST], ids=["lstm", "fast weights"])
def test_every_layout_has_an_axis_of_sequences_in_each_array(layout, cell):
    at = {"batch_first": 0, "columns": -1}[layout]
    by_hand = lstm_by_hand if cell is LSTM else fast_by_hand

    def there(a, over_time=True):
        return np.moveaxis(a, int(over_time), at)

    def back(a, over_time=True):
        return np.moveaxis(a, at, int(over_time))

    def candidate(p, x, h0, target):
        if layout == "columns":
            p = p._replace(
                **{k: getattr(p, k)[..., 0] for k in p._fields if k in ("b", "c", "eta")}
            )
        h0 = jax.tree.map(partial(back, over_time=False), h0)
        found = by_hand(p, back(x), h0, back(target))
        trees = {k: jax.tree.map(there, found[k]) for k in ("h", "states")}
        h0 = jax.tree.map(partial(there, over_time=False), found["h0"])
        return {**found, **trees, "h0": h0, "x": there(found["x"])}

    sizes = {k: SMALL[k] for k in "TBDHO"}
    report = reference.compare(candidate, cell=cell, cases=4, layout=layout, sizes=sizes)
    assert report.passed, report
    assert {row.status for row in report.rows} == {"match"}


def test_a_single_sequence_has_no_axis_of_sequences():
    def candidate(p, x, state, target):
        state = tuple(a[None] for a in state)
        found = lstm_by_hand(p, x[:, None], state, target[:, None])
        trees = {k: tuple(a[:, 0] for a in found[k]) for k in ("h", "states")}
        return {**found, **trees, "h0": tuple(a[0] for a in found["h0"]), "x": found["x"][:, 0]}

    report = reference.compare(candidate, cell=LSTM, cases=8, batched=False)
    assert report.passed, report
    assert {row.status for row in report.rows} == {"match"}


def test_a_report_says_which_array_is_wrong():
    report = reference.compare(
        lambda *given: lstm_by_hand(*given, wrong="ds0 forgotten"), cell=LSTM, cases=40
    )
    text = str(report)
    assert "h0[1]: zero\n" in text
    assert "dh0[1] expected [[-0.5]]" in text
    assert "dh0[0] expected [[0]]" in text
    again = eval(report.smallest.problem.origin, {"reference": reference, "LSTM": LSTM})
    assert isinstance(again.h0, tuple)


@pytest.mark.parametrize(
    ("returned", "said"),
    [
        (lambda found: found["h0"][0], "expected a tuple of 2, got ndarray"),
        (lambda found: found["h0"] * 2, "expected a tuple of 2, got tuple of 4"),
        (lambda found: dict(enumerate(found["h0"])), "expected a tuple of 2, got dict of 2"),
        (lambda found: (found["h0"][0], "s"), "h0[1]: expected an array of real numbers"),
        (lambda found: (found["h0"][0][0], found["h0"][1]), "h0[0]: shape (3,), expected (2, 3)"),
    ],
)
def test_what_is_arranged_otherwise_is_refused_in_words(returned, said):
    def candidate(p, x, h0, target):
        found = lstm_by_hand(p, x, h0, target)
        return {"dh0": returned(found)}

    report = reference.Report.of(
        reference.judge(candidate, [reference.random_problem(**SMALL, cell=LSTM)])
    )
    row = next(row for row in report.rows if row.gradient == "h0")
    assert row.status in ("raised", "wrong shape")
    assert said in str(report)


def test_a_gradient_that_arrives_at_the_last_state_arrives_at_each_of_its_arrays():
    options = {"cell": LSTM, "loss": "final_state_squared_error"}
    problem = reference.random_problem(**SMALL, **options)
    assert [a.shape for a in problem.target] == [(2, 3), (2, 3)]
    for wrong in ("", "memory cut"):

        def by_hand(*given, wrong=wrong):
            found = lstm_by_hand(*given, wrong=wrong, of_states=True)
            return {k: found[k] for k in ("W", "x", "h0")}

        report = reference.Report.of(reference.judge(by_hand, [problem]))
        assert report.passed == (not wrong), report
