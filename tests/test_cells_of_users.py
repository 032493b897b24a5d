"""Cells that this project has never seen: a step in JAX, a gradient by hand, and mistakes in it.

The minimal gated unit (Zhou et al., 2016) writes its logistic function out; a network of units that
leak at a rate that is learned (Jaeger et al., 2007) has a parameter that is neither a matrix nor a
bias; in an independently recurrent network (Li et al., 2018) every unit sees itself alone, and no
product of matrices stands on its states; units that are normalised look at one another, so that
zeros beside them are not exact.
"""

from functools import partial

import jax.numpy as jnp
import numpy as np
import pytest

import manual_bptt as mb
import reference
from manual_bptt.cli import main
from reference.judging.candidates import Caller
from reference.judging.verdicts import judge_solved
from reference.network import CELLS, in_code, name_of, named_cell
from reference.oracle.answers import solved
from reference.oracle.padding import zeros_are_exact

BREAKS = ("slope", "gate", "carried", "dW one step late", "transposed")


def gated(p, h, x):
    f = 1 / (1 + jnp.exp(-(p["Wf"] @ h + p["Uf"] @ x + p["bf"])))
    n = jnp.tanh(p["Wn"] @ (f * h) + p["Un"] @ x + p["bn"])
    return (1 - f) * h + f * n


def leaky(p, h, x):
    return (1 - p["a"]) * h + p["a"] * jnp.tanh(p["W"] @ h + p["U"] @ x + p["b"])


def independent(p, h, x):
    return jnp.maximum(p["w"] * h + p["U"] @ x + p["b"], 0)


def normalised(p, h, x):
    a = p["W"] @ h + p["U"] @ x
    a = a - a.mean()
    return jnp.tanh(p["g"] * a / jnp.sqrt((a * a).mean() + 1e-3))


MGU = reference.Cell(
    gated, params={"Wf": "HH", "Uf": "HD", "bf": "H", "Wn": "HH", "Un": "HD", "bn": "H"}
)
LEAKY = reference.Cell(leaky, params={"W": "HH", "U": "HD", "b": "H", "a": "H"})
INDEPENDENT = reference.Cell(independent, params={"w": "H", "U": "HD", "b": "H"})
NORMALISED = reference.Cell(normalised, params={"W": "HH", "U": "HD", "g": "H"})


def of_the_output(p, h, target):
    dy = 2 * (h[1:] @ p.V.T + p.c - target)
    return dy, {"V": np.einsum("tbo,tbh->oh", dy, h[1:]), "c": dy.sum((0, 1))}


def gated_by_hand(p, x, h0, target, wrong=""):
    h, gates = [h0], []
    for x_t in x:
        f = 1 / (1 + np.exp(-(h[-1] @ p.Wf.T + x_t @ p.Uf.T + p.bf)))
        n = np.tanh((f * h[-1]) @ p.Wn.T + x_t @ p.Un.T + p.bn)
        h.append((1 - f) * h[-1] + f * n)
        gates.append((f, n))
    h = np.array(h)
    dy, g = of_the_output(p, h, target)
    g |= {k: np.zeros_like(getattr(p, k)) for k in ("Wf", "Uf", "bf", "Wn", "Un", "bn")}
    dh, dx, carried = np.zeros_like(h), np.zeros_like(x), np.zeros_like(h0)
    for t in range(len(x), 0, -1):
        d = dh[t] = dy[t - 1] @ p.V + carried
        (f, n), before = gates[t - 1], h[t - 1]
        da_n = d * f * (1 - n * (n if wrong != "slope" else n * n))
        s = da_n @ p.Wn
        da_f = (d * (n - before) + (s * before if wrong != "gate" else 0)) * f * (1 - f)
        carried = d * (1 - f) + s * f + da_f @ (p.Wf if wrong != "transposed" else p.Wf.T)
        carried = carried - s * f if wrong == "carried" else carried
        left = h[t] if wrong == "dW one step late" else before
        g["Wf"] += da_f.T @ left
        g["Wn"] += da_n.T @ (f * before)
        for k, da in (("f", da_f), ("n", da_n)):
            g[f"U{k}"] += da.T @ x[t - 1]
            g[f"b{k}"] += da.sum(0)
        dx[t - 1] = da_f @ p.Uf + da_n @ p.Un
    dh[0] = carried
    return {**g, "x": dx, "h0": carried, "h": dh, "states": h}


