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


LABELS, OF_BATCH = np.array([0, 2, 1, 2]), np.array([[0, 1], [2, 2], [1, 0], [0, 0]])


@pytest.mark.parametrize(("y", "labels"), [(ONE, LABELS), (BATCH, OF_BATCH)])
def test_the_cross_entropy_falls_along_its_gradient_as_that_says(y, labels):
    y = y * np.arange(3.0) ** 2
    weights = np.array([1.0, 0.5, 0.0, 2.0])
    for given in ((y, labels), (y, labels, weights)):
        _, dy = mb.cross_entropy(*given)
        step = np.cos(np.arange(y.size)).reshape(y.shape)
        ahead, _ = mb.cross_entropy(y + 1e-6 * step, *given[1:])
        behind, _ = mb.cross_entropy(y - 1e-6 * step, *given[1:])
        assert float(ahead - behind) / 2e-6 == pytest.approx(float((dy * step).sum()), rel=1e-7)


@pytest.mark.parametrize("size", [1e4, -1e4, 1e300])
def test_the_cross_entropy_of_outputs_of_any_size_is_finite(size):
    y = np.array([[0.0, size]])
    for label in (0, 1):
        value, dy = mb.cross_entropy(y, np.array([label]))
        assert float(value) == max(size * (1 - 2 * label), 0)
        assert np.array_equal(np.abs(dy), np.full((1, 2), float(value > 0)))


def test_outputs_that_are_all_alike_have_the_entropy_of_a_guess():
    value, dy = mb.cross_entropy(np.zeros((5, 4)), np.zeros(5, int))
    assert float(value) == pytest.approx(5 * np.log(4))
    np.testing.assert_allclose(dy.sum(-1), 0, atol=1e-16)


@pytest.mark.parametrize(
    ("target", "error", "message"),
    [
        (LABELS.astype(float), TypeError, "target has dtype float64; expected integers"),
        (LABELS[:3], ValueError, "target has shape (3,); expected"),
        (LABELS + 1, ValueError, "target has the label 3; expected numbers from 0 to 2"),
        (LABELS - 1, ValueError, "target has the label -1; expected numbers from 0 to 2"),
        (ONE.astype(int), ValueError, "target has shape (4, 3); expected"),
    ],
)
def test_what_is_no_label_of_an_output_is_refused(target, error, message):
    with pytest.raises(error) as refused:
        mb.cross_entropy(ONE, target)
    assert message in str(refused.value)


def test_the_weights_of_labels_have_no_axis_of_outputs():
    with pytest.raises(ValueError, match=re.escape("expected (T,): (4,)")):
        mb.cross_entropy(ONE, LABELS, ONE)
    with pytest.raises(ValueError, match=re.escape("expected (T,) or (T, B): (4,), (4, 2)")):
        mb.cross_entropy(BATCH, OF_BATCH, BATCH)
