"""A run that is cut, killed or finds no room goes on to the same bits; a bad file is refused."""

import os
import re
import resource
import signal
import subprocess
import sys
from dataclasses import replace
from itertools import count
from pathlib import Path

import numpy as np
import pytest

from manual_bptt.archive import read_arrays, write_arrays
from manual_bptt.forward import forward
from manual_bptt.losses import last_step_squared_error
from manual_bptt.params import Params, init_params
from manual_bptt.training import (
    SGD,
    Adam,
    ArraySequences,
    Settings,
    Training,
    WarmupCosine,
    begin,
    load_training,
    save_training,
    train,
)

OPTIMIZERS = {
    "sgd": SGD(),
    "momentum": SGD(0.9),
    "nesterov": SGD(0.9, nesterov=True),
    "adam": Adam(),
    "adamw": Adam(weight_decay=0.1),
}
DTYPES = pytest.mark.parametrize("dtype", [np.float32, np.float64])


def data(dtype=np.float64):
    rng = np.random.default_rng(8)
    x = rng.standard_normal((4, 24, 3)).astype(dtype)
    target = (x[-1, :, :1] + 0.3 * rng.standard_normal((24, 1))).astype(dtype)
    return ArraySequences(x[:, :16], target[:16]), (x[:, 16:], target[16:])


def start(dtype=np.float64):
    return init_params(3, 4, 1, rng=1, dtype=dtype)


def settings(optimizer, **changes):
    usual = {"schedule": WarmupCosine(0.05, 4, 40), "max_norm": 1.0, "seed": 6, "every": 4}
    return Settings(**{"steps": 40, "batch_size": 5, "optimizer": optimizer, **usual, **changes})


def run(begun, options, dtype=np.float64, validate=True, **callbacks):
    sequences, (x, target) = data(dtype)

    def error(params):
        return float(np.abs(forward(params, x).y[-1] - target).max())

    return train(
        begun, sequences, options, loss=last_step_squared_error,
        validate=error if validate else None, **callbacks,
    )  # fmt: skip


def stop_after(steps):
    """Return what says to stop when it is asked for that many times."""
    asked = count(1)
    return lambda: next(asked) == steps


def assert_same_bits(one: Training, other: Training):
    assert one.steps == other.steps
    assert (one.best_error, one.finished) == (other.best_error, other.finished)
    assert len(one.memory) == len(other.memory)
    for a, b in zip(
        (one.params, one.best, *one.memory), (other.params, other.best, *other.memory), strict=True
    ):
        for k, left, right in zip(Params._fields, a, b, strict=True):
            assert (left.dtype, left.shape) == (right.dtype, right.shape)
            assert left.tobytes() == right.tobytes(), k


def through_a_file(path, training, tag="this run"):
    save_training(path, training, tag)
    loaded, read = load_training(path)
    assert read == tag
    assert_same_bits(loaded, training)
    return loaded


# Cut and gone on with


@DTYPES
@pytest.mark.parametrize("validate", [False, True])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_run_cut_at_20_random_steps_ends_at_the_bits_of_one_that_never_stopped(
    tmp_path, name, validate, dtype
):
    options = settings(OPTIMIZERS[name])
    whole = run(start(dtype), options, dtype, validate)
    cuts = {int(k) for k in np.random.default_rng(2).permutation(np.arange(1, 40))[:20]}
    assert len(cuts) == 20
    training, parts, heard = start(dtype), 0, []
    while not (isinstance(training, Training) and training.finished):
        training = run(
            training, options, dtype, validate,
            on_step=heard.append, stop=lambda: len(heard) in cuts,
        )  # fmt: skip
        training, parts = through_a_file(tmp_path / "checkpoint.npz", training), parts + 1
    assert parts == 21
    assert_same_bits(training, whole)
    assert tuple(heard) == whole.steps


