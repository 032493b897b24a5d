"""The New York weather of 2013: hourly observations at EWR, JFK and LGA.

What the columns hold and what is wrong with them is told in ``data/README.md``. Here they become
features, each known at its own hour:

| feature      | unit    | from                                                      |
|--------------|---------|-----------------------------------------------------------|
| temp         | degF    | as observed                                               |
| dewp         | degF    | dew point, as observed                                    |
| humid        | percent | relative humidity, as observed                            |
| wind_east    | mph     | how fast the air moves eastward                           |
| wind_north   | mph     | how fast the air moves northward                          |
| wind_speed   | mph     | as observed                                               |
| precip       | in      | rain or melted snow in the hour                           |
| pressure     | hPa     | at sea level                                              |
| visib        | mi      | visibility; the instruments report at most 10             |

Direction is a circle, on which 350 and 10 degrees are neighbours, so it enters as two components.
"""

from pathlib import Path
from types import MappingProxyType

import numpy as np

from manual_bptt.arrays import Array
from manual_bptt.forecasting.columns import DataError
from manual_bptt.forecasting.quality import Rule, mask_impossible
from manual_bptt.forecasting.table import Table, read_table

UNITS = MappingProxyType(
    {
        "temp": "degF",
        "dewp": "degF",
        "humid": "percent",
        "wind_east": "mph",
        "wind_north": "mph",
        "wind_speed": "mph",
        "precip": "in",
        "pressure": "hPa",
        "visib": "mi",
    }
)
FEATURES = tuple(UNITS)
TARGET = "temp"
OBSERVED = ("temp", "dewp", "humid", "wind_dir", "wind_speed", "precip", "pressure", "visib")

# Limits, and the 35 degF an hour for temperature, are those of the validity checks of MADIS, NOAA's
# system for surface observations. The dew point, held to the same 35, is as quick as the air.
RULES = MappingProxyType(
    {
        "temp": Rule(-60, 130, per_hour=35),
        "dewp": Rule(-90, 90, per_hour=35),
        "humid": Rule(0, 100),
        "wind_dir": Rule(0, 360),
        "wind_speed": Rule(0, 287),
        "precip": Rule(0, 44),
        "pressure": Rule(846, 1100),
        "visib": Rule(0, 100),
    }
)

# A report may call the direction variable up to 6 knots (6.9 mph). Such wind has no mean direction.
VARIABLE_UP_TO_MPH = 7.0


def weather_path() -> Path:
    """Return where the weather table lies: inside an installed package, or in a checkout.

    Raises
    ------
    DataError
        If it is in neither place.

    Examples
    --------
    >>> weather_path().name
    'weather.csv'
    """
    here = Path(__file__).resolve().parent
    places = (here / "data" / "weather.csv", here.parents[1] / "data" / "weather.csv")
    for place in places:
        if place.is_file():
            return place
    raise DataError(f"{places[-1]}: no such file; data/rebuild.py in a checkout makes it")


def load_weather(path: str | Path | None = None) -> Table:
    """Read the weather table, mask what cannot be true, and return its features (``FEATURES``).

    Parameters
    ----------
    path : path, optional
        A table with the same columns; the one that comes with the package if None.

    Raises
    ------
    DataError
        If the file is missing or is not such a table.

    Examples
    --------
    >>> table = load_weather()
    >>> table.values.shape
    (26115, 9)
    >>> sorted(set(table.group.tolist()))
    ['EWR', 'JFK', 'LGA']
    """
    path = weather_path() if path is None else path
    return weather_features(clean(read_weather(path)))


def read_weather(path: str | Path) -> Table:
    """Read the observations (``OBSERVED``) as they stand in the file."""
    return read_table(path, time="time_hour", group="origin", columns=OBSERVED)


def clean(observed: Table) -> Table:
    """Mask what breaks ``RULES``, and the humidity wherever temperature or dew point was masked.

    Relative humidity is computed from the other two, so it is wrong wherever one of them is.
    """
    masked = mask_impossible(observed, RULES)
    lost = np.isnan(masked.values) & ~np.isnan(observed.values)
    wrong = lost[:, observed.position("temp")] | lost[:, observed.position("dewp")]
    masked.values[wrong, observed.position("humid")] = np.nan
    return masked


def weather_features(observed: Table) -> Table:
    """Return the table of ``FEATURES``, with the wind's direction turned into components."""
    east, north = wind_components(observed.column("wind_speed"), observed.column("wind_dir"))
    columns = {name: observed.column(name) for name in OBSERVED}
    columns |= {"wind_east": east, "wind_north": north}
    return observed._replace(names=FEATURES, values=np.stack([columns[n] for n in FEATURES], 1))


def wind_components(speed: Array, direction: Array) -> tuple[Array, Array]:
    """Return how fast the air moves eastward and northward, in the unit of speed.

    Direction is where the wind comes from, in degrees clockwise from north. Where it is missing
    and speed is at most ``VARIABLE_UP_TO_MPH``, the wind is variable and both components are 0;
    in stronger wind they are missing (NaN).

    Examples
    --------
    >>> east, north = wind_components(np.array([10.0, 5.0, 20.0]), np.array([270, np.nan, np.nan]))
    >>> east
    array([10.,  0., nan])
    >>> north.round(12) + 0
    array([ 0.,  0., nan])
    """
    towards = np.radians(direction + 180)
    variable = np.isnan(direction) & (speed <= VARIABLE_UP_TO_MPH)
    east = np.where(variable, 0.0, speed * np.sin(towards))
    north = np.where(variable, 0.0, speed * np.cos(towards))
    return east, north
