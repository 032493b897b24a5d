"""What the cells of a table hold beside its times: names of groups, categories and numbers."""

import math
from collections.abc import Mapping, Sequence
from functools import partial

import numpy as np

from manual_bptt.arrays import Array
from manual_bptt.forecasting.columns import Column, first_row, listed, parse_texts, refusal

# Compared without regard to case. As a category, "None" is a word: no holiday, no rain.
MISSING = frozenset({"", "na", "n/a", "nan", "null", "none"})
MISSING_CATEGORY = MISSING - {"none"}

NUMBER = "a number or NA"
MAX_LEVELS = 50  # of a guessed column; more are names, remarks or numbers in a foreign notation
MAX_NAME = 200  # NumPy gives each row of group the space of the longest name


def groups_of(column: Column) -> tuple[Array, Array]:
    """Return the names of the groups, sorted, and the position of each row's among them, (R,)."""
    names = parse_texts(column, _name, "a name", f"; a name has 1 to {MAX_NAME} characters")
    groups, position = np.unique(names, return_inverse=True)
    return groups, position[column.cells]


def _name(text: str) -> str:
    if not 0 < len(text) <= MAX_NAME:
        raise ValueError
    return text


def levels_of(
    columns: Sequence[Column], categories: Mapping[str, Sequence[str]], guess: bool
) -> dict[str, tuple[str, ...]]:
    """Return the levels of each column that holds categories, given or guessed."""
    levels = {column.name: tuple(categories.get(column.name, ())) for column in columns}
    for column in columns:
        if guess and column.name not in categories:
            levels[column.name] = _guess_levels(column)
    return {name: texts for name, texts in levels.items() if texts}


def _guess_levels(column: Column) -> tuple[str, ...]:
    """Return the sorted texts of a column of categories; none for a column of numbers."""
    texts = [text.strip() for text in column.texts]
    words = [i for i, text in enumerate(texts) if not _is_number(text)]
    if not words:
        return ()
    if any(_is_number(text) and text.casefold() not in MISSING for text in texts):
        row = first_row(column, words[0])
        raise refusal(column, row, NUMBER, hint="; other cells hold numbers")
    first: dict[str, int] = {}
    for i, text in enumerate(texts):
        if text.casefold() not in MISSING_CATEGORY:
            first.setdefault(text, i)
    if len(first) > MAX_LEVELS:
        row = first_row(column, [*first.values()][MAX_LEVELS])
        expected = f"numbers or at most {MAX_LEVELS} different texts"
        raise refusal(column, row, expected, f"{len(first)} texts")
    return tuple(sorted(first))


def _is_number(text: str) -> bool:
    try:
        _number(text)
    except ValueError:
        return False
    return True


def numbers_of(column: Column, levels: Sequence[str] | None) -> Array:
    """Return the numbers of a column, (R,), or the positions of its texts among the levels."""
    if levels is None:
        parsed = parse_texts(column, _number, NUMBER)
    else:
        position = {level: float(i) for i, level in enumerate(levels)}
        parsed = parse_texts(column, partial(_category, position), f"one of {listed(levels)}")
    return np.array(parsed)[column.cells]


def _number(text: str) -> float:
    if text.casefold() in MISSING:
        return math.nan
    number = float(text)
    if not math.isfinite(number) or "_" in text or not text.isascii():
        raise ValueError
    return number


def _category(position: Mapping[str, float], text: str) -> float:
    if text in position:
        return position[text]
    if text.casefold() in MISSING_CATEGORY:
        return math.nan
    raise ValueError
