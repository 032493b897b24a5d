"""The reference computes in float64 on the CPU, whatever JAX is told to do elsewhere."""

import os
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import reference
from reference import devices
from reference.devices import JaxUnavailableError, cpu, float64_on_cpu
from reference.oracle.padding import LABS, Shape
from reference.oracle.programs import compiled

# Settings by which people look for mistakes in their own code, or choose where it runs. Nothing can
# be computed on the last one: whatever the reference forgets to put on the CPU raises.
SETTINGS = {
    "jax_numpy_rank_promotion": "raise",
    "jax_numpy_dtype_promotion": "strict",
    "jax_debug_nans": True,
    "jax_debug_infs": True,
    "jax_disable_jit": True,
    "jax_transfer_guard": "disallow",
    "jax_default_matmul_precision": "bfloat16",
    "jax_default_device": "tpu",
}


@pytest.fixture(params=SETTINGS)
def setting(request):
    before = jax.config.values[request.param]
    jax.config.update(request.param, SETTINGS[request.param])
    yield request.param
    jax.config.update(request.param, before)


def loss(layer, x):
    spread = jnp.where(x > 0, x, 1.0)  # NaN in the branch that is not taken
    return jnp.sum((x @ layer["w"] + layer["b"]) ** 2) + 0 * jnp.sum(jnp.log(spread))


def by_hand(layer, x):
    dy = 2 * (x @ layer["w"] + layer["b"])
    return {"w": x.T @ dy, "b": dy.sum(axis=0)}


def test_no_setting_of_jax_reaches_what_judges_and_each_reaches_the_candidate(setting):
    seen = []

    def candidate(params, x, h0, target):
        seen.append(jax.config.values[setting])
        return {"c": np.full_like(params.c, 3)}

    report = reference.compare(candidate, cases=2, batched=False, sizes={"T": 3}, explained=False)
    assert report.rows[4].status == "mismatch"
    assert set(seen) == {SETTINGS[setting]}
    x, layer = np.array([[0.5, -1.0], [0.25, 3.0]]), {"w": np.eye(2), "b": np.array([1.0, -0.5])}
    assert reference.check_gradient(loss, by_hand, layer, x).passed
    problem = reference.random_problem(T=3, B=2, D=1, H=2, O=1, regime="linear", seed=0)
    given = problem.params, problem.x
    grads = reference.gradients(*given, problem.target, h0=problem.h0)
    assert grads["W"].dtype == reference.forward(*given)[0].dtype == np.float64


def test_within_the_settings_are_ours_and_after_that_as_before(setting):
    before = dict(jax.config.values)

    def function(a):
        return jnp.log(a), isinstance(a, jax.core.Tracer)

    with float64_on_cpu():
        product = jax.make_jaxpr(jnp.dot)(jnp.eye(2), jnp.eye(2))
        matrix = jnp.eye(2) - np.ones(2, np.float32)
        result, compiled = jax.jit(function)(matrix)  # NaN and -inf
    assert (result.dtype, result.device) == (np.float64, cpu())
    assert compiled
    assert "Precision" not in str(product)
    assert dict(jax.config.values) == before


def test_a_machine_without_a_cpu_is_told_what_to_set(monkeypatch):
    def none(backend):
        raise RuntimeError(f"Unknown backend {backend}")

    monkeypatch.setattr(jax, "local_devices", none)
    with pytest.raises(JaxUnavailableError, match="unset it, or add the CPU"):
        reference.check_gradient(loss, by_hand, {"w": np.eye(2), "b": np.ones(2)}, np.eye(2))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_a_process_that_was_forked_too_late_is_told_instead_of_waiting_for_ever():
    cpu()  # as every call of the reference does
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of JAX and of Python, which say that it is dangerous
        child = os.fork()
    if child == 0:
        try:
            cpu()
        except JaxUnavailableError as error:
            os._exit(7 if "forked from one in which JAX had computed" in str(error) else 1)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
    assert not devices._Process.forked_too_late


def test_a_program_that_failed_to_compile_is_compiled_again():
    calls = []

    def program(shape, cell):
        calls.append(shape)
        if len(calls) == 1:
            raise MemoryError
        return sum

    shape = Shape(1, 1, 1, 1, 1)
    with pytest.raises(MemoryError):
        compiled(program, shape, LABS)
    assert compiled(program, shape, LABS) is sum
    assert compiled(program, shape, LABS) is sum
    assert calls == [shape] * 2
