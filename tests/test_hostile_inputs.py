"""Every argument of every public function, given all that it cannot be.

The answer is always a TypeError or a ValueError, itself and not a kind of it, on one short line
that names the argument; and nothing that was passed has changed. What exactly such a line says is
the subject of ``test_arguments.py``.
"""

import datetime
import random
import re
import sys
from inspect import signature
from types import SimpleNamespace

import numpy as np
import pytest

import manual_bptt as mb

PARAMS = mb.init_params(3, 4, 2, rng=0)
X, H0, TARGET = np.ones((5, 6, 3)), np.ones((6, 4)), np.zeros((5, 6, 2))
TRACE = mb.forward(PARAMS, X)
DY, LABELS = np.ones_like(TRACE.y), np.zeros((5, 6), int)
BACKWARD = {"params": PARAMS, "trace": TRACE, "dy": DY, "dh_last": H0, "check_finite": True}
GOOD = {
    "forward": {"params": PARAMS, "x": X, "h0": H0, "check_finite": True},
    "squared_error": {"y": DY, "target": TARGET, "weights": np.ones(5), "check_finite": True},
    "cross_entropy": {
        "y": DY,
        "target": LABELS,
        "weights": np.ones(5),
        "check_finite": True,
    },
    "last_step_squared_error": {"y": DY, "target": TARGET[-1], "check_finite": True},
    "backward": BACKWARD,
    "hidden_gradients": BACKWARD,
    "loss_and_gradients": {
        "params": PARAMS,
        "x": X,
        "target": TARGET,
        "h0": H0,
        "loss": mb.squared_error,
        "weights": np.ones(5),
        "workers": 1,
        "checkpoint_every": 2,
        "kernel": "numpy",
        "check_finite": True,
    },
    "init_params": {
        "n_inputs": 3,
        "n_hidden": 4,
        "n_outputs": 2,
        "cell": "gru",
        "rng": 0,
        "dtype": float,
    },
}


# --- what no argument can be ---------------------------------------------------------------------


class Answering:
    """An object that answers whoever asks for its numbers, length, text or truth as it is told."""

    def __init__(self, answer):
        self.answer = answer

    def __array__(self, dtype=None, copy=None):
        return self.answer(self)

    def _ask(self, *_):
        return self.answer(self)

    __len__ = __bool__ = __index__ = __float__ = __iter__ = __getitem__ = __repr__ = _ask


class TextlessError(Exception):
    def __str__(self):
        raise RuntimeError


class Lazy:
    """An object whose every attribute fails to come."""

    def __getattribute__(self, name):
        if name.startswith("__"):
            return super().__getattribute__(name)
        raise RuntimeError("not yet")


def raises(error):
    def answer(_):
        raise error

    return Answering(answer)


def nested(depth):
    part = 1.0
    for _ in range(depth):
        part = [part, part]
    return part


LOOP = [1.0]
LOOP[0] = LOOP
MASKED = np.ma.masked_less(np.ones(3), 2)
NOTHING = {
    "None": None,
    "text": "weather",
    "text of one surrogate": "\ud800",
    "bytes": b"weather",
    "a plain object": object(),
    "a class": SimpleNamespace,
    "a function": len,
    "a module": sys,
    "a generator": (i for i in (1.0, 2.0)),
    "a dict": {"W": 1.0},
    "a set": {1.0, 2.0},
    "an error": ValueError("weather"),
    "an ellipsis": ...,
    "not implemented": NotImplemented,
    "a date": datetime.date(2013, 1, 1),
    "a time": np.datetime64("2013-01-01"),
    "times": np.zeros((5, 6, 3), "m8[s]"),
    "an integer of 400 digits": 10**400,
    "integers of 5000 digits": [[10**5000] * 3] * 5,
    "integers of 70 bits": [[2**70] * 3] * 5,
    "a ragged list": [[1.0, 2.0, 3.0], [1.0]],
    "a list of text": ["1.0", "2.0"],
    "a list that holds itself": LOOP,
    "four lists deep": nested(4),
    "ten lists deep": nested(10),
    "records": np.zeros((5, 6), [("temperature", float), ("wind", float)]),
    "records of many fields": np.zeros(5, [(f"field {i}", float) for i in range(200)]),
    "a record": np.void(b"weather"),
    "objects": np.full((5, 6, 3), None),
    "numbers kept as objects": np.ones((5, 6, 3), object),
    "text in an array": np.full((5, 6, 3), "1.0"),
    "a masked array": MASKED,
    "the masked constant": np.ma.masked,
    "masked arrays in a list": [MASKED, MASKED],
    "masked arrays in lists of lists": [[MASKED, MASKED], [MASKED, MASKED]],
    "asked, it raises": raises(RuntimeError("no\nnumbers\there")),
    "asked, it raises at length": raises(ValueError("no numbers " * 500)),
    "asked, it raises what has no text": raises(TextlessError()),
    "asked, it returns text": Answering(lambda self: "garbage"),
    "asked, it returns itself": Answering(lambda self: self),
    "asked, it returns a negative number": Answering(lambda self: -1),
    "asked, it returns a matrix of objects": Answering(lambda self: np.full((5, 3), self)),
    "a lazy object": Lazy(),
}

