"""Tape: the operations of a loss at its arguments, in order, each with its value, line and step.

Loops are unrolled: JAX traces the loss with its compiler switched off, and what remains of branches
and loops is followed here. An operation that comes once in a loop's body is one operation at many
steps: it has the same key, the calls that led to it, and is numbered by how often it came before.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from reference import jaxprs
from reference.devices import float64_on_cpu

MOST = 40_000  # operations of a loss, beyond which a search would take too long

Loss = Callable[[list[Any]], Any]


class UnsearchableError(Exception):
    """Why the operations of a loss cannot be searched."""


class Node(NamedTuple):
    """An operation at one step: numbers of the values that it takes and makes.

    ``calls`` are the calls that it is in and that JAX keeps as such, the outermost first.
    """

    name: str
    equation: Any
    ins: tuple[int, ...]
    outs: tuple[int, ...]
    key: Any
    step: int
    calls: tuple[Any, ...]

    @property
    def source(self) -> jaxprs.Source | None:
        """Where it is in the user's code, or where the innermost call is that is there."""
        places = map(jaxprs.source, (self.equation, *reversed(self.calls)))
        return next((place for place in places if place is not None), None)

    @property
    def out(self) -> int:
        """The value that it makes."""
        return self.outs[0]


class Program(NamedTuple):
    """The operations of a loss, its loops unrolled, without values.

    ``number`` is in how many of its arguments it is differentiated: the first ones. ``compiled``
    has the Jacobians of operations that only JAX can differentiate.
    """

    jaxpr: Any
    number: int
    compiled: dict[Any, Any]

    @classmethod
    def of(cls, loss: Loss, values: list[np.ndarray], number: int) -> "Program":
        """Trace a loss, a function of a list of arrays like these."""
        with float64_on_cpu():
            return cls(jaxprs.unrolled(loss, values), number, {})


