"""The loop of training and its batches."""

import math
import pickle
from concurrent.futures import Executor
from dataclasses import FrozenInstanceError
from itertools import islice

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from manual_bptt.gradients import loss_and_gradients
from manual_bptt.losses import last_step_squared_error, squared_error
from manual_bptt.params import init_params
from manual_bptt.training import (
    SGD,
    Adam,
    ArraySequences,
    Constant,
    DivergenceError,
    Settings,
    Training,
    WarmupCosine,
    begin,
    clip_by_global_norm,
    moments,
    shuffled_batches,
    train,
)

T, N, D, H, O = 4, 12, 3, 5, 2
OPTIMIZERS = {
    "sgd": SGD(),
    "momentum": SGD(0.9),
    "nesterov": SGD(0.9, nesterov=True),
    "adam": Adam(),
    "adamw": Adam(weight_decay=0.1),
}


def problem(seed=0, dtype=np.float64):
    rng = np.random.default_rng(seed)
    x, target = rng.standard_normal((T, N, D)), rng.standard_normal((N, O))
    sequences = ArraySequences(x.astype(dtype), target.astype(dtype))
    return init_params(D, H, O, rng=rng, dtype=dtype), sequences


def settings(**changes):
    usual = {"steps": 7, "batch_size": 4, "optimizer": SGD(), "schedule": Constant(0.01), "seed": 3}
    return Settings(**{**usual, **changes})


def run(params, sequences, loss=last_step_squared_error, **changes):
    """Train; callbacks and workers go to train, the rest into the settings."""
    names = ("validate", "keep", "on_step", "stop", "workers")
    callbacks = {k: changes.pop(k) for k in names if k in changes}
    return train(params, sequences, settings(**changes), loss=loss, **callbacks)


def scripted(errors):
    """Return a validation that gives these errors, and the parameters that it was asked about."""
    asked, left = [], iter(errors)

    def validate(params):
        asked.append(params)
        return next(left)

    return validate, asked


def assert_same(one, other):
    for a, b in zip(one, other, strict=True):
        np.testing.assert_array_equal(a, b)
        assert np.asarray(a).dtype == np.asarray(b).dtype


# The step


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("max_norm", [np.inf, 0.5])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_step_is_the_update_of_the_clipped_gradient_of_its_batch(name, max_norm, dtype):
    optimizer, schedule = OPTIMIZERS[name], WarmupCosine(0.05, warmup=3, steps=9)
    params, data = problem(dtype=dtype)
    trained = run(params, data, optimizer=optimizer, schedule=schedule, max_norm=max_norm, steps=9)
    memory, norms = optimizer.start(params), []
    batches = islice(shuffled_batches(N, 4, seed=3), 9)
    for step, (batch, heard) in enumerate(zip(batches, trained.steps, strict=True), start=1):
        loss, grads = loss_and_gradients(
            params, data.x[:, batch], data.target[batch], loss=last_step_squared_error
        )
        clipped, norm = clip_by_global_norm(grads[:5], max_norm)
        params, memory = optimizer.update(params, clipped, memory, rate=schedule(step), step=step)
        assert heard == (step, float(loss), schedule(step), norm, None)
        norms.append(norm)
    assert_same(trained.params, params)
    for one, other in zip(trained.memory, memory, strict=True):
        assert_same(one, other)
    assert {p.dtype for p in trained.params} == {np.dtype(dtype)}
    assert max(norms) > 0.5  # so there is something to clip
    assert trained.finished


def test_plain_descent_takes_rate_times_gradient_off_every_parameter():
    params, data = problem()
    trained = run(params, data, steps=1)
    batch = next(shuffled_batches(N, 4, seed=3))
    _, grads = loss_and_gradients(
        params, data.x[:, batch], data.target[batch], loss=last_step_squared_error
    )
    assert_same(trained.params, [p - 0.01 * g for p, g in zip(params, grads[:5], strict=True)])


def test_the_norm_of_the_inputs_gradient_is_not_part_of_the_norm():
    params, data = problem()
    [step] = run(params, data, steps=1).steps
    batch = next(shuffled_batches(N, 4, seed=3))
    _, grads = loss_and_gradients(
        params, data.x[:, batch], data.target[batch], loss=last_step_squared_error
    )
    squares = [float((g**2).sum()) for g in grads]
    assert squares[5] > 0
    assert step.gradient_norm == pytest.approx(math.sqrt(sum(squares[:5])))


