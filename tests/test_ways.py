"""Every way to compute gives what the plain way gives, and refuses what it cannot do."""

import numpy as np
import pytest

import manual_bptt as mb
from manual_bptt.engine.segments import require_checkpoints
from manual_bptt.validation import as_array


@pytest.mark.parametrize("H", [3, 70])
@pytest.mark.parametrize("B", [1, 2, 3])
def test_the_compiled_kernel_gives_what_the_plain_one_gives_in_every_sequence(B, H):
    rng = np.random.default_rng(0)
    params = mb.init_params(2, H, 1, rng=rng)
    x, target, h0 = (rng.standard_normal(n) for n in ((5, B, 2), (5, B, 1), (B, H)))
    plain, compiled = (
        mb.loss_and_gradients(params, x, target, h0=h0, kernel=kernel)
        for kernel in ("numpy", "numba")
    )
    np.testing.assert_allclose(compiled[0], plain[0], rtol=1e-13)
    for ours, expected in zip(compiled[1], plain[1], strict=True):
        np.testing.assert_allclose(ours, expected, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize(
    ("every", "kind"), [("nine", ValueError), (2.5, TypeError), (True, TypeError), (0, ValueError)]
)
def test_a_wrong_number_of_steps_is_refused_as_what_it_is(every, kind):
    with pytest.raises(kind, match="checkpoint_every is"):
        require_checkpoints(every)


@pytest.mark.parametrize("T", [1, 3])
@pytest.mark.parametrize("cell", ["tanh", "gru", "gru_reset_after"])
def test_a_product_with_the_initial_state_that_overflows_is_no_plausible_state(cell, T):
    params = mb.init_params(2, 3, 1, cell=cell, rng=0, dtype=np.float32)
    W = np.zeros_like(params.W)
    W[:, 0] = 1e37
    h0 = np.full((2, 3), 100, np.float32)
    with np.errstate(over="ignore"):
        trace = mb.forward(params._replace(W=W), np.zeros((T, 2, 2), np.float32), h0)
    assert np.isnan(trace.h[1:]).all()


def test_complex_numbers_are_taken_where_the_rest_is_complex():
    half = np.ones(2, np.complex64)
    assert as_array("x", half, np.dtype(complex)).dtype == complex
    with pytest.raises(TypeError, match="x is complex"):
        as_array("x", half, np.dtype(float))
