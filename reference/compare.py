"""Any hand-written gradient against autodiff.

A candidate is a function ``candidate(params, x, h0, target)`` that returns a mapping or a
namedtuple with any of the gradients ``W U b V c x h0 h``, where ``h`` is the gradient in every
state, (T+1, H) or (T+1, B, H). ``manual_bptt`` is judged as one more candidate.

Each problem is looked at end to end and step by step (``reference.verdicts``). The second needs
``h``, and is sharpest where the candidate also returns its ``states``, (T+1, H) or (T+1, B, H).
Return ``h`` if the other gradients are computed from it; otherwise leave it out.

What is wrong is then explained: by the mistake that reproduces it (``reference.diagnosis``), by
where in time it goes wrong (``reference.localisation``), and by the smallest problem that shows it
(``reference.smallest``).
"""

import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from itertools import product
from typing import Any

import numpy as np

from reference.candidates import LAYOUTS, Caller, Candidate, Flaw
from reference.diagnosis import Evidence, explain, gather, repeats, telling_problems
from reference.findings import Counterexample, Diagnosis
from reference.gradients import GRADIENTS, Loss
from reference.localisation import on_lengths, on_steps
from reference.observations import observations
from reference.oracle import answers
from reference.problems import Problem, checked_sizes, draw_problems, random_problem
from reference.report import FAILURES, Report
from reference.smallest import smallest
from reference.user_code import importable
from reference.verdicts import judge

LONGEST_LINE = 4000  # characters of a line that makes a problem again


def compare(
    candidate: Candidate,
    *,
    loss: Loss = "squared_error",
    cases: int = 200,
    seed: int = 0,
    dtype: str = "float64",
    batched: bool = True,
    layout: str = "time_first",
    sizes: Mapping[str, int] | None = None,
    time_budget: float | None = 60.0,
    explained: bool = True,
    progress: Callable[[Iterator[Any]], Iterable[Any]] = iter,
) -> Report:
    """Judge a candidate on random problems.

    Parameters
    ----------
    candidate : callable
        ``candidate(params, x, h0, target)``; params has the fields W, U, b, V, c. It returns a
        mapping or a namedtuple with any of the gradients W, U, b, V, c, x, h0, h (or dW, dU, ...),
        and with its ``states`` if it likes; what it leaves out is reported as not returned. Axes of
        length one may be missing or added, and the report says so: V as (H,) for one output, b as
        (H, 1).
    loss : str or callable
        The loss that the candidate differentiates: ``"squared_error"`` (the sum over time, batch
        and outputs), ``"last_step_squared_error"``, or a JAX function ``(y, target)`` that returns
        a scalar, of arrays in the first layout.
    cases, seed : int
        How many problems, and which; those of a smaller number are among those of a larger one.
    dtype : str
        ``"float64"`` or ``"float32"``. Autodiff computes in float64 in both cases.
    batched : bool
        True: x is (T, B, D), h0 (B, H), and gradients of parameters are summed over the batch.
        False: one sequence, x (T, D) and h0 (H,).
    layout : str
        ``"time_first"``; ``"batch_first"``, x is (B, T, D), the target (B, T, O), h (B, T+1, H);
        or ``"columns"``, every vector is a column: b is (H, 1), c (O, 1), x (T, D, B), h0 (H, B),
        the target (T, O, B), h (T+1, H, B), with B = 1 for single sequences.
    sizes : mapping, optional
        Fixes any of T, B, D, H and O, for code that works for those sizes only: ``{"O": 1}``.
    time_budget : float or None
        Seconds that all calls of the candidate may take together. The report then covers what was
        judged by that time, and says so.
    explained : bool
        Whether to look for the reasons of a failure, which calls the candidate some 200 times more.
    progress : callable
        Wraps the iterator over the judged problems, as ``tqdm.tqdm`` does.

    Returns
    -------
    Report
        ``.passed``, ``.rows``, ``.notes``, ``.assumed``, ``.diagnosis``, ``.smallest``; ``str()``
        is readable, ``.to_json()`` is for machines.

    Raises
    ------
    TypeError
        If candidate is not callable.
    ValueError
        If any other argument is none of those above.

    Examples
    --------
    >>> def only_the_output_bias(params, x, h0, target):
    ...     h, y = h0, []
    ...     for x_t in x:
    ...         h = np.tanh(params.W @ h + params.U @ x_t + params.b)
    ...         y.append(params.V @ h + params.c)
    ...     return {"c": 2 * (np.array(y) - target).sum(axis=0)}
    >>> report = compare(only_the_output_bias, cases=20, batched=False)
    >>> report.passed, report.rows[4].gradient, report.rows[4].status, report.rows[0].status
    (True, 'c', 'match', 'not returned')
    """
    caller = Caller(candidate, layout, time_budget)
    for name, value, least in (("cases", cases, 1), ("seed", seed, 0)):
        if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least:
            raise ValueError(f"{name} is {value!r}; expected an integer of at least {least}")
    if not isinstance(batched, bool):
        raise ValueError(f"batched is {batched!r}; expected True or False")
    if dtype not in ("float32", "float64"):
        raise ValueError(f"dtype is {dtype!r}; expected 'float32' or 'float64'")
    fixed = checked_sizes(sizes, batched)
    draw: dict[str, Any] = {"loss": loss, "dtype": dtype, "batched": batched, "sizes": fixed}
    problems = draw_problems(cases, seed, **draw)
    report = Report.of(progress(judge(caller, problems)))
    if caller.out_of_time:
        report.notes.append(_partly(caller, report, cases))
    elif explained and not report.passed:
        report = _explained(report, caller, draw)
    return report


