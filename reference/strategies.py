"""Hypothesis strategies over problems, for this project's tests and for yours.

Hypothesis draws the shape, the regime and a seed; NumPy fills the arrays. So an example shrinks to
the smallest shape that fails, and printing it gives the line that reproduces it.

>>> from hypothesis import given
>>> from reference.strategies import problems
>>> @given(problems(batched=False))
... def my_network_has_as_many_outputs_as_steps(problem):
...     assert len(problem.target) == problem.sizes["T"]
>>> my_network_has_as_many_outputs_as_steps()
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from hypothesis import strategies as st

from reference.drawing import LARGEST, STEPS, checked_sizes
from reference.network import named_cell
from reference.network.cell import Cell
from reference.problems import REGIMES, Problem, make_problem, random_problem
from reference.rounding.formats import checked_arithmetic

LARGEST_BATCH = 4


def problems(
    *,
    batched: bool | None = None,
    dtype: str = "float64",
    loss: Any = "squared_error",
    regimes: tuple[str, ...] = tuple(REGIMES),
    longest: int = STEPS[-1][1],
    sizes: Mapping[str, int] | None = None,
    cell: str | Cell = "tanh",
    arithmetic: str | None = None,
    storage: str | None = None,
) -> st.SearchStrategy[Problem]:
    """Return a strategy of problems.

    For your test suite, where ``my_gradients`` is what ``reference.compare`` takes::

        from hypothesis import given
        from reference import judge
        from reference.strategies import problems

        @given(problems(batched=False, longest=8))
        def test_my_gradients(problem):
            ((verdicts, _),) = judge(my_gradients, [problem])
            assert {v.status for v in verdicts} <= {"match", "nothing proved", "not returned"}

    Parameters
    ----------
    batched : bool or None
        Batches of 1 to 4, single sequences, or (None) both.
    dtype : str
        The dtype of every array.
    loss : str or callable
        The loss, as ``reference.compare`` takes it; it decides the shape of the target.
    regimes : tuple of str
        Names from ``reference.problems.REGIMES``.
    longest : int
        The largest T.
    sizes : mapping, optional
        Sizes that are fixed, such as ``{"O": 1}``, of T, D, H and O, and of B for batches.
    cell : str or Cell
        The cell, as ``reference.compare`` takes it.
    arithmetic, storage : str, optional
        The formats to which factors and states may be rounded; the dtype is then float32.

    Raises
    ------
    ValueError
        If regimes has none, or one that is unknown, longest is below 1, sizes names anything else
        or a size below 1, or a format is unknown or does not go with the dtype.

    Examples
    --------
    >>> from hypothesis import find
    >>> find(problems(batched=True, sizes={"O": 2}), lambda problem: problem.sizes["H"] > 2).sizes
    {'T': 1, 'B': 1, 'D': 1, 'H': 3, 'O': 2}
    """
    if not regimes or not set(regimes) <= REGIMES.keys():
        raise ValueError(f"regimes is {regimes!r}; expected any of {', '.join(REGIMES)}")
    if longest < 1:
        raise ValueError(f"longest is {longest!r}; expected at least 1")
    fixed = checked_sizes(sizes, batched is True)
    checked_arithmetic(arithmetic, storage, dtype)
    formats = {"arithmetic": arithmetic, "storage": storage}
    options = {"dtype": dtype, "loss": loss, "cell": named_cell(cell), **formats}
    return _problems(batched, regimes, longest, fixed, options)


@st.composite
def _problems(
    draw: st.DrawFn,
    batched: bool | None,
    regimes: tuple[str, ...],
    longest: int,
    fixed: Mapping[str, int],
    options: Mapping[str, Any],
) -> Problem:
    """Draw a problem, each of its sizes from a strategy that is like no other.

    Hypothesis would copy what one of two like strategies drew over what the other did, and spend
    most of its examples on problems that have D = H = O. And from ``integers`` it draws an end of
    the range in a third of the cases.
    """
    regime = draw(st.sampled_from(regimes))
    steps = [range(low, min(high, longest) + 1) for low, high in STEPS if low <= longest]
    steps += [steps[-1]] * (5 if regime == "chaotic" else 1)  # chaos needs time to show
    T = draw(st.sampled_from(draw(st.sampled_from(steps))))
    batches = {True: (), False: (None,), None: (None, None, None)}[batched]  # as often as not
    several = () if batched is False else range(1, LARGEST_BATCH + 1)
    B = draw(st.sampled_from((*batches, *several)))
    D, H, O = (draw(st.sampled_from(range(k, k + LARGEST))) - k + 1 for k in (100, 200, 300))
    seed = draw(st.integers(0, 2**32 - 1))
    shape = {"T": T, "B": B, "D": D, "H": H, "O": O} | dict(fixed)
    return random_problem(**shape, **options, regime=regime, seed=seed)


@st.composite
def whole_number_sequences(draw: st.DrawFn, *, last_step: bool = False, widest: int = 2) -> Problem:
    """Draw a single sequence of at most three steps with entries from -2 to 2.

    Entries are drawn one by one and shrink to 0, so that a counterexample shrinks to numbers that
    can be checked by hand. D, H and O are at most widest; with last_step there is one output and a
    target after the last step.
    """
    width = st.integers(1, widest)
    T, D, H = draw(st.integers(1, 3)), draw(width), draw(width)
    O = 1 if last_step else draw(width)

    def array(*shape: int) -> np.ndarray:
        size = int(np.prod(shape))
        entries = draw(st.lists(st.integers(-2, 2), min_size=size, max_size=size))
        return np.array(entries, float).reshape(shape)

    params: dict[str, Any] = {
        "W": array(H, H),
        "U": array(H, D),
        "b": array(H),
        "V": array(O, H),
        "c": array(O),
    }
    x, h0, target = array(T, D), array(H), array(O) if last_step else array(T, O)
    loss = "last_step_squared_error" if last_step else "squared_error"
    return make_problem(**params, x=x, h0=h0, target=target, loss=loss)
