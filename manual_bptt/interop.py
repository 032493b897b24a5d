"""The parameters of the network in the layouts of other libraries, as NumPy arrays.

    h[t] = tanh(W h[t-1] + U x[t] + b)        y[t] = V h[t] + c

| ours     | torch: RNN, Linear      | Keras: SimpleRNN, Dense | Flax: SimpleCell, Dense |
|----------|-------------------------|-------------------------|-------------------------|
| W (H, H) | weight_hh_l0            | recurrent_kernel.T      | h: kernel.T             |
| U (H, D) | weight_ih_l0            | kernel.T                | i: kernel.T             |
| b (H,)   | bias_ih_l0 + bias_hh_l0 | bias                    | i: bias                 |
| V (O, H) | weight                  | kernel.T                | kernel.T                |
| c (O,)   | bias                    | bias                    | bias                    |

Gradients are laid out like the parameters they belong to, so ``to_keras`` and ``to_flax`` take them
too, and ``from_keras`` and ``from_flax`` read them. Not so in torch, which adds two biases: the
gradient in each of them is that in their sum b, and ``gradients_to_torch`` gives it twice.
By default x, and the gradient in it, are (T, B, D) in torch as here, (B, T, D) in Keras and Flax;
h0, and the gradient in it, are (1, B, H) in torch, (B, H) in the others.

No other library is imported to convert: anything that NumPy can read as an array will do, and so
will torch tensors. Nothing in these layouts tells which activation a network has; it has to be
tanh. Files are in the safetensors format, and need the package of this name.
"""

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from manual_bptt.arrays import Array, floating_dtype, in_words
from manual_bptt.files import write_whole
from manual_bptt.params import Gradients, Params
from manual_bptt.validation import as_array, attributes, require_labs_cell

Arrays = dict[str, Array]
GATED = {3: "; 3 H is what a GRU has", 4: "; 4 H is what an LSTM has"}


class _Entry(NamedTuple):
    """An array, and its name in messages."""

    name: str
    array: Array


class _Layer(NamedTuple):
    """The entries of a layer by their names, nested ones joined by dots, and what messages call it.

    What has found its place is taken out.
    """

    name: str
    entries: dict[str, _Entry]


# --- torch ---------------------------------------------------------------------------------------


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
    cell, readout = _two_layers(rnn, "linear", linear, "a state dict")
    weight_ih, prefix, layer = _find(cell, r"(|.*\.)weight_ih(|_l0)", "weight_ih_l0 of an RNN")
    U = cell.entries.pop(weight_ih)
    W = _take(cell, f"{prefix}weight_hh{layer}", weight_ih)
    b = _bias(cell, f"{prefix}bias_ih{layer}", f"{prefix}bias_hh{layer}")
    V, c = _readout(readout, "weight", "of a Linear")
    _require_nothing_left(
        cell, readout, "one RNN of one layer and one direction, without projection, and one Linear"
    )
    return _params(W, U, b, V, c)


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
    own = _own("params", params)
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
    own = _own("grads", grads)
    return _torch(own, own.b.copy())


def _torch(own: Params, bias_hh: Array) -> tuple[Arrays, Arrays]:
    rnn = {
        "weight_ih_l0": own.U,
        "weight_hh_l0": own.W,
        "bias_ih_l0": own.b,
        "bias_hh_l0": bias_hh,
    }
    return rnn, {"weight": own.V, "bias": own.c}


def _bias(cell: _Layer, ih: str, hh: str) -> _Entry | None:
    """Take out both biases and return their sum, or None if there are none.

    Where bias_hh is zero the sum has every bit of bias_ih, its sign too: -0.0 + 0.0 would be 0.0.
    """
    if not {ih, hh} & cell.entries.keys():
        return None
    name, one = _take(cell, ih, hh)
    other_name, other = _take(cell, hh, ih)
    if one.shape != other.shape:
        raise ValueError(f"{other_name} has shape {other.shape}; expected {one.shape}, as {name}")
    with np.errstate(over="ignore"):  # what overflows is found next
        return _entry(f"{name} + {other_name}", np.where(other == 0, one, one + other))


