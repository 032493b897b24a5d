"""Wrong candidates that do all they can to pass, and right ones that only look odd."""

import collections

import numpy as np
import pytest

import reference
from manual_bptt.cli import main
from reference.mistakes import correct

NAMES = ("W", "U", "b", "V", "c")


def right(*arguments):
    return {k: np.array(correct()(*arguments)[k]) for k in NAMES}


def each(change):
    """Return a candidate whose gradients are changed, each alike."""
    return lambda *arguments: {k: change(v) for k, v in right(*arguments).items()}


def where(condition):
    """Return a candidate that is wrong where a condition on its arguments holds."""

    def candidate(*arguments):
        factor = 1.5 if condition(*arguments) else 1.0
        return {k: factor * v for k, v in right(*arguments).items()}

    return candidate


class Lies(np.ndarray):
    """Says of itself that it is zero, equal to everything, and as small as need be."""

    def __array_ufunc__(self, *_, **__):
        return 0.0

    def __array__(self, *_, **__):
        return np.zeros(self.shape)

    def __eq__(self, other):
        return np.ones(self.shape, bool)

    __hash__ = None

    def _zeros(self, *_, **__):
        return np.zeros(self.shape)

    __sub__ = __abs__ = astype = reshape = copy = _zeros


class Lazy:
    """Is another array each time that it is looked at."""

    def __init__(self, value):
        self.value, self.looks = value, 0

    def __array__(self, dtype=None, copy=None):
        self.looks += 1
        return self.value * (1.5 if self.looks == 1 else 1.0)


class Unsteady(collections.abc.Mapping):
    """Gives something else for a key the second time."""

    def __init__(self, values):
        self.values_, self.seen = values, set()

    def __iter__(self):
        return iter(self.values_)

    def __len__(self):
        return len(self.values_)

    def __getitem__(self, key):
        again = key in self.seen
        self.seen.add(key)
        return self.values_[key] * (1.0 if again else 1.5)


class Inconsistent(dict):
    def items(self):
        return [(k, 2 * v) for k, v in super().items()]


Reordered = collections.namedtuple("Reordered", "U W b V c")


class EqualToAll(str):
    __slots__ = ()

    def __eq__(self, other):
        return True

    def __hash__(self):
        return hash("W")


def one_nan(*arguments):
    found = right(*arguments)
    found["W"][0, 0] = np.nan
    return found


def writes_to_its_inputs(params, x, h0, target):
    found = each(lambda v: 1.5 * v)(params, x, h0, target)
    for array in (*params, x, h0, target):
        array[...] = 0
    return found


def without_w_in_long_ones(*arguments):
    found = right(*arguments)
    return found if len(arguments[1]) <= 5 else {k: v for k, v in found.items() if k != "W"}


def calls_itself(*arguments):
    return calls_itself(*arguments)


def shared_memory(*arguments):
    memory = np.zeros(10**4)
    found = {}
    for k, v in right(*arguments).items():
        memory[: v.size] = v.ravel()
        found[k] = memory[: v.size].reshape(v.shape)
    return found


