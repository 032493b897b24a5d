"""The strategies reach every corner that they promise, in as many examples as a test has."""

import inspect
import textwrap
from functools import cache

import numpy as np
import pytest
from correct_candidates import in_plain_loops
from hypothesis import find, given, settings

import reference
from reference.problems import REGIMES
from reference.strategies import problems, whole_number_sequences

EACH = (True, False, None)


@cache
def drawn(batched):
    """Return what one test of the suite's own profile gets."""
    seen = []

    @given(problems(batched=batched))
    def see(problem):
        seen.append(problem)

    see()
    return seen


def states(p):
    """Return the states after h0, of every sequence and unit."""
    h, after = p.h0, []
    for x_t in p.x:
        h = np.tanh(h @ p.params.W.T + x_t @ p.params.U.T + p.params.b)
        after.append(h)
    return np.array(after)


def slopes(p):
    return 1 - states(p) ** 2


def jacobian(p):
    """Return the largest derivative of the last state in the first, of the first sequence."""
    J = np.eye(p.sizes["H"])
    for slope in slopes(p).reshape(p.sizes["T"], -1, p.sizes["H"])[:, 0]:
        J = slope[:, None] * (p.params.W @ J)
    return np.linalg.norm(J, 2)


def arrays(p):
    return {**p.params._asdict(), "x": p.x, "h0": p.h0, "target": p.target}


CORNERS = {
    "T = 1": lambda p: p.sizes["T"] == 1,
    "T = 2": lambda p: p.sizes["T"] == 2,
    "T = 3": lambda p: p.sizes["T"] == 3,
    "T > 32": lambda p: p.sizes["T"] > 32,
    "D = 1": lambda p: p.sizes["D"] == 1,
    "H = 1": lambda p: p.sizes["H"] == 1,
    "O = 1": lambda p: p.sizes["O"] == 1,
    "H = 8": lambda p: p.sizes["H"] == 8,
    "all sizes different": lambda p: len({*p.sizes.values()}) == len(p.sizes),
    "all sizes above 1": lambda p: min(p.sizes.values()) > 1,
    "most units saturated": lambda p: np.median(np.abs(states(p))) > 0.999,
    "nearly linear": lambda p: np.abs(p.x).max() < 0.01 and np.median(slopes(p)) > 0.9,
    "gradients vanish": lambda p: jacobian(p) < 1e-6,
    "gradients grow": lambda p: jacobian(p) > 1,
    "a norm above 3 over many steps": lambda p: (
        np.linalg.norm(p.params.W, 2) > 3 and p.sizes["T"] > 32
    ),
    "a norm below 1/2": lambda p: np.linalg.norm(p.params.W, 2) < 0.5,
    **{f"regime {k}": lambda p, k=k: f"regime={k!r}" in p.origin for k in REGIMES},
}


@pytest.mark.parametrize("batched", EACH)
@pytest.mark.parametrize("corner", CORNERS)
def test_every_corner_is_reached(corner, batched):
    assert any(CORNERS[corner](p) for p in drawn(batched))


@pytest.mark.parametrize("batched", EACH)
def test_most_problems_tell_transposes_and_axes_apart(batched):
    def most(holds):
        return sum(map(holds, drawn(batched))) > len(drawn(batched)) / 2

    assert most(lambda p: len({p.sizes[k] for k in "DHO"}) == 3)
    assert most(lambda p: not np.allclose(p.params.W, p.params.W.T))
    assert most(lambda p: p.sizes["T"] > 1)


@pytest.mark.parametrize("batched", EACH)
def test_nothing_that_would_hide_a_mistake_is_zero(batched):
    for p in drawn(batched):
        assert all(array.all() for array in arrays(p).values())


def test_batches_of_one_and_of_more_and_single_sequences_all_come():
    sizes = [p.sizes.get("B") for p in drawn(None)]
    assert min(sizes.count(None), sizes.count(1), sum(B is not None and B > 1 for B in sizes)) >= 5
    assert {p.sizes["B"] for p in drawn(True)} == {1, 2, 3, 4}
    assert all("B" not in p.sizes and p.h0.ndim == 1 for p in drawn(False))


