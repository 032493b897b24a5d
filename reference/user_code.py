"""Loading and calling a function that is not ours, here or in a process of its own.

Run as a script this is the process that ``reference.judging.processes`` starts: it imports the
function and answers calls until its input ends. So the file needs nothing but NumPy, and knows
nothing of the answers that the function is judged by. What goes through the pipes is JSON and the
bytes of arrays: whatever an untrusted process writes, reading it runs no code.
"""

import ctypes
import faulthandler
import inspect
import json
import os
import re
import signal
import struct
import sys
import threading
import warnings
from collections import namedtuple
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from functools import cache
from importlib import import_module
from importlib.util import module_from_spec, spec_from_file_location
from io import StringIO
from pathlib import Path
from traceback import walk_tb
from types import ModuleType
from typing import Any, BinaryIO, NamedTuple

import numpy as np

Arrays = dict[str, np.ndarray]
NOT_PARAMETERS = frozenset(("x", "h0", "target"))
IGNORED = frozenset(("_", "loss"))  # parts of a tuple that are no gradients
ALONE: Mapping[str, Any] = {}  # everything is an array by itself

# OpenBLAS 0.3.31, in NumPy 2.4.2 to 2.4.6, makes NumPy warn so on finite numbers now and then.
_INVALID_PRODUCT = re.compile("invalid value encountered in (matmul|dot|matvec|vecmat|vecdot)$")


class Parameters(NamedTuple):
    """W (H, H), U (H, D), b (H,), V (O, H), c (O,)."""

    W: np.ndarray
    U: np.ndarray
    b: np.ndarray
    V: np.ndarray
    c: np.ndarray


@cache
def parameters_type(names: tuple[str, ...]) -> Any:
    """Return the type of parameters with these names."""
    return Parameters if names == Parameters._fields else namedtuple("Parameters", names)


class LoadError(Exception):
    """There is no such function, or importing it fails; the text is one line."""


class OutOfTimeError(BaseException):
    """Ends a call; no ``except Exception`` of the function's own holds it up."""


class Outcome(NamedTuple):
    """What one call gave.

    ``values`` are what was returned under the names that were asked for: an array of real numbers,
    or what came instead of one, in words. ``others`` are the names of what else was returned,
    ``failure`` says why nothing was. ``notes`` are on manners, by what they are about.
    """

    values: dict[str, np.ndarray | str]
    others: tuple[str, ...]
    failure: str
    notes: dict[str, str]


# Trees: the arrays of a state that has several --------------------------------------------------


def places(tree: Any, like: Any) -> Iterator[tuple[str, Any]]:
    """Yield what stands in tuples and mappings, each by its place, as in another tree.

    Raises ValueError where the two are not arranged alike.

    Examples
    --------
    >>> dict(places((1, {"s": 2}), ("H", {"s": "H"})))
    {'[0]': 1, "[1]['s']": 2}
    """
    if not isinstance(like, Mapping | list | tuple):
        yield "", tree
        return
    named = isinstance(like, Mapping)
    keys = list(like) if named else list(range(len(like)))
    if isinstance(tree, Mapping) if named else isinstance(tree, list | tuple):
        of = {*tree} if named else {*range(len(tree))}
        if of == {*keys}:
            for k in keys:
                for place, leaf in places(tree[k], like[k]):
                    yield f"[{k!r}]{place}", leaf
            return
    expected = f"a mapping of {' '.join(map(str, keys))}" if named else f"a tuple of {len(keys)}"
    kind = type(tree).__name__
    came = f"{kind} of {len(tree)}" if isinstance(tree, Mapping | list | tuple) else kind
    raise ValueError(f"expected {expected}, got {came}")


def arranged(like: Any, arrays: Mapping[str, Any], name: str = "") -> Any:
    """Return arrays in tuples and mappings as another tree has them, from those by place.

    Examples
    --------
    >>> arranged(("H", "H"), {"h0[0]": 1, "h0[1]": 2}, "h0")
    (1, 2)
    """
    if isinstance(like, str):
        return arrays[name]
    if isinstance(like, Mapping):
        return {k: arranged(part, arrays, f"{name}[{k!r}]") for k, part in like.items()}
    return tuple(arranged(part, arrays, f"{name}[{i}]") for i, part in enumerate(like))


