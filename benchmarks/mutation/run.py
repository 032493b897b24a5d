"""Mutation testing of the gradients: does a test fail when one expression of the code is changed?

    pip install -e ".[test]" cosmic-ray
    python benchmarks/mutation/run.py

Mutates the files of manual_bptt/ that compute or check something, one expression at a time, in
copies of the repository, and asks the tests about each mutant, up to the first that fails.

Each verdict is kept in verdicts.jsonl with a digest of the mutant, of the tests, and of all that
these import: a run that was cut goes on, and one after a change judges again what the change may
have to do with. When all is judged, results.json and the table in docs/trust.md are written.

A mutant that survives has to be in survivors.toml, with the reason why no test can kill it. Exits 1
if one is not, or if one that is there was killed or is no mutant any more.

Give names of files to judge these alone, and write nothing: ``run.py forward.py``.
"""

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from judge import COPIED, ROUNDS, Verdict, enter_copy, judged
from mutants import check_operators, mutants
from rich.console import Console
from rich.progress import Progress
from sources import digest

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
VERDICTS, RESULTS = HERE / "verdicts.jsonl", HERE / "results.json"
# Quick ones first. Tests that compare the source text with something would be no evidence.
EVERYWHERE = (
    "arguments",
    "gradients_without_autodiff",
    "promises",
    "hostile_inputs",
    "repeatability",
    "corners",
    "laws",
    "floating_point",
)
# equations.py is left out: the comparison with autodiff judges each of its functions by itself.
CELLS = [path.stem for path in ROOT.glob("manual_bptt/cells/[!_]*.py")]
TESTS = {
    "forward": ("forward", "cost", *EVERYWHERE, "recomputation"),
    "backward": ("cost", *EVERYWHERE, "recomputation"),
    "products": ("cells", "cost", *EVERYWHERE, "recomputation"),
    "arithmetic": ("forward", *EVERYWHERE, "cells"),
    "arrays": ("forward", *EVERYWHERE),
    "axes": ("cells", *EVERYWHERE),
    **{f"cells/{name}": ("cells", "cost", *EVERYWHERE) for name in ("__init__", *CELLS)},
    "engine/blocks": ("forward", "cost", *EVERYWHERE, "recomputation", "cells"),
    "losses": ("losses", *EVERYWHERE),
    "gradients": (*EVERYWHERE, "workers", "recomputation", "compiled"),
    "engine/segments": ("recomputation", *EVERYWHERE),
    "engine/workers": ("workers", "workspace", "compiled", *EVERYWHERE),
    "engine/workspace": ("workspace", "workers", "recomputation"),
    "validation": EVERYWHERE,
    "params": ("initial_parameters", *EVERYWHERE),
    "compiled": ("compiled",),
}
SHOWN = Console(stderr=True, soft_wrap=True)


@dataclass(frozen=True)
class Task:
    """A mutant of a file, or None for the file as it is, and the tests to judge it."""

    file: str
    name: str
    mutant: str | None
    tests: tuple[str, ...]

    @property
    def path(self) -> str:
        """The file, from the root of the repository."""
        return f"manual_bptt/{self.file}.py"

    def digest(self, verdict: Verdict, root: Path) -> str:
        """Return what tells whether the verdict still holds.

        One mutant was killed by one test, and another survived all of them.
        """
        by = verdict.by.split("::")[0]
        source = (root / self.path).read_text("utf-8") if self.mutant is None else self.mutant
        how = repr([r for r in ROUNDS if r.name == verdict.round or not by])
        return digest(root / self.path, source, [by] if by else self.tests, root, how)


class Verdicts:
    """The verdicts that are known, in a file to which each is added as it is given."""

    def __init__(self, file: Path, root: Path) -> None:
        self.file, self.root = file, root
        lines = file.read_text("utf-8").splitlines() if file.exists() else []
        kept = [json.loads(line) for line in lines if line.endswith("}")]
        self.names: dict[str, list[tuple[str, Verdict]]] = {}
        for k in kept:
            self.names.setdefault(k["name"], []).append((k["digest"], Verdict(**k["verdict"])))

    def known(self, task: Task) -> Verdict | None:
        """Return the verdict on this very mutant by these very tests, if there is one."""
        for of, verdict in reversed(self.names.get(task.name, [])):
            stands = not verdict.by or verdict.by.split("::")[0] in task.tests
            if stands and of == task.digest(verdict, self.root):
                return verdict
        return None

    def add(self, task: Task, verdict: Verdict) -> None:
        """Write a verdict down."""
        of = task.digest(verdict, self.root)
        line = json.dumps({"name": task.name, "digest": of, "verdict": asdict(verdict)})
        with self.file.open("a", encoding="utf-8") as file:
            file.write(f"{line}\n")


def judge_all(tasks: list[Task], limits: Any, verdicts: Verdicts, pool: Any) -> dict[str, Verdict]:
    """Return the verdict on each task, by name."""
    found = {task.name: verdict for task in tasks if (verdict := verdicts.known(task))}
    new = {
        pool.submit(judged, task.path, task.mutant, task.tests, limits(task)): task
        for task in tasks
        if task.name not in found
    }
    with Progress(console=SHOWN) as progress:
        bar = progress.add_task(f"{len(found)} known,", total=len(new))
        for future in as_completed(new):
            task, verdict = new[future], future.result()
            verdicts.add(task, verdict)
            found[task.name] = verdict
            progress.advance(bar)
            if task.mutant is not None and verdict.said != "killed":
                text = f"{verdict.said}: {task.name}"
                progress.console.print(text, markup=False, highlight=False)
    return found


