"""A bad argument gets a TypeError or a ValueError that names it, and what was expected."""

from types import SimpleNamespace

import numpy as np
import pytest

import manual_bptt as mb

PARAMS = mb.init_params(3, 4, 2, rng=0)
X, TARGET = np.ones((5, 6, 3)), np.zeros((5, 6, 2))
TRACE = mb.forward(PARAMS, X)
DY = np.ones_like(TRACE.y)


def with_nan(array, index=0):
    array = np.array(array, float)
    array.flat[index] = np.nan
    return array


def forward(params=PARAMS, x=X, h0=None):
    return mb.forward(params, x, h0)


BAD_FORWARD = [
    ({"params": {"W": 1}}, TypeError, "params is a dict; expected Params, or an object with"),
    ({"params": None}, TypeError, "params is a NoneType"),
    ({"params": SimpleNamespace(W=1, U=1, b=1)}, TypeError, "attributes W, U, b, V and c"),
    ({"params": PARAMS._replace(W=np.ones((4, 3)))}, ValueError,
     "params.W has shape (4, 3); expected (H, H)"),
    ({"params": PARAMS._replace(W=np.ones((0, 0)))}, ValueError, "H at least 1"),
    ({"params": PARAMS._replace(U=np.ones((3, 3)))}, ValueError,
     "params.U has shape (3, 3); expected (H, D) with H = 4"),
    *(({"params": PARAMS._replace(U=np.ones(shape))}, ValueError,
       f"params.U has shape {shape}; expected (H, D) with H = 4, D at least 1")
      for shape in ((5, 3), (4, 3, 1), (4,), (4, 0))),
    *(({"params": PARAMS._replace(V=np.ones(shape))}, ValueError,
       f"params.V has shape {shape}; expected (O, H) with H = 4, O at least 1")
      for shape in ((2, 3), (2, 5), (2, 4, 1), (0, 4))),
    ({"params": PARAMS._replace(b=np.ones((4, 1)))}, ValueError,
     "params.b has shape (4, 1); expected (H,) = (4,)"),
    ({"params": PARAMS._replace(V=np.ones(4))}, ValueError, "params.V has shape (4,)"),
    ({"params": PARAMS._replace(c=np.ones(3))}, ValueError,
     "params.c has shape (3,); expected (O,) = (2,)"),
    ({"params": PARAMS._replace(c=with_nan(PARAMS.c, 1))}, ValueError,
     "params.c holds nan at index (1,)"),
    ({"params": PARAMS._replace(U=np.full((4, 3), "a"))}, TypeError, "params.U has dtype <U1"),
    ({"params": PARAMS._replace(U=np.full((4, 3), None))}, TypeError, "params.U has dtype object"),
    ({"params": PARAMS._replace(b=np.zeros(4, "M8[s]"))}, TypeError, "params.b has dtype datetime"),
    ({"params": mb.Params(*(p.astype(np.float16) for p in PARAMS))}, TypeError,
     "params' common dtype is float16; expected float32, float64 or a wider"),
    ({"params": mb.Params(*(p.astype(int) for p in PARAMS))}, TypeError,
     "params' common dtype is int64"),
    ({"x": np.ones((24, 5))}, ValueError,
     "x has shape (24, 5); expected (T, D) or (T, B, D) with D = 3, the number of columns of "
     "params.U"),
    ({"x": np.ones(3)}, ValueError, "x has shape (3,)"),
    *(({"x": np.ones(shape)}, ValueError, f"x has shape {shape}; expected (T, D) or (T, B, D)")
      for shape in ((24, 2), (24, 4), (2, 24, 2), (2, 2, 24, 3))),
    ({"x": np.ones((0, 3))}, ValueError, "at least one time step and one sequence"),
    ({"x": np.ones((5, 0, 3))}, ValueError, "at least one time step and one sequence"),
    ({"x": with_nan(X, 7)}, ValueError, "x holds nan at index (0, 2, 1)"),
    ({"x": X * np.inf}, ValueError, "x holds inf at index (0, 0, 0)"),
    ({"x": "weather"}, TypeError, "x has dtype <U7; expected numbers"),
    ({"x": [[1.0, 2.0, 3.0], [1.0]]}, ValueError, "x is not an array"),
    ({"x": X + 1j}, TypeError, "x is complex; expected real numbers"),
    ({"x": np.ma.masked_less(X, 2)}, TypeError, "x is a masked array"),
    ({"x": [np.ma.masked_less(np.ones(3), 2)] * 5}, TypeError, "x is a masked array"),
    ({"x": None}, TypeError, "x has dtype object"),
    ({"h0": np.ones(4)}, ValueError, "h0 has shape (4,); expected (B, H) = (6, 4)"),
    ({"x": X[:, 0], "h0": np.ones((1, 4))}, ValueError,
     "h0 has shape (1, 4); expected (H,) = (4,)"),
    ({"h0": with_nan(np.ones((6, 4)))}, ValueError, "h0 holds nan"),
    ({"params": mb.Params(*(p.astype(np.float32) for p in PARAMS)), "x": X * 1e300}, ValueError,
     "x holds inf at index (0, 0, 0); expected finite float32 values"),
]  # fmt: skip


