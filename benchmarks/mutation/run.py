"""Mutation testing of the gradients: does a test fail when one expression of the code is changed?

    pip install -e ".[test]" cosmic-ray
    python benchmarks/mutation/run.py

Mutates the files of manual_bptt/ that compute or check something, one expression at a time, in
copies of the repository, and asks the tests about each mutant, up to the first that fails.

Each verdict is kept in verdicts.jsonl with a digest of the mutant, of each file of tests, and of
all that this imports: a run that was cut goes on, and one after a change judges again what the
change may have to do with. When all is judged, results.json and the table in docs/trust.md are
written.

A mutant that survives has to be in survivors.toml, with the reason why no test can kill it. Exits 1
if one is not, or if one that is there was killed or is no mutant any more.

Give names of files to judge these alone, and write nothing: ``run.py forward.py``. With --quick
only the first round is asked, of mutants that survivors.toml does not name: it finds what is worth
a test, and writes nothing either.
"""

import argparse
import json
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections import Counter
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass, replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from judge import COPIED, ROUNDS, Ask, Round, Verdict, enter_copy, judged
from mutants import check_operators, mutants
from published import TESTS, page, test_files
from rich.console import Console
from rich.progress import Progress
from sources import digest

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
VERDICTS, RESULTS = HERE / "verdicts.jsonl", HERE / "results.json"
SHOWN = Console(stderr=True, soft_wrap=True)


@dataclass(frozen=True)
class Task:
    """A mutant of a file, or None for the file as it is, and the tests to ask, in which rounds."""

    file: str
    name: str
    mutant: str | None
    asks: tuple[Ask, ...]

    @property
    def path(self) -> str:
        """The file, from the root of the repository."""
        return f"manual_bptt/{self.file}.py"

    def digest(self, ask: Ask, root: Path) -> str:
        """Return what tells whether an answer still holds."""
        name, test = ask
        source = (root / self.path).read_text("utf-8") if self.mutant is None else self.mutant
        how = repr([r for r in ROUNDS if r.name == name])
        return digest(root / self.path, source, [test], root, how)


class Verdicts:
    """The verdicts that are known, in a file to which each is added as it is given.

    A mutant was killed by one file of tests in one round, or survived several.
    """

    def __init__(self, file: Path, root: Path) -> None:
        self.file, self.root = file, root
        lines = file.read_text("utf-8").splitlines() if file.exists() else []
        kept = [json.loads(line) for line in lines if line.endswith("}")]
        self.names: dict[str, list[tuple[dict[Ask, str], Verdict]]] = {}
        for k in kept:
            digests = {(name, test): of for name, test, of in k["digests"]}
            self.names.setdefault(k["name"], []).append((digests, Verdict(**k["verdict"])))

    def known(self, task: Task) -> tuple[Verdict | None, list[Ask]]:
        """Return the verdict on this very mutant by these very tests, or what is left to ask."""
        survived: dict[Ask, Verdict] = {}
        for digests, verdict in reversed(self.names.get(task.name, [])):
            for ask, of in digests.items():
                if ask in task.asks and of == task.digest(ask, self.root):
                    if verdict.by:
                        return verdict, []
                    survived[ask] = verdict
        left = [ask for ask in task.asks if ask not in survived]
        return (None if left else survived[task.asks[-1]]), left

    def add(self, task: Task, verdict: Verdict) -> None:
        """Write a verdict down."""
        killed = [(verdict.round, verdict.by.split("::")[0])]
        asked = killed if verdict.by else task.asks
        digests = [[*ask, task.digest(ask, self.root)] for ask in asked]
        line = json.dumps({"name": task.name, "digests": digests, "verdict": asdict(verdict)})
        with self.file.open("a", encoding="utf-8") as file:
            file.write(f"{line}\n")


def judge_all(tasks: list[Task], limits: Any, verdicts: Verdicts, pool: Any) -> dict[str, Verdict]:
    """Return the verdict on each task, by name."""
    found, new = {}, {}
    for task in tasks:
        verdict, left = verdicts.known(task)
        if verdict:
            found[task.name] = verdict
        else:
            asked = replace(task, asks=tuple(left))
            new[pool.submit(judged, task.path, task.mutant, left, limits(asked))] = asked
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


