"""Forecasting: hourly tables, windows over them, baselines, and recipes that train on them."""

from manual_bptt.forecasting.baselines import errors, persistence
from manual_bptt.forecasting.model import Model, load_model, predict, save_model
from manual_bptt.forecasting.quality import Rule, mask_impossible
from manual_bptt.forecasting.recipes import RECIPES, Recipe, TrainingResult, train_recipe
from manual_bptt.forecasting.table import DataError, Table, read_table
from manual_bptt.forecasting.weather import FEATURES, TARGET, load_weather, weather_path
from manual_bptt.forecasting.windows import (
    Standardizer,
    Windows,
    fill_forward,
    fit_standardizer,
    make_windows,
    split_by_time,
    standardize,
)

__all__ = [
    "FEATURES",
    "RECIPES",
    "TARGET",
    "DataError",
    "Model",
    "Recipe",
    "Rule",
    "Standardizer",
    "Table",
    "TrainingResult",
    "Windows",
    "errors",
    "fill_forward",
    "fit_standardizer",
    "load_model",
    "load_weather",
    "make_windows",
    "mask_impossible",
    "persistence",
    "predict",
    "read_table",
    "save_model",
    "split_by_time",
    "standardize",
    "train_recipe",
    "weather_path",
]
