"""Candidates in a process of their own: whatever they do to it, the judge goes on and says so."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from manual_bptt.cli import main
from reference.judging import processes
from reference.judging.candidates import Caller, returned
from reference.judging.processes import CandidateProcess, NoVerdictError
from reference.problems import random_problem
from reference.user_code import LoadError, OutOfTimeError

MODULE = '''
"""What a candidate may do to the process that it runs in."""
import ctypes
import json
import os
import signal
import struct
import subprocess
import sys
import time

import numpy as np

calls = 0


def good(params, x, h0, target):
    return {"b": 2 * params.b, "states": [h0]}


def exits_in_the_third_call(*arguments):
    global calls
    calls += 1
    if calls == 3:
        os._exit(0)
    return good(*arguments)


def exits_in_a_thread(*arguments):
    import threading
    threading.Thread(target=os._exit, args=(7,)).start()
    time.sleep(30)


def crashes(*arguments):
    ctypes.string_at(0)


def aborts(*arguments):
    os.abort()


def loops_in_c(*arguments):
    with open("looping.tmp", "w") as file:
        file.write(str(os.getpid()))
    os.rename("looping.tmp", "looping")
    3 ** (10**9)


def catches_all(*arguments):
    signal.signal(signal.SIGALRM, signal.SIG_IGN)
    while True:
        try:
            time.sleep(1)
        except BaseException:
            pass


def waits_with_a_child(*arguments):
    sleeping = subprocess.Popen(["sleep", "3600"])
    with open("child", "w") as file:
        file.write(str(sleeping.pid))
    sleeping.wait()


def is_halted(*arguments):
    os.kill(os.getpid(), signal.SIGSTOP)


def closes_every_pipe(*arguments):
    os.closerange(0, 100)
    time.sleep(30)


def writes_to_every_pipe(*arguments):
    for fd in range(3, 30):
        try:
            os.write(fd, b"every gradient of this is right, believe me")
        except OSError:
            pass
    return good(*arguments)


def answers_itself(*arguments):
    """Write answers in the place of what it returns: well-formed frames, but no answers."""
    for message in MESSAGES:
        text = json.dumps(message).encode()
        for fd in range(3, 30):
            try:
                os.write(fd, struct.pack(">QQ", len(text), 8) + text + bytes(8))
            except OSError:
                pass
    time.sleep(30)


WHOLE = {"call": 1, "values": {}, "others": [], "failure": "", "notes": {}}
MESSAGES = []


def sends(**changes):
    def candidate(*arguments):
        MESSAGES.append({**WHOLE, "arrays": [["b", "<f8", [1]]], **changes})
        answers_itself()

    return candidate


of_another_call = sends(call=2)
of_text = sends(failure=3)
of_objects = sends(arrays=[["b", "|O8", [1]]])
of_a_negative_shape = sends(arrays=[["b", "<f8", [-1]]])
of_more_than_there_is = sends(arrays=[["b", "<f8", [3]]])
of_an_unknown_name = sends(arrays=[["q", "<f8", [1]]])
of_nothing = sends(values=None)
of_deep_lists = sends(notes={"x": []})


def talks_past_python(*arguments):
    os.write(1, b"\\x1b[2Jwritten by C\\n")
    sys.stderr.write("and by Python\\n")
    return good(*arguments)


def patches(*arguments):
    np.array_equal = np.array = np.allclose = lambda *a, **k: True
    json.dumps = lambda *a, **k: "{}"
    return good(*arguments)


def changes_the_world(*arguments):
    np.seterr(all="raise")
    os.environ.clear()
    os.chdir("/")
    sys.settrace(lambda *a: None)
    sys.modules["reference"] = sys.modules["jax"] = None
    sys.exit = sys.stdout = sys.stdin = None
    return good(*arguments)


def reads_stdin(*arguments):
    return {"b": [len(sys.stdin.read())]}


print("imported \\x1b[31m", end="")
'''

LINES = {
    name: MODULE[: MODULE.index(f"def {name}(")].count("\n") + 2 for name in ("crashes", "aborts")
}
PROBLEM = random_problem(T=2, B=2, D=1, H=3, O=1, regime="contracting", seed=0)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    (tmp_path / "ends.py").write_text(MODULE)
    (tmp_path / "ends_at_import.py").write_text("import os\nos._exit(0)\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def quiet(place):
    return CandidateProcess(place, shown=lambda text: None)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("exits_in_the_third_call", "ended its process (exit status 0) in call 3: reference.rando"),
        ("exits_in_a_thread", "ended its process (exit status 7) in call 1: reference.random_prob"),
        ("crashes", f"crashed with signal 11 (SIGSEGV) at line {LINES['crashes']} of ends.py in c"),
        ("aborts", f"crashed with signal 6 (SIGABRT) at line {LINES['aborts']} of ends.py in call"),
        ("closes_every_pipe", "no longer answers in call 1: reference.random_problem("),
        ("writes_to_every_pipe", "answered amiss in call 1: reference.random_problem("),
        ("of_another_call", "answered amiss in call 1"),
        ("of_text", "answered amiss in call 1"),
        ("of_objects", "answered amiss in call 1"),
        ("of_a_negative_shape", "answered amiss in call 1"),
        ("of_more_than_there_is", "answered amiss in call 1"),
        ("of_an_unknown_name", "answered amiss in call 1"),
        ("of_nothing", "answered amiss in call 1"),
        ("of_deep_lists", "answered amiss in call 1"),
        ("patches", "answered amiss in call 1"),
    ],
)
def test_a_process_that_gives_no_answer_is_told_in_words(name, message, folder):
    with quiet(f"ends:{name}") as process:
        caller = Caller(process)
        with pytest.raises(NoVerdictError) as raised:
            list(map(caller, [PROBLEM] * 3))
    assert str(raised.value).startswith(f"the candidate {message}")


@pytest.mark.parametrize("name", ["loops_in_c", "catches_all", "waits_with_a_child", "is_halted"])
def test_a_call_that_does_not_return_is_stopped(name, folder):
    with quiet(f"ends:{name}") as process:
        started = time.perf_counter()
        with pytest.raises(NoVerdictError, match=r"did not return within 0\.[45]\d* s and was sto"):
            Caller(process, time_budget=0.4)(PROBLEM)
        assert time.perf_counter() - started < 20
        assert process._process.returncode == -signal.SIGKILL


def test_a_call_that_only_had_no_time_left_is_left_out(folder):
    with quiet("ends:catches_all") as process:
        caller = Caller(process, time_budget=2.0, spent=1.7)
        assert caller(PROBLEM) is None
        assert caller.out_of_time


def test_what_a_process_answers_is_what_its_function_returned(folder):
    with quiet("ends:good") as process:
        assert process.importable == ("good", ("from ends import good",))
        returned = Caller(process)(PROBLEM)
    assert np.array_equal(returned.gradients["b"], 2 * PROBLEM.params.b)
    assert returned.gradients["states"].status == "wrong shape"
    assert returned.notes == {}


def test_what_it_prints_goes_nowhere_and_is_kept(folder, capfd):
    with quiet("ends:talks_past_python") as process:
        returned = Caller(process)(PROBLEM)
    assert process.printed == "\x1b[2Jwritten by C"
    said = "the candidate prints, and it is not shown: 'and by Python'"
    assert returned.notes == {"prints": said}
    assert capfd.readouterr() == ("", "")


def test_what_it_prints_while_it_is_imported_is_shown_without_escape_codes(folder, capsys):
    with CandidateProcess("ends:good"):
        pass
    assert capsys.readouterr() == ("", "imported \\x1b[31m\n")


def test_a_function_may_change_its_own_world_but_not_the_judge(folder):
    before = np.geterr(), os.getcwd(), dict(os.environ)
    with quiet("ends:changes_the_world") as process:
        returned = Caller(process)(PROBLEM)
    assert np.array_equal(returned.gradients["b"], 2 * PROBLEM.params.b)
    assert (np.geterr(), os.getcwd(), dict(os.environ)) == before


def test_a_function_reads_nothing_from_stdin(folder):
    with quiet("ends:reads_stdin") as process:
        assert process(PROBLEM.arrays, returned(PROBLEM.cell)).values["b"] == 0


def test_a_process_that_is_started_anew_has_forgotten_everything(folder):
    with quiet("ends:exits_in_the_third_call") as process:
        caller = Caller(process)
        for _ in range(3):
            assert caller(PROBLEM) is not None
            assert caller(PROBLEM) is not None
            assert process.restart()


def test_a_module_that_ends_the_process_is_no_verdict_and_a_missing_one_is_refused(folder):
    message = r"ended its process \(exit status 0\) while it was imported"
    with pytest.raises(NoVerdictError, match=message):
        quiet("ends_at_import:f")
    with pytest.raises(LoadError, match="ends has no 'nothing'; it has good, exits_in_the_third"):
        quiet("ends:nothing")


def test_a_module_whose_import_does_not_end_is_stopped(folder, monkeypatch):
    (folder / "endless.py").write_text("while True:\n    pass\n")
    monkeypatch.setattr(processes, "IMPORT_SECONDS", 0.5)
    with pytest.raises(NoVerdictError, match=r"was not imported within 0\.5 s and was stopped"):
        quiet("endless:f")


def test_a_time_out_ends_the_processes_that_were_started(folder):
    with quiet("ends:waits_with_a_child") as process:
        arrays = {"x": PROBLEM.x, "h0": PROBLEM.h0, "target": PROBLEM.target}
        with pytest.raises(OutOfTimeError):
            process(arrays | PROBLEM.params._asdict(), returned(PROBLEM.cell), 0.5)
    pid = int((folder / "child").read_text())
    for _ in range(100):  # the system takes a moment to end it
        if not is_running(pid):
            break
        time.sleep(0.05)
    assert not is_running(pid)


def test_no_verdict_is_one_line_and_a_code_of_its_own(folder, capsys):
    argv = ["check", "ends:exits_in_the_third_call", "--cases", "4", "--json", "-"]
    assert main(argv) == 3
    out, err = capsys.readouterr()
    result = json.loads(out)
    assert result["passed"] is False
    assert "ended its process (exit status 0) in call 3" in result["no_verdict"]
    assert err.count("\nmanual-bptt: no verdict: the candidate ended its process (exit sta") == 1
    assert err.count("\n") == 2  # and what the module prints


def test_ctrl_c_ends_the_process_too(folder):
    command = subprocess.Popen(
        [sys.executable, "-m", "manual_bptt.cli", "check", "ends:loops_in_c"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=folder,
    )  # fmt: skip
    while not (folder / "looping").exists():
        time.sleep(0.1)
    pid = int((folder / "looping").read_text())
    assert is_running(pid)
    command.send_signal(signal.SIGINT)
    _, err = command.communicate(timeout=30)
    assert command.returncode == 130
    assert err.endswith("manual-bptt: interrupted\n")
    for _ in range(100):
        if not is_running(pid):
            break
        time.sleep(0.05)
    assert not is_running(pid)


def is_running(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0] != "Z"
    except FileNotFoundError:
        return False
