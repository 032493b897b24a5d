"""The lab's recipe for the weather, its metrics, and the file a trained model is kept in."""

import json
import pickle

import numpy as np
import pytest

from manual_bptt.forecasting import recipes, weather
from manual_bptt.forecasting.model import Model, load_model, predict, save_model
from manual_bptt.forecasting.recipes import RECIPES, mean_last_step_squared_error, train_recipe
from manual_bptt.forecasting.table import DataError
from manual_bptt.forecasting.windows import Standardizer, make_windows, split_by_time
from manual_bptt.forward import forward
from manual_bptt.params import init_params
from manual_bptt.training import DivergenceError


@pytest.fixture(scope="module")
def result():
    return train_recipe("lab9", seed=0)


@pytest.fixture(scope="module")
def test_windows():
    windows = make_windows(weather.load_weather(), features=weather.FEATURES, target="temp")
    return split_by_time(windows)[1]


def small_model(dtype=np.float64):
    rng = np.random.default_rng(0)
    standardizer = Standardizer(
        rng.normal(size=3), rng.random(3), rng.normal(size=1), rng.random(1)
    )
    params = init_params(3, 4, 1, rng=1, dtype=dtype)
    return Model(params, standardizer, ("a", "b", "c"), "a", "degF", 5, "lab9")


# Training


def test_the_last_25_losses_of_lab9_average_below_0_05(result):
    assert result.losses[-25:].mean() < 0.05
    for seed in (5, 11):  # the highest two of seeds 0 to 19
        assert train_recipe("lab9", seed=seed).losses[-25:].mean() < 0.05


def test_lab9_is_the_network_and_the_descent_of_the_lab(result):
    assert RECIPES["lab9"] == recipes.Recipe(24, 10, 0.001, 0.01, 32, 500)
    assert result.model.params.W.shape == (10, 10)
    assert result.losses.shape == (500,)
    assert result.losses[0] == pytest.approx(1, abs=0.5)  # small weights forecast the mean


def test_lab9_starts_from_weights_of_deviation_0_001_and_zero_biases(monkeypatch):
    started = []

    def note_start(params, *args, **options):
        started.append((params, options))
        raise DivergenceError(1, 0.01, "enough")

    monkeypatch.setattr(recipes, "sgd", note_start)
    with pytest.raises(DivergenceError):
        train_recipe("lab9")
    [(params, options)] = started
    weights = np.concatenate([params.W.ravel(), params.U.ravel(), params.V.ravel()])
    assert 0.0008 < weights.std() < 0.0012
    assert abs(weights.mean()) < 0.0003
    assert not params.b.any()
    assert not params.c.any()
    assert (options["rate"], options["batch_size"], options["steps"]) == (0.01, 32, 500)


def test_the_loss_is_the_mean_over_the_batch_and_its_gradient():
    rng = np.random.default_rng(0)
    y, target = rng.normal(size=(3, 4, 1)), rng.normal(size=(4, 1))
    value, dy = mean_last_step_squared_error(y, target)
    assert value == pytest.approx(((y[-1] - target) ** 2).mean())
    assert not dy[:-1].any()
    np.testing.assert_allclose(dy[-1], 2 * (y[-1] - target) / 4, rtol=1e-12)


def test_the_same_seed_gives_the_same_model_and_every_step_is_reported(tmp_path):
    path, heard = tmp_path / "winter.csv", []
    path.write_text("\n".join(weather.weather_path().read_text().splitlines()[:1500]))
    first = train_recipe("lab9", data=path, seed=7, on_step=lambda *step: heard.append(step))
    again = train_recipe("lab9", data=path, seed=7)
    assert heard == list(enumerate(first.losses.tolist(), start=1))
    np.testing.assert_array_equal(again.losses, first.losses)
    for one, other in zip(again.model.params, first.model.params, strict=True):
        np.testing.assert_array_equal(one, other)
    assert (train_recipe("lab9", data=path, seed=8).losses != first.losses).any()


