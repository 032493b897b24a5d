"""Gradients computed by workers: the same door, the same sums, whoever is ready first."""

import os
import subprocess
import sys
import threading
import time
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context

import numpy as np
import pytest
from threadpoolctl import threadpool_info, threadpool_limits
from together import assert_equal_to_autodiff

import manual_bptt as mb
from manual_bptt.engine import workers as engine_workers
from manual_bptt.engine.workers import SHARD
from reference.network.gradients import GRADIENTS
from reference.strategies import problems

LOSSES = {f.__name__: f for f in (mb.squared_error, mb.last_step_squared_error)}


def problem(B=2 * SHARD + 5, T=4, dtype=np.float64):
    rng = np.random.default_rng(0)
    params = mb.init_params(3, 5, 2, rng=1, dtype=dtype)
    x, h0 = rng.standard_normal((T, B, 3)), rng.standard_normal((B, 5))
    return params, x.astype(dtype), rng.standard_normal((T, B, 2)).astype(dtype), h0.astype(dtype)


def gradients(workers, loss=mb.squared_error, **options):
    params, x, target, h0 = problem(**options)
    return mb.loss_and_gradients(params, x, target, h0=h0, loss=loss, workers=workers)


def assert_same_bits(one, other):
    assert one[0] == other[0]
    for a, b in zip(one[1], other[1], strict=True):
        np.testing.assert_array_equal(a, b)


class Backwards(Executor):
    """An executor that does the last task first."""

    def map(self, function, *iterables, **_):
        tasks = list(zip(*iterables, strict=False))
        done = {k: function(*tasks[k]) for k in reversed(range(len(tasks)))}
        return iter([done[k] for k in range(len(tasks))])

    def submit(self, function, /, *arguments, **options):
        future = Future()
        future.set_result(function(*arguments, **options))
        return future


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("workers", [2, Backwards()])
def test_every_gradient_of_workers_equals_autodiff(workers, loss, dtype):
    def gradients_of(params, x, h0, target):
        options = {"h0": h0, "loss": LOSSES[loss], "workers": workers}
        return mb.loss_and_gradients(params, x, target, **options)[1]

    drawn = problems(batched=True, dtype=dtype, loss=loss)
    assert_equal_to_autodiff(gradients_of, drawn, {*GRADIENTS} - {"h"})


@pytest.mark.parametrize("workers", [1, 2, 3, 1000])
@pytest.mark.parametrize("B", [1, 2, 7])
def test_any_number_of_threads_adds_up_to_the_gradient_of_the_batch(workers, B):
    value, grads = gradients(workers, B=B)
    expected_value, expected = gradients(None, B=B)
    assert value == pytest.approx(expected_value, rel=1e-14)
    for one, other in zip(grads, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-12, atol=1e-12)


def test_one_thread_is_this_thread_bit_for_bit():
    assert_same_bits(gradients(1, B=7), gradients(None, B=7))


def test_the_result_does_not_depend_on_how_many_workers_an_executor_has_or_their_order():
    expected = gradients(Backwards())
    for count in (1, 2, 5):
        with ThreadPoolExecutor(count) as executor:
            assert_same_bits(gradients(executor), expected)
    assert_same_bits(gradients(2), gradients(2))


def test_a_task_for_an_executor_has_no_more_sequences_than_a_shard():
    sizes = []

    class Counting(Backwards):
        def map(self, function, x, *others, **_):
            sizes.append([part.shape[1] for part in x])
            return super().map(function, x, *others)

    gradients(Counting(), B=2 * SHARD + 5)
    outputs, slopes = sizes
    assert outputs == slopes
    assert outputs == [44, 44, 45]  # the bits depend on it: whoever changes it, says so


@pytest.mark.parametrize("workers", [4, Backwards()])
def test_parts_are_added_from_the_first_sequences_to_the_last_bit_for_bit(workers, monkeypatch):
    """((1 + 2^60) - 2^60) + 3 is 3 in floating point, and another number in any other order."""
    monkeypatch.setattr(engine_workers, "SHARD", 1)
    params, x, target, _ = problem(B=4, T=1)
    summands = np.array([1.0, 2.0**60, -(2.0**60), 3.0])

    def loss(y, target):
        return 0.0, np.broadcast_to(summands[:, None], y.shape)

    _, grads = mb.loss_and_gradients(params, x, target, loss=loss, workers=workers)
    assert grads.c.tolist() == [3.0, 3.0]


def test_tasks_of_an_executor_add_up_to_the_gradient_of_the_batch():
    value, grads = gradients(Backwards(), B=2 * SHARD + 5)
    expected_value, expected = gradients(None, B=2 * SHARD + 5)
    assert value == pytest.approx(expected_value, rel=1e-14)
    for one, other in zip(grads, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-11, atol=1e-11)


