"""Carrying out a jaxpr in NumPy, operation by operation: nothing is compiled.

A gradient with errors in all of its operations is some thousand operations at each step. XLA takes
seconds to compile them, NumPy a tenth of a second to carry them out. Calls are followed into, and
what depends on no argument is computed once.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from jax.extend.core import Literal

from reference.jaxprs.in_numpy import are_keys, as_numpy, made
from reference.jaxprs.programs import Branches, Call, Scan, While, inside, plain

Results = list[Any]
Function = Callable[..., Results]

LOOPS = 100  # steps that a loop is taken to have which ends when a condition says so
ENTRIES = 4000  # of a result take as long as what there is to do for any result


class Interpreter:
    """A jaxpr, prepared for being carried out on NumPy arrays.

    ``size`` is how many operations are written in it, in loops and branches too. ``operations`` is
    how many a call carries out: of branches the longest, and LOOPS steps of a loop of unknown
    length. One on large arrays counts as the number of those on small ones that take as long.

    Examples
    --------
    >>> import jax
    >>> from reference.jaxprs import traced
    >>> def last(x):
    ...     return jax.lax.scan(lambda h, x: (jax.numpy.tanh(h + x), None), 0.0, x)[0]
    >>> x = np.array([0.1, 0.2, 0.3])
    >>> run = Interpreter(traced(last, x)[0])
    >>> run.size, run.operations, [round(float(h), 6) for h in run(x)]
    (3, 9.0, [0.530621])
    """

    def __init__(self, jaxpr: Any) -> None:
        self.size, self.operations = 0, 0.0
        self._values: list[Any] = []
        self._known: set[int] = set()
        self._steps: list[tuple[Function, tuple[int, ...], tuple[int, ...]]] = []
        self._arguments = [self._new() for _ in plain(jaxpr).invars]
        self._results = self._follow(jaxpr, self._arguments)
        self._released = self._last_uses()

    def __call__(self, *arguments: Any) -> Results:
        """Return the results for these arguments."""
        values = self._values.copy()
        for slot, argument in zip(self._arguments, arguments, strict=True):
            values[slot] = argument
        for (function, ins, outs), done in zip(self._steps, self._released, strict=True):
            results = function(*[values[i] for i in ins])
            for slot, result in zip(outs, results, strict=True):
                values[slot] = result
            for slot in done:
                values[slot] = None
        return [values[i] for i in self._results]

    def _new(self) -> int:
        self._values.append(None)
        return len(self._values) - 1

    def _constant(self, value: Any) -> int:
        slot = self._new()
        self._values[slot] = value
        self._known.add(slot)
        return slot

    def _follow(self, jaxpr: Any, arguments: Sequence[int]) -> list[int]:
        """Add the operations of a jaxpr; return where its results will be."""
        body = plain(jaxpr)
        constants = [self._constant(as_numpy(c)) for c in getattr(jaxpr, "consts", ())]
        slots: dict[Any, int] = dict(zip(body.constvars, constants, strict=True))
        slots |= zip(body.invars, arguments, strict=True)

        def slot(variable: Any) -> int:
            if isinstance(variable, Literal):
                shaped: Any = variable.aval
                return self._constant(np.asarray(variable.val, shaped.dtype))
            return slots[variable]

        for equation in body.eqns:
            found, ins = inside(equation), [*map(slot, equation.invars)]
            if isinstance(found, Call):
                outs = self._follow(found.body, ins)
            else:
                outs = self._add(*_prepared(equation, found), ins, len(equation.outvars))
            slots |= zip(equation.outvars, outs, strict=True)
        return [*map(slot, body.outvars)]

    def _add(
        self, function: Function, size: int, operations: float, ins: list[int], many: int
    ) -> list[int]:
        """Add an operation, or carry it out where all that it takes is known."""
        if self._known.issuperset(ins):
            with np.errstate(all="ignore"):
                return [*map(self._constant, function(*[self._values[i] for i in ins]))]
        outs = [self._new() for _ in range(many)]
        self._steps.append((function, tuple(ins), tuple(outs)))
        self.size += size
        self.operations += operations
        return outs

    def _last_uses(self) -> list[list[int]]:
        """Return after which step which values are no longer needed."""
        kept = {*self._results, *self._known, *self._arguments}
        released = []
        for _, ins, outs in reversed(self._steps):
            done = {*ins, *outs} - kept
            kept |= done
            released.append(sorted(done))
        return released[::-1]


def _prepared(equation: Any, found: Any) -> tuple[Function, int, float]:
    """Return a function of the operands of an equation, its size, and how many operations it is."""
    match found:
        case Scan() if not any(are_keys(v.aval.dtype) for v in equation.outvars):
            return _scan(equation, found)
        case Branches(bodies):
            runs = [Interpreter(body) for body in bodies]
            size, most = sum(run.size for run in runs), max(run.operations for run in runs)
            return lambda which, *operands: runs[int(which)](*operands), size, most
        case While() if plain(found.condition).outvars[0].aval.shape == ():
            return _while(found)
    shapes = (getattr(v.aval, "shape", ()) for v in equation.outvars)
    return made(equation), 1, 1 + sum(map(math.prod, shapes)) // ENTRIES


def _scan(equation: Any, loop: Scan) -> tuple[Function, int, float]:
    body = Interpreter(loop.body)
    n, m = loop.same, loop.same + loop.carried
    stacked = [v.aval for v in equation.outvars[loop.carried :]]
    order = range(loop.length)[:: -1 if loop.reverse else 1]

    def run(*operands: Any) -> Results:
        same, carried, inputs = operands[:n], operands[n:m], operands[m:]
        outputs = [np.empty(aval.shape, aval.dtype) for aval in stacked]
        for t in order:
            results = body(*same, *carried, *[x[t] for x in inputs])
            carried = tuple(results[: loop.carried])
            for whole, part in zip(outputs, results[loop.carried :], strict=True):
                whole[t] = part
        return [*carried, *outputs]

    return run, body.size, loop.length * body.operations


def _while(loop: While) -> tuple[Function, int, float]:
    goes_on, body = Interpreter(loop.condition), Interpreter(loop.body)
    n, m = loop.of_condition, loop.of_condition + loop.of_body

    def run(*operands: Any) -> Results:
        of_condition, of_body, carried = operands[:n], operands[n:m], operands[m:]
        while bool(goes_on(*of_condition, *carried)[0]):
            carried = tuple(body(*of_body, *carried))
        return [*carried]

    return run, goes_on.size + body.size, LOOPS * (goes_on.operations + body.operations)
