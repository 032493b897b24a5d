"""Named ways to train a forecaster of the next hour.

lab9 is the lab's own: 10 hidden units, every weight drawn from N(0, 0.001^2), biases zero, and 500
steps of plain gradient descent at rate 0.01 on batches of 32 windows. The loss is the squared error
of the standardised temperature at the last step (the lab's Exercise 2), averaged over the batch.

change is the same network, Eqs. 1-2, with the same gradients, made to forecast well:

- It puts out by how much the next hour differs from this one, which is what is not known yet.
- The loss counts that at every hour of a window but the first ``settle``, in which the state still
  has to take in what the weather is like: 20 lessons from a window in place of one.
- It reads more of each hour than the columns of the table: see ``features``.
- W starts orthogonal, so that the gradient neither vanishes nor explodes at first (Saxe, McClelland
  and Ganguli, ICLR 2014); V starts at zero, from where the forecast is persistence.
- AdamW with a warm-up, a cosine down to zero, clipping, and a strong decay of the weights.
- The last tenth of the training part is held out. The parameters that forecast it best are kept.
"""

from collections.abc import Callable
from types import MappingProxyType
from typing import NamedTuple

import numpy as np

from manual_bptt.params import Params, init_params
from manual_bptt.training import SGD, Adam, Constant, Settings, WarmupCosine


class Recipe(NamedTuple):
    """How a forecaster is trained: window, network, what it reads and puts out, and descent.

    ``name`` is what it is called, ``length`` T, the hours of a window, and ``n_hidden`` H.
    ``start`` draws the first parameters from a generator and D, H, O. For ``derived`` and
    ``of_change`` see ``Inputs`` and ``Model``. The loss leaves out the first ``settle`` hours of a
    window; where that is None, it counts the last hour alone. ``held_out`` is the share of the
    training part that is kept for validation.
    """

    name: str
    length: int
    n_hidden: int
    start: Callable[[np.random.Generator, int, int, int], Params]
    derived: bool
    of_change: bool
    settle: int | None
    held_out: float
    dtype: type
    settings: Settings


def small_normal(rng: np.random.Generator, D: int, H: int, O: int) -> Params:
    """Draw weights from N(0, 0.001^2), biases zero."""
    return Params(
        W=rng.normal(0, 0.001, (H, H)),
        U=rng.normal(0, 0.001, (H, D)),
        b=np.zeros(H),
        V=rng.normal(0, 0.001, (O, H)),
        c=np.zeros(O),
    )


def orthogonal(rng: np.random.Generator, D: int, H: int, O: int) -> Params:
    """Draw W and U as ``init_params`` does, the rest zero."""
    return init_params(D, H, O, rng=rng)._replace(V=np.zeros((O, H)))


STEPS = 3000
CHANGE = Recipe(
    name="change",
    length=24,
    n_hidden=32,
    start=orthogonal,
    derived=True,
    of_change=True,
    settle=4,
    held_out=0.1,
    dtype=np.float32,
    settings=Settings(
        steps=STEPS,
        batch_size=64,
        optimizer=Adam(weight_decay=1.0),
        schedule=WarmupCosine(peak=3e-3, warmup=100, steps=STEPS),
        max_norm=1.0,
        every=100,
    ),
)
LAB9 = Recipe(
    name="lab9",
    length=24,
    n_hidden=10,
    start=small_normal,
    derived=False,
    of_change=False,
    settle=None,
    held_out=0.0,
    dtype=np.float64,
    settings=Settings(steps=500, batch_size=32, optimizer=SGD(), schedule=Constant(0.01)),
)
RECIPES = MappingProxyType({recipe.name: recipe for recipe in (CHANGE, LAB9)})