def leaky_by_hand(p, x, h0, target, wrong=""):
    h, inner = [h0], []
    for x_t in x:
        inner.append(np.tanh(h[-1] @ p.W.T + x_t @ p.U.T + p.b))
        h.append((1 - p.a) * h[-1] + p.a * inner[-1])
    h = np.array(h)
    dy, g = of_the_output(p, h, target)
    g |= {k: np.zeros_like(getattr(p, k)) for k in "WUba"}
    dh, dx, carried = np.zeros_like(h), np.zeros_like(x), np.zeros_like(h0)
    for t in range(len(x), 0, -1):
        d = dh[t] = dy[t - 1] @ p.V + carried
        n, before = inner[t - 1], h[t - 1]
        da = d * p.a * (1 - n * (n if wrong != "slope" else n * n))
        carried = da @ (p.W if wrong != "transposed" else p.W.T)
        carried = carried if wrong == "carried" else carried + d * (1 - p.a)
        g["W"] += da.T @ (h[t] if wrong == "dW one step late" else before)
        g["U"] += da.T @ x[t - 1]
        g["b"] += da.sum(0)
        g["a"] += (d * (n - before if wrong != "gate" else n)).sum(0)
        dx[t - 1] = da @ p.U
    dh[0] = carried
    return {**g, "x": dx, "h0": carried, "h": dh, "states": h}


def independent_by_hand(p, x, h0, target, wrong=""):
    h = [h0]
    for x_t in x:
        h.append(np.maximum(p.w * h[-1] + x_t @ p.U.T + p.b, 0))
    h = np.array(h)
    dy, g = of_the_output(p, h, target)
    g |= {k: np.zeros_like(getattr(p, k)) for k in "wUb"}
    dh, dx, carried = np.zeros_like(h), np.zeros_like(x), np.zeros_like(h0)
    for t in range(len(x), 0, -1):
        d = dh[t] = dy[t - 1] @ p.V + carried
        da = d * (h[t] > 0) if wrong != "slope" else d
        w = p.w[::-1] if wrong == "transposed" else p.w
        carried = da * w if wrong != "carried" else da
        left = h[t] if wrong == "dW one step late" else h[t - 1]
        g["w"] += ((d if wrong == "gate" else da) * left).sum(0)
        g["U"] += da.T @ x[t - 1]
        g["b"] += da.sum(0)
        dx[t - 1] = da @ p.U
    dh[0] = carried
    return {**g, "x": dx, "h0": carried, "h": dh, "states": h}


def report_on(chunks, candidate):
    """Return the report on a candidate of problems that are solved."""
    caller = Caller(candidate)
    return reference.Report.of(r for chunk in chunks for r in judge_solved(caller, chunk))


@pytest.mark.parametrize(
    ("cell", "by_hand"),
    [(MGU, gated_by_hand), (LEAKY, leaky_by_hand), (INDEPENDENT, independent_by_hand)],
    ids=["gated", "leaky", "independent"],
)
def test_a_right_gradient_passes_and_each_break_of_it_is_found(cell, by_hand):
    assert zeros_are_exact(cell)
    drawn = reference.draw_problems(160, 3, dtype="float64", batched=True, cell=cell)
    chunks = [*solved(drawn)]
    right = report_on(chunks, by_hand)
    assert right.passed, right
    assert all(row.local_ratio <= 1 and row.ratio <= 1 for row in right.rows)
    for wrong in BREAKS:
        found = report_on(chunks[:2], partial(by_hand, wrong=wrong))
        failed = [row for row in found.rows if row.status == "mismatch"]
        assert failed, wrong
        assert any(row.local_ratio is not None and row.local_ratio > 1 for row in failed), wrong
        assert any(row.ratio is not None and row.ratio > 1 for row in failed), wrong


def test_a_cell_for_which_zeros_are_not_exact_is_answered_at_its_own_shapes():
    assert not zeros_are_exact(NORMALISED)

    def autodiff(p, x, h0, target):
        found = reference.gradients(p, x, target, h0=h0, cell=NORMALISED)
        return {k: gradient for k, gradient in found.items() if k != "h"}

    shape = {"T": 3, "B": 2, "D": 2, "H": 3, "O": 1, "regime": "critical", "cell": NORMALISED}
    problems = [reference.random_problem(**shape, seed=seed) for seed in range(8)]
    assert {chunk.shape[2:4] for chunk in solved(problems)} == {(2, 3)}
    report = reference.Report.of(reference.judge(autodiff, problems))
    assert report.passed, report


