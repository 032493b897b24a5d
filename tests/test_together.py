"""Examples judged together are as many, and show as small a failure, as those judged one by one."""

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from together import assert_no_example_fails

NUMBERS = st.integers(0, 10**6)


def test_as_many_examples_are_judged_as_the_settings_say_and_those_beside_them():
    judged = []

    def failures(numbers):
        judged.append(numbers)
        return []

    assert_no_example_fails(NUMBERS, failures, beside=[-1, -2], max_examples=25)
    ((*beside, _), (*_, last)) = (judged[0][:3], judged[0])
    assert beside == [-1, -2]
    assert len(judged[0]) == 27
    assert last >= 0
    assert_no_example_fails(NUMBERS, failures)
    assert len(judged[1]) == settings().max_examples


def test_a_failure_is_shrunk():
    shown = []

    def failures(numbers):
        shown.append(numbers)
        return [n for n in numbers if n > 1000]

    with pytest.raises(AssertionError):
        assert_no_example_fails(NUMBERS, failures)
    assert shown[-1] == [1001]


def test_a_failure_that_shows_in_all_examples_alone_is_a_failure():
    with pytest.raises(AssertionError):
        assert_no_example_fails(NUMBERS, lambda numbers: numbers if len(numbers) > 1 else [])


def test_an_example_beside_the_others_can_fail():
    with pytest.raises(AssertionError):
        assert_no_example_fails(NUMBERS, lambda numbers: [n for n in numbers if n < 0], beside=[-1])
