"""The programs: the truth, its tolerances, and the local check, each for a padded shape."""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cache, lru_cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from reference.devices import float64_on_cpu
from reference.jaxprs import Tiered
from reference.network.cell import Cell
from reference.network.gradients import autodiff
from reference.network.losses import cross_entropy, squared_error
from reference.network.sequence import run
from reference.oracle.padding import (
    Shape,
    given_to_loss,
    padded_variables,
    sizes_of,
    stack,
)
from reference.problems import random_problem
from reference.rounding.formats import PLAIN, Arithmetic
from reference.rounding.known import Machine
from reference.rounding.steps import local_check, traced
from reference.rounding.tolerance import Measure
from reference.rounding.whole import deviates, tolerances

DIRECTIONS = 8  # in which the curvature of a loss is looked at


def machine(dtype: Any, arithmetic: Arithmetic = PLAIN) -> Machine:
    """Return what is computed in, for a dtype and the formats of factors and states."""
    info = np.finfo(dtype)
    return Machine(float(info.eps) / 2, float(info.tiny), float(info.max), arithmetic)


@cache
def deviates_of_runs() -> np.ndarray:
    """Return the errors of the noisy runs."""
    return deviates()


@cache  # and not at import: a process that is forked later has none of its threads
def compilers() -> ThreadPoolExecutor:
    """Return threads that trace and compile, each a program: XLA uses one core for it."""
    return ThreadPoolExecutor(thread_name_prefix="compile")


@lru_cache(maxsize=64)
def compilation(program: Callable[..., Any], *of: Any) -> Future[Any]:
    """Return the future of a program for a shape, cell and arithmetic, which a thread makes."""
    return compilers().submit(program, *of)


def expect(calls: dict[Any, int]) -> None:
    """Compile programs that are going to be called so often that this pays, at the same time."""
    for future in [compilers().submit(program.expect, n) for program, n in calls.items()]:
        future.result()


def compiled(program: Callable[..., Any], *of: Any) -> Any:
    """Wait for such a program; where it failed, the next call tries again."""
    future = compilation(program, *of)
    try:
        return future.result()
    except Exception:
        compilation.cache_clear()
        raise


class Whole(NamedTuple):
    """The oracle of a padded shape: autodiff, which XLA carries out, and its tolerances."""

    autodiff: Any
    tolerances: Tiered

    def expect(self, calls: int) -> None:
        """Compile the tolerances too, if that pays for so many calls."""
        self.tolerances.expect(calls)

    def __call__(self, variables: Any, loss: Any, sizes: Any, m: Machine) -> dict[str, Measure]:
        """Return the gradients and states of problems, each with its tolerance."""
        truth = jax.tree.map(np.asarray, self.autodiff(variables, loss))
        arguments = variables, loss, truth, deviates_of_runs(), sizes, m
        found = self.tolerances(*arguments)
        if not self.tolerances.compiled and np.any(found["astray"]):
            self.tolerances.compile()  # and trust it
            found = self.tolerances(*arguments)
        return {k: (truth[k], np.asarray(found[k])) for k in found if k != "astray"}


def whole_program(
    shape: Shape, cell: Cell, of_states: bool, arithmetic: Arithmetic, labels: bool
) -> Whole:
    """Return the oracle for one padded shape."""
    variables, loss, sizes = example(shape, cell, of_states=of_states, labels=labels)
    function = loss_of_labels if labels else any_loss
    like = jax.tree.map(lambda array: array[0], (variables, loss))
    options: dict[str, Any] = {"of_states": of_states}

    def of_one(variables: Any, given: Any) -> dict[str, Any]:
        return autodiff(variables, given, function, cell, **options)

    with float64_on_cpu():
        plain = jax.jit(jax.vmap(of_one))
        truth = plain(variables, loss)
        one = tolerances(cell, traced(cell, *shape[2:]), like, function, **options)
        many = jax.vmap(one, (0, 0, 0, None, 0, None))
        m = machine(float, arithmetic)
        return Whole(plain, Tiered(many, variables, loss, truth, deviates_of_runs(), sizes, m))


def steps_program(shape: Shape, cell: Cell, of_states: bool, arithmetic: Arithmetic) -> Tiered:
    """Return the local check for one padded shape."""
    variables, loss, sizes = example(shape, cell, of_states=of_states)
    states = stack([np.zeros((shape.T + 1, shape.B, cell.size(shape._asdict())))], shape)
    with float64_on_cpu():
        jaxprs = traced(cell, *shape[2:])
        one = partial(local_check, cell, jaxprs, loss=any_loss, of_states=of_states)
        many = jax.vmap(one, (0, 0, 0, 0, 0, 0, None))
        m = machine(float, arithmetic)
        return Tiered(many, variables, loss, states, states, states, sizes, m)


def example(
    shape: Shape, cell: Cell, *, of_states: bool, labels: bool = False
) -> tuple[Any, Any, Any]:
    """Return variables, arguments of the loss and sizes for one call: what a compiler looks at."""
    name = "final_state_squared_error" if of_states else "squared_error"
    name = "cross_entropy" if labels else name
    options: dict[str, Any] = {"regime": "linear", "seed": 0, "cell": cell, "loss": name}
    problem = random_problem(**shape._asdict(), **options)
    loss = given_to_loss(problem, shape)
    rows = padded_variables(problem, shape), loss
    return *(stack([row], shape) for row in rows), sizes_of([problem], shape)


@lru_cache(maxsize=16)
def outputs_program(shape: Shape, cell: Cell) -> Any:
    """Return the compiled forward pass for one padded shape."""
    del shape
    return jax.jit(jax.vmap(lambda variables: run(cell, *variables)[1]))


@lru_cache(maxsize=64)
def loss_program(loss: Any, shape: tuple[int, ...]) -> Any:
    """Return the compiled gradient of a loss and its change in some directions, at y (T, ...)."""
    del shape

    def expand(y: Any, target: Any, directions: Any) -> tuple[Any, Any]:
        slope = jax.grad(loss)
        changes = jax.vmap(lambda v: jax.jvp(lambda y: slope(y, target), (y,), (v,))[1])(directions)
        return slope(y, target), jnp.max(jnp.abs(changes), axis=0)

    return jax.jit(expand)


def any_loss(seen: Any, target: Any, weights: Any, slope: Any) -> Any:
    """Return the form into which every loss of no labels is brought, of outputs or of states."""
    return squared_error(seen, target, weights) + jnp.sum(slope * seen)


def loss_of_labels(y: Any, target: Any, weights: Any, added: Any) -> Any:
    """Return the cross entropy of labels, where what is added leaves out outputs of zeros."""
    return cross_entropy(y + added, target, weights)