def test_as_many_threads_compute_as_were_asked_for_and_no_more_are_kept(monkeypatch):
    meeting = threading.Barrier(3)
    passes = engine_workers.forward_segments

    def meet(*arguments):
        meeting.wait(timeout=30)  # for all three
        return passes(*arguments)

    monkeypatch.setattr(engine_workers, "forward_segments", meet)
    gradients(3, B=7)
    monkeypatch.undo()
    pool, submitted = engine_workers._threads(), []
    submit, before = pool.submit, len(pool._threads)
    monkeypatch.setattr(pool, "submit", lambda *task: submitted.append(task) or submit(*task))
    for workers in 50 * (1, 2, 3):
        gradients(workers, B=7)
        time.sleep(1e-3)  # a thread counts as busy for a moment after its last task
    ours = [t for t in threading.enumerate() if t.name.startswith("manual_bptt")]
    assert 2 <= len(ours) < before + len(submitted) // 2  # as many as tasks, if none served twice


def test_threads_see_the_floating_point_settings_of_the_caller():
    params, x, target, _ = problem(B=4)
    params = params._replace(V=params.V * 1e308)
    for workers in (None, 2):
        with np.errstate(over="raise"), pytest.raises(FloatingPointError):
            mb.loss_and_gradients(params, x, target, workers=workers, check_finite=False)
        with np.errstate(all="ignore"):
            mb.loss_and_gradients(params, x, target, workers=workers, check_finite=False)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_forked_process_has_threads_of_its_own():
    code = (
        "import multiprocessing as mp, numpy as np, manual_bptt as mb\n"
        "args = mb.init_params(2, 3, 1, rng=0), np.ones((4, 6, 2)), np.zeros((4, 6, 1))\n"
        "def child(): mb.loss_and_gradients(*args, workers=2)\n"
        "child()\n"
        "process = mp.get_context('fork').Process(target=child)\n"
        "process.start(); process.join(60)\n"
        "assert process.exitcode == 0, process.exitcode\n"
    )
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True, timeout=120)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_a_process_forked_during_a_call_holds_blas_and_lets_it_go():
    code = (
        "import os, numpy as np, manual_bptt as mb\n"
        "from threadpoolctl import threadpool_info\n"
        "def threads():\n"
        "    return {i['num_threads'] for i in threadpool_info() if i['user_api'] == 'blas'}\n"
        "args = mb.init_params(2, 3, 1, rng=0), np.ones((4, 6, 2)), np.zeros((4, 6, 1))\n"
        "before, held, ends = threads(), [], []\n"
        "def look(y, target):\n"
        "    held.append(threads())\n"
        "    return mb.squared_error(y, target)\n"
        "def fork(y, target):\n"
        "    child = os.fork()\n"
        "    if child == 0:\n"
        "        from manual_bptt.engine.workers import _Limit\n"
        "        mb.loss_and_gradients(*args, workers=2, loss=look)\n"
        "        os._exit(0 if held == [{1}] and _Limit.calls == 0 else 1)\n"
        "    ends.append(os.waitpid(child, 0)[1])\n"
        "    return mb.squared_error(y, target)\n"
        "mb.loss_and_gradients(*args, workers=2, loss=fork)\n"
        "assert ends == [0] and threads() == before, (ends, threads())\n"
    )
    two = os.environ | {"OPENBLAS_NUM_THREADS": "2"}
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True, timeout=60, env=two)


