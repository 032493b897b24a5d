"""The local check: is every single step of a candidate right, up to its rounding?

From the candidate's own states h[t] and its own dh[t+1], the gradients in them, ``jax.vjp`` of one
step says in float64 what the state h[t+1], the gradient dh[t] and the sums over time of the
gradients in the parameters must be. Nothing accumulates over time, so what rounding can explain is
bounded rigorously, however chaotic the network: the jaxpr of the step and of its gradient is
carried out once more on numbers that are known up to an error (``reference.rounding.known``), at
the unit roundoff of the candidate plus that of autodiff.

The next state is measured: the gradient of a step is computed from the state that the candidate
has, not from one that it might have had. A sum over T B contributions v with errors e is known up
to

    sum e + gamma_{T B - 1} sum (|v| + e)

The bounds are about code that computes dh[t] from dh[t+1], one step at a time, and everything else
from that dh. Code that is right but goes another way (a parallel scan over time; dW by real-time
recurrent learning, or dx by forward mode, beside the h of a recursion) rounds otherwise, and may be
accused of it. Such code leaves out h, and is judged end to end.

A candidate that keeps its states to itself is taken to have those of autodiff, each up to a bound
that is carried forward in time.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from reference import jaxprs
from reference.network.cell import OUTPUT, Cell
from reference.network.sequence import output
from reference.rounding.known import (
    LOGISTIC_SLOPE,
    TANH_SLOPE,
    Known,
    Machine,
    closed,
    count,
    exact,
    gamma,
    narrowed,
    one_term,
)
from reference.rounding.recognition import recognised
from reference.rounding.rules import evaluate, require_rules
from reference.rounding.tolerance import FLUSHED


class Traced(NamedTuple):
    """The jaxprs of a step, of its gradient, of the output, and of its gradient, for some sizes."""

    step: Any
    step_backward: Any
    output: Any
    output_backward: Any


def traced(cell: Cell, D: int, H: int, O: int) -> Traced:
    """Return the jaxprs of a cell; loops and calls are written out."""
    sizes = {"D": D, "H": H, "O": O}
    array = partial(jax.ShapeDtypeStruct, dtype=jnp.float64)
    of = {k: array(shape) for k, shape in cell.shapes(sizes).items()}
    p, p_output = {k: of[k] for k in cell.params}, {k: of[k] for k in OUTPUT}
    h, x, dy = array((cell.size(sizes),)), array((D,)), array((O,))
    with jax.disable_jit():
        require_rules(jaxprs.traced(cell.flat_step, p, h, x)[0])
        step, _ = jaxprs.traced(recognised(cell.flat_step), p, h, x)
        step_backward, _ = jaxprs.traced(_backward_of(step), *jax.tree.leaves((p, h, x)), h)
        forward, _ = jaxprs.traced(output, p_output, h)
        backward, _ = jaxprs.traced(lambda p, h, dy: jax.vjp(output, p, h)[1](dy), p_output, h, dy)
    return Traced(step, step_backward, forward, backward)


def _backward_of(step: Any) -> Callable[..., Any]:
    """Return a function of the leaves (params, h, x) and dh: the next state and the gradients."""

    def rule(equation: Any, operands: list[Any]) -> Any:
        rewritten = REWRITTEN.get(jaxprs.name(equation))
        return [rewritten(*operands)] if rewritten else jaxprs.computed(equation, operands)

    def backward(*arguments: Any) -> Any:
        *leaves, dh = arguments
        h, pull_back = jax.vjp(lambda *leaves: jaxprs.evaluate(step, leaves, rule)[0], *leaves)
        return h, *pull_back(dh)

    return backward


def _with_slope(function: Callable[[Any], Any], slope: Any) -> Callable[[Any], Any]:
    """Return a function that is differentiated by an operation on its value."""
    function = jax.custom_jvp(function)

    def jvp(primals: Any, tangents: Any) -> Any:
        value = function(*primals)
        return value, tangents[0] * slope.bind(value)

    function.defjvp(jvp)
    return function


def _with_choice(function: Callable[[Any, Any], Any], sign: int) -> Callable[[Any, Any], Any]:
    """Return a maximum (1) or minimum (-1) that is differentiated by which of the two is taken.

    JAX compares each with the result, and up to rounding that is equal to one of them.
    """
    function = jax.custom_jvp(function)

    def jvp(primals: Any, tangents: Any) -> Any:
        a, b = primals
        return function(a, b), jnp.where(sign * a > sign * b, *tangents)

    function.defjvp(jvp)
    return function


REWRITTEN: dict[str, Callable[..., Any]] = {
    "tanh": _with_slope(jnp.tanh, TANH_SLOPE),
    "logistic": _with_slope(lax.logistic, LOGISTIC_SLOPE),
    "max": _with_choice(jnp.maximum, 1),
    "min": _with_choice(jnp.minimum, -1),
}


def state_bounds(cell: Cell, traced: Traced, params: Any, states: Any, x: Any, m: Machine) -> Any:
    """Bound the error of every state (T+1, B, H) of any correct forward pass; h[0] has none."""
    p = {k: params[k] for k in cell.params}

    def one(traced: Traced, p: Any, h: Any, e_h: Any, x: Any) -> Any:
        return _next_state(m, traced, p, h, e_h, x).error

    def step(e_h: Any, inputs: Any) -> Any:
        e_h = everywhere(one, 3, axes=1)(traced, p, inputs[0], e_h, inputs[1])
        return e_h, e_h

    start = jnp.zeros_like(states[0])
    return jnp.concatenate([start[None], lax.scan(step, start, (states[:-1], x))[1]])


def everywhere(function: Callable[..., Any], arrays: int, axes: int = 2) -> Callable[..., Any]:
    """Return function(what, params, arrays...) for every step and sequence at once."""

    def mapped(what: Any, params: Any, *arguments: Any) -> Any:
        run = partial(function, what)
        for _ in range(axes):
            run = jax.vmap(run, (None, *[0] * arrays))
        return run(params, *arguments)

    return mapped


def _next_state(m: Machine, traced: Traced, params: Any, h: Any, e_h: Any, x: Any) -> Known:
    """Return the next state, from one that is known up to e_h."""
    operands = [*map(exact, jax.tree.leaves(params)), one_term(h, e_h), exact(x)]
    (after,) = evaluate(traced.step, operands, m)
    return narrowed(closed(after, m), m.arithmetic.states)


def _step_backward(
    m: Machine,
    traced: Traced,
    params: Any,
    h: Any,
    e_h: Any,
    x: Any,
    dh: Any,
    own: Any,
    e_own: Any,
) -> list[Known]:
    """Return the gradients in params, h and x of one step, whose next state is the candidate's."""

    def measured(place: int, number: Known) -> Known:
        if place > 0:
            return number
        return one_term(number.value, jnp.abs(own - number.value) + e_own)

    operands = [*map(exact, jax.tree.leaves(params)), one_term(h, e_h), exact(x), exact(dh)]
    _, *gradients = evaluate(traced.step_backward, operands, m, measured)
    return gradients


