"""JAX's insides, read alike in every version: loops, branches, calls, names and lines."""

import inspect
from pathlib import Path
from types import SimpleNamespace

import correct_gradients
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import reference
from reference import jaxprs
from reference.functions.trees import loss_of_variables, read
from reference.jaxprs import Branches, Call, Scan, While
from reference.rounding.noise import unknown_operations

SQUARE = np.array([[0.5, -1.0], [0.25, 2.0]])
PAIR = np.array([0.5, -1.5])


def found(function, *arguments):
    """Return what is inside of the equations of a function."""
    with jax.enable_x64(True):
        jaxpr, _ = jaxprs.traced(function, *arguments)
    return [part for e in jaxprs.equations(jaxpr) if (part := jaxprs.inside(e)) is not None]


def test_what_a_scan_carries_is_told_from_what_it_goes_over_though_all_sizes_are_equal():
    def loss(h, W, x):  # two steps, two units: every axis has length 2
        def step(h, x_t):
            h = jnp.tanh(W @ h + x_t)
            return h, h

        return lax.scan(step, h, x, reverse=True)

    (scan,) = (part for part in found(loss, PAIR, SQUARE, SQUARE) if isinstance(part, Scan))
    assert (scan.same, scan.carried, scan.length, scan.reverse) == (1, 1, 2, True)


def test_the_scans_of_a_gradient_are_read_whatever_they_carry():
    def loss(state, x):
        def step(state, x_t):
            h, count = state
            return (jnp.tanh(h + x_t), count + 1), None

        (h, _), _ = lax.scan(step, state, x)
        return jnp.sum(h**2)

    def gradient(h, x):
        return jax.grad(loss)((h, 0.0), x)

    forth, back = (part for part in found(gradient, PAIR, SQUARE) if isinstance(part, Scan))
    assert (forth.reverse, back.reverse) == (False, True)
    assert back.carried >= 1


@pytest.mark.parametrize("wrt", [0, 1])
def test_a_state_is_told_from_a_sum_over_the_steps_and_so_is_the_gradient_in_it(wrt):
    def loss(W, h, x):
        def step(carried, x_t):
            h, total = carried
            h = jnp.tanh(W @ h + x_t)
            return (h, total + jnp.sum(h**2)), h

        (_, total), outputs = lax.scan(step, (h, 0.0), x)
        return total + jnp.sum(outputs)

    scans = [part for part in found(loss, SQUARE, PAIR, SQUARE) if isinstance(part, Scan)]
    assert [len(jaxprs.states(scan)) for scan in scans] == [1]
    of_gradient = found(jax.grad(loss, wrt), SQUARE, PAIR, SQUARE)
    forward, backward = (part for part in of_gradient if isinstance(part, Scan))
    assert len(jaxprs.states(forward)) == 1
    assert len(jaxprs.states(backward)) == 2  # what is carried back, and with the output's share


def test_a_state_that_is_added_to_and_read_is_no_sum():
    def euler(h, x):
        return lax.scan(lambda h, x_t: (h + 0.1 * jnp.tanh(h) * x_t, None), h, x)[0]

    (scan,) = (part for part in found(euler, PAIR, SQUARE) if isinstance(part, Scan))
    assert len(jaxprs.states(scan)) == 1


@pytest.mark.parametrize("steps", [0, 1, 3])
def test_a_loop_over_numbers_has_nothing_to_slice(steps):
    def repeated(h, k):
        return lax.fori_loop(0, steps, lambda _, h: k * h, h)

    (scan,) = (part for part in found(repeated, PAIR, 2.0) if isinstance(part, Scan))
    assert (scan.same, scan.carried, scan.length) == (1, 2, steps)  # the counter is carried too


def test_the_parts_of_while_loops_branches_and_calls_are_found():
    def until(h, k):
        return lax.while_loop(lambda h: jnp.sum(h) < k, lambda h: h + k, h)

    (loop,) = (part for part in found(until, PAIR, 2.0) if isinstance(part, While))
    assert (loop.of_condition, loop.of_body) == (1, 1)

    (branches,) = (
        part
        for part in found(lambda h: lax.cond(h[0] > 0, jnp.sin, jnp.cos, h), PAIR)
        if isinstance(part, Branches)
    )
    assert len(branches.bodies) == 2
    for wrapped in (jax.jit(jnp.sin), jax.checkpoint(jnp.sin), jax.nn.relu, jax.nn.silu):
        assert any(isinstance(part, Call) for part in found(wrapped, PAIR))


def test_a_loop_that_is_written_in_a_new_way_is_refused_in_one_line():
    params = {"goes_on": None, "carries_on": None}
    equation = SimpleNamespace(primitive=SimpleNamespace(name="while"), params=params)
    with pytest.raises(NotImplementedError, match=r"^JAX .* writes while .* carries_on, goes_on$"):
        jaxprs.inside(equation)


@pytest.mark.parametrize("name", correct_gradients.EXAMPLES)
def test_every_operation_of_these_gradients_is_known(name):
    example = correct_gradients.EXAMPLES[name]
    given = read(correct_gradients.draw(example, np.random.default_rng(0), "float64"))
    loss = loss_of_variables(example.loss, given)
    with jax.enable_x64(True):
        assert unknown_operations(jax.grad(loss), given.values()) == {}


def test_what_is_evaluated_equation_by_equation_is_what_jax_computes():
    def function(x):
        return lax.scan(lambda h, x_t: (jnp.tanh(x @ h) + x_t, h), x[0], x)

    with jax.enable_x64(True):
        jaxpr, tree = jaxprs.traced(function, SQUARE)
        results = jaxprs.evaluate(jaxpr, [SQUARE], jaxprs.computed)
        expected = jax.tree.leaves(function(SQUARE))
    assert tree == jax.tree.structure((0, 0))
    for result, other in zip(results, expected, strict=True):
        np.testing.assert_allclose(result, other, rtol=1e-14)


def test_an_equation_knows_the_line_it_comes_from():
    def inner(x):
        return jnp.tanh(x)

    jaxpr, _ = jaxprs.traced(jax.jit(jax.grad(lambda x: jnp.sum(inner(x)))), PAIR)
    (line,) = {jaxprs.line(e) for e in jaxprs.equations(jaxpr) if jaxprs.name(e) == "tanh"}
    number = inspect.getsourcelines(inner)[1] + 1
    assert line.startswith(f"{__file__}:{number}:")
    assert line.endswith("inner)")


def test_an_operation_without_a_rule_is_named_with_its_line(monkeypatch):
    monkeypatch.setattr(jaxprs, "KNOWN", jaxprs.KNOWN - {"tanh"})
    report = reference.check_gradient(
        lambda x: jnp.sum(jnp.tanh(x)), lambda x: 1 - np.tanh(x) ** 2, PAIR
    )
    (note,) = report.notes
    assert note.startswith("no rule for the rounding of JAX's tanh (")
    assert f"{Path(__file__).name}:" in note


def test_names_of_primitives_and_parameters_stand_in_one_folder():
    package = Path(reference.__file__).parent
    for path in package.rglob("*.py"):
        if path.parent.name != "jaxprs":
            text = path.read_text(encoding="utf-8")
            for word in ("jax._src", "jax.extend", ".primitive", ".eqns", "invars", "make_jaxpr"):
                assert word not in text, f"{path.name}: {word}"
