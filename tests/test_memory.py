"""Candidates that are right in their first calls, and wrong in those after them."""

import time

import numpy as np
import pytest

import reference
from reference.judging.candidates import Caller
from reference.judging.memory import to_call_again
from reference.judging.processes import CandidateProcess
from reference.mistakes import correct

ARRAYS = ("W", "U", "b", "V", "c", "x", "h0", "target")


def by_name(params, x, h0, target):
    return {**params._asdict(), "x": x, "h0": h0, "target": target}


def right(*arguments):
    found = correct()(*arguments)
    return {k: np.array(found[k]) for k in ("W", "U", "b", "V", "c")}


def shapes(*arguments):
    return tuple(array.shape for array in by_name(*arguments).values())


def added_up(most=None):
    """Return a candidate with a sum for each shape that is never cleared, or for the last few."""
    kept = {}

    def candidate(*arguments):
        key = shapes(*arguments)
        before = kept.pop(key, None)
        if most is not None and len(kept) >= most:
            del kept[next(iter(kept))]
        found = right(*arguments)
        kept[key] = found if before is None else {k: found[k] + before[k] for k in found}
        return kept[key]

    return candidate


def cached(key):
    """Return a candidate that keeps results by a key, and the arrays, whose ids stay theirs."""
    kept = {}

    def candidate(*arguments):
        found = key(*arguments)
        if found not in kept:
            kept[found] = right(*arguments), arguments
        return kept[found][0]

    return candidate


def cached_by_all_but(name):
    def key(*arguments):
        arrays = by_name(*arguments)
        return len(arrays["x"]), *(a.tobytes() for k, a in arrays.items() if k != name)

    return cached(key)


def with_state(step):
    """Return a candidate whose result a function changes; that gets a dict to keep things in."""
    kept = {}

    def candidate(*arguments):
        return step(right(*arguments), kept, *arguments)

    return candidate


def from_the_last_state(found, kept, params, x, h0, target):
    """Begin where a call of the same shape has ended, as a stateful layer does."""
    start = kept.get("h") if np.shape(kept.get("h")) == h0.shape else h0
    h = start
    for x_t in x:
        h = np.tanh(h @ params.W.T + x_t @ params.U.T + params.b)
    kept["h"] = h
    return right(params, x, start, target) if kept.get("x") == x.shape else _seen(kept, found, x)


def _seen(kept, found, x):
    kept["x"] = x.shape
    return found


def twice_in_a_row(found, kept, *arguments):
    again = kept.get("shapes") == shapes(*arguments)
    kept["shapes"] = shapes(*arguments)
    return {k: 2 * v for k, v in found.items()} if again else found


def after(calls):
    def step(found, kept, *_):
        kept["n"] = kept.get("n", 0) + 1
        return found if kept["n"] <= calls else {k: 2 * v for k, v in found.items()}

    return step


def seen_before(change):
    def step(found, kept, *arguments):
        key = shapes(*arguments)
        again = key in kept
        kept[key] = True
        return change(found) if again else found

    return step


def raises(found):
    raise ValueError("the buffer is in use")


