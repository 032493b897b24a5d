"""``manual-bptt train`` and ``predict``: their files, other people's tables, and no work lost."""

import csv
import json
import os
import re
import signal
import subprocess
import sys
import time
from functools import cache

import numpy as np
import pytest
from test_table import ARGUMENTS, MALFORMED

from manual_bptt import forecasting
from manual_bptt.archive import read_arrays, write_arrays
from manual_bptt.cli import main
from manual_bptt.forecasting import tasks, weather
from manual_bptt.forecasting.recipes import RECIPES
from manual_bptt.training import load_training

OUTPUTS = {"model.npz", "history.jsonl", "metrics.json", "forecast.png", "report.html"}
OWN = ["--time", "when", "--target", "level", "--group", "place"]


@pytest.fixture(scope="module")
def winter(tmp_path_factory):
    """Return the first weeks of the weather of one station."""
    path = tmp_path_factory.mktemp("data") / "winter.csv"
    path.write_text("\n".join(weather.weather_path().read_text().splitlines()[:1500]) + "\n")
    return path


@pytest.fixture(scope="module")
def trained(winter, tmp_path_factory):
    """Return the folder of a training that nobody interrupted."""
    folder = tmp_path_factory.mktemp("runs") / "whole"
    assert main(["train", "--data", str(winter), "--out", str(folder)]) == 0
    return folder


@pytest.fixture
def own_table(tmp_path):
    """Return a table with columns of its own: two places, text, and times with an offset."""
    rng = np.random.default_rng(0)
    lines = ["place,when,level,rain,note"]
    for place in ("Upper", "Lower"):
        for k, level in enumerate(np.cumsum(rng.normal(size=900)) + 50):
            when = np.datetime64("2020-02-01T00:00") + np.timedelta64(k, "h")
            rain = "" if k % 50 == 7 else f"{rng.random():.2f}"
            lines.append(f"{place},{when}:00+01:00,{level:.2f},{rain},{('dry', 'wet')[k % 2]}")
    path = tmp_path / "own.csv"
    path.write_text("\n".join(lines))
    return path


@pytest.fixture
def quick(monkeypatch):
    recipe = RECIPES["change"]
    settings = recipe.settings.__class__(steps=60, batch_size=16, every=20)
    monkeypatch.setattr(tasks, "RECIPES", {**RECIPES, "change": recipe._replace(settings=settings)})


