"""The lab's recipe for the weather, its metrics, and the file a trained model is kept in."""

import json
import pickle

import numpy as np
import pytest

from manual_bptt.archive import read_arrays
from manual_bptt.forecasting import weather
from manual_bptt.forecasting.columns import DataError
from manual_bptt.forecasting.features import Inputs
from manual_bptt.forecasting.model import Model, load_model, predict, save_model
from manual_bptt.forecasting.recipes import RECIPES, small_normal
from manual_bptt.forecasting.sources import Layout
from manual_bptt.forecasting.tasks import train_recipe
from manual_bptt.forecasting.windows import Standardizer, Windows, make_windows, split_by_time
from manual_bptt.forward import forward
from manual_bptt.params import init_params
from manual_bptt.training import SGD, Constant, mean_last_step_squared_error


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
    layout = Layout("columns", ("hour",), "a", ("a", "b", "c"), unit="degF")
    inputs = Inputs(("a", "b", "c"), {}, (), "a", derived=False)
    return Model(params, standardizer, layout, inputs, 5, of_change=False, recipe="lab9")


def windows_over(hours, length=5):
    N = len(hours) - length + 1
    rows = np.arange(N) + np.arange(length)[:, None]
    last = hours[rows[-1], :1]
    time = np.datetime64("2013-01-01T00", "h") + rows[-1]
    return Windows(hours, rows, np.zeros((N, 1)), last, time, np.full(N, ""))


# Training


def test_the_last_25_losses_of_lab9_average_below_0_05(result):
    assert np.mean(result.training.losses[-25:]) < 0.05
    for seed in (5, 11):  # the highest two of seeds 0 to 19
        losses = train_recipe("lab9", seed=seed).training.losses
        assert np.mean(losses[-25:]) < 0.05


def test_lab9_is_the_network_and_the_descent_of_the_lab(result):
    recipe = RECIPES["lab9"]
    settings = recipe.settings
    assert (recipe.length, recipe.n_hidden, recipe.dtype) == (24, 10, np.float64)
    assert (settings.steps, settings.batch_size) == (500, 32)
    assert (settings.optimizer, settings.schedule) == (SGD(), Constant(0.01))
    assert settings.max_norm == np.inf
    assert result.model.params.W.shape == (10, 10)
    assert len(result.training.losses) == 500
    assert result.training.losses[0] == pytest.approx(1, abs=0.5)  # small weights say the mean


def test_lab9_starts_from_weights_of_deviation_0_001_and_zero_biases():
    assert RECIPES["lab9"].start is small_normal
    params = small_normal(np.random.default_rng(0), 9, 10, 1)
    weights = np.concatenate([params.W.ravel(), params.U.ravel(), params.V.ravel()])
    assert 0.0008 < weights.std() < 0.0012
    assert abs(weights.mean()) < 0.0003
    assert not params.b.any()
    assert not params.c.any()


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
    first = train_recipe("lab9", data=path, seed=7, on_step=heard.append)
    again = train_recipe("lab9", data=path, seed=7)
    assert tuple(heard) == first.training.steps
    assert again.training.steps == first.training.steps
    for one, other in zip(again.model.params, first.model.params, strict=True):
        np.testing.assert_array_equal(one, other)
    assert train_recipe("lab9", data=path, seed=8).training.losses != first.training.losses


def test_an_unknown_recipe_is_refused_with_the_known_ones():
    with pytest.raises(ValueError, match="no recipe 'lab10'; expected one of change, lab9"):
        train_recipe("lab10")


# Metrics


def test_test_errors_are_those_of_the_forecasts_in_degrees(result, test_windows):
    error = predict(result.model, test_windows) - test_windows.target
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
    assert result.metrics["last_25_losses_mean"] == np.mean(result.training.losses[-25:])


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
    assert one.training.steps == other.training.steps
    for part in ("params", "standardizer"):
        for a, b in zip(getattr(one.model, part), getattr(other.model, part), strict=True):
            np.testing.assert_array_equal(a, b)
    assert one.metrics["test"] != other.metrics["test"]


# Forecasting


