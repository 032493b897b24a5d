"""The command line: exit codes, one line for every error, JSON for machines."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import manual_bptt.candidate
from manual_bptt import forecasting
from manual_bptt.cli import main, verify


def test_verify_proves_random_and_real_problems_and_exits_0(capsys):
    assert main(["verify", "--cell", "tanh", "--cases", "40", "--json", "-"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    result = json.loads(out)
    assert result["passed"] is True
    titles = ["random problems", "long sequences", "windows of real weather"]
    titles += ["autodiff without padding", *verify.ways_to_compute(), "dh_last"]
    assert list(result["reports"]) == titles
    assert len(verify.ways_to_compute()) == 4
    (row,) = result["matrix"].values()
    assert list(row) == ["by default", *verify.ways_to_compute(), "dh_last"]
    assert all(0 < worst <= 1 for worst in row.values())
    from_last = {r["gradient"]: r["status"] for r in result["reports"].pop("dh_last")["rows"]}
    assert {k for k, status in from_last.items() if status == "match"} == {*"WUbxh", "h0"}
    for title in titles[4:-1]:
        statuses = {row["gradient"]: row["status"] for row in result["reports"].pop(title)["rows"]}
        assert {k for k, status in statuses.items() if status == "match"} == {*"WUbVcx", "h0"}
    for report in result["reports"].values():
        assert {row["status"] for row in report["rows"]} == {"match"}
        assert all(0 <= row["ratio"] <= 1 for row in report["rows"])
        assert all(0 <= row["local_ratio"] <= 1 for row in report["rows"])
    assert [row["number"] for row in result["equations"]] == list(range(1, 38))
    assert {row["status"] for row in result["equations"]} == {"definition", "holds", "erratum"}
    random = result["reports"]["random problems"]["rows"]
    assert all(row["cases"] + row["undecided"] == 40 for row in random)
    assert all(row["ratio"] > 0 and row["local_ratio"] > 0 for row in random)


def test_verify_prints_one_row_for_each_gradient(capsys, tmp_path):
    path = tmp_path / "out.json"
    assert (
        main(
            ["verify", "--cell", "tanh", "--cases", "8", "--dtype", "float32", "--json", str(path)]
        )
        == 0
    )
    out = capsys.readouterr().out
    assert out.count("match") == 9 + 9 + 9 + 8  # autodiff does not return its states
    assert out.index("tanh ") < out.index("verdict"), "the matrix comes first"
    assert out.count("erratum (corrected form holds)") == 10
    assert "passed" in out
    assert json.loads(path.read_text())["dtype"] == "float32"


@pytest.fixture
def no_equations(monkeypatch):
    monkeypatch.setattr(verify, "equation_rows", lambda *_: [])


def test_verify_exits_1_and_names_the_gradient_that_is_wrong(no_equations, monkeypatch, capsys):
    right = manual_bptt.candidate.loss_and_gradients

    def wrong(*arguments, h0, loss, **options):
        value, grads = right(*arguments, h0=h0, loss=loss, **options)
        return value, grads if options else grads._replace(U=2 * grads.U)

    monkeypatch.setattr("manual_bptt.candidate.loss_and_gradients", wrong)
    assert main(["verify", "--cell", "tanh", "--cases", "8"]) == 1
    out = capsys.readouterr().out
    assert "U is wrong" in out
    assert "W is wrong" not in out
    assert "FAILED" in out
    lines = [line for line in out.splitlines() if line.startswith("to reproduce: python -c")]
    assert len(lines) == 2  # of random problems and of long sequences
    code = lines[0].removeprefix('to reproduce: python -c "').removesuffix('"')
    exec(code, {})
    assert "U is wrong" in capsys.readouterr().out


def test_verify_sees_that_what_arrives_at_the_last_state_is_dropped(
    no_equations, monkeypatch, capsys
):
    right = manual_bptt.candidate.backward
    monkeypatch.setattr(
        "manual_bptt.candidate.backward",
        lambda *args, dh_last: right(*args, dh_last=0 * dh_last),
    )
    assert main(["verify", "--cell", "gru", "--cases", "8"]) == 1
    out = capsys.readouterr().out
    assert "WRONG" in out
    (line,) = [line for line in out.splitlines() if line.startswith("to reproduce: python -c")]
    assert "from_the_last_state('gru')" in line
    exec(line.removeprefix('to reproduce: python -c "').removesuffix('"'), {})
    assert re.search(r"W +mismatch", capsys.readouterr().out)


def test_verify_repeats_a_failure_of_another_way_in_that_way(no_equations, monkeypatch, capsys):
    right = manual_bptt.candidate.loss_and_gradients

    def wrong(*arguments, workers=None, **options):
        value, grads = right(*arguments, workers=workers, **options)
        return value, grads if workers is None else grads._replace(b=2 * grads.b)

    monkeypatch.setattr("manual_bptt.candidate.loss_and_gradients", wrong)
    monkeypatch.setattr(verify, "ways_to_compute", lambda _="": {"two threads": {"workers": 2}})
    assert main(["verify", "--cell", "tanh", "--cases", "8"]) == 1
    out = capsys.readouterr().out
    (line,) = [line for line in out.splitlines() if line.startswith("to reproduce: python -c")]
    assert "candidate(mb.squared_error, workers=2)" in line
    exec(line.removeprefix('to reproduce: python -c "').removesuffix('"'), {})
    assert "b is wrong" in capsys.readouterr().out


def test_train_saves_a_model_and_reports_persistence_beside_it(tmp_path, capsys):
    assert main(["train", "--recipe", "lab9", "--out", str(tmp_path / "run")]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert "persistence" in out
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert metrics["last_25_losses_mean"] < 0.05
    worse = metrics["test"]["rmse"] > metrics["baselines"]["persistence"]["rmse"]
    assert ("does not beat" in out) == worse
    assert forecasting.load_model(tmp_path / "run" / "model.npz").recipe == "lab9"


BAD = [
    [],
    ["prove"],
    ["verify", "--cases", "0"],
    ["verify", "--cases", "many"],
    ["verify", "--dtype", "float16"],
    ["verify", "--json", "/no/such/folder/out.json"],
    ["train", "--recipe", "magic"],
    ["train", "--data", "/no/such/file.csv"],
    ["train", "--out", "/dev/null/model"],
    ["train", "--seed", "-1"],
    ["verify", "--seed", "9" * 5000],
    ["vectors"],
    ["vectors", "--out", "/dev/null/vectors"],
    ["vectors", "--out", "golden", "--cell", "lstm9"],
    ["bench", "--plot", "-"],
    ["bench", "--json", "/no/such/folder/out.json"],
    ["bench", "--plot", "/no/such/folder/growth.png"],
]


@pytest.mark.parametrize("argv", BAD, ids=lambda argv: " ".join(argv)[:40])
def test_wrong_usage_is_one_line_on_stderr_and_exit_2(argv, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    try:
        code = main(argv)
    except SystemExit as stop:
        code = stop.code
    out, err = capsys.readouterr()
    assert code == 2
    assert out == ""
    assert err.count("\n") == 1
    assert err.startswith("manual-bptt")


def test_a_missing_extra_is_named(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "jax", None)
    assert main(["verify"]) == 2
    assert "pip install 'manual-bptt[verify]'" in capsys.readouterr().err


def test_a_reader_that_stops_reading_causes_no_traceback(tmp_path):
    options = f"--recipe lab9 --out {tmp_path} --json -"
    command = f"{sys.executable} -m manual_bptt.cli train {options} | head -c 1"
    done = subprocess.run(
        ["bash", "-c", command], capture_output=True, text=True, check=True, env=dict(os.environ)
    )
    assert done.stderr == ""
    assert done.stdout == "{"


def start(*argv, **options):
    return subprocess.Popen(
        [sys.executable, "-m", "manual_bptt.cli", *argv],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options,
    )  # fmt: skip


def test_ctrl_c_ends_verify_with_one_line_and_code_130():
    process = start("verify", "--cases", "100000")
    while seconds_of(process) < 3:  # more than it takes to import JAX: it compiles or compares
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 130
    assert err == "manual-bptt: interrupted\n"


def seconds_of(process):
    """Return the seconds of processor time that a process has taken."""
    assert process.poll() is None
    user, system = Path(f"/proc/{process.pid}/stat").read_text().rpartition(") ")[2].split()[11:13]
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


def test_a_full_disk_is_one_line_and_exit_2(tmp_path):
    with open("/dev/full", "w") as full:
        process = subprocess.run(
            [sys.executable, "-m", "manual_bptt.cli",
             "train", "--recipe", "lab9", "--out", str(tmp_path)],
            stdout=full, stderr=subprocess.PIPE, text=True, check=False,
        )  # fmt: skip
    assert process.returncode == 2
    assert process.stderr == "manual-bptt: cannot write the output: No space left on device\n"


def test_json_can_go_to_a_pipe(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    process = start(
        "train", "--recipe", "lab9", "--out", str(tmp_path / "run"), "--json", str(pipe)
    )
    assert json.loads(pipe.read_text())["recipe"] == "lab9"
    process.communicate(timeout=30)
    assert process.returncode == 0


def test_json_does_not_overwrite_what_training_writes(tmp_path, capsys):
    folder = tmp_path / "run"
    assert main(["train", "--out", str(folder), "--json", str(folder / "model.npz")]) == 2
    assert "which the command reads or writes itself" in capsys.readouterr().err


def test_a_folder_in_the_place_of_the_model_is_refused_before_training(tmp_path, capsys):
    (tmp_path / "model.npz").mkdir()
    assert main(["train", "--out", str(tmp_path)]) == 2
    assert "cannot write" in capsys.readouterr().err


def test_weather_problems_are_windows_of_the_table_and_reproducible():
    first, again = (verify._weather_groups(0, "float64") for _ in range(2))
    for (loss, _, made), (_, _, remade) in zip(first, again, strict=True):
        assert len(made) == 48
        for p, q in zip(made, remade, strict=True):
            assert p.sizes == {"T": 24, "B": 8, "D": len(forecasting.FEATURES), "H": 10, "O": 1}
            assert p.loss == loss
            assert all(np.array_equal(a, b) for a, b in zip((p.x, p.h0), (q.x, q.h0), strict=True))
