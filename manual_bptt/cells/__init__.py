"""The cells: how h[t] follows from h[t-1] and x[t], forth and back, each a module of this folder.

A cell is found by its name in ``CELLS`` and by the type of its parameters, and says

- ``Params``: a NamedTuple of its parameters, ``W U b V c`` first;
- ``AXES``: the shapes of those that are its own. "3HD" is (3 H, D); the rows of W, U and b are one
  gate after the other, so there are as many pre-activations a (T, B, G H) as b has entries;
- ``forward_steps(params, a, h)``: how a block's states h[1:] follow from h[0] and a = U x + b,
  which it may overwrite, and which is h[1:] itself where there is one gate;
- ``backward_steps(params, x, h, dh, da, carried)``, the way back. dh holds the gradient of the loss
  with respect to h[1:] as it arrives from the outputs, and becomes all of it; da is written, and is
  dh itself where there is one gate; carried is what h[T] receives from later steps, and becomes
  what h[0] receives. Returns, by the name of the parameter, what stands on both sides of the
  products whose sum over time is its gradient, for those where ``products.add_up`` does not
  know: W where it is not da and h[t-1], and parameters beyond the five;
- ``Gradients``, where the fields of Params are not the lab's: those, ``x`` and ``h0``.

V and c, and what arrives from the outputs, are the same for every cell and no matter of it.
"""

from collections.abc import Mapping
from importlib import import_module
from pkgutil import iter_modules
from types import MappingProxyType
from typing import Any

from manual_bptt.arrays import in_words

CELLS: Mapping[str, Any] = MappingProxyType(
    {module.name: import_module(f"{__name__}.{module.name}") for module in iter_modules(__path__)}
)
_OF_TYPE = MappingProxyType({cell.Params: cell for cell in CELLS.values()})


def cell_of(params: Any) -> Any:
    """Return the cell that params are the parameters of; of any other object, the lab's.

    >>> cell_of(CELLS["gru"].Params(*"WUbVc")) is CELLS["gru"], cell_of(object()) is CELLS["tanh"]
    (True, True)
    """
    kind = type(params)
    if kind in _OF_TYPE:
        return _OF_TYPE[kind]
    return next((_OF_TYPE[base] for base in kind.__mro__ if base in _OF_TYPE), CELLS["tanh"])


def name_of(cell: Any) -> str:
    """Return the name of a cell.

    >>> name_of(CELLS["gru"])
    'gru'
    """
    return str(cell.__name__.rpartition(".")[2])


def cell_named(name: Any) -> Any:
    """Return the cell of this name.

    >>> cell_named("lstm2")
    Traceback (most recent call last):
    ValueError: cell is 'lstm2'; expected one of gru, gru_reset_after, relu, tanh
    """
    if isinstance(name, str) and name in CELLS:
        return CELLS[name]
    wrong = ValueError if isinstance(name, str) else TypeError
    raise wrong(f"cell is {in_words(name)}; expected one of {', '.join(CELLS)}")
