"""The parameters of the network and the gradients of a loss in them, by the lab's letters.

    h[t] = tanh(W h[t-1] + U x[t] + b)        y[t] = V h[t] + c

| field | shape  | role                                      |
|-------|--------|-------------------------------------------|
| W     | (H, H) | hidden to hidden                          |
| U     | (H, D) | input to hidden                           |
| b     | (H,)   | bias of the hidden units                  |
| V     | (O, H) | hidden to output                          |
| c     | (O,)   | bias of the outputs                       |

Other cells (``manual_bptt.CELLS``) stack their gates in W, U and b, and may have more fields.
"""

from operator import index
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import DTypeLike

from manual_bptt.arrays import AnyParams, Array, floating_dtype, in_words
from manual_bptt.axes import axes_of, shape_of
from manual_bptt.cells import CELLS, cell_named
from manual_bptt.cells.tanh import Params

__all__ = ["Gradients", "Params", "gradients_of", "init_params", "no_gradients"]
LARGEST = 2**29  # of D, H and O; the bytes of W can then be counted in 64 bits


class Gradients(NamedTuple):
    """Gradients of a scalar loss, each shaped like the array it belongs to.

    Those in the parameters are summed over time and over the batch; ``x`` is ``(T, B, D)`` or
    ``(T, D)``, ``h0`` is ``(B, H)`` or ``(H,)``.
    """

    W: Array
    U: Array
    b: Array
    V: Array
    c: Array
    x: Array
    h0: Array


# By the type of the parameters; a cell with fields beyond the lab's has its own.
_GRADIENTS = MappingProxyType(
    {cell.Params: getattr(cell, "Gradients", Gradients) for cell in CELLS.values()}
)


def init_params(
    n_inputs: int,
    n_hidden: int,
    n_outputs: int,
    *,
    cell: str = "tanh",
    rng: int | np.random.Generator | None = None,
    dtype: DTypeLike = np.float64,
) -> Params:
    """Draw parameters from which training starts well.

    W is a random orthogonal matrix (Saxe, McClelland and Ganguli, 2014), one for each gate, so that
    at first W neither stretches nor shrinks what it carries through time; U and V are Gaussian with
    variance 1 / D and 1 / H, so that unit inputs give pre-activations and outputs of order one; the
    biases are zero.

    Parameters
    ----------
    n_inputs, n_hidden, n_outputs : int
        D, H and O, each at least 1.
    cell : str
        The network, one of ``manual_bptt.CELLS``: the result is of the type ``Params`` of that
        cell, which is what tells all functions the cell.
    rng : int, numpy.random.Generator or None
        Where the randomness comes from; an int seeds a new generator.
    dtype : dtype
        The dtype of every array: float32, float64 or wider.

    Raises
    ------
    TypeError
        If a size is not an integer or dtype is not a real or complex floating type.
    ValueError
        If a size is below 1 or above 2**29, or there is no such cell.

    Examples
    --------
    >>> params = init_params(6, 10, 1, rng=0)
    >>> params.W.shape, params.U.shape, params.V.shape
    ((10, 10), (10, 6), (1, 10))
    >>> bool(np.allclose(params.W @ params.W.T, np.eye(10)))
    True
    >>> init_params(6, 10, 1, cell="gru", rng=0).W.shape
    (30, 10)
    """
    kind = cell_named(cell)
    D, H, O = (
        _size(name, n)
        for name, n in (("n_inputs", n_inputs), ("n_hidden", n_hidden), ("n_outputs", n_outputs))
    )
    try:
        wanted = floating_dtype("dtype", np.dtype(dtype))
    except Exception:  # whatever an object of the caller's raises when it is taken for a dtype
        message = f"dtype is {in_words(dtype)}; expected float32, float64 or a wider floating type"
        raise TypeError(message) from None
    rng, sizes = _generator(rng), {"D": D, "H": H, "O": O}
    drawn = [_drawn(rng, axes, sizes) for axes in axes_of(kind).values()]
    params: Params = kind.Params(*(array.astype(wanted) for array in drawn))
    return params


def no_gradients(params: AnyParams) -> Any:
    """Return zeros to which the gradients in the parameters are added."""
    return type(params)(*(np.zeros(array.shape, array.dtype) for array in params))


def gradients_of(params: AnyParams, *arrays: Array) -> Gradients:
    """Return the gradients in the parameters, in x and in h0 as the cell names them."""
    gradients: Gradients = _GRADIENTS[type(params)](*arrays)
    return gradients


def _drawn(rng: np.random.Generator, axes: str, sizes: dict[str, int]) -> Array:
    """Draw one parameter, by its axes."""
    shape = shape_of(axes, sizes)
    if len(shape) == 1:
        return np.zeros(shape)
    if axes.endswith("HH"):
        H = shape[1]
        return np.concatenate([_orthogonal(rng, H) for _ in range(shape[0] // H)])
    drawn: Array = rng.standard_normal(shape) / np.sqrt(shape[1])
    return drawn


def _orthogonal(rng: np.random.Generator, H: int) -> Array:
    Q, R = np.linalg.qr(rng.standard_normal((H, H)))
    return Q * np.where(np.diag(R) < 0, -1.0, 1.0)  # with this sign Q is uniform (Mezzadri, 2007)


def _generator(rng: Any) -> np.random.Generator:
    seed = _integer(rng)
    if rng is not None and not isinstance(rng, np.random.Generator) and (seed is None or seed < 0):
        message = f"rng is {in_words(rng)}; expected an int of at least 0, a Generator or None"
        raise TypeError(message)
    return np.random.default_rng(rng if seed is None else seed)


def _size(name: str, value: Any) -> int:
    """Return value as an int of at least 1."""
    n = _integer(value)
    if n is None:
        raise TypeError(f"{name} is {in_words(value)}; expected an integer of at least 1")
    if n < 1:
        raise ValueError(f"{name} is {in_words(n)}; expected at least 1")
    if n > LARGEST:
        raise ValueError(f"{name} is {in_words(n)}; expected at most {LARGEST}")
    return n


def _integer(value: Any) -> int | None:
    """Return value as an int, or None if it is none; nor are True and False."""
    try:
        return None if isinstance(value, bool) else index(value)
    except Exception:  # whatever an object of the caller's raises
        return None