def assert_gradients_match(candidate: Candidate, **options: Any) -> None:
    """Raise AssertionError with the report's text unless the candidate passes ``compare``.

    Options are those of ``compare``. What the report notes without failing the candidate, such as
    writing to inputs, becomes a warning; how a result was read, ``.assumed``, does not.
    """
    report = compare(candidate, **options)
    if not report.passed:
        raise AssertionError(f"gradients do not match autodiff\n{report}")
    for note in report.notes:
        warnings.warn(note, stacklevel=2)


def diagnose(candidate: Candidate, **options: Any) -> Diagnosis:
    """Name the known mistakes that explain what is wrong with a candidate.

    Options are those of ``compare``. The result is false where nothing is wrong; ``str()`` says in
    words what was found, and ``.names`` are the names of the mistakes in
    ``reference.mistakes.MISTAKES``.

    Examples
    --------
    >>> from reference.mistakes import MISTAKES
    >>> found = diagnose(MISTAKES["dW transposed"].candidate(), cases=8, batched=False)
    >>> found.names, found.findings[0].gradients
    (['dW transposed'], ('W',))
    """
    return compare(candidate, **options).diagnosis or Diagnosis()


def _partly(caller: Caller, report: Report, cases: int) -> str:
    """Return a note on what the time was enough for."""
    row = report.rows[0]
    judged = row.cases + row.undecided + row.missing
    took = f"; the slowest took {caller.slowest:.3g} s" if caller.slowest else ""
    return (
        f"only {judged} of {cases} problems were judged: the candidate's calls used up the budget "
        f"of {caller.time_budget:g} s{took}"
    )


# Explanations ------------------------------------------------------------------------------------


def _explained(report: Report, caller: Caller, draw: Mapping[str, Any]) -> Report:
    """Return the report with a diagnosis and with the smallest problem that fails."""
    evidence: list[Evidence] = []
    if any(row.status == "mismatch" for row in report.rows):
        evidence = gather(caller, [*telling_problems(**draw), *report.witnesses()])
    for row in report.rows:  # what was right may be wrong in the problems that tell mistakes apart
        for verdict in (v for e in evidence for v in e.verdicts if v.gradient == row.gradient):
            if row.status == "match" and verdict.status in FAILURES:
                row.add(verdict)
    mismatched = [row.gradient for row in report.rows if row.status == "mismatch"]
    example = _counterexample(report, caller, draw)
    if repeats(caller, evidence):
        diagnosis = _diagnosis(report, mismatched, example, caller, evidence, draw)
    else:
        said = "called again with the same arguments, it returns something else"
        diagnosis = Diagnosis([], tuple(k for k in mismatched if k in GRADIENTS), [said])
    report = replace(report, diagnosis=diagnosis, smallest=example)
    if {row.status for row in report.rows} <= {"raised", "wrong shape", "not returned"}:
        report.notes.extend(_other_conventions(caller, draw))
    if caller.out_of_time:
        report.notes.append(
            f"the explanation is incomplete: the candidate's calls used up the budget of "
            f"{caller.time_budget:g} s"
        )
    return report


