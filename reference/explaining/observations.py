"""What can be seen of a wrong gradient that no known mistake explains.

Is it zero, or a multiple of the right one, and of what size? Does it differ by a multiple of the
parameter itself, or as coarser arithmetic does? Which entries are wrong: a row, a column, the
diagonal, a sequence?
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from itertools import product
from math import prod

import numpy as np

from reference.arrays import root
from reference.explaining.diagnosis import Evidence
from reference.explaining.resemblance import (
    coarse,
    coarse_numbers,
    coarse_products,
    factor,
    half_the_digits,
    in_coarse_products,
)
from reference.rounding.tolerance import over_tolerance

NEARLY = 1e-3  # a factor so near 1 is no factor but an error of a certain size
SEVERAL = 3  # problems, before a pattern in the entries is taken for one
# Names of the axes of each gradient, as a sentence has them.
AXES = {
    "W": ("row", "column"),
    "U": ("row", "column"),
    "V": ("row", "column"),
    "b": ("unit",),
    "c": ("output",),
    "x": ("step", "sequence", "input"),
    "h": ("step", "sequence", "unit"),
    "h0": ("sequence", "unit"),
}


def observations(names: Iterable[str], evidence: list[Evidence]) -> list[str]:
    """Return a line on each of these gradients of which something can be said."""
    said = {}
    for k, seen_of_it in _by_array(names, evidence):
        wrong = [e for e in seen_of_it if e.ratio.get(k, 0) > 1]
        if not wrong:
            continue
        seen = (look(k, wrong) for look in (_zero, _multiple, _decay, _arithmetic, _entries))
        text = next((text for text in seen if text), "")
        partly = any(e.ratio.get(k, 2) <= 1 for e in seen_of_it)
        said[k] = f"{text}, where it is wrong" if text and partly else text or _size(k, wrong)
    return grouped(said)


def _by_array(
    names: Iterable[str], evidence: list[Evidence]
) -> Iterator[tuple[str, list[Evidence]]]:
    """Yield each gradient with the evidence, array by array where it has several."""
    for k in names:
        found: dict[str, list[Evidence]] = {}
        for e in evidence:
            if k in e.returned:
                arrays = (e.problem.by_array(k, a) for a in (e.returned[k], *e.truth[k]))
                returned, truth, bound = arrays
                for name, array in returned.items():
                    right = {name: (truth[name], bound[name])}
                    one = Evidence.of(e.problem, {name: array}, right)
                    found.setdefault(name, []).append(one)
        yield from found.items()


def grouped(said: Mapping[str, str]) -> list[str]:
    """Return one line for all the gradients of which the same is said."""
    together: dict[str, list[str]] = {}
    for k, text in said.items():
        if text:
            together.setdefault(text, []).append(k)
    return [f"{' '.join(names)}: {text}" for text, names in together.items()]


def _zero(name: str, wrong: list[Evidence]) -> str:
    return "zero" if all(not e.returned[name].any() for e in wrong) else ""


def _multiple(name: str, wrong: list[Evidence]) -> str:
    """Say by which factor a gradient is off, if one factor serves all of its entries."""
    ratios = [_ratio(e.returned[name], e.truth[name][0], e) for e in wrong]
    found = [r for r in ratios if r is not None]
    if len(found) < len(ratios) or all(abs(r - 1) < NEARLY for r in found):
        return ""
    if all(_same(r, found[0], e) for r, e in zip(found, wrong, strict=True)):
        return f"{found[0]:.6g} times the right answer"
    for text, of_sizes in _factors():
        if all(_same(r, of_sizes(e.problem.sizes), e) for r, e in zip(found, wrong, strict=True)):
            return f"{text} times the right answer"
    if all(e.returned[name].size == 1 for e in wrong):
        return ""  # as one number is of any other
    return (
        f"a multiple of the right answer, but not the same in all problems: {min(found):.3g} to "
        f"{max(found):.3g} times"
    )


def _factors() -> Iterator[tuple[str, Callable[[Mapping[str, int]], float]]]:
    """Yield what people multiply or divide by: one or two sizes or their root, and a number."""
    numbers = (("", 1.0), ("-", -1.0), ("2 ", 2.0), ("1/2 ", 0.5))
    powers = (("{}", 1.0), ("1/{}", -1.0), ("sqrt({})", 0.5), ("1/sqrt({})", -0.5))
    for letters in (*"TBDHO", "TB", "TO", "BO", "TBO"):
        spelled = letters if len(letters) == 1 else f"({' '.join(letters)})"
        for (sign, number), (form, power) in product(numbers, powers):
            text = sign + form.format(spelled).replace("((", "(").replace("))", ")")
            yield text, partial(_factor, letters=letters, number=number, power=power)


def _factor(sizes: Mapping[str, int], letters: str, number: float, power: float) -> float:
    size: float = prod(sizes.get(k, 1) for k in letters) ** power
    return number * size


def _ratio(returned: np.ndarray, truth: np.ndarray, e: Evidence) -> float | None:
    return factor(returned, truth, e.problem.dtype)


def _same(a: float, b: float, e: Evidence) -> bool:
    """Return whether two ratios are the same in half of the digits."""
    return bool(abs(a - b) <= half_the_digits(e.problem.dtype) * abs(b))


def _decay(name: str, wrong: list[Evidence]) -> str:
    """Say whether the error is a multiple of the parameter itself."""
    if name not in wrong[0].problem.cell.fields:
        return ""
    found = []
    for e in wrong:
        error = e.returned[name] - e.truth[name][0]
        found.append(_ratio(error, getattr(e.problem.params, name).astype(np.float64), e))
    multiples = [r for r in found if r is not None]
    one = len(multiples) == len(found) and np.ptp(multiples) <= 1e-3 * abs(multiples[0])
    return f"off by {multiples[0]:.3g} times {name}: a weight decay?" if one else ""


def _arithmetic(name: str, wrong: list[Evidence]) -> str:
    """Say to which format numbers, or the factors of products, have been rounded."""
    if not all(coarse(e.returned[name], e.truth[name][0]) for e in wrong):
        return ""
    texts = {coarse_numbers(e.returned[name]) for e in wrong}
    if texts == {""}:
        texts = {_products(name, e) for e in wrong[:2]}  # each shape is compiled
    return texts.pop() if len(texts) == 1 else ""


def _products(name: str, e: Evidence) -> str:
    k = root(name)
    rounded = {
        kind: e.problem.by_array(k, found[k])[name]
        for kind, found in in_coarse_products(e.problem).items()
    }
    return coarse_products(e.returned[name], e.truth[name][0], rounded)


def _entries(name: str, wrong: list[Evidence]) -> str:
    """Say which entries alone are wrong, if it is the same ones in every problem of several."""
    if len(wrong) < SEVERAL:
        return ""
    where = [
        over_tolerance(e.returned[name] - e.truth[name][0], e.truth[name][1]) > 1 for e in wrong
    ]
    for text, pattern in _patterns(name, single="B" not in wrong[0].problem.sizes):
        masks = [pattern(mask.shape) for mask in where]
        telling = any(0 < m.sum() < m.size and not m.all() for m in masks)
        inside = all((mask <= m).all() for mask, m in zip(where, masks, strict=True))
        if telling and inside and all(m.any() for m in where):
            return text
    return ""


def _patterns(
    name: str, *, single: bool
) -> Iterator[tuple[str, Callable[[tuple[int, ...]], np.ndarray]]]:
    """Yield parts of an array in which alone it is wrong, the smallest first, and words for it."""
    axes = [a for a in AXES.get(root(name), ()) if not (single and a == "sequence")]
    if name == "W":
        yield "wrong only on the diagonal", _diagonal
    for axis, what in enumerate(axes):
        first = 1 if what == "step" and name == "x" else 0
        for text, place in ((f"{what} {first}", 0), (f"the last {what}", -1)):
            yield f"wrong only in {text}", partial(_part, axis=axis, place=place)
    if name == "W":
        yield "right on the diagonal, wrong elsewhere", lambda shape: ~_diagonal(shape)
    for axis, what in enumerate(axes):
        for text, place in ((f"the first {what}", 0), (f"the last {what}", -1)):
            yield f"right in {text}, wrong elsewhere", partial(_rest, axis=axis, place=place)


def _diagonal(shape: tuple[int, ...]) -> np.ndarray:
    return np.equal.outer(np.arange(shape[0]), np.arange(shape[1]))


def _part(shape: tuple[int, ...], axis: int, place: int) -> np.ndarray:
    """Return True at one place of one axis."""
    mask = np.zeros(shape, bool)
    mask[(slice(None),) * axis + (place,)] = True
    return mask


def _rest(shape: tuple[int, ...], axis: int, place: int) -> np.ndarray:
    """Return True everywhere else."""
    return ~_part(shape, axis, place)


def _size(name: str, wrong: list[Evidence]) -> str:
    """Say how large the error is, if it is small."""
    worst = 0.0
    for e in wrong:
        truth = e.truth[name][0]
        scale = float(np.abs(truth).max()) or 1.0
        worst = max(worst, float(np.abs(e.returned[name] - truth).max()) / scale)
    if worst > 1e-3:
        return ""
    float32 = float(np.finfo(np.float32).eps)
    single = wrong[0].problem.dtype == np.float64 and float32 / 100 < worst < 100 * float32
    hint = ", as if something were computed in float32" if single else ""
    return f"off by at most {worst:.1e} of the largest entry{hint}"
