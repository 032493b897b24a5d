"""The parameters of the network and the gradients of a loss in them, by the lab's letters.

    h[t] = tanh(W h[t-1] + U x[t] + b)        y[t] = V h[t] + c

| field | shape  | role                                      |
|-------|--------|-------------------------------------------|
| W     | (H, H) | hidden to hidden                          |
| U     | (H, D) | input to hidden                           |
| b     | (H,)   | bias of the hidden units                  |
| V     | (O, H) | hidden to output                          |
| c     | (O,)   | bias of the outputs                       |
"""

from collections.abc import Callable
from operator import index
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import DTypeLike, NDArray

Array = NDArray[Any]
LARGEST = 2**29  # of D, H and O; the bytes of W can then be counted in 64 bits


class Params(NamedTuple):
    """The parameters of Eqs. 1-2: W (H, H), U (H, D), b (H,), V (O, H) and c (O,)."""

    W: Array
    U: Array
    b: Array
    V: Array
    c: Array


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


def init_params(
    n_inputs: int,
    n_hidden: int,
    n_outputs: int,
    *,
    rng: int | np.random.Generator | None = None,
    dtype: DTypeLike = np.float64,
) -> Params:
    """Draw parameters from which training starts well.

    W is a random orthogonal matrix (Saxe, McClelland and Ganguli, 2014), so that at first W
    neither stretches nor shrinks what it carries through time; U and V are Gaussian with variance
    1 / D and 1 / H, so that unit inputs give pre-activations and outputs of order one; the biases
    are zero.

    Parameters
    ----------
    n_inputs, n_hidden, n_outputs : int
        D, H and O, each at least 1.
    rng : int, numpy.random.Generator or None
        Where the randomness comes from; an int seeds a new generator.
    dtype : dtype
        The dtype of every array: float32, float64 or wider.

    Raises
    ------
    TypeError
        If a size is not an integer or dtype is not a real or complex floating type.
    ValueError
        If a size is below 1 or above 2**29.

    Examples
    --------
    >>> params = init_params(6, 10, 1, rng=0)
    >>> params.W.shape, params.U.shape, params.V.shape
    ((10, 10), (10, 6), (1, 10))
    >>> bool(np.allclose(params.W @ params.W.T, np.eye(10)))
    True
    """
    D, H, O = (
        _size(name, n)
        for name, n in (("n_inputs", n_inputs), ("n_hidden", n_hidden), ("n_outputs", n_outputs))
    )
    try:
        kind = floating_dtype("dtype", np.dtype(dtype))
    except Exception:  # whatever a stranger's object raises when it is taken for a dtype
        message = f"dtype is {in_words(dtype)}; expected float32, float64 or a wider floating type"
        raise TypeError(message) from None
    rng = _generator(rng)
    Q, R = np.linalg.qr(rng.standard_normal((H, H)))
    W = Q * np.where(np.diag(R) < 0, -1.0, 1.0)  # with this sign Q is uniform (Mezzadri, 2007)
    U = rng.standard_normal((H, D)) / np.sqrt(D)
    V = rng.standard_normal((O, H)) / np.sqrt(H)
    return Params(*(array.astype(kind) for array in (W, U, np.zeros(H), V, np.zeros(O))))


def floating_dtype(name: str, dtype: np.dtype[Any]) -> np.dtype[Any]:
    """Return dtype in native byte order, or refuse what the equations cannot be computed in."""
    if dtype.kind not in "fc" or dtype.itemsize < 4:
        raise TypeError(f"{name} is {dtype}; expected float32, float64 or a wider floating type")
    return dtype.newbyteorder("=")


def in_words(value: Any, spell: Callable[[Any], str] = repr) -> str:
    """Return value on one short line, as a message shows it."""
    try:
        text = " ".join(spell(value).split())
    except Exception:  # a stranger's object may refuse
        text = f"a {type(value).__name__}"
    return text if len(text) <= 160 else text[:157] + "..."


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
    except Exception:  # whatever a stranger's object raises
        return None
