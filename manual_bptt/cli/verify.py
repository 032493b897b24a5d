"""``manual-bptt verify``: the manual gradients and the equations of the lab against autodiff."""

import argparse
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np

import manual_bptt as mb
from manual_bptt.candidate import candidate, from_the_last_state
from manual_bptt.cli.shared import (
    compiles,
    positive,
    progress,
    require,
    require_writable,
    seed,
    versions,
    write_json,
    write_text,
)
from manual_bptt.cli.verified import (
    AS_IT_IS,
    LABS,
    LAST_STATE,
    UNPADDED,
    Judged,
    matrix_row,
    print_verified,
)

SEVERAL_BLOCKS = 600  # steps, of which a block has 256 at most
LOSSES = {f.__name__: f for f in (mb.squared_error, mb.last_step_squared_error)}


class Group(NamedTuple):
    """Problems with one loss, and how many they are."""

    loss: str
    size: int
    problems: Iterable[Any]


def add_to(commands: Any) -> None:
    """Add the command to the parser."""
    check = commands.add_parser("verify", help="prove the manual gradients equal to jax.grad")
    check.add_argument(
        "--cell", nargs="+", choices=[*mb.CELLS], metavar="NAME",
        help=f"these cells alone, each on all cases (all, those but {LABS} on a tenth): "
        f"{', '.join(mb.CELLS)}",
    )  # fmt: skip
    check.add_argument("--cases", type=positive, default=1000, help="random problems (%(default)s)")
    check.add_argument("--seed", type=seed, default=0, help="which problems (%(default)s)")
    check.add_argument("--dtype", choices=["float64", "float32"], default="float64")
    check.add_argument("--json", metavar="PATH", help="write the report as JSON; - is stdout")
    check.add_argument("--html", metavar="PATH", help="write the report as a web page")
    check.set_defaults(run=_verify)


def _verify(arguments: argparse.Namespace) -> int:
    require("verify", "jax", "rich", "latex2mathml")
    require_writable(arguments.json)
    require_writable(arguments.html)
    started = time.perf_counter()
    named = arguments.cell or [*mb.CELLS]
    judged: list[Judged] = []
    rows: list[Any] = []
    if LABS in named:
        judged += [*_gradient_reports(arguments), *_other_ways(arguments)]
        rows = equation_rows(arguments.cases, arguments.seed)
    for name in named:
        judged += _cell_reports(arguments, name) if name != LABS else []
    if arguments.json != "-":
        print_verified(judged, rows)
    passed = all(j.report.passed for j in judged) and all(row.status != "fails" for row in rows)
    of_cells = {j.cell: {k.way: k.as_dict() for k in judged if k.cell == j.cell} for j in judged}
    reports = {j.title: j.as_dict() for j in judged if j.cell == LABS}
    result = {
        "passed": passed,
        "cases": arguments.cases,
        "seed": arguments.seed,
        "dtype": arguments.dtype,
        "seconds": time.perf_counter() - started,
        "versions": versions("jax", "numpy"),
        "matrix": {name: matrix_row(judged, name) for name in of_cells},
        "reports": reports,
        "cells": {name: of for name, of in of_cells.items() if name != LABS},
        "equations": [row.as_dict() for row in rows],
    }
    write_json(arguments.json, result)
    if arguments.html is not None:
        from manual_bptt.page import page

        write_text(arguments.html, page(result))
    return 0 if passed else 1


