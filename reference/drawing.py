"""Drawing problems: which shapes and regimes they have, and how often.

Most are small, a few long or wide. One seed draws the same problems again.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from reference.network import named_cell
from reference.network.cell import Cell
from reference.network.losses import named_loss
from reference.problems import Problem, random_problem
from reference.rounding.formats import checked_arithmetic

# How often each is drawn: little is proved where rounding errors grow without limit.
FREQUENCIES = {
    "contracting": 0.25,
    "critical": 0.25,
    "expanding": 0.2,
    "chaotic": 0.05,
    "saturated": 0.15,
    "linear": 0.1,
}
STEPS = ((1, 1), (2, 2), (3, 3), (4, 8), (9, 32), (33, 40))
LARGEST = 8  # of D, H and O in all but a few of the problems that draw_problems draws
# After these problems, every 40th is long or wide, in turns: a short comparison need not wait for
# the compilation of their shapes.
SMALL_FIRST = 200
LONG = (41, 256)  # steps
WIDE = ((5, 8), (9, 16))  # sequences; inputs, units and outputs


def draw_problems(
    cases: int,
    seed: int,
    *,
    dtype: str,
    batched: bool,
    loss: Any = "squared_error",
    sizes: Mapping[str, int] | None = None,
    cell: str | Cell = "tanh",
    arithmetic: str | None = None,
    storage: str | None = None,
    tokens: bool = False,
    zero: Sequence[str] = (),
    few_shapes: bool = False,
    no_longer: bool = False,
) -> Iterator[Problem]:
    """Yield random problems; ``sizes`` fixes any of T, B, D, H and O.

    The problems of one seed are the first of those of any larger number of cases. They have up to
    40 steps, 4 sequences and 8 inputs, units and outputs; but beyond the first 200, every 40th is
    long, up to 256 steps, or wide, up to 8 sequences and 16 inputs, units and outputs, in turns.
    With ``few_shapes``, as for a loss that is a callable, they have four shapes: what is compiled
    for each shape is compiled four times. With ``no_longer`` none is long or wide. With ``tokens``
    every row of x has a single 1; ``zero`` are the names of biases, or ``h0``, that are zero.

    Raises
    ------
    ValueError
        If the cell or a format is unknown, there is a format and the dtype is not float32,
        ``sizes`` names anything else, or B for single sequences, or a size is not an integer of at
        least 1.
    """
    few_shapes = few_shapes or callable(loss)
    checked_arithmetic(arithmetic, storage, dtype)
    options: dict[str, Any] = {
        "dtype": dtype, "loss": loss, "cell": named_cell(cell), "arithmetic": arithmetic,
        "storage": storage, "tokens": tokens, "zero": zero,
    }  # fmt: skip
    small = cases if few_shapes or no_longer else SMALL_FIRST
    fixed = checked_sizes(sizes, batched)
    return _draw(cases, seed, batched, few_shapes, small, fixed, options)


def checked_sizes(sizes: Mapping[str, int] | None, batched: bool) -> dict[str, int]:
    """Return the fixed sizes as a dict, if they are what ``draw_problems`` takes."""
    checked = dict(sizes or {})
    known = "TBDHO" if batched else "TDHO"
    for name, n in checked.items():
        if name not in [*known]:
            raise ValueError(f"sizes names {name!r}; expected any of {' '.join(known)}")
        if isinstance(n, bool) or not isinstance(n, int | np.integer) or n < 1:
            raise ValueError(f"sizes has {name}={n!r}; expected an integer of at least 1")
    return checked


def _draw(
    cases: int,
    seed: int,
    batched: bool,
    few_shapes: bool,
    small: int,
    sizes: Mapping[str, int],
    options: Mapping[str, Any],
) -> Iterator[Problem]:
    rng = np.random.default_rng([seed, batched])
    # Of the few shapes, three of the four have at least two of everything.
    few = [_draw_shape(rng, batched, STEPS[i], 1 if i == 0 else 2) for i in (0, 2, 3, 5)]
    for case in range(cases):
        any_steps = STEPS[rng.integers(len(STEPS))]
        shape = dict(few[case % 4]) if few_shapes else _draw_shape(rng, batched, any_steps)
        if case >= small and case % 40 == 0:
            shape |= _draw_large(rng, batched, long=case % 80 == 40)
        regime = str(rng.choice(list(FREQUENCIES), p=list(FREQUENCIES.values())))
        if case == 0:
            regime = "contracting"  # where every gradient is well-conditioned
        if named_loss(options["loss"]).labels:
            shape["O"] = max(shape["O"], 2)  # the softmax of one output is 1
        shape |= sizes
        number = int(rng.integers(2**32))
        yield random_problem(**shape, regime=regime, seed=number, **options)


def _draw_shape(
    rng: np.random.Generator, batched: bool, steps: tuple[int, int], least: int = 1
) -> dict[str, Any]:
    low, high = steps
    D, H, O = (int(n) for n in rng.integers(least, LARGEST + 1, 3))
    B = int(rng.integers(least, 5)) if batched else None
    return {"T": int(rng.integers(low, high + 1)), "B": B, "D": D, "H": H, "O": O}


def _draw_large(rng: np.random.Generator, batched: bool, *, long: bool) -> dict[str, Any]:
    """Return the sizes in which a long or a wide problem differs from the rest."""
    if long:
        return {"T": int(rng.integers(*LONG, endpoint=True))}
    sequences, widths = WIDE
    shape: dict[str, Any] = {k: int(rng.integers(*widths, endpoint=True)) for k in "DHO"}
    if batched:
        shape["B"] = int(rng.integers(*sequences, endpoint=True))
    return shape | {"T": int(rng.integers(*STEPS[3], endpoint=True))}
