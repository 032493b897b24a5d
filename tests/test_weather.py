"""The weather table, its card, and what becomes of it: features, windows, split, baseline."""

import csv
import hashlib
import importlib.util
import io
import math
import tarfile
from collections import Counter
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from manual_bptt.forecasting import weather
from manual_bptt.forecasting.baselines import errors, persistence
from manual_bptt.forecasting.columns import DataError
from manual_bptt.forecasting.quality import Rule, mask_impossible
from manual_bptt.forecasting.table import Table, read_table
from manual_bptt.forecasting.windows import (
    HOUR,
    fill_forward,
    fit_standardizer,
    make_windows,
    split_by_time,
    standardize,
)

DATA = Path(__file__).resolve().parents[1] / "data"
CARD = (DATA / "README.md").read_text(encoding="utf-8")
STATIONS = ("EWR", "JFK", "LGA")
START = np.datetime64("2013-01-01T00", "h")


def load_rebuild():
    spec = importlib.util.spec_from_file_location("rebuild", DATA / "rebuild.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def rows():
    """The committed table as text, read without our loader."""
    with (DATA / "weather.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def observed():
    return weather.read_weather(weather.weather_path())


@pytest.fixture(scope="module")
def year():
    """All windows of the weather table."""
    return make_windows(weather.load_weather(), features=weather.FEATURES, target=weather.TARGET)


def hourly(hours, group="A", values=None):
    """A one-column table; without values, each row holds its own hour."""
    hours = np.asarray(hours)
    values = hours.astype(float) if values is None else np.asarray(values, float)
    return Table(np.full(len(hours), group), START + hours, ("v",), values[:, None])


def cut(table, length, **options):
    return make_windows(table, features=["v"], target="v", length=length, **options)


@st.composite
def tables(draw, missing=False):
    """Tables with gaps, of up to three groups, whose values tell group (thousands) and hour."""
    group, hours = [], []
    for name in STATIONS[: draw(st.integers(1, 3))]:
        chosen = sorted(draw(st.sets(st.integers(0, 40), min_size=1)))
        group += [name] * len(chosen)
        hours += chosen
    group, hours = np.array(group), np.array(hours)
    values = hours + 1000.0 * np.searchsorted(STATIONS, group)
    if missing:
        size = len(hours)
        values[draw(st.lists(st.booleans(), min_size=size, max_size=size))] = np.nan
    return Table(group, START + hours, ("v",), values[:, None])


# The table and its card


def test_the_committed_table_is_the_one_the_card_describes():
    digest = hashlib.sha256((DATA / "weather.csv").read_bytes()).hexdigest()
    assert digest in CARD
    assert load_rebuild().SOURCE_SHA256 in CARD


def test_the_card_counts_rows_missing_hours_and_gaps_of_each_station(rows):
    assert f"{len(rows):,} rows" in CARD
    for station, name in zip(STATIONS, ("Newark", "Kennedy", "La Guardia"), strict=True):
        times = [datetime.fromisoformat(r["time_hour"]) for r in rows if r["origin"] == station]
        assert times == sorted(set(times))
        assert (str(times[0])[:13], str(times[-1])[:13]) == ("2013-01-01 06", "2013-12-30 23")
        steps = Counter((b - a).total_seconds() / 3600 for a, b in pairwise(times))
        gaps = {step: n for step, n in steps.items() if step != 1}
        absent = sum((step - 1) * n for step, n in gaps.items())
        assert (
            f"| {station} ({name}) | {len(times):,} | {absent:.0f} | {sum(gaps.values())} "
            f"| {max(gaps) - 1:.0f} h |"
        ) in CARD
        assert len(times) + absent == 8730
    assert "8,730 hours" in CARD


def test_sixteen_hours_are_missing_at_every_station_as_the_card_says(observed):
    span = np.datetime64("2013-01-01T06", "h") + np.arange(8730)
    absent = span[~np.isin(span, observed.time)]
    assert len(absent) == 16
    longest = [str(hour) for hour in absent if str(hour)[:10] in ("2013-10-26", "2013-11-03")]
    assert longest == [f"2013-{day}T{hour:02}" for day in ("10-26", "11-03") for hour in range(5)]
    assert "16 of the missing hours are missing at all three stations" in CARD


def test_the_card_gives_each_column_its_missing_values_and_range(rows):
    for name in weather.OBSERVED:
        texts = [r[name] for r in rows]
        known = sorted((t for t in texts if t != "NA"), key=float)
        line = next(line for line in CARD.splitlines() if line.startswith(f"| {name} |"))
        assert line.endswith(f"| {texts.count('NA'):,} | {known[0]} | {known[-1]} |")


def test_the_card_counts_the_faults_that_are_not_masked(rows):
    calm_or_variable = [r for r in rows if r["wind_dir"] == "NA"]
    light = [r for r in calm_or_variable if r["wind_speed"] != "NA" and float(r["wind_speed"]) < 7]
    unknown = [r for r in calm_or_variable if r["wind_speed"] == "NA"]
    strong = len(calm_or_variable) - len(light) - len(unknown)
    assert (len(calm_or_variable), len(light), strong, len(unknown)) == (460, 421, 35, 4)

    known = [r for r in rows if r["temp"] != "NA"]
    fahrenheit = {round(32 + 1.8 * round((f - 32) / 1.8, 1), 2) for f in range(-40, 140)}
    others = [r for r in known if round(float(r["temp"]), 2) not in fahrenheit]
    tenths = [round((float(r["temp"]) - 32) / 0.18) for r in others]
    coarse = [r for r, n in zip(others, tenths, strict=True) if n % 10 == 0]
    without_pressure = [r for r in coarse if r["pressure"] == "NA"]
    assert len(known) - len(others) == 24763
    assert (len(coarse), len(without_pressure)) == (1283, 1277)

    def magnus(fahrenheit):
        celsius = (fahrenheit - 32) / 1.8
        return math.exp(17.625 * celsius / (243.04 + celsius))

    misfit = [
        abs(100 * magnus(float(r["dewp"])) / magnus(float(r["temp"])) - float(r["humid"]))
        for r in known
    ]
    assert sum(m > 5 for m in misfit) == 245
    assert round(max(misfit)) == 28

    for text in (
        "460 rows",
        "421",
        "24,763",
        "1,283",
        "1,277",
        "2,729",
        "245 rows",
        "(28 at most)",
    ):
        assert text in CARD


def test_no_sensor_is_stuck_for_longer_than_the_card_says(rows):
    def longest_run(keys):
        best = run = 1
        for before, now in pairwise(keys):
            run = run + 1 if before == now and "NA" not in now else 1
            best = max(best, run)
        return best

    assert longest_run([(r["origin"], r["temp"]) for r in rows]) == 14
    assert longest_run([(r["origin"], *(r[c] for c in weather.OBSERVED)) for r in rows]) == 2
    pressure = [(r["origin"], "-" if r["pressure"] == "NA" else i) for i, r in enumerate(rows)]
    assert longest_run(pressure) == 11


def test_wind_speeds_are_whole_knots(observed):
    knots = observed.column("wind_speed") / 1.15078
    known = knots[~np.isnan(knots)]
    np.testing.assert_allclose(known, known.round(), rtol=1e-12)


def test_the_hour_that_the_local_clock_repeats_on_november_3_is_two_hours(observed):
    for station in STATIONS:
        times = observed.time[observed.group == station].astype(str)
        at = times.tolist().index("2013-11-03T05")  # 01:00 EDT; an hour later it is 01:00 EST
        assert times[at + 1] == "2013-11-03T06"


# The script that rebuilds the table


def write_sdist(path, content):
    with tarfile.open(path, "w:gz") as archive:
        member = tarfile.TarInfo(load_rebuild().MEMBER)
        member.size = len(content)
        archive.addfile(member, io.BytesIO(content))
    return path


@pytest.fixture
def rebuild(tmp_path, monkeypatch):
    """The script, a source package it accepts, and a place of its own to write to."""
    module = load_rebuild()
    names = ("year", "wind_gust", *module.KEPT)
    source = ",".join(names) + "\n" + ",".join(f"{n}.10" for n in names) + "\n"
    monkeypatch.setattr(module, "SOURCE_SHA256", hashlib.sha256(source.encode()).hexdigest())
    monkeypatch.setattr(module, "TABLE", tmp_path / "weather.csv")
    sdist = write_sdist(tmp_path / "source.tar.gz", source.encode())
    return SimpleNamespace(main=module.main, kept=module.KEPT, table=module.TABLE, sdist=str(sdist))


def test_rebuilding_keeps_the_text_of_the_kept_columns_and_drops_the_rest(rebuild):
    assert rebuild.main(["--sdist", rebuild.sdist]) == 0
    header, row = rebuild.table.read_text().splitlines()
    assert header.split(",") == list(rebuild.kept)
    assert row.split(",") == [f"{name}.10" for name in rebuild.kept]


def test_check_accepts_the_rebuilt_table_and_refuses_any_other(rebuild, capsys):
    assert rebuild.main(["--check", "--sdist", rebuild.sdist]) == 1
    assert not rebuild.table.exists()
    assert rebuild.main(["--sdist", rebuild.sdist]) == 0
    assert rebuild.main(["--check", "--sdist", rebuild.sdist]) == 0
    rebuild.table.write_bytes(rebuild.table.read_bytes() + b"\n")
    capsys.readouterr()
    assert rebuild.main(["--check", "--sdist", rebuild.sdist]) == 1
    assert len(capsys.readouterr().err.splitlines()) == 1


@pytest.mark.parametrize("kind", ["missing", "not an archive", "another source"])
def test_a_source_that_cannot_be_trusted_is_refused_in_one_line(rebuild, kind, capsys, tmp_path):
    path = tmp_path / "bad.tar.gz"
    if kind == "not an archive":
        path.write_bytes(b"not an archive")
    elif kind == "another source":
        write_sdist(path, b"origin,temp\n")
    assert rebuild.main(["--sdist", str(path)]) == 2
    message = capsys.readouterr().err
    assert len(message.splitlines()) == 1
    assert str(path) in message
    assert not rebuild.table.exists()


# Where the table lies


def test_a_checkout_finds_its_own_table():
    assert weather.weather_path() == DATA / "weather.csv"


def test_an_installed_package_finds_the_table_inside_it_first(tmp_path, monkeypatch):
    package = tmp_path / "manual_bptt" / "forecasting"
    for folder in (tmp_path / "data", package / "data"):
        folder.mkdir(parents=True)
        (folder / "weather.csv").touch()
    monkeypatch.setattr(weather, "__file__", str(package / "weather.py"))
    assert weather.weather_path() == package / "data" / "weather.csv"


def test_a_missing_table_is_reported_with_the_way_to_make_it(tmp_path, monkeypatch):
    monkeypatch.setattr(weather, "__file__", str(tmp_path / "a" / "b" / "weather.py"))
    with pytest.raises(DataError, match=r"weather\.csv: no such file; data/rebuild\.py"):
        weather.weather_path()


# The reader

GOOD = "place,hour,temp\nB,2013-01-01T07:00Z,1.5\nA,2013-01-01T08:00Z,NA\nA,2013-01-01T07:00Z,-2\n"


def read(path, content):
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return read_table(path, time="hour", group="place", columns=["temp"])


def test_rows_come_sorted_by_group_then_time(tmp_path):
    table = read(tmp_path / "t.csv", GOOD)
    assert table.group.tolist() == ["A", "A", "B"]
    assert [str(hour) for hour in table.time] == ["2013-01-01T07", "2013-01-01T08", "2013-01-01T07"]
    np.testing.assert_array_equal(table.column("temp"), [-2, np.nan, 1.5])


def test_times_with_an_offset_are_turned_into_utc(tmp_path):
    text = "place,hour,temp\nA,2013-11-03T01:00-04:00,1\nA,2013-11-03T01:00-05:00,2\n"
    table = read(tmp_path / "t.csv", text)
    assert [str(hour) for hour in table.time] == ["2013-11-03T05", "2013-11-03T06"]


@pytest.mark.parametrize("text", ["", "NA", "NaN", "nan"])
def test_a_missing_value_may_be_written_in_these_ways(tmp_path, text):
    table = read(tmp_path / "t.csv", f"place,hour,temp\nA,2013-01-01T07:00Z,{text}\n")
    assert np.isnan(table.values).all()


def test_byte_order_mark_blank_lines_and_further_columns_do_no_harm(tmp_path):
    text = "\ufeffplace,note,hour,temp\r\n\r\nA,x,2013-01-01T07:00Z,3\r\n\r\n"
    assert read(tmp_path / "t.csv", text).values.tolist() == [[3.0]]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "{}:1: hour: expected a column of this name, got an empty line"),
        ("place,hour\nA,2013", "{}:1: temp: expected a column of this name, got place, hour"),
        (
            "place,hour,temp,temp\n",
            "{}:1: temp: expected a column of this name, got two such columns",
        ),
        ("place,hour,temp\n", "{}: expected rows below the header, got none"),
        (GOOD + "A,2013-01-01T09:00Z\n", "{}:5: expected 3 cells, got 2"),
        (GOOD + "A,2013-01-01T09:00Z,1,2\n", "{}:5: expected 3 cells, got 4"),
        (GOOD + "A,2013-01-01T09:00Z,warm\n", "{}:5: temp: expected a number or NA, got 'warm'"),
        (GOOD + "A,2013-01-01T09:00Z,inf\n", "{}:5: temp: expected a number or NA, got 'inf'"),
        (GOOD + "A,2013-01-01T09:00Z,1_0\n", "{}:5: temp: expected a number or NA, got '1_0'"),
        (
            GOOD + "A,yesterday,1\n",
            "{}:5: hour: expected a whole hour in ISO 8601, got 'yesterday'",
        ),
        (GOOD + "A,2013-01-01T09:51Z,1\n", "{}:5: hour: expected a whole hour in ISO 8601, got "),
        (GOOD + "A,0001-01-01T00:00+05:00,1\n", "{}:5: hour: expected a whole hour in ISO 8601, "),
        (GOOD + " ,2013-01-01T09:00Z,1\n", "{}:5: place: expected a name, got ' '"),
        (
            GOOD + "A,2013-01-01T02:00-05:00,1\n",
            "{}:5: hour: expected one row an hour, got a second one for A at 2013-01-01T07Z "
            "(the first is line 4)",
        ),
        (b"place,hour,temp\nA,2013-01-01T09:00Z,\xff\n", "{}: expected text in UTF-8"),
        (GOOD + 'A,"' + "x" * 2**18, "{}:5: expected CSV: field larger than field limit"),
    ],
)
def test_a_bad_file_is_refused_with_its_line_and_column(tmp_path, content, message):
    path = tmp_path / "t.csv"
    with pytest.raises(DataError) as caught:
        read(path, content)
    assert str(caught.value).startswith(message.format(path))


