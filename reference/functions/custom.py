"""A derivative rule that somebody wrote for a JAX function, against autodiff of that function.

With a cotangent for each result, drawn at random, <cotangent, f(args)> is a scalar function of the
arguments. Its gradient by the rule is what ``jax.vjp`` of f gives for the cotangent; autodiff of
the function that f wraps says what it should be.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from reference.devices import float64_on_cpu
from reference.functions.leaf_report import LeafReport
from reference.functions.leaves import checked
from reference.functions.trees import read

DRAWS = 3  # of cotangents


class _Constant:
    """An argument in which f has no derivative: JAX does not look into it."""

    def __init__(self, value: Any) -> None:
        self.value = value


def check_custom_vjp(f: Callable[..., Any], *args: Any, seed: int = 0) -> LeafReport:
    """Judge the rule of ``f.defvjp``, or of ``f.defjvp``, by autodiff of the function f wraps.

    Parameters
    ----------
    f : callable
        What ``jax.custom_vjp`` or ``jax.custom_jvp`` made of a function, with its rule. It returns
        an array, or a tree of them.
    args : trees of arrays
        Where to judge it; all float32 or all float64. Those of ``nondiff_argnums``, and integers,
        are constants.
    seed : int
        Which cotangents to draw.

    Returns
    -------
    LeafReport
        As of ``check_gradient``, with the gradient in every argument. Its ``diagnosis`` is about
        lines of the function that f wraps. It is about the first cotangent of three that shows a
        mistake.

    Raises
    ------
    TypeError
        If f is not such a function, or an argument is complex or of another precision.
    ValueError
        If there is nothing to differentiate in, or JAX cannot trace the function that f wraps.

    Examples
    --------
    >>> @jax.custom_vjp
    ... def softplus(x):
    ...     return jnp.log1p(jnp.exp(x))
    >>> softplus.defvjp(lambda x: (softplus(x), x), lambda x, g: (g * jnp.exp(x) / (1 + x),))
    >>> report = check_custom_vjp(softplus, np.array([0.5, 1.0, 2.0]))
    >>> report.passed
    False
    """
    plain = getattr(f, "fun", None)
    if not callable(plain) or not isinstance(f, jax.custom_vjp | jax.custom_jvp):
        raise TypeError(
            f"f is a {type(f).__name__}; expected what jax.custom_vjp or jax.custom_jvp made of a "
            "function"
        )
    fixed = {i % len(args) for i in f.nondiff_argnums} if args else set()
    held = tuple(_Constant(a) if i in fixed else a for i, a in enumerate(args))
    given = read(held)
    if not given.variables:
        raise ValueError("args hold no floating numbers; expected some to differentiate in")
    rng = np.random.default_rng(seed)
    report = None
    for _ in range(DRAWS):
        cotangent = _drawn(plain, args, given.dtype, rng)
        report = checked(_paired(plain, cotangent), _by_rule(f, cotangent, given.dtype), given)
        if not report.passed:
            break
    assert report is not None
    report.notes[:] = [note for note in report.notes if not note.startswith("grad_fn returned")]
    return report


def _released(args: tuple[Any, ...]) -> list[Any]:
    return [a.value if isinstance(a, _Constant) else a for a in args]


def _drawn(plain: Any, args: Any, dtype: Any, rng: np.random.Generator) -> list[Any]:
    """Return a cotangent for each leaf of the result; None where that holds no real numbers."""
    with float64_on_cpu():
        shapes = jax.tree.leaves(jax.eval_shape(lambda: plain(*args)))
    return [
        rng.standard_normal(s.shape).astype(dtype) if jnp.issubdtype(s.dtype, np.floating) else None
        for s in shapes
    ]


def _paired(plain: Any, cotangent: list[Any]) -> Callable[..., Any]:
    """Return the sum of the results of a function, each times its cotangent."""

    def loss(*args: Any) -> Any:
        results = jax.tree.leaves(plain(*_released(args)))
        pairs = zip(cotangent, results, strict=True)
        return sum(jnp.sum(c.astype(np.float64) * r) for c, r in pairs if c is not None)

    return loss


def _by_rule(f: Any, cotangent: list[Any], dtype: Any) -> Callable[..., Any]:
    """Return the gradient of that by the rule of f."""

    def gradient(*args: Any) -> Any:
        with jax.enable_x64(dtype == np.float64):
            given = _released(args)
            moving = [i for i, a in enumerate(args) if not isinstance(a, _Constant)]

            def of_moving(*some: Any) -> Any:
                values = list(given)
                for i, value in zip(moving, some, strict=True):
                    values[i] = value
                return f(*values)

            at = jax.tree.map(jnp.asarray, [given[i] for i in moving])
            results, back = jax.vjp(of_moving, *at)
            leaves, tree = jax.tree.flatten(results)
            filled = [_like(c, r) for c, r in zip(cotangent, leaves, strict=True)]
            found = back(jax.tree.unflatten(tree, filled))
        every: list[Any] = [None] * len(args)
        for i, gradient in zip(moving, found, strict=True):
            every[i] = jax.tree.map(_real, gradient)
        return tuple(every)

    return gradient


def _like(cotangent: Any, result: Any) -> Any:
    """Return a cotangent as JAX wants it; whole numbers have one of no bytes."""
    if cotangent is None:
        return np.zeros(result.shape, jax.dtypes.float0)
    return jnp.asarray(cotangent, result.dtype)


def _real(gradient: Any) -> Any:
    """Return a gradient as an array of NumPy, and None for that in whole numbers."""
    return None if gradient.dtype == jax.dtypes.float0 else np.asarray(gradient)
