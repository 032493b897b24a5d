"""A wrong gradient is explained by the mistake that was made, or by none."""

from functools import cache
from itertools import combinations

import jax.numpy as jnp
import numpy as np
import pytest
from correct_candidates import CANDIDATES, in_plain_loops

import reference
from reference.explaining import diagnosis
from reference.explaining.diagnosis import Evidence, explain, gather, telling_problems
from reference.explaining.observations import observations
from reference.findings import Diagnosis, Finding
from reference.judging.candidates import Caller, returned
from reference.mistakes import LOSSES, MISTAKES, combined, correct, results_of
from reference.network.gradients import GRADIENTS

# In the loss of the last step these change nothing, or are the same as another.
NOT_IN_THE_LAST_STEP = {
    "last state in dV",
    "last target at every step",
    "first output ignored",
    "output term at the last step alone",
    "dc from the last step alone",
    "loss of the last step alone",
    "each output followed for 8 steps",
    "last 8 steps alone",
}
ONLY_IN_THE_LAST_STEP = "every step in the loss of the last one"
# What these do is hidden by the rounding of float32, in these problems.
NOT_IN_FLOAT32 = {
    "slope off by 1e-7",
    "weight decay in dW",
    "1e-8 added to the slope",
    "rounded to six decimals",
    "small gradients set to zero",
}


@pytest.fixture(autouse=True, scope="module")
def every_mistake_is_tried_once_on_a_problem():
    """Keep what the mistakes give for a problem, which is the same whatever the candidate."""
    known, results = {}, diagnosis._results

    def once(derivation, problem):
        pieces = frozenset(item for item in vars(derivation).items() if item[0][:2] != "__")
        key = pieces, id(problem)
        if key not in known:
            known[key] = results(derivation, problem), problem  # kept, so that no other has its id
        return known[key][0]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(diagnosis, "_results", once)
        yield


@cache
def right(loss="squared_error", dtype="float64", batched=True):
    """Return the evidence on the right derivation, and so the answers of autodiff."""
    made = telling_problems(loss=loss, dtype=dtype, batched=batched, sizes={})
    return gather(Caller(correct(loss)), made)


def evidence(candidate, like):
    """Return the evidence on a candidate in the same problems."""
    answers = {id(e.problem): e.truth for e in like}
    found = []
    for e in like:
        call = Caller(candidate)(e.problem)
        arrays = {k: call.array(k) for k in returned(e.problem.cell)}
        found.append(Evidence.of(e.problem, arrays, answers[id(e.problem)]))
    return found


def explained(candidate, *, loss="squared_error", **like):
    """Return [(names, gradients)] of the findings, and what is left unexplained."""
    findings, left = explain(evidence(candidate, right(loss, **like)))
    return [([m.name for m in f.mistakes], f.gradients) for f in findings], left


@pytest.mark.parametrize("name", MISTAKES)
def test_every_mistake_is_named_with_the_gradients_that_it_spoils(name):
    loss = LOSSES[name == ONLY_IN_THE_LAST_STEP]
    mistake = MISTAKES[name]
    assert explained(mistake.candidate(loss), loss=loss) == ([([name], mistake.affects)], ())


@pytest.mark.parametrize("name", list(MISTAKES)[::4])
def test_mistakes_are_named_in_float32_too(name):
    if name not in NOT_IN_FLOAT32 | {ONLY_IN_THE_LAST_STEP}:
        found, left = explained(MISTAKES[name].candidate(), dtype="float32")
        assert [names for names, _ in found] == [[name]]
        assert not left


@pytest.mark.parametrize("name", list(MISTAKES)[1::4])
def test_mistakes_are_named_in_the_loss_of_the_last_step_too(name):
    if name not in NOT_IN_THE_LAST_STEP:
        found, left = explained(MISTAKES[name].candidate(LOSSES[1]), loss=LOSSES[1])
        assert [names for names, _ in found] == [[name]]
        assert not left


@pytest.mark.parametrize("name", CANDIDATES)
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_correct_code_in_other_clothes_is_given_no_mistake(name, dtype):
    assert explained(CANDIDATES[name], dtype=dtype) == ([], ())


def with_changes(**changes):
    """Return the textbook's derivation with some of its results changed."""

    def candidate(params, x, h0, target):
        found = correct()(params, x, h0, target)
        return found | {k: change(found[k], params, x) for k, change in changes.items()}

    return candidate