def test_a_file_that_is_not_there_is_refused_by_name(tmp_path):
    with pytest.raises(DataError, match=r"t\.csv: cannot be read: No such file"):
        read_table(tmp_path / "t.csv", time="hour", group="place", columns=["temp"])


def test_a_column_that_the_table_lacks_is_named_with_those_it_has():
    with pytest.raises(ValueError, match="no column 'w'; expected one of v"):
        make_windows(hourly(range(5)), features=["v", "w"], target="v", length=2)


# Impossible values


def test_exactly_the_four_known_impossible_values_are_masked(observed):
    masked = np.isnan(weather.clean(observed).values) & ~np.isnan(observed.values)
    found = {
        (observed.group[r], str(observed.time[r]), observed.names[c], observed.values[r, c])
        for r, c in np.argwhere(masked).tolist()
    }
    assert found == {
        ("EWR", "2013-02-12T08", "wind_speed", 1048.36058),
        ("JFK", "2013-05-09T02", "temp", 13.1),
        ("JFK", "2013-05-09T02", "dewp", 12.02),
        ("JFK", "2013-05-09T02", "humid", 95.34),
    }
    for station, hour, _, value in found:
        assert any(
            station in line and hour in line and str(value) in line for line in CARD.splitlines()
        )


@pytest.mark.parametrize(
    ("column", "station", "hour", "change"),
    [("temp", "EWR", "2013-10-07T20", -13.68), ("dewp", "LGA", "2013-04-30T17", -23.04)],
)
def test_the_largest_changes_left_after_masking_are_the_ones_on_the_card(
    observed, column, station, hour, change
):
    table = weather.clean(observed)
    steps = np.diff(table.column(column))
    hourly_steps = (np.diff(table.time) == HOUR) & (table.group[1:] == table.group[:-1])
    steps[~hourly_steps | np.isnan(steps)] = 0
    largest = int(np.abs(steps).argmax())
    assert (table.group[largest + 1], str(table.time[largest + 1])) == (station, hour)
    assert steps[largest] == pytest.approx(change)
    assert f"{-change} degF" in CARD