# --- Keras ---------------------------------------------------------------------------------------


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
    >>> model = [np.ones((3, 4)), np.eye(4), np.zeros(4), np.ones((4, 2)), np.zeros(2)]
    >>> params = from_keras(model)
    >>> params.U.shape, params.V.shape
    ((4, 3), (2, 4))
    """
    entries = _listed("rnn", rnn) + ([] if dense is None else _listed("dense", dense))
    if len(entries) > 1:
        _hidden_units(entries[1])  # before the count: it tells of a GRU or an LSTM
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
    return _params(W, U, b, V, c, kernels=True)


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
    W, U, b, V, c = _own("params", params)
    return [_kernel(U), _kernel(W), b], [_kernel(V), c]


def _listed(argument: str, weights: Any) -> list[_Entry]:
    """Return a list of arrays as entries."""
    if not isinstance(weights, list | tuple):
        raise TypeError(
            f"{argument} is a {type(weights).__name__}; expected the list that get_weights() gives"
        )
    return [_entry(f"{argument}[{i}]", value) for i, value in enumerate(weights)]


# --- Flax ----------------------------------------------------------------------------------------


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
    >>> variables = {"params": {
    ...     "SimpleCell_0": {"i": {"kernel": np.ones((3, 4)), "bias": np.zeros(4)},
    ...                      "h": {"kernel": np.eye(4)}},
    ...     "Dense_0": {"kernel": np.ones((4, 2)), "bias": np.zeros(2)}}}
    >>> params = from_flax(variables)
    >>> params.U.shape, params.V.shape
    ((4, 3), (2, 4))
    """
    cell, readout = _two_layers(rnn, "dense", dense, "a mapping of parameters")
    kernel, prefix, nnx = _find(cell, r"(|.*\.)(|dense_)i\.kernel", "i.kernel of a SimpleCell")
    U = cell.entries.pop(kernel)
    W = _take(cell, f"{prefix}{nnx}h.kernel", kernel)
    b = cell.entries.pop(f"{prefix}{nnx}i.bias", None)
    V, c = _readout(readout, "kernel", "of a Dense")
    _require_nothing_left(cell, readout, "one SimpleCell and one Dense")
    return _params(W, U, b, V, c, kernels=True)


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
    W, U, b, V, c = _own("params", params)
    rnn = {"i": {"kernel": _kernel(U), "bias": b}, "h": {"kernel": _kernel(W)}}
    return rnn, {"kernel": _kernel(V), "bias": c}


# --- safetensors ---------------------------------------------------------------------------------


def save_safetensors(path: str | os.PathLike[str], params: Params) -> None:
    """Write params to path, whole or not at all: a file already there stays until it is replaced.

    The file holds the arrays W, U, b, V and c and runs no code when it is read.

    Parameters
    ----------
    path : str or path
        Where to; the folder has to be there.
    params : Params
        The parameters, of float32 or float64.

    Raises
    ------
    ImportError
        If safetensors is not installed.
    TypeError
        If an argument is of the wrong kind, or params are of another dtype or another cell.
    ValueError
        If shapes disagree or a value is not finite.
    OSError
        If the file cannot be written.

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> from manual_bptt import init_params
    >>> with TemporaryDirectory() as folder:
    ...     save_safetensors(f"{folder}/rnn.safetensors", init_params(3, 4, 2, rng=0))
    ...     os.listdir(folder)
    ['rnn.safetensors']
    """
    path, own = _path(path), _own("params", params)
    if own.W.dtype not in (np.float32, np.float64):
        raise TypeError(f"params' common dtype is {own.W.dtype}; expected float32 or float64")
    data = _safetensors().save(own._asdict())
    write_whole(path, lambda file: file.write(data))