# --- what no array can be, made of one that is good -----------------------------------------------


def with_one(value, at, dtype=float):
    def change(good):
        changed = good.astype(dtype)
        changed.flat[at] = value
        return changed

    return change


SPOILT = {
    "a number": lambda good: 1.0,
    "True": lambda good: True,
    "no axes": lambda good: np.array(1.0),
    "another length": lambda good: np.ones(9),
    "another length, bytes swapped": lambda good: np.ones(9, np.dtype(float).newbyteorder()),
    "a leading axis": lambda good: good[None],
    "60 axes": lambda good: np.ones((1,) * 60),
    "nothing": lambda good: [],
    "no rows": lambda good: np.zeros((0, *good.shape[1:])),
    "an entry too many": lambda good: np.concatenate([good, good[..., :1]], axis=-1),
    "NaN at the end": with_one(np.nan, -1),
    "infinity at the start": with_one(np.inf, 0),
    "minus infinity": with_one(-np.inf, 0),
    "beyond the range": with_one(np.longdouble("1e400"), -1, np.longdouble),
    "complex": lambda good: good + 1j,
    "float16": lambda good: good.astype(np.float16),
}
FIELDS = ("params.W", "params.U", "params.b", "params.V", "params.c")
ARRAYS = {*FIELDS, "trace.x", "trace.h", "x", "h0", "y", "target", "weights", "dy", "dh_last"}
# What an argument can be after all, or what is the fault of another.
FINE = {
    "None": {"h0", "dh_last", "weights", "workers", "checkpoint_every", "rng", "dtype"},
    "a class": {"loss"},
    "a function": {"loss"},
    "an integer of 400 digits": {"rng", "workers", "checkpoint_every"},
    "an entry too many": {"y", "params.U"},
    "beyond the range": {"y", *FIELDS},
    "complex": {"y", *FIELDS},
    "float16": ARRAYS - {"y"},
}


def a_loss(result):
    return lambda y, target, weights: result


OTHERS = {
    "check_finite": {"one": 1, "no": "no", "flags": np.array([True, False]), "NaN": np.nan},
    "params": {
        "three fields": SimpleNamespace(W=1, U=1, b=1),
        "float16": mb.Params(*(p.astype(np.float16) for p in PARAMS)),
        "integers": mb.Params(*(p.astype(int) for p in PARAMS)),
        "flags": mb.Params(*(p > 0 for p in PARAMS)),
        "gradients of another network": mb.init_params(4, 3, 2, rng=0)._replace(W=PARAMS.W),
    },
    "checkpoint_every": {"none": 0, "half": 0.5, "flag": True, "a root": "cbrt", "array": X},
    "kernel": {"another": "cuda", "capitals": "NumPy", "bytes": b"numpy", "the module": np},
    "trace": {"a tuple": tuple(TRACE), "a field": SimpleNamespace(x=X)},
    "loss": {
        "its name": "squared_error",
        "an array": X,
        "nothing returned": a_loss(None),
        "a number returned": a_loss(1.0),
        "three returned": a_loss((1.0, DY, DY)),
        "a list returned": a_loss([1.0, DY]),
        "a value alone, in a tuple": a_loss((1.0,)),
        "text for dy": a_loss((1.0, "dy")),
        "a step short": a_loss((1.0, DY[1:])),
        "NaN for dy": a_loss((1.0, DY * np.nan)),
        "complex dy": a_loss((1.0, DY * 1j)),
        "no weights taken": lambda y, target: (1.0, DY),
        "no signature": type("Loss", (), {"__call__": lambda *_: None, "__signature__": 1})(),
    },
    "dtype": {"half": np.float16, "integers": "int64", "unknown": "float65", "flags": bool},
    "rng": {"below 0": -1, "5000 digits below": -(10**5000), "a real number": 1.5, "True": True},
}
SIZES = {
    "0": 0,
    "below 0": -1,
    "5000 digits below 0": -(10**5000),
    "beyond the largest": 2**62,
    "a whole real number": 2.0,
    "NaN": np.nan,
    "True": True,
    "two": np.array([1, 2]),
}
OTHERS["workers"] = {name: v for name, v in SIZES.items() if name != "beyond the largest"}
OTHERS |= dict.fromkeys(("n_inputs", "n_hidden", "n_outputs"), SIZES)