def test_a_value_outside_the_limits_is_masked_and_one_on_them_is_kept():
    table = hourly(range(4), values=[-1, 0, 10, 11])
    np.testing.assert_array_equal(
        mask_impossible(table, {"v": Rule(0, 10)}).column("v"), [np.nan, 0, 10, np.nan]
    )


def test_a_jump_is_judged_against_the_last_accepted_value_and_the_hours_since():
    table = hourly([0, 1, 2, 3, 6], values=[0, 100, 9, 40, 49])
    np.testing.assert_array_equal(
        mask_impossible(table, {"v": Rule(-99, 999, per_hour=10)}).column("v"),
        [0, np.nan, 9, np.nan, 49],
    )


def test_a_lasting_change_is_accepted_once_the_hours_allow_it():
    table = hourly(range(6), values=[0, 25, 25, 25, 25, 25])
    np.testing.assert_array_equal(
        mask_impossible(table, {"v": Rule(-99, 99, per_hour=10)}).column("v"),
        [0, np.nan, np.nan, 25, 25, 25],
    )


def test_a_jump_from_one_group_to_the_next_is_no_jump():
    table = hourly([0, 1], values=[0, 50])._replace(group=np.array(["A", "B"]))
    masked = mask_impossible(table, {"v": Rule(-99, 99, per_hour=10)})
    np.testing.assert_array_equal(masked.values, table.values)


