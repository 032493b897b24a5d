"""``manual-bptt check``: anybody's gradients against autodiff.

They are computed in a process of their own, which ends when they take too long, and whose end does
not end the judge.
"""

import argparse
import time
from collections.abc import Iterable, Iterator
from typing import Any

from manual_bptt.cells import CELLS
from manual_bptt.cli.shared import (
    AT_INTERRUPT,
    NoVerdictError,
    UsageError,
    positive,
    print_table,
    progress,
    require,
    require_writable,
    seed,
    versions,
    write_json,
)

# Options that ``reference.compare`` has by the same names.
AS_THEY_ARE = (
    "cases", "seed", "dtype", "arithmetic", "storage", "layout", "returns", "tokens", "sizes",
    "time_budget",
)  # fmt: skip


def add_to(commands: Any) -> None:
    """Add the command to the parser."""
    check = commands.add_parser("check", help="judge your own gradients by jax.grad")
    check.add_argument("candidate", metavar="module:function", help="or path/to/file.py:function")
    check.add_argument(
        "--loss", default="squared_error", metavar="NAME",
        help="squared_error, last_step_squared_error, final_state_squared_error, cross_entropy "
        "(of labels), each divided by numbers and sizes after a stroke, as cross_entropy/T, "
        "or module:function in JAX (%(default)s)",
    )  # fmt: skip
    check.add_argument(
        "--cell", default="tanh", metavar="NAME",
        help=f"{', '.join(CELLS)}, or module:NAME of a reference.Cell (%(default)s)",
    )  # fmt: skip
    check.add_argument("--single", action="store_true", help="single sequences, no batch axis")
    check.add_argument(
        "--layout", default="time_first", metavar="NAME",
        help="time_first, batch_first, columns, rows or batch_first_rows (%(default)s)",
    )  # fmt: skip
    check.add_argument(
        "--returns", metavar="NAMES", type=_names, default=(),
        help="what the parts of a tuple are: loss,dWxh,dWhh,dWhy,dbh,dby,_; or our names by "
        "others: dA=W,dB=U",
    )  # fmt: skip
    check.add_argument(
        "--tokens", action="store_true", help="x are integers below D, and no vectors"
    )
    check.add_argument(
        "--sizes", metavar="O=1,H=10", type=_sizes, default={}, help="fix any of T, B, D, H, O"
    )
    check.add_argument("--cases", type=positive, default=200, help="random problems (%(default)s)")
    check.add_argument("--seed", type=seed, default=0, help="which problems (%(default)s)")
    check.add_argument(
        "--dtype", choices=["float64", "float32"],
        help="(float64; float32 with --arithmetic or --storage)",
    )  # fmt: skip
    for name, what in (("arithmetic", "factors of products"), ("storage", "states")):
        check.add_argument(
            f"--{name}", metavar="FORMAT",
            help=f"{what} may be rounded to tf32, bfloat16 or float16",
        )  # fmt: skip
    check.add_argument(
        "--time-budget", type=positive, default=60, metavar="SECONDS",
        help="for all calls of the function together; one that takes most of it ends with no "
        "verdict, exit code 3 (%(default)s)",
    )  # fmt: skip
    check.add_argument("--json", metavar="PATH", help="write the report as JSON; - is stdout")
    check.set_defaults(run=_check)


def _sizes(text: str) -> dict[str, int]:
    """Return {"O": 1, "H": 10} for O=1,H=10."""
    sizes = {}
    for part in text.split(","):
        name, equals, number = part.partition("=")
        if not equals:
            raise argparse.ArgumentTypeError(f"{text!r}: expected sizes such as O=1,H=10")
        sizes[name.strip()] = positive(number.strip())
    return sizes


def _names(text: str) -> tuple[str, ...] | dict[str, str]:
    """Return ("dWxh", "dWhh") for dWxh,dWhh, and {"dA": "W"} for dA=W."""
    names = [name.strip() for name in text.split(",")]
    pairs = [name.partition("=") for name in names]
    if not any(equals for _, equals, _ in pairs):
        return tuple(names)
    return {theirs.strip(): ours.strip() for theirs, _, ours in pairs}


def _check(arguments: argparse.Namespace) -> int:
    require("verify", "jax", "rich")
    import reference
    from reference.judging.processes import CandidateProcess
    from reference.rounding.formats import default_dtype
    from reference.user_code import LoadError, load, load_function, said_to_print

    require_writable(arguments.json)
    formats = (arguments.arithmetic, arguments.storage)
    arguments.dtype = arguments.dtype or default_dtype(*formats)
    options = {k: v for k, v in vars(arguments).items() if k not in ("run", "json")}
    started = time.perf_counter()

    def shown(results: Iterator[Any]) -> Iterable[Any]:
        return progress(results, arguments.candidate, arguments.cases)

    try:
        with CandidateProcess(arguments.candidate) as candidate:
            AT_INTERRUPT.append(candidate.kill)
            loss = load_function(arguments.loss) if ":" in arguments.loss else arguments.loss
            report = reference.compare(
                candidate,
                loss=loss,
                cell=load(arguments.cell) if ":" in arguments.cell else arguments.cell,
                batched=not arguments.single,
                progress=shown,
                **{k: options[k] for k in AS_THEY_ARE},
            )
    except (LoadError, ValueError, NotImplementedError) as error:
        raise UsageError(str(error)) from None
    except reference.NoVerdictError as error:
        write_json(arguments.json, {**options, "passed": False, "no_verdict": str(error)})
        raise NoVerdictError(str(error)) from None
    if candidate.printed:
        report.notes.append(said_to_print(candidate.printed))
    seconds = time.perf_counter() - started
    if arguments.json != "-":
        print_report(report, f"{arguments.candidate} against jax.grad", seconds)
    result = {**options, "seconds": seconds, "versions": versions("jax", "numpy")}
    write_json(arguments.json, result | report.as_dict())
    return 0 if report.passed else 1


def print_report(report: Any, title: str, seconds: float, again: Iterable[str] = ()) -> None:
    """Print the table of a report, and what it has to say beside it."""
    from rich.text import Text

    from reference.report import HEADER, cells

    def coloured(status: str) -> Text:
        good, unsure = status == "match", status in ("not returned", "nothing proved")
        return Text(status, style="green" if good else "yellow" if unsure else "bold red")

    rows = [(row.gradient, coloured(row.status), *cells(row)[2:]) for row in report.rows]
    verdict = f"{report.verdict} in {seconds:.1f} s"
    print("\n".join([*report.advice, ""] if report.advice else []), end="")
    parts = [[*report.remarks(), *again], *report.explanations().values(), [verdict]]
    text = "\n\n".join("\n".join(part) for part in parts if part)
    print_table(title, HEADER, rows, f"{text}\n")