def test_targets_of_every_step_follow_their_sequences_into_the_batch():
    params, data = problem()
    target = np.random.default_rng(1).standard_normal((T, N, O))
    trained = run(params, ArraySequences(data.x, target), loss=squared_error, steps=1)
    batch = next(shuffled_batches(N, 4, seed=3))
    loss, _ = loss_and_gradients(params, data.x[:, batch], target[:, batch])
    assert trained.losses == [loss]


def test_a_numpy_float_as_a_setting_leaves_float32_float32():
    changes = {
        "optimizer": SGD(np.float64(0.9)),
        "schedule": Constant(np.float64(0.01)),
        "max_norm": np.float64(0.5),
    }
    trained = run(*problem(dtype=np.float32), **changes)
    assert {p.dtype for p in trained.params} == {np.dtype(np.float32)}
    plain = run(*problem(dtype=np.float32), optimizer=SGD(0.9), max_norm=0.5)
    assert_same(trained.params, plain.params)


def test_the_loss_goes_down():
    losses = run(*problem(), optimizer=Adam(), steps=150).losses
    assert np.mean(losses[-10:]) < np.mean(losses[:10]) / 5


# What repeats and what stays


def test_the_same_seed_trains_the_same_and_another_does_not():
    one, same, other = (run(*problem(), seed=seed, optimizer=Adam()) for seed in (1, 1, 2))
    assert_same(one.params, same.params)
    assert one.steps == same.steps
    assert all(a != b for a, b in zip(one.losses, other.losses, strict=True))


def test_the_workers_given_compute_the_gradients():
    class Gone(Executor):
        def map(self, *_, **__):
            raise RuntimeError("the cluster is gone")

    with pytest.raises(RuntimeError, match="the cluster is gone"):
        run(*problem(), workers=Gone())


