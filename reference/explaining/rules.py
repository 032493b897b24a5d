"""Which rule of the reverse pass is broken in a candidate: for any cell and any loss.

A problem is a loss of the parameters, the inputs, the initial state and a probe at every state, so
the search for a broken rule (``reference.breaks``) takes it as it takes any function of JAX.
"""

from dataclasses import replace
from typing import Any

import numpy as np

from reference.breaks.diagnosis import LeafDiagnosis, search_for
from reference.explaining.diagnosis import Evidence
from reference.judging.candidates import Caller
from reference.network.sequence import Probes, run
from reference.oracle.answers import solved
from reference.problems import Problem

STEPS, MOST_STEPS = (3, 12), 64  # of a problem in which loops show, and a search is quick


def broken_rules(caller: Caller, evidence: list[Evidence]) -> LeafDiagnosis | None:
    """Return the broken rules that explain everything that is wrong; None if none do."""
    telling = [e for e in evidence if max(e.ratio.values(), default=0) > 1]
    telling = [e for e in telling if not any(e.problem.rounding)]
    short = [e for e in telling if STEPS[0] <= e.problem.sizes["T"] <= STEPS[1]]
    if not short:  # it shows in long sequences alone: take the shortest
        long = [e for e in telling if STEPS[1] < e.problem.sizes["T"] <= MOST_STEPS]
        short = sorted(long, key=lambda e: e.problem.sizes["T"])[:1]
    if not short:
        return None
    of = max(short, key=lambda e: (sum(ratio > 1 for ratio in e.ratio.values()), e.problem.x.size))
    problem = of.problem
    every = (*problem.cell.fields, "x", "h0", "h")
    names = [k for k in every if k in of.returned]
    order = [*names, *(k for k in every if k not in names)]
    probes = np.zeros((len(problem.x) + 1, *problem.start.shape))
    arrays = {**problem.params._asdict(), "x": problem.x, "h0": problem.start, "h": probes}

    def loss(values: list[Any]) -> Any:
        return _loss(problem, dict(zip(order, values, strict=True)))

    def gradient(values: list[np.ndarray]) -> list[np.ndarray] | None:
        call = caller(_with(problem, dict(zip(order, values, strict=True))))
        found = [None if call is None else call.array(k) for k in names]
        if any(array is None for array in found):
            return None
        return [np.asarray(array, np.float64) for array in found]

    def measure(values: list[np.ndarray]) -> list[tuple[np.ndarray, np.ndarray]]:
        (chunk,) = solved([_with(problem, dict(zip(order, values, strict=True)))])
        return [chunk.answers[0].truth[k] for k in names]

    found = search_for(
        loss,
        [np.asarray(arrays[k], np.float64) for k in order],
        gradient,
        measure,
        u=float(np.finfo(problem.dtype).eps) / 2,
        dtype=problem.dtype,
        wrong=tuple(k for k in names if of.ratio.get(k, 0) > 1),
        labels=order,
    )
    return found if found and found.explanations else None


def _loss(problem: Problem, arrays: dict[str, Any]) -> Any:
    """Return the loss of a problem with these arrays; ``h`` is a probe at every state."""
    params = {k: arrays[k] for k in problem.cell.fields}
    x, outputs = arrays["x"], (*problem.x.shape[:-1], len(params["c"]))
    probes = Probes(arrays["h"], np.zeros(outputs))
    h, y = run(problem.cell, params, x, arrays["h0"], probes)
    goal = np.asarray(problem.goal, np.float64)
    return problem.facts.function(h if problem.facts.of_states else y, goal)


def _with(problem: Problem, arrays: dict[str, np.ndarray]) -> Problem:
    """Return the problem with other numbers."""
    arrays = {k: np.asarray(array, problem.dtype) for k, array in arrays.items()}
    params = problem.params._replace(**{k: arrays[k] for k in problem.cell.fields})
    h0 = problem.cell.unpacked(arrays["h0"], problem.sizes)
    return replace(problem, params=params, x=arrays["x"], h0=h0)