def test_an_unknown_recipe_is_refused_with_the_known_ones():
    with pytest.raises(ValueError, match="no recipe 'lab10'; expected one of lab9"):
        train_recipe("lab10")


# Metrics


def test_test_errors_are_those_of_the_forecasts_in_degrees(result, test_windows):
    error = predict(result.model, test_windows.x) - test_windows.target
    assert result.metrics["unit"] == "degF"
    assert result.metrics["test"]["rmse"] == pytest.approx(np.sqrt((error**2).mean()))
    assert result.metrics["test"]["mae"] == pytest.approx(np.abs(error).mean())
    assert result.metrics["test"]["rmse"] < 4  # the temperature itself deviates by 18


def test_persistence_is_reported_beside_the_forecast_on_the_same_windows(result, test_windows):
    error = test_windows.last - test_windows.target
    reported = result.metrics["baselines"]["persistence"]
    assert reported["rmse"] == pytest.approx(np.sqrt((error**2).mean()))
    assert reported["mae"] == pytest.approx(np.abs(error).mean())
    assert result.metrics["windows"] == {"train": 20260, "test": len(error)}


def test_metrics_are_json_and_name_the_data_without_its_place_on_this_machine(result):
    text = json.dumps(result.metrics, allow_nan=False)
    assert result.metrics["data"]["file"] == "weather.csv"
    assert str(weather.weather_path().parent) not in text
    assert result.metrics["last_25_losses_mean"] == result.losses[-25:].mean()


def test_another_table_can_be_trained_on_and_its_test_part_teaches_nothing(tmp_path):
    header, *rows = weather.weather_path().read_text().splitlines()[:1500]
    changed = [row.replace(",0,", ",0.5,") for row in rows[-200:]]  # calm, dry hours no more
    assert changed != rows[-200:]
    results = []
    for name, kept in (("one.csv", rows), ("other.csv", rows[:-200] + changed)):
        (tmp_path / name).write_text("\n".join([header, *kept]))
        results.append(train_recipe("lab9", data=tmp_path / name))
    one, other = results
    assert one.metrics["data"]["file"] == "one.csv"
    assert one.metrics["windows"]["train"] < 1500
    np.testing.assert_array_equal(one.losses, other.losses)
    for part in ("params", "standardizer"):
        for a, b in zip(getattr(one.model, part), getattr(other.model, part), strict=True):
            np.testing.assert_array_equal(a, b)
    assert one.metrics["test"] != other.metrics["test"]


# Forecasting


def test_a_forecast_is_the_last_output_brought_back_to_degrees():
    model = small_model()
    x = np.random.default_rng(2).normal(size=(5, 7, 3))
    scaled = (x - model.standardizer.x_mean) / model.standardizer.x_scale
    y = forward(model.params, scaled).y[-1]
    expected = y * model.standardizer.target_scale + model.standardizer.target_mean
    np.testing.assert_allclose(predict(model, x), expected, rtol=1e-12)


@pytest.mark.parametrize("shape", [(5, 3), (4, 7, 3), (5, 7, 2)])
def test_windows_of_another_shape_are_refused(shape):
    with pytest.raises(ValueError, match=r"expected \(T, N, D\) with T = 5 and D = 3"):
        predict(small_model(), np.zeros(shape))


# The file


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_model_comes_back_bit_for_bit(tmp_path, dtype):
    model = small_model(dtype)
    save_model(tmp_path / "model.npz", model)
    loaded = load_model(tmp_path / "model.npz")
    assert loaded[2:] == model[2:]
    for part, other in ((loaded.params, model.params), (loaded.standardizer, model.standardizer)):
        for one, two in zip(part, other, strict=True):
            assert one.dtype == two.dtype
            assert one.tobytes() == two.tobytes()


def test_a_saved_model_forecasts_as_before(tmp_path, result, test_windows):
    save_model(tmp_path / "model.npz", result.model)
    x = test_windows.x[:, :50]
    np.testing.assert_array_equal(
        predict(load_model(tmp_path / "model.npz"), x), predict(result.model, x)
    )