REMEMBERING = {
    "a sum for each shape": lambda: added_up(),
    "a sum for each of the last eight shapes": lambda: added_up(8),
    "a sum for the last shape": lambda: added_up(1),
    "results by shape": lambda: cached(shapes),
    "results by the identity of params": lambda: cached(lambda params, *_: id(params)),
    "results by the identity of W": lambda: cached(lambda params, *_: id(params.W)),
    "results by the address of x": lambda: cached(lambda params, x, *_: (x.ctypes.data, x.shape)),
    "results by the bytes of h0": lambda: cached(lambda params, x, h0, target: h0.tobytes()),
    "results by the sum of x": lambda: cached(lambda params, x, *_: float(x.sum())),
    **{f"results by all but {k}": lambda k=k: cached_by_all_but(k) for k in ARRAYS},
    "the state where the last call ended": lambda: with_state(from_the_last_state),
    "the shape of the last call": lambda: with_state(twice_in_a_row),
    "how many calls there were": lambda: with_state(after(25)),
    "a shape, and returns nothing for it": lambda: with_state(
        seen_before(lambda found: {**found, "W": None})
    ),
    "a shape, and raises": lambda: with_state(seen_before(raises)),
    "a shape, and is off in float32": lambda: with_state(
        seen_before(lambda found: {k: v.astype(np.float32) for k, v in found.items()})
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", REMEMBERING)
def test_what_remembers_earlier_calls_does_not_pass(name):
    options = {"cases": 20, "batched": len(name) % 2 == 0, "explained": False}
    report = reference.compare(REMEMBERING[name](), **options)
    assert not report.passed
    (objection,) = report.objections
    assert "on earlier calls: right when every problem was met for the first time" in objection


def zeroed():
    kept = {}

    def candidate(*arguments):
        found = right(*arguments)
        buffers = kept.setdefault(shapes(*arguments), {k: 0 * v for k, v in found.items()})
        for k, v in found.items():
            buffers[k][...] = 0
            buffers[k] += v
        return buffers

    return candidate


def test_a_slow_candidate_is_called_again_too():
    remembering = added_up()

    def slow(*arguments):
        time.sleep(0.02)
        return remembering(*arguments)

    report = reference.compare(slow, cases=200, time_budget=0.5)
    assert not report.passed
    assert any("problems were judged" in note for note in report.notes)
    assert any("on earlier calls" in objection for objection in report.objections)


@pytest.mark.parametrize(
    "candidate", [zeroed(), cached_by_all_but(None), right], ids=["buffers", "a cache", "nothing"]
)
def test_what_keeps_buffers_or_results_rightly_passes(candidate):
    report = reference.compare(candidate, cases=20)
    assert report.passed, report
    assert not report.notes


@pytest.mark.parametrize(
    ("name", "said", "judged"),
    [
        ("a sum for each shape", "called twice with the problem below", "problem, problem"),
        ("results by shape", "called again with W alone changed", "first, second"),
        ("results by all but h0", "called again with h0 alone changed", "first, second"),
    ],
)
def test_the_two_calls_that_show_it_are_named(name, said, judged):
    report = reference.compare(REMEMBERING[name](), cases=20, batched=False)
    assert any(said in line for line in report.diagnosis.lines())
    *made, shown = report.smallest.lines
    assert f"[{judged}" in shown
    names = {"reference": reference, "candidate": REMEMBERING[name]()}
    exec("\n".join(line for line in made if "problem(" in line), names)
    problems = [names[k.strip()] for k in shown[shown.index("[") + 1 : shown.index("]")].split(",")]
    again = reference.Report.of(reference.judge(names["candidate"], problems))
    wrong = {row.gradient for row in again.rows if row.status == "mismatch"}
    assert {*report.smallest.values} == wrong
    assert {row.failures for row in again.rows if row.gradient in wrong} == {1}


def test_one_problem_shows_nothing_of_a_stale_buffer_and_two_do(tmp_path, monkeypatch):
    """A buffer as long as the longest sequence, of which too much is read."""
    (tmp_path / "stale.py").write_text(STALE)
    monkeypatch.chdir(tmp_path)
    with CandidateProcess("stale:gradients") as process:
        report = reference.compare(process, cases=20, batched=False)
    assert not report.passed
    assert any("after a longer sequence it is wrong" in line for line in report.diagnosis.lines())
    assert report.smallest.lines[-1].endswith("[first, second])))")


STALE = """
import numpy as np

carried = np.zeros((300, 20))


def gradients(params, x, h0, target):
    W, U, b, V, c = params
    H, T, h = len(b), len(x), [h0]
    for x_t in x:
        h.append(np.tanh(W @ h[-1] + U @ x_t + b))
    db = np.zeros(H)
    for t in range(T, 0, -1):
        dh = V.T @ (2 * (V @ h[t] + c - target[t - 1])) + carried[t + 1, :H]
        da = (1 - h[t] ** 2) * dh
        carried[t, :H] = W.T @ da
        db += da
    return {"b": db}
"""


def test_problems_are_called_again_in_another_order_and_with_one_array_changed():
    drawn = list(reference.draw_problems(200, 0, dtype="float64", batched=True))
    again = list(to_call_again(drawn))
    numbers = [drawn.index(p) for p in again if p in drawn]
    assert numbers == sorted(numbers, reverse=True)
    assert (numbers[0], numbers[-1]) == (199, 0)
    rest = [p for p in again if p not in drawn]
    assert len(rest) == 2 * 12
    for group in (rest[:12], rest[12:]):
        first, second, other, *changed, last = (p.arrays for p in group)
        for arrays in (second, last):
            assert all(np.array_equal(arrays[k], first[k]) for k in ARRAYS)
        for name, arrays in zip(ARRAYS, changed, strict=True):
            assert [k for k in ARRAYS if not np.array_equal(arrays[k], first[k])] == [name]
            assert np.array_equal(arrays[name], other[name])


def test_arrays_of_the_same_shapes_are_the_same_objects_filled_anew():
    seen = []

    def candidate(params, x, h0, target):
        seen.append((params, x, x.copy()))
        return {"b": params.b}

    caller = Caller(candidate)
    sizes = {"T": 2, "B": 1, "D": 1, "H": 1, "O": 1, "regime": "linear"}
    one, other = (reference.random_problem(**sizes, seed=seed) for seed in (0, 1))
    longer = reference.random_problem(**sizes | {"T": 3}, seed=0)
    called = (one, other, longer, one)
    for problem in called:
        assert caller(problem).notes == {}
    assert [p is seen[0][0] for p, _, _ in seen] == [True, True, False, False]
    assert seen[0][1] is seen[1][1]
    assert [
        np.array_equal(x, p.x) for (_, _, x), p in zip(seen, (one, other, longer, one), strict=True)
    ]


def test_names_that_nobody_read_beside_gradients_that_nobody_returned_are_no_pass():
    def unread(*arguments):
        found = right(*arguments)
        return {"dW1": 7 * found["U"], "dW2": -found["W"], "db": found["b"]}

    report = reference.compare(unread, cases=8)
    assert not report.passed
    said = (
        "'dW1', 'dW2' are not names of gradients, and W U V c were not returned: expected W U b V"
    )
    assert report.objections[0].startswith(said)
    assert not any("dWx" in note for note in report.notes)
    assert said in str(report)


@pytest.mark.parametrize(
    ("change", "passes"),
    [
        (lambda found: found | {"loss": 1.0}, True),
        (lambda found: {k: found[k] for k in "WUbV"} | {"loss": 1.0}, False),
        (lambda found: {k: found[k] for k in "WUbV"} | {"loss": None}, True),
        (lambda found: {k: found[k] for k in "WUbV"} | {"c": None, 3: 1}, False),
        (lambda found: {k: found[k] for k in "WUbV"}, True),
    ],
)
def test_what_else_is_returned_beside_all_gradients_is_only_noted(change, passes):
    report = reference.compare(lambda *a: change(right(*a)), cases=4)
    assert report.passed == passes
    assert bool(report.objections) != passes