def test_workers_train_to_the_same_bits_every_time_and_as_one_would():
    one, other, alone = (run(*problem(), workers=workers) for workers in (3, 3, None))
    assert_same(one.params, other.params)
    for a, b in zip(one.params, alone.params, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize("factor", [1e-300, 1.0, 1e300])
def test_moments_neither_overflow_nor_vanish(factor):
    mean, deviation = moments(factor * np.array([[0.0, 2.0], [1.0, 2.0]]))
    np.testing.assert_allclose(mean, [factor / 2, 2 * factor], rtol=1e-15)
    np.testing.assert_allclose(deviation, [factor / 2, 1.0], rtol=1e-15)


def test_a_deviation_too_small_for_a_number_counts_as_none():
    _, deviation = moments(np.array([[0.0], [5e-324]]))
    assert deviation.tolist() == [1.0]


def test_the_starting_parameters_and_the_data_stay_as_they_were():
    params, data = problem()
    kept, kept_data = problem()
    for array in (*params, data.x, data.target):
        array.flags.writeable = False
    run(params, data, optimizer=Adam(weight_decay=0.1), max_norm=0.1)
    assert_same(params, kept)
    assert_same([data.x, data.target], [kept_data.x, kept_data.target])


def test_the_training_that_is_gone_on_from_stays_as_it_was():
    params, data = problem()
    half = run(params, data, stop=lambda: True, optimizer=Adam())
    before = pickle.dumps(half)
    for array in (*half.params, *half.best, *(m for moment in half.memory for m in moment)):
        array.flags.writeable = False
    first, second = (run(half, data, optimizer=Adam()) for _ in range(2))
    assert pickle.dumps(half) == before
    assert (len(half.steps), len(first.steps), half.finished) == (1, 7, False)
    assert_same(first.params, second.params)


def test_what_keep_is_given_does_not_grow_afterwards():
    kept = []
    run(*problem(), keep=kept.append, every=2)
    assert [len(training.steps) for training in kept] == [0, 2, 4, 6, 7]
    assert [training.finished for training in kept] == [False] * 4 + [True]


def test_a_training_that_somebody_has_seen_is_not_changed_any_more():
    kept, validate = [], lambda params: float(np.abs(params.W).sum())
    end = run(*problem(), keep=kept.append, every=2, validate=validate)
    for training in (*kept, end):
        assert isinstance(training.steps, tuple)
        assert isinstance(training.memory, tuple)
        with pytest.raises(FrozenInstanceError):
            training.steps = ()
    assert kept[-1] is end


def test_every_kept_state_leads_to_the_same_end():
    params, data = problem()
    kept = []
    validate = lambda p: float(np.abs(p.W).sum())  # noqa: E731
    end = run(params, data, keep=kept.append, every=3, validate=validate, optimizer=Adam())
    for state in kept:
        again = run(state, data, every=3, validate=validate, optimizer=Adam())
        assert again.steps == end.steps
        assert_same((*again.params, *again.best), (*end.params, *end.best))


# Callbacks


def test_on_step_hears_every_step_from_1_with_its_loss_and_validation_error():
    heard = []
    validate, _ = scripted([0.5, 0.25, 0.75])
    trained = run(*problem(), on_step=heard.append, validate=validate, every=3)
    assert tuple(heard) == trained.steps
    assert [step.number for step in heard] == [1, 2, 3, 4, 5, 6, 7]
    assert [step.loss for step in heard] == trained.losses
    assert [s.validation for s in heard] == [None, None, 0.5, None, None, 0.25, 0.75]


def test_stop_ends_training_after_the_step_keeps_it_and_leaves_it_unfinished():
    kept, heard = [], []
    trained = run(
        *problem(), on_step=heard.append, keep=kept.append, stop=lambda: len(heard) == 4, every=3
    )
    assert (len(trained.steps), trained.finished) == (4, False)
    assert [len(training.steps) for training in kept] == [0, 3, 4]
    assert_same(kept[-1].params, trained.params)


def test_stop_is_not_asked_once_training_is_finished():
    asked = []
    assert run(*problem(), stop=lambda: asked.append(1)).finished
    assert len(asked) == 6


def test_stopping_at_a_step_that_is_due_keeps_it_once():
    kept, heard = [], []
    run(*problem(), on_step=heard.append, keep=kept.append, stop=lambda: len(heard) == 3, every=3)
    assert [len(training.steps) for training in kept] == [0, 3]


def test_a_finished_training_is_not_trained_further():
    params, data = problem()
    done = run(params, data)
    again = run(done, data, on_step=lambda step: pytest.fail("a step"))
    assert again == done


# Validation


@pytest.mark.parametrize(
    ("every", "expected"), [(1, [1, 2, 3, 4, 5, 6, 7]), (3, [3, 6, 7]), (7, [7]), (50, [7])]
)
def test_validation_is_every_so_many_steps_and_at_the_last(every, expected):
    validate, asked = scripted([1.0] * 7)
    trained = run(*problem(), validate=validate, every=every)
    assert [s.number for s in trained.steps if s.validation is not None] == expected
    assert len(asked) == len(expected)
    assert_same(asked[-1], trained.params)


def test_the_best_parameters_are_those_of_the_lowest_validation_error_the_first_of_equals():
    validate, asked = scripted([3.0, 1.0, 2.0, 1.0, 5.0, 4.0, 2.0])
    trained = run(*problem(), validate=validate, every=1)
    assert trained.best_error == 1.0
    assert_same(trained.best, asked[1])
    assert_same(trained.params, asked[-1])
    assert (trained.best.W != trained.params.W).any()


def test_without_validation_the_best_are_the_last():
    trained = run(*problem())
    assert_same(trained.best, trained.params)
    assert trained.best_error == math.inf


def test_before_the_first_validation_the_best_are_those_of_the_start():
    params, data = problem()
    trained = run(params, data, validate=lambda p: pytest.fail("too soon"), stop=lambda: True)
    assert_same(trained.best, params)
    assert trained.best_error == math.inf


@pytest.mark.parametrize(
    ("patience", "errors", "ends"),
    [
        (1, [2, 1, 1], 3),  # an equal is no improvement
        (2, [2, 3, 1, 2, 2], 5),  # a lower one begins the count anew
        (3, [2, 3, 3, 3], 4),
        (9, [2, 3, 3, 3, 3, 3, 3], 7),
        (None, [1, 2, 3, 4, 5, 6, 7], 7),
    ],
)
def test_patience_ends_training_after_so_many_errors_in_a_row_without_improvement(
    patience, errors, ends
):
    validate, _ = scripted([float(e) for e in errors])
    kept = []
    trained = run(*problem(), validate=validate, every=1, patience=patience, keep=kept.append)
    assert (len(trained.steps), trained.finished) == (ends, True)
    assert trained.best_error == min(errors)
    assert kept[-1] == trained


def test_going_on_with_less_patience_than_was_used_up_ends_at_the_next_error():
    params, data = problem()
    heard = []
    changes = {"validate": lambda p: 1.0, "every": 1, "on_step": heard.append}
    half = run(params, data, **changes, stop=lambda: len(heard) == 4)
    assert len(run(half, data, **changes, patience=2).steps) == 5


# Batches


@given(st.integers(1, 30), st.integers(1, 30), st.integers(0, 99))
def test_one_pass_of_batches_holds_no_sequence_twice(n, batch_size, seed):
    if batch_size > n:
        with pytest.raises(ValueError, match=f"batch_size is {batch_size}; expected 1 to {n}"):
            shuffled_batches(n, batch_size, seed=seed)
        return
    batches = shuffled_batches(n, batch_size, seed=seed)
    for _ in range(2):
        one_pass = list(islice(batches, n // batch_size))
        assert {len(batch) for batch in one_pass} == {batch_size}
        seen = np.concatenate(one_pass)
        assert len(set(seen.tolist())) == len(seen)
        assert set(seen.tolist()) <= set(range(n))


@given(st.integers(1, 30), st.integers(1, 30), st.integers(0, 99), st.integers(0, 40))
def test_starting_at_a_step_is_skipping_those_before(n, batch_size, seed, start):
    batch_size = min(n, batch_size)
    skipped = islice(shuffled_batches(n, batch_size, seed=seed), start, start + 10)
    started = islice(shuffled_batches(n, batch_size, seed=seed, start=start), 10)
    assert_same(list(skipped), list(started))


def test_every_pass_is_shuffled_anew():
    batches = shuffled_batches(50, 50, seed=0)
    passes = {tuple(next(batches).tolist()) for _ in range(20)} | {tuple(range(50))}
    assert len(passes) == 21


def test_no_sequence_sits_every_pass_out():
    batches = shuffled_batches(7, 3, seed=0)
    assert {int(i) for batch in islice(batches, 60) for i in batch} == set(range(7))


# Divergence


def test_divergence_stops_training_and_names_step_and_rate():
    heard = []
    with pytest.raises(DivergenceError, match=r"step \d+ with learning rate 1e\+200") as caught:
        run(*problem(), schedule=Constant(1e200), on_step=heard.append)
    assert caught.value.step == len(heard) + 1
    assert caught.value.rate == 1e200


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_loss_that_is_not_finite_is_divergence_at_its_step(value):
    calls, kept = [], []

    def loss(y, target):
        calls.append(y)
        return (value if len(calls) == 3 else 1.0), np.zeros_like(y)

    with pytest.raises(
        DivergenceError, match=rf"the loss is {value} at step 3 with learning rate 0\.01"
    ):
        run(*problem(), loss=loss, keep=kept.append, every=1)
    assert [len(training.steps) for training in kept] == [0, 1, 2]


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("max_norm", [np.inf, 1.0])
def test_a_gradient_that_is_not_finite_is_divergence_even_if_clipped(value, max_norm):
    def loss(y, target):
        return 1.0, np.full_like(y, value)

    with pytest.raises(
        DivergenceError, match=r"the norm of the gradient is (nan|inf) at step 1 .* 0\.01"
    ):
        run(*problem(), loss=loss, max_norm=max_norm)


def test_a_last_step_that_leaves_the_finite_numbers_is_divergence():
    with pytest.raises(DivergenceError, match="a parameter is not finite at step 7") as caught:
        run(*problem(), schedule=lambda step: 1e308 if step == 7 else 1e-3, loss=steep)
    assert (caught.value.step, caught.value.rate) == (7, 1e308)


def steep(y, target):
    return 1.0, np.full_like(y, 1e3)


@pytest.mark.parametrize("error", [math.nan, math.inf])
def test_a_validation_error_that_is_not_finite_is_divergence(error):
    validate, _ = scripted([1.0, error])
    kept = []
    with pytest.raises(
        DivergenceError,
        match=rf"the validation error is {error} at step 6 with learning rate 0\.01",
    ):
        run(*problem(), validate=validate, every=3, keep=kept.append)
    assert [len(training.steps) for training in kept] == [0, 3]


def test_a_divergence_comes_whole_out_of_another_process():
    error = DivergenceError(3, 0.5, "the loss is nan")
    again = pickle.loads(pickle.dumps(error))
    assert str(again) == str(error)
    assert "the loss is nan at step 3 with learning rate 0.5; a smaller rate" in str(again)
    assert (again.step, again.rate) == (3, 0.5)


# What is refused


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"steps": 0}, "steps is 0; expected an integer of at least 1"),
        ({"steps": 2.5}, "steps is 2.5; expected an integer"),
        ({"batch_size": 0}, "batch_size is 0; expected an integer of at least 1"),
        ({"batch_size": 13}, "batch_size is 13; expected 1 to 12"),
        ({"every": 0}, "every is 0; expected"),
        ({"patience": 0}, "patience is 0; expected"),
        ({"max_norm": 0.0}, "max_norm is 0.0; expected a number above 0"),
        ({"max_norm": -1.0}, "max_norm is -1.0; expected"),
        ({"max_norm": math.nan}, "max_norm is nan; expected"),
        ({"seed": -1}, "seed is -1; expected an integer of at least 0"),
        ({"seed": 0.5}, "seed is 0.5; expected an integer"),
    ],
)
def test_settings_out_of_range_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        run(*problem(), **change)


