"""The layout of torch: state dicts, in which an RNN has two biases."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from manual_bptt.arrays import Array
from manual_bptt.interop.entries import Arrays, Entry, as_entry, own_params, params_of
from manual_bptt.interop.layers import (
    Layer,
    find,
    require_nothing_left,
    take,
    take_readout,
    two_layers,
)
from manual_bptt.params import Gradients, Params


def from_torch(rnn: Mapping[str, Any], linear: Mapping[str, Any] | None = None) -> Params:
    """Return the parameters in the state dicts of a ``torch.nn.RNN`` and a ``torch.nn.Linear``.

    Not for gradients, of which the two biases have one in common: see ``gradients_to_torch``.

    Parameters
    ----------
    rnn : mapping
        ``weight_ih_l0`` (H, D), ``weight_hh_l0`` (H, H), ``bias_ih_l0`` and ``bias_hh_l0`` (H,), or
        the same without ``_l0``, as of an ``RNNCell``; b is the sum of the biases. Without linear,
        the state dict of a module that holds both layers and nothing else, under whatever prefixes.
    linear : mapping, optional
        ``weight`` (O, H) and ``bias`` (O,).

    Biases that are missing are zeros.

    Raises
    ------
    TypeError
        If an argument is no mapping, an entry does not hold numbers, or their common dtype is not a
        floating type of at least 32 bits.
    ValueError
        If an entry is missing, has another shape, or is not finite, or there is one that the
        network has no place for: a second layer or direction, gates, a projection, another module.

    Examples
    --------
    >>> module = {"rnn.weight_ih_l0": np.ones((4, 3)), "rnn.weight_hh_l0": np.eye(4),
    ...           "rnn.bias_ih_l0": np.ones(4), "rnn.bias_hh_l0": np.ones(4),
    ...           "fc.weight": np.ones((2, 4)), "fc.bias": np.zeros(2)}
    >>> from_torch(module).b
    array([2., 2., 2., 2.])
    """
    cell, readout = two_layers(rnn, "linear", linear, "a state dict")
    weight_ih, prefix, layer = find(cell, r"(|.*\.)weight_ih(|_l0)", "weight_ih_l0 of an RNN")
    U = cell.entries.pop(weight_ih)
    W = take(cell, f"{prefix}weight_hh{layer}", weight_ih)
    b = _bias(cell, f"{prefix}bias_ih{layer}", f"{prefix}bias_hh{layer}")
    V, c = take_readout(readout, "weight", "of a Linear")
    require_nothing_left(
        cell, readout, "one RNN of one layer and one direction, without projection, and one Linear"
    )
    return params_of(W, U, b, V, c)


def to_torch(params: Params) -> tuple[Arrays, Arrays]:
    """Return state dicts of ``torch.nn.RNN(D, H)`` and ``torch.nn.Linear(H, O)``, in NumPy arrays.

    b becomes ``bias_ih_l0``, and ``bias_hh_l0`` is zero, so that ``from_torch`` gives back every
    bit. ``rnn.load_state_dict({k: torch.from_numpy(v) for k, v in arrays.items()})`` loads one.

    Parameters
    ----------
    params : Params
        The parameters; their dtype is that of the result.

    Raises
    ------
    TypeError
        If params are none, are another cell's, or are gradients: those in the biases are not a bias
        and zeros.
    ValueError
        If shapes disagree or a value is not finite.

    Examples
    --------
    >>> from manual_bptt import init_params
    >>> rnn, linear = to_torch(init_params(3, 4, 2, rng=0))
    >>> {name: array.shape for name, array in (rnn | linear).items()}
    ... # doctest: +NORMALIZE_WHITESPACE
    {'weight_ih_l0': (4, 3), 'weight_hh_l0': (4, 4), 'bias_ih_l0': (4,), 'bias_hh_l0': (4,),
     'weight': (2, 4), 'bias': (2,)}
    """
    if isinstance(params, Gradients):
        raise TypeError("params is a Gradients; expected Params (gradients_to_torch is for those)")
    own = own_params("params", params)
    return _torch(own, np.zeros_like(own.b))


def gradients_to_torch(grads: Gradients) -> tuple[Arrays, Arrays]:
    """Return gradients under the names that torch's ``named_parameters`` gives, in NumPy arrays.

    They compare with the ``.grad`` of each after ``loss.backward()``. torch adds ``bias_ih_l0`` and
    ``bias_hh_l0``, so that the gradient in either is that in their sum b.

    Parameters
    ----------
    grads : Gradients
        What ``backward`` or ``loss_and_gradients`` returned; x and h0 are left out, having no name
        in a state dict.

    Raises
    ------
    TypeError
        If grads are none.
    ValueError
        If shapes disagree or a value is not finite.

    Examples
    --------
    >>> from manual_bptt import init_params, loss_and_gradients
    >>> params = init_params(3, 4, 2, rng=0)
    >>> _, grads = loss_and_gradients(params, np.ones((5, 3)), np.zeros((5, 2)))
    >>> rnn, linear = gradients_to_torch(grads)
    >>> bool((rnn["bias_hh_l0"] == grads.b).all() and (rnn["bias_ih_l0"] == grads.b).all())
    True
    """
    own = own_params("grads", grads)
    return _torch(own, own.b.copy())


def _torch(own: Params, bias_hh: Array) -> tuple[Arrays, Arrays]:
    rnn = {
        "weight_ih_l0": own.U,
        "weight_hh_l0": own.W,
        "bias_ih_l0": own.b,
        "bias_hh_l0": bias_hh,
    }
    return rnn, {"weight": own.V, "bias": own.c}


def _bias(cell: Layer, ih: str, hh: str) -> Entry | None:
    """Take out both biases and return their sum, or None if there are none.

    Where bias_hh is zero the sum has every bit of bias_ih, its sign too: -0.0 + 0.0 would be 0.0.
    """
    if not {ih, hh} & cell.entries.keys():
        return None
    name, one = take(cell, ih, hh)
    other_name, other = take(cell, hh, ih)
    if one.shape != other.shape:
        raise ValueError(f"{other_name} has shape {other.shape}; expected {one.shape}, as {name}")
    with np.errstate(over="ignore"):  # what overflows is found next
        return as_entry(f"{name} + {other_name}", np.where(other == 0, one, one + other))