# Features


@given(st.floats(0.1, 60), st.floats(0, 360))
def test_wind_components_have_the_speed_as_length_and_point_away_from_the_direction(
    speed, direction
):
    east, north = weather.wind_components(np.array([speed]), np.array([direction]))
    assert np.hypot(east, north)[0] == pytest.approx(speed)
    back = np.degrees(np.arctan2(-east, -north))[0] % 360
    assert abs((back - direction + 180) % 360 - 180) < 1e-6


def test_wind_without_a_direction_is_variable_if_light_and_unknown_if_strong():
    speed = np.array([6 * 1.15078, 7 * 1.15078, np.nan])
    for component in weather.wind_components(speed, np.full(3, np.nan)):
        np.testing.assert_array_equal(component, [0, np.nan, np.nan])


def test_features_take_every_observation_as_it_is_and_the_direction_as_components(observed):
    table = weather.weather_features(observed)
    assert table.names == weather.FEATURES == tuple(weather.UNITS)
    for name in set(table.names) & set(observed.names):
        np.testing.assert_array_equal(table.column(name), observed.column(name))
    speed = np.hypot(table.column("wind_east"), table.column("wind_north"))
    blows = ~np.isnan(observed.column("wind_dir"))
    np.testing.assert_allclose(speed[blows], observed.column("wind_speed")[blows], rtol=1e-12)


