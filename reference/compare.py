"""Any hand-written gradient against autodiff.

A candidate is a function ``candidate(params, x, h0, target)`` that returns a mapping or a
namedtuple with any of the gradients ``W U b V c x h0 h``, where ``h`` is the gradient in every
state, (T+1, H) or (T+1, B, H). ``manual_bptt`` is judged as one more candidate.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from reference.bounds import PROVES, over_tolerance
from reference.gradients import GRADIENTS, Loss, named_loss
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
        If cases is below 1, or loss or dtype is none of those above.

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
    if cases < 1:
        raise ValueError(f"cases is {cases}; expected at least 1")
    if dtype not in ("float32", "float64"):
        raise ValueError(f"dtype is {dtype!r}; expected 'float32' or 'float64'")
    named_loss(loss)
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

    Arguments are those of ``compare``.
    """
    report = compare(candidate, loss=loss, cases=cases, seed=seed, dtype=dtype, batched=batched)
    if not report.passed:
        raise AssertionError(f"gradients do not match autodiff\n{report}")


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


def _call(candidate: Candidate, problem: Problem) -> tuple[Mapping[str, Any] | str, list[str]]:
    """Return what the candidate returned, or why there is nothing, and notes on its manners."""
    p = problem.params
    originals = {
        **{k: getattr(p, k) for k in Parameters._fields},
        "x": problem.x,
        "h0": problem.h0,
        "target": problem.target,
    }
    copies = {k: a.copy() for k, a in originals.items()}
    params = Parameters(*(copies[k] for k in Parameters._fields))
    try:
        returned = candidate(params, copies["x"], copies["h0"], copies["target"])
        gradients = _as_mapping(returned)
    except Exception as error:  # a candidate is a stranger's code
        return f"{type(error).__name__}: {error}", []
    notes = [
        f"the candidate writes to its input {k}"
        for k, original in originals.items()
        if not np.array_equal(copies[k], original)
    ]
    notes += [
        f"{k} came as {dtype}, though the problem is {problem.dtype}"
        for k, value in gradients.items()
        if k in GRADIENTS
        and value is not None
        and (dtype := getattr(value, "dtype", problem.dtype)) != problem.dtype
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


def _verdict(name: str, returned: Any, answer: Answer) -> Verdict:
    """Judge one gradient of one problem."""
    problem, (truth, tolerance) = answer.problem, answer.truth[name]
    if returned is None:
        return Verdict(name, "not returned", problem)
    value = _as_real(returned)
    if value is None:
        return Verdict(name, "raised", problem, detail="not an array of real numbers")
    if value.shape != truth.shape:
        return Verdict(
            name, "wrong shape", problem, detail=f"shape {value.shape}, expected {truth.shape}"
        )
    scale = float(np.abs(truth).max())
    representable = scale < float(np.finfo(problem.dtype).max) * 1e-6
    if not (representable and tolerance.max() <= PROVES * scale + np.finfo(problem.dtype).tiny):
        return Verdict(name, "nothing proved", problem)
    if not np.isfinite(value).all():
        bad = value[~np.isfinite(value)][0]
        return Verdict(name, "non-finite", problem, detail=f"{bad} where autodiff is finite")
    errors = np.abs(value - truth)
    ratios = over_tolerance(errors, tolerance)
    ratio = float(ratios.max())
    largest = float(errors.max())
    relative = largest / scale if scale > 0 else float(largest > 0)
    status = "match" if ratio <= 1 else "mismatch"
    step = _first_wrong_step(name, ratios)
    return Verdict(name, status, problem, ratio, largest, relative, step)


def _as_real(returned: Any) -> np.ndarray | None:
    """Return what a candidate returned as float64, or None if it does not hold real numbers."""
    try:
        value = np.asarray(returned)
        return value.astype(np.float64) if value.dtype.kind in "fiu" else None
    except (TypeError, ValueError):
        return None


def _first_wrong_step(name: str, ratios: np.ndarray) -> int | None:
    """Return the last step t at which h or x is wrong: the first one that the recursion meets."""
    if name not in ("h", "x"):
        return None
    wrong = np.flatnonzero((ratios > 1).reshape(len(ratios), -1).any(axis=1))
    return int(wrong[-1]) + (name == "x") if wrong.size else None
