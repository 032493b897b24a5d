"""Any hand-written gradient against autodiff.

A candidate is a function ``candidate(params, x, h0, target)`` that returns a mapping or a
namedtuple with any of the gradients ``W U b V c x h0 h``, where ``h`` is the gradient in every
state, (T+1, H) or (T+1, B, H). ``manual_bptt`` is judged as one more candidate.

Two checks look at each problem. End to end, a returned gradient is compared with ``jax.grad`` of
the whole loss (``reference.conditioning``). Step by step, each ``dh[t]`` is compared with what
``jax.vjp`` of one step makes of the candidate's own ``dh[t+1]``, and each remaining gradient with
what it makes of the candidate's ``h`` (``reference.bounds``); this needs ``h``, and is sharpest
where the candidate also returns its ``states``, (T+1, H) or (T+1, B, H). Return ``h`` if the other
gradients are computed from it; otherwise leave it out. A gradient matches where at least one check
decides, and none objects.
"""

import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from reference.bounds import decides, over_tolerance
from reference.gradients import GRADIENTS, Loss
from reference.oracle import Answer, Measure, Solved, check_steps, solved
from reference.problems import Parameters, Problem, draw_problems
from reference.report import Report, Verdict

Candidate = Callable[[Any, Any, Any, Any], Any]
RETURNED = (*GRADIENTS, "states")
# What the local check of a gradient builds on; it says nothing where that is wrong itself.
PREMISES: dict[str, tuple[str, ...]] = {"states": ()}
PREMISES |= dict.fromkeys("hVc", ("states",))
PREMISES |= dict.fromkeys(("W", "U", "b", "x", "h0"), ("states", "h"))


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
        mapping or a namedtuple with any of the gradients W, U, b, V, c, x, h0, h, and with its
        ``states`` if it likes; what it leaves out is reported as not returned.
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
    for chunk in solved(problems):
        yield from judge_solved(candidate, chunk)


def judge_solved(candidate: Candidate, chunk: Solved) -> Iterator[tuple[list[Verdict], list[str]]]:
    """Judge a candidate on problems whose answers are known, and serve for any number of them."""
    calls = [_call(candidate, answer.problem) for answer in chunk.answers]
    own = [
        _own_recursion(returned, answer.problem)
        for (returned, _), answer in zip(calls, chunk.answers, strict=True)
    ]
    all_steps = check_steps(chunk, own)
    for answer, (returned, notes), steps in zip(chunk.answers, calls, all_steps, strict=True):
        if isinstance(returned, str):
            verdicts = [Verdict(k, "raised", answer.problem, detail=returned) for k in GRADIENTS]
        else:
            verdicts = _verdicts(returned, answer, steps)
        yield verdicts, notes


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
        gradients = {k: _as_real(returned[k]) for k in RETURNED if returned.get(k) is not None}
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
        if k not in RETURNED
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


def _own_recursion(
    returned: dict[str, Any] | str, problem: Problem
) -> tuple[np.ndarray | None, np.ndarray | None]:
    """Return the states and the gradients in them, each if it can be looked at."""
    shape = problem.gradient_shape("states")

    def usable(name: str) -> np.ndarray | None:
        value = None if isinstance(returned, str) else returned.get(name)
        if not isinstance(value, np.ndarray) or value.shape != shape:
            return None
        return value.astype(np.float64) if np.isfinite(value).all() else None

    return usable("states"), usable("h")


def _verdicts(returned: dict[str, Any], answer: Answer, steps: dict[str, Measure]) -> list[Verdict]:
    """Judge what a candidate returned for one problem."""
    names = [k for k in ("states", "h", *GRADIENTS) if k != "states" or k in returned]
    verdicts: dict[str, Verdict] = {}
    for k in dict.fromkeys(names):  # the premises come first
        sound = all(verdicts[p].status == "match" for p in PREMISES[k] if p in verdicts)
        verdicts[k] = _verdict(k, returned.get(k), answer, steps.get(k) if sound else None)
    return [verdicts[k] for k in RETURNED if k in verdicts]


def _verdict(
    name: str, value: np.ndarray | str | None, answer: Answer, step: Measure | None
) -> Verdict:
    """Judge one gradient of one problem, end to end and, if step says how, step by step."""
    problem, (truth, _) = answer.problem, answer.truth[name]
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
    return _measured(name, value.astype(np.float64), answer, step)


def _measured(name: str, value: np.ndarray, answer: Answer, step: Measure | None) -> Verdict:
    """Judge one gradient by its errors, entry by entry, in each check that decides."""
    problem, (truth, _) = answer.problem, answer.truth[name]
    end = _ratios(value, answer.truth[name], problem)
    local = None if step is None else _ratios(value, step, problem)
    decisive = [ratios for ratios in (local, end) if ratios is not None]
    if not decisive:
        return Verdict(name, "nothing proved", problem)
    largest, scale = float(np.abs(value - truth).max()), float(np.abs(truth).max())
    relative = largest / scale if scale > 0 else float(largest > 0)
    wrong = [ratios for ratios in decisive if ratios.max() > 1]
    return Verdict(
        name,
        "mismatch" if wrong else "match",
        problem,
        ratio=None if end is None else float(end.max()),
        local=None if local is None else float(local.max()),
        max_abs_error=largest,
        max_rel_error=relative,
        step=_first_wrong_step(name, wrong[0]) if wrong else None,
    )


def _ratios(value: np.ndarray, measure: Measure, problem: Problem) -> np.ndarray | None:
    """Return the error of each entry over its tolerance, if that is small beside the gradient."""
    expected, tolerance = measure
    if not decides(expected, tolerance, problem.dtype):
        return None
    return over_tolerance(value - expected, tolerance)


def _first_wrong_step(name: str, ratios: np.ndarray) -> int | None:
    """Return the first wrong step that is met: going forward for states, backward for h and x."""
    if name not in ("h", "x", "states"):
        return None
    wrong = np.flatnonzero((ratios > 1).reshape(len(ratios), -1).any(axis=1))
    return int(wrong[0 if name == "states" else -1]) + (name == "x")
