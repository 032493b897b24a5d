"""What became of a training as one web page: no scripts, nothing from outside, one file to send.

Names of groups, columns and files are untrusted text. All of it goes through ``_text``.
"""

from base64 import b64encode
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from math import floor, log10
from typing import Any

from manual_bptt.forecasting.evaluation import NAMES, NETWORK
from manual_bptt.forecasting.excerpt import chosen_step, day, middle_week, shown_unit
from manual_bptt.forecasting.tasks import TrainingResult
from manual_bptt.forecasting.windows import HOUR
from manual_bptt.web import document, table

MOST_GROUPS = 20  # rows of the table of groups
MEANING = {
    NETWORK: "the trained network",
    "persistence": "nothing changes within the hour",
    "same_hour_yesterday": "as it was 24 hours before",
    "ridge": "linear in the same features",
}
COMPARED = (NETWORK, "persistence", "ridge")
STYLE = """
tbody th small { display: block; font-weight: 400; color: var(--soft); line-height: 1.3; }
tr.own > * { font-weight: 700; }
figure { margin: 0; }
figcaption { color: var(--soft); font-size: .95rem; margin-top: .6rem; max-width: 46rem; }
img { display: block; width: 100%; min-width: 42rem; height: auto; background: #fff; }
details { margin: 1rem 0; }
summary { cursor: pointer; margin-bottom: .6rem; }
dl { display: grid; grid-template-columns: minmax(7rem, 12rem) 1fr; gap: .35rem 1rem; margin: 0; }
dt { color: var(--soft); }
dd { margin: 0; }
pre { padding: .8rem 1rem; margin: 0 0 1rem; white-space: pre-wrap; }
@media (max-width: 40rem) { dl { grid-template-columns: 1fr; gap: 0; }
  dd { margin-bottom: .6rem; } }
@media print { img { min-width: 0; } }
"""


def report_page(result: TrainingResult, png: bytes) -> str:
    """Return a web page that tells how good a trained forecaster is, and beside what.

    Parameters
    ----------
    result : TrainingResult
        What ``train_recipe`` or ``evaluate`` returned.
    png : bytes
        The picture that ``draw_forecast`` wrote of it.

    Returns
    -------
    str
        HTML that loads nothing and runs nothing, to be written as UTF-8.
    """
    parts = [
        _head(result),
        _forecast_table(result.metrics),
        _group_table(result),
        _picture(result, png),
        _hour_table(result.metrics),
        _trained(result),
        _use(),
    ]
    title = f"Forecasts of {_text(result.metrics['target'])}"
    body = "\n".join(part for part in parts if part)
    return document(title, body, STYLE)


def verdict(metrics: Mapping[str, Any]) -> str:
    """Return in plain words how the RMSE of the network compares to persistence and to ridge.

    Examples
    --------
    >>> verdict({"test": {"rmse": 3.0},
    ...          "baselines": {"persistence": {"rmse": 4.0}, "ridge": {"rmse": 5.0}}})
    'The RNN beats persistence by 25.0 % and ridge regression by 40.0 %.'
    """
    own = metrics["test"]["rmse"]
    first, second = (metrics["baselines"][name]["rmse"] for name in ("persistence", "ridge"))
    if own < first:
        start = f"The RNN beats persistence by {_percent(first, own)}"
        if own < second:
            return f"{start} and ridge regression by {_percent(second, own)}."
        return f"{start}, but does not beat ridge regression: its RMSE is {_worse(own, second)}."
    start = f"The RNN does not beat persistence: its RMSE is {_worse(own, first)}."
    if own < second:
        return f"{start} It beats ridge regression by {_percent(second, own)}."
    return f"{start} Nor does it beat ridge regression: {_worse(own, second)}."


def _percent(greater: float, less: float) -> str:
    """Return by how many percent of the greater the other is less."""
    share = 100 * (1 - less / greater)
    return "less than 0.1 %" if share < 0.1 else f"{share:.1f} %"


def _worse(own: float, other: float) -> str:
    """Return by how much an error is higher than another that it does not beat."""
    if own == other:
        return "the same"
    if other == 0:
        return "above 0, which nothing beats"
    if own > 3 * other:
        return f"{own / other:.3g} times as high"
    share = 100 * (own / other - 1)
    return "less than 0.1 % higher" if share < 0.1 else f"{share:.1f} % higher"


# Parts -------------------------------------------------------------------------------------------


