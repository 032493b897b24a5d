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

from typing import Any

from hypothesis import strategies as st

from reference.problems import LARGEST, REGIMES, STEPS, Problem, random_problem


def problems(
    *,
    batched: bool | None = None,
    dtype: str = "float64",
    loss: Any = "squared_error",
    regimes: tuple[str, ...] = tuple(REGIMES),
    longest: int = STEPS[-1][1],
) -> st.SearchStrategy[Problem]:
    """Return a strategy of problems.

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
    """
    sizes = st.integers(1, LARGEST)
    batches = st.integers(1, 4)
    B = {True: batches, False: st.none(), None: st.none() | batches}[batched]
    steps = st.one_of(
        [st.integers(low, min(high, longest)) for low, high in STEPS if low <= longest]
    )
    return st.builds(
        random_problem,
        T=steps,
        B=B,
        D=sizes,
        H=sizes,
        O=sizes,
        regime=st.sampled_from(regimes),
        seed=st.integers(0, 2**32 - 1),
        dtype=st.just(dtype),
        loss=st.just(loss),
    )
