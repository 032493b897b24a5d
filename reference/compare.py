"""Any hand-written gradient against autodiff.

A candidate is a function ``candidate(params, x, h0, target)`` that returns a mapping or a
namedtuple with any of the gradients ``W U b V c x h0 h``, where ``h`` is the gradient in every
state, (T+1, H) or (T+1, B, H). ``manual_bptt`` is judged as one more candidate.

Each problem is looked at end to end and step by step (``reference.verdicts``). The second needs
``h``, and is sharpest where the candidate also returns its ``states``, (T+1, H) or (T+1, B, H).
Return ``h`` if the other gradients are computed from it; otherwise leave it out. A candidate that
is right in all problems is called with some of them, and with their shapes, again
(``reference.memory``).

All of this happens in one process, which a candidate can change or end. ``manual-bptt check`` runs
the candidate in another (``reference.processes``).

What is wrong is then explained: by the mistake that reproduces it (``reference.diagnosis``), by
where in time it goes wrong (``reference.localisation``), and by the smallest problem that shows it
(``reference.smallest``).
"""

import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import product
from typing import Any

import numpy as np

from reference.candidates import LAYOUTS, Caller, Candidate, Flaw
from reference.diagnosis import Evidence, explain, gather, repeats, telling_problems
from reference.findings import Counterexample, Diagnosis
from reference.localisation import on_lengths, on_steps
from reference.memory import Draw, shortest_history, to_call_again
from reference.network import in_code, named_cell
from reference.network.cell import Cell
from reference.network.gradients import Loss
from reference.observations import observations
from reference.oracle import each_shape_compiles, solved
from reference.problems import Problem, checked_sizes, draw_problems, random_problem
from reference.processes import NoVerdictError
from reference.report import FAILURES, Report
from reference.rounding.formats import default_dtype
from reference.smallest import smallest
from reference.user_code import importable
from reference.verdicts import judge, judged_calls

LONGEST_LINE = 4000  # characters of a line that makes a problem again
MOST_SEEN = 200  # of the problems that were drawn; of these, some are called again
TO_CALL_AGAIN = 0.2  # of the time budget, on top of it
BAD_AGAIN = FAILURES | {"not returned"}


def compare(
    candidate: Candidate,
    *,
    loss: Loss = "squared_error",
    cell: str | Cell = "tanh",
    cases: int = 200,
    seed: int = 0,
    dtype: str | None = None,
    arithmetic: str | None = None,
    storage: str | None = None,
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
        ``candidate(params, x, h0, target)``; params has the parameters of the cell as fields: for
        the lab's W, U, b, V, c. It returns a mapping or a namedtuple with any of the gradients in
        these, x, h0 and every state, h (or dW, dU, ...), and with its ``states`` if it likes; what
        it leaves out is reported as not returned. Axes of
        length one may be missing or added, and the report says so: V as (H,) for one output, b as
        (H, 1).
    loss : str or callable
        The loss that the candidate differentiates: ``"squared_error"`` (the sum over time, batch
        and outputs), ``"last_step_squared_error"``, or a JAX function ``(y, target)`` that returns
        a scalar, of arrays in the first layout.
    cell : str or Cell
        The cell of the network: ``"tanh"``, the lab's, another of ``reference.network.CELLS``, or a
        ``reference.Cell`` of your own.
    cases, seed : int
        How many problems, and which; those of a smaller number are among those of a larger one.
    dtype : str, optional
        ``"float64"``, the default, or ``"float32"``, which goes with an arithmetic or a storage.
        Autodiff computes in float64 in all cases.
    arithmetic : str, optional
        What the candidate rounds the factors of its products to, as a processor made for matrices
        does: ``"tf32"``, ``"bfloat16"`` or ``"float16"``. Everything else is in float32, and the
        problems have numbers of that format. The report says which errors still show.
    storage : str, optional
        The format, of the same names, in which the states and the gradients in them are kept.
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
        Seconds that all calls of the candidate may take together, and a fifth more to be called
        again. The report then covers what was judged by that time, and says so.
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
    dtype = dtype or default_dtype(arithmetic, storage)
    if dtype not in ("float32", "float64"):
        raise ValueError(f"dtype is {dtype!r}; expected 'float32' or 'float64'")
    fixed = checked_sizes(sizes, batched)
    cell = named_cell(cell)
    few_shapes = each_shape_compiles(loss, cell)
    draw: Draw = {
        "loss": loss, "cell": cell, "dtype": dtype, "arithmetic": arithmetic, "storage": storage,
        "batched": batched, "sizes": fixed, "few_shapes": few_shapes,
    }  # fmt: skip
    report = Report.of(progress(judge(caller, draw_problems(cases, seed, **draw))))
    if caller.out_of_time:
        report.notes.append(_partly(caller, report, cases))
        caller.spent -= TO_CALL_AGAIN * float(time_budget or 0)
    remembers = False
    if not any(row.status in FAILURES for row in report.rows):
        seen = list(draw_problems(min(cases, MOST_SEEN), seed, **draw))
        remembers = _remembers(report, caller, seen)
    if explained and not caller.out_of_time and not report.passed:
        report = _explained(report, caller, draw, _by_history if remembers else _by_mistakes)
    return report


def _remembers(report: Report, caller: Caller, seen: list[Problem]) -> bool:
    """Return whether a candidate is wrong when it is called again, and add that to its report."""
    rows = {row.gradient: row for row in report.rows if row.status != "not returned"}
    wrong, calls, failures = dict[str, None](), 0, 0
    for verdicts, _ in judge(caller, to_call_again(seen)):
        bad = [v for v in verdicts if v.gradient in rows and v.status in BAD_AGAIN]
        for verdict in bad:
            rows[verdict.gradient].add(verdict)
            wrong[verdict.gradient] = None
        calls, failures = calls + 1, failures + bool(bad)
    if wrong:
        report.objections.append(
            f"{' '.join(wrong)} {'depends' if len(wrong) == 1 else 'depend'} on earlier calls: "
            f"right when every problem was met for the first time, wrong in {failures} of {calls} "
            "calls with the same problems or shapes again"
        )
    return bool(wrong)


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


def _explained(
    report: Report, caller: Caller, draw: Draw, explanation: Callable[..., Report]
) -> Report:
    """Return the report with a diagnosis and with the smallest problem that fails."""
    try:
        report = explanation(report, caller, draw)
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
        report.notes.extend(_other_conventions(caller, draw))
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
        if (batched, layout) == called or (layout == "batch_first" and not batched):
            continue
        other = Caller(caller.candidate, layout, caller.time_budget)
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
    return Diagnosis(findings, left, observations(left, evidence), places)


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
    if draw["loss"] == "squared_error":
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


def _to_reproduce(caller: Caller, loss: Loss, *problems: Problem) -> tuple[str, ...]:
    """Return lines of Python that judge a candidate on one problem after another."""
    name, (*imports,) = caller.runner.importable
    layout = "" if caller.layout == "time_first" else f", layout={caller.layout!r}"
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