def start(*argv):
    return subprocess.Popen(
        [sys.executable, "-m", "manual_bptt.cli", *map(str, argv)],
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def refused(capsys, *argv):
    """Return the one line on stderr with which a command ends in exit code 2."""
    code = main([*map(str, argv)])
    out, err = capsys.readouterr()
    assert code == 2
    assert out == ""
    assert err.count("\n") == 1
    assert err.startswith("manual-bptt: ")
    assert err[:-1].isprintable()
    return err


# What training leaves


def test_train_writes_model_history_metrics_picture_and_page(trained):
    assert {path.name for path in trained.iterdir()} == OUTPUTS
    metrics = json.loads((trained / "metrics.json").read_text())
    assert metrics["test"]["rmse"] > 0
    assert metrics["test"]["mae"] > 0
    assert metrics["baselines"]["persistence"]["rmse"] > 0
    assert metrics["baselines"]["ridge"]["rmse"] > 0
    assert metrics["unit"] == "degF"
    assert metrics["train_seconds"] > 0
    assert metrics["data"]["file"] == "winter.csv"
    history = [json.loads(line) for line in (trained / "history.jsonl").read_text().splitlines()]
    assert [line["step"] for line in history] == list(range(1, 3001))
    assert [line["step"] for line in history if "validation" in line] == list(range(100, 3001, 100))
    assert (trained / "forecast.png").read_bytes().startswith(b"\x89PNG")
    page = (trained / "report.html").read_text()
    assert "http://" not in page
    assert "https://" not in page
    assert forecasting.load_model(trained / "model.npz").recipe == "change"


def test_train_prints_errors_by_hour_and_over_all(winter, quick, tmp_path, capsys):
    folder = tmp_path / "run"
    assert main(["train", "--data", str(winter), "--out", str(folder)]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert "RMSE [degF] by hour, Eastern Standard Time" in out
    for name in ("RNN", "persistence", "same hour yesterday", "ridge regression"):
        assert re.search(rf"^ ?{name} +\d+\.\d\d\d +\d+\.\d\d\d +[+-]\d+\.\d%", out, re.M)
    assert f"Written to {folder}: model.npz" in out


def test_any_hourly_table_is_trained_on_and_forecast(own_table, quick, tmp_path, capsys):
    folder, forecasts = tmp_path / "run", tmp_path / "out.csv"
    argv = ["train", "--data", own_table, *OWN, "--unit", "cm", "--out", folder]
    assert main([*map(str, argv)]) == 0
    out = capsys.readouterr().out
    assert "RMSE [cm] by place" in out
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics["target"] == "level"
    assert {"rain", "note is dry", "note is wet", "at Upper"} <= set(metrics["features"])
    argv = ["predict", "--model", folder, "--data", own_table, "--out", forecasts]
    assert main([*map(str, argv)]) == 0
    assert re.match(r"1754 forecasts written to .*; RMSE \d", capsys.readouterr().out)
    rows = list(csv.DictReader(forecasts.read_text().splitlines()))
    assert list(rows[0]) == ["group", "time", "forecast", "observed"]
    assert [row["group"] for row in rows if not row["observed"]] == ["Lower", "Upper"]


def test_a_column_with_a_comma_in_its_name_is_given_in_quotes(own_table, quick, tmp_path):
    own_table.write_text(own_table.read_text().replace("rain", '"rain, mm"', 1))
    argv = ["train", "--data", own_table, *OWN, "--out", tmp_path]
    assert main([*map(str, argv), "--features", '"rain, mm", note']) == 0
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert metrics["features"][1] == "rain, mm"


def test_features_can_be_chosen_and_text_is_never_markup(own_table, quick, tmp_path, capsys):
    text = own_table.read_text().replace("level", "[red]level").replace("Upper", "<b>[bold]")
    own_table.write_text(text)
    argv = ["train", "--data", own_table, "--time", "when", "--target", "[red]level",
            "--group", "place", "--features", "rain", "--out", tmp_path / "run"]  # fmt: skip
    assert main([*map(str, argv)]) == 0
    out = capsys.readouterr().out
    assert "[red]level of the next hour" in out
    assert "<b>[bold]" in out
    assert "<b>" not in (tmp_path / "run" / "report.html").read_text()
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert metrics["features"][:4] == [
        "[red]level",
        "rain",
        "change of [red]level",
        "change of rain",
    ]


# Wrong files and wrong usage


@pytest.mark.parametrize(("content", "message", "arguments"), MALFORMED)
def test_a_malformed_file_is_one_line_with_its_name_and_exit_2(
    content, message, arguments, tmp_path, capsys
):
    path = tmp_path / "t.csv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    options = {**ARGUMENTS, **arguments}
    hours = options["time"] if isinstance(options["time"], list) else [options["time"]]
    target, *features = options["columns"]
    argv = ["train", "--data", path, "--time", ",".join(hours), "--target", target]
    argv += ["--features", ",".join(features)] if features else []
    for name in ("group", "timezone"):
        argv += [f"--{name}", options[name]] if options.get(name) else []
    assert str(path) in refused(capsys, *argv, "--out", tmp_path / "run")
    assert not {*os.listdir(tmp_path / "run")} & OUTPUTS


def test_a_file_that_nobody_knows_needs_its_time_and_target_named(own_table, tmp_path, capsys):
    argv = ["train", "--data", own_table, "--out", tmp_path / "run"]
    said = refused(capsys, *argv)
    assert "expected --time and --target" in said
    assert "place, when, level, rain, note" in said
    assert "expected --time and --target" in refused(capsys, *argv, "--time", "when")
    said = refused(capsys, "train", "--target", "level", "--out", tmp_path / "run")
    assert "--target describes the columns of a file; expected --data" in said


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--time", "then", "--target", "level"], "own.csv:1: then: expected a column"),
        (["--time", "when", "--target", "lvl"], "own.csv:1: lvl: expected a column"),
        (
            ["--time", "when", "--target", "note", "--group", "place"],
            "note: expected numbers to forecast, got 'dry'",
        ),
        (["--time", "when", "--target", "level"], "one row an hour, got a second one"),
        (["--time", "when,place", "--target", "level"], "time"),
        ([*OWN, "--features", "rain,snow"], "own.csv:1: snow: expected a column"),
        ([*OWN, "--timezone", "Mars/Olympus"], "Mars/Olympus"),
    ],
)
def test_columns_that_are_not_there_are_refused_by_name(own_table, tmp_path, capsys, argv, message):
    said = refused(capsys, "train", "--data", own_table, *argv, "--out", tmp_path / "run")
    assert message in said