def zero_but(place):
    def change(g, *_):
        kept = np.zeros_like(g)
        kept[place] = g[place]
        return kept

    return change


UNKNOWN = {
    "1.5 times": with_changes(W=lambda g, *_: 1.5 * g),
    "divided by the root of T": with_changes(U=lambda g, p, x: g / np.sqrt(len(x))),
    "a row shuffled": with_changes(W=lambda g, *_: np.roll(g, 1, axis=0)),
    "columns reversed": with_changes(U=lambda g, *_: g[:, ::-1]),
    "one entry off": with_changes(V=lambda g, *_: g + 1e-6 * np.eye(*g.shape)),
    "noise": with_changes(b=lambda g, *_: g + np.random.default_rng(0).standard_normal(g.shape)),
    "the sign of x": with_changes(x=lambda g, *_: np.sign(g)),
    "upper triangle": with_changes(W=lambda g, *_: np.triu(g)),
    "first unit alone": with_changes(h0=zero_but((..., 0))),
    "c halved beside a right V": with_changes(c=lambda g, *_: g / 2),
    "V doubled beside a right c": with_changes(V=lambda g, *_: 2 * g),
    "a strong weight decay": with_changes(W=lambda g, p, _: g + 0.01 * p.W),
    "U taken for W": with_changes(W=lambda g, p, _: g + p.W @ p.W),
    "absolute values": with_changes(c=lambda g, *_: np.abs(g)),
    "softly clipped": with_changes(**{k: lambda g, *_: np.tanh(g) for k in "WUbVc"}),
}


def with_slope(slope):
    """Return the textbook's derivation with another derivative of tanh."""
    derivation = type("Other", (combined([]),), {"slope": slope})

    def candidate(params, x, h0, target):
        problem = reference.Problem(params, x, h0, target, "squared_error", "")
        return results_of(derivation, problem)

    return candidate


UNKNOWN |= {
    "a leak in the slope": with_slope(lambda d, t: 0.9 * (1 - d.h[t] ** 2) + 0.1),
    "the slope of softsign": with_slope(lambda d, t: (1 - np.abs(d.h[t])) ** 2),
    "cubed": with_slope(lambda d, t: 1 - np.abs(d.h[t]) ** 3),
    "a linear slope": with_slope(lambda d, t: np.clip(1 - d.a[t], 0, 1)),
}


@pytest.mark.parametrize("name", UNKNOWN)
def test_a_mistake_that_is_not_registered_is_given_no_name(name):
    like = right()
    found = evidence(UNKNOWN[name], like)
    wrong = {k for k in GRADIENTS if any(e.ratio.get(k, 0) > 1 for e in found)}
    findings, left = explain(found)
    assert wrong
    assert findings == []
    assert set(left) == wrong


def disjoint_pairs():
    """Return pairs of mistakes in different pieces that spoil different gradients."""
    alone = [
        m for m in MISTAKES.values() if len(m.affects) <= 2 and m.name != ONLY_IN_THE_LAST_STEP
    ]
    pairs = [
        (a, b)
        for a, b in combinations(alone, 2)
        if a.piece != b.piece and not {*a.affects} & {*b.affects}
    ]
    chosen = np.random.default_rng(0).permutation(len(pairs))[:24]
    return [pairs[i] for i in chosen]


def of_both(a, b):
    def candidate(params, x, h0, target):
        problem = reference.Problem(params, x, h0, target, "squared_error", "")
        return results_of(combined([a, b]), problem)

    return candidate


@pytest.mark.parametrize(("a", "b"), disjoint_pairs(), ids=lambda m: m.name)
def test_two_mistakes_in_different_gradients_are_two_findings(a, b):
    found, left = explained(of_both(a, b))
    assert sorted(found) == sorted([([a.name], a.affects), ([b.name], b.affects)])
    assert not left


@pytest.mark.parametrize(
    ("a", "b"), [("1 - h", "dW transposed"), ("factor 2 lost", "W for its transpose")]
)
def test_one_mistake_on_top_of_another_is_found_as_well(a, b):
    found, left = explained(of_both(MISTAKES[a], MISTAKES[b]))
    assert {name for names, _ in found for name in names} == {a, b}
    assert not left


def only(names, candidate):
    return lambda *a: {k: v for k, v in candidate(*a).items() if k in names}


