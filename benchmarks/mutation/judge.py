"""What the tests say of one mutant: they run in a fork of a process that imported what is slow.

Each judging process has a copy of the repository to itself, and has imported what the tests import
except manual_bptt, which each fork imports anew, with the mutant in it.
"""

import compileall
import gc
import importlib.util
import os
import resource
import shutil
import signal
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from hypothesis import Phase, settings

COPIED = ("manual_bptt", "reference", "tests", "data", "pyproject.toml")
MEMORY = 2**32  # bytes: a mutant may ask for all there is
RUNNING = Path("running")
PYTEST = [
    *("-x", "--tb=no", "--assert=plain", "-p", "no:cacheprovider"),
    *("-o", "addopts=--doctest-modules --import-mode=importlib"),
]
os.environ |= {"OPENBLAS_NUM_THREADS": "1", "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}


@dataclass(frozen=True)
class Round:
    """One way to run tests: how many examples, which tests, numba's functions compiled or not."""

    name: str
    examples: int
    leave_out: str
    compiled: bool
    among: str = field(default="", repr=False)  # what tests have for which this makes a difference


# Nearly every mutant dies of a few examples, and of numba's functions as Python runs them (which
# makes an integer of NaN with a warning). What survives these meets the examples of the profile
# "fixed", and numba. Autodiff has no say, and a cluster takes its time.
ROUNDS = (
    Round("quick", 8, "autodiff or dask or is_no_number", compiled=False),
    Round("full", 60, "autodiff or dask", compiled=True, among="@given|numba"),
)
Ask = tuple[str, str]  # a round and a file of tests


@dataclass(frozen=True)
class Verdict:
    """What the tests said; ``by`` is the test that was running when the mutant died."""

    said: str
    by: str = ""
    round: str = ""
    seconds: float = 0.0


def enter_copy(root: Path, work: Path) -> None:
    """Make a copy of what the tests need, and the place where this process imports it from."""
    work = work / str(os.getpid())
    work.mkdir()
    for name in COPIED:
        copy: Any = shutil.copytree if (root / name).is_dir() else shutil.copy
        copy(root / name, work / name)
    os.chdir(work)
    compileall.compile_dir(".", quiet=1)  # once for all mutants, which are newer
    sys.path.insert(0, str(work))
    sys.dont_write_bytecode = True  # stale bytecode would hide a mutant
    for profile in ROUNDS:  # nobody will look at the smallest example that fails
        settings.register_profile(
            profile.name,
            derandomize=True,
            deadline=None,
            database=None,
            max_examples=profile.examples,
            phases=[Phase.explicit, Phase.generate],
            report_multiple_bugs=False,
        )
    import _hypothesis_pytestplugin  # noqa: F401
    import numba  # noqa: F401
    import scipy.linalg.cython_blas  # noqa: F401

    import reference.strategies  # noqa: F401

    found = importlib.util.find_spec("manual_bptt")
    assert found is not None
    assert str(found.origin).startswith(str(work))
    assert "manual_bptt" not in sys.modules
    gc.freeze()


def judged(path: str, mutant: str | None, asks: Sequence[Ask], limits: dict[str, float]) -> Verdict:
    """Return the verdict on a mutant of a file; None is the file as it is.

    The limits are the seconds that each round may take.
    """
    file = Path(path)
    original = file.read_text(encoding="utf-8")
    try:
        if mutant is not None:
            file.write_text(mutant, encoding="utf-8")
        for of in ROUNDS:
            tests = [test for name, test in asks if name == of.name]
            if tests:
                verdict = _in_a_fork(of, tests, limits[of.name])
                if verdict.said != "survived":
                    break
    finally:
        file.write_text(original, encoding="utf-8")
    return verdict


def _in_a_fork(of: Round, tests: Sequence[str], limit: float) -> Verdict:
    started = time.monotonic()
    child = os.fork()
    if child == 0:
        _run(of, tests, limit)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    with suppress(ProcessLookupError):
        os.killpg(child, signal.SIGKILL)  # what it started and left behind
    by, seconds = RUNNING.read_text(encoding="utf-8"), time.monotonic() - started
    if status == -signal.SIGALRM:
        return Verdict("timed out", by, of.name, seconds)
    if status == pytest.ExitCode.OK:
        return Verdict("survived", "", of.name, seconds)
    # A test failed, or could not be imported, or the interpreter crashed.
    if status in (pytest.ExitCode.TESTS_FAILED, pytest.ExitCode.INTERRUPTED) or status < 0:
        return Verdict("killed", by, of.name, seconds)
    raise RuntimeError(f"pytest exited {status} in {by}: neither passed nor failed")


def _run(of: Round, tests: Sequence[str], limit: float) -> None:
    """Run the tests in this process, and end it with their status."""
    status = 255
    try:
        os.setsid()
        resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, MEMORY))
        signal.setitimer(signal.ITIMER_REAL, limit)
        if not os.environ.get("SHOW"):
            silence = os.open(os.devnull, os.O_WRONLY)
            os.dup2(silence, 1)
            os.dup2(silence, 2)
        os.environ["HYPOTHESIS_PROFILE"] = of.name
        del sys.modules["__main__"].__file__  # what a process of the tests would import
        import numba

        numba.config.DISABLE_JIT = not of.compiled
        for test in tests:
            RUNNING.write_text(test, encoding="utf-8")
            options = [*PYTEST, "-p", "_hypothesis_pytestplugin", "-k", f"not ({of.leave_out})"]
            status = int(pytest.main([*options, test], plugins=[_Running()]))
            if status == pytest.ExitCode.NO_TESTS_COLLECTED:
                status = 0
            if status:
                break
    finally:
        os._exit(status)


class _Running:
    """Tells which test is running."""

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        RUNNING.write_text(nodeid, encoding="utf-8")
