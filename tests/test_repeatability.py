"""Which bits are promised, and which are not.

Promised: the same call gives the same bits, again and in a new process of the same installation;
in threads that call at once as in one after another, where BLAS computes with one thread; and
whatever memory, layout, byte order or container the arguments come in (``test_corners.py``).

Not promised: the last bits where BLAS uses another number of threads, on another machine or with
another build of NumPy; of a sequence alone and in a batch, or in another order of the sequences,
units, inputs or outputs. Sums then run in another order, and results differ by rounding
(``test_laws.py`` says by how much). Where a result is computed at all, it is right either way.
"""

import hashlib
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import numpy as np
import pytest
from threadpoolctl import threadpool_info, threadpool_limits

import manual_bptt as mb

ROOT = Path(__file__).resolve().parents[1]
THREADS = 8
# T, B, D, H, O, dtype: small ones, where Python does the work, and larger ones, where BLAS does.
PROBLEMS = [
    (5, 3, 3, 4, 2, "float64"),
    (40, None, 2, 8, 1, "float64"),
    (24, 32, 6, 10, 1, "float32"),
    (9, 4, 7, 5, 3, "float64"),
    (3, 64, 33, 130, 17, "float64"),
    (60, 1, 1, 1, 1, "float32"),
    (12, 16, 20, 70, 40, "float32"),
    (7, 2, 3, 6, 2, "complex128"),
]


def everything(problem):
    """Return the digest of the bits of all that the public functions make of one problem."""
    T, B, D, H, O, dtype = problem
    rng, batch = np.random.default_rng(T), () if B is None else (B,)
    params = mb.init_params(D, H, O, rng=rng, dtype=dtype)
    shapes = (T, *batch, D), (*batch, H), (T, *batch, O), (T, *batch)
    return digest(params, *(rng.standard_normal(shape).astype(dtype) for shape in shapes))


def on_one_thread():
    """Return the digests of all problems, where BLAS has one thread whatever it began with."""
    with threadpool_limits(limits=1, user_api="blas"):
        return [everything(problem) for problem in PROBLEMS]


def digest(params, x, h0, target, weights):
    trace = mb.forward(params, x, h0)
    value, dy = mb.squared_error(trace.y, target, weights)
    last = mb.last_step_squared_error(trace.y, target[-1])
    grads = mb.backward(params, trace, dy, dh_last=h0)
    dh = mb.hidden_gradients(params, trace, dy, dh_last=h0)
    again, more = mb.loss_and_gradients(params, x, target, h0=h0, weights=weights)
    arrays = [*params, *trace, value, dy, *last, *grads, dh, again, *more]
    return hashlib.sha256(b"".join(np.asarray(a).tobytes() for a in arrays)).hexdigest()


@pytest.mark.parametrize("problem", PROBLEMS, ids=str)
def test_the_same_call_gives_the_same_bits(problem):
    assert everything(problem) == everything(problem)


def test_a_new_process_gives_the_same_bits():
    code = f"import runpy; here = runpy.run_path({__file__!r});print(*here['on_one_thread']())"
    command = [sys.executable, "-c", code]
    ended = subprocess.run(command, check=True, capture_output=True, text=True, cwd=ROOT)
    assert ended.stdout.split() == on_one_thread()


@pytest.fixture
def one_blas_thread():
    if not any(library["user_api"] == "blas" for library in threadpool_info()):
        pytest.skip("threadpoolctl does not know the BLAS of this NumPy")
    with threadpool_limits(1, user_api="blas"):
        yield


@pytest.fixture
def restless_threads():
    """Let threads take turns after every few steps of the interpreter, not every 5 ms."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(interval)


@pytest.mark.usefixtures("one_blas_thread", "restless_threads")
@pytest.mark.parametrize("shared", [False, True], ids=["a problem each", "one problem for all"])
def test_eight_threads_at_once_give_the_bits_of_one_after_another(shared):
    mine = [PROBLEMS[0 if shared else i] for i in range(THREADS)]
    alone = [everything(problem) for problem in mine]
    ready = Barrier(THREADS, timeout=60)

    def calls(problem):
        found = set()
        for _ in range(10):
            ready.wait()
            found.add(everything(problem))
        return found

    with ThreadPoolExecutor(THREADS) as pool:
        assert list(pool.map(calls, mine)) == [{bits} for bits in alone]


@pytest.mark.usefixtures("one_blas_thread", "restless_threads")
def test_threads_that_share_all_arrays_give_the_bits_of_one():
    rng = np.random.default_rng(0)
    params = mb.init_params(3, 4, 2, rng=rng)
    shapes = (50, 6, 3), (6, 4), (50, 6, 2), (50, 6)
    arrays = [rng.standard_normal(shape) for shape in shapes]
    alone, ready = digest(params, *arrays), Barrier(THREADS, timeout=60)

    def call(_):
        ready.wait()
        return {digest(params, *arrays) for _ in range(10)}

    with ThreadPoolExecutor(THREADS) as pool:
        assert list(pool.map(call, range(THREADS))) == [{alone}] * THREADS


CORE = ("params", "validation", "forward", "losses", "backward", "gradients")


@pytest.mark.parametrize("name", CORE)
def test_no_module_of_the_core_holds_anything_that_a_call_could_change(name):
    module = vars(sys.modules[f"manual_bptt.{name}"])
    held = {k: v for k, v in module.items() if not k.startswith("__")}
    assert not [k for k, v in held.items() if isinstance(v, list | dict | set | np.ndarray)]