# Windows


@given(tables(), st.integers(1, 6))
def test_windows_are_all_the_stretches_of_consecutive_hours_and_no_others(table, length):
    present = set(zip(table.group.tolist(), table.column("v").tolist(), strict=True))
    expected = [
        (group, value)
        for group, value in sorted(present)
        if all((group, value + k) in present for k in range(length + 1))
    ]
    if not expected:
        with pytest.raises(DataError, match=f"expected {length + 1} consecutive hours"):
            cut(table, length)
        return
    windows = cut(table, length)
    assert windows.x.shape == (length, len(expected), 1)
    firsts = np.array([value for _, value in expected])
    assert windows.group.tolist() == [group for group, _ in expected]
    np.testing.assert_array_equal(windows.x[:, :, 0], firsts + np.arange(length)[:, None])
    np.testing.assert_array_equal(windows.target[:, 0], firsts + length)
    np.testing.assert_array_equal(windows.last[:, 0], firsts + length - 1)
    hour_of_target = (firsts % 1000).astype(int) + length
    np.testing.assert_array_equal(windows.time, START + hour_of_target)


@given(tables(missing=True), st.integers(0, 5))
def test_missing_values_take_the_last_of_their_group_while_it_is_recent(table, max_fill):
    filled = fill_forward(table, max_fill).column("v")
    for i, (group, time, given_value) in enumerate(
        zip(table.group, table.time, table.column("v"), strict=True)
    ):
        recent = (
            (table.group == group) & (table.time <= time) & (time - table.time <= max_fill * HOUR)
        )
        known = table.column("v")[recent & ~np.isnan(table.column("v"))]
        if not np.isnan(given_value):
            assert filled[i] == given_value
        elif len(known):
            assert filled[i] == known[-1]
        else:
            assert np.isnan(filled[i])