def test_what_cannot_be_told_apart_is_all_named():
    both = {"loss of the last step alone", "dc from the last step alone"}
    for name in both:
        ((names, gradients),), _ = explained(only("c", MISTAKES[name].candidate()))
        assert {*names} == both
        assert gradients == ("c",)
    mistakes = [m for m in MISTAKES.values() if m.affects == ("c",)]
    lines = Finding(("c",), tuple(mistakes[:1] * 6)).lines()
    assert lines[0].startswith("c: one of these")
    assert lines[-1] == "  or 2 more"


def test_the_gradients_of_the_parameters_alone_are_enough():
    for name in ("W for its transpose", "x[t-1] for x[t] in dU", "last 8 steps alone"):
        found, left = explained(only("WUbVc", MISTAKES[name].candidate()))
        assert [names for names, _ in found] == [[name]]
        assert not left


# The whole way, from a candidate to the words -----------------------------------------------------


def test_diagnose_is_false_for_correct_code_and_says_so():
    found = reference.diagnose(in_plain_loops, cases=8, batched=False)
    assert not found
    assert str(found) == str(Diagnosis())
    assert "nothing is wrong" in str(found)


@pytest.mark.parametrize(
    "options",
    [{"batched": False}, {"batched": False, "loss": LOSSES[1]}, {"sizes": {"O": 1, "H": 3}}],
    ids=str,
)
def test_a_report_names_the_mistake_and_where_it_shows(options):
    mistake = MISTAKES["no recurrence"].candidate(options.get("loss", LOSSES[0]))
    report = reference.compare(mistake, cases=12, **options)
    assert report.diagnosis.names == ["no recurrence"]
    text = str(report)
    assert f"no recurrence. {MISTAKES['no recurrence'].sentence}" in text
    assert "sequences of one step are right, wrong from T = 2 on" in text
    assert report.as_dict()["diagnosis"]["findings"][0]["mistakes"][0]["family"] == "recursion"
    assert "no recurrence" in report._repr_html_()


def test_a_mistake_is_named_for_any_loss():
    def loss(y, target):
        return jnp.sum(jnp.abs(y - target) ** 3)

    def candidate(params, x, h0, target):
        problem = reference.Problem(params, x, h0, target, loss, "")
        return results_of(MISTAKES["dW transposed"].derivation, problem)

    report = reference.compare(candidate, loss=loss, cases=4, batched=False)
    assert report.diagnosis.names == ["dW transposed"]
    assert [row.gradient for row in report.rows if row.status == "mismatch"] == ["W"]
    sizes = {"T": 2, "B": 1, "D": 1, "H": 1, "O": 1}
    problem = reference.random_problem(**sizes, regime="linear", seed=0, loss=loss)
    with pytest.raises(ValueError, match="in the gradient of squared errors"):
        results_of(MISTAKES["factor 2 lost"].derivation, problem)


SEEN = {
    "b: zero": with_changes(b=lambda g, *_: 0 * g),
    "W: 1.5 times the right answer": with_changes(W=lambda g, *_: 1.5 * g),
    "U: 1/sqrt(T) times the right answer": with_changes(U=lambda g, p, x: g / np.sqrt(len(x))),
    "V: 2 T times the right answer": with_changes(V=lambda g, p, x: 2 * len(x) * g),
    "b: -1 times the right answer": with_changes(b=lambda g, *_: -g),
    "c: 1.1 times the right answer, where it is wrong": with_changes(
        c=lambda g, p, x: g * (1.1 if len(x) > 20 else 1)
    ),
    "U: off by at most 1.0e-09 of the largest entry": with_changes(U=lambda g, *_: g * (1 + 1e-9)),
    "V: 1/(T B) times the right answer": with_changes(
        V=lambda g, p, x: g / (x.shape[0] * x.shape[1])
    ),
    "c: 2 times the right answer": with_changes(c=lambda g, *_: 2 * g),
    "W: off by 0.01 times W: a weight decay?": with_changes(W=lambda g, p, _: g + 0.01 * p.W),
    "W: wrong only on the diagonal": with_changes(W=lambda g, *_: g + np.diag(np.diag(g))),
    "U: wrong only in the last column": with_changes(
        U=lambda g, *_: np.concatenate([g[:, :-1], g[:, :1]], 1)
    ),
    "h0: wrong only in sequence 0": with_changes(
        h0=lambda g, *_: g * (np.arange(len(g)) > 0)[:, None]
    ),
    "W: right on the diagonal, wrong elsewhere": with_changes(W=lambda g, *_: np.diag(np.diag(g))),
}


