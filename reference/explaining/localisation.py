"""Where in time does a gradient go wrong?

Two questions, of one network and one sequence. From which length on is the gradient wrong, if the
sequence is cut after T steps? And from which outputs must an error come, if the targets are such
that only one step has any (dy is zero at all the others)? The gradient is linear in dy, so what
goes wrong for single steps makes up all that goes wrong.
"""

from collections.abc import Iterable, Mapping
from dataclasses import replace

from reference.explaining.observations import grouped
from reference.judging.candidates import Caller
from reference.judging.verdicts import judge
from reference.network.sequence import forward
from reference.problems import Problem

LONGEST = 40  # steps: more would need a shape of the oracle's that has to be compiled


def on_lengths(caller: Caller, problem: Problem, shortest: Mapping[str, int]) -> list[str]:
    """Return lines on the lengths at which gradients are wrong, if it is for all that are longer.

    shortest has, for each gradient, the least T of any problem in which it is known to be wrong: if
    that is less than the length from which on it is wrong here, the length is not the reason.
    """
    longest = min(problem.sizes["T"], LONGEST)
    wrong = _wrong_at(caller, {T: prefix(problem, T) for T in range(1, longest + 1)}, shortest)
    return grouped({k: _on_lengths(wrong[k], least, longest) for k, least in shortest.items()})


def on_steps(caller: Caller, problem: Problem, names: Iterable[str]) -> list[str]:
    """Return lines on the steps whose error makes gradients wrong, if not that of every step."""
    names, T = list(names), min(problem.sizes["T"], LONGEST)
    wrong = _wrong_at(caller, single_errors(prefix(problem, T)), names)
    return grouped({k: _on_steps(wrong[k], T) for k in names})


def prefix(problem: Problem, T: int) -> Problem:
    """Return the first T steps of a problem."""
    target = problem.target[:T] if problem.facts.over_time else problem.target
    origin = f"the first {T} steps of {problem.origin}"
    return replace(problem, x=problem.x[:T], target=target, origin=origin)


def single_errors(problem: Problem) -> dict[int, Problem]:
    """Return, step by step, the problem with the targets of all others equal to the outputs."""
    _, y = forward(problem.params, problem.x, problem.h0, cell=problem.cell)
    found = {}
    for t in range(1, len(y) + 1):
        target = y.copy()
        target[t - 1] = problem.target[t - 1]
        origin = f"an error in y[{t}] alone in {problem.origin}"
        found[t] = replace(problem, target=target, origin=origin)
    return found


def _wrong_at(
    caller: Caller, problems: dict[int, Problem], names: Iterable[str]
) -> dict[str, set[int]]:
    """Return the keys of the problems in which each gradient is wrong."""
    keys = {id(p): key for key, p in problems.items()}
    wrong: dict[str, set[int]] = {k: set() for k in names}
    for verdicts, _ in judge(caller, problems.values()):
        for v in verdicts:
            if v.gradient in wrong and v.status == "mismatch":
                wrong[v.gradient].add(keys[id(v.problem)])
    return wrong


def _on_lengths(wrong: set[int], least: int, longest: int) -> str:
    """Return how the length decides whether a gradient is wrong."""
    first = min(wrong, default=1)
    if first == 1 or least < first or wrong != set(range(first, longest + 1)):
        return ""
    right = "sequences of one step are right" if first == 2 else f"right up to T = {first - 1}"
    return f"{right}, wrong from T = {first} on"


def _on_steps(wrong: set[int], T: int) -> str:
    """Return from which steps an error must come for a gradient to be wrong."""
    words = ranges(wrong)
    if not 0 < len(wrong) < T or "," in words:  # no range of steps: it depends on other things
        return ""
    return f"of {T} steps, wrong where the error is in y[t] alone for t = {words}"


def ranges(numbers: Iterable[int]) -> str:
    """Return integers in words: 1, 3-5, 7."""
    parts: list[list[int]] = []
    for n in sorted(numbers):
        if parts and n == parts[-1][-1] + 1:
            parts[-1].append(n)
        else:
            parts.append([n])
    return ", ".join(str(p[0]) if len(p) == 1 else f"{p[0]}-{p[-1]}" for p in parts)