def _other_conventions(caller: Caller, draw: Mapping[str, Any]) -> list[str]:
    """Return a note on the convention that a candidate may have been written for, if one is."""
    shape: dict[str, Any] = {"T": 6, "B": 2, "D": 3, "H": 4, "O": 5, **draw["sizes"]}
    called = (draw["batched"], caller.layout)
    for batched, layout in product((draw["batched"], not draw["batched"]), LAYOUTS):
        if (batched, layout) == called or (layout == "batch_first" and not batched):
            continue
        other = Caller(caller.candidate, layout, caller.time_budget)
        options = {"dtype": draw["dtype"], "loss": draw["loss"]}
        sizes = shape if batched else shape | {"B": None}
        problem = random_problem(**sizes, regime="contracting", seed=0, **options)
        report = Report.of(judge(other, [problem]))
        if "match" in {row.status for row in report.rows}:
            option = "--single " * (not batched) + f"--layout {layout}" * (layout != LAYOUTS[0])
            return [
                f"was it written for other arrays? With batched={batched}, layout={layout!r} it "
                f"returns gradients that match (on the command line: {option.strip()})"
            ]
    return []


def _diagnosis(
    report: Report,
    wrong: list[str],
    example: Counterexample | None,
    caller: Caller,
    evidence: list[Evidence],
    draw: Mapping[str, Any],
) -> Diagnosis:
    """Return what explains the gradients that are wrong, and what can be said of the rest."""
    findings, _ = explain(evidence)
    named = {k for finding in findings for k in finding.gradients}
    left = tuple(k for k in GRADIENTS if k in wrong and k not in named)
    shortest = {row.gradient: row.shortest or 1 for row in report.rows if row.gradient in wrong}
    if example is not None:
        for k in shortest.keys() & example.values.keys():
            shortest[k] = min(shortest[k], example.problem.sizes["T"])
    places = _places(caller, evidence, shortest, left, draw)
    return Diagnosis(findings, left, observations(left, evidence), places)


def _places(
    caller: Caller,
    evidence: list[Evidence],
    shortest: Mapping[str, int],
    unexplained: Iterable[str],
    draw: Mapping[str, Any],
) -> list[str]:
    """Return lines on where in time gradients go wrong, from the longest problem that shows it."""
    shows = [e for e in evidence if any(ratio > 1 for ratio in e.ratio.values())]
    if not shows or callable(draw["loss"]):  # then each length would have to be compiled
        return []
    problem = max((e.problem for e in shows), key=lambda p: p.sizes["T"])
    lines = [] if "T" in draw["sizes"] else on_lengths(caller, problem, shortest)
    if draw["loss"] == "squared_error":
        lines += on_steps(caller, problem, unexplained)
    return lines


def _counterexample(
    report: Report, caller: Caller, draw: Mapping[str, Any]
) -> Counterexample | None:
    """Return the smallest problem in which the first gradient that fails does so again."""
    failed = [row for row in report.rows if row.status in FAILURES]
    if not failed or failed[0].failing is None:
        return None
    name, status, witness = failed[0].gradient, failed[0].status, failed[0].failing
    options = {k: draw[k] for k in ("batched", "sizes")}
    found = smallest(caller, [witness], name, status, **options)
    if found is None:
        if not caller.out_of_time:
            report.notes.append(
                f"{name} was wrong, and right when the candidate was called again with the same "
                "problem: does it remember earlier calls?"
            )
        return None
    values = _values(caller, found, [row.gradient for row in failed])
    line = found.origin if len(found.origin) <= LONGEST_LINE else witness.origin
    return Counterexample(found, values, _to_reproduce(caller, draw["loss"], line))


def _values(
    caller: Caller, problem: Problem, names: list[str]
) -> dict[str, tuple[np.ndarray, np.ndarray | str]]:
    """Return what is expected and what is returned for the gradients that fail in a problem."""
    (answer,) = answers([problem])
    returned = caller(problem)
    wrong = {
        v.gradient: v for vs, _ in judge(caller, [problem]) for v in vs if v.status in FAILURES
    }
    values: dict[str, tuple[np.ndarray, np.ndarray | str]] = {}
    for k in names:
        if returned is None or k not in wrong:
            continue
        found = returned.gradients
        value = found if isinstance(found, Flaw) else found[k]
        shown = value.detail if isinstance(value, Flaw) else value
        values[k] = (answer.truth[k][0].astype(problem.dtype), shown)
    return values


def _to_reproduce(caller: Caller, loss: Loss, origin: str) -> tuple[str, ...]:
    """Return three lines of Python that judge a candidate on one problem."""
    name, (*imports,) = caller.runner.importable
    layout = "" if caller.layout == "time_first" else f", layout={caller.layout!r}"
    if callable(loss):
        imports += importable(loss)[1]
    return (
        "; ".join(["import reference", *imports]),
        f"problem = {origin}",
        f"print(reference.Report.of(reference.judge({name}, [problem]{layout})))",
    )