def asks_of(tests: Iterable[str], rounds: Sequence[Round], root: Path) -> tuple[Ask, ...]:
    """Return what to ask: every file of tests, in the rounds that make a difference for it."""
    return tuple(
        (r.name, test)
        for r in rounds
        for test in tests
        if re.search(r.among, (root / test).read_text("utf-8"))
    )


def judge_files(
    files: list[str], jobs: int, rounds: Sequence[Round]
) -> dict[str, dict[str, Verdict]]:
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
                titles = [f"{file}.py" for file in files]
                paths = [root / "manual_bptt" / title for title in titles]
                made = pool.map(mutants, paths, titles)
                tests = sorted({test for file in files for test in test_files(file)})
                seconds = time_tests(asks_of(tests, rounds, root), verdicts, pool)
                asks = {file: asks_of(test_files(file), rounds, root) for file in files}
                known = explanations() if rounds != ROUNDS else {}
                tasks = {
                    file: [
                        Task(file, m.name, m.source, asks[file])
                        for m in some
                        if m.name not in known
                    ]
                    for file, some in zip(files, made, strict=True)
                }

                def limits(task: Task) -> dict[str, float]:
                    total: Counter[str] = Counter()
                    for ask in task.asks:
                        total[ask[0]] += seconds[ask]
                    return {name: 10 + 5 * usual for name, usual in total.items()}

                found = judge_all(
                    [t for some in tasks.values() for t in some], limits, verdicts, pool
                )
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise
    return {file: {t.name: found[t.name] for t in some} for file, some in tasks.items()}


def time_tests(asks: Iterable[Ask], verdicts: Verdicts, pool: Any) -> dict[Ask, float]:
    """Return how long tests take in each round, without a mutation; exit if one fails."""
    tasks = {ask: Task("forward", f"no mutation, {', '.join(ask)}", None, (ask,)) for ask in asks}

    def limits(task: Task) -> dict[str, float]:
        return {name: 600.0 for name, _ in task.asks}

    found = judge_all([*tasks.values()], limits, verdicts, pool)
    for task in tasks.values():
        if found[task.name].said != "survived":
            sys.exit(f"a test fails without a mutation: {found[task.name].by}")
    return {ask: found[task.name].seconds for ask, task in tasks.items()}


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


def results(found: dict[str, dict[str, Verdict]], of: str) -> dict[str, Any]:
    """Return what is published: the names of the mutants that no test killed, among others."""
    known, kinds = explanations(), ("timed out", "equivalent", "survived")
    named: dict[str, list[str]] = {kind: [] for kind in kinds}
    for name, verdict in (pair for of in found.values() for pair in of.items()):
        if verdict.said != "killed":
            explained = verdict.said == "survived" and name in known
            named["equivalent" if explained else verdict.said].append(name)
    mutants = {f"{file}.py": len(of) for file, of in found.items()}
    return {"commit": of, "mutants": mutants, **named}


def publish(of: dict[str, Any]) -> None:
    """Write the results, and the table in docs/trust.md."""
    RESULTS.write_text(json.dumps(of, indent=1) + "\n", encoding="utf-8")
    sys.path.insert(0, str(ROOT / "docs"))
    from markers import measured, write_part

    how = measured("python benchmarks/mutation/run.py", at=of["commit"])
    write_part("mutants", "\n".join(page(of)), measured=how)


def main() -> int:
    """Judge all mutants, publish the results, and return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("files", nargs="*", help="files of manual_bptt/ to judge alone")
    parser.add_argument("--jobs", type=int, default=2, help="processes (default: 2)")
    parser.add_argument("--quick", action="store_true", help="ask with few examples alone")
    options = parser.parse_args()
    names = [name.removesuffix(".py") for name in options.files] or [*TESTS]
    check_operators()
    rounds = ROUNDS[:1] if options.quick else ROUNDS
    judged_at = commit()  # whatever is committed meanwhile
    of = results(judge_files(names, options.jobs, rounds), judged_at)
    if rounds == ROUNDS and not options.files:
        publish(of)
    print(*page(of), sep="\n")
    known, unknown = explanations(), of["survived"]
    stale = [m for m in known if m not in of["equivalent"] and m.split(".py ")[0] in names]
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