def test_patience_counts_across_a_cut(tmp_path):
    options = settings(Adam(), schedule=lambda step: 0.3, patience=2, every=3, max_norm=9.0)
    whole = run(start(), options)
    assert 6 < len(whole.steps) < 40  # it was patience that ended it
    assert (whole.best.W != whole.params.W).any()
    for cut in range(1, len(whole.steps)):
        part = run(start(), options, stop=stop_after(cut))
        assert (len(part.steps), part.finished) == (cut, False)
        assert_same_bits(run(through_a_file(tmp_path / "a.npz", part), options), whole)


def test_a_finished_run_comes_back_finished(tmp_path):
    whole = run(start(), settings(Adam()))
    assert_same_bits(run(through_a_file(tmp_path / "a.npz", whole), settings(Adam())), whole)


def test_every_state_that_keep_is_given_can_be_saved_and_gone_on_from(tmp_path):
    kept, options = [], settings(Adam())
    whole = run(start(), options, keep=kept.append)
    assert len(kept) == 11
    for i, state in enumerate(kept):
        assert_same_bits(run(through_a_file(tmp_path / f"{i}", state), options), whole)


def test_the_tag_comes_back_as_it_was(tmp_path):
    training = begin(start(), settings(SGD()))
    for tag in ("", "one\ntwo", "Zürich ☃ " * 50, '{"seed": 3}'):
        through_a_file(tmp_path / "a.npz", training, tag)


# Killed


LONG = 1000
KILLED = """
import os, random, signal, sys, time
from test_checkpoints import *

path = Path(sys.argv[1])
kept = lambda: len(load_training(path)[0].steps) if path.exists() else -1
for _ in range(20):
    before = kept()
    child = os.fork()
    if not child:
        begun = load_training(path)[0] if path.exists() else start()
        run(begun, settings(Adam(), steps=LONG, every=1), keep=lambda t: save_training(path, t))
        os._exit(0)
    while kept() <= before:
        time.sleep(0.001)  # until it has made a step, the first one a beginning
    time.sleep(random.uniform(0, 0.02))
    os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    print(os.WTERMSIG(status), kept())  # whole
"""


