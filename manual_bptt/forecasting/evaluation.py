"""How good a forecast is: over all, for each group, for each hour of the day; beside baselines."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from manual_bptt.arrays import Array
from manual_bptt.forecasting.baselines import errors, persistence, ridge, same_hour_yesterday
from manual_bptt.forecasting.model import Model, predict
from manual_bptt.forecasting.windows import Windows, standardize_hours

NETWORK = "rnn"
NAMES = {  # as people read them
    NETWORK: "RNN",
    "persistence": "persistence",
    "same_hour_yesterday": "same hour yesterday",
    "ridge": "ridge regression",
}


def measure(
    model: Model, before: Windows, test: Windows, known: Array
) -> tuple[dict[str, Array], dict[str, Any]]:
    """Return the forecasts of the test windows by name, (N, 1) each, and their errors.

    The baselines learn from the windows ``before`` the test part. ``known`` (R,) is the target as
    known at each row of the table.
    """
    forecasts = {
        NETWORK: predict(model, test),
        "persistence": persistence(test),
        "same_hour_yesterday": same_hour_yesterday(test, known),
        "ridge": ridge(
            standardize_hours(model.standardizer, before),
            standardize_hours(model.standardizer, test),
        ),
    }
    total = {name: _scores(forecasts, name, test) for name in forecasts}
    metrics = {
        "test": total.pop(NETWORK),
        "baselines": total,
        "by_group": {
            str(group): _rmse(forecasts, test, test.group == group)
            for group in np.unique(test.group)
        },
        "by_hour": _by_hour(model, forecasts, test),
    }
    return forecasts, metrics


def _scores(forecasts: Mapping[str, Array], name: str, test: Windows) -> dict[str, float]:
    """Return RMSE, MAE, and skill: the share of the RMSE of persistence that is saved."""
    scores = errors(forecasts[name], test.target)
    reference = errors(forecasts["persistence"], test.target)["rmse"]
    return scores | {"skill": 1 - scores["rmse"] / reference if reference else 0.0}


def _rmse(forecasts: Mapping[str, Array], test: Windows, chosen: Array) -> dict[str, Any]:
    """Return the number of the chosen windows, and the RMSE of each forecast over them."""
    truth = test.target[chosen]
    found = {name: errors(values[chosen], truth)["rmse"] for name, values in forecasts.items()}
    return {"windows": int(chosen.sum()), "rmse": found}


def _by_hour(model: Model, forecasts: Mapping[str, Array], test: Windows) -> dict[str, Any]:
    offset, clock = model.layout.clock
    hour = (test.time.astype("datetime64[h]").astype(int) + offset) % 24
    hours = [
        {"hour": int(h), **_rmse(forecasts, test, hour == h)} for h in np.unique(hour).tolist()
    ]
    return {"clock": clock, "hours": hours}