def hostile_values(argument, good):
    """Return {description: value} of all that this argument cannot be."""
    values = NOTHING | OTHERS.get(argument, {})
    if argument in ARRAYS:
        values = values | {name: spoil(good) for name, spoil in SPOILT.items()}
    return {name: v for name, v in values.items() if argument not in FINE.get(name, ())}


def slots():
    """Yield (function, argument, good value), the fields of params and of a trace too."""
    for function, arguments in GOOD.items():
        for argument, good in arguments.items():
            yield function, argument, good
            for field in {"params": "WUbVc", "trace": "xh"}.get(argument, ""):
                yield function, f"{argument}.{field}", getattr(good, field)


CASES = {
    (function, argument): hostile_values(argument, good) for function, argument, good in slots()
}


# --- the tests -----------------------------------------------------------------------------------


def replaced(arguments, name, value):
    argument, _, field = name.partition(".")
    if field:
        value = arguments[argument]._replace(**{field: value})
    return {**arguments, argument: value}


def snapshot(value):
    """Return the bits of every array among the arguments, those in lists and tuples too."""
    if isinstance(value, np.ndarray):
        return value.dtype, value.shape, np.asarray(value).tobytes()
    if type(value) in (dict, list, tuple, mb.Params, mb.Trace) and value is not LOOP:
        return [snapshot(part) for part in (value.values() if type(value) is dict else value)]
    return None


def names_it(message, name):
    """Return whether a message begins with the name; what a loss returns has names of its own."""
    if name == "loss":
        return re.search(r"\bloss\b", message)
    return re.match(rf"{re.escape(name)}\b", message) or (
        name in FIELDS and message.startswith("params' common dtype")
    )


def complaint(function, arguments, names):
    """Return what is wrong with how a function takes arguments of which these names are bad."""
    before = snapshot(arguments)
    try:
        getattr(mb, function)(**arguments)
    except Exception as error:
        raised = error
    else:
        return "nothing raised"
    if type(raised) not in (TypeError, ValueError):
        return f"raised {type(raised).__name__}"
    message = str(raised)
    if not any(names_it(message, name) for name in names):
        return f"not named: {message[:300]}"
    if len(message) > 300 or not message.isprintable():
        return f"{len(message)} characters: {message[:300]!r}"
    if snapshot(arguments) != before:
        return "an argument has changed"
    return None


@pytest.mark.parametrize(("function", "argument"), CASES)
def test_what_an_argument_cannot_be_is_refused_by_name(function, argument):
    found = {
        value: complaint(function, replaced(GOOD[function], argument, hostile), [argument])
        for value, hostile in CASES[function, argument].items()
    }
    assert not {value: wrong for value, wrong in found.items() if wrong}


@pytest.mark.parametrize("function", GOOD)
def test_of_several_bad_arguments_one_is_named(function):
    rng = random.Random(0)
    slots = [slot for f, slot in CASES if f == function and slot not in ("params", "trace")]
    for _ in range(200):
        bad = rng.sample(slots, rng.choice((2, 3)))
        drawn = {argument: rng.choice(list(CASES[function, argument])) for argument in bad}
        arguments = GOOD[function]
        for argument, value in drawn.items():
            arguments = replaced(arguments, argument, CASES[function, argument][value])
        assert complaint(function, arguments, bad) is None, drawn


@pytest.mark.parametrize("value", ["a list that holds itself", "four lists deep"])
def test_lists_are_not_unfolded_without_end(value):
    """Two references to itself in a list are 2^64 numbers to NumPy."""
    with pytest.raises(ValueError, match="x is nested more than three lists deep"):
        mb.forward(PARAMS, NOTHING[value])


def test_the_good_arguments_are_good():
    for function, arguments in GOOD.items():
        getattr(mb, function)(**arguments)


def test_every_public_function_and_every_argument_of_it_is_here():
    others = ("CELLS", "Gradients", "Params", "Trace")
    functions = {name for name in mb.__all__ if name not in others}
    assert set(GOOD) == functions
    for function, arguments in GOOD.items():
        assert set(arguments) == {*signature(getattr(mb, function)).parameters}
    assert sum(map(len, CASES.values())) > 2000
