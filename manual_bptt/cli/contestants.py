"""Code that ``manual-bptt bench`` compares: ours, JAX and torch, for the same loss and gradients.

Each takes a ``Work`` and returns a function without arguments that computes the squared error over
all steps and its gradients in the five parameters. Ours returns those in x and h0 as well, and
checks its arguments. The parameters are arrays of each library's own, as in training; inputs and
targets are NumPy's, as a batch comes from its source.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

import manual_bptt as mb

Call = Callable[[], Any]


class Shape(NamedTuple):
    """Sequences, steps, inputs, hidden units and outputs; B = 1 has no batch axis."""

    B: int
    T: int
    D: int
    H: int
    O: int

    @property
    def products(self) -> int:
        """The operations in the matrix products: forward, and twice as many backward."""
        return 6 * self.B * self.T * self.H * (self.H + self.D + self.O)

    @property
    def states(self) -> int:
        """The numbers in all states."""
        return self.B * self.T * self.H


class Work(NamedTuple):
    """What is to be differentiated."""

    params: mb.Params
    x: Any
    h0: Any
    target: Any


def work(shape: Shape, dtype: str) -> Work:
    """Draw parameters and sequences."""
    B, T, D, H, O = shape
    rng = np.random.default_rng(0)
    batch = () if B == 1 else (B,)
    params = mb.init_params(D, H, O, rng=rng, dtype=dtype)
    x = rng.standard_normal((T, *batch, D)).astype(dtype)
    target = rng.standard_normal((T, *batch, O)).astype(dtype)
    return Work(params, x, np.zeros((*batch, H), dtype), target)


def by_hand(todo: Work, **options: Any) -> Call:
    """Return the gradients by hand."""
    params, x, h0, target = todo
    return lambda: mb.loss_and_gradients(params, x, target, h0=h0, **options)


def by_jax(todo: Work, unroll: int = 1) -> Call:
    """Return jitted ``value_and_grad``, compiled; what is no recursion is outside the scan."""
    import jax
    import jax.numpy as jnp

    def loss(params: mb.Params, x: Any, h0: Any, target: Any) -> Any:
        W, U, b, V, c = params

        def step(h: Any, inputs: Any) -> Any:
            h = jnp.tanh(h @ W.T + inputs)
            return h, h

        _, h = jax.lax.scan(step, h0, x @ U.T + b, unroll=unroll)
        return ((h @ V.T + c - target) ** 2).sum()

    params, *sequences = todo
    own = jax.device_put(params)
    differentiate = jax.jit(jax.value_and_grad(loss)).lower(own, *sequences).compile()
    wait: Any = jax.block_until_ready
    return lambda: wait(differentiate(own, *sequences))


def by_torch(todo: Work, threads: int) -> Call:
    """Return ``torch.nn.RNN`` and a linear layer with autograd, on a number of threads."""
    import torch

    params, x, h0, target = todo
    H, D = params.U.shape
    rnn, read = torch.nn.RNN(D, H), torch.nn.Linear(H, len(params.c))
    weights = [*rnn.parameters(), *read.parameters()]
    zero = np.zeros_like(params.b)  # torch has a second bias
    by_hand = (params.U, params.W, params.b, zero, params.V, params.c)
    for weight, value in zip(weights, by_hand, strict=True):
        weight.data = torch.from_numpy(value.copy())

    def call() -> Any:
        torch.set_num_threads(threads)
        tx, th0, ty = (torch.from_numpy(array) for array in (x, h0[None], target))
        for weight in weights:
            weight.grad = None
        h, _ = rnn(tx, th0)
        value = ((read(h) - ty) ** 2).sum()
        value.backward()
        return value.item(), weights

    return call
