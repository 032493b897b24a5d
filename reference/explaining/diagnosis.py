"""Why is a gradient wrong? The registry of mistakes is tried on what a candidate returned.

A mistake explains a gradient g if, in every problem that decides,

    |returned - mistaken| <= max(tolerance, sqrt(eps) max |returned - right|)

entry by entry, where the tolerance is what rounding can explain (``reference.rounding.whole``) and
eps the spacing of the candidate's numbers at 1: it reproduces what was returned to half of the
digits by which that is wrong. And in one problem at least the error must be plain, 30 times the
tolerance.

Mistakes are taken one after another, each on top of those before it. One is taken only if it
reproduces more of what was returned than without it, and nothing less: so a gradient that is right
is never explained away, and two mistakes are two findings. In the end all that the mistakes spoil
must be reproduced; and where dh is wrong in a way that none explains, nothing that follows from it
is explained either. No explanation is better than a wrong one; what none explains is described
(``reference.explaining.observations``).
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from reference.findings import Finding
from reference.judging.candidates import Caller
from reference.judging.reading import returned
from reference.judging.verdicts import judge_whole
from reference.mistakes import MISTAKES, Derivation, Mistake, combined, outputs_of, results_of
from reference.network import CELLS
from reference.network.cell import Cell
from reference.network.gradients import GRADIENTS
from reference.oracle.answers import solved
from reference.problems import Problem, make_problem, random_problem
from reference.report import Verdict
from reference.rounding.tolerance import Measure, decides, over_tolerance

PLAIN = 30.0  # times the tolerance: an error that no second rounding explains
MOST = 3  # mistakes on top of one another
FROM_DH = ("W", "U", "b", "x", "h0")  # gradients that follow from those in the states
LABS = CELLS["tanh"]

# Problems in which no two mistakes of the registry look alike: sizes T, B, D, H, O and a regime.
TELLING = (
    (10, 3, 3, 4, 2, "contracting"),
    (9, 2, 3, 5, 2, "linear"),
    (12, 2, 4, 3, 3, "saturated"),
    (36, 3, 2, 4, 3, "expanding"),
)


class Evidence(NamedTuple):
    """What a candidate returned for one problem, where it can be compared, and what is right.

    ``ratio`` is the largest error over its tolerance, gradient by gradient; ``verdicts`` are those
    of the whole, if there are any.
    """

    problem: Problem
    returned: dict[str, np.ndarray]
    truth: dict[str, Measure]
    ratio: dict[str, float]
    verdicts: tuple[Verdict, ...] = ()

    @classmethod
    def of(
        cls,
        problem: Problem,
        arrays: Mapping[str, np.ndarray | None],
        truth: dict[str, Measure],
    ) -> "Evidence":
        """Return the evidence in what was returned for a problem, as far as rounding lets it."""
        returned = {
            k: array.astype(np.float64)
            for k, array in arrays.items()
            if array is not None and decides(*truth[k], problem.dtype, problem.rounding.u)
        }
        ratio = {
            k: float(over_tolerance(array - truth[k][0], truth[k][1]).max())
            for k, array in returned.items()
        }
        return cls(problem, returned, truth, ratio)


def telling_problems(
    *,
    batched: bool,
    sizes: Mapping[str, int],
    cell: Cell = LABS,
    few_shapes: bool = False,
    **options: Any,
) -> Iterator[Problem]:
    """Yield problems by which the mistakes of the registry can be told apart.

    The options are those of ``random_problem``.
    """
    for T, B, D, H, O, regime in TELLING[: 1 if few_shapes else None]:
        shape: dict[str, Any] = {"T": T, "B": B if batched else None, "D": D, "H": H, "O": O}
        shape |= sizes
        problem = random_problem(**shape, regime=regime, seed=4, cell=cell, **options)
        yield problem
        facts = problem.facts
        by_name = isinstance(problem.loss, str) and facts.separable and not facts.of_states
        nearly_fitted = cell is LABS and by_name and problem.dtype == np.float64
        if nearly_fitted and TELLING[0][0] == T:
            yield _nearly_fitted(problem)


def _nearly_fitted(problem: Problem) -> Problem:
    """Return the problem with targets so close to the outputs that every gradient is small."""
    y = outputs_of(problem)
    y = y if problem.facts.over_time else y[-1]
    given = {**problem.params._asdict(), "x": problem.x, "h0": problem.h0}
    return make_problem(**given, target=y + 1e-7 * problem.target, loss=problem.loss)


def gather(caller: Caller, problems: Iterable[Problem]) -> list[Evidence]:
    """Return what a candidate makes of the problems, if it has the time, short ones first."""
    found = []
    for chunk in solved(problems):
        for answer in chunk.answers:
            call = caller(answer.problem)
            if call is not None:
                arrays = {k: call.array(k) for k in returned(chunk.kind.cell)}
                evidence = Evidence.of(answer.problem, arrays, answer.truth)
                found.append(evidence._replace(verdicts=tuple(judge_whole(call, answer))))
    return sorted(found, key=lambda e: e.problem.x.size)


def repeats(caller: Caller, evidence: list[Evidence]) -> bool:
    """Return whether a candidate gives the same again, up to rounding, in a few problems."""
    for e in evidence[:3]:
        again = caller(e.problem)
        if again is None:  # its time is up
            return True
        for k, before in e.returned.items():
            array = again.array(k)
            if array is None or (np.abs(array - before) > e.truth[k][1]).any():
                return False
    return True


def explain(evidence: list[Evidence]) -> tuple[list[Finding], tuple[str, ...]]:
    """Return the mistakes that explain what is wrong in the evidence, and what none explains.

    The mistakes are those of the lab's network; of another cell's, none is known by name.
    """
    if any(e.problem.cell is not LABS for e in evidence):
        return [], ()
    wrong = {k for k in returned(LABS) if any(e.ratio.get(k, 0) > 1 for e in evidence)}
    doubted: set[str] = set()
    while True:
        findings, explained = _search(evidence, wrong, doubted)
        # A mistake that spoils more than it explains, even with those on top of it, is not the one.
        bad = {f.mistakes[0].name for f in findings if {*f.mistakes[0].affects} & wrong - explained}
        if not bad:
            break
        doubted |= bad
    left = wrong - explained
    if _recursion_is_doubtful(left, evidence):
        findings = [f for f in findings if not {*f.gradients} & {*FROM_DH}]
    if not left:  # then the simplest is enough; else another mistake may be on top of any of them
        findings = [f._replace(mistakes=_whole(f, wrong)) for f in findings]
    named = {k for f in findings for k in f.gradients}
    return findings, tuple(k for k in GRADIENTS if k in wrong - named)


def _whole(finding: Finding, wrong: set[str]) -> tuple[Mistake, ...]:
    """Return the mistakes of a finding that spoil no more of what is wrong than the first."""
    first = {*finding.mistakes[0].affects}
    return tuple(m for m in finding.mistakes if {*m.affects} & wrong <= first)


def _recursion_is_doubtful(left: set[str], evidence: list[Evidence]) -> bool:
    """Return whether dh seems wrong in an unknown way: what follows from it tells little."""
    returned = {k for e in evidence for k in e.returned}
    return "h" in left or ("h" not in returned and len(left & {*FROM_DH}) > 1)


def _search(
    evidence: list[Evidence], wrong: set[str], doubted: set[str]
) -> tuple[list[Finding], set[str]]:
    """Return mistakes, each on top of those before, and all that they reproduce together."""
    plain = {k for k in wrong if any(e.ratio.get(k, 0) > PLAIN for e in evidence)}
    taken: list[Mistake] = []
    explained = _reproduced(taken, evidence)
    findings: list[Finding] = []
    while len(findings) < MOST and (wrong - explained) & plain:
        best, gained = _next(taken, explained, plain, evidence, doubted)
        if not best:
            break
        # Those that explain all that they spoil come first.
        best.sort(key=lambda m: bool({*m.affects} & wrong - explained - gained))
        gradients = tuple(k for k in GRADIENTS if k in gained & wrong)
        findings.append(Finding(gradients, tuple(best)))
        taken.append(best[0])
        explained |= gained
    return findings, explained


def _next(
    taken: list[Mistake],
    explained: set[str],
    plain: set[str],
    evidence: list[Evidence],
    doubted: set[str],
) -> tuple[list[Mistake], set[str]]:
    """Return the mistakes that explain the most of what is left, all alike, and what they do."""
    best: list[Mistake] = []
    most: set[str] = set()
    for mistake in MISTAKES.values():
        if mistake.piece in {m.piece for m in taken} or mistake.name in doubted:
            continue
        gained = _reproduced([*taken, mistake], evidence, explained) - explained
        if not gained & plain & {*GRADIENTS} or len(gained) < len(most):
            continue
        if len(gained) > len(most):
            best, most = [], gained
        if gained == most:
            best.append(mistake)
    return best, most


def _reproduced(
    mistakes: list[Mistake], evidence: list[Evidence], needed: Iterable[str] = ()
) -> set[str]:
    """Return what these mistakes together reproduce; nothing, if not all that is needed."""
    derivation = combined(mistakes)
    returned = {k for e in evidence for k in e.returned}
    reproduced, needed = set(returned), set(needed)
    for e in evidence:
        results = _results(derivation, e.problem)
        if results is None:
            return set()
        reproduced = {k for k in reproduced if _agrees(k, results[k], e)}
        if not needed < reproduced:
            return set()
    return reproduced


def _results(derivation: type[Derivation], problem: Problem) -> dict[str, np.ndarray] | None:
    """Return what a derivation makes of a problem, if it can be run on it."""
    try:
        return results_of(derivation, problem)
    except ValueError:  # a mistake that broadcasts or reshapes what does not fit, or another loss
        return None


def _agrees(name: str, mistaken: np.ndarray, e: Evidence) -> bool:
    """Return whether a mistaken gradient is what was returned, as far as this problem tells."""
    if name not in e.returned:
        return True
    returned, (truth, tolerance) = e.returned[name], e.truth[name]
    error = np.abs(returned - truth).max()
    allowed = np.maximum(tolerance, np.sqrt(np.finfo(e.problem.dtype).eps) * error)
    return bool((np.abs(returned - mistaken) <= allowed).all())
