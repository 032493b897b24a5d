"""Each mistake of the registry is wrong in the way that it says, and unlike every other one."""

import inspect
import re
from functools import cache
from itertools import chain, combinations, groupby

import numpy as np
import pytest

import reference
from reference import mistakes
from reference.judging.verdicts import judge_solved
from reference.mistakes import LOSSES, MISTAKES, Derivation, correct
from reference.network.gradients import GRADIENTS
from reference.oracle.answers import solved
from reference.problems import Problem, random_problem
from reference.rounding.tolerance import PROVES

# float32 rounds by more than these amount to, in most problems.
TOO_SMALL_FOR_FLOAT32 = {"slope off by 1e-7", "weight decay in dW", "1e-8 added to the slope"}


def drawn(loss, dtype):
    """Long and short, batched and single, calm and saturated; all padded to one shape."""
    shapes = [
        (10, 3, 3, 4, 2, "contracting"),
        (12, 2, 4, 3, 3, "saturated"),
        (9, None, 3, 5, 2, "linear"),
        (36, 3, 2, 4, 3, "critical"),
    ]
    return [
        random_problem(T=T, B=B, D=D, H=H, O=O, regime=regime, seed=3, dtype=dtype, loss=loss)
        for T, B, D, H, O, regime in shapes
    ]


def nearly_fitted(problem):
    """Return the problem with targets so close to the outputs that every gradient is small."""
    _, y = reference.forward(problem.params, problem.x, problem.h0)
    y = y[-1] if problem.loss == "last_step_squared_error" else y
    target = y + 1e-7 * problem.target
    origin = f"{problem.origin} nearly fitted"
    return Problem(problem.params, problem.x, problem.h0, target, problem.loss, origin)


@cache
def answered(dtype="float64"):
    """Return the problems with autodiff's answers: those of both losses fit into one call."""
    problems = [p for loss in LOSSES for p in drawn(loss, dtype)]
    if dtype == "float64":
        problems += [nearly_fitted(p) for p in problems[::4]]
    (chunk,) = solved(problems)
    return chunk


def judge(candidate_for, dtype="float64"):
    """Return all verdicts, notes and results; candidate_for makes the candidate for a loss."""
    chunk = answered(dtype)
    losses = iter([answer.problem.loss for answer in chunk.answers])
    results = []

    def candidate(*arguments):
        results.append(candidate_for(next(losses))(*arguments))
        return results[-1]

    verdicts, notes = zip(*judge_solved(candidate, chunk), strict=True)
    return [*chain(*verdicts)], [*chain(*(said.values() for said in notes))], results


@cache
def judged(name):
    return judge(MISTAKES[name].candidate)


def over_tolerances(result, answer):
    """Return the errors of the gradients that rounding does not hide, over their tolerances."""
    measures = {k: answer.truth[k] for k in GRADIENTS}
    return [
        ((result[k] - truth) / tolerance).ravel()
        for k, (truth, tolerance) in measures.items()
        if tolerance.max() <= PROVES * np.abs(truth).max()
    ]


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_caught_in_the_gradients_that_it_is_said_to_affect(name):
    verdicts, _, _ = judged(name)
    assert {v.status for v in verdicts} <= {"match", "mismatch", "nothing proved"}  # plausible
    wrong = {v.gradient for v in verdicts if v.status == "mismatch"} & {*GRADIENTS}
    assert MISTAKES[name].affects == tuple(k for k in GRADIENTS if k in wrong)
    assert wrong


def test_no_two_mistakes_are_the_same():
    answers = answered().answers
    errors = {
        name: np.concatenate([*chain(*map(over_tolerances, judged(name)[2], answers))])
        for name in MISTAKES
    }
    for a, b in combinations(MISTAKES, 2):
        assert np.abs(errors[a] - errors[b]).max() > 1000, (a, b)


def test_all_but_the_smallest_mistakes_show_in_float32_too():
    def caught(mistake):
        for answer in answered("float32").answers:
            p = answer.problem
            result = mistake.candidate(p.loss)(p.params, p.x.copy(), p.h0, p.target)
            assert {array.dtype.name for array in result.values()} == {"float32"}
            if max(np.abs(errors).max() for errors in over_tolerances(result, answer)) > 1:
                return True
        return False

    assert {n for n, m in MISTAKES.items() if not caught(m)} <= TOO_SMALL_FOR_FLOAT32


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_the_right_derivation_passes_both_checks_in_every_gradient(dtype):
    verdicts, notes, _ = judge(correct, dtype)
    assert {v.status for v in verdicts} == {"match"}
    for check in ("ratio", "local"):
        assert {v.gradient for v in verdicts if getattr(v, check) is not None} >= {*GRADIENTS}
    assert not notes


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_the_derivation_keeps_the_dtype_of_the_problem_throughout(dtype):
    for p in drawn("squared_error", dtype):
        derivation = Derivation(p.params, p.x, p.h0, p.target, p.loss)
        results = derivation.gradients()
        arrays = [a for a in vars(derivation).values() if isinstance(a, np.ndarray)]
        assert {a.dtype.name for a in [*arrays, *results.values()]} == {dtype}


@pytest.mark.parametrize("mistake", MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_replaces_exactly_one_piece_and_takes_the_same_arguments(mistake):
    replaced = {k for k in vars(mistake.derivation) if not k.startswith("__")}
    assert replaced == {mistake.piece}
    wrong, right = getattr(mistake.derivation, mistake.piece), getattr(Derivation, mistake.piece)
    assert (
        list(inspect.signature(wrong).parameters)[1:] == [*inspect.signature(right).parameters][1:]
    )


def test_the_registry_holds_every_mistake_under_a_name_of_its_own_family_by_family():
    assert len(MISTAKES) >= 60
    assert len(MISTAKES) == inspect.getsource(mistakes).count("\ndef _(")
    families = [family for family, _ in groupby(MISTAKES.values(), lambda m: m.family)]
    assert len(families) == len(set(families))


@pytest.mark.parametrize("mistake", MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_has_a_short_name_and_one_sentence(mistake):
    assert MISTAKES[mistake.name] is mistake
    assert re.fullmatch(r"[-+\w\[\]()^'., ]{3,40}", mistake.name)
    sentence = re.sub(r"\bEqs?\. ", "", mistake.sentence)
    assert sentence.endswith(".")
    assert len(sentence) > 20
    assert not re.search(r"[.!?] ", sentence)


def test_one_mistake_alone_writes_to_its_arguments():
    noted = {name: judged(name)[1] for name in MISTAKES}
    written = "the candidate writes to its input x"
    assert {k: {*v} for k, v in noted.items() if v} == {"inputs centred in place": {written}}


def test_a_mistake_in_a_loss_that_it_does_not_know_is_refused():
    for candidate_for in (correct, MISTAKES["1 - h"].candidate):
        with pytest.raises(ValueError, match="loss is 'hinge'; expected one of squared_error"):
            candidate_for("hinge")
