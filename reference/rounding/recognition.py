"""Recognising the logistic function where a step writes it out, as 1 / (1 + exp(-a)).

The derivative of that formula is exp(-a) / (1 + exp(-a))^2, which keeps all its digits where the
function is near 1. People write s (1 - s), which does not, and is as right. So what rounding can
explain is looked at with the function in place of its formula; values remain those of the step.
"""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax import lax

from reference import jaxprs

STAGES = {"neg": "", "exp": "neg", "add": "exp", "div": "add", "integer_pow": "add"}


def recognised(step: Callable[[Any, Any, Any], Any]) -> Callable[[Any, Any, Any], Any]:
    """Return a step in which the logistic function is one operation.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> step = recognised(lambda p, h, x: 1 / (1 + jnp.exp(-(p * h + x))))
    >>> jaxpr, _ = jaxprs.traced(step, 1.0, 1.0, 1.0)
    >>> "logistic" in [jaxprs.name(equation) for equation in jaxprs.equations(jaxpr)]
    True
    """

    def same(*arguments: Any) -> Any:
        with jax.disable_jit():
            jaxpr, tree = jaxprs.traced(step, *arguments)
        results = jaxprs.evaluate(jaxpr, jax.tree.leaves(arguments), _Recogniser())
        return jax.tree.unflatten(tree, results)

    return same


class _Recogniser:
    """A rule for ``jaxprs.evaluate`` that knows which values are -a, exp(-a) and 1 + exp(-a)."""

    def __init__(self) -> None:
        self.stages: dict[int, tuple[str, Any]] = {}  # by value: how far the formula is, and a
        self.alive: list[Any] = []  # so that no two values have one number

    def __call__(self, equation: Any, operands: list[Any]) -> list[Any]:
        name = jaxprs.name(equation)
        results = jaxprs.computed(equation, operands)
        found = self._a(name, equation, operands)
        if found is not None and name in ("div", "integer_pow"):
            results = [lax.logistic(found)]
        elif found is not None:
            self.stages[id(results[0])] = name, found
        self.alive += results
        return results

    def _a(self, name: str, equation: Any, operands: list[Any]) -> Any:
        """Return a, if the operation takes the formula for its logistic function a step further."""
        if name == "neg":
            return operands[0]
        if name not in STAGES or (name == "integer_pow" and equation.params["y"] != -1):
            return None
        rest = [v for v in operands if self.stages.get(id(v), ("",))[0] == STAGES[name]]
        others = [v for v in operands if not any(v is r for r in rest)]
        formula = len(rest) == 1 and all(map(_is_one, others))
        if not formula or (name == "div" and rest[0] is not operands[1]):
            return None
        return self.stages[id(rest[0])][1]


def _is_one(value: Any) -> bool:
    return not isinstance(value, jax.core.Tracer) and bool(np.all(np.asarray(value) == 1))
