"""Memory kept between calls: never that of a result, and never in use twice."""

import threading

import numpy as np
import pytest

import manual_bptt as mb
from manual_bptt.engine import workspace as module
from manual_bptt.engine.workspace import KEPT, SMALL, workspace

FLOAT = np.dtype(np.float64)
ENOUGH = SMALL // FLOAT.itemsize


def lent(size=ENOUGH, dtype=FLOAT, purpose="test"):
    with workspace(purpose, size, dtype) as memory:
        return memory


def kept():
    return module._kept.memory


@pytest.fixture(autouse=True)
def nothing_kept():
    kept().clear()
    yield
    kept().clear()


def test_what_was_lent_is_lent_again_to_the_same_purpose_alone():
    first = lent()
    assert np.shares_memory(first, lent(2 * ENOUGH, np.dtype(np.float32)))
    assert not np.shares_memory(first, lent(purpose="another"))


def test_within_a_call_nothing_is_lent_twice():
    lent()
    with workspace("test", ENOUGH, FLOAT) as outer, workspace("test", ENOUGH, FLOAT) as inner:
        assert not np.shares_memory(outer, inner)


def test_every_thread_has_its_own():
    found = []
    thread = threading.Thread(target=lambda: found.append(lent()))
    mine = lent()
    thread.start()
    thread.join()
    assert not np.shares_memory(mine, found[0])


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.longdouble, np.complex128])
@pytest.mark.parametrize("size", [0, 1, 7, ENOUGH + 1])
def test_what_is_lent_has_the_size_and_type_asked_for(size, dtype):
    memory = lent(size, np.dtype(dtype))
    assert (memory.size, memory.dtype, memory.ndim) == (size, dtype, 1)
    assert memory.flags.writeable
    memory[:] = 1


def test_from_64_kilobytes_to_16_megabytes_are_kept():
    assert (SMALL, KEPT) == (65_536, 16_777_216)
    lent(ENOUGH - 1)
    lent(KEPT // FLOAT.itemsize + 1)
    assert not kept()
    lent(KEPT // FLOAT.itemsize)
    assert sum(map(len, kept().values())) == KEPT


def test_more_than_is_kept_takes_its_place():
    lent(ENOUGH)
    lent(2 * ENOUGH)
    assert len(kept()["test"]) == 2 * SMALL
    lent(ENOUGH)
    assert len(kept()["test"]) == 2 * SMALL


def test_memory_of_a_call_that_fails_is_not_lent_again():
    """A thread of that call may still be writing to it."""
    lent()
    with pytest.raises(KeyboardInterrupt), workspace("test", ENOUGH, FLOAT):
        raise KeyboardInterrupt
    assert "test" not in kept()


@pytest.mark.parametrize("workers", [None, 2])
def test_no_result_shares_memory_with_what_is_kept_or_with_another(workers):
    params = mb.init_params(3, 16, 2, rng=0)
    x, target = np.ones((40, 32, 3)), np.zeros((40, 32, 2))
    results = [mb.loss_and_gradients(params, x, target, workers=workers)[1] for _ in range(2)]
    before = [gradient.copy() for gradient in results[0]]
    mb.loss_and_gradients(params, 2 * x, target, workers=workers)
    assert kept()
    for memory in kept().values():
        for grads in results:
            assert not any(np.shares_memory(gradient, memory) for gradient in grads)
    for one, other, copy in zip(*results, before, strict=True):
        assert not np.shares_memory(one, other)
        np.testing.assert_array_equal(one, copy)
