"""Judging what a candidate returned, problem by problem, in two ways.

End to end, a returned gradient is compared with ``jax.grad`` of the whole loss
(``reference.rounding.whole``). Step by step, each ``dh[t]`` is compared with what ``jax.vjp`` of
one step makes of the candidate's own ``dh[t+1]``, and each remaining gradient with what it makes of
the candidate's ``h`` (``reference.rounding.steps``); this needs ``h``, and is sharpest where the
candidate also returns its ``states``. A gradient matches where at least one check decides, and none
objects.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

import numpy as np

from reference.judging.candidates import Caller, Candidate, Returned, Returns
from reference.judging.reading import Flaw, returned
from reference.oracle.answers import Answer, Solved, check_steps, solved
from reference.problems import Problem
from reference.report import Verdict
from reference.rounding.tolerance import Measure, decides, over_tolerance

# The local check of a gradient says nothing where what it builds on is wrong itself: all of them
# build on the states, and but for these on the gradients in the states.
FROM_STATES = frozenset(("h", "V", "c"))


def judge(
    candidate: Candidate | Caller,
    problems: Iterable[Problem],
    *,
    layout: str = "time_first",
    returns: Returns = (),
) -> Iterator[tuple[list[Verdict], dict[str, str]]]:
    """Yield, problem by problem, the verdict on each gradient and notes on the candidate.

    The candidate is a function, which gets its arguments in the layout of this name, and of whose
    results ``returns`` has the names if they are a tuple (see ``reference.compare``), or a
    ``Caller``. Of the problems, those for which its time budget leaves
    no time are left out.

    Examples
    --------
    >>> from reference import Report, make_problem
    >>> problem = make_problem(
    ...     W=[[1]], U=[[1]], b=[0], V=[[1]], c=[0], x=[[2]], h0=[0], target=[[0.5]]
    ... )
    >>> Report.of(judge(lambda params, x, h0, target: {"c": [1]}, [problem])).passed
    False
    """
    caller = (
        candidate if isinstance(candidate, Caller) else Caller(candidate, layout, returns=returns)
    )
    for chunk in solved(problems):
        yield from judge_solved(caller, chunk)
        if caller.out_of_time:
            return


def judge_each(
    candidates: Mapping[str, Candidate | Caller], problems: Iterable[Problem]
) -> Iterator[tuple[str, tuple[list[Verdict], dict[str, str]]]]:
    """Yield the name of a candidate and what ``judge`` yields, for each of several candidates.

    The right answers, which take longer than the candidates, are computed once for all of them.

    Examples
    --------
    >>> from reference import draw_problems, gradients
    >>> def autodiff(params, x, h0, target):
    ...     return gradients(params, x, target, h0=h0)
    >>> def without_b(params, x, h0, target):
    ...     return {**autodiff(params, x, h0, target), "b": 0 * params["b"]}
    >>> problems = draw_problems(1, seed=0, dtype="float64", batched=True)
    >>> candidates = {"autodiff": autodiff, "without b": without_b}
    >>> for name, (verdicts, _) in judge_each(candidates, problems):
    ...     print(name, all(verdict.status == "match" for verdict in verdicts))
    autodiff True
    without b False
    """
    for chunk in solved(problems):
        for name, candidate in candidates.items():
            for result in judge_solved(candidate, chunk):
                yield name, result


class Call(NamedTuple):
    """One call of a candidate: what is right, what came back, and the verdicts on that."""

    answer: Answer
    returned: Returned
    verdicts: list[Verdict]


def judge_solved(
    candidate: Candidate | Caller, chunk: Solved
) -> Iterator[tuple[list[Verdict], dict[str, str]]]:
    """Judge a candidate on problems that are solved, as often as there are candidates."""
    caller = candidate if isinstance(candidate, Caller) else Caller(candidate)
    return ((call.verdicts, call.returned.notes) for call in judged_calls(caller, chunk))


def judged_calls(caller: Caller, chunk: Solved) -> Iterator[Call]:
    """Yield the calls for which there was time, in the order of the problems."""
    calls = [caller(answer.problem) for answer in chunk.answers]
    own = [(None, None) if call is None else _own_recursion(call) for call in calls]
    looked_at = any(array is not None for pair in own for array in pair)
    all_steps = check_steps(chunk, own) if looked_at else [{}] * len(calls)
    for answer, call, steps in zip(chunk.answers, calls, all_steps, strict=True):
        if call is not None:
            yield Call(answer, call, _verdicts(call, answer, steps))


def judge_whole(returned: Returned, answer: Answer) -> list[Verdict]:
    """Judge what was returned for a problem end to end alone."""
    return _verdicts(returned, answer, {})


def _own_recursion(returned: Returned) -> tuple[np.ndarray | None, np.ndarray | None]:
    """Return the states and the gradients in them, each if it can be looked at."""
    own = (returned.array(k) for k in ("states", "h"))
    states, dh = (None if array is None else array.astype(np.float64) for array in own)
    return states, dh


def _verdicts(call: Returned, answer: Answer, steps: dict[str, Measure]) -> list[Verdict]:
    """Judge what a candidate returned for one problem."""
    found, problem = call.gradients, answer.problem
    if isinstance(found, Flaw):
        return [
            Verdict(k, found.status, problem, detail=found.detail) for k in problem.cell.gradients
        ]
    names = [k for k in ("states", "h", *problem.cell.gradients) if k != "states" or k in found]
    verdicts: dict[str, Verdict] = {}
    for k in dict.fromkeys(names):  # the premises come first
        sound = all(verdicts[p].status == "match" for p in _premises(k) if p in verdicts)
        verdicts[k] = _verdict(k, found.get(k), answer, steps.get(k) if sound else None)
    return [verdicts[k] for k in returned(problem.cell) if k in verdicts]


def _premises(name: str) -> tuple[str, ...]:
    """Return what the local check of a gradient builds on."""
    if name == "states":
        return ()
    return ("states",) if name in FROM_STATES else ("states", "h")


def _verdict(
    name: str, value: np.ndarray | Flaw | None, answer: Answer, step: Measure | None
) -> Verdict:
    """Judge one gradient of one problem, end to end and, if step says how, step by step."""
    problem, (truth, tolerance) = answer.problem, answer.truth[name]
    if value is None:
        return Verdict(name, "not returned", problem)
    if isinstance(value, Flaw):
        return Verdict(name, value.status, problem, detail=value.detail)
    scale, info = float(np.abs(truth).max()), np.finfo(problem.dtype)
    finite, may_overflow = np.isfinite(value).all(), not np.isfinite(tolerance).all()
    if not scale < float(info.max) * 1e-6 or (may_overflow and not finite):
        return Verdict(name, "nothing proved", problem)  # the candidate need not be finite
    if not finite:
        bad = value[~np.isfinite(value)][0]
        return Verdict(name, "non-finite", problem, detail=f"{bad} where autodiff is finite")
    return _measured(name, value.astype(np.float64), answer, step)


def _measured(name: str, value: np.ndarray, answer: Answer, step: Measure | None) -> Verdict:
    """Judge one gradient by its errors, entry by entry, in each check that decides."""
    problem, (truth, _) = answer.problem, answer.truth[name]
    measures = {"local": step, "end": answer.truth[name]}
    by = {k: m for k, m in measures.items() if m is not None and _decides(m, problem)}
    ratios = {k: over_tolerance(value - expected, bound) for k, (expected, bound) in by.items()}
    if not by:
        return Verdict(name, "nothing proved", problem)
    largest, scale = float(np.abs(value - truth).max()), float(np.abs(truth).max())
    relative = largest / scale if scale > 0 else float(largest > 0)
    largest_of = {k: float(found.max()) for k, found in ratios.items()}
    wrong = [found for found in ratios.values() if found.max() > 1]
    return Verdict(
        name,
        "mismatch" if wrong else "match",
        problem,
        ratio=largest_of.get("end"),
        local=largest_of.get("local"),
        shows=min(float(bound.max()) for _, bound in by.values()) / scale if scale > 0 else None,
        max_abs_error=largest,
        max_rel_error=relative,
        step=_first_wrong_step(name, wrong[0]) if wrong else None,
    )


def _decides(measure: Measure, problem: Problem) -> bool:
    """Return whether tolerances are small enough to tell a gradient from a wrong one."""
    return decides(*measure, problem.dtype, problem.rounding.u)


def _first_wrong_step(name: str, ratios: np.ndarray) -> int | None:
    """Return the first wrong step that is met: going forward for states, backward for h and x."""
    if name not in ("h", "x", "states"):
        return None
    wrong = np.flatnonzero((ratios > 1).reshape(len(ratios), -1).any(axis=1))
    return int(wrong[0 if name == "states" else -1]) + (name == "x")
