"""What the losses say of arguments that do not fit, and what they leave alone."""

import re

import numpy as np
import pytest

import manual_bptt as mb

ONE, BATCH = np.ones((4, 3)), np.ones((4, 2, 3))


@pytest.mark.parametrize(
    ("y", "expected"), [(ONE, "(T, O) = (4, 3)"), (BATCH, "(T, B, O) = (4, 2, 3)")]
)
def test_a_target_of_another_shape_is_told_the_axes_of_the_outputs(y, expected):
    for target in (np.ones(4), np.ones((4, 3, 2)), np.ones((1, *y.shape))):
        with pytest.raises(ValueError, match="target has shape") as refused:
            mb.squared_error(y, target)
        assert expected.partition(" =")[0] in str(refused.value)


@pytest.mark.parametrize(("y", "axes"), [(ONE, "(O,)"), (BATCH, "(B, O)")])
@pytest.mark.parametrize("target", [np.ones(2), np.ones((3, 2)), np.ones((4, 2, 3))])
def test_a_target_of_the_last_step_is_told_the_axes_of_one_step(y, axes, target):
    with pytest.raises(ValueError, match=rf"target has shape .*{re.escape(axes)}"):
        mb.last_step_squared_error(y, target)


@pytest.mark.parametrize(
    ("y", "expected"),
    [
        (ONE, "expected (T,) or (T, O): (4,), (4, 3)"),
        (BATCH, "expected (T,), (T, B) or (T, B, O): (4,), (4, 2), (4, 2, 3)"),
    ],
)
def test_weights_that_do_not_fit_are_told_every_shape_that_does(y, expected):
    with pytest.raises(ValueError, match="weights has shape") as refused:
        mb.squared_error(y, y, np.ones(5))
    assert str(refused.value).endswith(expected)


def test_weights_are_measured_against_the_outputs_in_their_precision():
    y, target = ONE.astype(np.float32), ONE + 1
    value, dy = mb.squared_error(y, target, weights=np.full(4, 0.1))
    assert dy.dtype == np.float32
    assert float(value) == pytest.approx(1.2)


@pytest.mark.parametrize("y", [ONE.copy(), BATCH.copy(), ONE.astype(int)])
def test_the_outputs_and_the_target_stay_as_they_are(y):
    before = y.copy()
    mb.squared_error(y, y + 1)
    mb.last_step_squared_error(y, y[-1] + 1)
    np.testing.assert_array_equal(y, before)