@pytest.mark.parametrize(("arguments", "error", "message"), BAD_FORWARD)
def test_forward_refuses(arguments, error, message):
    with pytest.raises(error) as caught:
        forward(**arguments)
    assert type(caught.value) is error
    assert message in str(caught.value)


BAD_LOSS = [
    (mb.squared_error, (np.ones(5), np.ones(5)), ValueError, "y has shape (5,); expected (T, O)"),
    (mb.squared_error, (1.0, 1.0), ValueError, "y has shape (); expected (T, O)"),
    (mb.squared_error, (np.ones((0, 2)), np.ones((0, 2))), ValueError, "no axis empty"),
    (mb.squared_error, (DY, TARGET[..., 0]), ValueError,
     "target has shape (5, 6); expected (T, B, O) = (5, 6, 2)"),
    (mb.squared_error, (DY, with_nan(TARGET)), ValueError, "target holds nan"),
    (mb.squared_error, (with_nan(DY), TARGET), ValueError, "y holds nan"),
    (mb.squared_error, (DY.astype(np.float16), TARGET), TypeError, "y is float16"),
    (mb.squared_error, (DY, TARGET, np.ones(6)), ValueError,
     "weights has shape (6,); expected (T,), (T, B) or (T, B, O): (5,), (5, 6), (5, 6, 2)"),
    (mb.squared_error, (DY, TARGET, 1.0), ValueError, "weights has shape ()"),
    (mb.squared_error, (DY, TARGET, with_nan(np.ones(5))), ValueError, "weights holds nan"),
    (mb.squared_error, (DY, with_nan(TARGET), np.ones(5)), ValueError,
     "target (where weights are not zero) holds nan"),
    (mb.last_step_squared_error, (DY, TARGET), ValueError,
     "target has shape (5, 6, 2); expected (B, O) = (6, 2)"),
    (mb.last_step_squared_error, (DY[:, 0], np.ones(1)), ValueError, "expected (O,) = (2,)"),
    (mb.last_step_squared_error, (DY, with_nan(TARGET[0])), ValueError, "target holds nan"),
    (mb.last_step_squared_error, (DY, None), TypeError, "target has dtype object"),
]  # fmt: skip


@pytest.mark.parametrize(("loss", "arguments", "error", "message"), BAD_LOSS)
def test_losses_refuse(loss, arguments, error, message):
    with pytest.raises(error) as caught:
        loss(*arguments)
    assert message in str(caught.value)


