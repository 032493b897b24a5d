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

import numpy as np
from hypothesis import strategies as st

from reference.problems import LARGEST, REGIMES, STEPS, Parameters, Problem, random_problem


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

    params = Parameters(array(H, H), array(H, D), array(H), array(O, H), array(O))
    x, h0, target = array(T, D), array(H), array(O) if last_step else array(T, O)
    loss = "last_step_squared_error" if last_step else "squared_error"
    given = {**params._asdict(), "x": x, "h0": h0, "target": target}
    origin = ", ".join(f"{k} = {v.tolist()}" for k, v in given.items())
    return Problem(params, x, h0, target, loss, origin)