def test_a_forecast_is_the_last_output_brought_back_to_degrees():
    model = small_model()
    windows = windows_over(np.random.default_rng(2).normal(size=(11, 3)))
    scaled = (windows.x - model.standardizer.x_mean) / model.standardizer.x_scale
    y = forward(model.params, scaled).y[-1]
    expected = y * model.standardizer.target_scale + model.standardizer.target_mean
    np.testing.assert_allclose(predict(model, windows), expected, rtol=1e-12)
    of_change = predict(model._replace(of_change=True), windows)
    np.testing.assert_allclose(of_change, expected + windows.last, rtol=1e-12)


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
    some = test_windows.select(slice(50))
    np.testing.assert_array_equal(
        predict(load_model(tmp_path / "model.npz"), some), predict(result.model, some)
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
        arrays = read_arrays(path)
        change(arrays)
        np.savez(path, **arrays)

    return write


def described(change):
    def alter(arrays):
        description = json.loads(str(arrays["description"]))
        change(description)
        arrays["description"] = np.array(json.dumps(description))

    return altered(alter)


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (lambda path: None, "cannot be read: No such file"),
        (lambda path: path.write_bytes(b""), "expected a model written by save_model"),
        (lambda path: path.write_bytes(b"PK\x03\x04 and no more"), "written by save_model"),
        (lambda path: path.write_bytes(pickle.dumps(Bomb())), "written by save_model"),
        (save_one_array, "written by save_model"),
        (altered(lambda a: a.update(W=np.array([Bomb()], object))), "holds object"),
        (altered(lambda a: a.pop("V")), "arrays missing or unknown: V"),
        (altered(lambda a: a.update(Z=np.zeros(1))), "arrays missing or unknown: Z"),
        (altered(lambda a: a.update(U=np.zeros((3, 3)))), r"params.U has shape \(3, 3\)"),
        (altered(lambda a: a.update(U=np.zeros((4, 2)))), "expected 3 columns, one for each"),
        (
            altered(lambda a: a.update(V=np.zeros((2, 4)), c=np.zeros(2))),
            r"params.V \(2, 4\); expected",
        ),
        (altered(lambda a: a.update(W=np.zeros((4, 4), complex))), "holds complex128"),
        (altered(lambda a: a.update(W=np.zeros((4, 4), int))), "W has dtype int64"),
        (altered(lambda a: a.update(W=np.full((4, 4), np.nan))), "params.W holds nan"),
        (altered(lambda a: a.update(W=np.full((4, 4), "x"))), "W has dtype <U1"),
        (altered(lambda a: a.update(x_mean=np.zeros(2))), r"x_mean has shape \(2,\)"),
        (altered(lambda a: a.update(x_mean=np.zeros(3, int))), "x_mean has dtype int64"),
        (
            altered(lambda a: a.update(x_scale=np.zeros(3))),
            "x_scale is .* expected numbers above 0",
        ),
        (altered(lambda a: a.update(target_mean=np.array([np.inf]))), "target_mean holds inf"),
        (altered(lambda a: a.update(description=np.array("{"))), "written by save_model"),
        (altered(lambda a: a.update(description=np.array("[" * 50_000))), "written by save_model"),
        (altered(lambda a: a.update(description=np.array("[]"))), "description is '\\[\\]'"),
        (altered(lambda a: a.update(description=np.zeros(2))), "description is not one text"),
        (described(lambda d: d.update(format=1)), "format is 1; expected 2"),
        (described(lambda d: d.pop("recipe")), "description is"),
        (described(lambda d: d.update(more=1)), "description is"),
        (described(lambda d: d.update(recipe=["lab9"])), "recipe is .* of the wrong kind"),
        (described(lambda d: d.update(of_change=1)), "of_change is '1', of the wrong kind"),
        (described(lambda d: d.update(length=0)), "length is 0; expected 1 to"),
        (described(lambda d: d.update(length=10**12)), "length is .* expected 1 to"),
        (described(lambda d: d.update(length=2.5)), "length is '2.5', of the wrong kind"),
        (described(lambda d: d.update(length=True)), "length is 'True', of the wrong kind"),
        (described(lambda d: d["inputs"].update(numbers=["a", "b"])), "expected 2 columns"),
        (described(lambda d: d["inputs"].update(numbers=["a", "a", "b"])), "of the wrong kind"),
        (described(lambda d: d["inputs"].update(numbers=[1, 2, 3])), "of the wrong kind"),
        (described(lambda d: d["inputs"].update(numbers="abc")), "of the wrong kind"),
        (described(lambda d: d["inputs"].update(target="z")), "target is 'z'; expected 'a'"),
        (described(lambda d: d["inputs"].update(levels={"d": [1]})), "of the wrong kind"),
        (described(lambda d: d["layout"].update(kind="pickle")), "kind is 'pickle'; expected one"),
        (described(lambda d: d["layout"].update(time=["y", "m"])), "expected one column or four"),
        (described(lambda d: d["layout"].update(unit=None)), "unit is 'None', of the wrong kind"),
    ],
)
def test_a_file_that_is_no_sound_model_is_refused_and_never_run(tmp_path, write, message):
    path = tmp_path / "model.npz"
    write(path)
    with pytest.raises(DataError, match=message) as caught:
        load_model(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


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