WRONG = {
    "a subclass that lies": each(lambda v: (1.5 * v).view(Lies)),
    "an array that changes": each(Lazy),
    "a mapping that changes": lambda *a: Unsteady(right(*a)),
    "a dict with other items": lambda *a: Inconsistent(right(*a)),
    "a namedtuple in another order": lambda *a: Reordered(*right(*a).values()),
    "a name that equals every other": lambda *a: {EqualToAll("q"): right(*a)["W"] * 2},
    "nan": each(lambda v: v * np.nan),
    "one nan": one_nan,
    "infinity": each(lambda v: v + np.inf),
    "objects": each(lambda v: v.astype(object)),
    "text": each(lambda v: v.astype(str)),
    "masked": each(lambda v: np.ma.masked_array(1.5 * v, mask=True)),
    "structured": each(lambda v: v.view([("a", v.dtype)])),
    "booleans": each(lambda v: v > 0),
    "complex": each(lambda v: v + 0j),
    "half precision": each(lambda v: v.astype(np.float16)),
    "single precision": each(lambda v: v.astype(np.float32)),
    "integers": each(lambda v: v.astype(int)),
    "empty": each(lambda v: np.empty(0)),
    "numbers": each(lambda v: 0.0),
    "sums": each(lambda v: v.sum(0, keepdims=True)),
    "nothing": lambda *a: {},
    "None": lambda *a: dict.fromkeys(NAMES),
    "only states": lambda p, x, h0, t: {"states": np.stack([h0] * (len(x) + 1))},
    "the parameters": lambda p, *_: p,
    "one object for two": lambda *a: right(*a) | {"W": 0, "U": 0},
    "views of one buffer": shared_memory,
    "one sequence": where(lambda p, x, *_: x.shape[1] == 1),
    "long sequences": where(lambda p, x, *_: len(x) > 32),
    "many units": where(lambda p, *_: len(p.b) == 8),
    "large inputs": where(lambda p, x, *_: np.abs(x).max() > 15),
    "small parameters": where(lambda p, *_: np.linalg.norm(p.W, 2) < 0.4),
    "W left out in long sequences": without_w_in_long_ones,
    "written inputs": writes_to_its_inputs,
    "endless recursion": calls_itself,
    "too much memory": lambda *a: {"W": np.empty(2**50)},
}
ODD_BUT_RIGHT = {
    "columns first": each(np.asfortranarray),
    "big-endian": each(lambda v: v.astype(">f8")),
    "long doubles": each(lambda v: v.astype(np.longdouble)),
    "negative strides": each(lambda v: v[::-1].copy()[::-1]),
    "read-only": each(lambda v: np.frombuffer(v.tobytes()).reshape(v.shape)),
    "nested lists": each(lambda v: v.tolist()),
    "matrices": lambda *a: right(*a) | {"W": right(*a)["W"].view(np.matrix)},
}


@pytest.mark.parametrize("name", WRONG)
def test_no_wrong_candidate_passes(name):
    assert not reference.compare(WRONG[name], cases=40, explained=False).passed


@pytest.mark.parametrize("name", ODD_BUT_RIGHT)
def test_no_right_candidate_fails_for_its_looks(name):
    report = reference.compare(ODD_BUT_RIGHT[name], cases=20, explained=False)
    assert report.passed, report


MODULE = """
import atexit
import os
import sys
import threading
import warnings

import numpy as np


def wrong(params, x, h0, target):
    return {"b": 1.5 * params.b, "c": params.c}


def patches_numpy(*arguments):
    for name in ("abs", "asarray", "isfinite", "max", "frombuffer", "array_equal"):
        setattr(np, name, lambda *a, **k: True)
    return wrong(*arguments)


def patches_the_sender(*arguments):
    main = sys.modules["__main__"]
    send = main.send
    main.send = lambda s, m, arrays: send(s, {**m, "passed": True, "status": "match"}, arrays)
    return wrong(*arguments)


def leaves_in_peace(*arguments):
    atexit.register(os._exit, 0)
    sys.exit = lambda *a: None
    sys.settrace(lambda *a: None)
    os.chdir("/")
    np.seterr(all="ignore")
    return wrong(*arguments)


def leaves_in_its_words(*arguments):
    class Words(Exception):
        def __str__(self):
            os._exit(0)

    raise Words


def leaves_in_a_warning(*arguments):
    warnings.warn_explicit = warnings.showwarning = lambda *a, **k: os._exit(0)
    class Words(str):
        def __str__(self):
            os._exit(0)
    warnings.warn(Words())
    return wrong(*arguments)


def closes_files_in_a_thread(*arguments):
    threading.Thread(target=os.closerange, args=(3, 100)).start()
    return wrong(*arguments)


def leaves_by_a_base_exception(*arguments):
    raise GeneratorExit
"""


@pytest.mark.parametrize(
    ("name", "codes"),
    [
        ("patches_numpy", {1, 3}),
        ("patches_the_sender", {1}),
        ("leaves_in_peace", {1}),
        ("leaves_in_its_words", {3}),
        ("leaves_in_a_warning", {1, 3}),
        ("closes_files_in_a_thread", {1, 3}),
        ("leaves_by_a_base_exception", {3}),
    ],
)
def test_no_tampering_makes_the_command_exit_0(name, codes, tmp_path, monkeypatch, capsys):
    (tmp_path / "tampering.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    assert main(["check", f"tampering:{name}", "--cases", "4", "--time-budget", "20"]) in codes