def process(script, *arguments):
    """Run script in a process of its own, where it can import this file; return what it printed."""
    paths = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    done = subprocess.run(
        [sys.executable, "-c", script, *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": paths},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert not done.stderr
    return done.stdout


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no processes to fork")
def test_a_process_killed_20_times_always_leaves_a_whole_checkpoint_to_the_same_end(tmp_path):
    """Each goes on from what the one before left, saves at every step, and lives milliseconds."""
    options = settings(Adam(), steps=LONG, every=1)
    whole = run(start(), options)
    path = tmp_path / "checkpoint.npz"
    output = process(KILLED, path)
    signals, reached = zip(*(map(int, line.split()) for line in output.splitlines()), strict=True)
    assert signals == (signal.SIGKILL,) * 20  # none came to its end
    assert list(reached) == sorted({*reached})  # each made some steps
    at, _ = load_training(path)
    assert len(at.steps) == reached[-1] < LONG
    assert at.steps == whole.steps[: len(at.steps)]
    assert_same_bits(run(at, options), whole)


# No room


def full(*args, **arrays):
    raise OSError(28, "No space left on device")


@pytest.mark.parametrize(("where", "name"), [(os, "fsync"), (np, "savez")])
def test_a_save_that_fails_leaves_the_old_checkpoint_and_no_other_file(
    tmp_path, monkeypatch, where, name
):
    path = tmp_path / "checkpoint.npz"
    options = settings(Adam())
    whole = run(start(), options)
    calls, write = count(1), getattr(where, name)
    monkeypatch.setattr(where, name, lambda *a, **k: (full if next(calls) > 3 else write)(*a, **k))
    with pytest.raises(OSError, match="No space left"):
        run(start(), options, keep=lambda t: save_training(path, t))
    assert os.listdir(tmp_path) == [path.name]
    at, _ = load_training(path)
    assert len(at.steps) == 8  # the states before steps 1, 5 and 9 were kept
    monkeypatch.undo()
    assert_same_bits(run(at, options), whole)


LIMITED = """
import resource, sys
from test_checkpoints import *

path = Path(sys.argv[1])
size = path.stat().st_size
resource.setrlimit(resource.RLIMIT_FSIZE, (size // 2, size))  # as on a disk that is full
try:
    save_training(path, begin(start(), settings(Adam())), "the new one")
except OSError as error:
    print(type(error).__name__, error.errno)
"""


@pytest.mark.skipif(not hasattr(resource, "RLIMIT_FSIZE"), reason="no limit on the size of a file")
def test_a_disk_that_takes_half_a_file_leaves_the_old_checkpoint_and_no_other_file(tmp_path):
    path = tmp_path / "checkpoint.npz"
    save_training(path, begin(start(), settings(Adam())), "the old one")
    before = path.read_bytes()
    assert process(LIMITED, path).split() == ["OSError", "27"]  # EFBIG
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == [path.name]


# Files that are no sound checkpoint


def saved(path, optimizer=None):
    options = settings(optimizer or Adam())
    training = run(start(), options, stop=stop_after(9))
    save_training(path, training, "tag")
    return training


def changed(**changes):
    """Return what saves a checkpoint with these arrays in place of its own; None takes one out."""

    def write(path):
        saved(path)
        arrays = read_arrays(path)
        for name, array in changes.items():
            name = name.replace("__", ".")
            arrays.pop(name, None)
            if array is not None:
                arrays[name] = array
        write_arrays(path, arrays)

    return write


NAN = np.array([[np.nan] * 9] * 4)
W = np.eye(4)


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (lambda path: path.write_bytes(b""), "not a zip file"),
        (lambda path: path.write_text("step,loss\n"), "not a zip file"),
        (lambda path: write_arrays(path, {}), "the array 'format' is missing"),
        (lambda path: write_arrays(path, {"W": W, "format": 2}), "format is 2; expected 1"),
        (changed(format=7), "format is 7; expected 1"),
        (changed(format="1"), "format has shape .* expected one integer"),
        (changed(format=np.ones(2, int)), r"format has shape \(2,\)"),
        (changed(tag=None), "the array 'tag' is missing"),
        (changed(tag=1), "tag has .* expected one text"),
        (changed(tag=np.array(["a", "b"])), r"tag has shape \(2,\)"),
        (changed(params__W=None), "the array 'params.W' is missing"),
        (changed(params__c=None), "the array 'params.c' is missing"),
        (changed(best__V=None), "the array 'best.V' is missing"),
        (changed(memory1__b=None), "the array 'memory1.b' is missing"),
        (changed(params__W=np.zeros((4, 3))), r"params.W has shape \(4, 3\); expected \(H, H\)"),
        (changed(params__W=np.zeros(4)), r"params.W has shape \(4,\)"),
        (changed(params__U=np.zeros((4, 2))), "best.U has shape .* the shape of the parameter"),
        (changed(best__c=np.zeros(2)), r"best: params.c has shape \(2,\)"),
        (changed(best__U=np.zeros((4, 2))), r"best.U has shape \(4, 2\); .* = \(4, 3\)"),
        (changed(memory0__b=np.zeros((4, 1))), r"memory0: params.b has shape \(4, 1\)"),
        (changed(memory1__U=np.zeros((4, 9))), r"memory1.U has shape \(4, 9\)"),
        (changed(params__W=W.astype(np.float32)), "params.U has dtype float64"),
        (changed(best__W=W.astype(np.float32)), "best.W has dtype float32"),
        (changed(memory0__V=np.zeros((1, 4), int)), "memory0.V has dtype int64"),
        (changed(params__W=np.eye(4, dtype=int)), "params.W has dtype int64"),
        (changed(params__W=np.full((4, 4), "x")), "params.W has dtype <U1"),
        (changed(params__W=np.full((4, 4), np.nan)), "params.W holds nan"),
        (changed(best__b=np.full(4, np.inf)), "best: params.b holds inf"),
        (changed(memory0__b=np.full(4, np.nan)), "memory0: params.b holds nan"),
        (changed(moments=None), "the array 'moments' is missing"),
        (changed(moments=3), "the array 'memory2.W' is missing"),
        (changed(moments=-1), "moments is -1; expected at least 0"),
        (changed(moments=2**62), "moments is 4611686018427387904; expected"),
        (changed(moments=2.0), "moments has .* expected one integer"),
        (changed(moments=np.array([2])), r"moments has shape \(1,\)"),
        (changed(best_error=np.inf), "best_error is inf; expected the lowest there is"),
        (changed(best_error=np.nan), "best_error is nan; expected the lowest there is"),
        (changed(best_error="0.1"), "best_error has .* expected one floating number"),
        (changed(finished="False"), "finished has .* expected one truth value"),
        (changed(steps=None), "the array 'steps' is missing"),
        (changed(steps=np.zeros((3, 9))), r"steps has shape \(3, 9\).* expected 4 rows"),
        (changed(steps=np.zeros(4)), r"steps has shape \(4,\)"),
        (changed(steps=np.zeros((4, 9), np.float32)), "steps has .* float32; expected 4 rows"),
        (changed(steps=NAN), r"steps \(but for validation\) holds nan"),
        (changed(steps=np.ones((4, 9))), "best_error is .*; expected the lowest there is, 1"),
    ],
)
def test_a_file_that_is_no_sound_checkpoint_is_refused_and_says_why(tmp_path, write, message):
    path = tmp_path / "checkpoint.npz"
    write(path)
    with pytest.raises(ValueError, match=message):
        load_training(path)


