"""How often is a mistake named? python docs/naming.py, which writes into trust.md.

For each loss of tests/faults: the faults written by hand, without regard to what can be found;
breaks drawn at random from the list of the search; and gradients that are wrong by noise, of which
none may get a name. A name is of the right line if it, or one that cannot be told from it, is about
a line that the fault is about.
"""

import argparse
import inspect
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import jax
import numpy as np
from markers import measured, table, write_part

import reference
from reference.breaks.diagnosis import LeafDiagnosis
from reference.breaks.kinds import breaks
from reference.breaks.kinds.free import FROM_HERE
from reference.breaks.kinds.site import Break
from reference.breaks.reverse import reverse
from reference.breaks.search import search
from reference.breaks.tape import Program, Tape
from reference.breaks.words import mistake

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
from faults import modules

EXACT = 1e-12  # of the largest entry: the tolerance where both gradients come off one tape
NOTICEABLE = 1e-6  # of the largest entry: a smaller change is none


class Case:
    """A loss at some arguments, and what is right there."""

    def __init__(self, module: Any) -> None:
        arguments = module.arguments(np.random.default_rng(0))
        leaves, tree = jax.tree.flatten(arguments)
        moving = [i for i, a in enumerate(leaves) if np.asarray(a).dtype.kind == "f"]
        self.number = len(jax.tree.leaves(arguments[0]))
        self.values = [np.asarray(leaves[i], float) for i in moving]

        def loss(values: list[Any]) -> Any:
            mixed = dict(enumerate(leaves)) | dict(zip(moving, values, strict=True))
            return module.loss(*jax.tree.unflatten(tree, [mixed[i] for i in range(len(leaves))]))

        self.loss = loss
        self.program = Program.of(loss, self.values, self.number)
        self.tape = Tape(self.program, self.values)

    def gradient(self, values: list[np.ndarray], *edits: Any) -> list[np.ndarray]:
        """Return the gradient, or that of a reverse pass with edits."""
        return [g[0] for g in reverse(Tape(self.program, values), [edits])[: self.number]]

    def searched(self, gradient: Callable[[list[np.ndarray]], Any]) -> tuple[Any, float]:
        """Return what is found of a gradient, and the seconds it takes."""

        def measure(values: list[np.ndarray]) -> list[tuple[np.ndarray, np.ndarray]]:
            right = self.gradient(values)
            return [(g, np.full(g.shape, EXACT * np.abs(g).max(initial=0))) for g in right]

        began, rng = time.perf_counter(), np.random.default_rng(1)
        found = search(self.loss, self.values, gradient, measure, 0.0, np.dtype(float), rng)
        return found, time.perf_counter() - began


def by_hand(module: Any) -> Counter[str]:
    """Count the faults written by hand, those that are named, and those with the right line."""
    count: Counter[str] = Counter()
    source, first = inspect.getsourcelines(module.loss)
    arguments = module.arguments(np.random.default_rng(0))
    for name, fault in module.FAULTS.items():
        report = reference.check_gradient(module.loss, partial(module.gradient, name), *arguments)
        about = {first + i for i, text in enumerate(source) if any(f in text for f in fault.lines)}
        kind = "pairs" if fault.pair else "faults"
        named = bool(report.diagnosis and report.diagnosis.explanations)
        lines = set(report.diagnosis.lines_of_loss()) if named else set()
        count[kind] += 1
        count[f"{kind} named"] += named
        count[f"{kind} placed"] += named and any(FROM_HERE in n for n in report.diagnosis.names)
        count[f"{kind} with line"] += named and (bool(lines & about) or not about)
    return count


