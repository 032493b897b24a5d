"""The forecaster: its features, its parts of the time, what it may know, and how well it does."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from manual_bptt.forecasting import tasks, weather
from manual_bptt.forecasting.baselines import PENALTIES, ridge, same_hour_yesterday
from manual_bptt.forecasting.baselines import errors as errors_of
from manual_bptt.forecasting.columns import DataError
from manual_bptt.forecasting.features import compute_features, learn_inputs
from manual_bptt.forecasting.model import load_model, predict, save_model, windows_of
from manual_bptt.forecasting.recipes import CHANGE, RECIPES, orthogonal
from manual_bptt.forecasting.sources import (
    BEIJING,
    NEW_YORK,
    describe,
    read_source,
    recognise,
    with_clock,
)
from manual_bptt.forecasting.table import Table
from manual_bptt.forecasting.tasks import prepare, train_recipe
from manual_bptt.forecasting.windows import HOUR, changes_ahead, cut_windows
from manual_bptt.training import mean_squared_error

START = np.datetime64("2013-03-01T00", "h")


def table_of(seed=0, hours=200, groups=("A", "B"), lost=0.1, missing=0.1):
    """Return hours of two numbers and a category in some groups, with gaps and missing values."""
    rng = np.random.default_rng(seed)
    parts = []
    for number, group in enumerate(groups):
        there = np.flatnonzero(rng.random(hours) >= lost)
        temp = 10 * np.sin(2 * np.pi * there / 24) + rng.normal(0, 1, len(there)) + number
        values = np.stack([temp, rng.normal(size=len(there)), rng.integers(0, 3, len(there))], 1)
        values[rng.random(values.shape) < missing] = np.nan
        parts.append((np.full(len(there), group), START + there, values))
    group, time, values = (np.concatenate(column) for column in zip(*parts, strict=True))
    return Table(group, time, ("temp", "wind", "sky"), values, {"sky": ("clear", "fog", "rain")})


def rows(table, keep):
    return table._replace(group=table.group[keep], time=table.time[keep], values=table.values[keep])


def column(inputs, features, name):
    return features[:, inputs.names.index(name)]


def quick(monkeypatch, steps=60):
    """Make the recipe short."""
    short = CHANGE._replace(settings=replace(CHANGE.settings, steps=steps, every=20))
    monkeypatch.setattr(tasks, "RECIPES", {**RECIPES, "change": short})


@pytest.fixture(scope="module")
def new_york():
    return train_recipe("change", seed=0)


# Features


def test_features_are_the_columns_their_changes_the_sun_and_what_tells_groups_apart():
    inputs = learn_inputs(table_of(), "temp")
    assert inputs.numbers == ("temp", "wind")
    assert inputs.levels == {"sky": ("clear", "fog", "rain")}
    assert inputs.groups == ("A", "B")
    assert len(inputs.names) == 2 + 2 + 9 + 3 + 2 + 2
    assert compute_features(inputs, table_of()).shape == (len(table_of().time), 20)


def test_a_change_is_the_difference_from_the_hour_before_and_0_where_that_is_not_there():
    time = START + np.array([0, 1, 2, 4, 5])
    values = np.array([[1.0], [3.0], [np.nan], [7.0], [6.0]])
    table = Table(np.full(5, "A"), time, ("temp",), values)
    inputs = learn_inputs(table, "temp")
    changes = column(inputs, compute_features(inputs, table), "change of temp")
    np.testing.assert_array_equal(changes, [0, 2, 0, 0, -1])


def test_neighbours_are_differences_at_the_same_hour_and_0_where_unknown():
    time = START + np.array([0, 1, 2, 1, 2, 20])
    values = np.array([[1.0], [2.0], [4.0], [7.0], [np.nan], [5.0]])
    table = Table(np.array(list("AAABBB")), time, ("temp",), values)
    inputs = learn_inputs(table, "temp")
    features = compute_features(inputs, table)
    at_a = column(inputs, features, "temp at A less here")
    at_b = column(inputs, features, "temp at B less here")
    np.testing.assert_array_equal(at_a, [0, 0, 0, -5, -3, 0])  # 7 stands in for B's next hour
    np.testing.assert_array_equal(at_b, [0, 5, 3, 0, 0, 0])


def test_the_sun_is_highest_at_noon_and_in_june():
    time = np.array(["2013-06-21T12", "2013-12-21T12", "2013-03-21T12"], "datetime64[h]")
    table = Table(np.full(3, ""), time, ("temp",), np.zeros((3, 1)))
    inputs = learn_inputs(table, "temp")
    features = compute_features(inputs, table)
    season = column(inputs, features, "season")
    assert season[0] > 0.99
    assert season[1] < -0.99
    assert abs(season[2]) < 0.1
    np.testing.assert_allclose(column(inputs, features, "cos hour"), -1)
    np.testing.assert_allclose(column(inputs, features, "season x cos hour"), -season)


def test_a_category_not_seen_in_training_and_a_missing_one_have_no_feature():
    table = table_of(missing=0)
    seen = rows(table, table.column("sky") != 2)
    inputs = learn_inputs(seen, "temp")
    assert inputs.levels == {"sky": ("clear", "fog")}
    features = compute_features(inputs, table)
    rain = table.column("sky") == 2
    sky = np.stack([column(inputs, features, f"sky is {level}") for level in ("clear", "fog")])
    assert not sky[:, rain].any()
    np.testing.assert_array_equal(sky[:, ~rain].sum(axis=0), 1)
    renamed = table._replace(levels={"sky": ("fog", "rain", "clear")})
    again = column(inputs, compute_features(inputs, renamed), "sky is clear")
    np.testing.assert_array_equal(again, table.column("sky") == 2)  # levels go by their names


def test_what_never_varies_in_training_plays_no_part_later(tmp_path, monkeypatch):
    quick(monkeypatch)
    forecasts = []
    for late in (0, 1013):
        table = table_of(hours=2000, groups=("",), missing=0, lost=0)
        pressure = np.where(np.arange(2000) < 1900, 0, late)
        lines = [
            f"{t},{v},{p}"
            for t, v, p in zip(table.time, table.column("temp"), pressure, strict=True)
        ]
        path = tmp_path / f"{late}.csv"
        path.write_text("\n".join(["hour,temp,pressure", *lines]))
        layout = describe(path, time=["hour"], target="temp")
        forecasts.append(train_recipe("change", data=path, layout=layout).forecasts["rnn"])
    np.testing.assert_array_equal(*forecasts)


def test_a_column_of_one_category_is_left_out():
    table = table_of(missing=0)
    clear = rows(table, table.column("sky") == 0)
    assert learn_inputs(clear, "temp").levels == {}


def test_columns_that_are_mostly_unknown_are_left_out_but_the_target_cannot_be():
    table = table_of(hours=400)
    values = table.values.copy()
    values[100:, 1] = np.nan
    assert learn_inputs(table._replace(values=values), "temp").numbers == ("temp",)
    with pytest.raises(DataError, match=r"wind: expected it known at half .*, got \d+%"):
        learn_inputs(table._replace(values=values), "wind")


def test_text_in_the_place_of_numbers_and_the_reverse_are_refused():
    table = table_of()
    inputs = learn_inputs(table, "temp")
    with pytest.raises(DataError, match="wind: expected numbers, got text such as 'calm'"):
        compute_features(inputs, table._replace(levels={**table.levels, "wind": ("calm",)}))
    with pytest.raises(DataError, match="sky: expected text, got numbers"):
        compute_features(inputs, table._replace(levels={}))
    with pytest.raises(DataError, match="sky: expected a column of this name, got temp, wind"):
        compute_features(inputs, table._replace(names=("temp", "wind")))


# No look-ahead


@given(st.integers(0, 999), st.integers(1, 199))
def test_features_of_an_hour_do_not_depend_on_any_later_hour_of_any_group(seed, until):
    table = table_of(seed)
    inputs = learn_inputs(table, "temp")
    past = table.time < START + until * HOUR
    changed = table.values.copy()
    changed[~past] = np.random.default_rng(seed).normal(0, 1e6, changed[~past].shape)
    changed[~past, 2] = 1
    full = compute_features(inputs, table)[past]
    np.testing.assert_array_equal(
        compute_features(inputs, table._replace(values=changed))[past], full
    )
    np.testing.assert_array_equal(compute_features(inputs, rows(table, past)), full)


def test_changing_the_future_changes_no_forecast_of_the_past(monkeypatch):
    quick(monkeypatch)
    model = train_recipe("change").model
    table = weather.load_weather()
    until = np.datetime64("2013-12-01T00", "h")
    past = table.time < until
    changed = table.values.copy()
    changed[~past] = -changed[~past] + 40
    forecasts = []
    for one in (table, table._replace(values=changed), rows(table, past)):
        windows = windows_of(model, one, ahead=True)
        windows = windows.select(windows.time <= until)
        forecasts.append((windows.group, windows.time, predict(model, windows)))
    for other in forecasts[1:]:
        for a, b in zip(forecasts[0], other, strict=True):
            np.testing.assert_array_equal(a, b)
    assert (forecasts[0][1] == until).sum() == 3  # the first hour that is not known


def test_training_does_not_depend_on_anything_in_the_test_part(monkeypatch, tmp_path):
    quick(monkeypatch)
    header, *lines = weather.weather_path().read_text().splitlines()[:2500]
    instant = prepared(tmp_path / "a.csv", header, lines).test.time.min() - 24 * HOUR
    late = [np.datetime64(line.split(",")[1][:13], "h") >= instant for line in lines]
    assert 400 < sum(late) < 600
    changed = [
        line if not is_late else spoilt(line) for line, is_late in zip(lines, late, strict=True)
    ]
    results = []
    for name, kept in (("a.csv", lines), ("b.csv", changed)):
        (tmp_path / name).write_text("\n".join([header, *kept]))
        results.append(train_recipe("change", data=tmp_path / name))
    one, other = results
    assert one.training.steps == other.training.steps
    for part in ("params", "standardizer"):
        for a, b in zip(getattr(one.model, part), getattr(other.model, part), strict=True):
            np.testing.assert_array_equal(a, b)
    assert one.model.inputs == other.model.inputs
    assert one.metrics["test"] != other.metrics["test"]


def prepared(path, header, lines):
    path.write_text("\n".join([header, *lines]))
    return prepare("change", data=path)


def spoilt(line):
    group, time, temp, *rest = line.split(",")
    return ",".join([group, time, f"{float(temp) / 2 + 20:.2f}", *rest[:3], "7.0", *rest[4:]])


# Windows and parts


def test_the_parts_follow_each_other_in_time_and_share_no_hour():
    task = prepare("change")
    length = task.recipe.length
    train, validation, test = task.train, task.validation, task.test
    assert train.time.max() < (validation.time - length * HOUR).min()
    assert validation.time.max() < (test.time - length * HOUR).min()
    span = (test.time.max() - train.time.min()) / HOUR
    assert len(np.unique(test.time)) / span == pytest.approx(0.2, abs=0.02)
    assert len(task.before.time) > len(train.time) + len(validation.time)


def test_levels_groups_and_columns_come_from_the_hours_to_train_on(tmp_path):
    lines = ["place,hour,temp,sky,rain"]
    for k in range(1500):
        late = k >= 1100  # validation begins at hour 1080, the test part at 1200
        sky = "hail" if late else ("clear", "fog")[k % 2]
        rain = k if late or k % 30 == 0 else ""  # with filling, known at 13 hours of 30
        lines += [f"{place},{START + k * HOUR},{k % 24},{sky},{rain}" for place in ("A", "B")]
        lines += [f"C,{START + k * HOUR},{k % 24},{sky},{rain}"] if late else []
    path = tmp_path / "t.csv"
    path.write_text("\n".join(lines))
    layout = describe(path, time=["hour"], target="temp", group="place")
    inputs = prepare("change", data=path, layout=layout).model.inputs
    assert inputs.levels == {"sky": ("clear", "fog")}
    assert inputs.groups == ("A", "B")
    assert inputs.numbers == ("temp",)


def test_means_and_deviations_come_from_the_hours_to_train_on():
    task = prepare("change")
    covered = np.unique(task.train.rows)
    np.testing.assert_allclose(
        task.model.standardizer.x_mean, task.train.hours[covered].mean(axis=0)
    )
    change = (task.train.target - task.train.last).std()
    np.testing.assert_allclose(task.model.standardizer.target_scale, change)


def test_windows_ahead_end_with_the_hour_after_the_last_of_each_group():
    table = table_of(lost=0, missing=0)
    windows = cut_windows(
        table, table.values, table.column("temp"), table.column("temp"), 24, ahead=True
    )
    ahead = np.isnan(windows.target[:, 0])
    assert windows.group[ahead].tolist() == ["A", "B"]
    assert set(windows.time[ahead]) == {START + 200 * HOUR}
    known = cut_windows(table, table.values, table.column("temp"), table.column("temp"), 24)
    assert len(known.time) == (~ahead).sum()


def test_changes_ahead_are_unknown_across_gaps_groups_and_missing_values():
    time = START + np.array([0, 1, 2, 3, 5, 6])
    truth = np.array([1.0, 3.0, np.nan, 7.0, 8.0, 9.0])
    table = Table(np.array(list("AAAAAB")), time, ("temp",), truth[:, None])
    known = np.array([1.0, 3.0, 3.0, 7.0, 8.0, 9.0])  # 3 stands in for the missing hour
    np.testing.assert_array_equal(
        changes_ahead(table, known, truth), [2, np.nan, 4, np.nan, np.nan, np.nan]
    )


def test_the_loss_counts_known_changes_after_the_first_hours_alone():
    task = prepare("change")
    x, target = tasks.task_sequences(task).batch(np.arange(7))
    assert x.shape == (24, 7, len(task.model.inputs.names))
    assert np.isnan(target[: task.recipe.settle]).all()
    assert not np.isnan(target[task.recipe.settle :]).all()
    window = task.train.select(slice(7))
    scale = task.model.standardizer.target_scale
    np.testing.assert_allclose(target[-1] * scale, window.target - window.last, rtol=1e-5)
    y = np.random.default_rng(0).normal(size=target.shape)
    value, dy = mean_squared_error(y, target)
    known = ~np.isnan(target)
    assert value == pytest.approx(((y - target)[known] ** 2).mean())
    np.testing.assert_allclose(dy[known], 2 * (y - target)[known] / known.sum())
    assert not dy[~known].any()


@pytest.mark.parametrize("of_change", [True, False])
@pytest.mark.parametrize("settle", [None, 4])
def test_the_target_of_the_last_hour_is_that_of_the_window(of_change, settle):
    task = prepare(CHANGE._replace(of_change=of_change, settle=settle))
    _, target = tasks.task_sequences(task).batch(np.arange(5))
    last = target if settle is None else target[-1]
    window = task.train.select(slice(5))
    _, _, mean, scale = task.model.standardizer
    expected = window.target - (window.last if of_change else 0)
    np.testing.assert_allclose(last * scale + mean, expected, rtol=1e-5, atol=1e-5)


def test_the_first_forecast_is_persistence():
    params = orthogonal(np.random.default_rng(0), 5, 8, 1)
    np.testing.assert_allclose(params.W @ params.W.T, np.eye(8), atol=1e-12)
    assert not params.V.any()
    assert not params.c.any()


# Baselines


def test_same_hour_yesterday_is_the_first_of_24_hours():
    table = table_of(lost=0, missing=0)
    temp = table.column("temp")
    windows = cut_windows(table, table.values, temp, temp, 24)
    at = {(g, t): v for g, t, v in zip(table.group, table.time, temp, strict=True)}
    expected = [at[g, t - 24 * HOUR] for g, t in zip(windows.group, windows.time, strict=True)]
    np.testing.assert_array_equal(same_hour_yesterday(windows, temp)[:, 0], expected)


def test_ridge_is_the_regression_that_scikit_learn_fits():
    linear_model = pytest.importorskip("sklearn.linear_model")
    table = table_of(hours=400, lost=0, missing=0)
    temp = table.column("temp")
    windows = cut_windows(table, table.values[:, :2], temp, temp, 5)
    before = windows.select(windows.time < START + 300 * HOUR)
    test = windows.select(windows.time >= START + 305 * HOUR)

    def flat(part):
        return part.x.transpose(1, 0, 2).reshape(len(part.time), -1)

    forecasts = [
        test.last
        + linear_model.Ridge(alpha=penalty)
        .fit(flat(before), (before.target - before.last)[:, 0])
        .predict(flat(test))[:, None]
        for penalty in PENALTIES
    ]
    found = ridge(before, test)
    assert min(np.abs(found - forecast).max() for forecast in forecasts) < 1e-6


# How well it does


def test_on_new_york_it_beats_every_baseline_by_far(new_york):
    metrics = new_york.metrics
    assert metrics["test"]["rmse"] < 1.27
    assert metrics["test"]["rmse"] < 0.8 * metrics["baselines"]["persistence"]["rmse"]
    assert metrics["test"]["rmse"] < 0.98 * metrics["baselines"]["ridge"]["rmse"]
    share = metrics["test"]["rmse"] / metrics["baselines"]["persistence"]["rmse"]
    assert metrics["test"]["skill"] == pytest.approx(1 - share)
    assert all(
        part["rmse"]["rnn"] < part["rmse"]["persistence"] for part in metrics["by_group"].values()
    )


def test_errors_by_group_and_by_hour_add_up_to_the_whole(new_york):
    metrics = new_york.metrics
    for parts in (metrics["by_group"].values(), metrics["by_hour"]["hours"]):
        count = sum(part["windows"] for part in parts)
        square = sum(part["windows"] * part["rmse"]["rnn"] ** 2 for part in parts)
        assert count == metrics["windows"]["test"]
        assert np.sqrt(square / count) == pytest.approx(metrics["test"]["rmse"])
    assert [part["hour"] for part in metrics["by_hour"]["hours"]] == list(range(24))
    assert metrics["by_hour"]["clock"] == "Eastern Standard Time"
    at_nine = metrics["by_hour"]["hours"][9]
    test = new_york.test
    chosen = test.time.astype("datetime64[h]").astype(int) % 24 == 14  # in UTC
    assert at_nine["windows"] == chosen.sum()
    error = (test.last - test.target)[chosen]
    assert at_nine["rmse"]["persistence"] == pytest.approx(np.sqrt((error**2).mean()))


def test_the_parameters_kept_are_those_of_the_smallest_validation_error(new_york):
    training = new_york.training
    errors = [step.validation for step in training.steps if step.validation is not None]
    assert len(errors) == 30
    assert training.best_error == min(errors)
    assert (new_york.model.params.W == training.best.W).all()
    validation = prepare("change").validation
    found = errors_of(predict(new_york.model, validation), validation.target)["rmse"]
    assert found == training.best_error


def test_a_trained_model_forecasts_the_same_from_its_file(new_york, tmp_path):
    save_model(tmp_path / "model.npz", new_york.model)
    loaded = load_model(tmp_path / "model.npz")
    assert loaded[2:] == new_york.model[2:]
    np.testing.assert_array_equal(predict(loaded, new_york.test), new_york.forecasts["rnn"])


# Other people's tables


def beijing(path, hours=2000):
    rng = np.random.default_rng(0)
    lines = ["No,year,month,day,hour,pm2.5,DEWP,TEMP,PRES,cbwd,Iws,Is,Ir"]
    for k in range(hours):
        time = (np.datetime64("2010-01-01T00") + k * HOUR).astype(object)
        pm = "NA" if k < 24 else rng.integers(10, 300)
        temp = round(10 * np.sin(2 * np.pi * (k - 8) / 24) + rng.normal(0, 1))
        wind = ("NW", "NE", "SE", "cv")[rng.integers(4)]
        lines.append(
            f"{k + 1},{time.year},{time.month},{time.day},{time.hour},{pm},-5,{temp},1020,{wind},"
            f"{rng.integers(1, 50)}.79,0,0"
        )
    path.write_text("\n".join(lines) + "\n")


def test_the_published_table_of_beijing_is_recognised_and_forecast(tmp_path, monkeypatch):
    quick(monkeypatch, steps=400)
    path = tmp_path / "PRSA.csv"
    beijing(path)
    assert recognise(path) == BEIJING
    result = train_recipe("change", data=path, layout=BEIJING)
    assert result.metrics["unit"] == "degC"
    assert result.metrics["target"] == "TEMP"
    assert {"pm2.5", "cbwd is NW", "cbwd is cv"} <= set(result.metrics["features"])
    assert result.metrics["test"]["rmse"] < result.metrics["baselines"]["persistence"]["rmse"]
    assert list(result.metrics["by_group"]) == [""]


def test_a_wind_that_beijing_does_not_know_is_refused_with_its_line(tmp_path):
    path = tmp_path / "PRSA.csv"
    beijing(path, hours=30)
    path.write_text(path.read_text().replace("NW", "WNW"))
    with pytest.raises(DataError, match=r"PRSA\.csv:\d+: cbwd: expected .*'WNW'"):
        read_source(path, BEIJING)


def test_new_york_is_recognised_and_anything_else_is_not(tmp_path):
    assert recognise(weather.weather_path()) == NEW_YORK
    path = tmp_path / "t.csv"
    path.write_text("hour,temp\n")
    assert recognise(path) is None


@pytest.mark.parametrize(
    ("timezone", "offset"),
    [
        ("Europe/Istanbul", 3),  # since 2016 all year
        ("America/New_York", -5),
        ("Europe/Dublin", 0),  # whose summer is its standard time by name
        ("Australia/Sydney", 10),
        ("UTC", 0),
    ],
)
def test_the_clock_is_the_standard_time_of_the_zone_in_the_years_of_the_data(
    tmp_path, timezone, offset
):
    path = tmp_path / "t.csv"
    path.write_text("hour,temp\n2020-03-01 12:00,1\n")
    layout = describe(path, time=["hour"], target="temp", timezone=timezone)
    ahead, name = with_clock(layout, read_source(path, layout)).clock
    assert ahead == offset
    assert timezone in name


@pytest.mark.parametrize(
    ("time", "clock"), [("12:00", "the file's clock"), ("12:00+08:00", "UTC"), ("12:00Z", "UTC")]
)
def test_times_with_an_offset_are_utc_and_others_the_clock_of_the_file(tmp_path, time, clock):
    path = tmp_path / "t.csv"
    path.write_text(f"hour,temp\n2020-03-01 {time},1\n")
    layout = describe(path, time=["hour"], target="temp")
    layout = with_clock(layout, read_source(path, layout))
    assert layout.clock == (0, clock)
    assert layout.in_utc == (clock == "UTC")


def test_all_other_columns_are_features_unless_some_are_named(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("place,hour,temp,wind,sky\n")
    layout = describe(path, time=["hour"], target="temp", group="place")
    assert layout.columns == ("temp", "wind", "sky")
    layout = describe(path, time=["hour"], target="temp", columns=["wind", "temp", "wind"])
    assert layout.columns == ("temp", "wind")
    with pytest.raises(DataError, match="hour: expected a feature, got a column of time"):
        describe(path, time=["hour"], target="temp", columns=["wind", "hour"])


@pytest.mark.parametrize("hours", [1, 20, 60])
def test_a_table_that_is_too_short_is_refused_by_name(tmp_path, hours):
    path = tmp_path / "short.csv"
    lines = [f"2013-01-{1 + k // 24:02d}T{k % 24:02d}:00Z,{k}" for k in range(hours)]
    path.write_text("\n".join(["hour,temp", *lines]))
    layout = describe(path, time=["hour"], target="temp")
    with pytest.raises(DataError, match=r"short\.csv: expected"):
        prepare("change", data=path, layout=layout)


def test_a_target_that_never_changes_is_forecast_exactly(tmp_path, monkeypatch):
    quick(monkeypatch)
    path = tmp_path / "still.csv"
    lines = [
        f"2013-{1 + k // 480:02d}-{1 + k // 24 % 20:02d}T{k % 24:02d}:00,5" for k in range(960)
    ]
    path.write_text("\n".join(["hour,temp", *lines]))
    layout = describe(path, time=["hour"], target="temp")
    metrics = train_recipe("change", data=path, layout=layout).metrics
    assert metrics["test"] == {"rmse": 0.0, "mae": 0.0, "skill": 0.0}