BAD_BACKWARD = [
    ({"trace": (X, DY)}, TypeError, "trace is a tuple; expected what forward returned"),
    ({"trace": TRACE._replace(h=TRACE.h[1:])}, ValueError,
     "trace.h has shape (5, 6, 4); expected (T+1, B, H) = (6, 6, 4)"),
    ({"trace": TRACE._replace(h=with_nan(TRACE.h))}, ValueError, "trace.h holds nan"),
    ({"params": mb.init_params(3, 5, 2, rng=0)}, ValueError, "trace.h has shape (6, 6, 4)"),
    ({"trace": TRACE._replace(x=X[0, 0])}, ValueError, "trace.x has shape (3,)"),
    ({"dy": DY[:-1]}, ValueError, "dy has shape (4, 6, 2); expected (T, B, O) = (5, 6, 2)"),
    ({"dy": DY[..., :1]}, ValueError, "dy has shape (5, 6, 1)"),
    ({"trace": mb.forward(PARAMS, X[:, 0]), "dy": DY[:-1, 0]}, ValueError,
     "dy has shape (4, 2); expected (T, O) = (5, 2)"),
    ({"dy": with_nan(DY)}, ValueError, "dy holds nan"),
    ({"dy": "dy"}, TypeError, "dy has dtype"),
    ({"dh_last": np.ones(4)}, ValueError, "dh_last has shape (4,); expected (B, H) = (6, 4)"),
    ({"dh_last": with_nan(np.ones((6, 4)))}, ValueError, "dh_last holds nan"),
]  # fmt: skip


@pytest.mark.parametrize("function", [mb.backward, mb.hidden_gradients])
@pytest.mark.parametrize(("arguments", "error", "message"), BAD_BACKWARD)
def test_backward_refuses(function, arguments, error, message):
    arguments = {"params": PARAMS, "trace": TRACE, "dy": DY, **arguments}
    with pytest.raises(error) as caught:
        function(**arguments)
    assert message in str(caught.value)


BAD_CALLS = [
    ({"weights": np.ones(5), "loss": mb.last_step_squared_error}, TypeError,
     "weights was given, but the loss last_step_squared_error takes none"),
    ({"loss": None}, TypeError, "loss is None; expected a function (y, target)"),
    ({"loss": "squared_error"}, TypeError, "loss is 'squared_error'; expected a function"),
    ({"loss": min, "weights": np.ones(5)}, TypeError, "the loss min takes none"),
    ({"loss": lambda y, target: 0.0}, TypeError, "loss returned a float; expected a pair"),
    ({"loss": lambda y, target: (0.0, y[0])}, ValueError, "dy, from the loss, has shape (6, 2)"),
    ({"loss": lambda y, target: (0.0, np.full_like(y, np.nan))}, ValueError,
     "dy, from the loss, holds nan"),
    ({"h0": np.ones(3)}, ValueError, "h0 has shape (3,)"),
]  # fmt: skip


@pytest.mark.parametrize(("arguments", "error", "message"), BAD_CALLS)
def test_loss_and_gradients_refuses(arguments, error, message):
    with pytest.raises(error) as caught:
        mb.loss_and_gradients(PARAMS, X, TARGET, **arguments)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((0, 4, 2), ValueError, "n_inputs is 0; expected at least 1"),
        ((3, -1, 2), ValueError, "n_hidden is -1; expected at least 1"),
        ((3, 4, 2.0), TypeError, "n_outputs is 2.0; expected an integer of at least 1"),
    ],
)
def test_init_params_refuses(arguments, error, message):
    with pytest.raises(error) as caught:
        mb.init_params(*arguments)
    assert message in str(caught.value)


@pytest.mark.parametrize("rng", [-1, "a", 1.5])
def test_init_params_refuses_an_rng_that_is_none(rng):
    with pytest.raises(TypeError, match=r"rng is .*; expected an int of at least 0, a Generator"):
        mb.init_params(3, 4, 2, rng=rng)


@pytest.mark.parametrize("dtype", [np.float16, np.int64, np.dtype("U3"), "foo"])
def test_init_params_refuses_a_dtype_that_cannot_hold_gradients(dtype):
    with pytest.raises(TypeError, match=r"dtype is .*; expected float32, float64"):
        mb.init_params(3, 4, 2, dtype=dtype)


def test_check_finite_false_skips_the_scan_and_nan_spreads_where_it_must():
    x = with_nan(X, X.size - 1)
    trace = mb.forward(PARAMS, x, check_finite=False)
    assert np.isnan(trace.y[-1, -1]).all()
    assert np.isfinite(trace.y[:-1]).all()
    _, dy = mb.squared_error(trace.y, TARGET, check_finite=False)
    assert np.isnan(mb.backward(PARAMS, trace, dy, check_finite=False).W).all()
