"""What to write where nothing of what a candidate returned could be read."""

import re
from typing import Any

import numpy as np

from reference.judging.candidates import Caller
from reference.judging.layouts import arguments
from reference.judging.memory import Draw
from reference.judging.processes import NoVerdictError
from reference.judging.reading import returned
from reference.problems import Problem, random_problem
from reference.user_code import OutOfTimeError

DISTINCT = {"T": 6, "B": 2, "D": 3, "H": 4, "O": 5}  # by which shapes tell what an array is
ORDER = re.compile(r"returns=(\(.*\))")


def advice(caller: Caller, draw: Draw) -> list[str]:
    """Return lines on what to write, with code, in which names are told by shapes.

    The candidate is called once, with arrays whose sizes all differ.
    """
    options = {k: v for k, v in draw.items() if k not in ("batched", "sizes", "few_shapes")}
    sizes: dict[str, Any] = {**DISTINCT, **draw["sizes"]}
    sizes |= {} if draw["batched"] else {"B": None}
    problem = random_problem(**sizes, regime="contracting", seed=0, **options)
    name, _ = caller.runner.importable
    try:
        outcome = caller.runner(arguments(problem, caller.layout), (), caller.left, like=".{1,40}")
    except (OutOfTimeError, NoVerdictError):
        return []
    if order := ORDER.search(outcome.failure):
        parts = ",".join(re.findall(r"'([^']*)'", order[1]))
        return _to_write(
            "say what the parts of the tuple are",
            f"{name}, returns={order[1]}",
            f"--returns {parts}",
        )
    if outcome.failure:
        return _to_write(
            "if it is written for other arguments, or in a class, say so",
            f"reference.adapt({name})",
            f"module:candidate, with candidate = reference.adapt({name}) in module.py",
        )
    shapes = {k: np.shape(v) for k, v in outcome.values.items() if not isinstance(v, str)}
    found = {k: _fit(shape, problem, caller.layout) for k, shape in shapes.items()}
    if {*found} & {*returned(problem.cell)} or not any(found.values()):
        return []
    told = {k: " or ".join(fit) for k, fit in found.items() if fit}
    option = "--returns " + ",".join(f"{k}={fit}" for k, fit in told.items())
    return _to_write("say for which gradients the names stand", f"{name}, returns={told!r}", option)


def _fit(shape: tuple[int, ...], problem: Problem, layout: str) -> list[str]:
    """Return the parameters that have a shape."""
    given = arguments(problem, layout)
    return [k for k in problem.cell.fields if given[k].shape == shape]


def _to_write(what: str, arguments_of: str, option: str) -> list[str]:
    """Return lines that say what to do, and the code, in Python and for the command line."""
    return [f"{what}:", f"  reference.compare({arguments_of})", f"  manual-bptt check {option}"]
