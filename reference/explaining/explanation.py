"""Why a candidate fails: known mistakes, where in time it goes wrong, the smallest problem."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import product
from typing import Any

import numpy as np

from reference.explaining.advice import advice
from reference.explaining.diagnosis import Evidence, explain, gather, repeats, telling_problems
from reference.explaining.localisation import on_lengths, on_steps
from reference.explaining.observations import observations
from reference.explaining.rules import broken_rules
from reference.explaining.smallest import smallest
from reference.findings import Counterexample, Diagnosis
from reference.judging.candidates import Caller
from reference.judging.layouts import BATCH_FIRST, LAYOUTS
from reference.judging.memory import Draw, shortest_history
from reference.judging.processes import NoVerdictError
from reference.judging.reading import Flaw
from reference.judging.verdicts import judge, judged_calls
from reference.network import in_code
from reference.network.losses import AnyLoss, named_loss
from reference.oracle.answers import solved
from reference.problems import Problem, random_problem
from reference.report import FAILURES, Report
from reference.user_code import importable

LONGEST_LINE = 4000  # characters of a line that makes a problem again


def with_reasons(report: Report, caller: Caller, draw: Draw, *, remembers: bool) -> Report:
    """Return the report with a diagnosis and with the smallest problem that fails.

    It is another diagnosis where the candidate remembers earlier calls.
    """
    try:
        report = (_by_history if remembers else _by_mistakes)(report, caller, draw)
    except NoVerdictError as error:
        report.notes.append(f"the explanation is incomplete: {error}")
    if caller.out_of_time:
        report.notes.append(
            f"the explanation is incomplete: the candidate's calls used up the budget of "
            f"{caller.time_budget:g} s"
        )
    return report


def _by_mistakes(report: Report, caller: Caller, draw: Draw) -> Report:
    """Return the report with the mistakes that explain what is wrong."""
    evidence: list[Evidence] = []
    if any(row.status == "mismatch" for row in report.rows):
        evidence = gather(caller, [*telling_problems(**draw), *report.witnesses()])
    for row in report.rows:  # what was right may be wrong in the problems that tell mistakes apart
        for verdict in (v for e in evidence for v in e.verdicts if v.gradient == row.gradient):
            if row.status == "match" and verdict.status in FAILURES:
                row.add(verdict)
    mismatched = [row.gradient for row in report.rows if row.status == "mismatch"]
    if not repeats(caller, evidence):
        return _by_history(report, caller, draw)
    example = _counterexample(report, caller, draw)
    if example is not None and _is_forgotten(example, caller):
        return _by_history(report, caller, draw)
    diagnosis = _diagnosis(report, mismatched, example, caller, evidence, draw)
    report = replace(report, diagnosis=diagnosis, smallest=example)
    if {row.status for row in report.rows} <= {"raised", "wrong shape", "not returned"}:
        others = _other_conventions(caller, draw)
        report.notes.extend(others)
        report.advice.extend([] if others else advice(caller, draw))
    return report


def _is_forgotten(example: Counterexample, caller: Caller) -> bool:
    """Return whether what fails is right in a candidate that was just started."""
    if caller.out_of_time or not caller.runner.restart():
        return False
    verdicts = (v for vs, _ in judge(caller, [example.problem]) for v in vs)
    return not any(v.gradient in example.values and v.status in FAILURES for v in verdicts)


def _by_history(report: Report, caller: Caller, draw: Draw) -> Report:
    """Return the report with the two calls that show best that a candidate remembers others."""
    failed = [row for row in report.rows if row.status in FAILURES]
    wrong = tuple(row.gradient for row in failed if row.gradient in draw["cell"].gradients)
    said = "called again with the same arguments, it returns something else"
    example = None
    if failed and failed[0].failing is not None:
        name, failing = failed[0].gradient, failed[0].failing
        history = shortest_history(caller, name, failing, draw)
        if history is not None:
            said = f"it depends on earlier calls: {history.in_words()}"
            caller.runner.restart()
            values = _values(caller, history, [row.gradient for row in failed])
            lines = _to_reproduce(caller, draw["loss"], *history)
            example = Counterexample(history.second, values, lines)
    diagnosis = Diagnosis([], wrong, [said])
    return replace(report, diagnosis=diagnosis, smallest=example)


def _other_conventions(caller: Caller, draw: Draw) -> list[str]:
    """Return a note on the convention that a candidate may have been written for, if one is."""
    if caller.out_of_time:
        return []
    shape: dict[str, Any] = {"T": 6, "B": 2, "D": 3, "H": 4, "O": 5, **draw["sizes"]}
    called = (draw["batched"], caller.layout)
    for batched, layout in product((draw["batched"], not draw["batched"]), LAYOUTS):
        if (batched, layout) == called or (layout in BATCH_FIRST and not batched):
            continue
        other = Caller(caller.candidate, layout, caller.time_budget, caller.returns)
        options = {k: v for k, v in draw.items() if k not in ("batched", "sizes", "few_shapes")}
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
    draw: Draw,
) -> Diagnosis:
    """Return what explains the gradients that are wrong, and what can be said of the rest."""
    findings, _ = explain(evidence)
    named = {k for finding in findings for k in finding.gradients}
    left = tuple(k for k in draw["cell"].gradients if k in wrong and k not in named)
    shortest = {row.gradient: row.shortest or 1 for row in report.rows if row.gradient in wrong}
    if example is not None:
        for k in shortest.keys() & example.values.keys():
            shortest[k] = min(shortest[k], example.problem.sizes["T"])
    places = _places(caller, evidence, shortest, left, draw)
    rules = broken_rules(caller, evidence) if left else None
    return Diagnosis(findings, left, observations(left, evidence), places, rules)


def _places(
    caller: Caller,
    evidence: list[Evidence],
    shortest: Mapping[str, int],
    unexplained: Iterable[str],
    draw: Draw,
) -> list[str]:
    """Return lines on where in time gradients go wrong, from the longest problem that shows it."""
    shows = [e for e in evidence if any(ratio > 1 for ratio in e.ratio.values())]
    if not shows or draw["few_shapes"]:  # then each length would have to be compiled
        return []
    problem = max((e.problem for e in shows), key=lambda p: p.sizes["T"])
    lines = [] if "T" in draw["sizes"] else on_lengths(caller, problem, shortest)
    known = named_loss(draw["loss"])
    if known.separable and known.over_time:
        lines += on_steps(caller, problem, unexplained)
    return lines


def _counterexample(report: Report, caller: Caller, draw: Draw) -> Counterexample | None:
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
    values = _values(caller, [found], [row.gradient for row in failed])
    shown = found if len(found.origin) <= LONGEST_LINE else witness
    return Counterexample(found, values, _to_reproduce(caller, draw["loss"], shown))


def _values(
    caller: Caller, problems: Sequence[Problem], names: list[str]
) -> dict[str, tuple[np.ndarray, np.ndarray | str]]:
    """Return what is expected and what is returned for the gradients that fail in the last one."""
    calls = [call for chunk in solved(problems) for call in judged_calls(caller, chunk)]
    if len(calls) < len(problems):
        return {}
    (answer, returned, verdicts), values = calls[-1], {}
    wrong = {v.gradient for v in verdicts if v.status in FAILURES}
    for k in (k for k in names if k in wrong):
        found = returned.gradients
        value = found if isinstance(found, Flaw) else found[k]
        shown = value.detail if isinstance(value, Flaw) else value
        values[k] = (answer.truth[k][0].astype(problems[-1].dtype), shown)
    return values


def _to_reproduce(caller: Caller, loss: AnyLoss, *problems: Problem) -> tuple[str, ...]:
    """Return lines of Python that judge a candidate on one problem after another."""
    name, (*imports,) = caller.runner.importable
    layout = "" if caller.layout == "time_first" else f", layout={caller.layout!r}"
    returns = caller.returns if isinstance(caller.returns, Mapping) else (*caller.returns,)
    layout += f", returns={returns!r}" if returns else ""
    if callable(loss):
        imports += importable(loss)[1]
    imports += in_code(problems[0].cell)[1]
    made = list(dict.fromkeys(p.origin for p in problems))
    names = ["problem"] if len(made) == 1 else ["first", "second"]
    judged = ", ".join(names[made.index(p.origin)] for p in problems)
    return (
        "; ".join(["import reference", *imports]),
        *(f"{name} = {origin}" for name, origin in zip(names, made, strict=True)),
        f"print(reference.Report.of(reference.judge({name}, [{judged}]{layout})))",
    )
