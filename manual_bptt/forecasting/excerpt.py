"""What of a result the picture and the page both show: a week, the step that counts, dates, units.

The week is chosen by the calendar alone: that in the middle of the test part, of the group with the
most windows (the first by name of several). How well the forecast does plays no part in it.
"""

from math import isfinite
from typing import Any, NamedTuple

import numpy as np

from manual_bptt.arrays import Array
from manual_bptt.forecasting.tasks import TrainingResult
from manual_bptt.forecasting.windows import HOUR
from manual_bptt.training import Training

WEEK = 7 * 24
UNITS = {"degF": "°F", "degC": "°C"}
MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


class Week(NamedTuple):
    """Hours of one group in a row, from ``start`` on its clock: truth, and forecasts by name.

    Each array has a value for every hour, NaN where the test part has none.
    """

    group: str
    start: Any
    truth: Array
    forecasts: dict[str, Array]

    @property
    def dates(self) -> str:
        """The first day and the last."""
        first, last = day(self.start), day(self.start + (len(self.truth) - 1) * HOUR)
        return first if first == last else f"{first} to {last}"


def middle_week(result: TrainingResult) -> Week:
    """Return the week in the middle of the test part; all of a test part that is shorter.

    It is that of the group with the most windows, begins at midnight three days before the day of
    the group's middle window, and lies inside the group's test part.
    """
    names, counts = np.unique(result.test.group, return_counts=True)
    group = names[np.argmax(counts)]
    own = result.test.group == group
    offset, _ = result.model.layout.clock
    time = result.test.time[own].astype("datetime64[h]") + offset * HOUR
    first, last = time.min(), time.max()
    start, hours = first, int((last - first) / HOUR) + 1
    if hours > WEEK:
        midnight = time[len(time) // 2].astype("datetime64[D]").astype("datetime64[h]")
        start = min(max(midnight - 72 * HOUR, first), last - (WEEK - 1) * HOUR)
        hours = WEEK
    at = ((time - start) / HOUR).astype(int)
    inside = (at >= 0) & (at < hours)

    def spread(values: Array) -> Array:
        full = np.full(hours, np.nan)
        full[at[inside]] = values[own, 0][inside]
        return full

    forecasts = {name: spread(values) for name, values in result.forecasts.items()}
    return Week(str(group), start, spread(result.test.target), forecasts)


def shown_unit(unit: str) -> str:
    """Return a unit as people write it.

    Examples
    --------
    >>> shown_unit("degC"), shown_unit("hPa"), shown_unit("")
    ('°C', 'hPa', '')
    """
    return UNITS.get(unit, unit)


def day(instant: Any) -> str:
    """Return the date of an hour, in English and in no locale.

    Examples
    --------
    >>> day(np.datetime64("2013-11-03T05"))
    '3 Nov 2013'
    """
    year, month, number = str(instant.astype("datetime64[D]")).split("-")
    return f"{int(number)} {MONTHS[int(month) - 1]} {int(year)}"


def chosen_step(training: Training) -> int | None:
    """Return the step after which validation found the best parameters; None if none was taken."""
    if not isfinite(training.best_error):
        return None
    return next((s.number for s in training.steps if s.validation == training.best_error), None)
