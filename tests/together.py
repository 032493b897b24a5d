"""Examples of Hypothesis that are judged together.

One call of the oracle computes as much for one problem as for sixteen, so to judge each example as
it is drawn takes several times as long.
"""

import os
import random
import zlib

from hypothesis import given, seed, settings

from reference import judge

RIGHT = ("match", "nothing proved")


def assert_no_example_fails(strategy, failures, *, beside=(), **options):
    """Assert that ``failures``, of all examples of a strategy in a list, returns an empty list.

    Where it does not, the same examples are drawn again and judged one by one, so that Hypothesis
    shows the smallest that fails. ``beside`` are examples to judge beside those drawn, ``options``
    settings of Hypothesis.
    """
    # Every test draws examples of its own, the same in every run unless the profile is "random".
    fixed, test = settings().derandomize, os.environ["PYTEST_CURRENT_TEST"]
    number = zlib.crc32(test.encode()) if fixed else random.getrandbits(32)

    def for_each_example(function):
        seed(number)(settings(**options)(given(strategy)(function)))()

    drawn = [*beside]

    def draw(example):
        drawn.append(example)

    def holds(example):
        assert not failures([example])

    for_each_example(draw)
    found = failures(drawn)
    if found:
        for_each_example(holds)
    assert not found


def assert_equal_to_autodiff(gradients_of, strategy, returned, *, allowed=RIGHT, **options):
    """Assert that ``failures_of`` finds none in the problems of a strategy, judged together."""

    def failures(problems):
        return failures_of(gradients_of, problems, returned, allowed)

    assert_no_example_fails(strategy, failures, **options)


def failures_of(gradients_of, problems, returned, allowed=RIGHT):
    """Return each verdict on a gradient returned that is not one of those allowed, and each note.

    Raises AssertionError if what is returned for a problem is not what is said to be.
    """
    judged = [*judge(gradients_of, problems)]
    assert len(judged) == len(problems)
    found = []
    for verdicts, notes in judged:
        of_returned = [v for v in verdicts if v.status != "not returned"]
        assert {v.gradient for v in of_returned} == {*returned}
        found += [v for v in of_returned if v.status not in allowed]
        found += notes.values()
    return found