def drawn(case: Case, many: int, rng: np.random.Generator) -> tuple[Counter[str], list[float]]:
    """Count breaks drawn at random that change anything, and those that are named."""
    every = list(breaks(case.tape, 0))
    right, count, seconds = case.gradient(case.values), Counter[str](), []
    labels = [f"argument {i}" for i in range(len(case.values))]
    for number in rng.permutation(len(every)):
        broken: Break = every[number]
        gradient = partial(_with_edits, case, broken.edits)
        wrong = gradient(case.values)
        if not all(np.isfinite(w).all() for w in wrong) or not _differ(wrong, right):
            continue
        found, taken = case.searched(gradient)
        seconds.append(taken)
        said = LeafDiagnosis.of(found, (), labels)
        line = mistake(case.tape, broken, labels).line
        lines = [{m.line for m in mistakes} for mistakes in said.explanations]
        count["breaks"] += 1
        count["breaks with line"] += any(line in some for some in lines)
        count["breaks with line alone"] += bool(lines) and all(some == {line} for some in lines)
        if count["breaks"] == many:
            break
    return count, seconds


def _with_edits(case: Case, edits: Any, values: list[np.ndarray]) -> list[np.ndarray]:
    return case.gradient(values, *edits)


def _differ(wrong: list[np.ndarray], right: list[np.ndarray]) -> bool:
    return any(
        np.abs(w - r).max(initial=0) > NOTICEABLE * np.abs(r).max(initial=0)
        for w, r in zip(wrong, right, strict=True)
    )


def noisy(case: Case, many: int, rng: np.random.Generator) -> Iterator[bool]:
    """Yield whether a gradient that is wrong by noise gets a name.

    The noise is in one leaf or in all of them; in every entry, in some, or in one.
    """
    for _ in range(many):
        chosen = range(case.number) if rng.random() < 0.2 else [rng.integers(case.number)]
        size, part = 10.0 ** rng.integers(-6, 1), rng.choice([0.0, 0.3, 1.0])
        noise = {}
        for i in chosen:
            shape = case.values[i].shape
            noise[i] = size * rng.standard_normal(shape) * (rng.random(shape) < part)
            noise[i].flat[rng.integers(noise[i].size)] = size * rng.uniform(0.1, 1)

        def gradient(values: list[np.ndarray], noise: dict[int, np.ndarray] = noise) -> Any:
            return [g + noise.get(i, 0.0) for i, g in enumerate(case.gradient(values))]

        yield bool(case.searched(gradient)[0].explanations)


def of_loss(name: str, many: int, noise: int) -> tuple[Counter[str], list[float]]:
    """Return the counts for one loss, and the seconds of each search."""
    module = dict(modules())[name]
    with np.errstate(all="ignore"):
        count = by_hand(module)
        case, rng = Case(module), np.random.default_rng(2)
        more, seconds = drawn(case, many, rng)
        count += more
        count["noise"] = noise
        count["noise named"] = sum(noisy(case, noise, rng))
    return count, seconds


def main() -> None:
    """Measure, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--breaks", type=int, default=400, help="drawn for each loss")
    parser.add_argument("--noise", type=int, default=100, help="gradients wrong by noise, for each")
    arguments = parser.parse_args()
    rows, total, times = [], Counter[str](), []
    of_one = partial(of_loss, many=arguments.breaks, noise=arguments.noise)
    names = [name for name, _ in modules()]
    with ProcessPoolExecutor(mp_context=get_context("spawn")) as processes:
        for name, (count, seconds) in zip(names, processes.map(of_one, names), strict=True):
            rows.append(_row(name, count, seconds))
            total, times = total + count, times + seconds
            print(*rows[-1], sep=" | ", flush=True)
    rows.append(_row("all", total, times))
    header = (
        "loss",
        "faults",
        "named",
        "by place",
        "right line",
        "pairs",
        "breaks",
        "alone",
        "noise",
        "median",
    )
    command = f"python docs/naming.py --breaks {arguments.breaks} --noise {arguments.noise}"
    write_part("naming", "\n".join(table(header, rows)), measured=measured(command, "jax"))


def _row(name: str, count: Counter[str], seconds: list[float]) -> tuple[str, ...]:
    return (
        name,
        str(count["faults"]),
        str(count["faults named"]),
        str(count["faults placed"]),
        str(count["faults with line"]),
        f"{count['pairs named']} of {count['pairs']}",
        f"{count['breaks with line']} of {count['breaks']}",
        str(count["breaks with line alone"]),
        f"{count['noise named']} of {count['noise']}",
        f"{np.median(seconds):.2f} s, at most {max(seconds):.1f} s",
    )


if __name__ == "__main__":
    main()
