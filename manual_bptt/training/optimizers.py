"""Optimisers, schedules and clipping: what a step of training does with a gradient.

With g the gradient in a parameter p at step k = 1, 2, ..., and rate the learning rate of that step:

    SGD        v <- momentum v + g              p <- p - rate v
    Nesterov   v <- momentum v + g              p <- p - rate (g + momentum v)
    Adam       m <- beta1 m + (1 - beta1) g     s <- beta2 s + (1 - beta2) g^2
               p <- p - rate (m / (1 - beta1^k)) / (sqrt(s / (1 - beta2^k)) + epsilon)
    AdamW      p <- p - rate (the same + weight_decay p), for the matrices W, U, V alone

Momentum: Sutskever et al., ICML 2013. Adam: Kingma and Ba, ICLR 2015. AdamW: Loshchilov and Hutter,
ICLR 2019. Each is compared with optax step by step in the tests.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import cos, inf, pi, sqrt
from typing import Protocol

import numpy as np

from manual_bptt.arithmetic import reports_overflow
from manual_bptt.arrays import Array
from manual_bptt.params import Params

State = tuple[Params, ...]
Schedule = Callable[[int], float]


class Optimizer(Protocol):
    """A rule that turns gradients into steps, and what it remembers from step to step."""

    def start(self, params: Params) -> State:
        """Return what is remembered before the first step."""

    def update(
        self, params: Params, grads: Sequence[Array], state: State, *, rate: float, step: int
    ) -> tuple[Params, State]:
        """Return the parameters after a step, and what is remembered; steps count from 1."""


@dataclass(frozen=True)
class SGD:
    """Stochastic gradient descent, with momentum if that is above 0.

    Raises
    ------
    ValueError
        If momentum is not in [0, 1).

    Examples
    --------
    >>> from manual_bptt import init_params
    >>> params = init_params(1, 1, 1, rng=0)
    >>> after, _ = SGD().update(params, params, SGD().start(params), rate=0.25, step=1)
    >>> bool(after.W == 0.75 * params.W)
    True
    """

    momentum: float = 0.0
    nesterov: bool = False

    def __post_init__(self) -> None:
        _require(self, "momentum", 0, 1)

    def start(self, params: Params) -> State:
        """Return a velocity of zero, or nothing where there is no momentum."""
        return (_zeros(params),) if self.momentum else ()

    @reports_overflow
    def update(
        self, params: Params, grads: Sequence[Array], state: State, *, rate: float, step: int
    ) -> tuple[Params, State]:
        """Return the parameters after a step, and the velocity."""
        make = type(params)._make
        change = make(grads)
        if self.momentum:
            [velocity] = state
            velocity = make(self.momentum * v + g for v, g in _pairs(velocity, grads))
            state, change = (velocity,), velocity
            if self.nesterov:
                change = make(g + self.momentum * v for v, g in _pairs(velocity, grads))
        return make(p - rate * d for p, d in _pairs(params, change)), state


@dataclass(frozen=True)
class Adam:
    """Adam; with weight_decay above 0, AdamW.

    Raises
    ------
    ValueError
        If a beta is not in [0, 1), epsilon is not above 0, or weight_decay is below 0.

    Examples
    --------
    >>> from manual_bptt import init_params
    >>> params = init_params(1, 1, 1, rng=0)
    >>> after, _ = Adam().update(params, params, Adam().start(params), rate=0.01, step=1)
    >>> round(float(abs(after.W - params.W)[0, 0]), 6)  # the first step has the length of the rate
    0.01
    """

    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-8
    weight_decay: float = 0.0

    def __post_init__(self) -> None:
        _require(self, "beta1", 0, 1)
        _require(self, "beta2", 0, 1)
        _require(self, "epsilon", np.finfo(float).tiny, inf)
        _require(self, "weight_decay", 0, inf)

    def start(self, params: Params) -> State:
        """Return moments of zero."""
        return _zeros(params), _zeros(params)

    @reports_overflow
    def update(
        self, params: Params, grads: Sequence[Array], state: State, *, rate: float, step: int
    ) -> tuple[Params, State]:
        """Return the parameters after a step, and both moments."""
        beta1, beta2, make = self.beta1, self.beta2, type(params)._make
        first = make(beta1 * m + (1 - beta1) * g for m, g in _pairs(state[0], grads))
        second = make(beta2 * s + (1 - beta2) * (g * g) for s, g in _pairs(state[1], grads))
        unbiased1, unbiased2 = 1 - beta1**step, 1 - beta2**step
        moved = []
        for p, m, s in zip(params, first, second, strict=True):
            change = (m / unbiased1) / (np.sqrt(s / unbiased2) + self.epsilon)
            if self.weight_decay and p.ndim == 2:
                change = change + self.weight_decay * p
            moved.append(p - rate * change)
        return make(moved), (first, second)


@dataclass(frozen=True)
class Constant:
    """The same learning rate at every step."""

    rate: float

    def __post_init__(self) -> None:
        _require(self, "rate", np.finfo(float).tiny, inf)

    def __call__(self, step: int) -> float:
        """Return the rate."""
        return self.rate


@dataclass(frozen=True)
class WarmupCosine:
    """A rate that rises along a line to peak in warmup steps, then falls to zero along a cosine.

    Raises
    ------
    ValueError
        If peak is not above 0, or warmup is not between 0 and steps.

    Examples
    --------
    >>> rate = WarmupCosine(peak=0.1, warmup=10, steps=110)
    >>> [round(rate(step), 6) for step in (1, 10, 60, 110)]
    [0.01, 0.1, 0.05, 0.0]
    """

    peak: float
    warmup: int
    steps: int

    def __post_init__(self) -> None:
        _require(self, "peak", np.finfo(float).tiny, inf)
        _require(self, "warmup", 0, self.steps)

    def __call__(self, step: int) -> float:
        """Return the rate of a step; steps count from 1."""
        if step < self.warmup:
            return self.peak * step / self.warmup
        done = (step - self.warmup) / (self.steps - self.warmup)
        return self.peak * (1 + cos(pi * min(done, 1.0))) / 2


@reports_overflow
def clip_by_global_norm(
    grads: Sequence[Array], max_norm: float = inf
) -> tuple[Sequence[Array], float]:
    """Return the gradients, shortened together to max_norm where longer, and their norm before.

    The norm is the Euclidean one of all their entries (Pascanu, Mikolov and Bengio, ICML 2013).

    Examples
    --------
    >>> clipped, norm = clip_by_global_norm([np.array([3.0]), np.array([4.0])], max_norm=1.0)
    >>> norm, [g.tolist() for g in clipped]
    (5.0, [[0.6000000000000001], [0.8]])
    """
    norm = sqrt(sum(float(np.square(g, dtype=float).sum()) for g in grads))  # 1e20^2 has no float32
    if norm > max_norm:
        grads = [g * float(max_norm / norm) for g in grads]
    return grads, norm


def _zeros(params: Params) -> Params:
    return type(params)._make(np.zeros_like(p) for p in params)


def _pairs(one: Sequence[Array], other: Sequence[Array]) -> "zip[tuple[Array, Array]]":
    return zip(one, other, strict=True)


def _require(settings: object, name: str, low: float, below: float) -> None:
    """Refuse what is not in [low, below); a NumPy scalar becomes the number of Python that it is.

    Python's numbers leave the dtype of an array they meet as it is; NumPy's would widen float32.
    """
    value = getattr(settings, name)
    if not low <= value < below:
        raise ValueError(f"{name} is {value}; expected a number in [{low:g}, {below:g})")
    if isinstance(value, np.generic):
        object.__setattr__(settings, name, value.item())