def test_a_folder_without_space_is_refused_before_training(winter, tmp_path, capsys, monkeypatch):
    usage = type("Usage", (), {"free": 1000})
    monkeypatch.setattr("shutil.disk_usage", lambda _: usage)
    said = refused(capsys, "train", "--data", winter, "--out", tmp_path / "run")
    assert "has 0.0 MB of space; expected 17 MB" in said


def test_training_that_leaves_the_finite_numbers_says_where_and_what_may_help(
    winter, tmp_path, capsys, monkeypatch
):
    recipe = RECIPES["change"]
    wild = recipe.settings.__class__(
        steps=60, batch_size=16, every=5, schedule=lambda step: 1e-3 if step < 12 else 1e38
    )
    monkeypatch.setattr(tasks, "RECIPES", {**RECIPES, "change": recipe._replace(settings=wild)})
    said = refused(capsys, "train", "--data", winter, "--out", tmp_path)
    assert re.search(r"at step 1[2-4] with learning rate 1e\+38; a smaller rate", said)
    assert "the last checkpoint stays" in said
    training, _ = load_training(tmp_path / "checkpoint.npz")
    assert len(training.steps) == 10
    assert all(np.isfinite(p).all() for p in training.params)


def test_a_checkpoint_that_cannot_be_written_stops_training_and_spares_the_last_one(
    winter, quick, tmp_path, capsys, monkeypatch
):
    synced, fsync = [], os.fsync

    def full(file):
        synced.append(file)
        if len(synced) == 3:
            raise OSError(28, "No space left on device")
        fsync(file)

    monkeypatch.setattr(os, "fsync", full)
    said = refused(capsys, "train", "--data", winter, "--out", tmp_path)
    assert "checkpoint.npz: No space left on device; stopped after step 40" in said
    assert len(load_training(tmp_path / "checkpoint.npz")[0].steps) == 20
    assert {path.name for path in tmp_path.iterdir()} == {"checkpoint.npz"}


# Interruptions


