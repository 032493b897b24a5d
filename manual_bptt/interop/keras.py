"""The layout of Keras: lists of weights without names, kernels transposed."""

import re
from collections.abc import Sequence
from typing import Any

from manual_bptt.arrays import Array, in_words
from manual_bptt.interop.entries import (
    Entry,
    as_entry,
    as_kernel,
    hidden_units,
    own_params,
    params_of,
)
from manual_bptt.params import Gradients, Params


def from_keras(rnn: Sequence[Any], dense: Sequence[Any] | None = None) -> Params:
    """Return the parameters in the weights of a Keras ``SimpleRNN`` and a ``Dense`` layer.

    Gradients in these weights are read alike.

    Parameters
    ----------
    rnn : list
        What ``SimpleRNN.get_weights()`` returns: kernel (D, H), recurrent_kernel (H, H) and bias
        (H,). Without dense, the weights of a model that has both layers and no other.
    dense : list, optional
        What ``Dense.get_weights()`` returns: kernel (H, O) and bias (O,).

    A bias that is missing (``use_bias=False``) is zero.

    Raises
    ------
    TypeError
        If an argument is no list, an entry does not hold numbers, or their common dtype is not a
        floating type of at least 32 bits.
    ValueError
        If there are fewer or more arrays than these, or one has another shape or is not finite.

    Examples
    --------
    >>> import numpy as np
    >>> model = [np.ones((3, 4)), np.eye(4), np.zeros(4), np.ones((4, 2)), np.zeros(2)]
    >>> params = from_keras(model)
    >>> params.U.shape, params.V.shape
    ((4, 3), (2, 4))
    """
    entries = _listed("rnn", rnn) + ([] if dense is None else _listed("dense", dense))
    if len(entries) > 1:
        hidden_units(entries[1])  # before the count: it tells of a GRU or an LSTM
    axes = "".join(str(entry.array.ndim) for entry in entries)
    form = re.fullmatch("22(1?)2(1?)", axes)  # kernel, recurrent_kernel, bias, kernel, bias
    if form is None:
        shapes = in_words(", ".join(str(entry.array.shape) for entry in entries), str)
        raise ValueError(
            f"{'rnn holds' if dense is None else 'rnn and dense hold'} the shapes {shapes}; "
            "expected (D, H), (H, H), (H,) of one SimpleRNN and (H, O), (O,) of one Dense"
        )
    U, W, *rest = entries
    b = rest.pop(0) if form[1] else None
    V = rest.pop(0)
    c = rest.pop(0) if form[2] else None
    return params_of(W, U, b, V, c, kernels=True)


def to_keras(params: Params | Gradients) -> tuple[list[Array], list[Array]]:
    """Return what ``set_weights`` of a Keras ``SimpleRNN(H)`` and a ``Dense(O)`` layer takes.

    Parameters
    ----------
    params : Params or Gradients
        The parameters, or their gradients, which are laid out alike; their dtype is that of the
        result.

    Raises
    ------
    TypeError
        If params are neither, or another cell's.
    ValueError
        If shapes disagree or a value is not finite.

    Examples
    --------
    >>> from manual_bptt import init_params
    >>> rnn, dense = to_keras(init_params(3, 4, 2, rng=0))
    >>> [array.shape for array in rnn], [array.shape for array in dense]
    ([(3, 4), (4, 4), (4,)], [(4, 2), (2,)])
    """
    W, U, b, V, c = own_params("params", params)
    return [as_kernel(U), as_kernel(W), b], [as_kernel(V), c]


def _listed(argument: str, weights: Any) -> list[Entry]:
    """Return a list of arrays as entries."""
    if not isinstance(weights, list | tuple):
        raise TypeError(
            f"{argument} is a {type(weights).__name__}; expected the list that get_weights() gives"
        )
    return [as_entry(f"{argument}[{i}]", value) for i, value in enumerate(weights)]
