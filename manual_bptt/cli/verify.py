"""``manual-bptt verify``: the manual gradients and the equations of the lab against autodiff."""

import argparse
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np

import manual_bptt as mb
from manual_bptt.candidate import candidate
from manual_bptt.cli.check import print_report
from manual_bptt.cli.shared import (
    compiles,
    positive,
    print_table,
    progress,
    require,
    require_writable,
    seed,
    versions,
    write_json,
    write_text,
)

UNPADDED = "autodiff without padding"
SEVERAL_BLOCKS = 600  # steps, of which a block has 256 at most
LOSSES = {f.__name__: f for f in (mb.squared_error, mb.last_step_squared_error)}
LABS = "tanh"  # the cell that is judged in full unless cells are named
AS_IT_IS = "by default"


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
    quiet = arguments.json == "-"
    started = time.perf_counter()
    named = arguments.cell or [*mb.CELLS]
    reports: dict[str, Any] = {}
    rows: list[Any] = []
    cells = _cell_reports(arguments, [name for name in named if name != LABS], quiet=quiet)
    if LABS in named:
        reports = _gradient_reports(arguments, quiet=quiet) | _other_ways(arguments, quiet=quiet)
        rows = equation_rows(arguments.cases, arguments.seed)
        _print_equations(rows, quiet=quiet)
    judged = [*reports.values(), *(r for ways in cells.values() for r in ways.values())]
    passed = all(r["passed"] for r in judged) and all(row.status != "fails" for row in rows)
    result = {
        "passed": passed,
        "cases": arguments.cases,
        "seed": arguments.seed,
        "dtype": arguments.dtype,
        "seconds": time.perf_counter() - started,
        "versions": versions("jax", "numpy"),
        "reports": reports,
        "cells": cells,
        "equations": [row.as_dict() for row in rows],
    }
    write_json(arguments.json, result)
    if arguments.html is not None:
        from manual_bptt.page import page

        write_text(arguments.html, page(result))
    return 0 if passed else 1