@given(tables(missing=True), st.integers(0, 3))
def test_windows_hold_no_missing_value_and_their_targets_were_observed(table, max_fill):
    truth = {
        (g, t): v
        for g, t, v in zip(table.group, table.time, table.column("v"), strict=True)
        if not np.isnan(v)
    }
    try:
        windows = cut(table, 2, max_fill=max_fill)
    except DataError:
        return
    assert not np.isnan(windows.x).any()
    for group, time, target in zip(windows.group, windows.time, windows.target[:, 0], strict=True):
        assert truth[group, time] == target


def test_an_impossible_target_drops_its_window_and_an_impossible_input_is_filled(year):
    fault = np.datetime64("2013-05-09T02", "h")
    jfk = year.time[year.group == "JFK"]
    assert fault not in jfk
    assert {fault - HOUR, fault + HOUR} <= set(jfk)
    after = (year.group == "JFK") & (year.time == fault + HOUR)
    assert year.last[after].item() == 57.02
    assert year.x[-1, after, weather.FEATURES.index("temp")].item() == 57.02


@given(st.integers(0, 2**32 - 1), st.integers(30, 90))
def test_features_never_depend_on_a_later_hour(seed, known_hours):
    rng = np.random.default_rng(seed)
    hours, names = np.arange(100), weather.OBSERVED
    calm = np.array([50.0, 40.0, 60.0, 180.0, 9.0, 0.0, 1010.0, 10.0])
    values = calm + rng.normal(0, 1, (100, len(names)))
    values[rng.random(values.shape) < 0.05] = np.nan
    table = Table(np.full(100, "A"), START + hours, names, values)
    changed = values.copy()
    changed[known_hours:] = rng.normal(0, 500, changed[known_hours:].shape)

    def windows(values):
        return make_windows(
            weather.weather_features(weather.clean(table._replace(values=values))),
            features=weather.FEATURES,
            target="temp",
            length=4,
        )

    before, after = windows(values), windows(changed)
    now = START + known_hours * HOUR  # the first hour that differs
    for one, other in ((before, after), (after, before)):
        shared = np.isin(one.time, other.time) & (one.time <= now)
        np.testing.assert_array_equal(
            one.x[:, shared], other.x[:, np.isin(other.time, one.time[shared])]
        )
    old, new = before.time < now, after.time < now
    np.testing.assert_array_equal(before.time[old], after.time[new])
    np.testing.assert_array_equal(before.target[old], after.target[new])


def test_the_weather_gives_windows_within_stations_over_unbroken_hours(year, observed):
    x_temp = year.x[:, :, weather.FEATURES.index("temp")]
    assert x_temp.shape == (24, 25083)
    truth = dict(
        zip(
            zip(observed.group.tolist(), observed.time.astype(int).tolist(), strict=True),
            weather.clean(observed).column("temp").tolist(),
            strict=True,
        )
    )
    for n in range(0, x_temp.shape[1], 97):
        group, end = str(year.group[n]), int(year.time[n].astype(int))
        assert year.target[n, 0] == truth[group, end]
        for step, value in enumerate(x_temp[:, n]):
            expected = truth[group, end - 24 + step]
            assert value == expected or math.isnan(expected)


# Split and standardisation


@given(tables(), st.integers(1, 4), st.floats(0.05, 0.95))
def test_training_and_test_windows_share_no_hour(table, length, fraction):
    try:
        windows = cut(table, length)
        train, test = split_by_time(windows, test_fraction=fraction)
    except DataError:
        return
    last_of_train = max((train.x % 1000).max(), (train.target % 1000).max())
    assert last_of_train < (test.x % 1000).min()
    first = (windows.x % 1000).min()
    instant = round((windows.target % 1000).max() + 1 - first)
    instant = first + instant - round(fraction * instant)
    kept = (windows.target[:, 0] % 1000 < instant) | (windows.x[0, :, 0] % 1000 >= instant)
    assert len(train.time) + len(test.time) == kept.sum()