# Words -------------------------------------------------------------------------------------------


def printable(text: str) -> str:
    """Return text in one line, with control characters spelled out."""
    joined = " ".join(text.split())
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in joined)


def short(text: str, most: int = 80) -> str:
    """Return text in one line, and not more of it than this."""
    line = printable(text[: 4 * most])
    return line if len(line) <= most else f"{line[:most]}..."


def in_words(error: BaseException) -> str:
    """Return the kind of an error and what it says, in one line."""
    kind = short(type(error).__name__)
    try:
        said = short(str(error), 300)
    except Exception:  # an error that cannot even be printed
        said = ""
    return f"{kind}: {said}" if said else kind


def _where(error: BaseException, file: str | None) -> str:
    """Return the last line of a file that an error passed, if it did."""
    passed = [(f.f_code.co_filename, line) for f, line in walk_tb(error.__traceback__)]
    lines = [line for name, line in passed if name == file]
    return f" (line {lines[-1]} of {short(Path(str(file)).name)})" if lines else ""


# Calling -----------------------------------------------------------------------------------------


class Runner:
    """Calls a function with arrays, as a training loop would.

    Where the arrays have the shapes of the call before, they are the same objects, filled anew.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function
        self._arrays: Arrays = {}
        self._params: Any = None

    @property
    def declared(self) -> dict[str, Any]:
        """What a function says of its own convention, as ``reference.adapt`` makes it do."""
        return said_by(self.function, "declared")

    @property
    def importable(self) -> tuple[str, tuple[str, ...]]:
        """A name for the function, and how it is imported, if it can be."""
        return importable(self.function)

    def restart(self) -> bool:
        """Forget earlier calls, if that can be done; return whether it was."""
        return False

    def __call__(
        self,
        arrays: Arrays,
        wanted: Iterable[str],
        seconds: float | None = None,
        trees: Mapping[str, Any] = ALONE,
        like: str = "",
        order: Sequence[str] = (),
    ) -> Outcome:
        """Call the function, and read what it returns under the names that are wanted.

        Wanted is also what matches the regular expression ``like``. ``trees`` say how what has
        several arrays is arranged, ``order`` what the parts of a tuple are. Raises OutOfTimeError
        after ``seconds``, where a timer can be had.
        """
        own, notes = self._filled(arrays), dict[str, str]()
        h0, target = (arranged(trees.get(k, "array"), own, k) for k in ("h0", "target"))
        values: dict[str, np.ndarray | str] = {}
        others: tuple[str, ...] = ()
        failure = ""
        try:
            with _watched(seconds, notes):
                found = self.function(self._params, own["x"], h0, target)
                found = _named(found, order, self._params)
                values, others = _by_name(found, frozenset(wanted), trees, like)
        except (Exception, SystemExit) as error:  # user code may raise anything
            code = getattr(self.function, "__code__", None)
            failure = in_words(error) + _where(error, getattr(code, "co_filename", None))
        notes |= said_by(self.function, "said")
        for k, original in arrays.items():
            if not np.array_equal(own[k], original):
                notes[f"writes {k}"] = f"the candidate writes to its input {k}"
        return Outcome(values, others, failure, notes)

    def _filled(self, arrays: Arrays) -> Arrays:
        """Return copies of the arrays, in those of the call before where they fit."""
        fit = arrays.keys() == self._arrays.keys() and all(
            (own.shape, own.dtype, own.flags.writeable) == (arrays[k].shape, arrays[k].dtype, True)
            for k, own in self._arrays.items()
        )
        if fit:
            for k, own in self._arrays.items():
                np.copyto(own, arrays[k])
        else:
            self._arrays = {k: a.copy() for k, a in arrays.items()}
            names = tuple(k for k in arrays if k.partition("[")[0] not in NOT_PARAMETERS)
            self._params = parameters_type(names)(*(self._arrays[k] for k in names))
        return self._arrays


def said_by(function: Any, name: str) -> dict[str, Any]:
    """Return what ``reference.adapt`` has made a function say by this name, if it did."""
    found = getattr(function, name, None)
    return found if isinstance(found, dict) else {}


def said_to_print(text: str) -> str:
    """Return a note that a candidate has printed a text."""
    return f"the candidate prints, and it is not shown: {short(text.splitlines()[0])!r}"


@contextmanager
def _watched(seconds: float | None, notes: dict[str, str]) -> Iterator[None]:
    """Run user code in the body: with an alarm, and note what it prints and warns of."""
    if threading.current_thread() is not threading.main_thread():
        yield  # streams, warnings and signals belong to the whole process
        return
    printed = StringIO()
    with (
        redirect_stdout(printed),
        redirect_stderr(printed),
        warnings.catch_warnings(record=True) as warned,
    ):
        warnings.simplefilter("always")
        try:
            with _alarm(seconds):
                yield
        finally:
            if text := printed.getvalue().strip():
                notes["prints"] = said_to_print(text)
            telling = [w for w in warned if not _INVALID_PRODUCT.match(str(w.message))]
            if warned:
                first, about = (telling or warned)[0], "warns" if telling else "warns of a product"
                said = f"{first.category.__name__}: {first.message}"
                notes[about] = f"the candidate warns: {short(said.splitlines()[0])}"


@contextmanager
def _alarm(seconds: float | None) -> Iterator[None]:
    """Raise OutOfTimeError in the body after ``seconds``, where a timer can be had."""
    free = hasattr(signal, "setitimer") and signal.getitimer(signal.ITIMER_REAL)[0] == 0
    if seconds is None or not free:
        yield
        return

    def ring(*_: object) -> None:
        raise OutOfTimeError

    before = signal.signal(signal.SIGALRM, ring)
    try:
        signal.setitimer(signal.ITIMER_REAL, seconds)
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _named(found: Any, order: Sequence[str], params: Any) -> Mapping[Any, Any]:
    """Return what was returned by its names; those of a tuple are told by its order."""
    _require_returned(found)
    if hasattr(found, "_asdict"):
        found = found._asdict()
    if isinstance(found, tuple | list) and not order:
        found = the_one_mapping(found)
    if isinstance(found, Mapping):
        return found
    if not isinstance(found, tuple | list):
        kind = type(found).__name__
        raise TypeError(f"the candidate returned a {kind}; expected a mapping or a namedtuple")
    if not order:
        raise TypeError(
            f"the candidate returned a {type(found).__name__}; expected a mapping or a namedtuple, "
            f"or what is in it: returns=({', '.join(_guesses(found, params))})"
        )
    if len(found) != len(order):
        raise TypeError(f"the candidate returned {len(found)} parts; returns names {len(order)}")
    return {k: value for k, value in zip(order, found, strict=True) if k not in IGNORED}


def the_one_mapping(found: Sequence[Any]) -> Any:
    """Return the only mapping in a tuple such as (loss, gradients), or the tuple as it is."""
    mappings = [part for part in found if isinstance(part, Mapping)]
    return mappings[0] if len(mappings) == 1 else found


def _guesses(found: Sequence[Any], params: Any) -> Iterator[str]:
    """Yield, for each part of a tuple, the gradients whose shape it has, in quotes."""
    for value in found:
        shape = getattr(value, "shape", ())
        fit = [f"d{k}" for k, p in params._asdict().items() if p.shape == shape]
        yield repr(" or ".join(fit) or ("loss" if shape == () else "_"))


def _by_name(
    found: Mapping[Any, Any], wanted: frozenset[str], trees: Mapping[str, Any], like: str
) -> tuple[dict[str, np.ndarray | str], tuple[str, ...]]:
    """Return what was returned under the names that are wanted, and the other names."""
    values: dict[str, np.ndarray | str] = {}
    others = []
    for k, value in found.items():
        if isinstance(k, str) and (k in wanted or re.fullmatch(like, k)):
            if value is not None:
                values |= _arrays_of(str(k), value, trees.get(k, "array"))
        elif value is not None:
            others.append(short(repr(k)))
    return values, tuple(others)


def _arrays_of(name: str, value: Any, tree: Any) -> dict[str, np.ndarray | str]:
    """Return the arrays of what was returned under a name, or in words what it is instead."""
    try:
        return {f"{name}{place}": as_array(array) for place, array in places(value, tree)}
    except ValueError as error:
        return {name: str(error)}


def _require_returned(found: Any) -> None:
    """Refuse what only looks like a call of the function."""
    if inspect.iscoroutine(found):
        found.close()  # so that nobody complains that it was never awaited
        raise TypeError("the candidate is an async function, and returned a coroutine")
    if inspect.isgenerator(found):
        raise TypeError("the candidate has a yield, and returned a generator")


def as_array(value: Any) -> np.ndarray | str:
    """Return a copy of real numbers as an array, or what it is instead."""
    if isinstance(value, np.ma.MaskedArray):
        return "a masked array"
    try:
        array = np.array(value)
    except Exception as error:  # such as a tensor that keeps its graph
        return in_words(error)
    return array if array.dtype.kind in "fiu" else f"an array of {short(str(array.dtype))}"


# Loading -----------------------------------------------------------------------------------------


def load_function(place: str) -> Callable[..., Any]:
    """Return the function at module:function, or in a file at path/to/file.py:function."""
    found = load(place)
    if not callable(found):
        raise LoadError(f"{place} is a {type(found).__name__}; expected a function")
    return found  # type: ignore[no-any-return]


def load(place: str) -> Any:
    """Return what has a name in a module, or in a file."""
    source, colon, name = place.rpartition(":")
    if not (colon and source and name):
        raise LoadError(f"{place!r}: expected module:function or path/to/file.py:function")
    found: Any = _load_file(Path(source)) if source.endswith(".py") else _load_module(source)
    for part in name.split("."):
        try:
            found = getattr(found, part)
        except AttributeError:
            raise LoadError(f"{source} has no {name!r}{_instead(found)}") from None
    return found


def _instead(module: Any) -> str:
    """Return the functions that a module has of its own."""
    own = getattr(module, "__name__", None)
    names = [
        k
        for k, v in vars(module).items()
        if callable(v) and getattr(v, "__module__", None) == own and not k.startswith("_")
    ]
    return f"; it has {', '.join(names[:8])}" if names else ""


def _load_module(name: str) -> ModuleType:
    """Import a module, one in the current folder too."""
    sys.path.insert(0, str(Path.cwd()))
    try:
        return _run(lambda: import_module(name), name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{name}.".startswith(f"{error.name}."):
            raise LoadError(f"importing {name} failed: {error}") from None
        raise LoadError(f"there is no module {name!r} here or among those installed") from None


def _load_file(path: Path) -> ModuleType:
    """Run a file as a module of its own, which may import its neighbours."""
    if not path.is_file():
        raise LoadError(f"there is no file {str(path)!r}")
    name = path.stem if path.stem not in sys.modules else f"candidate_{path.stem}"
    spec = spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise LoadError(f"{str(path)!r} cannot be imported")
    module = module_from_spec(spec)
    sys.modules[name] = module
    sys.path.insert(0, str(path.resolve().parent))
    loader = spec.loader

    def execute() -> ModuleType:
        loader.exec_module(module)
        return module

    try:
        return _run(execute, str(path))
    except ModuleNotFoundError as error:
        raise LoadError(f"importing {path} failed: {error}") from None


def _run(load: Callable[[], ModuleType], name: str) -> ModuleType:
    """Run a module; what it prints goes to stderr, what it raises becomes one line."""
    try:
        with redirect_stdout(sys.stderr):
            return load()
    except ModuleNotFoundError:
        raise
    except (Exception, SystemExit) as error:
        frames = [(f.f_code.co_filename, line) for f, line in walk_tb(error.__traceback__)]
        file, line = frames[-1]
        where = f"line {line} of {Path(file).name}"
        raise LoadError(f"importing {name} failed: {in_words(error)} ({where})") from None


def importable(function: Any) -> tuple[str, tuple[str, ...]]:
    """Return a name for a function, and how it is imported, if it can be."""
    module, name = getattr(function, "__module__", ""), getattr(function, "__name__", "")
    known = getattr(sys.modules.get(module), name, None) is function and module != "__main__"
    shown = name if name.isidentifier() else "candidate"
    return shown, ((f"from {module} import {name}",) if known else ())


# Messages: two lengths, JSON, and the bytes of arrays --------------------------------------------

LENGTHS = struct.Struct(">QQ")
SENDABLE = re.compile(r"[<>|][fiu](1|2|4|8|16)")


def send(stream: BinaryIO, message: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> None:
    """Write a message with arrays by name."""
    kinds = [(k, a.dtype.str, a.shape) for k, a in arrays.items()]
    text = json.dumps({**message, "arrays": kinds}).encode()
    data = b"".join(a.tobytes() for a in arrays.values())
    stream.write(LENGTHS.pack(len(text), len(data)) + text + data)
    stream.flush()


def receive(stream: BinaryIO, most: int) -> tuple[dict[str, Any], Arrays]:
    """Read a message of ``most`` bytes at most.

    Raises EOFError at the end of the stream, and ValueError if it is no message.
    """
    text_length, length = LENGTHS.unpack(_exactly(stream, LENGTHS.size))
    if text_length + length > most:
        raise ValueError(f"a message of {text_length + length} bytes")
    message = json.loads(_exactly(stream, text_length))
    data, arrays, start = _exactly(stream, length), Arrays(), 0
    for k, kind, shape in message["arrays"]:
        if not SENDABLE.fullmatch(kind) or not all(type(n) is int and n >= 0 for n in shape):
            raise ValueError(f"an array of {kind!r} and shape {shape!r}")
        dtype = np.dtype(kind)
        end = start + dtype.itemsize * int(np.prod(shape, dtype=object))
        arrays[k] = np.frombuffer(data[start:end], dtype).reshape(shape)
        start = end
    return message, arrays


def _exactly(stream: BinaryIO, length: int) -> bytes:
    found = stream.read(length)
    if len(found) < length:
        raise EOFError
    return found


# The process -------------------------------------------------------------------------------------


def serve() -> None:
    """Load a function and answer calls, until there are no more.

    Calls come in on stdin and answers go out on stdout. The function gets neither: what it reads is
    empty, and all that it prints goes to stderr.
    """
    requests, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(2, 1)
    _end_with_parent()
    faulthandler.enable()
    most = sys.maxsize
    message, _ = receive(requests, most)
    try:
        runner = Runner(load_function(message["place"]))
        loaded: dict[str, Any] = {"importable": runner.importable, "declared": runner.declared}
    except LoadError as error:
        loaded = {"refused": str(error)}
    sys.stdout.flush()
    sys.stderr.flush()
    os.write(2, message["mark"].encode())
    send(answers, loaded, {})
    while True:
        try:
            message, arrays = receive(requests, most)
        except EOFError:
            return
        options = {k: message[k] for k in ("trees", "like", "order")}
        outcome = runner(arrays, message["wanted"], **options)
        words = {k: v for k, v in outcome.values.items() if isinstance(v, str)}
        found = {k: v for k, v in outcome.values.items() if not isinstance(v, str)}
        answer = {**outcome._asdict(), "values": words, "call": message["call"]}
        send(answers, answer, found)


def _end_with_parent() -> None:
    """Have the system end this process with its parent, whatever it is doing then."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


if __name__ == "__main__":
    serve()
