"""Where the reference computes: in float64 on the CPU, whatever JAX is told to do elsewhere.

On a GPU, JAX rounds the operands of float32 products to TF32 unless it is told otherwise, and
compiles for longer than these problems run. Settings by which people look for mistakes in their own
code (``JAX_DEBUG_NANS``, ``JAX_DISABLE_JIT``, ``JAX_NUMPY_RANK_PROMOTION=raise``, ...) would stop
or slow down what is judged by.

What is judged runs outside of this, on the device and under the settings that its author chose.
"""

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import jax


class JaxUnavailableError(RuntimeError):
    """JAX cannot compute in this process."""


class _Process:
    """Whether the reference has computed in this process, and in the one that it was forked of."""

    computes, forked_too_late = False, False


def cpu() -> Any:
    """Return the first of JAX's CPUs.

    Raises
    ------
    JaxUnavailableError
        If JAX has none, as with ``JAX_PLATFORMS=cuda``, or if this process was forked from one in
        which the reference had computed: JAX would wait for threads that are not there.

    Examples
    --------
    >>> cpu().platform
    'cpu'
    """
    if _Process.forked_too_late:
        raise JaxUnavailableError(
            "this process was forked from one in which JAX had computed, and JAX does not work in "
            "it; start processes by 'spawn' or 'forkserver', or fork before the first call"
        )
    try:
        device = jax.local_devices(backend="cpu")[0]
    except (RuntimeError, AssertionError) as error:  # it asserts that some backend has started
        asked_for = jax.config.values.get("jax_platforms")
        raise JaxUnavailableError(
            f"JAX has no CPU, on which the reference computes: JAX_PLATFORMS is {asked_for!r}; "
            "unset it, or add the CPU to it, as in JAX_PLATFORMS=cuda,cpu"
        ) from error
    _Process.computes = True
    return device


def _after_fork() -> None:
    _Process.forked_too_late = _Process.computes


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


@contextmanager
def float64_on_cpu() -> Iterator[None]:
    """Let JAX compute in float64 on the CPU within a ``with``, and as if it had no other settings.

    Not to be held while a candidate is called, or over a ``yield``.

    Raises
    ------
    JaxUnavailableError
        If JAX cannot compute there; see ``cpu``.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> with jax.numpy_rank_promotion("raise"), float64_on_cpu():
    ...     result = jnp.ones((2, 2)) + jnp.ones(2)
    >>> result.dtype, result.device.platform
    (dtype('float64'), 'cpu')
    """
    settings = (
        jax.default_device(cpu()),
        jax.enable_x64(True),
        jax.disable_jit(False),
        jax.debug_nans(False),
        jax.debug_infs(False),
        jax.numpy_rank_promotion("allow"),
        jax.numpy_dtype_promotion("standard"),
        jax.default_matmul_precision(None),
        jax.transfer_guard("allow"),
    )
    with ExitStack() as stack:
        for setting in settings:
            stack.enter_context(setting)
        yield
