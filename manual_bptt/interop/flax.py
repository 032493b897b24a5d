"""The layout of Flax: nested mappings, kernels transposed."""

from collections.abc import Mapping
from typing import Any

from manual_bptt.interop.entries import Arrays, as_kernel, own_params, params_of
from manual_bptt.interop.layers import (
    find,
    require_nothing_left,
    take,
    take_readout,
    two_layers,
)
from manual_bptt.params import Gradients, Params


def from_flax(rnn: Mapping[Any, Any], dense: Mapping[Any, Any] | None = None) -> Params:
    """Return the parameters in those of a Flax ``SimpleCell`` and a ``Dense`` layer.

    Gradients in these parameters are read alike.

    Parameters
    ----------
    rnn : mapping
        ``{"i": {"kernel": (D, H), "bias": (H,)}, "h": {"kernel": (H, H)}}``, as
        ``flax.linen.SimpleCell`` has it, or ``dense_i`` and ``dense_h`` for i and h, as in
        ``nnx.state(cell, nnx.Param)``. Without dense, the parameters of a module that holds both
        layers and nothing else, nested under whatever names.
    dense : mapping, optional
        ``{"kernel": (H, O), "bias": (O,)}``, as ``flax.linen.Dense`` and ``flax.nnx.Linear`` have.

    A bias that is missing is zero.

    Raises
    ------
    TypeError
        If an argument is no mapping, an entry does not hold numbers, or their common dtype is not a
        floating type of at least 32 bits.
    ValueError
        If an entry is missing, has another shape, or is not finite, or there is one that the
        network has no place for.

    Examples
    --------
    >>> import numpy as np
    >>> variables = {"params": {
    ...     "SimpleCell_0": {"i": {"kernel": np.ones((3, 4)), "bias": np.zeros(4)},
    ...                      "h": {"kernel": np.eye(4)}},
    ...     "Dense_0": {"kernel": np.ones((4, 2)), "bias": np.zeros(2)}}}
    >>> params = from_flax(variables)
    >>> params.U.shape, params.V.shape
    ((4, 3), (2, 4))
    """
    cell, readout = two_layers(rnn, "dense", dense, "a mapping of parameters")
    kernel, prefix, nnx = find(cell, r"(|.*\.)(|dense_)i\.kernel", "i.kernel of a SimpleCell")
    U = cell.entries.pop(kernel)
    W = take(cell, f"{prefix}{nnx}h.kernel", kernel)
    b = cell.entries.pop(f"{prefix}{nnx}i.bias", None)
    V, c = take_readout(readout, "kernel", "of a Dense")
    require_nothing_left(cell, readout, "one SimpleCell and one Dense")
    return params_of(W, U, b, V, c, kernels=True)


def to_flax(params: Params | Gradients) -> tuple[dict[str, Arrays], Arrays]:
    """Return the parameters of ``flax.linen.SimpleCell(H)`` and of ``flax.linen.Dense(O)``.

    ``flax.nnx`` calls i and h ``dense_i`` and ``dense_h``:
    ``nnx.update(cell, {f"dense_{k}": v for k, v in rnn.items()})`` sets a cell of it.

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
    >>> rnn, dense = to_flax(init_params(3, 4, 2, rng=0))
    >>> rnn["i"]["kernel"].shape, rnn["h"]["kernel"].shape, dense["kernel"].shape
    ((3, 4), (4, 4), (4, 2))
    """
    W, U, b, V, c = own_params("params", params)
    rnn = {"i": {"kernel": as_kernel(U), "bias": b}, "h": {"kernel": as_kernel(W)}}
    return rnn, {"kernel": as_kernel(V), "bias": c}
