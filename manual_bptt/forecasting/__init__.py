"""Forecasting: hourly tables, windows over them, baselines, and recipes that train on them."""

from manual_bptt.forecasting.baselines import errors, persistence, ridge, same_hour_yesterday
from manual_bptt.forecasting.columns import DataError
from manual_bptt.forecasting.features import Inputs, compute_features, learn_inputs
from manual_bptt.forecasting.model import Model, load_model, predict, save_model, windows_of
from manual_bptt.forecasting.quality import Rule, mask_impossible
from manual_bptt.forecasting.recipes import CHANGE, LAB9, RECIPES, Recipe
from manual_bptt.forecasting.sources import (
    BEIJING,
    NEW_YORK,
    Layout,
    as_layout,
    describe,
    read_source,
    recognise,
)
from manual_bptt.forecasting.table import Table, read_header, read_table
from manual_bptt.forecasting.tasks import (
    Task,
    TrainingResult,
    evaluate,
    fingerprint,
    prepare,
    task_sequences,
    task_settings,
    train_recipe,
    train_task,
)
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
    "BEIJING",
    "CHANGE",
    "FEATURES",
    "LAB9",
    "NEW_YORK",
    "RECIPES",
    "TARGET",
    "DataError",
    "Inputs",
    "Layout",
    "Model",
    "Recipe",
    "Rule",
    "Standardizer",
    "Table",
    "Task",
    "TrainingResult",
    "Windows",
    "as_layout",
    "compute_features",
    "describe",
    "errors",
    "evaluate",
    "fill_forward",
    "fingerprint",
    "fit_standardizer",
    "learn_inputs",
    "load_model",
    "load_weather",
    "make_windows",
    "mask_impossible",
    "persistence",
    "predict",
    "prepare",
    "read_header",
    "read_source",
    "read_table",
    "recognise",
    "ridge",
    "same_hour_yesterday",
    "save_model",
    "split_by_time",
    "standardize",
    "task_sequences",
    "task_settings",
    "train_recipe",
    "train_task",
    "weather_path",
    "windows_of",
]
