"""Any hand-written gradient of any JAX function against autodiff, leaf by leaf.

The function takes trees of arrays and returns a number; the gradient is a tree like its first
argument, or one like all of them. Autodiff computes in float64. Between two correct codes lies the
rounding of every operation, amplified by all that follows. It is measured: with u the unit roundoff
of the arguments, autodiff runs again with errors of that size in every operation
(``reference.rounding.noise``). An entry of a leaf may be off by

    tolerance = 8 max |perturbed - plain| + 4 ulp + 64 tiny

with the largest of 8 perturbed runs in that entry, one unit in the last place of the largest entry
of the leaf, and 64 tiny for what is so small that it is flushed to zero. Where a tolerance exceeds
a thousandth of the largest entry, nothing is proved.
"""

import copy
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import jax
import numpy as np

from reference.devices import float64_on_cpu
from reference.explaining.resemblance import (
    FACTORS,
    coarse,
    coarse_numbers,
    coarse_products,
    described,
)
from reference.functions.diagnosis import diagnosed
from reference.functions.judging import judge, tolerance
from reference.functions.leaf_report import Leaf, LeafReport
from reference.functions.precision import narrow, rounded_numbers
from reference.functions.trees import (
    Caller,
    Given,
    Matched,
    Raised,
    loss_of_variables,
    match,
    read,
)
from reference.functions.voices import THIRD_VOICES, Loss, ask
from reference.rounding.formats import (
    PLAIN,
    Arithmetic,
    checked_arithmetic,
    formats_in_words,
)
from reference.rounding.noise import (
    keeps_states,
    perturbed,
    unknown_operations,
    with_rounded_factors,
)

Measure = tuple[np.ndarray, np.ndarray]
Autodiff = Callable[[list[np.ndarray], np.dtype[Any]], list[Measure]]

OTHER_NUMBERS = 1 + 2.0**-7  # times the arguments: near enough to stay where loss_fn is defined


def check_gradient(
    loss_fn: Callable[..., Any],
    grad_fn: Callable[..., Any],
    *args: Any,
    kwargs: Mapping[str, Any] | None = None,
    third_voice: str | None = None,
    arithmetic: str | None = None,
    storage: str | None = None,
) -> LeafReport:
    """Compare a hand-written gradient of any scalar JAX function with autodiff, at one point.

    A call takes about a second, most of which JAX spends on tracing and compiling.

    Parameters
    ----------
    loss_fn : callable
        A JAX function of args that returns a real scalar. Where it has derivative rules of its own
        (``jax.custom_vjp``), autodiff follows them: leave out of it what is to be judged.
    grad_fn : callable
        Called with copies of args, arrays as NumPy arrays, and called again if it is right, since
        it may depend on earlier calls. It returns the gradient in the first of
        them, as ``jax.grad`` does, or a tuple with the gradient in each; the report says which was
        found. None in the place of a leaf, or of a tree of them, leaves it out; a leaf that is
        missing without that does not pass. One vector with all numbers of the first argument, or
        of all, in the order of ``jax.flatten_util.ravel_pytree``, is taken apart.
    args : trees of arrays
        All float32 or all float64, which decides how accurate the gradient has to be. Python floats
        are differentiated in; integers, booleans, strings and other objects are constants.
    kwargs : mapping or None
        Further arguments, by name, of both loss_fn and grad_fn: constants.
    third_voice : str or None
        What else to ask about the worst entry of each leaf; it never decides.
        ``"finite differences"`` are central ones. ``"complex step"`` evaluates loss_fn at a complex
        argument, and is exact to rounding where it is analytic; elsewhere, such as after ``abs`` or
        ``conj``, it has no opinion.
    arithmetic : str or None
        What grad_fn rounds the factors of products of matrices to: ``"tf32"``, ``"bfloat16"`` or
        ``"float16"``. Everything else is in float32, and so are args.
    storage : str or None
        The format, of the same names, in which grad_fn keeps states, and the gradients in them. A
        state is what a ``jax.lax.scan`` of loss_fn carries on.

    Returns
    -------
    LeafReport
        ``.passed``, ``.rows`` (one for each leaf), ``.notes``; ``str()`` is a table, ``.to_json()``
        is for machines. What grad_fn raises, or returns in the wrong place, is reported.

    Raises
    ------
    TypeError
        If loss_fn or grad_fn is not callable, or an argument is complex or of another precision.
    ValueError
        If there is nothing to differentiate in, the precisions of args differ, loss_fn returns no
        real scalar or cannot be traced by JAX, third_voice, arithmetic or storage is none of those
        above, one of the last two is given and args are not float32, or storage is and loss_fn has
        no state.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> def loss(params, x, y):
    ...     return jnp.sum((x @ params["w"] + params["b"] - y) ** 2)
    >>> def by_hand(params, x, y):
    ...     error = x @ params["w"] + params["b"] - y
    ...     return {"w": 2 * x.T @ error, "b": error.sum()}  # a 2 is missing
    >>> x, y = np.array([[0.1, 0.2], [0.3, -0.4], [0.7, 0.9]]), np.array([1.0, 2.0, 3.0])
    >>> report = check_gradient(loss, by_hand, {"w": np.array([0.5, -0.25]), "b": 1.0}, x, y)
    >>> report.passed, [(row.leaf, row.status) for row in report.rows]
    (False, [("args[0]['b']", 'mismatch'), ("args[0]['w']", 'match')])
    """
    for name, function in (("loss_fn", loss_fn), ("grad_fn", grad_fn)):
        if not callable(function):
            raise TypeError(f"{name} is a {type(function).__name__}; expected a function")
    if third_voice is not None and third_voice not in THIRD_VOICES:
        known = " or ".join(map(repr, THIRD_VOICES))
        raise ValueError(f"third_voice is {third_voice!r}; expected {known}")
    if kwargs is not None:
        if not isinstance(kwargs, Mapping) or not all(isinstance(name, str) for name in kwargs):
            raise TypeError(f"kwargs is {kwargs!r}; expected a mapping of names to values")
        loss_fn, grad_fn = partial(loss_fn, **kwargs), partial(grad_fn, **kwargs)
    given = read(args)
    if not given.of_first():
        raise ValueError("args[0] holds no floating numbers; expected some to differentiate in")
    return checked(loss_fn, grad_fn, given, third_voice, arithmetic, storage)