def test_twenty_interruptions_at_random_points_change_no_bit(winter, trained, tmp_path):
    rng = np.random.default_rng(int(time.time()))
    folder, reached = tmp_path / "run", []
    argv = ["train", "--data", winter, "--out", folder]
    kinds = [signal.SIGKILL, signal.SIGINT, signal.SIGKILL, signal.SIGTERM] * 5
    for kind in kinds:
        process = start(*argv)
        before = reached[-1] if reached else -1
        deadline = time.monotonic() + 60
        while process.poll() is None and steps_in(folder) <= before:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        time.sleep(rng.uniform(0, 0.06))
        process.send_signal(kind)
        _, err = process.communicate(timeout=60)
        if process.returncode == 0:
            break  # it was faster
        assert process.returncode in (-signal.SIGKILL, 128 + kind, -kind), err
        reached.append(steps_in(folder))
        argv = ["train", "--out", folder, "--resume"]
    assert len(reached) >= 10, reached
    if process.returncode:
        process = start(*argv)
        _, err = process.communicate(timeout=60)
        assert process.returncode == 0, err
    assert reached == sorted(reached)
    for name in ("model.npz", "history.jsonl", "forecast.png"):
        assert (folder / name).read_bytes() == (trained / name).read_bytes(), name
    one, other = (json.loads((f / "metrics.json").read_text()) for f in (folder, trained))
    assert one.pop("train_seconds") > 0
    other.pop("train_seconds")
    assert one == other
    assert {path.name for path in folder.iterdir()} == OUTPUTS


def steps_in(folder):
    """Return how many steps the checkpoint in a folder has; -1 before there is one."""
    path = folder / "checkpoint.npz"
    try:
        return steps_of(path, path.stat().st_mtime_ns)
    except FileNotFoundError:
        return 3000 if (folder / "model.npz").exists() else -1


@cache
def steps_of(path, _changed):
    """Read a checkpoint once, however often it is asked for while it stays as it is."""
    return len(load_training(path)[0].steps)


def test_an_interrupted_training_is_not_overwritten_and_goes_on_as_the_same_only(
    winter, quick, tmp_path, capsys, monkeypatch
):
    argv = ["train", "--data", winter, "--out", tmp_path, "--seed", 5]
    interrupt_at(monkeypatch, 33)
    assert main([*map(str, argv)]) == 130
    said = capsys.readouterr().err
    assert f"interrupted after step 33 of 60, which {tmp_path}" in said
    monkeypatch.undo()
    assert "was interrupted after step 33: go on with --resume" in refused(capsys, *argv)
    resume = ["train", "--out", tmp_path, "--resume"]
    assert "has the seed 5, got 6" in refused(capsys, *resume, "--seed", 6)
    assert "has the recipe 'change', got 'lab9'" in refused(capsys, *resume, "--recipe", "lab9")
    other = tmp_path / "other.csv"
    other.write_text(winter.read_text() + "\n")
    said = refused(capsys, *resume, "--data", other)
    assert "other.csv is not what the training to resume began with" in said
    moved = winter.rename(tmp_path / "moved.csv")
    assert "winter.csv: cannot be read" in refused(capsys, *resume)
    moved.rename(winter)


