"""Any hand-written gradient against autodiff.

A candidate is a function ``candidate(params, x, h0, target)`` that returns a mapping or a
namedtuple with any of the gradients ``W U b V c x h0 h``, where ``h`` is the gradient in every
state, (T+1, H) or (T+1, B, H). ``manual_bptt`` is judged as one more candidate.

Each problem is looked at end to end and step by step (``reference.judging.verdicts``). The second
needs ``h``, and is sharpest where the candidate also returns its ``states``, (T+1, H) or
(T+1, B, H). Return ``h`` if the other gradients are computed from it; otherwise leave it out. A
candidate that is right in all problems is called with some of them, and with their shapes, again
(``reference.judging.memory``).

All of this happens in one process, which a candidate can change or end. ``manual-bptt check`` runs
the candidate in another (``reference.judging.processes``).

What is wrong is then explained (``reference.explaining``): by the mistake that reproduces it, by
where in time it goes wrong, and by the smallest problem that shows it.
"""

import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from reference.drawing import checked_sizes, draw_problems
from reference.explaining.explanation import with_reasons
from reference.findings import Diagnosis
from reference.judging.candidates import Caller, Candidate, Returns, require_known
from reference.judging.conventions import agreed, zero_in_words, zero_of
from reference.judging.memory import Draw, to_call_again
from reference.judging.verdicts import judge
from reference.network import named_cell
from reference.network.cell import Cell
from reference.network.losses import AnyLoss
from reference.oracle.padding import each_shape_compiles
from reference.problems import Problem
from reference.report import FAILURES, Report
from reference.rounding.formats import default_dtype
from reference.user_code import said_by

MOST_SEEN = 200  # of the problems that were drawn; of these, some are called again

TO_CALL_AGAIN = 0.2  # of the time budget, on top of it

BAD_AGAIN = FAILURES | {"not returned"}


def compare(
    candidate: Candidate,
    *,
    loss: AnyLoss = "squared_error",
    cell: str | Cell = "tanh",
    cases: int = 200,
    seed: int = 0,
    dtype: str | None = None,
    arithmetic: str | None = None,
    storage: str | None = None,
    batched: bool = True,
    layout: str = "time_first",
    returns: Returns = (),
    tokens: bool = False,
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
        it leaves out is reported as not returned. Names that follow a pattern, such as dWxh, dWaa
        or weight_hh_l0 (``reference.names``), stand for these, and the report says so. Axes of
        length one may be missing or added, and the report says so: V as (H,) for one output, b as
        (H, 1).
    loss : str or callable
        The loss that the candidate differentiates: ``"squared_error"`` (the sum over time, batch
        and outputs), ``"last_step_squared_error"``, ``"final_state_squared_error"`` (that of h[T],
        whose target is like h0), ``"cross_entropy"`` (of the softmax of the outputs, where the
        target are labels, integers from 0 to O - 1, (T, B) or (T,); a sum over time and batch), or
        a JAX function ``(y, target)`` that returns a scalar, of arrays in the first layout. A name
        may be followed by what the loss is divided by: ``"cross_entropy/T"``,
        ``"squared_error/TBO"`` (the mean), ``"squared_error/2"``.
    cell : str or Cell
        The cell of the network: ``"tanh"``, the lab's, another of ``reference.network.CELLS``, or a
        ``reference.Cell`` of your own. Where its state has several arrays, h0, h and states, and a
        target like h0, are arranged as it is, in tuples or mappings.
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
        ``"columns"``, every vector is a column: b is (H, 1), c (O, 1), x (T, D, B), h0 (H, B),
        the target (T, O, B), h (T+1, H, B), with B = 1 for single sequences; ``"rows"``, vectors
        are rows, h = tanh(x @ U + h @ W + b), so that every parameter with two axes, and its
        gradient, is the transpose: W is (H, H) and stands on the right, U (D, H), V (H, O), and
        gates lie side by side along the last axis; time comes first there; or
        ``"batch_first_rows"``, both of these.
    returns : sequence of str, or mapping, optional
        What the parts of a tuple are that the candidate returns, in its order, by names that it
        might return in a mapping; ``"loss"`` and ``"_"`` are no gradients:
        ``("loss", "dWxh", "dWhh", "dWhy", "dbh", "dby", "_")``. Or, where it returns a mapping, our
        names by those in it: ``{"dA": "W"}``.
    tokens : bool
        True: x are integers from 0 to D - 1, (T, B) or (T,), each of which stands for a row with a
        single 1, as in a network that reads characters.
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
    declared = said_by(candidate, "declared")
    options = agreed(declared, loss=loss, batched=batched, tokens=tokens, sizes=sizes)
    loss, batched, tokens, sizes = options.values()
    zero = zero_of(declared)
    caller = Caller(candidate, layout, time_budget, returns)
    for name, value, least in (("cases", cases, 1), ("seed", seed, 0)):
        if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least:
            raise ValueError(f"{name} is {value!r}; expected an integer of at least {least}")
    for name, flag in (("batched", batched), ("tokens", tokens)):
        if not isinstance(flag, bool):
            raise ValueError(f"{name} is {flag!r}; expected True or False")
    dtype = dtype or default_dtype(arithmetic, storage)
    if dtype not in ("float32", "float64"):
        raise ValueError(f"dtype is {dtype!r}; expected 'float32' or 'float64'")
    fixed = checked_sizes(sizes, batched)
    cell = named_cell(cell)
    require_known(returns, cell)
    few_shapes = each_shape_compiles(loss, cell)
    draw: Draw = {
        "loss": loss, "cell": cell, "dtype": dtype, "arithmetic": arithmetic, "storage": storage,
        "batched": batched, "sizes": fixed, "few_shapes": few_shapes, "tokens": tokens,
        "zero": zero,
    }  # fmt: skip
    report = Report.of(progress(judge(caller, draw_problems(cases, seed, **draw))))
    report.assumed += zero_in_words(zero)
    if caller.out_of_time:
        report.notes.append(_partly(caller, report, cases))
        caller.spent -= TO_CALL_AGAIN * float(time_budget or 0)
    remembers = False
    if not any(row.status in FAILURES for row in report.rows):
        seen = list(draw_problems(min(cases, MOST_SEEN), seed, **draw))
        remembers = _remembers(report, caller, seen)
    if explained and not caller.out_of_time and not report.passed:
        report = with_reasons(report, caller, draw, remembers=remembers)
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