def checked(
    loss_fn: Callable[..., Any],
    grad_fn: Callable[..., Any],
    given: Given,
    third_voice: str | None = None,
    arithmetic: str | None = None,
    storage: str | None = None,
) -> LeafReport:
    """Do what ``check_gradient`` does, with arguments that have been taken apart."""
    rounding = checked_arithmetic(arithmetic, storage, str(given.dtype))
    loss = loss_of_variables(loss_fn, given)
    call = Caller(grad_fn, given)
    returned, notes = call()
    if isinstance(returned, Raised):
        of = given.of_first() or given.variables
        rows = [Leaf(v.label, "raised", detail=returned.reason) for v in of]
        return LeafReport(rows, notes, third_voice)
    matched = match(returned, given)
    notes += matched.notes
    positions = [given.variables.index(place) for place, _ in matched.leaves]
    with float64_on_cpu():
        unknown = unknown_operations(jax.grad(loss), given.values())
        if storage is not None and not keeps_states(loss, given.values()):
            raise ValueError(f"storage is {storage!r}, but no jax.lax.scan of loss_fn has a state")
    if given.dtype == np.float64:
        notes += narrow(loss, given.values())
    for operation, line in unknown.items():
        notes.append(
            f"no rule for the rounding of JAX's {operation} ({line}): its results were rounded "
            "once, so the tolerance may be too small"
        )
    by_autodiff = autodiff(loss, given.values(), positions, rounding)
    measures = by_autodiff(given.values(), given.dtype)
    rows = []
    for (place, leaf), measure in zip(matched.leaves, measures, strict=True):
        rows.append(judge(place.label, leaf, *measure, given.dtype, notes, rounding.u))
    if any(rounding):
        notes.append(_sensitivity(formats_in_words(arithmetic, storage), measures))
    if given.dtype == np.float64:
        notes += rounded_numbers(loss, given.values(), rows)
    diagnosis = None
    if any(row.status == "mismatch" for row in rows):
        rows = _explained(rows, matched, measures, _rounded_autodiff(loss, positions), given)
        wrong = tuple(row.leaf for row in rows if row.status == "mismatch")
        judged = [
            (positions[i], i, row.leaf)
            for i, row in enumerate(rows)
            if row.status in ("match", "mismatch")
        ]
        diagnosis = diagnosed(loss, given, call, by_autodiff, judged, wrong, rounding.u)
    if {row.status for row in rows} <= {"match", "not returned"}:
        rows = _again(call, given, matched, by_autodiff, rows, rounding.u)
    if third_voice is not None:
        rows = ask(third_voice, loss, given.values(), rows, positions, notes)
    rows += [Leaf(label, "wrong shape", detail=why) for label, why in matched.strays]
    return LeafReport(rows, notes, third_voice, diagnosis)