@pytest.mark.parametrize(
    ("options", "holds"),
    [
        ({"dtype": "float32"}, lambda p: {a.dtype.name for a in arrays(p).values()} == {"float32"}),
        ({}, lambda p: {a.dtype.name for a in arrays(p).values()} == {"float64"}),
        ({"longest": 5}, lambda p: p.sizes["T"] <= 5),
        ({"longest": 1}, lambda p: p.sizes["T"] == 1),
        ({"regimes": ("linear",)}, lambda p: "regime='linear'" in p.origin),
        ({"sizes": {"O": 1, "T": 7}}, lambda p: (p.sizes["O"], p.sizes["T"]) == (1, 7)),
        ({"batched": True, "sizes": {"B": 3}}, lambda p: p.h0.shape[0] == 3),
        (
            {"loss": "last_step_squared_error", "batched": False},
            lambda p: p.target.shape == (p.sizes["O"],),
        ),
    ],
)
def test_options_are_obeyed(options, holds):
    @settings(max_examples=20)
    @given(problems(**options))
    def check(problem):
        assert holds(problem)

    check()


def test_longest_is_reached():
    assert find(problems(longest=5), lambda p: p.sizes["T"] == 5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"regimes": ("stormy",)}, "regimes is ('stormy',); expected any of contracting,"),
        ({"regimes": ()}, "regimes is (); expected any of contracting,"),
        ({"longest": 0}, "longest is 0; expected at least 1"),
        ({"sizes": {"N": 2}}, "sizes names 'N'; expected any of T D H O"),
        ({"sizes": {"B": 2}}, "sizes names 'B'; expected any of T D H O"),
        ({"sizes": {"H": 0}}, "sizes has H=0; expected an integer of at least 1"),
    ],
)
def test_problems_refuses_at_once(options, message):
    with pytest.raises(ValueError, match="expected") as caught:
        problems(**options)
    assert message in str(caught.value)


# Shrinking, printing ------------------------------------------------------------------------------

SMALLEST = {"T": 1, "D": 1, "H": 1, "O": 1}


@pytest.mark.parametrize(
    ("batched", "fails", "smallest"),
    [
        (None, lambda s: True, SMALLEST),
        (True, lambda s: True, SMALLEST | {"B": 1}),
        (False, lambda s: s["T"] > 2, SMALLEST | {"T": 3}),
        (False, lambda s: s["T"] > 10, SMALLEST | {"T": 11}),
        (None, lambda s: s["H"] > 1 and s["O"] > 2, SMALLEST | {"H": 2, "O": 3}),
        (True, lambda s: s["B"] > 1 and s["D"] > s["H"], SMALLEST | {"B": 2, "D": 2}),
    ],
)
def test_an_example_shrinks_to_the_smallest_shape_that_fails(batched, fails, smallest):
    found = find(problems(batched=batched), lambda p: fails(p.sizes))
    assert found.sizes == smallest
    assert "regime='contracting', seed=0," in found.origin


@pytest.mark.parametrize(
    "strategy",
    [
        problems(),
        problems(dtype="float32", loss="last_step_squared_error", sizes={"H": 2}),
        whole_number_sequences(),
        whole_number_sequences(last_step=True),
    ],
)
def test_what_is_printed_makes_the_same_problem_bit_for_bit(strategy):
    @settings(max_examples=20)
    @given(strategy)
    def check(problem):
        again = eval(repr(problem), {"reference": reference})
        assert again.loss == problem.loss
        for k, array in arrays(problem).items():
            assert arrays(again)[k].dtype == array.dtype
            assert arrays(again)[k].shape == array.shape
            assert arrays(again)[k].tobytes() == array.tobytes()

    check()


def test_whole_numbers_shrink_to_zeros():
    found = find(whole_number_sequences(), lambda p: p.sizes["H"] == 2)
    assert found.sizes == SMALLEST | {"H": 2}
    assert not any(array.any() for array in arrays(found).values())


# The example for other people's test suites -------------------------------------------------------


def example_with(my_gradients):
    """Return the test in the docstring of problems."""
    text = inspect.getdoc(problems)
    start, end = text.index("    from hypothesis"), text.index("\nParameters\n")
    namespace = {"my_gradients": my_gradients}
    exec(textwrap.dedent(text[start:end]), namespace)
    return settings(max_examples=30)(namespace["test_my_gradients"])


def test_the_example_passes_with_right_gradients_and_with_some_left_out():
    example_with(in_plain_loops)()
    example_with(lambda *a: {k: g for k, g in in_plain_loops(*a).items() if k in "Wb"})()


def test_the_example_finds_a_wrong_gradient_and_the_smallest_shape_that_shows_it():
    def transposed(params, x, h0, target):
        grads = in_plain_loops(params, x, h0, target)
        return grads | {"W": grads["W"].T}

    with pytest.raises(AssertionError) as caught:
        example_with(transposed)()
    (falsifying,) = (note for note in caught.value.__notes__ if "random_problem(" in note)
    assert "random_problem(T=1, B=None, D=1, H=2, O=1, regime='contracting'" in falsifying
