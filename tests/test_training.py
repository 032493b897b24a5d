"""Plain stochastic gradient descent and its batches."""

from itertools import islice

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from manual_bptt.gradients import loss_and_gradients
from manual_bptt.losses import last_step_squared_error, squared_error
from manual_bptt.params import init_params
from manual_bptt.training import DivergenceError, sgd, shuffled_batches

T, N, D, H, O = 4, 12, 3, 5, 2
OPTIONS = {"loss": last_step_squared_error, "rate": 0.01, "batch_size": 4, "steps": 7}


def problem(seed=0, dtype=np.float64):
    rng = np.random.default_rng(seed)
    x, target = rng.standard_normal((T, N, D)), rng.standard_normal((N, O))
    return init_params(D, H, O, rng=rng, dtype=dtype), x.astype(dtype), target.astype(dtype)


def assert_same(one, other):
    for a, b in zip(one, other, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_each_step_takes_rate_times_gradient_off_every_parameter(dtype):
    params, x, target = problem(dtype=dtype)
    trained = sgd(params, x, target, rng=3, **OPTIONS)
    batches = shuffled_batches(N, 4, np.random.default_rng(3))
    for step, batch in enumerate(islice(batches, 7)):
        loss, grads = loss_and_gradients(
            params, x[:, batch], target[batch], loss=last_step_squared_error
        )
        params = type(params)(*(p - 0.01 * g for p, g in zip(params, grads[:5], strict=True)))
        assert trained.losses[step] == loss
    assert_same(trained.params, params)
    assert {p.dtype for p in trained.params} == {np.dtype(dtype)}


def test_targets_of_every_step_follow_their_sequences_into_the_batch():
    params, x, _ = problem()
    target = np.random.default_rng(1).standard_normal((T, N, O))
    trained = sgd(params, x, target, rng=3, **{**OPTIONS, "loss": squared_error, "steps": 1})
    batch = next(shuffled_batches(N, 4, np.random.default_rng(3)))
    loss, _ = loss_and_gradients(params, x[:, batch], target[:, batch])
    assert trained.losses.tolist() == [loss]


def test_the_same_seed_trains_the_same_and_another_does_not():
    one, same, other = (sgd(*problem(), rng=seed, **OPTIONS) for seed in (1, 1, 2))
    assert_same(one.params, same.params)
    assert_same([one.losses], [same.losses])
    assert (one.losses != other.losses).any()


def test_the_starting_parameters_and_the_data_stay_as_they_were():
    params, x, target = problem()
    kept = problem()
    sgd(params, x, target, rng=0, **OPTIONS)
    assert_same(params, kept[0])
    assert_same([x, target], kept[1:])


def test_on_step_hears_every_step_from_1_with_its_loss():
    heard = []
    trained = sgd(*problem(), rng=0, on_step=lambda *step: heard.append(step), **OPTIONS)
    assert heard == list(enumerate(trained.losses.tolist(), start=1))


@given(st.integers(1, 30), st.integers(1, 30), st.integers(0, 99))
def test_one_pass_of_batches_holds_no_sequence_twice(n, batch_size, seed):
    if batch_size > n:
        with pytest.raises(ValueError, match=f"batch_size is {batch_size}; expected 1 to {n}"):
            shuffled_batches(n, batch_size, np.random.default_rng(seed))
        return
    batches = shuffled_batches(n, batch_size, np.random.default_rng(seed))
    for _ in range(2):
        seen = np.concatenate(list(islice(batches, n // batch_size)))
        assert len(seen) == n // batch_size * batch_size
        assert len(set(seen.tolist())) == len(seen)
        assert set(seen.tolist()) <= set(range(n))


def test_every_pass_is_shuffled_anew():
    batches = shuffled_batches(50, 50, np.random.default_rng(0))
    first, second = next(batches), next(batches)
    assert (first != np.arange(50)).any()
    assert (first != second).any()


def test_divergence_stops_training_and_names_step_and_rate():
    heard = []
    options = {**OPTIONS, "rate": 1e200, "on_step": lambda step, _: heard.append(step)}
    with pytest.raises(DivergenceError, match=r"step \d+ with learning rate 1e\+200") as caught:
        sgd(*problem(), rng=0, **options)
    assert caught.value.step == len(heard) + 1
    assert caught.value.rate == 1e200


def test_a_loss_that_is_not_finite_is_divergence_at_its_step():
    calls = []

    def loss(y, target):
        calls.append(y)
        return (np.nan if len(calls) == 3 else 1.0), np.zeros_like(y)

    with pytest.raises(
        DivergenceError, match=r"the loss is nan at step 3 with learning rate 0\.01"
    ):
        sgd(*problem(), **{**OPTIONS, "loss": loss})


def test_a_last_step_that_leaves_the_finite_numbers_is_divergence():
    def loss(y, target):
        return 1.0, np.full_like(y, np.inf)

    with pytest.raises(DivergenceError, match="a parameter is not finite at step 1"):
        sgd(*problem(), **{**OPTIONS, "loss": loss, "steps": 1})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rate": 0.0}, "rate is 0.0; expected a finite number above 0"),
        ({"rate": np.inf}, "rate is inf; expected"),
        ({"rate": np.nan}, "rate is nan; expected"),
        ({"steps": 0}, "steps is 0; expected at least 1"),
        ({"batch_size": 0}, "batch_size is 0; expected 1 to 12"),
        ({"batch_size": 13}, "batch_size is 13; expected 1 to 12"),
    ],
)
def test_settings_out_of_range_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        sgd(*problem(), **{**OPTIONS, **change})


@pytest.mark.parametrize(
    ("x", "target", "message"),
    [
        (np.zeros((T, D)), np.zeros((N, O)), r"x has shape \(4, 3\); expected \(T, N, D\)"),
        (np.zeros((T, N, D)), np.zeros(N), r"target has shape \(12,\); expected \(N, O\)"),
        (np.zeros((T, N, D)), np.zeros((N - 1, O)), r"target has shape \(11, 2\)"),
        (np.full((T, N, D), np.nan), np.zeros((N, O)), "x holds nan"),
        (np.zeros((T, N, D)), np.full((N, O), np.inf), "target holds inf"),
    ],
)
def test_sequences_of_the_wrong_shape_or_not_finite_are_refused(x, target, message):
    with pytest.raises(ValueError, match=message):
        sgd(problem()[0], x, target, **OPTIONS)
