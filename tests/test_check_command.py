"""``manual-bptt check``: any function in any file, judged, or refused in one line."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from manual_bptt.cli import main
from reference.mistakes import MISTAKES

MODULE = '''
"""Gradients of one sequence; "dW" is transposed in one of them."""
import time
import numpy as np
import jax.numpy as jnp

print("this module prints when it is imported")
number = 3


def gradients(params, x, h0, target, slope=1.0):
    h = [h0]
    for x_t in x:
        h.append(np.tanh(params.W @ h[-1] + params.U @ x_t + params.b))
    h = np.array(h)
    dy = slope * 2 * (h[1:] @ params.V.T + params.c - target)
    da = np.zeros((len(x) + 1, len(h0)))
    for t in range(len(x), 0, -1):
        da[t - 1] = (1 - h[t] ** 2) * (params.V.T @ dy[t - 1] + params.W.T @ da[t])
    da = da[:-1]
    return {"dW": da.T @ h[:-1], "dU": da.T @ x, "db": da.sum(0), "dV": dy.T @ h[1:]}


def transposed(params, x, h0, target):
    found = gradients(params, x, h0, target)
    return found | {"dW": found["dW"].T}


def of_half_the_loss(params, x, h0, target):
    return gradients(params, x, h0, target, slope=0.5)


def in_a_tuple(params, x, h0, target):
    found = gradients(params, x, h0, target)
    return 0.0, found["dU"], found["dW"], found["dV"]


def by_other_names(params, x, h0, target):
    found = gradients(params, x, h0, target)
    return {"dWhh": found["dW"], "Wxh_grad": found["dU"]}


waits = iter([0.3, 0.3])  # the bar is drawn ten times a second


def patient(params, x, h0, target):
    time.sleep(next(waits, 0))
    return gradients(params, x, h0, target)


def half(y, target):
    return 0.5 * jnp.sum((y - target) ** 2)


class Holder:
    method = staticmethod(gradients)
'''


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A current folder with a module of its own, and a clean import system afterwards."""
    (tmp_path / "handmade.py").write_text(MODULE)
    (tmp_path / "broken.py").write_text("import numpy\nraise ValueError('two\\nlines')\n")
    (tmp_path / "exits.py").write_text("import sys\nsys.exit(3)\n")
    (tmp_path / "needs.py").write_text("import surely_not_installed\n")
    (tmp_path / "wrong.py").write_text("def f(:\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    before = {*sys.modules}
    yield tmp_path
    for name in {*sys.modules} - before:
        if Path(getattr(sys.modules[name], "__file__", None) or "").parent == tmp_path:
            del sys.modules[name]


@pytest.mark.parametrize(
    "argv",
    [
        ["handmade:gradients", "--single"],
        ["handmade:Holder.method", "--single"],
        ["handmade.py:gradients", "--single", "--dtype", "float64", "--sizes", "O=1,H=3"],
        ["handmade:of_half_the_loss", "--single", "--loss", "handmade:half"],
    ],
    ids=" ".join,
)
def test_right_gradients_exit_0(argv, folder, capsys):
    assert main(["check", *argv, "--cases", "8"]) == 0
    out, err = capsys.readouterr()
    assert "passed" in out
    assert "dW dU db dV were taken for W U b V" in out
    assert {*err.splitlines()} == {"this module prints when it is imported"}  # twice with a loss


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["in_a_tuple", "--returns", "loss,dWxh,dWhh,dWhy"], "dWhy is dV"),
        (["by_other_names"], "assumed: dWhh is dW, Wxh_grad is dU"),
    ],
    ids=["a tuple", "names"],
)
def test_what_is_returned_in_another_convention_is_read(argv, said, folder, capsys):
    argv = [f"handmade:{argv[0]}", *argv[1:]]
    assert main(["check", *argv, "--single", "--cases", "4"]) == 0
    assert said in capsys.readouterr().out


