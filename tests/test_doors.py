"""The command line where it is not at home: odd streams, odd settings, odd files."""

import os
import re
import subprocess
import sys

import pytest

import manual_bptt.cli
from manual_bptt.cli import main

CHECK = ["check", "handmade:gradients", "--single", "--cases", "2"]
MODULE = """
import numpy as np

def gradients(params, x, h0, target):
    h = h0
    y = []
    for x_t in x:
        h = np.tanh(params.W @ h + params.U @ x_t + params.b)
        y.append(params.V @ h + params.c)
    return {"c": 2 * (np.array(y) - target).sum(axis=0)}

async def later(*arguments):
    return gradients(*arguments)

def bit_by_bit(*arguments):
    yield from gradients(*arguments).items()

def red(*arguments):
    raise ValueError("\\x1b[31mred\\x1b[2J")

def named(*arguments):
    return {**gradients(*arguments), "\\x1b[31mW": 1.0}
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    (tmp_path / "handmade.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    return tmp_path


HOSTILE = {
    "PYTHONOPTIMIZE": "2", "TMPDIR": "/nonexistent", "LC_ALL": "C", "TERM": "dumb", "COLUMNS": "20",
    "MPLBACKEND": "module://nowhere", "JAX_PLATFORMS": "cuda", "JAX_DEBUG_NANS": "1",
    "JAX_NUMPY_RANK_PROMOTION": "raise", "JAX_NUMPY_DTYPE_PROMOTION": "strict",
    "JAX_DEFAULT_MATMUL_PRECISION": "bfloat16",
}  # fmt: skip


@pytest.mark.parametrize(
    ("argv", "streams"),
    [(CHECK, ""), (["train", "--recipe", "lab9", "--out", "run"], ">&- 2>&- <&-")],
    ids=["check", "train, without streams"],
)
def test_it_works_whatever_the_environment_says(argv, streams, folder):
    environment = {k: v for k, v in os.environ.items() if k != "HOME"} | HOSTILE
    done = subprocess.run(
        ["bash", "-c", f"{sys.executable} -m manual_bptt.cli {' '.join(argv)} {streams}"],
        env=environment, capture_output=True, text=True, check=False, cwd=folder,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (KeyError("x\x1b"), 4, r"internal error: KeyError: 'x\\x1b' \(__init__.py:\d+\); please"),
        (MemoryError(), 2, "there is not enough memory for this"),
        (FileNotFoundError(2, "No such file", "a\nb"), 2, r"No such file: a\\nb"),
        (OSError(28, "No space left"), 2, "cannot write the output: No space left"),
    ],
    ids=["internal", "memory", "file", "disk"],
)  # fmt: skip
def test_whatever_is_raised_is_one_line(error, code, said, monkeypatch, capsys):
    def fails(_):
        raise error

    monkeypatch.setattr(manual_bptt.cli.vectors, "_vectors", fails)
    assert main(["vectors", "--out", "x"]) == code
    out, err = capsys.readouterr()
    assert out == ""
    assert re.fullmatch(f"manual-bptt: {said}.*\n", err)


def test_a_traceback_is_shown_to_who_asks_for_it(monkeypatch):
    def fails(_):
        raise KeyError("x")

    monkeypatch.setattr(manual_bptt.cli.vectors, "_vectors", fails)
    monkeypatch.setenv("MANUAL_BPTT_DEBUG", "1")
    with pytest.raises(KeyError):
        main(["vectors", "--out", "x"])


@pytest.mark.parametrize("kind", ["pipe", "device"])
def test_what_may_never_end_is_not_read(kind, tmp_path, capsys):
    path = tmp_path / "model.npz"
    os.mkfifo(path) if kind == "pipe" else path.symlink_to("/dev/zero")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "checkpoint.npz").symlink_to(path)
    data = str(tmp_path / "data.csv")
    (tmp_path / "data.csv").write_text("time,y\n")
    for argv in (
        ["predict", "--model", str(tmp_path), "--data", data],
        ["predict", "--model", str(tmp_path / "run"), "--data", str(path)],
        ["train", "--data", str(path), "--out", str(tmp_path / "new")],
        ["train", "--resume", "--out", str(tmp_path / "run")],
    ):
        assert main(argv) == 2
        assert "is a pipe or a device; expected a regular file" in capsys.readouterr().err


def test_thousands_of_columns_are_not_taken_without_a_word(tmp_path, capsys):
    path = tmp_path / "wide.csv"
    names = ",".join(f"x{i}" for i in range(3000))
    path.write_text(f"time,y,{names}\n2024-01-01 00:00,{','.join(['1'] * 3001)}\n")
    argv = ["train", "--data", str(path), "--out", str(tmp_path / "run")]
    assert main([*argv, "--time", "time", "--target", "y"]) == 2
    err = capsys.readouterr().err
    assert "has 3001 columns to forecast from" in err
    assert "expected --features to name those" in err
    assert main(argv) == 2
    assert len(capsys.readouterr().err) < 800


def test_no_word_is_cut_to_letters_in_a_narrow_terminal(folder, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "20")
    assert main(CHECK) == 0
    out = capsys.readouterr().out
    for word in ("gradient", "verdict", "not returned", "problem"):
        assert word in out


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("later", "the candidate is an async function, and returned a coroutine"),
        ("bit_by_bit", "the candidate has a yield, and returned a generator"),
        ("red", r"ValueError: \x1b[31mred\x1b[2J"),
        ("named", r"'\x1b[31mW' is not the name of a gradient"),
    ],
)
def test_what_a_candidate_says_or_is_does_not_reach_the_terminal_raw(name, said, folder, capsys):
    assert main(["check", f"handmade:{name}", "--single", "--cases", "2"]) == 1
    out, err = capsys.readouterr()
    assert said.replace(" the name of a gradient", "") in out
    assert "\x1b" not in out + err