def test_threads_work_without_threadpoolctl_too():
    code = (
        "import sys; sys.modules['threadpoolctl'] = None\n"
        "import numpy as np, manual_bptt as mb\n"
        "args = mb.init_params(2, 3, 1, rng=0), np.ones((4, 6, 2)), np.zeros((4, 6, 1))\n"
        "one, other = (mb.loss_and_gradients(*args, workers=n)[1] for n in (None, 2))\n"
        "assert np.allclose(one.W, other.W)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_processes_of_their_own_give_the_same_bits():
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as executor:
        assert_same_bits(gradients(executor), gradients(Backwards()))


def test_a_loss_may_look_at_the_whole_batch():
    def variance(y, target):
        error = y - target - (y - target).mean()
        return (error**2).sum(), 2 * error

    value, grads = gradients(3, loss=variance)
    expected_value, expected = gradients(None, loss=variance)
    assert value == pytest.approx(expected_value, rel=1e-13)
    np.testing.assert_allclose(grads.W, expected.W, rtol=1e-10, atol=1e-10)


def test_a_single_sequence_is_not_shared_out():
    params, x, target, _ = problem()
    one, other = (
        mb.loss_and_gradients(params, x[:, 0], target[:, 0], workers=w) for w in (None, 3)
    )
    assert_same_bits(one, other)


def test_what_a_worker_raises_is_raised_here():
    class Broken(Executor):
        def map(self, *_, **__):
            raise RuntimeError("the cluster is gone")

    with pytest.raises(RuntimeError, match="the cluster is gone"):
        gradients(Broken())


@pytest.mark.parametrize(
    ("workers", "error", "message"),
    [
        (0, ValueError, "workers is 0; expected at least 1"),
        (-2, ValueError, "workers is -2; expected at least 1"),
        (True, TypeError, "workers is True; expected None, a number of threads"),
        (2.0, TypeError, "workers is 2.0; expected None"),
        ("2", TypeError, "workers is '2'; expected None"),
    ],
)
def test_workers_of_another_kind_are_refused(workers, error, message):
    with pytest.raises(error, match=message):
        gradients(workers)


def blas_threads():
    return [pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"]


def test_blas_has_as_many_threads_after_as_before_even_if_calls_overlap():
    with threadpool_limits(limits=2, user_api="blas"):
        before = blas_threads()
        expected = gradients(2)
        threads = [threading.Thread(target=gradients, args=(2,)) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert blas_threads() == before
        assert_same_bits(gradients(2), expected)


def test_blas_has_its_threads_again_after_a_loss_that_fails():
    def loss(y, target):
        raise KeyError

    with threadpool_limits(limits=2, user_api="blas"):
        before = blas_threads()
        with pytest.raises(KeyError):
            gradients(2, loss=loss)
        assert blas_threads() == before


def test_blas_is_held_until_the_last_of_overlapping_calls_has_ended():
    seen = []

    def loss(y, target):
        thread = threading.Thread(target=gradients, args=(2,))
        thread.start()
        thread.join()
        seen.extend(blas_threads())
        return mb.squared_error(y, target)

    with threadpool_limits(limits=2, user_api="blas"):
        gradients(2, loss)
    assert set(seen) == {1}


def test_the_call_that_ends_last_gives_blas_its_threads_again_whichever_began_first():
    both, first_ended = threading.Barrier(2), threading.Event()

    def first(y, target):
        both.wait(timeout=30)
        return mb.squared_error(y, target)

    def second(y, target):
        both.wait(timeout=30)
        assert first_ended.wait(timeout=30)
        return mb.squared_error(y, target)

    with threadpool_limits(limits=2, user_api="blas"), ThreadPoolExecutor(2) as two:
        before = blas_threads()
        calls = [two.submit(gradients, 2, loss) for loss in (first, second)]
        calls[0].result()
        held = blas_threads()
        first_ended.set()
        calls[1].result()
        assert blas_threads() == before
        assert set(held) == {1}
        with threadpool_limits(limits=1, user_api="blas"):  # this thread may set them again
            assert set(blas_threads()) == {1}
        assert blas_threads() == before


@pytest.mark.parametrize("interruption", [KeyboardInterrupt, RuntimeError])
@pytest.mark.parametrize("which", ["forward_segments", "backward_segments"])
def test_a_call_that_is_interrupted_waits_for_its_threads(monkeypatch, which, interruption):
    caller, ended = threading.current_thread(), []
    passes = getattr(engine_workers, which)

    def slow(*arguments):
        if threading.current_thread() is caller:
            raise interruption
        time.sleep(0.2)  # at work on the arrays of the caller
        found = passes(*arguments)
        ended.append(True)
        return found

    monkeypatch.setattr(engine_workers, which, slow)
    with pytest.raises(interruption):
        gradients(3, B=7)
    assert len(ended) == 2


def test_a_call_that_gets_no_more_threads_waits_for_those_it_has(monkeypatch):
    ended, submitted = [], []

    class Few(ThreadPoolExecutor):
        def submit(self, *arguments):
            if submitted:
                raise RuntimeError("can't start new thread")
            submitted.append(arguments)
            return super().submit(self.slowly, *arguments)

        def slowly(self, function, *arguments):
            time.sleep(0.2)
            found = function(*arguments)
            ended.append(True)
            return found

    with Few() as few:
        monkeypatch.setattr(engine_workers, "_threads", lambda: few)
        with pytest.raises(RuntimeError, match="can't start new thread"):
            gradients(3, B=7)
        assert ended


def test_blas_keeps_to_one_thread_while_threads_of_ours_compute():
    seen = []

    def loss(y, target):
        seen.extend(blas_threads())
        return mb.squared_error(y, target)

    with threadpool_limits(limits=2, user_api="blas"):
        gradients(2, loss=loss)
    assert set(seen) == {1}


def pid_after_meeting(folder):
    """Return this process's number once another process has come to the same folder."""
    (folder / str(os.getpid())).touch()
    deadline = time.monotonic() + 30
    while len([*folder.iterdir()]) < 2:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return os.getpid()


def die_once(marker):
    """Kill the process that comes first."""
    if not marker.exists():
        marker.touch()
        os._exit(1)


@pytest.fixture(scope="module")
def dask():
    distributed = pytest.importorskip("distributed")
    cluster = distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, processes=True, dashboard_address="127.0.0.1:0"
    )
    with cluster, distributed.Client(cluster) as client:
        yield client


def test_a_dask_cluster_of_processes_gives_the_same_bits_even_if_a_worker_dies(dask, tmp_path):
    meeting = tmp_path / "meeting"
    meeting.mkdir()
    pids = dask.gather([dask.submit(pid_after_meeting, meeting, pure=False) for _ in range(2)])
    assert len({*pids, os.getpid()}) == 3
    expected = gradients(Backwards())
    died = tmp_path / "died"

    def deadly(y, target):  # computed between the outputs and the gradients
        dask.submit(die_once, died, pure=False).result(timeout=60)
        return mb.squared_error(y, target)

    with dask.get_executor() as executor:
        assert_same_bits(gradients(executor), expected)
        assert_same_bits(gradients(executor, loss=deadly), expected)
    assert died.exists()