def test_going_on_beyond_the_last_step_is_refused_and_does_not_run_for_ever():
    params, data = problem()
    heard = []
    half = run(params, data, on_step=heard.append, stop=lambda: len(heard) == 5)
    for steps in (4, 5):
        with pytest.raises(
            ValueError, match=f"start has 5 steps and is not finished.* fewer than the {steps}"
        ):
            run(half, data, steps=steps, on_step=lambda step: pytest.fail("a step"))


@pytest.mark.parametrize(("name", "moments"), [("sgd", 0), ("momentum", 1), ("adam", 2)])
def test_going_on_with_an_optimizer_that_remembers_another_number_is_refused(name, moments):
    params, data = problem()
    half = run(params, data, optimizer=OPTIMIZERS[name], stop=lambda: True)
    for other in {"sgd", "momentum", "adam"} - {name}:
        with pytest.raises(ValueError, match=rf"start remembers {moments} moments.* expected"):
            run(half, data, optimizer=OPTIMIZERS[other])


def test_parameters_that_are_not_finite_are_no_start():
    params, data = problem()
    bad = params._replace(b=np.full(H, np.nan))
    with pytest.raises(ValueError, match="b holds nan"):
        begin(bad, settings())
    with pytest.raises(ValueError, match="b holds nan"):
        run(bad, data)


