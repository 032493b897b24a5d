"""A candidate from a function or a class that is written in a convention of its own.

``adapt`` looks at the names of arguments, attributes or globals, and says what it took each for. It
computes nothing: what is right, and what is said of it, is left to ``reference.compare``.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial, update_wrapper
from typing import Any

from reference.adapting.binding import AdaptError, Call, Given
from reference.adapting.functions import of_function
from reference.adapting.objects import of_class
from reference.names import DECORATIONS
from reference.user_code import IGNORED, the_one_mapping

Names = Mapping[str, str] | Sequence[Mapping[str, str]]


def adapt(
    target: Callable[..., Any] | None = None,
    *,
    names: Names | None = None,
    returns: Sequence[str] = (),
    method: str | Sequence[str] = (),
    layout: str | None = None,
    loss: str | None = None,
    batched: bool | None = None,
    tokens: bool | None = None,
    sizes: Mapping[str, int] | None = None,
) -> Any:
    """Make a candidate out of a function or a class as it is.

    Parameters
    ----------
    target : function or class, optional
        A function of arguments in any order: parameters by the names that people give them, or all
        in one (``params``, ``parameters``), the inputs (``x``, ``xs``, ``inputs``), the target
        (``target``, ``targets``, ``ys``, ``labels``) and the initial state (``h0``, ``hprev``,
        ``a0``). Parameters that are no arguments may be globals of its module. Or a class with the
        parameters as attributes of its objects. Without it, a decorator is returned.
    names : mapping, optional
        What a name stands for that follows no pattern: own names to ours, ``W U b V c`` (or those
        of the cell), ``x``, ``h0``, ``target``, ``params``, or a size, ``D H O``. With several
        mappings in a list, ``params`` is a list of dictionaries with these keys.
    returns : sequence of str, optional
        What the parts of a tuple are that is returned, as in ``reference.compare``.
    method : str or sequence of str, optional
        The method of a class that computes gradients, or several that are called in turn. If it
        returns none, they are those that it leaves in attributes such as ``dWxh``.
    layout, loss, batched, tokens, sizes : optional
        As in ``reference.compare``, which need not be told them again.

    Returns
    -------
    callable
        The candidate, for ``reference.compare`` and ``manual-bptt check module:name``. Where it has
        no place for h0, b or c, these are zero in every problem, and the report says so.

    Raises
    ------
    AdaptError
        If it cannot be told what an argument stands for; the message has what to write.

    Examples
    --------
    >>> import numpy as np, reference
    >>> @reference.adapt(layout="rows", batched=False, returns=("loss", "dWhy", "dby"))
    ... def output_alone(xs, ys, Wxh, Whh, Why, bh, by, hprev):
    ...     h = [hprev]
    ...     for x in xs:
    ...         h.append(np.tanh(x @ Wxh + h[-1] @ Whh + bh))
    ...     error = np.array(h[1:]) @ Why + by - ys
    ...     return (error**2).sum(), np.array(h[1:]).T @ (2 * error), 2 * error.sum(0)
    >>> report = reference.compare(output_alone, cases=5)
    >>> report.passed, [row.gradient for row in report.rows if row.status == "match"]
    (True, ['V', 'c'])
    """
    said: dict[str, Any] = {
        "layout": layout, "loss": loss, "batched": batched, "tokens": tokens, "sizes": sizes,
    }  # fmt: skip
    if target is None:
        return partial(adapt, names=names, returns=returns, method=method, **said)
    if not callable(target):
        raise TypeError(f"target is a {type(target).__name__}; expected a function or a class")
    one = dict(names) if isinstance(names, Mapping) else {}
    several = () if names is None or isinstance(names, Mapping) else tuple(names)
    methods = (method,) if isinstance(method, str) else tuple(method)
    call = (
        of_class(target, one, methods)
        if isinstance(target, type)
        else of_function(target, one, several)
    )
    declared = {k: value for k, value in said.items() if value is not None}
    return Adapted(target, call, several or (one,), tuple(returns), declared | {"zero": call.zero})


class Adapted:
    """A candidate ``(params, x, h0, target)`` that calls something else, and what it declares.

    ``declared`` are options of ``reference.compare``, and by the name ``zero`` what is zero in
    every problem; ``said`` what names were taken for.
    """

    def __init__(
        self,
        target: Callable[..., Any],
        call: Call,
        names: Sequence[Mapping[str, str]],
        returns: tuple[str, ...],
        declared: dict[str, Any],
    ) -> None:
        update_wrapper(self, target, updated=())
        self.__code__ = getattr(target, "__code__", None)
        self.declared, self._call, self._names, self._returns = declared, call, names, returns

    @property
    def said(self) -> dict[str, str]:
        """What the names of arguments were taken for, as notes by what they are about."""
        told = {k for names in self._names for k in names}
        taken = {k: v for k, v in self._call.taken.items() if k != v and k not in told}
        words = ", ".join(f"{k} is {v}" for k, v in taken.items())
        return {"read arguments": f"assumed: {words}"} if words else {}

    def __call__(self, params: Any, x: Any, h0: Any, target: Any) -> Any:
        """Call what was adapted; parts of a tuple, and names that were told, become ours."""
        found = self._call(Given(params, x, h0, target))
        of_names = isinstance(found, Mapping) or hasattr(found, "_asdict")
        if not of_names and isinstance(found, tuple | list):
            found = self._of_parts(found)
        if isinstance(found, Mapping):
            return {_ours(k, self._names[0]): part for k, part in found.items()}
        return found

    def _of_parts(self, found: Sequence[Any]) -> Any:
        """Return what the parts of a tuple or a list are, by name."""
        if self._returns:
            if len(found) != len(self._returns):
                parts = f"{len(found)} parts; returns names {len(self._returns)}"
                raise TypeError(f"the candidate returned {parts}")
            pairs = zip(self._returns, found, strict=True)
            return {k: part for k, part in pairs if k not in IGNORED}
        if not all(isinstance(part, Mapping) for part in found):
            return the_one_mapping(found)
        names = self._names if len(self._names) == len(found) else [self._names[0]] * len(found)
        both = zip(found, names, strict=True)
        return _together([{_ours(k, own): v for k, v in part.items()} for part, own in both])


def _ours(name: Any, names: Mapping[str, str]) -> Any:
    """Return our name for a gradient, if that of its parameter was told."""
    before, after = DECORATIONS
    for own, ours in names.items():
        if re.fullmatch(f"(?:{before})?{re.escape(own)}(?:{after})?", str(name)):
            return ours
    return name


def _together(parts: Sequence[Mapping[Any, Any]]) -> dict[Any, Any]:
    """Return the dictionaries of a list as one."""
    found: dict[Any, Any] = {}
    for part in parts:
        again = ", ".join(map(repr, found.keys() & part.keys()))
        if again:
            raise TypeError(
                f"{again} is in several of the dictionaries that were returned; expected each "
                "gradient once, summed over the steps"
            )
        found |= part
    return found


__all__ = ["AdaptError", "Adapted", "adapt"]
