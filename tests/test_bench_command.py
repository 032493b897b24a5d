"""``manual-bptt bench`` on shapes so small that the figures mean nothing and the test is quick."""

import contextlib
import io
import json
import socket

import numpy as np
import pytest

from manual_bptt.cli import bench, contestants, main, timing
from manual_bptt.cli.contestants import Shape, by_hand, by_jax, work

TINY = Shape(3, 4, 2, 3, 1)


medians = timing.medians


def once(calls, rounds, seconds):
    return medians(calls, 1, 0.0)


@pytest.fixture(scope="module")
def quick():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(timing, "SETTLING", 0.0)
        for module in (bench, timing):
            patch.setattr(module, "medians", once)
        patch.setattr(bench, "cores", lambda: 2)
        patch.setattr(bench, "QUICK", (TINY, TINY._replace(B=1)))
        patch.setattr(bench, "MIDDLE", TINY)
        patch.setattr(bench, "GROWTH", {"T": (2, 4, 8), "B": (2, 4, 8), "H": (2, 4, 8)})
        patch.setattr(bench, "LARGE", Shape(8, 2000, 4, 64, 2))
        patch.setattr(bench, "PROBLEMS", (8, 8))
        patch.setattr(bench, "CHECKPOINTED", (TINY._replace(T=600),))
        yield


@contextlib.contextmanager
def port_of_dask_taken():
    """Listen at the port of Dask's dashboard, as another cluster would."""
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(OSError):  # another cluster does
            stack.enter_context(socket.create_server(("0.0.0.0", 8787)))
        yield


@pytest.fixture(scope="module")
def measured(quick, tmp_path_factory):
    """Return what one call of the command printed, and the folder of its JSON and its picture."""
    folder, out, err = tmp_path_factory.mktemp("bench"), io.StringIO(), io.StringIO()
    paths = ["--json", str(folder / "all.json"), "--plot", str(folder / "growth.png")]
    with (
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
        port_of_dask_taken(),
    ):
        assert main(["bench", "--quick", *paths]) == 0
    assert err.getvalue() == ""
    return out.getvalue(), folder


def test_it_measures_everything(measured):
    _, folder = measured
    result = json.loads((folder / "all.json").read_text())
    assert set(result) == {
        *bench.PRINTED, "machine", "versions", "seconds",
    }  # fmt: skip
    assert (folder / "growth.png").read_bytes().startswith(b"\x89PNG")
    for dtype in bench.DTYPES:
        batch, single = result[f"speed {dtype}"]
        ways = {"numpy", "numba", "numpy, 2", "numba, 2"}
        assert ways <= set(batch["times"])
        assert ways & set(single["times"]) == {"numpy", "numba"}
        for row in (batch, single):
            own = {way: row["times"][way] for way in ways & set(row["times"])}
            assert row["seconds"] == min(own.values()) == own[row["fastest"]]
            assert row["ratios"]["jax"] == row["times"]["jax"] / row["seconds"]
            assert row["of_product_rate"] == pytest.approx(
                row["products"] / row["seconds"] / result["product_rate"][dtype]
            )
    assert result["long"]["shape"]["T"] == 100_000
    assert result["cluster"] == {"processes": 2, "same_bits": True}
    assert [row["same_bits"] for row in result["checkpoints"]] == [True]
    peaks = result["memory"]["peaks"]
    assert peaks["checkpoints"]["traced"] < peaks["numpy"]["traced"]


def test_it_prints_a_table_of_each(measured):
    out, _ = measured
    for words in (
        "geometric means: JAX",
        "3, 4, 2, 3, 1",
        "peak memory",
        "100,000 steps",
        "other processes: the bits of one thread",
        "import:",
    ):
        assert words in out


def test_json_on_stdout_stands_alone(quick, capsys, monkeypatch):
    for section in ("_speed", "_growth", "_memory", "_long", "_cluster", "_rest"):
        monkeypatch.setattr(bench, section, lambda _: iter(()))
    assert main(["bench", "--quick", "--json", "-"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert set(json.loads(out)) == {"checkpoints", "machine", "versions", "seconds"}


@pytest.mark.parametrize("B", [1, 3])
@pytest.mark.parametrize("dtype", bench.DTYPES)
def test_the_contestants_compute_the_same(B, dtype):
    import jax

    todo = work(TINY._replace(B=B), dtype)
    value, grads = by_hand(todo)()
    with jax.enable_x64(True):
        theirs, by_autodiff = by_jax(todo)()
    close = {"rtol": 1e3 * np.finfo(dtype).eps, "atol": 1e2 * np.finfo(dtype).eps}
    np.testing.assert_allclose(theirs, value, **close)
    for one, other in zip(by_autodiff, grads, strict=False):  # those in the parameters
        assert one.dtype == dtype
        np.testing.assert_allclose(one, other, **close)
    pytest.importorskip("torch")
    theirs, weights = contestants.by_torch(todo, threads=1)()
    np.testing.assert_allclose(theirs, value, **close)
    dU, dW, db, _, dV, dc = (weight.grad.numpy() for weight in weights)
    for one, other in zip((dW, dU, db, dV, dc), grads, strict=False):
        np.testing.assert_allclose(one, other, **close)


@pytest.mark.parametrize("power", [0.0, 1.0, 2.0])
def test_the_slope_is_the_power_with_which_the_time_grows(power):
    sizes = [1, 10, 100, 1000]
    times = [7.0, *(3e-6 * n**power for n in sizes[1:])]
    assert timing.slope(sizes, times) == pytest.approx(power)


def test_the_operations_are_those_of_the_matrix_products():
    B, T, D, H, O = shape = Shape(2, 3, 5, 7, 11)
    forward = 2 * (H * H + H * D + O * H)  # W h, U x, V h, of one row
    backward = 2 * (2 * H * H + 2 * H * D + 2 * O * H)  # W' da, dW, dx, dU, V' dy, dV
    assert shape.products == B * T * (forward + backward)
