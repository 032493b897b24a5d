"""``manual-bptt predict``: forecasts from a model and a file of observations."""

import argparse
import csv
import io
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from manual_bptt.cli.shared import (
    UsageError,
    plain,
    require_apart,
    require_regular,
    require_writable,
    write_text,
)

if TYPE_CHECKING:
    from manual_bptt.forecasting import Model, Windows


def add_to(commands: Any) -> None:
    """Add the command to the parser."""
    predict = commands.add_parser("predict", help="forecast the next hour with a trained model")
    predict.add_argument("--model", metavar="DIR", required=True, help="where train wrote to")
    predict.add_argument(
        "--data", metavar="FILE", required=True, help="observations, in the columns trained on"
    )
    predict.add_argument(
        "--out", metavar="PATH", default="-", help="a CSV file; - is stdout (%(default)s)"
    )
    predict.set_defaults(run=_predict)


def _predict(arguments: argparse.Namespace) -> int:
    from manual_bptt import forecasting

    out = arguments.out
    path = Path(arguments.model, "model.npz")
    require_apart("--out", out, arguments.data, path)
    require_writable(out)
    require_regular(path)
    require_regular(arguments.data)
    try:
        model = forecasting.load_model(path)
        table = forecasting.read_source(arguments.data, model.layout)
    except ValueError as error:
        raise UsageError(str(error)) from None
    try:
        windows = forecasting.windows_of(model, table, ahead=True)
    except forecasting.DataError as error:
        raise UsageError(f"{arguments.data}: {error}") from None
    _mention_absent_groups(model, {*table.group.tolist()}, arguments.data)
    with np.errstate(all="ignore"):  # what overflows is refused
        forecast = forecasting.predict(model, windows)
    if not np.isfinite(forecast).all():
        raise UsageError(f"{path}: a forecast from {arguments.data} is not finite")
    text = _rows(model, windows, forecast)
    if out == "-":
        sys.stdout.write(text)
    else:
        write_text(out, text)
        print(_summary(model, windows, forecast, out))
    return 0


def _mention_absent_groups(model: "Model", groups: set[str], data: str) -> None:
    absent = [group for group in model.inputs.groups if group not in groups]
    if absent:
        print(
            plain(
                f"manual-bptt: {data} has no rows of {', '.join(absent)}, whose "
                f"{model.inputs.target} the model reads too; it is taken to be that of the row"
            ),
            file=sys.stderr,
        )


def _rows(model: "Model", windows: "Windows", forecast: Any) -> str:
    """Return the forecasts as CSV, one row for each hour that is forecast."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["group", "time", "forecast", "observed"])
    times = np.datetime_as_string(windows.time, unit="m")
    zone = "Z" if model.layout.in_utc else ""
    _, _, _, scale = model.standardizer
    decimals = max(0, 4 - int(np.floor(np.log10(scale[0]))))  # what can matter of a forecast
    columns = (windows.group, times, forecast[:, 0].tolist(), windows.target[:, 0].tolist())
    for group, time, value, observed in zip(*columns, strict=True):
        known = "" if np.isnan(observed) else repr(observed)
        writer.writerow([group, f"{time}{zone}", f"{value:.{decimals}f}", known])
    return text.getvalue()


def _summary(model: "Model", windows: "Windows", forecast: Any, out: str) -> str:
    from manual_bptt.forecasting import errors

    told = ~np.isnan(windows.target[:, 0])
    text = f"{len(forecast)} forecasts written to {out}"
    if told.any():
        rmse = errors(forecast[told], windows.target[told])["rmse"]
        text += f"; RMSE {rmse:.4g} {model.layout.unit}".rstrip()
        text += f" over the {told.sum()} hours that were observed"
    return plain(text)