def judge_files(files: list[str], jobs: int) -> dict[str, dict[str, Verdict]]:
    """Return {file: {mutant: verdict}}."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder).resolve() / "as it is"  # whatever is edited meanwhile
        root.mkdir()
        for name in COPIED:
            copy: Any = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
            copy(ROOT / name, root / name)
        verdicts = Verdicts(VERDICTS, root)
        pool = ProcessPoolExecutor(
            jobs,
            mp_context=get_context("fork"),
            initializer=enter_copy,
            initargs=(root, root.parent),
        )
        with pool:
            try:
                made = pool.map(mutants, [root / "manual_bptt" / f"{file}.py" for file in files])
                tests = {f"tests/test_{name}.py" for file in files for name in TESTS[file]}
                seconds = time_tests(sorted(tests), verdicts, pool)
                tasks = {
                    file: [Task(file, m.name, m.source, test_files(file)) for m in some]
                    for file, some in zip(files, made, strict=True)
                }

                def limits(task: Task) -> dict[str, float]:
                    total = {r.name: sum(seconds[t, r.name] for t in task.tests) for r in ROUNDS}
                    return {name: 10 + 5 * usual for name, usual in total.items()}

                found = judge_all(
                    [t for some in tasks.values() for t in some], limits, verdicts, pool
                )
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise
    return {file: {t.name: found[t.name] for t in some} for file, some in tasks.items()}


def time_tests(tests: list[str], verdicts: Verdicts, pool: Any) -> dict[tuple[str, str], float]:
    """Return how long tests take in each round, without a mutation; exit if one fails."""
    tasks = {
        (test, r.name): Task("forward", f"no mutation, {r.name}, {test}", None, (test,))
        for test in tests
        for r in ROUNDS
    }
    by_name = {task.name: of for (_, of), task in tasks.items()}
    found = judge_all([*tasks.values()], lambda t: {by_name[t.name]: 600.0}, verdicts, pool)
    for task in tasks.values():
        if found[task.name].said != "survived":
            sys.exit(f"a test fails without a mutation: {found[task.name].by}")
    return {key: found[task.name].seconds for key, task in tasks.items()}


def test_files(file: str) -> tuple[str, ...]:
    """Return the files of tests that judge a file."""
    return tuple(f"tests/test_{name}.py" for name in TESTS[file])


def explanations() -> dict[str, str]:
    """Return {mutant: why no test can kill it}."""
    entries = tomllib.loads((HERE / "survivors.toml").read_text(encoding="utf-8"))["survivor"]
    return {mutant: entry["why"].strip() for entry in entries for mutant in entry["mutants"]}


def commit() -> str:
    """Return the last commit of what was judged, and whether anything differs from it."""
    of = [*COPIED, "benchmarks/mutation/*.py"]
    git = ["git", "-C", str(ROOT)]
    last = [*git, "log", "-1", "--format=%h of %cs", "--abbrev=10", "--", *of]
    changed = [*git, "status", "--porcelain", "--", *of]
    h, changes = (
        subprocess.run(c, capture_output=True, text=True, check=True).stdout.strip()
        for c in (last, changed)
    )
    return f"{h}, with changes" if changes else h


def results(found: dict[str, dict[str, Verdict]]) -> dict[str, Any]:
    """Return what is published."""
    said = {
        word: [name for of in found.values() for name, v in of.items() if v.said == word]
        for word in ("timed out", "survived")
    }
    mutants = {f"{file}.py": len(of) for file, of in found.items()}
    return {"commit": commit(), "mutants": mutants, **said}


def table(of: dict[str, Any]) -> Iterator[str]:
    """Yield the lines of the table in docs/trust.md."""
    yield "| file | mutants | killed | timed out | survived | score |"
    yield "|---|---:|---:|---:|---:|---:|"
    every: list[tuple[str, str]] = [(f"`{file}`", file) for file in of["mutants"]]
    for title, start in [*every, ("**all**", "")]:
        total = sum(n for file, n in of["mutants"].items() if file.startswith(start))
        timed_out, survived = (
            sum(name.startswith(start) for name in of[word]) for word in ("timed out", "survived")
        )
        killed, score = total - timed_out - survived, 1 - survived / total
        cells = [title, f"{total:,}", f"{killed:,}", timed_out, survived, f"{score:.1%}"]
        yield f"| {' | '.join(map(str, cells))} |"


def publish(of: dict[str, Any]) -> None:
    """Write the results, and the table in docs/trust.md."""
    RESULTS.write_text(json.dumps(of, indent=1) + "\n", encoding="utf-8")
    sys.path.insert(0, str(ROOT / "docs"))
    from markers import measured, write_part

    how = measured("python benchmarks/mutation/run.py", at=of["commit"])
    write_part("mutants", "\n".join(table(of)), measured=how)


def main() -> int:
    """Judge all mutants, publish the results, and return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("files", nargs="*", help="files of manual_bptt/ to judge alone")
    parser.add_argument("--jobs", type=int, default=2, help="processes (default: 2)")
    options = parser.parse_args()
    names = [name.removesuffix(".py") for name in options.files] or [*TESTS]
    check_operators()
    of = results(judge_files(names, options.jobs))
    if not options.files:
        publish(of)
    print(*table(of), sep="\n")
    known = explanations()
    unknown = [m for m in of["survived"] if m not in known]
    stale = [m for m in known if m not in of["survived"] and m.split(".py ")[0] in names]
    gone = [m for m in known if m.split(".py ")[0] not in TESTS]
    for title, some in (
        ("Survivors without a reason in survivors.toml", unknown),
        ("Killed, or no mutants any more, but in survivors.toml", stale + gone),
    ):
        if some:
            print(f"\n{title}:", *(f"- {m}" for m in some), sep="\n")
    return 1 if unknown or stale or gone else 0


if __name__ == "__main__":
    sys.exit(main())
