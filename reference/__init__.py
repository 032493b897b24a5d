"""The same network in JAX, ``jax.grad`` as the judge, and the comparison as a tool.

>>> import reference
>>> report = reference.compare(lambda params, x, h0, target: {"b": 0 * h0.sum(0)}, cases=5)
>>> report.passed
False
"""

from importlib import import_module
from types import ModuleType

from reference.adapting import AdaptError, adapt
from reference.compare import assert_gradients_match, compare, diagnose
from reference.drawing import draw_problems
from reference.equations import judge_equations
from reference.findings import Diagnosis
from reference.functions.custom import check_custom_vjp
from reference.functions.leaf_report import LeafReport
from reference.functions.leaves import check_gradient
from reference.judging.processes import NoVerdictError
from reference.judging.verdicts import judge, judge_each
from reference.network.cell import Cell
from reference.network.gradients import gradients
from reference.network.sequence import forward
from reference.problems import Problem, make_problem, random_problem
from reference.report import Report

__all__ = [
    "AdaptError",
    "Cell",
    "Diagnosis",
    "LeafReport",
    "NoVerdictError",
    "Problem",
    "Report",
    "adapt",
    "assert_gradients_match",
    "check_custom_vjp",
    "check_gradient",
    "compare",
    "diagnose",
    "draw_problems",
    "forward",
    "gradients",
    "judge",
    "judge_each",
    "judge_equations",
    "make_problem",
    "random_problem",
]


def __getattr__(name: str) -> ModuleType:
    """Import ``strategies``, which needs Hypothesis, when it is asked for."""
    if name == "strategies":
        return import_module("reference.strategies")
    raise AttributeError(f"module 'reference' has no attribute {name!r}")