def load_safetensors(path: str | os.PathLike[str]) -> Params:
    """Read what ``save_safetensors`` wrote, every bit of it the same.

    Parameters
    ----------
    path : str or path
        The file.

    Raises
    ------
    ImportError
        If safetensors is not installed.
    TypeError
        If path is none.
    ValueError
        If the file is of another format or cut short, or does not hold W, U, b, V and c alone, all
        finite, of shapes that agree, and of one dtype, float32 or float64.
    OSError
        If the file cannot be read.

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> from manual_bptt import init_params
    >>> params = init_params(3, 4, 2, rng=0)
    >>> with TemporaryDirectory() as folder:
    ...     save_safetensors(f"{folder}/rnn.safetensors", params)
    ...     again = load_safetensors(f"{folder}/rnn.safetensors")
    >>> all((ours == theirs).all() for ours, theirs in zip(params, again))
    True
    """
    path, library = _path(path), _safetensors()
    data = path.read_bytes()
    try:
        arrays = library.load(data)
    except Exception as error:  # whatever the library makes of untrusted bytes
        message = f"expected a file that save_safetensors wrote: {in_words(error, str)}"
        raise ValueError(f"{path}: {message}") from None
    if set(arrays) != set(Params._fields):
        came = in_words(sorted(arrays))
        raise ValueError(f"{path}: holds the arrays {came}; expected W, U, b, V and c")
    dtypes = {name: arrays[name].dtype for name in Params._fields}
    if dtypes["W"] not in (np.float32, np.float64) or len(set(dtypes.values())) > 1:
        came = ", ".join(f"{name} {dtype}" for name, dtype in dtypes.items())
        raise ValueError(f"{path}: holds {came}; expected float32 or float64 in all")
    return _params(*(_entry(f"{path}: {name}", arrays[name]) for name in Params._fields))


def _safetensors() -> Any:
    """Return safetensors.numpy, if it is installed."""
    try:
        import safetensors.numpy
    except ImportError:
        message = "this function needs safetensors: pip install 'manual-bptt[interop]'"
        raise ImportError(message) from None
    return safetensors.numpy


def _path(path: Any) -> Path:
    try:
        return Path(path)
    except Exception:  # whatever an unknown object raises
        raise TypeError(f"path is {in_words(path)}; expected a str or a path") from None


# --- entries, and what becomes of them -----------------------------------------------------------


def _entry(name: str, value: Any) -> _Entry:
    """Return value as an array of finite numbers, a tensor of torch's too."""
    array = as_array(name, _detached(value))
    finite = np.isfinite(array)
    if not finite.all():
        where = tuple(int(i) for i in np.argwhere(~finite)[0])
        raise ValueError(
            f"{name} holds {array[where]} at index {where}; expected finite {array.dtype} values"
        )
    return _Entry(name, array)


def _detached(value: Any) -> Any:
    """Return a torch tensor as one that NumPy can read, and anything else as it is."""
    try:
        return value.detach().cpu()
    except Exception:  # not a tensor, or one that NumPy will say cannot be read
        return value


def _own(name: str, holder: Any) -> Params:
    """Return the five arrays of Params or Gradients, checked and copied."""
    require_labs_cell(holder)
    kind = "Gradients" if name == "grads" else "Params"
    expected = f"{kind}, or an object with the attributes W, U, b, V and c"
    fields = attributes(name, holder, Params._fields, expected)
    return _params(*(_entry(f"{name}.{k}", value) for k, value in fields.items()))


def _params(
    W: _Entry, U: _Entry, b: _Entry | None, V: _Entry, c: _Entry | None, *, kernels: bool = False
) -> Params:
    """Return new arrays of one dtype whose shapes agree; kernels come transposed, None is zeros."""
    H = _hidden_units(W)
    axis = 1 if kernels else 0  # that of the H in U; in V it is the other
    _require_matrix(U, ("(H, D)", "(D, H)")[axis], axis, H)
    _require_matrix(V, ("(O, H)", "(H, O)")[axis], 1 - axis, H)
    O = V.array.shape[axis]
    _require_vector(b, "(H,)", H)
    _require_vector(c, "(O,)", O)
    kinds = [entry.array.dtype for entry in (W, U, b, V, c) if entry is not None]
    dtype = floating_dtype(f"the common dtype of {W.name} and the rest", np.result_type(*kinds))
    sized = ((W, H), (U, H), (b, H), (V, O), (c, O))
    return Params(*(_copy(entry, n, dtype, transposed=kernels) for entry, n in sized))