class Tape:
    """What a loss does at some values.

    ``values`` are all numbers on the way, ``arguments`` and ``result`` where those of the loss are
    among them. ``instead`` has values that stand for operands: by the operation's number in order,
    and the operand's. ``steps`` is how often the loop comes round that has the most operations,
    ``reach`` on which arguments a value depends: a bit for each.
    """

    def __init__(
        self,
        program: Program,
        values: list[np.ndarray],
        instead: Mapping[tuple[int, int], np.ndarray] | None = None,
    ) -> None:
        self.program = program
        self._instead = instead or {}
        self._calls: tuple[Any, ...] = ()
        self.values: list[Any] = []
        self.derivatives: dict[tuple[int, int], np.ndarray] = {}  # of operations without a rule
        self.nodes: list[Node] = []
        self.arguments = [self._new(value) for value in values]
        with float64_on_cpu(), np.errstate(all="ignore"):
            (self.result,) = self._follow(program.jaxpr, self.arguments)
        self.steps = self._number_steps()
        self.places: dict[Any, list[Node]] = defaultdict(list)
        self.uses: dict[int, list[tuple[Node, int]]] = defaultdict(list)
        self.made: dict[int, Node] = {}
        self.at: dict[tuple[Any, int], Node] = {}
        self.reach: dict[int, int] = {
            a: 1 << i for i, a in enumerate(self.arguments[: program.number])
        }
        for node in self.nodes:
            self.places[node.key].append(node)
            self.at[node.key, node.step] = node
            reached = 0
            for k, i in enumerate(node.ins):
                reached |= self.reach.get(i, 0)
                self.uses[i].append((node, k))
            for out in node.outs:
                self.made[out] = node
                if reached and np.issubdtype(self.values[out].dtype, np.complexfloating):
                    raise UnsearchableError(
                        f"it has complex numbers ({jaxprs.line(node.equation)})"
                    )
                if reached and np.issubdtype(self.values[out].dtype, np.floating):
                    self.reach[out] = reached
        self.carried, self.initial = self._find_carried()

    @cached_property
    def order(self) -> dict[Any, int]:
        """Where each operation comes first, by its key."""
        return {key: number for number, key in enumerate(self.places)}

    @cached_property
    def taken(self) -> dict[Any, list[int]]:
        """Which operands take what the step before has handed on, by the operation's key."""
        found: dict[Any, list[int]] = defaultdict(list)
        for uses in self.carried.values():
            for key, k in uses:
                found[key].append(k)
        return found

    @cached_property
    def calls(self) -> dict[Any, list[Any]]:
        """The keys of one operation in a function that is called at several places, by any."""
        alike: dict[Any, list[Any]] = defaultdict(list)
        for key, nodes in self.places.items():
            shape = self.values[nodes[0].out].shape
            alike[nodes[0].source, nodes[0].name, shape, len(nodes)].append(key)
        return {key: keys for keys in alike.values() if len(keys) > 1 for key in keys}

    def _new(self, value: Any) -> int:
        self.values.append(value)
        return len(self.values) - 1

    def _follow(self, jaxpr: Any, arguments: Sequence[int]) -> list[int]:
        """Carry out a jaxpr on values that are there; return the numbers of its results."""

        def rule(equation: Any, operands: list[Any]) -> list[int]:
            ins = [v if isinstance(v, int) else self._new(np.asarray(v)) for v in operands]
            return self._carry_out(equation, ins)

        results = jaxprs.evaluate(jaxpr, arguments, rule)
        return [v if isinstance(v, int) else self._new(np.asarray(v)) for v in results]

    def _carry_out(self, equation: Any, ins: list[int]) -> list[int]:
        match jaxprs.inside(equation):
            case jaxprs.Call(body):
                self._calls = (*self._calls, equation)
                results = self._follow(body, ins)
                self._calls = self._calls[:-1]
                return results
            case jaxprs.Branches(bodies):
                return self._follow(bodies[int(self.values[ins[0]])], ins[1:])
            case jaxprs.While() as loop:
                return self._while(loop, ins)
            case None:
                return self._operation(equation, ins)
            case _:
                raise UnsearchableError(f"a loop at {jaxprs.line(equation)} is not unrolled")

    def _while(self, loop: Any, ins: list[int]) -> list[int]:
        of_condition, rest = ins[: loop.of_condition], ins[loop.of_condition :]
        of_body, carried = rest[: loop.of_body], rest[loop.of_body :]
        while bool(self.values[self._follow(loop.condition, [*of_condition, *carried])[0]]):
            carried = self._follow(loop.body, [*of_body, *carried])
        return carried

    def _operation(self, equation: Any, ins: list[int]) -> list[int]:
        if len(self.nodes) >= MOST:
            raise UnsearchableError(f"the loss has more than {MOST} operations, loops unrolled")
        for k in range(len(ins)):
            if (value := self._instead.get((len(self.nodes), k))) is not None:
                ins[k] = self._new(value)
        results = jaxprs.made(equation)(*(self.values[i] for i in ins))
        outs = tuple(map(self._new, map(jaxprs.as_numpy, results)))
        key = tuple(map(jaxprs.origin, (*self._calls, equation)))
        self.nodes.append(
            Node(jaxprs.name(equation), equation, tuple(ins), outs, key, 0, self._calls)
        )
        return list(outs)

    def _number_steps(self) -> int:
        """Number the steps of each operation; return how many the largest loop has.

        What comes several times that many stands several times in the body: a function that is
        called in an inner loop.
        """
        self._join_first_steps()
        counts = Counter(node.key for node in self.nodes)
        several = Counter(count for count in counts.values() if count > 1)
        steps = max(several, key=lambda count: (several[count], count), default=1)
        seen: Counter[Any] = Counter()
        for i, node in enumerate(self.nodes):
            number, total = seen[node.key], counts[node.key]
            seen[node.key] += 1
            each = total // steps if total % steps == 0 else 1
            self.nodes[i] = node._replace(key=(node.key, number % each), step=number // each)
        return steps

    def _join_first_steps(self) -> None:
        """Give the first step of a loop the keys of the others, though shapes may differ there.

        They do where a loop begins with one row for all sequences.
        """
        counts = Counter(node.key for node in self.nodes)
        alike: dict[Any, list[Any]] = defaultdict(list)
        for key in counts:  # in the order in which they come first
            alike[tuple(jaxprs.without_shape(part) for part in key)].append(key)
        steps = {n for n in counts.values() if n > 1}
        joined = {
            keys[0]: keys[1]
            for keys in alike.values()
            if len(keys) == 2 and counts[keys[0]] == 1 and counts[keys[1]] in steps
        }
        self.nodes = [node._replace(key=joined.get(node.key, node.key)) for node in self.nodes]

    def _find_carried(self) -> tuple[dict[Any, list[tuple[Any, int]]], dict[Any, int]]:
        """Find what a step hands to the next: the operands that take it, and what it begins with.

        By the key of the operation that makes it.
        """
        carried: dict[Any, list[tuple[Any, int]]] = defaultdict(list)
        initial = {}
        for key, nodes in self.places.items():
            for k, i in enumerate(nodes[1].ins if len(nodes) > 1 else ()):
                made = self.made.get(i)
                if made is not None and made.step == 0 and len(self.places[made.key]) > 1:
                    carried[made.key].append((key, k))
                    initial[made.key] = nodes[0].ins[k]
        return carried, initial