def test_a_cell_of_a_file_is_judged_at_the_command_line(tmp_path, monkeypatch, capsys):
    (tmp_path / "leak.py").write_text(
        "import reference\n"
        "def step(p, h, x):\n"
        "    return p['a'] * h + p['U'] @ x\n"
        "CELL = reference.Cell(step, params={'a': 'H', 'U': 'HD'})\n"
        "def forgotten(p, x, h0, target):\n"
        "    return {'c': 0 * p.c}\n"
    )
    monkeypatch.chdir(tmp_path)
    common = ["check", "leak.py:forgotten", "--single", "--cases", "4"]
    assert main([*common, "--cell", "leak.py:CELL"]) == 1
    assert "c is wrong" in capsys.readouterr().out
    for cell, said in (("leak.py:step", "expected one of"), ("lstm9", "cell is 'lstm9'")):
        assert main([*common, "--cell", cell]) == 2
        assert said in capsys.readouterr().err


def sorts(p, h, x):
    return jnp.sort(p["W"] @ h + p["U"] @ x)


@pytest.mark.parametrize(
    ("step", "error", "said"),
    [
        (
            lambda p, h, x: p["Q"] @ h,
            ValueError,
            "cannot trace the step of the cell: KeyError: 'Q'",
        ),
        (lambda p, h, x: jnp.append(h, h), ValueError, r"float32 of shape \(6,\) for 3 units"),
        (lambda p, h, x: jnp.zeros(3, int), ValueError, "returned int32 of shape"),
        (lambda p, h, x: (h, h), ValueError, "returned tuple for 3 units"),
        (
            sorts,
            NotImplementedError,
            r"known for sort \(.*test_cells_of_users.py:\d+:\d+ \(sorts\)",
        ),
    ],
)
def test_a_step_that_is_none_is_refused_by_name_and_line(step, error, said):
    cell = reference.Cell(step, params={"W": "HH", "U": "HD"})
    with pytest.raises(error, match=said):
        reference.compare(lambda p, x, h0, target: {}, cell=cell, cases=1)


def test_a_parameter_may_have_any_name_that_is_not_taken():
    other = reference.Cell(
        lambda p, h, x: jnp.tanh(p["dh"] @ h + p["dx"] @ x), params={"dh": "HH", "dx": "HD"}
    )
    assert zeros_are_exact(other)


def test_the_line_that_makes_a_problem_again_names_the_cell():
    assert in_code(MGU) == ("MGU", (f"from {__name__} import MGU",))
    assert in_code(reference.Cell(leaky, params={"W": "HH"})) == ("cell", ())
    shape = {"T": 1, "B": None, "D": 1, "H": 1, "O": 1, "regime": "linear", "seed": 0}
    assert "cell=MGU" in reference.random_problem(**shape, cell=MGU).origin
    assert "cell='gru'" in reference.random_problem(**shape, cell="gru").origin
    assert "cell" not in reference.random_problem(**shape).origin


def test_cells_by_name_are_those_of_both_packages():
    assert [*mb.CELLS] == [*CELLS]
    for name, cell in mb.CELLS.items():
        sizes = {"D": 3, "H": 4, "O": 2}
        params = mb.init_params(*sizes.values(), cell=name, rng=0)
        shapes = {k: array.shape for k, array in params._asdict().items()}
        assert shapes == CELLS[name].shapes(sizes), cell
    for name, cell in CELLS.items():
        assert named_cell(name) is cell
        assert name_of(cell) == name
    assert name_of(MGU) is None


@pytest.mark.parametrize(
    ("arguments", "error", "said"),
    [
        ({"step": 3, "params": {"W": "HH"}}, TypeError, "step is a int; expected a function"),
        ({"step": leaky, "params": {}}, ValueError, "expected the axes of each by its name"),
        ({"step": leaky, "params": {"V": "OH"}}, ValueError, "params names 'V'; expected a name"),
        ({"step": leaky, "params": {"_a": "H"}}, ValueError, "params names '_a'"),
        ({"step": leaky, "params": {"W": "HX"}}, ValueError, "is 'HX'; expected axes such as"),
        ({"step": leaky, "params": {"W": "HH"}, "state": "HH"}, ValueError, "state is 'HH'"),
    ],
)
def test_a_cell_that_makes_no_sense_is_refused(arguments, error, said):
    with pytest.raises(error, match=said):
        reference.Cell(**arguments)
