"""The picture and the page that tell how good a forecaster is: true, whole, and safe to open."""

import re
import struct
import subprocess
import sys
from functools import cache
from html import unescape
from html.parser import HTMLParser
from itertools import combinations, pairwise
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest

from manual_bptt.forecasting import pictures
from manual_bptt.forecasting.baselines import errors
from manual_bptt.forecasting.evaluation import _by_hour, _rmse, _scores
from manual_bptt.forecasting.excerpt import chosen_step, middle_week
from manual_bptt.forecasting.features import Inputs
from manual_bptt.forecasting.model import Model
from manual_bptt.forecasting.pictures import draw_forecast
from manual_bptt.forecasting.report import MOST_GROUPS, report_page, verdict
from manual_bptt.forecasting.sources import Layout
from manual_bptt.forecasting.tasks import TrainingResult
from manual_bptt.forecasting.windows import HOUR, Standardizer, Windows
from manual_bptt.params import init_params
from manual_bptt.training import Step, Training

HOSTILE = '<script>alert("1")</script>&amp; $x_{$ \u202e\x1b\n" onload="x'
START = np.datetime64("2013-01-01T00")


def fake_result(
    *,
    hours=range(400),
    groups=("A", "B"),
    noise=(0.5, 1.0, 0.8),
    level=10.0,
    swing=5.0,
    target="temp",
    unit="degF",
    group="station",
    file="table.csv",
    recipe="change",
    features=("temp", "dewp"),
    steps=40,
    validated=True,
):
    """Return a result whose RNN, persistence and ridge miss the truth by noise of these sizes."""
    rng = np.random.default_rng(0)
    at = np.array([*hours] * len(groups))
    N = len(at)
    truth = level + swing * np.sin(at * np.pi / 12)[:, None]
    forecasts = {
        name: truth + size * rng.standard_normal((N, 1))
        for name, size in zip(("rnn", "persistence", "ridge"), noise, strict=True)
    }
    forecasts["same_hour_yesterday"] = truth + 2 * noise[1]
    names = np.repeat(np.array(groups), len(at) // len(groups))
    rows = np.zeros((24, N), int)
    test = Windows(np.zeros((1, 2)), rows, truth, truth, START + at * HOUR, names)
    layout = Layout("columns", ("time",), target, features, group, "America/New_York", unit, -5)
    scales = Standardizer(np.zeros(2), np.ones(2), np.zeros(1), np.ones(1))
    params = init_params(len(features), 3, 1, rng=0)
    model = Model(params, scales, layout, Inputs(features, {}, (), target), 24, True, recipe)
    total = {name: _scores(forecasts, name, test) for name in forecasts}
    metrics = {
        "recipe": recipe,
        "seed": 7,
        "data": {"file": file, "sha256": "0123456789abcdef" * 4},
        "target": target,
        "unit": unit,
        "windows": {"train": 1000, "test": N},
        "features": list(features),
        "hidden_units": 3,
        "steps": steps,
        "test": total.pop("rnn"),
        "baselines": total,
        "by_group": {str(g): _rmse(forecasts, test, names == g) for g in np.unique(names)},
        "by_hour": _by_hour(model, forecasts, test),
        "train_seconds": 1.5,
    }
    return TrainingResult(model, fake_training(params, steps, validated), test, forecasts, metrics)


def fake_training(params, steps, validated, loss=lambda n: 1 / n):
    taken = [Step(n, loss(n), 0.01, 1.0, 2 + (n - 20) ** 2 / 99 if n % 10 == 0 else None)
             for n in range(1, steps + 1)]  # fmt: skip
    if not validated:
        taken = [step._replace(validation=None) for step in taken]
    best = min((s.validation for s in taken if s.validation is not None), default=np.inf)
    return Training(params, (), params, best, tuple(taken), True)


class Page(HTMLParser):
    """Every tag with its attributes, and the text between them."""

    def __init__(self, html):
        super().__init__()
        self.tags, self.text = [], ""
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text += data


def page_of(result, png=b"\x89PNG"):
    return Page(report_page(result, png))


def table_rows(html, label):
    table = re.search(f'aria-label="{label}"><table>(.*?)</table>', html, re.DOTALL)[1]
    rows = re.findall(r"<tr.*?>(.*?)</tr>", table, re.DOTALL)
    return [[unescape(re.sub("<.*?>", " ", cell)).strip()
             for cell in re.findall(r"<t[hd].*?>(.*?)</t[hd]>", row)] for row in rows]  # fmt: skip


def drawn(case):
    """Return the picture of one of the results below, and the figure that it was saved from."""
    from matplotlib.figure import Figure

    kept = []
    save = Figure.savefig

    def keep(self, *args, **options):
        kept.append(self)
        return save(self, *args, **options)

    with pytest.MonkeyPatch.context() as patch, TemporaryDirectory() as folder:
        patch.setattr(Figure, "savefig", keep)
        draw_forecast(ODD[case], Path(folder) / "forecast.png")
        (figure,) = kept
        return (Path(folder) / "forecast.png").read_bytes(), figure


drawn_once = cache(drawn)  # to look at, for drawing takes a second


# The picture


ODD = {
    "one window": fake_result(hours=[5], groups=("A",)),
    "a day": fake_result(hours=range(30), groups=("A",)),
    "two days": fake_result(hours=range(50), groups=("A",)),
    "no group": fake_result(groups=("",), group=None),
    "hundreds of groups": fake_result(hours=range(9), groups=[f"group {n}" for n in range(300)]),
    "gaps": fake_result(hours=[h for h in range(400) if h % 50 < 30 or h % 50 == 40]),
    "years between": fake_result(hours=[1, 50_000], groups=("A",)),
    "one hour of the day": fake_result(hours=range(9, 960, 24)),
    "constant": fake_result(swing=0, noise=(0, 0, 0)),
    "constant, large": fake_result(swing=0, noise=(0, 0, 0), level=1e17),
    "huge": fake_result(level=1e12, swing=1e9, noise=(1e6, 1e7, 1e8)),
    "tiny": fake_result(level=0, swing=1e-9, noise=(1e-10, 1e-11, 1e-10)),
    "no unit": fake_result(unit=""),
    "no validation": fake_result(validated=False),
    "one step": fake_result(steps=1, validated=False),
    "one step validated": fake_result(steps=10),
    "no loss": fake_result()._replace(
        training=fake_training(init_params(2, 3, 1, rng=0), 40, True, loss=lambda n: 0.0)
    ),
    "hostile names": fake_result(
        groups=(HOSTILE, "B"), group=HOSTILE, target=HOSTILE, unit=HOSTILE, recipe=HOSTILE,
        features=(HOSTILE, "b" * 200), file=HOSTILE + "\udcff",
    ),
    "other scripts": fake_result(groups=("北京", "b" * 200), target="温度", group="站"),
    "wide names": fake_result(
        groups=("W" * 200,), group="W" * 99, target="W" * 99, unit="W" * 99, recipe="W" * 99
    ),
    "at the end of time": fake_result(hours=np.arange(400) + 70_003_000),
}  # fmt: skip


@pytest.mark.parametrize("case", ODD)
def test_whatever_the_result_picture_and_page_are_made_and_can_be_read(case):
    png, figure = drawn_once(case)
    assert png[:8] == b"\x89PNG\r\n\x1a\n"
    assert struct.unpack(">II", png[16:24]) == (1500, 1800)
    assert len(png) < 2_000_000
    page = page_of(ODD[case], png)
    assert "nan" not in page.text.lower()
    from matplotlib import style

    with style.context(["default", pictures.STYLE]):  # or the ticks would be others
        assert_readable(figure)


def assert_readable(figure):
    """Assert that no two labels of ticks overlap and no text leaves the picture."""
    assert any(len(boxes_of_ticks(axes.xaxis)) > 2 for axes in figure.get_axes())
    names = [axes.yaxis.label.get_window_extent() for axes in figure.get_axes()]
    assert not any(one.overlaps(other) for one, other in combinations(names, 2))
    for axes in figure.get_axes():
        assert axes.get_ylabel()
        texts = [
            figure._suptitle,
            *axes.texts,
            axes.xaxis.label,
            axes.yaxis.label,
            axes._left_title,
        ]
        if axes.get_legend():
            texts += axes.get_legend().get_texts()
        for axis in (axes.xaxis, axes.yaxis):
            for one, other in pairwise(boxes_of_ticks(axis)):
                assert not one.overlaps(other)
        for box in [t.get_window_extent() for t in texts if t.get_text()]:
            assert box.x0 >= 0
            assert box.y0 >= 0
            assert box.x1 <= figure.bbox.width
            assert box.y1 <= figure.bbox.height


def boxes_of_ticks(axis):
    """Return where the labels of an axis are, of the ticks within its limits, in their order."""
    low, high = sorted(axis.get_view_interval())
    shown = [t for t in axis.get_major_ticks() if low <= t.get_loc() <= high]
    labels = [t.label1 for t in shown if t.label1.get_visible() and t.label1.get_text()]
    return [label.get_window_extent() for label in labels]


def test_the_same_result_makes_the_same_picture():
    assert drawn("gaps")[0] == drawn_once("gaps")[0]


def test_no_last_bit_of_the_layout_reaches_the_picture():
    # The solver's differ with the addresses of its variables, hence from process to process.
    _, figure = drawn_once("gaps")
    for part in figure.subfigs:
        places = [
            part.bbox_relative.bounds,
            *(axes.get_position(True).bounds for axes in part.axes),
        ]
        np.testing.assert_allclose(places, np.round(places, 6), rtol=0, atol=1e-15)


def test_drawing_changes_no_setting_of_matplotlib_and_heeds_none():
    import matplotlib

    plain, _ = drawn_once("a day")
    with matplotlib.rc_context({"font.size": 30, "axes.facecolor": "black", "savefig.dpi": 30}):
        before = dict(matplotlib.rcParams)
        assert drawn("a day")[0] == plain
        assert dict(matplotlib.rcParams) == before


def test_neither_pyplot_nor_a_display_is_used_and_matplotlib_not_before_drawing(tmp_path):
    code = (
        "import sys; sys.path.insert(0, 'tests')\n"
        "import manual_bptt.forecasting.report, manual_bptt.forecasting.pictures\n"
        "assert 'matplotlib' not in sys.modules\n"
        "from test_report import ODD, draw_forecast\n"
        f"draw_forecast(ODD['a day'], {str(tmp_path / 'a.png')!r})\n"
        "assert 'matplotlib' in sys.modules and 'matplotlib.pyplot' not in sys.modules\n"
    )
    root = pictures.__file__.rsplit("/manual_bptt/", 1)[0]
    subprocess.run([sys.executable, "-c", code], check=True, cwd=root)


def test_hours_without_a_window_are_gaps_not_lines():
    result = ODD["gaps"]
    week = middle_week(result)
    _, figure = drawn_once("gaps")
    observed, forecast = figure.get_axes()[0].lines[:2]
    for line in (observed, forecast):
        np.testing.assert_array_equal(np.isnan(line.get_ydata()), np.isnan(week.truth))
    assert np.isnan(week.truth).any()


def test_the_scatter_has_equal_axes_and_all_points():
    _, figure = drawn_once("gaps")
    (axes,) = (a for a in figure.get_axes() if a.get_xlabel() == "observed (°F)")
    assert axes.get_xlim() == axes.get_ylim()
    assert axes.get_aspect() == 1
    points = np.array(axes.collections[0].get_offsets())
    np.testing.assert_array_equal(points[:, :1], ODD["gaps"].test.target)
    np.testing.assert_array_equal(points[:, 1:], ODD["gaps"].forecasts["rnn"])


def test_a_unit_is_written_as_people_write_it_and_left_out_if_not_known():
    without, known = (drawn_once(case)[1].get_axes() for case in ("no unit", "gaps"))
    assert {"temp", "RMSE", "observed"} <= {
        label for axes in without for label in (axes.get_xlabel(), axes.get_ylabel())
    }
    assert known[0].get_ylabel().split() == ["temp", "(°F)"]


# The week


def test_the_week_is_the_middle_one_from_midnight_and_is_of_the_largest_group():
    result = fake_result(hours=range(5, 1005))
    fewer = result.test.select((result.test.group == "B") | (result.test.time > START + 500 * HOUR))
    keep = np.isin(result.test.time, fewer.time)
    forecasts = {k: v[keep] for k, v in result.forecasts.items()}
    week = middle_week(result._replace(test=result.test.select(keep), forecasts=forecasts))
    assert week.group == "A"  # as many of both: the first by name
    week = middle_week(result)
    clock = result.test.time[:1000] - 5 * HOUR
    middle = clock[500]
    assert week.start.astype(int) % 24 == 0
    assert week.start + 72 * HOUR <= middle < week.start + 96 * HOUR
    assert len(week.truth) == 168
    at = int((week.start - clock[0]) / HOUR)
    np.testing.assert_array_equal(week.truth, result.test.target[at : at + 168, 0])
    np.testing.assert_array_equal(week.forecasts["rnn"], result.forecasts["rnn"][at : at + 168, 0])


def test_the_group_with_the_most_windows_is_the_one_shown():
    result = fake_result()
    keep = (result.test.group == "B") | (result.test.time < START + 9 * HOUR)
    forecasts = {k: v[keep] for k, v in result.forecasts.items()}
    assert (
        middle_week(result._replace(test=result.test.select(keep), forecasts=forecasts)).group
        == "B"
    )


@pytest.mark.parametrize("hours", [range(1), range(100), range(168), range(169), range(200)])
def test_the_week_never_leaves_the_test_part_and_shows_all_of_a_shorter_one(hours):
    week = middle_week(fake_result(hours=hours, groups=("A",)))
    assert len(week.truth) == min(len(hours), 168)
    assert not np.isnan(week.truth).any()


def test_the_step_marked_is_that_of_the_lowest_validation_error():
    assert chosen_step(fake_result().training) == 20
    assert chosen_step(fake_result(validated=False).training) is None


# The page


def test_nothing_on_the_page_comes_from_outside_and_nothing_runs():
    for case, result in ODD.items():
        html = report_page(result, b"\x89PNG")
        page = Page(html)
        assert not {"script", "iframe", "object", "embed", "form"} & {tag for tag, _ in page.tags}
        for _, attributes in page.tags:
            assert not [name for name in attributes if name.startswith("on")], case
            for name in ("src", "href", "srcset", "action", "data"):
                assert attributes.get(name, "data:").startswith("data:")
        assert "http://" not in html
        assert "https://" not in html
        assert "url(" not in html
        assert "@import" not in html
        (policy,) = (a["content"] for _, a in page.tags if "http-equiv" in a)
        assert policy == "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
        html.encode("utf-8")


def test_names_of_groups_columns_units_and_files_are_text_wherever_they_stand():
    plain = page_of(fake_result())
    hostile = page_of(ODD["hostile names"])
    assert [tag for tag, _ in hostile.tags] == [tag for tag, _ in plain.tags]
    assert hostile.text.count('<script>alert("1")</script>&amp; $x_{$') >= 6


def test_the_picture_is_in_the_page_and_told_in_words():
    from base64 import b64decode

    (image,) = (
        attributes for tag, attributes in page_of(fake_result(), b"abc").tags if tag == "img"
    )
    kind, data = image["src"].split(",")
    assert kind == "data:image/png;base64"
    assert b64decode(data) == b"abc"
    assert "temp observed at A" in image["alt"]
    assert "step 20" in image["alt"]


@pytest.mark.parametrize(
    ("rnn", "persistence", "ridge", "expected"),
    [
        (1.5, 2, 2.5, "The RNN beats persistence by 25.0 % and ridge regression by 40.0 %."),
        (3, 4, 2, "The RNN beats persistence by 25.0 %, but does not beat ridge regression: its"
                  " RMSE is 50.0 % higher."),
        (3, 2, 4, "The RNN does not beat persistence: its RMSE is 50.0 % higher. It beats ridge"
                  " regression by 25.0 %."),
        (3, 2, 2.5, "The RNN does not beat persistence: its RMSE is 50.0 % higher. Nor does it beat"
                    " ridge regression: 20.0 % higher."),
        (2, 2, 2, "The RNN does not beat persistence: its RMSE is the same. Nor does it beat ridge"
                  " regression: the same."),
        (0, 0, 0, "The RNN does not beat persistence: its RMSE is the same. Nor does it beat ridge"
                  " regression: the same."),
        (1, 0, 0.1, "The RNN does not beat persistence: its RMSE is above 0, which nothing beats."
                    " Nor does it beat ridge regression: 10 times as high."),
        (0.99999, 1, 0.99998, "The RNN beats persistence by less than 0.1 %, but does not beat"
                              " ridge regression: its RMSE is less than 0.1 % higher."),
    ],
)  # fmt: skip
def test_the_verdict_is_true_to_the_numbers_in_both_directions(rnn, persistence, ridge, expected):
    baselines = {"persistence": {"rmse": persistence}, "ridge": {"rmse": ridge}}
    assert verdict({"test": {"rmse": rnn}, "baselines": baselines}) == expected


@pytest.mark.parametrize(("noise", "style"), [((0.5, 1, 1), "good"), ((2, 1, 1), "bad")])
def test_the_page_opens_with_the_verdict_and_its_colour_is_that_of_the_numbers(noise, style):
    result = fake_result(noise=noise)
    html = report_page(result, b"")
    assert f'<p class="lead {style}">{verdict(result.metrics)}</p>' in html


def test_the_table_of_forecasts_holds_the_errors_of_the_forecasts():
    result = fake_result()
    _, *rows = table_rows(report_page(result, b""), "Forecasts")
    assert rows[0][0].startswith("RNN")
    names = ("rnn", "persistence", "ridge", "same_hour_yesterday")
    persistence = errors(result.forecasts["persistence"], result.test.target)["rmse"]
    for name, row in zip(names, rows, strict=True):
        own = errors(result.forecasts[name], result.test.target)
        assert float(row[1]) == pytest.approx(own["rmse"], abs=0.0006)
        assert float(row[2]) == pytest.approx(own["mae"], abs=0.0006)
        skill = 1 - own["rmse"] / persistence
        assert float(row[3].replace("\N{MINUS SIGN}", "-")) == pytest.approx(skill, abs=0.0006)


def test_skill_is_left_open_where_persistence_makes_no_error():
    html = report_page(ODD["constant"], b"")
    assert {row[3] for row in table_rows(html, "Forecasts")[1:]} == {"\N{EN DASH}"}
    assert "no skill to speak of" in html


def test_one_group_has_no_table_and_many_have_the_largest_and_say_how_many_more():
    assert "By group" not in report_page(ODD["no group"], b"")
    html = report_page(ODD["hundreds of groups"], b"")
    assert len(table_rows(html, "Errors by group")) == 1 + MOST_GROUPS
    assert "there are 280 more" in html
    assert "of 300 groups" in html
    html = report_page(fake_result(), b"")
    assert [row[0] for row in table_rows(html, "Errors by group")] == ["station", "A", "B"]
    assert "more" not in re.search("<h2>By group.*?</p>", html, re.DOTALL)[0]


def test_the_hours_of_the_day_are_those_of_the_clock_that_is_named():
    result = fake_result(hours=range(14, 960, 24), groups=("A",))  # 14:00 UTC
    html = report_page(result, b"")
    (row,) = table_rows(html, "Errors by hour")[1:]
    assert row[:2] == ["09:00", "40"]
    assert "America/New_York, standard time" in html


def test_the_page_says_what_was_trained_and_how_to_forecast():
    page = page_of(fake_result())
    for text in (
        "change", "temp, dewp", "1,000 for training", "800 for test",
        "table.csv", "0123456789ab…", "1.5 s", "40, of which 20 did best on validation",
        "manual-bptt predict --model DIR --data FILE",
    ):  # fmt: skip
        assert text in page.text