def _head(result: TrainingResult) -> str:
    metrics = result.metrics
    offset, clock = result.model.layout.clock
    time = result.test.time + offset * HOUR
    groups = len(metrics["by_group"])
    facts = (
        f"Measured on {_hours(metrics['windows']['test'])} of the test part"
        + (f" of {groups:,} groups" if groups > 1 else "")
        + f", {day(time.min())} to {day(time.max())} ({clock}), the last fifth of the time, which"
        " neither training nor any choice has seen. Percentages are of the RMSE."
    )
    style = (
        "good" if metrics["test"]["rmse"] < metrics["baselines"]["persistence"]["rmse"] else "bad"
    )
    return (
        f"<h1>{_name(metrics['target'])}, one hour ahead</h1>\n"
        f'<p class="lead {style}">{verdict(metrics)}</p>\n'
        f'<p class="facts">{_text(facts)}</p>'
    )


def _forecast_table(metrics: Mapping[str, Any]) -> str:
    scores = {NETWORK: metrics["test"], **metrics["baselines"]}
    number = _format([score[key] for score in scores.values() for key in ("rmse", "mae")])
    defined = metrics["baselines"]["persistence"]["rmse"] > 0
    rows = []
    for name, score in scores.items():
        label = f"{_text(NAMES[name])}<small>{_text(MEANING[name])}</small>"
        skill = f"{score['skill']:.3f}" if defined else "&ndash;"
        cells = [label, number(score["rmse"]), number(score["mae"]), skill.replace("-", "&minus;")]
        rows.append(_row(cells, own=name == NETWORK))
    header = ["forecast", _unit("RMSE", metrics), _unit("MAE", metrics), "skill"]
    legend = (
        "RMSE: root mean square error. MAE: mean absolute error. Skill is 1 &minus; RMSE / RMSE of"
        " persistence: 1 is a perfect forecast, 0 is as good as persistence, below 0 is worse."
    )
    if not defined:
        legend += " Persistence makes no error here, so there is no skill to speak of."
    return (
        f"<h2>Beside other forecasts</h2>\n{table('Forecasts', header, rows)}\n"
        f'<p class="facts">{legend}</p>'
    )


def _group_table(result: TrainingResult) -> str:
    metrics = result.metrics
    groups = metrics["by_group"]
    if len(groups) < 2:
        return ""
    largest = sorted(groups, key=lambda name: -groups[name]["windows"])[:MOST_GROUPS]
    number = _format([groups[g]["rmse"][name] for g in largest for name in COMPARED])
    rows = []
    for group in sorted(largest):
        rmse = groups[group]["rmse"]
        cells = [_name(group) or "(no name)", f"{groups[group]['windows']:,}"]
        rows.append(_row([*cells, *(number(rmse[name]) for name in COMPARED), _change(rmse)]))
    won = sum(g["rmse"][NETWORK] < g["rmse"]["persistence"] for g in groups.values())
    text = f"The RNN beats persistence at {won:,} of {len(groups):,} groups."
    text += f" Numbers are {_unit('RMSE', metrics)}."
    more = len(groups) - len(largest)
    if more:
        text += f" Shown are the {len(largest)} with the most windows; there are {more:,} more."
    column = result.model.layout.group
    header = [_name(column) if column else "group", "windows"]
    header += [NAMES[name] for name in COMPARED]
    return (
        f"<h2>By group</h2>\n<p>{text}</p>\n"
        f"{table('Errors by group', [*header, 'RNN against persistence'], rows)}"
    )


def _picture(result: TrainingResult, png: bytes) -> str:
    metrics = result.metrics
    week = middle_week(result)
    place = f" at {week.group}" if week.group else ""
    chosen = chosen_step(result.training)
    alt = (
        f"Four panels. First: {metrics['target']} observed{place} and forecast an hour ahead,"
        f" {week.dates}, with the errors below. Second: RMSE by hour of the day for the RNN,"
        " persistence and ridge regression. Third: forecasts against observations, around the"
        " diagonal."
        " Fourth: loss over the steps of training"
        + ("." if chosen is None else f", and validation error, lowest at step {chosen}.")
        + f" {verdict(metrics)}"
    )
    caption = (
        "The week is chosen by the calendar, not by how well the forecast does: it is the middle"
        " one of the test part, of the group with the most windows. Where an hour was not observed,"
        " or too much was missing before it, there is a gap."
    )
    data = b64encode(png).decode("ascii")
    return (
        "<h2>The forecasts in a picture</h2>\n<figure>"
        '<div class="scroll" tabindex="0" role="region" aria-label="Picture, scrolls sideways">'
        f'<img alt="{_text(alt)}" src="data:image/png;base64,{data}"></div>'
        f"<figcaption>{caption}</figcaption></figure>"
    )