def test_a_training_on_ones_own_table_goes_on_without_its_columns_named_again(
    own_table, quick, tmp_path, capsys, monkeypatch
):
    argv = ["train", "--data", own_table, *OWN, "--unit", "cm", "--out"]
    assert main([*map(str, argv), str(tmp_path / "whole")]) == 0
    folder = tmp_path / "cut"
    interrupt_at(monkeypatch, 33)
    assert main([*map(str, argv), str(folder)]) == 130
    capsys.readouterr()
    resume = ["train", "--resume", "--out", folder]
    assert "the seed 0, got 3" in refused(capsys, *resume, "--seed", 3)
    other = ["--time", "when", "--target", "rain", "--group", "place"]
    assert "has the layout" in refused(capsys, *resume, *other)
    assert main([*map(str, resume)]) == 0
    for name in ("model.npz", "history.jsonl"):
        assert (folder / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_a_second_training_in_the_folder_is_refused(winter, quick, tmp_path, capsys):
    fcntl = pytest.importorskip("fcntl")
    held = os.open(tmp_path, os.O_RDONLY)
    fcntl.flock(held, fcntl.LOCK_EX)
    said = refused(capsys, "train", "--data", winter, "--out", tmp_path)
    assert f"another training is at work in {tmp_path}" in said
    os.close(held)
    assert main(["train", "--data", str(winter), "--out", str(tmp_path)]) == 0


def test_training_does_not_write_over_what_it_reads(winter, tmp_path, capsys):
    link = tmp_path / "link.csv"
    os.link(winter, link)
    said = refused(capsys, "train", "--data", winter, "--json", link, "--out", tmp_path / "run")
    assert "which the command reads or writes itself" in said
    data = tmp_path / "run" / "metrics.json"
    data.write_text(winter.read_text())
    said = refused(capsys, "train", "--data", data, "--out", tmp_path / "run")
    assert "--data is" in said
    assert data.read_text() == winter.read_text()


def test_a_pipe_is_refused_because_it_cannot_be_read_twice(tmp_path, capsys):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    argv = ["train", "--data", pipe, *OWN, "--out", tmp_path / "run"]
    assert "expected a regular file" in refused(capsys, *argv)


def test_resuming_needs_a_whole_checkpoint(winter, quick, tmp_path, capsys, monkeypatch):
    resume = ["train", "--out", tmp_path, "--resume"]
    assert "there is no" in refused(capsys, *resume)
    interrupt_at(monkeypatch, 33)
    assert main(["train", "--data", str(winter), "--out", str(tmp_path)]) == 130
    capsys.readouterr()
    path = tmp_path / "checkpoint.npz"
    whole = path.read_bytes()
    path.write_bytes(whole[:-50])
    assert f"{path}: cannot be resumed" in refused(capsys, *resume)
    path.write_bytes(whole)
    tag = json.loads(str(read_arrays(path)["tag"]))
    spoilt = {**tag, "layout": {}}, {**tag, "layout": {**tag["layout"], "columns": 5}}
    for tag in ("", "[]", "{}", '{"recipe": 3}', *map(json.dumps, spoilt)):
        write_arrays(path, {**read_arrays(path), "tag": np.array(tag)})
        assert f"{path}: cannot be resumed" in refused(capsys, *resume)


def interrupt_at(monkeypatch, number):
    """Let Ctrl-C come in the middle of a step."""
    calls, mean = [], tasks.mean_squared_error

    def loss(y, target):
        calls.append(1)
        if len(calls) == number:
            signal.raise_signal(signal.SIGINT)
        return mean(y, target)

    monkeypatch.setattr(tasks, "mean_squared_error", loss)


# Forecasts


def test_forecasts_come_with_times_and_end_with_the_hour_to_come(winter, trained, capsys):
    assert main(["predict", "--model", str(trained), "--data", str(winter)]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    rows = list(csv.DictReader(out.splitlines()))
    last = winter.read_text().splitlines()[-1].split(",")[1]
    ahead = np.datetime64(last[:16]) + np.timedelta64(1, "h")
    assert rows[-1]["time"] == f"{ahead}Z"
    assert rows[-1]["observed"] == ""
    told = [row for row in rows if row["observed"]]
    errors = [float(row["forecast"]) - float(row["observed"]) for row in told]
    assert np.sqrt(np.mean(np.square(errors))) < 2.5


def test_forecasts_have_the_digits_that_the_target_needs(own_table, quick, tmp_path, capsys):
    header, *lines = own_table.read_text().splitlines()
    for factor in (1e-6, 1e6):
        cells = [line.split(",") for line in lines]
        scaled = [[p, w, repr(float(level) * factor), *rest] for p, w, level, *rest in cells]
        path = tmp_path / "scaled.csv"
        path.write_text("\n".join([header, *map(",".join, scaled)]))
        folder = tmp_path / f"run{factor}"
        assert main(["train", "--data", str(path), *OWN, "--out", str(folder)]) == 0
        assert " 0.000 " not in capsys.readouterr().out
        assert main(["predict", "--model", str(folder), "--data", str(path)]) == 0
        rows = list(csv.DictReader(capsys.readouterr().out.splitlines()))
        told = [row for row in rows if row["observed"]]
        assert {row["observed"] for row in told} <= {cells[2] for cells in scaled}
        errors = [float(row["forecast"]) - float(row["observed"]) for row in told]
        metrics = json.loads((folder / "metrics.json").read_text())
        last = errors[-metrics["by_group"]["Upper"]["windows"] :]
        rmse = metrics["by_group"]["Upper"]["rmse"]["rnn"]
        assert np.sqrt(np.mean(np.square(last))) == pytest.approx(rmse, rel=1e-3)


def test_times_with_an_offset_are_told_in_utc(own_table, quick, tmp_path, capsys):
    assert main(["train", "--data", str(own_table), *OWN, "--out", str(tmp_path)]) == 0
    assert "by hour, UTC" in capsys.readouterr().out
    assert main(["predict", "--model", str(tmp_path), "--data", str(own_table)]) == 0
    rows = list(csv.DictReader(capsys.readouterr().out.splitlines()))
    assert rows[0]["time"] == "2020-02-01T23:00Z"  # 24 hours after midnight of February 1, +01:00


def test_a_forecast_that_is_not_finite_is_refused(winter, trained, tmp_path, capsys):
    arrays = read_arrays(trained / "model.npz")
    write_arrays(
        tmp_path / "model.npz",
        {
            **arrays,
            "target_scale": np.array([1e300]),
            "c": np.array([3e38], np.float32),
        },
    )
    said = refused(capsys, "predict", "--model", tmp_path, "--data", winter)
    assert "is not finite" in said


def test_a_terminal_without_the_letters_is_one_line_and_exit_2(winter, trained, tmp_path):
    unit = json.loads(str(read_arrays(trained / "model.npz")["description"]))
    unit["layout"]["unit"] = "\u00b0F"
    arrays = {**read_arrays(trained / "model.npz"), "description": json.dumps(unit)}
    write_arrays(tmp_path / "model.npz", arrays)
    argv = ["predict", "--model", str(tmp_path), "--data", str(winter), "--out", os.devnull]
    done = subprocess.run(
        [sys.executable, "-m", "manual_bptt.cli", *argv], capture_output=True, text=True,
        env={**os.environ, "PYTHONIOENCODING": "ascii"}, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert done.stderr.startswith("manual-bptt: cannot write the output: ascii has no ")


def test_a_model_of_several_stations_says_which_it_misses(winter, quick, tmp_path, capsys):
    assert main(["train", "--out", str(tmp_path)]) == 0
    capsys.readouterr()
    assert main(["predict", "--model", str(tmp_path), "--data", str(winter)]) == 0
    said = capsys.readouterr().err
    assert "has no rows of JFK, LGA, whose temp the model reads too" in said


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda path: path.unlink(), "cannot be read: No such file"),
        (lambda path: path.write_bytes(b"not a model"), "expected a model"),
        (lambda path: path.write_bytes(path.read_bytes()[:-100]), "expected a model"),
    ],
)
def test_a_folder_without_a_sound_model_is_refused(
    winter, trained, tmp_path, capsys, spoil, message
):
    path = tmp_path / "model.npz"
    path.write_bytes((trained / "model.npz").read_bytes())
    spoil(path)
    said = refused(capsys, "predict", "--model", tmp_path, "--data", winter)
    assert str(path) in said
    assert message in said


def test_data_without_the_columns_or_hours_of_the_model_is_refused(trained, tmp_path, capsys):
    path = tmp_path / "t.csv"
    argv = ["predict", "--model", trained, "--data", path]
    path.write_text("when,level\n2020-01-01T00:00,1\n")
    assert "t.csv:1: time_hour: expected a column" in refused(capsys, *argv)
    path.write_text("\n".join(weather.weather_path().read_text().splitlines()[:20]))
    assert "t.csv: expected 24 consecutive hours" in refused(capsys, *argv)
    for out in (path, trained / "model.npz"):
        said = refused(capsys, *argv, "--out", out)
        assert "which the command reads or writes itself" in said
    assert "cannot write" in refused(capsys, *argv, "--out", "/no/such/folder/out.csv")