def test_a_file_that_is_not_there_is_an_os_error(tmp_path):
    with pytest.raises(FileNotFoundError):
        load_training(tmp_path / "none.npz")


def test_the_checkpoint_of_a_run_with_another_optimizer_is_not_gone_on_from(tmp_path):
    path = tmp_path / "checkpoint.npz"
    saved(path, SGD(0.9))
    with pytest.raises(ValueError, match=r"remembers 1 moments .* expected 2, as many as Adam"):
        run(load_training(path)[0], settings(Adam()))


def test_the_checkpoint_of_a_network_of_another_shape_is_not_gone_on_from(tmp_path):
    path = tmp_path / "checkpoint.npz"
    options = settings(Adam())
    other = through_a_file(path, begin(init_params(2, 4, 1, rng=0), options))
    with pytest.raises(ValueError, match="with D = 2, the number of columns"):
        run(other, options)


def test_every_flipped_byte_is_refused_or_harmless(tmp_path):
    path = tmp_path / "checkpoint.npz"
    training = saved(path)
    content, refused = path.read_bytes(), 0
    for at in range(0, len(content), 23):
        path.write_bytes(content[:at] + bytes([content[at] ^ 0x55]) + content[at + 1 :])
        try:
            loaded, tag = load_training(path)
        except ValueError:
            refused += 1
            continue
        assert_same_bits(loaded, training)
        assert tag == "tag"
    assert refused > len(content) / 23 / 2


def test_every_truncated_file_is_refused(tmp_path):
    path = tmp_path / "checkpoint.npz"
    saved(path)
    content = path.read_bytes()
    for length in (*range(0, len(content), 61), *range(len(content) - 60, len(content))):
        path.write_bytes(content[:length])
        with pytest.raises(ValueError, match=re.compile(".")):
            load_training(path)


def test_a_state_that_could_not_be_loaded_is_not_saved(tmp_path):
    training = begin(start(), settings(SGD()))
    complex_params = Params(*(p.astype(complex) for p in training.params))
    with pytest.raises(ValueError, match=r"'params.W' holds complex128"):
        save_training(tmp_path / "a.npz", replace(training, params=complex_params))
    assert os.listdir(tmp_path) == []