def _copy(entry: _Entry | None, n: int, dtype: np.dtype[Any], *, transposed: bool) -> Array:
    """Return a C-ordered copy, or n zeros for nothing."""
    if entry is None:
        return np.zeros(n, dtype)
    return np.array(entry.array.T if transposed else entry.array, dtype, order="C")


def _hidden_units(W: _Entry) -> int:
    """Return H, if W is square."""
    shape = W.array.shape
    if len(shape) != 2 or shape[0] != shape[1] or 0 in shape:
        hint = "" if len(shape) != 2 or 0 in shape else GATED.get(max(shape) / min(shape), "")
        raise ValueError(f"{W.name} has shape {shape}; expected (H, H) with H at least 1{hint}")
    return int(shape[0])


def _require_matrix(entry: _Entry, meaning: str, axis: int, H: int) -> None:
    """Refuse what has not H entries along this axis, and at least one along the other."""
    shape = entry.array.shape
    if len(shape) != 2 or shape[axis] != H or 0 in shape:
        raise ValueError(f"{entry.name} has shape {shape}; expected {meaning} with H = {H}")


def _require_vector(entry: _Entry | None, meaning: str, n: int) -> None:
    if entry is not None and entry.array.shape != (n,):
        raise ValueError(f"{entry.name} has shape {entry.array.shape}; expected {meaning} = {(n,)}")


def _kernel(matrix: Array) -> Array:
    """Return the transpose, laid out in C order."""
    return np.ascontiguousarray(matrix.T)


# --- entries by name: torch and Flax -------------------------------------------------------------


def _two_layers(rnn: Any, name: str, other: Any, expected: str) -> tuple[_Layer, _Layer]:
    """Return the layers of h and of y; with no other, they share the entries of rnn."""
    cell = _layer("rnn", rnn, expected)
    if other is None:
        return cell, _Layer("rnn, beside the recurrent layer,", cell.entries)
    return cell, _layer(name, other, expected)


def _layer(name: str, tree: Any, expected: str) -> _Layer:
    """Return what a mapping holds, nested or not."""
    if not isinstance(tree, Mapping):
        raise TypeError(f"{name} is a {type(tree).__name__}; expected {expected}")
    try:
        leaves = [(".".join(map(str, path)), path, value) for path, value in _leaves(tree, ())]
    except Exception:  # an unknown mapping fails to give its items, or it has no end
        raise TypeError(f"{name} cannot be read; expected {expected}") from None
    return _Layer(
        name,
        {
            joined: _entry(name + "".join(f"[{in_words(key)}]" for key in path), value)
            for joined, path, value in leaves
        },
    )


def _leaves(tree: Mapping[Any, Any], path: tuple[Any, ...]) -> Iterator[tuple[Any, Any]]:
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, (*path, key))
        else:
            yield (*path, key), value


def _find(layer: _Layer, pattern: str, what: str) -> tuple[str, ...]:
    """Return the one name that fits, and its groups."""
    found = [m for m in map(re.compile(pattern).fullmatch, layer.entries) if m]
    if len(found) != 1:
        came = in_words([m.group() for m in found] or list(layer.entries))
        raise ValueError(f"{layer.name} holds {came}; expected one {what}")
    return found[0].group(), *found[0].groups()


def _take(layer: _Layer, name: str, beside: str) -> _Entry:
    """Take out an entry, which has to be there."""
    if name not in layer.entries:
        raise ValueError(f"{layer.name} holds no {name}; expected it beside {beside}")
    return layer.entries.pop(name)


def _readout(layer: _Layer, kind: str, of: str) -> tuple[_Entry, _Entry | None]:
    """Take out the one weight or kernel that there is, and the bias beside it."""
    name, prefix = _find(layer, rf"(|.*\.){kind}", f"{kind} {of}")
    return layer.entries.pop(name), layer.entries.pop(f"{prefix}bias", None)


def _require_nothing_left(cell: _Layer, readout: _Layer, expected: str) -> None:
    left = [*cell.entries.values(), *readout.entries.values()]
    if left:
        raise ValueError(f"{left[0].name} has no place in the network; expected {expected}")