def _gradient_reports(arguments: argparse.Namespace) -> list[Judged]:
    """Judge the gradients of the lab's cell, as they are by default, and autodiff itself."""
    from reference import Report

    draws = arguments.seed, arguments.dtype
    found = []
    for title, groups, judged in (
        ("random problems", _random_groups(arguments.cases, *draws), _by_hand),
        ("long sequences", _long_groups(*draws), _by_hand),
        ("windows of real weather", _weather_groups(*draws), _by_hand),
        (UNPADDED, _random_groups(min(8, 1 + arguments.cases // 100), *draws), _by_autodiff),
    ):
        began = time.perf_counter()
        report = Report.of(_judged(groups, title, judged))
        way = title if title == UNPADDED else AS_IT_IS
        found.append(Judged(LABS, way, title, report, time.perf_counter() - began))
    return found


def _cell_reports(arguments: argparse.Namespace, name: str) -> list[Judged]:
    """Judge the gradients of another cell than the lab's, in all ways to compute them.

    The problems are no longer than 40 steps: a new shape takes seconds to compile.
    """
    cases = arguments.cases if arguments.cell else 1 + arguments.cases // 10
    groups = _random_groups(cases, arguments.seed, arguments.dtype, name)
    ways = {AS_IT_IS: {}, **ways_to_compute(name)}
    return _judged_each(groups, ways, f"the cell {name}", name)


def _other_ways(arguments: argparse.Namespace) -> list[Judged]:
    """Judge the gradients of the lab's cell as they are computed in other ways."""
    draws = arguments.seed, arguments.dtype
    groups = [*_random_groups(1 + arguments.cases // 10, *draws), *_long_groups(*draws)]
    return _judged_each(groups, ways_to_compute(), "other ways to compute the same")


def _judged_each(
    groups: list[Group], ways: dict[str, dict[str, Any]], title: str, cell: str = LABS
) -> list[Judged]:
    """Judge each way to compute the gradients of a cell, and those that begin at the last state."""
    from reference import Report, judge_each

    def judged() -> Iterator[Any]:
        for loss, _, problems in groups:
            by_hand = {
                way: candidate(LOSSES[loss], cell, **options) for way, options in ways.items()
            }
            if LOSSES[loss] is mb.last_step_squared_error:
                by_hand[LAST_STATE] = from_the_last_state(cell)
            yield from judge_each(by_hand, problems)

    began = time.perf_counter()
    verdicts: dict[str, list[Any]] = {way: [] for way in (*ways, LAST_STATE)}
    total = len(ways) * sum(group.size for group in groups)
    total += sum(g.size for g in groups if LOSSES[g.loss] is mb.last_step_squared_error)
    for way, result in progress(judged(), title, total):
        verdicts[way].append(result)
    seconds = time.perf_counter() - began
    return [
        Judged(cell, way, way, Report.of(results), seconds, ways.get(way, {}))
        for way, results in verdicts.items()
        if results  # of few problems, none may have a loss of the last step
    ]


def _random_groups(cases: int, seed: int, dtype: str, cell: str = LABS) -> list[Group]:
    """Share the cases among both losses, batches and single sequences."""
    from reference import draw_problems

    kinds = [(loss, batched) for loss in LOSSES for batched in (True, False)]
    shares = [len(range(i, cases, len(kinds))) for i in range(len(kinds))]
    options: dict[str, Any] = {"dtype": dtype, "cell": cell, "no_longer": cell != LABS}
    return [
        Group(loss, n, draw_problems(n, seed, batched=batched, loss=loss, **options))
        for (loss, batched), n in zip(kinds, shares, strict=True)
    ]


def _long_groups(seed: int, dtype: str) -> list[Group]:
    """Return sequences that are computed in several blocks of steps."""
    from reference import draw_problems

    sizes = {"T": SEVERAL_BLOCKS}
    return [
        Group("squared_error", 4, draw_problems(4, seed, dtype=dtype, batched=batched, sizes=sizes))
        for batched in (True, False)
    ]


def _weather_groups(seed: int, dtype: str) -> list[Group]:
    """Return networks of 10 units on batches of 8 standardised windows.

    The target is the temperature of the next hour, after the last step or after every step.
    """
    from manual_bptt import forecasting
    from reference import Problem

    windows = forecasting.make_windows(
        forecasting.load_weather(), features=forecasting.FEATURES, target=forecasting.TARGET
    )
    windows = forecasting.standardize(forecasting.fit_standardizer(windows), windows)
    temperature = forecasting.FEATURES.index(forecasting.TARGET)
    rng = np.random.default_rng([seed, 24])
    groups: dict[str, list[Any]] = {loss: [] for loss in LOSSES}
    for number in range(48):
        chosen = np.sort(rng.choice(len(windows.time), 8, replace=False))
        batch = windows.select(chosen)
        x, next_hour = batch.x, batch.target
        params = mb.init_params(x.shape[-1], 10, 1, rng=rng, dtype=dtype)
        h0 = 0.5 * rng.standard_normal((8, 10))
        every_hour = np.concatenate([x[1:, :, [temperature]], next_hour[None]])
        origin = f"weather problem {number} of seed {seed}, windows {chosen.tolist()}"
        for loss, target in zip(LOSSES, (every_hour, next_hour), strict=True):
            x, h0, target = (array.astype(dtype) for array in (x, h0, target))
            groups[loss].append(Problem(params, x, h0, target, loss, origin))
    return [Group(loss, len(problems), problems) for loss, problems in groups.items()]


def _by_hand(loss: str) -> Any:
    """Return the manual gradients of a loss as a candidate."""
    return candidate(LOSSES[loss])


def ways_to_compute(cell: str = LABS) -> dict[str, dict[str, Any]]:
    """Return the options of ``loss_and_gradients`` that change how it computes a cell."""
    ways: dict[str, dict[str, Any]] = {
        "workers=2": {"workers": 2},
        "checkpoint_every=1": {"checkpoint_every": 1},
        "kernel='numba'": {"kernel": "numba"},
        "kernel='numba', all three": {"kernel": "numba", "workers": 2, "checkpoint_every": 1},
    }
    compiled = cell == LABS and compiles()
    return {k: options for k, options in ways.items() if "kernel" not in options or compiled}


def _by_autodiff(loss: str) -> Any:
    """Return autodiff at the exact shape of each problem as a candidate.

    The answers that candidates are judged by are computed for padded problems; this judges those.
    """
    from reference import gradients

    return lambda params, x, h0, target: gradients(params, x, target, h0=h0, loss=loss)


def _judged(groups: list[Group], title: str, judged: Callable[[str], Any]) -> Iterator[Any]:
    """Yield the verdicts on a candidate for every problem of every group."""
    from reference import judge

    def results() -> Iterator[Any]:
        for loss, _, problems in groups:
            yield from judge(judged(loss), problems)

    return progress(results(), title, sum(group.size for group in groups))


def equation_rows(cases: int, seed: int) -> list[Any]:
    """Return the verdict on each equation of the lab, over up to 300 problems of each exercise.

    Those of Exercise 2 have one output. All are in float64: the equations are about real numbers,
    and float64 shows the least of anything else.
    """
    from manual_bptt.equations import EQUATIONS, derivation
    from reference import draw_problems, judge_equations

    cases = min(cases, 300)
    options: dict[str, Any] = {"dtype": "float64", "batched": False}
    problems = [
        *draw_problems(cases, seed, **options),
        *draw_problems(cases, seed, **options, loss="last_step_squared_error", sizes={"O": 1}),
    ]
    definitions = {e.number for e in EQUATIONS.values() if e.kind == "definition"}
    return judge_equations(derivation, progress(problems, "equations", len(problems)), definitions)
