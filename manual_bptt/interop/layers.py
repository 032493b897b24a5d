"""Layers whose arrays have names, as in torch and Flax: each is found by its name and taken out."""

import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from manual_bptt.arrays import in_words
from manual_bptt.interop.entries import Entry, as_entry


class Layer(NamedTuple):
    """The entries of a layer by their names, nested ones joined by dots, and what messages call it.

    What has found its place is taken out.
    """

    name: str
    entries: dict[str, Entry]


def two_layers(rnn: Any, name: str, other: Any, expected: str) -> tuple[Layer, Layer]:
    """Return the layers of h and of y; with no other, they share the entries of rnn."""
    cell = _layer("rnn", rnn, expected)
    if other is None:
        return cell, Layer("rnn, beside the recurrent layer,", cell.entries)
    return cell, _layer(name, other, expected)


def _layer(name: str, tree: Any, expected: str) -> Layer:
    """Return what a mapping holds, nested or not."""
    if not isinstance(tree, Mapping):
        raise TypeError(f"{name} is a {type(tree).__name__}; expected {expected}")
    try:
        leaves = [(".".join(map(str, path)), path, value) for path, value in _leaves(tree, ())]
    except Exception:  # an unknown mapping fails to give its items, or it has no end
        raise TypeError(f"{name} cannot be read; expected {expected}") from None
    return Layer(
        name,
        {
            joined: as_entry(name + "".join(f"[{in_words(key)}]" for key in path), value)
            for joined, path, value in leaves
        },
    )


def _leaves(tree: Mapping[Any, Any], path: tuple[Any, ...]) -> Iterator[tuple[Any, Any]]:
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, (*path, key))
        else:
            yield (*path, key), value


def find(layer: Layer, pattern: str, what: str) -> tuple[str, ...]:
    """Return the one name that fits, and its groups."""
    found = [m for m in map(re.compile(pattern).fullmatch, layer.entries) if m]
    if len(found) != 1:
        came = in_words([m.group() for m in found] or list(layer.entries))
        raise ValueError(f"{layer.name} holds {came}; expected one {what}")
    return found[0].group(), *found[0].groups()


def take(layer: Layer, name: str, beside: str) -> Entry:
    """Take out an entry, which has to be there."""
    if name not in layer.entries:
        raise ValueError(f"{layer.name} holds no {name}; expected it beside {beside}")
    return layer.entries.pop(name)


def take_readout(layer: Layer, kind: str, of: str) -> tuple[Entry, Entry | None]:
    """Take out the one weight or kernel that there is, and the bias beside it."""
    name, prefix = find(layer, rf"(|.*\.){kind}", f"{kind} {of}")
    return layer.entries.pop(name), layer.entries.pop(f"{prefix}bias", None)


def require_nothing_left(cell: Layer, readout: Layer, expected: str) -> None:
    """Refuse what the network has no place for."""
    left = [*cell.entries.values(), *readout.entries.values()]
    if left:
        raise ValueError(f"{left[0].name} has no place in the network; expected {expected}")
