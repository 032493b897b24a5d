"""Compilation in tiers: NumPy carries a function out at first, and XLA once that has paid.

To compile takes as long as to carry out some number of operations. A function that is called a few
times is not worth it; one that is called for ever is. Whoever compiles when as much time has gone
by as compiling takes has spent at most twice what was needed, whatever comes.
"""

from collections.abc import Callable
from threading import RLock
from typing import Any

import jax
import numpy as np
from jax.extend.core import jaxpr_as_fun

from reference.devices import float64_on_cpu
from reference.jaxprs.in_numpy import as_numpy
from reference.jaxprs.interpreter import Interpreter
from reference.jaxprs.programs import traced

# How many operations NumPy carries out while XLA compiles one. Gradients of cells with errors in
# their operations, on two cores: 1 to 2 ms to compile an operation, 3 to 7 us to carry it out.
COMPILING = 300
Outline: Any = jax.ShapeDtypeStruct


class Tiered:
    """A JAX function for arguments of one shape, carried out by NumPy at first and then compiled.

    Both give the same but for rounding. Results are trees of arrays. Which of the two it is depends
    on the calls before alone, and not on the time.

    Parameters
    ----------
    function : callable
        What JAX can trace: it takes arrays, or trees of them, and returns the like.
    like : trees of arrays
        Arguments like those that it will be called with.

    Raises
    ------
    ValueError
        If it is called with arguments of other shapes or dtypes.

    Examples
    --------
    >>> squares = Tiered(lambda x: {"sum": (x**2).sum()}, np.zeros(3))
    >>> squares(np.arange(3.0))["sum"], squares.compiled
    (np.float64(5.0), False)
    >>> squares.expect(10**6)
    >>> float(squares(np.arange(3.0))["sum"]), squares.compiled
    (5.0, True)
    """

    def __init__(self, function: Callable[..., Any], *like: Any) -> None:
        with float64_on_cpu():
            self._jaxpr, self._tree = traced(function, *like)
            self._interpreter = Interpreter(self._jaxpr)
        self._outlines = [(v.shape, v.dtype) for v in self._jaxpr.in_avals]
        self._left = float(COMPILING * self._interpreter.size)
        self._function: Any = None
        self._lock = RLock()

    @property
    def compiled(self) -> bool:
        """Whether XLA carries it out."""
        return self._function is not None

    def expect(self, calls: int) -> None:
        """Compile it if it is going to be called so often that this pays."""
        with self._lock:
            if not self.compiled and calls * self._interpreter.operations > self._left:
                self.compile()

    def compile(self) -> None:
        """Compile it, whatever that takes."""
        with self._lock, float64_on_cpu():
            like = [Outline(*o) for o in self._outlines]
            self._function = jax.jit(jaxpr_as_fun(self._jaxpr)).lower(*like).compile()

    def __call__(self, *arguments: Any) -> Any:
        """Return the results for these arguments."""
        leaves = [*map(as_numpy, jax.tree.leaves(arguments))]
        for number, (leaf, outline) in enumerate(zip(leaves, self._outlines, strict=True)):
            if (leaf.shape, leaf.dtype) != outline:
                expected, got = _in_words(*outline), _in_words(leaf.shape, leaf.dtype)
                raise ValueError(f"array {number} of the arguments is {got}; expected {expected}")
        self.expect(1)
        if self.compiled:
            with float64_on_cpu():
                results = self._function(*leaves)
        else:
            self._left -= self._interpreter.operations
            with float64_on_cpu(), np.errstate(all="ignore"):
                results = self._interpreter(*leaves)
        return jax.tree.unflatten(self._tree, results)


def _in_words(shape: tuple[int, ...], dtype: Any) -> str:
    return f"{dtype} of shape {shape}"
