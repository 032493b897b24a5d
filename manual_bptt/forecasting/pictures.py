"""A forecaster on the test part in one picture: a week, the hours of the day, all of it, training.

The same result makes the same picture, to the last byte, whatever names of columns and groups hold.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from manual_bptt.arrays import Array
from manual_bptt.forecasting.evaluation import NETWORK
from manual_bptt.forecasting.excerpt import WEEK, chosen_step, day, middle_week, shown_unit
from manual_bptt.forecasting.tasks import TrainingResult
from manual_bptt.forecasting.windows import HOUR

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, SubFigure

MOST_POINTS = 50_000  # of a scatter; of more, every so manieth is drawn
WEEKDAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")

# Colours of Okabe and Ito, which people of any colour vision tell apart; so do style and marker.
INK, SOFT, FAINT, SHADE = "#1c2430", "#5b6675", "#b4bcc8", "#eceff3"
LINES: dict[str, tuple[str, dict[str, Any]]] = {
    NETWORK: ("RNN", {"color": "#0072B2", "linestyle": "-", "marker": "o"}),
    "persistence": ("persistence", {"color": "#D55E00", "linestyle": "--", "marker": "s"}),
    "ridge": ("ridge", {"color": "#00805c", "linestyle": "-.", "marker": "^"}),
}
FONT = "DejaVu Sans"  # comes with matplotlib
STYLE = {
    "font.family": [FONT],
    "font.size": 11,
    "text.color": INK,
    "text.parse_math": False,  # names of columns and groups are text, whatever they hold
    "axes.titlesize": 12,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.titlepad": 9,
    "axes.labelcolor": INK,
    "axes.edgecolor": SOFT,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.formatter.useoffset": False,
    "grid.color": "#dfe4ea",
    "grid.linewidth": 0.8,
    "xtick.color": SOFT,
    "ytick.color": SOFT,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "legend.frameon": False,
    "legend.borderpad": 0,
    "legend.borderaxespad": 0,
}


def draw_forecast(result: TrainingResult, path: str | Path) -> None:
    """Draw a forecaster on its test part and how it was trained; write it to path as a PNG.

    Four panels: a week of observations and forecasts with the errors below; RMSE by the hour of the
    day, beside persistence and ridge regression; every forecast against the truth; loss and
    validation error over training. Needs matplotlib, of which no setting is changed for good.

    Parameters
    ----------
    result : TrainingResult
        What ``train_recipe`` or ``evaluate`` returned.
    path : path
        The file to write, 1500 x 1800 pixels. The same result makes the same picture.

    Raises
    ------
    ImportError
        If matplotlib is not installed.
    OSError
        If the file cannot be written.
    """
    from matplotlib import style
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with style.context(["default", STYLE]):
        figure = Figure(figsize=(10, 12), dpi=150, layout="constrained", facecolor="white")
        FigureCanvasAgg(figure)
        figure.get_layout_engine().set(h_pad=0.06, w_pad=0.08)  # type: ignore[union-attr,call-arg]
        metrics = result.metrics
        target, recipe = shown(metrics["target"]), shown(metrics["recipe"], 12)
        title = f"{target} one hour ahead: RNN, recipe {recipe}"
        figure.suptitle(title, x=0.008, ha="left", fontsize=16, fontweight="bold")
        heights = (1.12, 1.1, 0.9)
        above, middle, below = figure.subfigures(3, 1, height_ratios=heights, squeeze=False)[:, 0]
        _draw_week(above, result)
        left, right = middle.subplots(1, 2, width_ratios=(1.12, 1))
        _draw_hours(left, result)
        _draw_scatter(right, result)
        _draw_training(below, result)
        _lay_out(figure)
        figure.savefig(path, format="png", metadata={"Software": None})


def _lay_out(figure: "Figure") -> None:
    """Place the axes, to a millionth of the figure.

    The solver that makes room for the labels adds in the order of addresses in memory, so that the
    last bits of its results, and with them some pixels, differ between processes.
    """
    figure.draw_without_rendering()
    figure.set_layout_engine("none")
    for part in figure.subfigs:
        part.bbox_relative.set_points(np.round(part.bbox_relative.get_points(), 6))
        for axes in part.axes:
            axes.set_position(np.round(axes.get_position().bounds, 6))


def shown(text: str, most: int = 24) -> str:
    """Return text in one line, as wide as ``most`` digits at most; the font has all of its letters.

    Examples
    --------
    >>> shown("a long name", 8), shown("line\\nbreak"), shown("WWWWWWWW", 8)
    ('a long n…', 'line break', 'WWWW…')
    """
    from matplotlib.font_manager import FontProperties, findfont, get_font
    from matplotlib.textpath import text_to_path

    def width(of: str) -> float:
        return text_to_path.get_text_width_height_descent(of, FontProperties(FONT), False)[0]

    known = get_font(findfont(FONT)).get_charmap()
    line = " ".join(text.split())
    line = "".join(c if ord(c) in known else "\N{REPLACEMENT CHARACTER}" for c in line)
    short, room = line[: 3 * most], width("0" * most)
    while width(short) > room:
        short = short[:-1]
    return line if short == line else f"{short[:-1]}…"


# A week ------------------------------------------------------------------------------------------


def _draw_week(figure: "SubFigure", result: TrainingResult) -> None:
    layout = result.model.layout
    week = middle_week(result)
    hours = len(week.truth)
    x = np.arange(hours)
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(2, 1))
    label, network = LINES[NETWORK]
    name, persistence = LINES["persistence"]
    small = {"marker": ".", "markersize": 2 if hours > 60 else 6}  # an hour alone is seen, too
    for axes in (above, below):
        for start, end in _gaps(week.truth):
            axes.axvspan(start, end, color=SHADE, linewidth=0)
    above.plot(
        x, week.truth, ".", color=INK, markersize=5 if hours > 60 else 9, label="observed", zorder=3
    )
    above.plot(x, week.forecasts[NETWORK], **network | small, label=label)
    below.axhline(0, color=SOFT, linewidth=0.8)
    for forecast, line in (("persistence", persistence), (NETWORK, network)):
        below.plot(x, week.forecasts[forecast] - week.truth, **line | small, linewidth=1.2)
    above.plot([], [], **persistence | small, linewidth=1.2, label=f"{name} (error)")
    if np.isnan(week.truth).any():
        above.fill_between([], [], [], color=SHADE, label="no observation or no window")
    above.set_xlim(min(-1, hours / 2 - 6), max(hours, hours / 2 + 6))
    ticks = list(_clock_ticks(week.start, hours))
    below.set_xticks([at for at, _ in ticks], [text for _, text in ticks])
    _room(above, week.truth, week.forecasts[NETWORK])
    _room(below, *(week.forecasts[k] - week.truth for k in ("persistence", NETWORK)))
    above.set_ylabel(_with_unit(f"{shown(layout.target, 14)}\n", layout.unit).strip())
    below.set_ylabel(_with_unit("error\n", layout.unit).strip())
    clock = shown(layout.clock[1], 40) + ("; days begin at their tick" if hours > 60 else "")
    below.set_xlabel(f"{clock}; error: forecast less observed")
    figure.align_ylabels((above, below))
    place = f", {shown(layout.group or 'group', 10)} {shown(week.group, 16)}" if week.group else ""
    what = "The middle week of the test part" if hours == WEEK else "All of the test part"
    above.set_title(f"{what}{place}: {week.dates}", pad=28)
    above.legend(loc="lower right", bbox_to_anchor=(1, 1.03), ncols=4, columnspacing=1.6)


def _gaps(values: Array) -> Iterator[tuple[float, float]]:
    """Yield from where to where values are missing, half an hour into each side."""
    missing = np.concatenate([[False], np.isnan(values), [False]]).astype(int)
    edges = np.flatnonzero(np.diff(missing))
    for start, end in edges.reshape(-1, 2).tolist():
        yield start - 0.5, end - 0.5


def _clock_ticks(start: Any, hours: int) -> Iterator[tuple[int, str]]:
    """Yield the hours to mark, and what to write there."""
    apart = 24 if hours > 60 else 6 if hours > 24 else 3
    for at in range(hours):
        instant = start + at * HOUR
        hour = int(instant.astype(int)) % 24
        if hour % apart == 0 or hours == 1:
            date = " ".join(day(instant).split()[:2])
            weekday = WEEKDAYS[(int(instant.astype("datetime64[D]").astype(int)) + 3) % 7]
            clock = f"{hour:02d}:00"
            new = hour == 0 or hours == 1
            yield at, f"{weekday} {date}" if apart == 24 else f"{clock}\n{date}" if new else clock


# The other panels --------------------------------------------------------------------------------


def _draw_hours(axes: "Axes", result: TrainingResult) -> None:
    by_hour = result.metrics["by_hour"]
    ends = []
    for name, (label, line) in LINES.items():
        values = np.full(24, np.nan)
        for row in by_hour["hours"]:
            values[row["hour"]] = row["rmse"][name]
        axes.plot(np.arange(24), values, **line, markersize=4)
        last = int(np.flatnonzero(~np.isnan(values))[-1])
        ends.append((values[last], last, label, line["color"]))
    top = 1.12 * max(row["rmse"][name] for row in by_hour["hours"] for name in LINES) or 1.0
    axes.set_ylim(0, top)
    axes.set_xlim(-0.6, 23.6)
    axes.set_xticks(range(0, 24, 3))
    ends.sort()
    places = _apart([end[0] for end in ends], 0.085 * top, top)
    for (value, hour, label, color), place in zip(ends, places, strict=True):
        axes.annotate(
            label, (hour, value), (24.6, place), color=color, va="center", annotation_clip=False,
            arrowprops={"arrowstyle": "-", "color": color, "linewidth": 0.8, "shrinkA": 1},
        )  # fmt: skip
    axes.set_xlabel(f"hour that is forecast\n({shown(by_hour['clock'], 36)})")
    axes.set_ylabel(_with_unit("RMSE", result.metrics["unit"]))
    axes.set_title("Error by hour of the day")


def _apart(values: Sequence[float], gap: float, top: float) -> list[float]:
    """Return values, which ascend, moved at least a gap apart and below top."""
    places: list[float] = []
    for value in values:
        places.append(max(value, places[-1] + gap if places else gap / 2))
    excess = max(0.0, places[-1] + gap / 2 - top)
    return [place - excess for place in places]


def _draw_scatter(axes: "Axes", result: TrainingResult) -> None:
    metrics = result.metrics
    truth, forecast = result.test.target[:, 0], result.forecasts[NETWORK][:, 0]
    apart = -(-len(truth) // MOST_POINTS)
    truth, forecast = truth[::apart], forecast[::apart]
    low, high = min(truth.min(), forecast.min()), max(truth.max(), forecast.max())
    room = 0.05 * (high - low) or max(1.0, 0.05 * abs(low))
    axes.set_xlim(low - room, high + room)
    axes.set_ylim(low - room, high + room)
    axes.set_aspect("equal", adjustable="box")
    axes.locator_params(nbins=4)
    axes.axline((low, low), slope=1, color=SOFT, linewidth=1)
    axes.scatter(
        truth, forecast, s=9, color=LINES[NETWORK][1]["color"], linewidth=0,
        alpha=float(np.clip(15 / np.sqrt(len(truth)), 0.06, 0.8)), zorder=3,
    )  # fmt: skip
    rmse = f"{metrics['test']['rmse']:.3g} {shown(shown_unit(metrics['unit']), 8)}".strip()
    free = (0.95, 0.05) if np.mean(forecast - truth) > 0 else (0.05, 0.95)  # the emptier corner
    axes.text(
        *free, f"RMSE {rmse}", transform=axes.transAxes, fontweight="bold",
        ha="right" if free[0] > 0.5 else "left", va="top" if free[1] > 0.5 else "bottom",
    )  # fmt: skip
    axes.set_xlabel(_with_unit("observed", metrics["unit"]))
    axes.set_ylabel(_with_unit("forecast", metrics["unit"]))
    N = len(result.test.time)
    count = f"{N:,} hour{'s' * (N > 1)}" + (f", 1 in {apart} shown" if apart > 1 else "")
    axes.set_title(f"RNN on the test part, {count}")


def _draw_training(figure: "SubFigure", result: TrainingResult) -> None:
    steps = result.training.steps
    chosen = chosen_step(result.training)
    validated = [(s.number, s.validation) for s in steps if s.validation is not None]
    if validated:
        axes, below = figure.subplots(2, 1, sharex=True)
        below.plot(*zip(*validated, strict=True), "o-", color=INK, markersize=3, linewidth=1.2)
        below.set_ylabel(_with_unit("validation\nRMSE", result.metrics["unit"]))
        _room(below, np.array([error for _, error in validated]))
        figure.align_ylabels((axes, below))
    else:
        axes = below = figure.subplots()
    _draw_losses(axes, np.array([s.number for s in steps]), np.array([s.loss for s in steps]))
    below.set_xlabel("step of training")
    if chosen is None:
        axes.set_title("Training: no validation, the last step counts")
        return
    axes.set_title(f"Training: step {chosen:,} of {len(steps):,} does best on validation")
    for each in (axes, below):
        each.axvline(chosen, color=LINES["persistence"][1]["color"], linewidth=1.2, linestyle=":")
    below.plot(
        chosen, result.training.best_error, "o", markersize=10, markerfacecolor="none",
        color=LINES["persistence"][1]["color"], markeredgewidth=1.5,
    )  # fmt: skip


def _draw_losses(axes: "Axes", number: Array, loss: Array) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    width = max(1, len(loss) // 40)
    smooth = _smoothed(loss, width)
    blue, dot = LINES[NETWORK][1]["color"], "o" if len(loss) == 1 else ""
    if width == 1:
        axes.plot(number, loss, color=blue, marker=dot, label="each batch")
    else:
        axes.plot(number, loss, color=FAINT, linewidth=0.7, label="each batch")
        axes.plot(number, smooth, color=blue, label=f"mean of {width:,} steps")
    if len(loss) and loss.min() > 0 and smooth.max() > 10 * smooth.min():
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(
            LogLocator(subs=(1,) if loss.max() > 99 * loss.min() else (1, 2, 5))
        )
        axes.yaxis.set_minor_locator(NullLocator())
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    elif len(loss):
        axes.set_ylim(0, 1.05 * loss.max() or 1.0)
    axes.set_xlim(left=0)
    axes.set_ylabel("loss of a batch\n(no unit)")
    axes.legend(loc="lower right", bbox_to_anchor=(1, 1.03), ncols=2)


def _smoothed(values: Array, width: int) -> Array:
    """Return running means over width values, over fewer at the ends."""
    ones = np.ones(width)
    return np.asarray(
        np.convolve(values, ones, "same") / np.convolve(np.ones_like(values), ones, "same")
    )


def _room(axes: "Axes", *series: Array) -> None:
    """Set limits of y that series fill, with something between them also where all is one value."""
    values = np.concatenate(series)
    low, high = np.nanmin(values), np.nanmax(values)
    room = 0.12 * (high - low) or max(1.0, 0.05 * abs(low))
    axes.set_ylim(low - room, high + room)


def _with_unit(name: str, unit: str) -> str:
    return f"{name} ({shown(shown_unit(unit), 8)})" if unit else name
