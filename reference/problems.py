"""Problem: one network, one input, one target, drawn so that mistakes show.

h0, the biases and every target are non-zero, W is not symmetric, and regimes reach from linear to
saturated and from vanishing to exploding gradients. A problem is drawn from its shape, a regime and
a seed, so that one line reproduces it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from reference.arrays import OF_STATE, axes_of, given_trees, named_arrays, root, shape_for
from reference.network import CELLS, in_code, named_cell
from reference.network.cell import Axis, Cell
from reference.network.losses import Loss, named_loss
from reference.network.sequence import require_shape
from reference.rounding.formats import (
    Arithmetic,
    checked_arithmetic,
    formats_in_words,
    named_arithmetic,
)
from reference.user_code import arranged, parameters_type


@dataclass(frozen=True, eq=False)
class Problem:
    """Arguments of one call of a candidate, how it may round, and where they come from.

    ``x`` is (T, D) or (T, B, D), ``h0`` (H,) or (B, H), ``target`` like the outputs, like their
    last step where ``loss`` is ``"last_step_squared_error"``, or like h0 where it is
    ``"final_state_squared_error"``; the labels of ``"cross_entropy"`` are integers, (T,) or (T, B).
    Where the state of the cell has several arrays, h0 is arranged so too, and a target like it.
    ``origin`` is the expression, or the words, by which to find
    this problem again. ``arithmetic`` and ``storage`` are the formats to
    which factors of products, and states, may be rounded; None is the dtype. Where there are
    ``tokens``, every row of x has a single 1, and a candidate gets the place of it in the place of
    the row. ``zero`` are the names of parameters, or ``h0``, that are zero.
    """

    params: Any
    x: np.ndarray
    h0: Any
    target: Any
    loss: Any
    origin: str
    cell: Cell = CELLS["tanh"]
    arithmetic: str | None = None
    storage: str | None = None
    tokens: bool = False
    zero: tuple[str, ...] = ()

    @property
    def rounding(self) -> Arithmetic:
        """The formats of factors and of states."""
        return named_arithmetic(self.arithmetic, self.storage)

    @property
    def start(self) -> np.ndarray:
        """The initial state as vectors, in which its arrays lie side by side."""
        return self.cell.packed(self.h0)

    @property
    def goal(self) -> np.ndarray:
        """The target; where it is like the initial state, as vectors."""
        return self.cell.packed(self.target) if self.facts.of_states else self.target

    @property
    def facts(self) -> Loss:
        """What is known of the loss."""
        return named_loss(self.loss)

    @property
    def formats(self) -> str:
        """What is rounded to which formats, in words."""
        return formats_in_words(self.arithmetic, self.storage)

    @property
    def options(self) -> dict[str, Any]:
        """What beside its numbers makes a problem: its dtype, loss, cell, formats, and so on."""
        names = ("loss", "cell", "arithmetic", "storage", "tokens", "zero")
        return {"dtype": str(self.dtype), **{k: getattr(self, k) for k in names}}

    @property
    def sizes(self) -> dict[str, int]:
        """T, B (for batches), D, H and O."""
        T, *batch = self.x.shape[:-1]
        O, H = self.params.V.shape
        return {"T": T, **({"B": batch[0]} if batch else {}), "D": self.x.shape[-1], "H": H, "O": O}

    @property
    def dtype(self) -> np.dtype[Any]:
        """The dtype of every array."""
        return self.x.dtype

    @property
    def arrays(self) -> dict[str, Any]:
        """The parameters, x, and all arrays of h0 and the target by name."""
        given = {"h0": self.h0, "target": self.target}
        trees = given_trees(self.cell, self.loss)
        return {**self.params._asdict(), "x": self.x, **named_arrays(given, trees)}

    def gradient_shape(self, name: str) -> tuple[int, ...]:
        """Return the shape of a gradient: ``h``, that in every state, or that of an argument.

        That of the ``states`` themselves is the shape of ``h``. Where a state has several arrays,
        ``h`` is as vectors, and ``h[0]`` its first array.
        """
        of, place = root(name), name[len(root(name)) :]
        if of in OF_STATE:
            *batch, size = self.start.shape
            own = [axis.size(self.sizes) for axis in self.cell.leaves[place]] if place else [size]
            return (*([] if of == "h0" else [len(self.x) + 1]), *batch, *own)
        array: np.ndarray = getattr(self if name == "x" else self.params, name)
        return array.shape

    def by_array(self, name: str, vectors: np.ndarray) -> dict[str, np.ndarray]:
        """Return the arrays that lie side by side in what is like a state, each by its name.

        Anything else is returned as it is.
        """
        tree = self.cell.state if name in OF_STATE and self.cell.of_several else "array"
        of = self.cell.unpacked(vectors, self.sizes) if tree != "array" else vectors
        return named_arrays({name: of}, {name: tree})

    def __repr__(self) -> str:
        return self.origin


class Regime(NamedTuple):
    """Spectral norm of W, drawn log-uniformly between two ends, and scale of the inputs."""

    norm: tuple[float, float]
    inputs: float


REGIMES = {
    "contracting": Regime((0.1, 0.9), 1.0),
    "critical": Regime((0.9, 1.2), 0.3),
    "expanding": Regime((1.2, 3.0), 1.0),
    "chaotic": Regime((3.0, 10.0), 0.1),
    "saturated": Regime((0.5, 2.0), 10.0),
    "linear": Regime((0.5, 1.0), 1e-3),
}


def random_problem(
    *,
    T: int,
    B: int | None,
    D: int,
    H: int,
    O: int,
    regime: str,
    seed: int,
    dtype: str = "float64",
    loss: Any = "squared_error",
    cell: str | Cell = "tanh",
    arithmetic: str | None = None,
    storage: str | None = None,
    tokens: bool = False,
    zero: Sequence[str] = (),
) -> Problem:
    """Fill the arrays of a problem; B = None makes a single sequence.

    With an arithmetic or a storage, entries are numbers of these formats. With tokens, every row of
    x has a single 1. ``zero`` are the names of biases, or ``h0``, that are zero.

    Raises
    ------
    ValueError
        If the regime is not one of ``REGIMES``, the loss, the cell or a format is unknown, there
        is a format and the dtype is not float32, or what should be zero is no bias.

    Examples
    --------
    >>> random_problem(T=5, B=3, D=2, H=4, O=1, regime="saturated", seed=0).sizes
    {'T': 5, 'B': 3, 'D': 2, 'H': 4, 'O': 1}
    """
    known, cell, formats = named_loss(loss), named_cell(cell), (arithmetic, storage)
    rounding = checked_arithmetic(*formats, dtype)
    if regime not in REGIMES:
        raise ValueError(f"regime is {regime!r}; expected one of {sorted(REGIMES)}")
    rng = np.random.default_rng(seed)
    norm, inputs = REGIMES[regime]
    sizes, batch = {"D": D, "H": H, "O": O}, () if B is None else (B,)
    drawn = {k: _parameter(rng, axes, sizes, norm) for k, axes in cell.axes.items() if k != "c"}

    def normal(*shape: int) -> np.ndarray:
        return rng.standard_normal(shape)

    drawn["c"] = normal(O)
    x, start = inputs * normal(T, *batch, D), 0.5 * normal(*batch, cell.size(sizes))
    seen = (*batch, cell.size(sizes)) if known.of_states else (*batch, O)
    target = normal(T, *seen) if known.over_time else normal(*seen)
    if known.labels:
        target = rng.integers(O, size=(T, *batch))
    if tokens:
        x = one_hot(rng.integers(D, size=(T, *batch)), D)
    for name in checked_zero(zero, cell):
        (start if name == "h0" else drawn[name])[...] = 0

    def representable(array: np.ndarray) -> np.ndarray:
        return rounding.representable(array.astype(dtype))

    x, start, *values = map(representable, (x, start, *drawn.values()))
    target = target if known.labels else representable(target)
    params, h0 = parameters_type(cell.fields)(*values), cell.unpacked(start, sizes)
    target = cell.unpacked(target, sizes) if known.of_states else target
    origin = (
        f"reference.random_problem(T={T}, B={B}, D={D}, H={H}, O={O}, regime={regime!r}, "
        f"seed={seed}, dtype={str(dtype)!r}, loss={_loss_name(loss)}{_cell_name(cell)}"
        f"{_format_names(*formats)}{_inputs_in_words(tokens, zero)})"
    )
    return Problem(params, x, h0, target, loss, origin, cell, *formats, tokens, tuple(zero))


def one_hot(tokens: np.ndarray, D: int) -> np.ndarray:
    """Return a row with a single 1 for each of some integers."""
    rows: np.ndarray = np.eye(D)[tokens]
    return rows


def checked_zero(names: Sequence[str], cell: Cell) -> tuple[str, ...]:
    """Return the names of what is zero, if it is the initial state or vectors."""
    vectors = [k for k, axes in cell.axes.items() if len(axes) == 1]
    for name in names:
        if name not in ("h0", *vectors):
            raise ValueError(f"zero names {name!r}; expected any of {' '.join(['h0', *vectors])}")
    return tuple(names)


def _parameter(
    rng: np.random.Generator,
    axes: tuple[Axis, ...],
    sizes: Mapping[str, int],
    norm: tuple[float, float],
) -> np.ndarray:
    """Draw a parameter: what multiplies states has blocks of a norm drawn from a range."""
    shape = [axis.size(sizes) for axis in axes]
    last, H = axes[-1], sizes["H"]
    if len(axes) == 2 and (axes[0].letter, last) == ("H", Axis(1, "H")):
        blocks = []
        for _ in range(axes[0].times):
            block = rng.standard_normal((H, H))
            scale = np.exp(rng.uniform(*np.log(norm))) / np.linalg.norm(block, 2)
            blocks.append(block * scale)
        return np.concatenate(blocks)
    drawn = rng.standard_normal(shape)
    return 0.3 * drawn if len(axes) < 2 else drawn / np.sqrt(shape[-1])


def make_problem(
    *,
    x: Any,
    h0: Any,
    target: Any,
    dtype: str = "float64",
    loss: Any = "squared_error",
    cell: str | Cell = "tanh",
    arithmetic: str | None = None,
    storage: str | None = None,
    tokens: bool = False,
    zero: Sequence[str] = (),
    **params: Any,
) -> Problem:
    """Return the problem of these numbers; its ``origin`` is the call that makes it again.

    Arrays and nested lists are taken; shapes are those of ``Problem``. The parameters are those of
    the cell: for the lab's, W, U, b, V and c.

    Raises
    ------
    TypeError
        If the parameters are not those of the cell.
    ValueError
        If shapes disagree, the loss, the cell or a format is unknown, there is a format and the
        dtype is not float32, a label is no integer below O, or x has rows that are no tokens.

    Examples
    --------
    >>> make_problem(W=[[1]], U=[[1]], b=[0], V=[[1]], c=[0], x=[[2]], h0=[0], target=[[0.5]]).sizes
    {'T': 1, 'D': 1, 'H': 1, 'O': 1}
    """
    cell, formats = named_cell(cell), (arithmetic, storage)
    checked_arithmetic(*formats, dtype)
    if params.keys() != {*cell.fields}:
        expected = " ".join(cell.fields)
        raise TypeError(f"the parameters are {' '.join(params) or 'none'}; expected {expected}")
    trees = given_trees(cell, loss)
    given = named_arrays({"h0": h0, "target": target}, trees)
    given = {**{k: params[k] for k in cell.fields}, "x": x, **given}
    arrays = {k: np.array(value, dtype) for k, value in given.items()}
    if arrays["x"].ndim not in (2, 3):
        raise ValueError(f"x has shape {arrays['x'].shape}; expected (T, D) or (T, B, D)")
    T, *batch, D = arrays["x"].shape
    first = arrays[f"h0{next(iter(cell.leaves))}"]
    H, O = first.shape[-1] if first.ndim else 0, arrays["c"].size
    sizes = {"T": T, **({"B": batch[0]} if batch else {}), "D": D, "H": H, "O": O}
    for k, axes in axes_of(cell, loss).items():
        require_shape(k, arrays[k], shape_for(axes, sizes))
    known = named_loss(loss)
    if known.labels:
        arrays["target"] = known.checked_labels(target, O)
    if tokens and not np.array_equal(arrays["x"], one_hot(arrays["x"].argmax(-1), D)):
        raise ValueError("x has rows that are no tokens; expected a single 1 in each")
    texts = {k: _shortest(array) for k, array in arrays.items()}
    words = [f"{k}={texts[k]}" for k in (*cell.fields, "x")]
    words += [f"{k}={_written(trees[k], texts, k)}" for k in trees]
    words += [] if dtype == "float64" else [f"dtype={str(dtype)!r}"]
    words += [] if loss == "squared_error" else [f"loss={_loss_name(loss)}"]
    origin = (
        f"reference.make_problem({', '.join(words)}{_cell_name(cell)}{_format_names(*formats)}"
        f"{_inputs_in_words(tokens, zero)})"
    )
    of = parameters_type(cell.fields)(*(arrays[k] for k in cell.fields))
    h0, target = (arranged(tree, arrays, k) for k, tree in trees.items())
    zero = checked_zero(zero, cell)
    return Problem(of, arrays["x"], h0, target, loss, origin, cell, *formats, tokens, zero)


def of_arrays(arrays: Mapping[str, Any], **options: Any) -> Problem:
    """Return the problem of arrays as ``Problem.arrays`` names them, with these options.

    Arrays are made what the options say: zeros, rows with a single 1, labels of what there is.
    """
    arrays = dict(arrays)
    if options.get("tokens"):
        arrays["x"] = one_hot(arrays["x"].argmax(-1), arrays["x"].shape[-1])
    if named_loss(options["loss"]).labels:
        arrays["target"] = np.abs(arrays["target"]).astype(np.int64) % arrays["c"].size
    arrays = {
        k: np.zeros_like(a) if root(k) in options.get("zero", ()) else a for k, a in arrays.items()
    }
    trees = given_trees(options["cell"], options["loss"])
    given = {k: arranged(tree, arrays, k) for k, tree in trees.items()}
    rest = {k: a for k, a in arrays.items() if root(k) not in trees}
    return make_problem(**rest, **given, **options)


def round_numbers(shape: Mapping[str, int], loss: Any, cell: Cell, *number: int) -> dict[str, Any]:
    """Return arrays of halves that are not zero; always the same ones for a shape and a number."""
    rng = np.random.default_rng([*(shape[k] for k in sorted(shape)), *number])
    shapes = {k: shape_for(axes, shape) for k, axes in axes_of(cell, loss).items()}
    arrays = {k: rng.choice([-1.0, -0.5, 0.5, 1.0], size=size) for k, size in shapes.items()}
    if named_loss(loss).labels:
        arrays["target"] = rng.integers(shape["O"], size=shapes["target"])
    return arrays


# The line that makes a problem again -------------------------------------------------------------


def _written(tree: Any, texts: Mapping[str, str], name: str) -> str:
    """Return arrays in tuples and mappings in Python, from the text of each by its name."""
    if isinstance(tree, str):
        return texts[name]
    if isinstance(tree, Mapping):
        parts = (f"{k!r}: {_written(part, texts, f'{name}[{k!r}]')}" for k, part in tree.items())
        return f"{{{', '.join(parts)}}}"
    parts = (_written(part, texts, f"{name}[{i}]") for i, part in enumerate(tree))
    return f"({', '.join(parts)})" if len(tree) > 1 else f"({next(parts)},)"


def _cell_name(cell: Cell) -> str:
    """Return how a cell is written in a line that makes a problem again, if it is not the lab's."""
    return "" if cell is CELLS["tanh"] else f", cell={in_code(cell)[0]}"


def _format_names(arithmetic: str | None, storage: str | None) -> str:
    """Return how declared formats are written in a line that makes a problem again."""
    named = {"arithmetic": arithmetic, "storage": storage}
    return "".join(f", {k}={name!r}" for k, name in named.items() if name is not None)


def _inputs_in_words(tokens: bool, zero: Sequence[str]) -> str:
    """Return how tokens, and what is zero, are written in a line that makes a problem again."""
    return (", tokens=True" if tokens else "") + (f", zero={(*zero,)!r}" if zero else "")


def _shortest(array: np.ndarray) -> str:
    """Return the numbers as nested lists; whole ones without a point, if none is -0."""
    whole = np.array_equal(array, array.round()) and np.abs(array).max(initial=0) < 2**53
    signed = (np.signbit(array) & (array == 0)).any()
    return str((array.astype(np.int64) if whole and not signed else array).tolist())


def _loss_name(loss: Any) -> str:
    """Return how a loss is written in a line that makes a problem again."""
    return repr(loss) if isinstance(loss, str) else str(getattr(loss, "__name__", repr(loss)))