def test_training_begins_before_the_first_step_with_nothing_remembered():
    params, _ = problem()
    training = begin(params, settings(optimizer=Adam()))
    assert isinstance(training, Training)
    assert (training.steps, training.finished, training.best_error) == ((), False, math.inf)
    assert_same((*training.params, *training.best), (*params, *params))
    assert not any(m.any() for moment in training.memory for m in moment)


@pytest.mark.parametrize(
    ("x", "target", "message"),
    [
        (np.zeros((T, D)), np.zeros((N, O)), r"x has shape \(4, 3\); expected \(T, N, D\)"),
        (np.zeros((T, N, D)), np.zeros(N), r"target has shape \(12,\); expected \(N, O\)"),
        (np.zeros((T, N, D)), np.zeros((N - 1, O)), r"target has shape \(11, 2\)"),
        (np.zeros((T, N, D)), np.zeros((N, T, O)), r"target has shape \(12, 4, 2\)"),
        (np.full((T, N, D), np.nan), np.zeros((N, O)), "x holds nan"),
        (np.zeros((T, N, D)), np.full((N, O), np.inf), "target holds inf"),
    ],
)
def test_sequences_of_the_wrong_shape_or_not_finite_are_refused(x, target, message):
    with pytest.raises(ValueError, match=message):
        ArraySequences(x, target)


def test_sequences_that_do_not_fit_the_network_are_refused():
    params, data = problem()
    with pytest.raises(ValueError, match=r"expected \(T, D\) or \(T, B, D\) with D = 3"):
        run(params, ArraySequences(np.zeros((T, N, D + 1)), data.target))