def _hour_table(metrics: Mapping[str, Any]) -> str:
    hours = metrics["by_hour"]["hours"]
    number = _format([row["rmse"][name] for row in hours for name in COMPARED])
    rows = [
        _row([
            f"{row['hour']:02d}:00", f"{row['windows']:,}",
            *(number(row["rmse"][name]) for name in COMPARED), _change(row["rmse"]),
        ])
        for row in hours
    ]  # fmt: skip
    worst = max(hours, key=lambda row: row["rmse"][NETWORK])
    best = min(hours, key=lambda row: row["rmse"][NETWORK])
    unit = shown_unit(metrics["unit"])
    clock = metrics["by_hour"]["clock"]
    text = (
        f"The RNN errs most at {worst['hour']:02d}:00"
        f" (RMSE {number(worst['rmse'][NETWORK])} {unit}".rstrip()
        + f") and least at {best['hour']:02d}:00 ({number(best['rmse'][NETWORK])} {unit}".rstrip()
        + f"), {clock}."
    )
    header = ["hour", "windows", *(NAMES[name] for name in COMPARED)]
    return (
        f"<h2>By hour of the day</h2>\n<p>{_text(text)}</p>\n"
        f"<details><summary>Every hour in numbers: {_unit('RMSE', metrics)}</summary>\n"
        f"{table('Errors by hour', [*header, 'RNN against persistence'], rows)}</details>"
    )


def _trained(result: TrainingResult) -> str:
    metrics = result.metrics
    features = [_name(name) for name in metrics["features"]]
    parts = {"train": "training"}
    windows = [
        f"{count:,} for {_text(parts.get(part, part))}"
        for part, count in metrics["windows"].items()
    ]
    chosen = chosen_step(result.training)
    steps = f"{metrics['steps']:,}"
    steps += "" if chosen is None else f", of which {chosen:,} did best on validation and is taken"
    if not result.training.finished:
        steps += "; ended early"
    data = metrics["data"]
    facts = {
        "recipe": _name(metrics["recipe"]),
        "seed": str(metrics["seed"]),
        "hidden units": f"{metrics['hidden_units']:,}",
        "steps": steps,
        "hours of a window": f"{result.model.length:,}",
        "windows": ", ".join(windows),
        "data": f"{_name(data['file'])}, SHA-256 <code>{_text(data['sha256'][:12])}…</code>",
        "time to train": f"{metrics['train_seconds']:.3g} s",
        f"{len(features):,} features": ", ".join(features),
    }
    items = "".join(f"<dt>{_text(key)}</dt><dd>{value}</dd>" for key, value in facts.items())
    return f"<h2>What was trained</h2>\n<dl>{items}</dl>"


def _use() -> str:
    command = "manual-bptt predict --model DIR --data FILE"
    return (
        "<h2>How to make forecasts</h2>\n"
        f'<pre class="scroll"><code>{command}</code></pre>\n'
        "<p>DIR is the folder that this report is in, FILE a table with the same columns as the one"
        " trained on.</p>"
    )


# Pieces ------------------------------------------------------------------------------------------


def _text(text: str) -> str:
    """Return text as HTML shows it; what no file in UTF-8 can hold becomes a question mark."""
    printable = "".join(c if c.isprintable() or c == "\n" else " " for c in text)
    return escape(printable.encode("utf-8", "replace").decode("utf-8"))


def _name(text: str) -> str:
    """Return a name that may run from right to left, and then keeps that to itself."""
    return f"<bdi>{_text(text)}</bdi>" if text else ""


def _unit(name: str, metrics: Mapping[str, Any]) -> str:
    unit = shown_unit(metrics["unit"])
    return f"{_text(name)} ({_name(unit)})" if unit else _text(name)


def _hours(count: int) -> str:
    return "1 hour" if count == 1 else f"{count:,} hours"


def _format(values: Iterable[float]) -> Any:
    """Return how to write numbers of one table: three figures of the least one, the rest alike."""
    positive = [value for value in values if value > 0]
    digits = 2 - floor(log10(min(positive))) if positive else 2
    if digits > 6 or (positive and max(positive) >= 1e7):
        return lambda value: f"{value:.2e}"
    return lambda value: f"{value:,.{max(0, digits)}f}"


def _change(rmse: Mapping[str, float]) -> str:
    """Return by how many percent the network's RMSE differs from persistence."""
    if not rmse["persistence"]:
        return "&ndash;"
    return f"{100 * (rmse[NETWORK] / rmse['persistence'] - 1):+,.1f} %".replace("-", "&minus;")


def _row(cells: Sequence[str], *, own: bool = False) -> str:
    first, *rest = cells
    body = f'<th scope="row">{first}</th>' + "".join(f"<td>{cell}</td>" for cell in rest)
    return f'<tr class="own">{body}</tr>' if own else f"<tr>{body}</tr>"
