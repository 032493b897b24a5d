"""Losses in JAX, each with its gradient by hand in NumPy and the ways in which people get it wrong.

A module holds one loss. ``loss(*arguments(rng))`` is a number, ``gradient(None, *arguments(rng))``
its gradient in the first argument, and ``gradient(name, *arguments(rng))`` a wrong one, in the way
that ``FAULTS[name]`` says. The faults are what people do in programs, homework and questions to
forums; they were written without regard to what can be found.
"""

from importlib import import_module
from typing import NamedTuple

import numpy as np

LOSSES = [
    "elman",
    "gru",
    "lstm",
    "attention",
    "layer_norm",
    "stacked",
    "kalman",
    "ode",
    "char_rnn",
    "masked",
    "bidirectional",
    "leaky",
]


class Fault(NamedTuple):
    """What was done wrong, and the lines of the loss it is about, each quoted in part or in full.

    Where there are several lines, each is a true answer, or half of it in a pair. There is none
    where no line can be blamed.
    """

    what: str
    lines: tuple[str, ...] = ()
    pair: bool = False


def modules():
    """Yield the name and the module of each loss."""
    for name in LOSSES:
        yield name, import_module(f"faults.{name}")


def all_faults():
    """Yield the module, the name of a fault and the fault, for every fault of every loss."""
    for _, module in modules():
        for name, fault in module.FAULTS.items():
            yield module, name, fault


def pairs(faults, *both):
    """Return the faults that are two of the others at once; ``parts`` takes their names apart."""
    return {
        f"{one} + {other}": Fault(
            f"{faults[one].what} {faults[other].what}",
            tuple(dict.fromkeys(faults[one].lines + faults[other].lines)),
            pair=True,
        )
        for one, other in both
    }


def parts(fault):
    """Return the names of the single faults in this one; None is no fault."""
    return fault.split(" + ") if fault else []


def normal(rng, *shape):
    """Return numbers of moderate size, so that no activation is saturated."""
    return rng.normal(0, 0.5, shape)


def zeros_like(tree):
    """Return zeros in the places of the arrays of a dict."""
    return {name: np.zeros_like(value) for name, value in tree.items()}


def sigmoid(a):
    """Return the logistic function."""
    return 1 / (1 + np.exp(-a))


def softmax(a, axis=-1):
    """Return exp(a), divided by its sum along an axis."""
    powers = np.exp(a - a.max(axis, keepdims=True))
    return powers / powers.sum(axis, keepdims=True)
