"""Mutation testing of the gradients: does a test fail when one expression of the code is changed?

    pip install cosmic-ray
    python benchmarks/mutation/run.py > benchmarks/mutation/survivors.md

Mutates the files of manual_bptt/ that compute or check something, one expression at a time, in a
copy of the repository, and asks the tests that use no autodiff about each mutant, up to the first
that fails. The report goes to stdout. A mutant that survives has to be in survivors.toml, with the
reason why no test can kill it. Exits 1 if one is not, or if one that is there was killed or is no
mutant any more.

Give names of files to run these alone: ``python benchmarks/mutation/run.py forward.py``.
"""

import os

os.environ |= {"OPENBLAS_NUM_THREADS": "1", "HYPOTHESIS_PROFILE": "unshrunk"}

import gc
import importlib.util
import shutil
import signal
import sys
import tempfile
import time
import tomllib
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import Phase, settings
from mutants import check_operators, mutants
from rich.console import Console
from rich.progress import track

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
# equations.py is left out: the comparison with autodiff judges each of its functions by itself.
FILES = ["forward", "backward", "losses", "gradients", "params", "validation"]
# Quick ones first. Tests that compare the source text with something would be no evidence.
TESTS = [
    "arguments",
    "gradients_without_autodiff",
    "promises",
    "hostile_inputs",
    "laws",
    "corners",
    "repeatability",
]
# The examples of the profile "fixed"; nobody will look at the smallest one that fails.
settings.register_profile(
    "unshrunk",
    derandomize=True,
    deadline=None,
    max_examples=60,
    phases=[Phase.explicit, Phase.generate],
    report_multiple_bugs=False,
)
REWRITING = "ignore::pytest.PytestAssertRewriteWarning"  # forks share the imported plugins
PYTEST = ["-x", "-n0", "--tb=no", "-p", "no:cacheprovider", "-W", REWRITING]


def verdict(seconds: int) -> str:
    """Return "survived", "killed" or "timed out".

    The tests run in a fork of this process, which has imported what is slow to import, but nothing
    of manual_bptt.
    """
    child = os.fork()
    if child == 0:
        _test(seconds)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if status == -signal.SIGALRM:
        return "timed out"
    if status not in (
        pytest.ExitCode.OK,
        pytest.ExitCode.TESTS_FAILED,
        pytest.ExitCode.INTERRUPTED,
    ):
        raise RuntimeError(f"pytest exited {status}: neither passed nor failed")
    return "killed" if status else "survived"


def _test(seconds: int) -> None:
    """Run the tests in this process, and end it with their status."""
    status = -1
    try:
        signal.alarm(seconds)
        silence = os.open(os.devnull, os.O_WRONLY)
        os.dup2(silence, 1)
        os.dup2(silence, 2)
        for name in TESTS:
            status = pytest.main([*PYTEST, f"tests/test_{name}.py"])
            if status != pytest.ExitCode.OK:
                break
    finally:
        os._exit(status)


def enter_copy(work: Path) -> None:
    """Make work a copy of what the tests need, and the place where they import it from."""
    for name in ("manual_bptt", "reference", "tests", "data"):
        shutil.copytree(ROOT / name, work / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", work)
    os.chdir(work)
    sys.path.insert(0, str(work))
    sys.dont_write_bytecode = True  # stale bytecode would hide a mutant
    import reference.strategies  # noqa: F401  (so that no fork has to)

    found = importlib.util.find_spec("manual_bptt")
    assert found is not None
    assert str(found.origin).startswith(str(work))
    assert "manual_bptt" not in sys.modules
    gc.freeze()


def judged(path: Path, seconds: int) -> dict[str, str]:
    """Return {mutant: verdict} of one file."""
    original = path.read_text(encoding="utf-8")
    console = Console(stderr=True, soft_wrap=True)
    verdicts = {}
    try:
        for mutant in track(mutants(path), path.name, console=console):
            path.write_text(mutant.source, encoding="utf-8")
            verdicts[mutant.name] = verdict(seconds)
            if verdicts[mutant.name] != "killed":
                console.print(verdicts[mutant.name], mutant.name, markup=False, highlight=False)
    finally:
        path.write_text(original, encoding="utf-8")
    return verdicts


def explanations() -> dict[str, str]:
    """Return {mutant: why no test can kill it}."""
    entries = tomllib.loads((HERE / "survivors.toml").read_text(encoding="utf-8"))["survivor"]
    return {mutant: entry["why"].strip() for entry in entries for mutant in entry["mutants"]}


def main() -> int:
    """Judge all mutants, print the report, and return the exit status."""
    names = [name.removesuffix(".py") for name in sys.argv[1:]] or FILES
    check_operators()
    known = explanations()
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder).resolve()
        enter_copy(work)
        started = time.monotonic()
        if verdict(seconds=600) != "survived":
            sys.exit("the tests fail without a mutation")
        seconds = 60 + int(10 * (time.monotonic() - started))
        found = {name: judged(work / "manual_bptt" / f"{name}.py", seconds) for name in names}
        os.chdir(ROOT)
    survivors = [m for of in found.values() for m, v in of.items() if v == "survived"]
    unknown = [m for m in survivors if m not in known]
    stale = [m for m in known if m.split(".py ")[0] in names and m not in survivors]
    print(report(found, {m: known[m] for m in survivors if m in known}))
    for title, some in (("Survivors without a reason", unknown), ("Reasons out of date", stale)):
        if some:
            print(f"\n## {title}\n", *(f"- `{m}`" for m in some), sep="\n")
    return 1 if unknown or stale else 0


def report(found: dict[str, dict[str, str]], explained: dict[str, str]) -> str:
    """Return the score and the explained survivors as Markdown."""
    rows = {f"`{name}.py`": Counter(verdicts.values()) for name, verdicts in found.items()}
    rows["all"] = sum(rows.values(), Counter[str]())
    lines = [
        "# Mutants of manual_bptt",
        "",
        "Written by `python benchmarks/mutation/run.py`, which says what is mutated and how.",
        "",
        "| file | mutants | killed | timed out | survived | score |",
        "|------|---------|--------|-----------|----------|-------|",
    ]
    for name, row in rows.items():
        counts = [row[kind] for kind in ("killed", "timed out", "survived")]
        cells = (name, row.total(), *counts, f"{1 - row['survived'] / row.total():.1%}")
        lines.append(f"| {' | '.join(map(str, cells))} |")
    if explained:
        lines += ["", "## Survivors, and why no test can kill them"]
    for why in dict.fromkeys(explained.values()):
        lines += ["", why, "", *(f"- `{m}`" for m, reason in explained.items() if reason == why)]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
