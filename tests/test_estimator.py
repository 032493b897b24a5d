"""The scikit-learn estimator: its own checks, and use in pipelines and searches."""

import subprocess
import sys

import numpy as np
import pytest
from sklearn.model_selection import GridSearchCV, TimeSeriesSplit, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from manual_bptt.estimator import RNNForecaster
from manual_bptt.gradients import loss_and_gradients
from manual_bptt.losses import last_step_squared_error
from manual_bptt.training import shuffled_batches


def waves(n=240, length=6, seed=0):
    rng = np.random.default_rng(seed)
    series = np.sin(np.arange(n + length) / 3) + rng.normal(0, 0.05, n + length)
    windows = np.lib.stride_tricks.sliding_window_view(series, length + 1)
    return windows[:, :length].copy(), windows[:, length].copy()


@parametrize_with_checks([RNNForecaster(n_hidden=8, steps=120, learning_rate=0.02)])
def test_scikit_learn_finds_nothing_wrong(estimator, check):
    check(estimator)


def test_it_forecasts_a_wave_in_a_pipeline_and_across_time():
    X, y = waves()
    pipeline = make_pipeline(MinMaxScaler(), RNNForecaster(n_hidden=8, steps=300, random_state=0))
    scores = cross_val_score(pipeline, X, y, cv=TimeSeriesSplit(3))
    assert scores.min() > 0.9


def test_a_grid_search_chooses_among_its_parameters():
    X, y = waves()
    search = GridSearchCV(
        RNNForecaster(n_hidden=8, random_state=0), {"steps": [1, 300]}, cv=TimeSeriesSplit(2)
    ).fit(X, y)
    assert search.best_params_ == {"steps": 300}


def test_three_dimensions_are_the_same_as_two_with_the_features_of_each_step_together():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(50, 4, 3))
    y = X[:, -1, 0] - X[:, -2, 1]
    options = {"n_inputs": 3, "n_hidden": 4, "steps": 50, "random_state": 0}
    three = RNNForecaster(**options).fit(X, y)
    two = RNNForecaster(**options).fit(X.reshape(50, 12), y)
    np.testing.assert_array_equal(three.predict(X), two.predict(X.reshape(50, 12)))
    assert three.n_features_in_ == 12


@pytest.mark.parametrize("shape", [(50, 4, 2), (50, 3, 4)])
def test_three_dimensions_with_other_features_a_step_are_refused(shape):
    with pytest.raises(ValueError, match=r"expected \(n, T, D\) with D = 3"):
        RNNForecaster(n_inputs=3).fit(np.zeros(shape), np.zeros(50))


@pytest.mark.parametrize("factor", [1e-300, 1e300])
def test_targets_of_any_size_are_forecast(factor):
    X, y = waves(80)
    options = {"n_hidden": 4, "steps": 30, "random_state": 0}
    expected = RNNForecaster(**options).fit(X, y).predict(X)
    found = RNNForecaster(**options).fit(X, factor * y).predict(X)
    np.testing.assert_allclose(found, factor * expected, rtol=1e-6)


def test_forecasts_have_the_shape_of_the_targets():
    X, y = waves(60)
    for target in (y, y[:, None], np.stack([y, -y], axis=1)):
        model = RNNForecaster(n_hidden=4, steps=20).fit(X, target)
        assert model.predict(X).shape == target.shape


def test_it_trains_with_the_gradients_by_hand():
    X, y = waves(40)
    model = RNNForecaster(n_hidden=4, steps=1, batch_size=40, random_state=3).fit(X, y)
    x = ((X - model.x_mean_) / model.x_scale_).T[:, :, None]
    target = ((y - model.y_mean_) / model.y_scale_)[:, None]
    first = RNNForecaster(
        n_hidden=4, steps=1, batch_size=40, random_state=3, learning_rate=1e-300
    ).fit(X, y)
    batch = next(shuffled_batches(40, 40, seed=0))
    loss, grads = loss_and_gradients(
        first.params_, x[:, batch], target[batch], loss=last_step_squared_error
    )
    assert model.training_.losses[0] == pytest.approx(loss / 40)
    norm = np.sqrt(sum((g**2).sum() for g in grads[:5])) / 40
    assert model.training_.steps[0].gradient_norm == pytest.approx(norm)


def test_the_parameters_kept_are_the_best_on_the_last_samples():
    X, y = waves()
    model = RNNForecaster(n_hidden=8, steps=300, validation_fraction=0.25, random_state=0)
    training = model.fit(X, y).training_
    errors = [s.validation for s in training.steps if s.validation is not None]
    assert training.best_error == min(errors)
    missed = (model.predict(X[180:]) - y[180:]) / model.y_scale_
    assert np.mean(missed**2) == pytest.approx(training.best_error)


def test_the_same_random_state_gives_the_same_forecasts():
    X, y = waves(80)
    one, same, other = (
        RNNForecaster(n_hidden=4, steps=30, random_state=s).fit(X, y).predict(X) for s in (0, 0, 1)
    )
    np.testing.assert_array_equal(one, same)
    assert (one != other).any()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_inputs": 4}, "X has 6 columns; expected a multiple of n_inputs = 4"),
        ({"n_inputs": 0}, "n_inputs is 0; expected at least 1"),
        ({"n_hidden": 0}, "n_hidden is 0; expected at least 1"),
        ({"steps": 0}, "steps is 0; expected at least 1"),
        ({"learning_rate": -1.0}, "learning_rate is -1.0"),
        (
            {"validation_fraction": 1.0},
            r"validation_fraction is 1.0; expected a number in \[0, 1\)",
        ),
    ],
)
def test_parameters_out_of_range_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        RNNForecaster(**options).fit(*waves(30))


def test_without_scikit_learn_the_extra_is_named():
    code = "import sys; sys.modules['sklearn'] = None; import manual_bptt.estimator"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "pip install 'manual-bptt[sklearn]'" in done.stderr