def _again(
    call: Caller,
    given: Given,
    matched: Matched,
    autodiff: Autodiff,
    rows: list[Leaf],
    u: float,
) -> list[Leaf]:
    """Return the rows, or what is wrong in further calls: then a leaf depends on earlier ones.

    The second call has other numbers in the same arrays, as in training; the third has those of the
    first again.
    """
    first = [copy.deepcopy(leaf) for _, leaf in matched.leaves]
    other = [_in(v * OTHER_NUMBERS, given.dtype) for v in given.values()]
    for values, again in ((other, False), (given.values(), True)):
        returned, _ = call(values)
        if isinstance(returned, Raised):
            if again:
                why = f"{returned.reason}, and not in the first call"
                return [Leaf(row.leaf, "raised", detail=why) for row in rows]
            continue
        leaves = [leaf for _, leaf in match(returned, given).leaves]
        measures = autodiff(values, given.dtype)
        for i, (leaf, before) in enumerate(zip(leaves, first, strict=False)):
            now = judge(rows[i].leaf, leaf, *measures[i], given.dtype, [], u)
            stale = again or (now.status == "mismatch" and np.array_equal(leaf, before))
            if (
                rows[i].status == "match"
                and now.status not in ("match", "nothing proved")
                and stale
            ):
                why = "right in the first call, wrong in a later one: it depends on earlier calls"
                rows[i] = replace(now, detail="; ".join(filter(None, [now.detail, why])))
    return rows


def _in(value: np.ndarray, dtype: np.dtype[Any]) -> np.ndarray:
    """Return an array of float64 whose numbers are of a dtype."""
    return np.asarray(value.astype(dtype), np.float64)


def _explained(
    rows: list[Leaf],
    matched: Matched,
    measures: list[Measure],
    rounded: Callable[[list[np.ndarray]], dict[str, list[np.ndarray]]],
    given: Given,
) -> list[Leaf]:
    """Return the rows with what a wrong leaf looks like, if it looks like something."""
    right = {row.leaf: measure for row, measure in zip(rows, measures, strict=True)}
    answers: dict[str, list[np.ndarray]] = {}
    for i, (row, (_, leaf)) in enumerate(zip(rows, matched.leaves, strict=True)):
        if row.status != "mismatch":
            continue
        value, (truth, _) = np.array(leaf, np.float64), right[row.leaf]
        words = next(described(value, row.leaf, right, given.dtype), "")
        if not words and coarse(value, truth):
            words = coarse_numbers(value)
            if not words:
                answers = answers or rounded(given.values())
                words = coarse_products(value, truth, {k: a[i] for k, a in answers.items()})
        rows[i] = replace(row, detail="; ".join(filter(None, [row.detail, words])))
    return rows


def autodiff(
    loss: Loss, like: list[np.ndarray], positions: list[int], arithmetic: Arithmetic = PLAIN
) -> Callable[[list[np.ndarray], np.dtype[Any]], list[Measure]]:
    """Compile the gradient of a loss in those of its values that are at some positions.

    The function that is returned takes values like the ones given here and the dtype of the code to
    be judged; it returns each gradient with the tolerance of its entries.
    """

    gradient = _gradient(loss, positions)
    with float64_on_cpu():
        plain, runs = jax.jit(gradient), perturbed(gradient, like, arithmetic=arithmetic)

    def measures(values: list[np.ndarray], dtype: np.dtype[Any]) -> list[Measure]:
        with float64_on_cpu():
            truths = [np.asarray(g) for g in plain(values)]
            found = runs(float(np.finfo(dtype).eps) / 2, values, right=truths)
        return [
            (truth, tolerance(truth, same, dtype))
            for truth, *same in zip(truths, *found, strict=True)
        ]

    return measures


def _gradient(loss: Loss, positions: list[int]) -> Callable[[list[Any]], Any]:
    """Return the gradient of a loss in those of its values that are at some positions."""

    def gradient(values: list[Any]) -> Any:
        def of_chosen(chosen: list[Any]) -> Any:
            mixed = dict(enumerate(values)) | dict(zip(positions, chosen, strict=True))
            return loss([mixed[i] for i in range(len(values))])

        return jax.grad(of_chosen)([values[i] for i in positions])

    return gradient


def _rounded_autodiff(
    loss: Loss, positions: list[int]
) -> Callable[[list[np.ndarray]], dict[str, list[np.ndarray]]]:
    """Return the gradient of a loss in each of the arithmetics with rounded factors, by name."""

    def rounded(values: list[np.ndarray]) -> dict[str, list[np.ndarray]]:
        with float64_on_cpu():
            run = with_rounded_factors(_gradient(loss, positions), values)
            return {kind: list(run(form, values)) for kind, form in FACTORS.items()}

    return rounded


def _sensitivity(formats: str, measures: list[Measure]) -> str:
    """Return how small an error can be that still shows in the formats that are declared."""
    shown = [t.max() / np.abs(v).max() for v, t in measures if v.size and v.any()]
    return (
        f"with {formats}, an error shows from {max(shown, default=0):.2g} of the largest entry of "
        "its leaf on, or earlier"
    )