def _gradient_reports(arguments: argparse.Namespace, *, quiet: bool) -> dict[str, Any]:
    """Judge the gradients, as they are by default, and autodiff itself; print a table of each."""
    from reference import Report

    draws = arguments.seed, arguments.dtype
    reports = {}
    for title, groups, judged in (
        ("random problems", _random_groups(arguments.cases, *draws), _by_hand),
        ("long sequences", _long_groups(*draws), _by_hand),
        ("windows of real weather", _weather_groups(*draws), _by_hand),
        (UNPADDED, _random_groups(min(8, 1 + arguments.cases // 100), *draws), _by_autodiff),
    ):
        began = time.perf_counter()
        report = Report.of(_judged(groups, title, judged))
        seconds = time.perf_counter() - began
        reports[title] = {"seconds": seconds, **report.as_dict()}
        _print_report(report, title, seconds, quiet=quiet)
    return reports


def _cell_reports(
    arguments: argparse.Namespace, names: list[str], *, quiet: bool
) -> dict[str, dict[str, Any]]:
    """Judge the gradients of other cells than the lab's; print a line for each, and what is wrong.

    Their problems are no longer than 40 steps: a new shape takes seconds to compile.
    """
    cases = arguments.cases if arguments.cell else 1 + arguments.cases // 10
    found = {}
    for name in names:
        groups = _random_groups(cases, arguments.seed, arguments.dtype, name)
        ways = {AS_IT_IS: {}, **ways_to_compute(name)}
        found[name] = _judged_each(groups, ways, f"the cell {name}", name, quiet=quiet)
    _print_cells(found, quiet=quiet)
    return {
        name: {way: report.as_dict() for way, report in reports.items()}
        for name, reports in found.items()
    }


def _other_ways(arguments: argparse.Namespace, *, quiet: bool) -> dict[str, Any]:
    """Judge the gradients as they are computed in other ways; print a line for each."""
    draws = arguments.seed, arguments.dtype
    groups = [*_random_groups(1 + arguments.cases // 10, *draws), *_long_groups(*draws)]
    ways = ways_to_compute()
    reports = _judged_each(groups, ways, "other ways to compute the same", quiet=quiet)
    _print_ways(reports, quiet=quiet)
    return {way: {"options": ways[way], **report.as_dict()} for way, report in reports.items()}


def _judged_each(
    groups: list[Group],
    ways: dict[str, dict[str, Any]],
    title: str,
    cell: str = LABS,
    *,
    quiet: bool,
) -> dict[str, Any]:
    """Return a report on each way to compute the gradients of a cell; print those that fail."""
    from reference import Report, judge_each

    def judged() -> Iterator[Any]:
        for loss, _, problems in groups:
            by_hand = {
                way: candidate(LOSSES[loss], cell, **options) for way, options in ways.items()
            }
            yield from judge_each(by_hand, problems)

    began = time.perf_counter()
    verdicts: dict[str, list[Any]] = {way: [] for way in ways}
    total = len(ways) * sum(group.size for group in groups)
    for way, result in progress(judged(), title, total):
        verdicts[way].append(result)
    seconds = time.perf_counter() - began
    reports = {way: Report.of(results) for way, results in verdicts.items()}
    for way, report in reports.items():
        if not report.passed:
            of = way if cell == LABS else f"{cell}, {way}"
            _print_report(report, of, seconds, ways[way], cell, quiet=quiet)
    return reports


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


def _print_equations(rows: list[Any], *, quiet: bool) -> None:
    if quiet:
        return
    from rich.text import Text

    from manual_bptt.equations import EQUATIONS

    words = {"erratum": "erratum (corrected form holds)", "fails": "FAILS"}
    styles = {"erratum": "yellow", "fails": "bold red"}
    cells = [
        (
            str(row.number),
            EQUATIONS[row.number].quantity,
            Text(words.get(row.status, row.status), style=styles.get(row.status, "green")),
            f"{row.worst_ratio:.3g}",
            str(row.cases),
        )
        for row in rows
    ]
    count = {s: sum(row.status == s for row in rows) for s in ("erratum", "fails")}
    sound = len(rows) - count["fails"]
    note = (
        f"equations: {sound} of {len(rows)} hold or define, {count['erratum']} of them only as"
        f" corrected; {count['fails']} fail\n"
    )
    header = ("eq.", "quantity", "verdict", "error/tol.", "cases")
    print_table("the equations of Lab 9 against jax.grad and jax.jacobian", header, cells, note)


def _print_cells(cells: dict[str, dict[str, Any]], *, quiet: bool) -> None:
    """Print the worst error of each cell over its tolerance, for each way to compute it."""
    if quiet or not cells:
        return
    from rich.text import Text

    from reference.report import FAILURES

    rows = []
    for name, reports in cells.items():
        fields = []
        for report in reports.values():
            errors = [e for row in report.rows for e in (row.ratio, row.local_ratio) if e]
            wrong = [row.gradient for row in report.rows if row.status in FAILURES]
            words = f"{' '.join(wrong)} WRONG" if wrong else f"{max(errors, default=0):.3g}"
            fields.append(Text(words, style="green" if report.passed else "bold red"))
        judged = str(max(row.cases for row in next(iter(reports.values())).rows))
        rows.append((name, *fields, judged))
    header = ("cell", *next(iter(cells.values())), "problems")
    note = "the worst error over its tolerance, of any gradient, end to end or in a step\n"
    print_table("other cells against jax.grad", header, rows, note)


def _print_ways(ways: dict[str, Any], *, quiet: bool) -> None:
    """Print a line for each way to compute the same: the worst of its gradients."""
    if quiet:
        return
    from rich.text import Text

    rows = []
    for way, report in ways.items():
        returned = [row for row in report.rows if row.status != "not returned"]
        worst = max(row.ratio or 0 for row in returned)
        status = "match" if report.passed else "MISMATCH"
        style = "green" if report.passed else "bold red"
        cases = str(max(row.cases for row in returned))
        rows.append((way, Text(status, style=style), f"{worst:.3g}", cases))
    header = ("options of loss_and_gradients", "verdict", "end to end", "problems")
    note = "the worst of the gradients in W, U, b, V, c, x and h0\n"
    print_table("other ways to compute the same against jax.grad", header, rows, note)


def _print_report(
    report: Any,
    title: str,
    seconds: float,
    options: dict[str, Any] | None = None,
    cell: str = LABS,
    *,
    quiet: bool,
) -> None:
    if quiet:
        return
    headline = f"manual gradients against jax.grad: {title}"
    if title == UNPADDED:
        headline = "jax.grad at the exact shape against jax.grad with padding"
    print_report(report, headline, seconds, again=_to_reproduce(report, title, options or {}, cell))


def _to_reproduce(report: Any, title: str, options: dict[str, Any], cell: str) -> list[str]:
    """Return the command that repeats a failure alone, if its problem can be made from a line."""
    found = [p for p in report.witnesses() if p.origin.startswith("reference.")]
    if not found or title == UNPADDED:
        return []
    problem = found[0]
    if cell != LABS:
        options = {"cell": cell, **options}
    chosen = "".join(f", {name}={value!r}" for name, value in options.items())
    judged = f"reference.judge(candidate(mb.{problem.loss}{chosen}), [{problem.origin}])"
    code = "; ".join([
        "import reference, manual_bptt as mb",
        "from manual_bptt.candidate import candidate",
        f"print(reference.Report.of({judged}))",
    ])  # fmt: skip
    return [f'to reproduce: python -c "{code}"']
