"""The same network in JAX, ``jax.grad`` as the judge, and the comparison as a tool.

>>> import reference
>>> report = reference.compare(lambda params, x, h0, target: {"b": 0 * h0.sum(0)}, cases=5)
>>> report.passed
False
"""

from reference.compare import assert_gradients_match, compare, judge
from reference.equations import judge_equations
from reference.gradients import gradients
from reference.problems import Problem, draw_problems, random_problem
from reference.report import Report
from reference.rnn import forward

__all__ = [
    "Problem",
    "Report",
    "assert_gradients_match",
    "compare",
    "draw_problems",
    "forward",
    "gradients",
    "judge",
    "judge_equations",
    "random_problem",
]
