"""Any hand-written gradient against autodiff.

A candidate is a function ``candidate(params, x, h0, target)`` that returns a mapping or a
namedtuple with any of the gradients ``W U b V c x h0 h``, where ``h`` is the gradient in every
state, (T+1, H) or (T+1, B, H). ``manual_bptt`` is judged as one more candidate.
"""

import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from reference.bounds import PROVES, over_tolerance
from reference.gradients import GRADIENTS, Loss
from reference.oracle import Answer, answers
from reference.problems import Parameters, Problem, draw_problems
from reference.report import Report, Verdict

Candidate = Callable[[Any, Any, Any, Any], Any]


def compare(
    candidate: Candidate,
    *,
    loss: Loss = "squared_error",
    cases: int = 200,
    seed: int = 0,
    dtype: str = "float64",
    batched: bool = True,
) -> Report:
    """Judge a candidate on random problems.

    Parameters
    ----------
    candidate : callable
        ``candidate(params, x, h0, target)``; params has the fields W, U, b, V, c. It returns a
        mapping or a namedtuple with any of the gradients W, U, b, V, c, x, h0, h; what it leaves
        out is reported as not returned.
    loss : str or callable
        The loss that the candidate differentiates: ``"squared_error"`` (the sum over time, batch
        and outputs), ``"last_step_squared_error"``, or a JAX function ``(y, target)`` that returns
        a scalar.
    cases, seed : int
        How many problems, and which; those of a smaller number are among those of a larger one.
    dtype : str
        ``"float64"`` or ``"float32"``. Autodiff computes in float64 in both cases.
    batched : bool
        True: x is (T, B, D), h0 (B, H), and gradients of parameters are summed over the batch.
        False: one sequence, x (T, D) and h0 (H,).

    Returns
    -------
    Report
        ``.passed``, ``.rows``, ``.notes``; ``str()`` is a table, ``.to_json()`` is for machines.

    Raises
    ------
    TypeError
        If candidate is not callable.
    ValueError
        If cases, seed, dtype, batched or loss is none of those above.

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
    if not callable(candidate):
        raise TypeError(f"candidate is a {type(candidate).__name__}; expected a function")
    for name, value, least in (("cases", cases, 1), ("seed", seed, 0)):
        if not isinstance(value, int | np.integer) or value < least:
            raise ValueError(f"{name} is {value!r}; expected an integer of at least {least}")
    if not isinstance(batched, bool):
        raise ValueError(f"batched is {batched!r}; expected True or False")
    if dtype not in ("float32", "float64"):
        raise ValueError(f"dtype is {dtype!r}; expected 'float32' or 'float64'")
    problems = draw_problems(cases, seed, dtype=dtype, batched=batched, loss=loss)
    return Report.of(judge(candidate, problems))


def assert_gradients_match(
    candidate: Candidate,
    *,
    loss: Loss = "squared_error",
    cases: int = 200,
    seed: int = 0,
    dtype: str = "float64",
    batched: bool = True,
) -> None:
    """Raise AssertionError with the report's text unless the candidate passes ``compare``.

    Arguments are those of ``compare``. What the report notes without failing the candidate, such as
    writing to inputs, becomes a warning.
    """
    report = compare(candidate, loss=loss, cases=cases, seed=seed, dtype=dtype, batched=batched)
    if not report.passed:
        raise AssertionError(f"gradients do not match autodiff\n{report}")
    for note in report.notes:
        warnings.warn(note, stacklevel=2)


def judge(
    candidate: Candidate, problems: Iterable[Problem]
) -> Iterator[tuple[list[Verdict], list[str]]]:
    """Yield, problem by problem, the verdict on each gradient and notes on the candidate."""
    for answer in answers(problems):
        returned, notes = _call(candidate, answer.problem)
        if isinstance(returned, str):
            yield [Verdict(k, "raised", answer.problem, detail=returned) for k in GRADIENTS], notes
        else:
            yield [_verdict(k, returned.get(k), answer) for k in GRADIENTS], notes


def _call(candidate: Candidate, problem: Problem) -> tuple[dict[str, Any] | str, list[str]]:
    """Return {gradient: array, or what else it is}, or why there is nothing; and notes."""
    originals = {
        **problem.params._asdict(),
        "x": problem.x,
        "h0": problem.h0,
        "target": problem.target,
    }
    copies = {k: a.copy() for k, a in originals.items()}
    params = Parameters(*(copies[k] for k in Parameters._fields))
    try:
        returned = _as_mapping(candidate(params, copies["x"], copies["h0"], copies["target"]))
        gradients = {k: _as_real(returned[k]) for k in GRADIENTS if returned.get(k) is not None}
        notes = _notes_on(returned, gradients, problem)
    except (Exception, SystemExit) as error:  # a candidate is a stranger's code
        return _in_words(error), []
    notes += [
        f"the candidate writes to its input {k}"
        for k, original in originals.items()
        if not np.array_equal(copies[k], original)
    ]
    return gradients, notes


def _as_mapping(returned: Any) -> Mapping[str, Any]:
    if hasattr(returned, "_asdict"):
        returned = returned._asdict()
    if not isinstance(returned, Mapping):
        raise TypeError(
            f"the candidate returned a {type(returned).__name__}; expected a mapping or a "
            f"namedtuple with any of {' '.join(GRADIENTS)}"
        )
    if not any(k in returned for k in GRADIENTS):
        raise TypeError(
            f"the candidate returned {sorted(map(str, returned))}; "
            f"expected any of {' '.join(GRADIENTS)}"
        )
    return returned


def _as_real(returned: Any) -> np.ndarray | str:
    """Return one gradient as an array of real numbers, or what it is instead."""
    if isinstance(returned, np.ma.MaskedArray):
        return "a masked array"
    try:
        value = np.array(returned)
    except Exception as error:  # such as a tensor that keeps its graph
        return _in_words(error)
    return value if value.dtype.kind in "fiu" else f"an array of {value.dtype}"


def _notes_on(
    returned: Mapping[str, Any], gradients: Mapping[str, Any], problem: Problem
) -> list[str]:
    """Return what is odd about the names and dtypes that a candidate returns."""
    notes = [
        f"{k!r} is not the name of a gradient, and was not looked at"
        for k in returned
        if k not in GRADIENTS
    ]
    return notes + [
        f"{k} came as {value.dtype}, though the problem is {problem.dtype}"
        for k, value in gradients.items()
        if isinstance(value, np.ndarray) and value.dtype != problem.dtype
    ]


def _in_words(error: BaseException) -> str:
    try:
        return f"{type(error).__name__}: {error}"
    except Exception:  # an error that cannot even be printed
        return type(error).__name__


def _verdict(name: str, value: np.ndarray | str | None, answer: Answer) -> Verdict:
    """Judge one gradient of one problem."""
    problem, (truth, tolerance) = answer.problem, answer.truth[name]
    if value is None:
        return Verdict(name, "not returned", problem)
    if isinstance(value, str):
        detail = f"expected an array of real numbers, got {value}"
        return Verdict(name, "raised", problem, detail=detail)
    if value.shape != truth.shape:
        detail = f"shape {value.shape}, expected {truth.shape}"
        return Verdict(name, "wrong shape", problem, detail=detail)
    scale, info = float(np.abs(truth).max()), np.finfo(problem.dtype)
    if not scale < float(info.max) * 1e-6:  # autodiff is not finite, or the candidate need not be
        return Verdict(name, "nothing proved", problem)
    if not np.isfinite(value).all():
        bad = value[~np.isfinite(value)][0]
        return Verdict(name, "non-finite", problem, detail=f"{bad} where autodiff is finite")
    if tolerance.max() > PROVES * scale + float(info.tiny) / info.eps:
        return Verdict(name, "nothing proved", problem)
    return _measured(name, value.astype(np.float64), answer, scale)


def _measured(name: str, value: np.ndarray, answer: Answer, scale: float) -> Verdict:
    """Judge one gradient by its error, entry by entry."""
    truth, tolerance = answer.truth[name]
    errors = np.abs(value - truth)
    ratios = over_tolerance(errors, tolerance)
    ratio, largest = float(ratios.max()), float(errors.max())
    relative = largest / scale if scale > 0 else float(largest > 0)
    status = "match" if ratio <= 1 else "mismatch"
    step = _first_wrong_step(name, ratios)
    return Verdict(name, status, answer.problem, ratio, largest, relative, step)


def _first_wrong_step(name: str, ratios: np.ndarray) -> int | None:
    """Return the last step t at which h or x is wrong: the first one that the recursion meets."""
    if name not in ("h", "x"):
        return None
    wrong = np.flatnonzero((ratios > 1).reshape(len(ratios), -1).any(axis=1))
    return int(wrong[-1]) + (name == "x") if wrong.size else None