def _output(m: Machine, traced: Traced, params: Any, h: Any, e_h: Any) -> Known:
    (y,) = evaluate(traced.output, [*map(exact, jax.tree.leaves(params)), one_term(h, e_h)], m)
    return closed(y, m)


def _output_backward(
    m: Machine, traced: Traced, params: Any, h: Any, e_h: Any, dy: Any, e_dy: Any
) -> list[Known]:
    """Return the gradients in V, c and h of one output."""
    operands = [*map(exact, jax.tree.leaves(params)), one_term(h, e_h), one_term(dy, e_dy)]
    return evaluate(traced.output_backward, operands, m)


def local_check(
    cell: Cell,
    traced: Traced,
    variables: Any,
    arguments: Any,
    states: Any,
    e_h: Any,
    dh: Any,
    sizes: Any,
    m: Machine,
    loss: Callable[..., Any],
    *,
    of_states: bool,
) -> dict[str, tuple[Any, Any]]:
    """Return, for each gradient and the states, what one step gives and the bound on its error.

    states (T+1, B, H) are the candidate's, exactly (e_h = 0) or up to e_h, and dh its gradients in
    them. The loss is a sum of convex terms, one for each entry of the outputs, or of the states.
    """
    params, x, h0, _ = variables
    p, p_output = {k: params[k] for k in cell.params}, {k: params[k] for k in OUTPUT}
    before, after = (states[:-1], e_h[:-1]), (states[1:], e_h[1:])

    def mapped(function: Callable[..., Any], arrays: int) -> Callable[..., Any]:
        return everywhere(partial(function, m), arrays)

    y = mapped(_output, 2)(traced, p_output, *after)
    seen = one_term(states, e_h) if of_states else y
    gradient = jax.grad(lambda seen: loss(seen, *arguments))
    slope, e_slope = jax.jvp(gradient, (seen.value,), (seen.error,))  # a Hessian with a diagonal
    e_slope += 4 * m.u * jnp.abs(slope)  # alone, and not negative
    dy, e_dy = (0 * y.value, 0 * y.value) if of_states else (slope, e_slope)
    of_loss = one_term(slope, e_slope) if of_states else exact(0 * states)
    now = mapped(_output_backward, 4)(traced, p_output, *after, dy, e_dy)
    steps = mapped(_step_backward, 6)(traced, p, *before, x, dh[1:], *after)

    # Bounds go through the rewritten gradient; the values are those of autodiff itself.
    h, pulled = everywhere(by_autodiff, 3)(cell, p, states[:-1], x, dh[1:])
    right = jax.tree.leaves(pulled)
    steps = [known._replace(value=value) for known, value in zip(steps, right, strict=True)]

    names = [*sorted(p), *sorted(p_output)]
    found = dict(zip(names, [*steps[:-2], *now[:-1]], strict=True))
    result = {k: _over_time(closed(known, m), sizes, m) for k, known in found.items()}
    flushed = FLUSHED * (sizes["T"] * sizes["B"] + sizes["H"] + sizes["O"]) * m.tiny

    none = exact(jnp.zeros_like(h0)[None])
    d_before, d_now = _then(steps[-2], none), _then(none, now[-1])
    d_loss = Known(*of_loss[:3], count(of_loss))
    parts = zip(d_before, d_now, d_loss, strict=True)
    dh_now = narrowed(closed(Known(*map(sum, parts)), m), m.arithmetic.states)
    dx = closed(steps[-1], m)
    e_next = mapped(_next_state, 3)(traced, p, *before, x).error
    result["h"] = dh_now.value, dh_now.error
    result["h0"] = dh_now.value[0], dh_now.error[0]
    result["x"] = dx.value, dx.error
    result["states"] = jnp.concatenate([h0[None], h]), jnp.concatenate([none.error, e_next])
    return {k: (value, error + flushed) for k, (value, error) in result.items()}


def by_autodiff(cell: Cell, p: Any, h: Any, x: Any, dh: Any) -> Any:
    """Return the next state, and what its gradient dh means for params, h and x."""
    after, pull_back = jax.vjp(cell.flat_step, p, h, x)
    return after, pull_back(dh)


def _then(first: Known, second: Known) -> Known:
    """Return what is known at one time after the other, with the terms of sums."""

    def parts(known: Known) -> tuple[Any, ...]:
        return (*known[:3], count(known))

    return Known(*(jnp.concatenate(pair) for pair in zip(parts(first), parts(second), strict=True)))


def _over_time(known: Known, sizes: Any, m: Machine) -> tuple[Any, Any]:
    """Return the sum of (T, B, ...) over the steps and sequences that there are."""
    T, B = known.value.shape[:2]
    there = (jnp.arange(T) < sizes["T"])[:, None] & (jnp.arange(B) < sizes["B"])
    there = there.reshape(T, B, *[1] * (known.value.ndim - 2))
    size = jnp.where(there, jnp.abs(known.value) + known.error, 0).sum((0, 1))
    error = jnp.where(there, known.error, 0).sum((0, 1))
    return known.value.sum((0, 1)), error + gamma(sizes["T"] * sizes["B"] - 1, m.u) * size