def test_a_wrong_gradient_exits_1_and_is_explained(folder, capsys):
    assert main(["check", "handmade:transposed", "--single", "--cases", "8"]) == 1
    out, _ = capsys.readouterr()
    assert "W is wrong" in out
    assert f"W: dW transposed. {MISTAKES['dW transposed'].sentence}" in out
    assert "smallest failing problem found" in out
    assert "import reference; from handmade import transposed" in out
    assert "FAILED" in out


def test_json_on_stdout_is_all_there_is(folder, capsys):
    argv = ["handmade:transposed", "--single", "--cases", "4", "--json", "-", "--seed", "3"]
    assert main(["check", *argv]) == 1
    result = json.loads(capsys.readouterr().out)
    assert result["passed"] is False
    assert (result["candidate"], result["cases"], result["seed"]) == ("handmade:transposed", 4, 3)
    assert result["diagnosis"]["findings"][0]["mistakes"][0]["name"] == "dW transposed"
    assert result["smallest"]["gradients"]["W"]["expected"]
    assert len(result["smallest"]["reproduce"]) == 3


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ([], "the following arguments are required"),
        (["handmade"], "'handmade': expected module:function or path/to/file.py:function"),
        (["handmade:"], "expected module:function"),
        (["nowhere:f"], "there is no module 'nowhere' here or among those installed"),
        (["nowhere/f.py:f"], "there is no file 'nowhere/f.py'"),
        (["handmade:nothing"], "handmade has no 'nothing'; it has gradients, transposed"),
        (["handmade:number"], "handmade:number is a int; expected a function"),
        (["broken:f"], "importing broken failed: ValueError: two lines (line 2 of broken.py)"),
        (["exits.py:f"], "importing exits.py failed: SystemExit: 3 (line 2 of exits.py)"),
        (["needs:f"], "importing needs failed: No module named 'surely_not_installed'"),
        (["needs.py:f"], "importing needs.py failed: No module named 'surely_not_installed'"),
        (["wrong:f"], "importing wrong failed: SyntaxError: invalid syntax"),
        (["handmade:gradients", "--loss", "hinge"], "loss is 'hinge'; expected one of"),
        (["handmade:gradients", "--loss", "handmade:none"], "handmade has no 'none'"),
        (["handmade:gradients", "--cases", "0"], "expected an integer of at least 1"),
        (["handmade:gradients", "--sizes", "N=2"], "sizes names 'N'; expected any of T B D H O"),
        (["handmade:gradients", "--returns", "dW,dFoo"], "returns names 'dFoo'; expected any of W"),
        (["handmade:gradients", "--sizes", "H"], "'H': expected sizes such as O=1,H=10"),
        (["handmade:gradients", "--sizes", "H=x"], "'x'; expected an integer of at least 1"),
        (["handmade:gradients", "--layout", "steps"], "layout is 'steps'; expected one of time"),
        (["handmade:gradients", "--time-budget", "0"], "expected an integer of at least 1"),
        (["handmade:gradients", "--json", "/no/such/folder/x"], "cannot write"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_cannot_be_checked_is_one_line_and_exit_2(argv, message, folder, capsys):
    try:
        code = main(["check", *argv])
    except SystemExit as stop:
        code = stop.code
    out, err = capsys.readouterr()
    assert code == 2
    assert out == ""
    lines = [line for line in err.splitlines() if "prints when it is imported" not in line]
    assert len(lines) == 1, err
    assert lines[0].startswith("manual-bptt")
    assert message in lines[0]


def test_the_command_shows_its_progress_which_is_not_taken_for_what_the_candidate_prints(folder):
    done = subprocess.run(
        [sys.executable, "-m", "manual_bptt.cli", "check", "handmade:patient",
         "--single", "--cases", "4", "--json", "report.json"],
        capture_output=True, text=True, check=False, cwd=folder,
        env={**os.environ, "FORCE_COLOR": "1"},  # what makes a terminal of a pipe
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert json.loads((folder / "report.json").read_text())["passed"] is True
    assert "handmade:patient" in done.stderr
    assert "0/4" in done.stderr
    assert "prints, and it is not shown" not in done.stdout