@pytest.mark.parametrize("line", SEEN)
def test_what_no_mistake_explains_is_described(line):
    found = evidence(SEEN[line], right())
    assert observations(line[: line.index(":")].split(), found) == [line]


def test_a_small_error_of_the_size_of_float32_is_said_to_be():
    narrow = with_changes(W=lambda g, *_: (g * (1 + 1e-8 * np.sin(g))).astype(np.float32))
    (line,) = observations(["W"], evidence(narrow, right()))
    assert line.startswith("W: off by at most ")
    assert line.endswith("of the largest entry, as if something were computed in float32")


def test_the_steps_whose_error_goes_wrong_are_named():
    def forgets_the_first_outputs(params, x, h0, target):
        late = target.copy()
        y = reference.mistakes.outputs_of(reference.Problem(params, x, h0, target, LOSSES[0], ""))
        late[:3] += 0.5 * (y - target)[:3]
        return correct()(params, x, h0, late)

    report = reference.compare(only("Wc", forgets_the_first_outputs), cases=12, batched=False)
    assert report.diagnosis.unexplained == ("W", "c")
    assert "of 36 steps, wrong where the error is in y[t] alone for t = 1-3" in str(report)


def test_a_gradient_that_goes_wrong_only_in_the_telling_problems_is_not_left_a_match():
    small = MISTAKES["small gradients set to zero"].candidate()
    report = reference.compare(small, cases=12, batched=False)
    wrong = {row.gradient: row.failures for row in report.rows if row.status == "mismatch"}
    assert wrong["V"] == wrong["c"] == 1
    assert report.diagnosis.names == ["small gradients set to zero"]
    assert {k for finding in report.diagnosis.findings for k in finding.gradients} <= wrong.keys()


CUT = type(
    "Cut", (combined([]),), {"from_next": lambda d, t: (t > 2) * (d.da[t + 1] @ d.W)}
)  # nothing travels into h[2] and before: the gradient in h0 is zero because of that


def test_a_gradient_that_follows_from_an_unknown_dh_is_given_no_name():
    def candidate(params, x, h0, target):
        return results_of(CUT, reference.Problem(params, x, h0, target, LOSSES[0], ""))

    for names in (None, "WUbVc", ("W", "U", "b", "V", "c", "h0")):
        found, left = explained(candidate if names is None else only(names, candidate))
        assert found == []
        assert {*"WUb"} <= {*left}


def test_a_mistake_that_spoils_more_than_it_explains_is_not_named():
    spoilt = with_changes(h0=lambda g, *_: 0 * g, b=lambda g, *_: np.sin(g))
    found, left = explained(spoilt)
    assert found == [(["dh0 left at zero"], ("h0",))]  # and not the one that spoils W too
    assert left == ("b",)


def test_what_depends_on_other_things_than_the_length_is_not_put_down_to_it():
    def where_saturated(params, x, h0, target):
        found = correct()(params, x, h0, target)
        return found | {"W": found["W"] * (1.5 if (np.abs(found["states"]) > 0.999).any() else 1)}

    report = reference.compare(where_saturated, cases=40, batched=False)
    assert report.diagnosis.unexplained == ("W",)
    assert "W: 1.5 times the right answer, where it is wrong" in report.diagnosis.seen
    assert report.diagnosis.places == []


def test_a_candidate_that_gives_something_else_each_time_is_not_explained():
    rng = np.random.default_rng(0)
    report = reference.compare(
        with_changes(W=lambda g, *_: g * rng.uniform(1, 2)), cases=12, batched=False
    )
    assert report.diagnosis.findings == []
    assert report.diagnosis.seen == [
        "called again with the same arguments, it returns something else"
    ]


def test_where_something_stays_unexplained_all_that_fits_the_rest_is_named():
    both = of_both(MISTAKES["last output ignored"], MISTAKES["slope at h[t+1]"])
    ((names, gradients),), left = explained(only("bc", both))
    assert {"last output ignored", "last step left out of dc"} <= {*names}
    assert (gradients, left) == (("c",), ("b",))