def test_the_test_part_of_the_weather_is_the_last_fifth_of_the_year_at_all_stations(year):
    train, test = split_by_time(year)
    assert len(train.time), len(test.time) == (20260, 4751)
    assert set(train.group) == set(test.group) == set(STATIONS)
    assert str(train.time.max()) == "2013-10-19T05"
    assert str(test.time.min() - 24 * HOUR) == "2013-10-19T06"


@pytest.mark.parametrize(("fraction", "part"), [(0.02, "test"), (0.98, "training")])
def test_a_split_that_leaves_a_part_empty_is_refused(fraction, part):
    with pytest.raises(DataError, match=f"got no {part} window"):
        split_by_time(cut(hourly(range(20)), 3), test_fraction=fraction)


@pytest.mark.parametrize("fraction", [0.0, 1.0, -1.0, math.nan])
def test_a_test_fraction_outside_0_to_1_is_refused(fraction):
    with pytest.raises(ValueError, match="expected a number between 0 and 1"):
        split_by_time(cut(hourly(range(20)), 3), test_fraction=fraction)


def test_a_window_of_no_hours_is_refused():
    with pytest.raises(ValueError, match="length is 0; expected at least 1"):
        cut(hourly(range(20)), 0)


def test_standardisation_knows_the_training_part_only():
    values = np.random.default_rng(0).normal(5, 3, 100)
    changed = np.where(np.arange(100) < 80, values, 1e6)
    one, other = (
        fit_standardizer(split_by_time(cut(hourly(range(100), values=v), 5))[0])
        for v in (values, changed)
    )
    for a, b in zip(one, other, strict=True):
        np.testing.assert_array_equal(a, b)
    np.testing.assert_allclose(one.x_mean, values[:79].mean(), rtol=1e-12)  # 79 is a target only
    np.testing.assert_allclose(one.x_scale, values[:79].std(), rtol=1e-12)
    np.testing.assert_allclose(one.target_mean, values[5:80].mean(), rtol=1e-12)
    np.testing.assert_allclose(one.target_scale, values[5:80].std(), rtol=1e-12)


def test_standardising_takes_off_the_mean_and_divides_by_the_deviation(year):
    train, test = split_by_time(year)
    standardizer = fit_standardizer(train)
    for part in (train, test):
        scaled = standardize(standardizer, part)
        x = scaled.x[-1] * standardizer.x_scale + standardizer.x_mean
        np.testing.assert_allclose(x, part.x[-1], rtol=1e-9, atol=1e-9)
        for name in ("target", "last"):
            restored = getattr(scaled, name) * standardizer.target_scale + standardizer.target_mean
            np.testing.assert_allclose(restored, getattr(part, name), rtol=1e-12)
    assert abs(standardize(standardizer, train).target.mean()) < 1e-12
    assert standardize(standardizer, train).target.std() == pytest.approx(1)


def test_a_column_that_never_changes_becomes_zero():
    windows = cut(hourly(range(20), values=np.full(20, 0.1)), 3)
    scaled = standardize(fit_standardizer(windows), windows)
    assert np.abs(scaled.x).max() < 1e-15
    assert np.abs(scaled.target).max() < 1e-15


# Baseline


def test_persistence_forecasts_the_last_known_temperature(year):
    _, test = split_by_time(year)
    forecast = persistence(test)
    np.testing.assert_array_equal(forecast[:, 0], test.x[-1, :, weather.FEATURES.index("temp")])
    assert errors(forecast, test.target)["rmse"] == pytest.approx(1.5739, abs=1e-4)
    assert errors(forecast, test.target)["mae"] == pytest.approx(1.1029, abs=1e-4)


def test_errors_refuse_shapes_that_would_broadcast():
    with pytest.raises(ValueError, match=r"forecast has shape \(3,\); expected \(3, 1\)"):
        errors(np.zeros(3), np.zeros((3, 1)))