def test_saving_leaves_one_file_of_exactly_the_name_given(tmp_path):
    save_model(tmp_path / "model", small_model())
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_a_failed_save_leaves_the_old_file_and_no_other(tmp_path, monkeypatch):
    path = tmp_path / "model.npz"
    save_model(path, small_model())
    before = path.read_bytes()

    def fail(file, **arrays):
        file.write(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(np, "savez", fail)
    with pytest.raises(OSError, match="disk full"):
        save_model(path, small_model())
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


class Bomb:
    def __reduce__(self):
        return (pytest.fail, ("a pickle was run",))


def save_one_array(path):
    with path.open("wb") as file:
        np.save(file, np.zeros(3))


def altered(change):
    def write(path):
        save_model(path, small_model())
        with np.load(path) as file:
            arrays = dict(file)
        change(arrays)
        np.savez(path, **arrays)

    return write


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (lambda path: None, "cannot be read: No such file"),
        (lambda path: path.write_bytes(b""), "expected a model written by save_model"),
        (lambda path: path.write_bytes(b"PK\x03\x04 and no more"), "written by save_model"),
        (lambda path: path.write_bytes(pickle.dumps(Bomb())), "written by save_model"),
        (save_one_array, "got a single array"),
        (altered(lambda a: a.update(W=np.array([Bomb()], object))), "written by save_model"),
        (altered(lambda a: a.pop("V")), "arrays missing or unknown: V"),
        (altered(lambda a: a.update(Z=np.zeros(1))), "arrays missing or unknown: Z"),
        (altered(lambda a: a.update(format=np.array(2))), "format is 2; expected 1"),
        (altered(lambda a: a.update(U=np.zeros((3, 3)))), r"params.U has shape \(3, 3\)"),
        (altered(lambda a: a.update(W=np.zeros((4, 4), complex))), "W has dtype complex128"),
        (altered(lambda a: a.update(W=np.full((4, 4), np.nan))), "params.W holds nan"),
        (altered(lambda a: a.update(W=np.full((4, 4), "x"))), "W has dtype <U1"),
        (altered(lambda a: a.update(x_mean=np.zeros(2))), r"x_mean has shape \(2,\)"),
        (altered(lambda a: a.update(x_mean=np.zeros(3, int))), "x_mean has dtype int64"),
        (
            altered(lambda a: a.update(x_scale=np.zeros(3))),
            "x_scale is .* expected numbers above 0",
        ),
        (altered(lambda a: a.update(target_mean=np.array([np.inf]))), "target_mean holds inf"),
        (altered(lambda a: a.update(features=np.array(["a", "b"]))), "expected 3 names"),
        (altered(lambda a: a.update(features=np.arange(3))), "expected 3 names"),
        (altered(lambda a: a.update(length=np.array(0))), "length is .* expected one integer"),
        (altered(lambda a: a.update(length=np.array(2.5))), "length is .* expected one integer"),
        (altered(lambda a: a.update(unit=np.array(1.0))), "unit is .* expected one text"),
    ],
)
def test_a_file_that_is_no_sound_model_is_refused_and_never_run(tmp_path, write, message):
    path = tmp_path / "model.npz"
    write(path)
    with pytest.raises(DataError, match=message) as caught:
        load_model(path)
    assert str(caught.value).startswith(f"{path}: ")


def test_every_flipped_byte_is_refused_or_harmless(tmp_path):
    path = tmp_path / "model.npz"
    model = small_model()
    save_model(path, model)
    content = path.read_bytes()
    for at in range(0, len(content), 31):
        path.write_bytes(content[:at] + bytes([content[at] ^ 0x55]) + content[at + 1 :])
        try:
            loaded = load_model(path)
        except DataError:
            continue
        for one, other in zip(loaded.params, model.params, strict=True):
            np.testing.assert_array_equal(one, other)
