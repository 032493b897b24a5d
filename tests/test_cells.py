"""Every cell: its gradients by the complex step, every way of computing, halves, shapes.

All but the loops over the papers' equations is for each cell of ``mb.CELLS``, so that a new one is
covered when its file is there.
"""

import pickle
import re
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import manual_bptt as mb
from manual_bptt import equations, interop
from manual_bptt.axes import axes_of, factors, in_letters, shape_of
from manual_bptt.candidate import candidate
from manual_bptt.cells import cell_of
from manual_bptt.engine import blocks
from manual_bptt.forecasting.model import Model, save_model
from manual_bptt.training import (
    SGD,
    Adam,
    ArraySequences,
    Constant,
    Settings,
    begin,
    save_training,
    train,
)

T, D, H, O = 7, 3, 5, 2
SIZES = {"D": D, "H": H, "O": O}
EVERY_CELL = pytest.mark.parametrize("cell", mb.CELLS)
EVERY_BATCH = pytest.mark.parametrize("batch", [(), (4,)], ids=["one sequence", "a batch"])


def problem(cell, batch=(), steps=T, dtype=np.float64):
    """Return parameters none of which is zero, x, target and h0."""
    rng = np.random.default_rng(0)
    kind = mb.CELLS[cell]
    shapes = [shape_of(axes, SIZES) for axes in axes_of(kind).values()]
    params = kind.Params(*(rng.uniform(-0.7, 0.7, shape).astype(dtype) for shape in shapes))
    sequences = ((steps, *batch, D), (steps, *batch, O), (*batch, H))
    return params, *(rng.standard_normal(shape).astype(dtype) for shape in sequences)


def assert_same_bits(one, other):
    assert one[0].tobytes() == other[0].tobytes()
    for a, b in zip(one[1], other[1], strict=True):
        np.testing.assert_array_equal(a, b)


# The equations of the papers, a number at a time -------------------------------------------------


def sigma(a):
    return 1 / (1 + np.exp(-a))


def elman(p, h, x):
    return np.tanh(p.W @ h + p.U @ x + p.b)


def rectified(p, h, x):
    a = p.W @ h + p.U @ x + p.b
    return np.where(a.real > 0, a, 0)


def gates_of(p):
    return zip(*(np.split(array, 3) for array in (p.W, p.U, p.b)), strict=True)


def cho(p, h, x):
    (W_r, U_r, b_r), (W_z, U_z, b_z), (W_n, U_n, b_n) = gates_of(p)
    r, z = sigma(W_r @ h + U_r @ x + b_r), sigma(W_z @ h + U_z @ x + b_z)
    return (1 - z) * np.tanh(W_n @ (r * h) + U_n @ x + b_n) + z * h


def cudnn(p, h, x):
    (W_r, U_r, b_r), (W_z, U_z, b_z), (W_n, U_n, b_n) = gates_of(p)
    r, z = sigma(W_r @ h + U_r @ x + b_r), sigma(W_z @ h + U_z @ x + b_z)
    return (1 - z) * np.tanh(U_n @ x + b_n + r * (W_n @ h + p.bh)) + z * h


STEPS = {"tanh": elman, "relu": rectified, "gru": cho, "gru_reset_after": cudnn}


def by_loops(cell, params, x, h0):
    """Return the states and the outputs of one sequence."""
    h = [h0]
    for x_now in x:
        h.append(STEPS[cell](params, h[-1], x_now))
    return np.array(h), np.array([params.V @ h_now + params.c for h_now in h[1:]])


@pytest.mark.parametrize("cell", STEPS)
def test_states_and_outputs_are_those_of_the_equations(cell):
    params, x, _, h0 = problem(cell, (4,))
    trace = mb.forward(params, x, h0)
    for k in range(4):
        h, y = by_loops(cell, params, x[:, k], h0[k])
        np.testing.assert_allclose(trace.h[:, k], h, rtol=0, atol=1e-14)
        np.testing.assert_allclose(trace.y[:, k], y, rtol=0, atol=1e-14)


# Gradients ---------------------------------------------------------------------------------------


def slopes(loss, arguments):
    """Return dloss by the complex step: exact but for rounding, and it knows no derivation."""
    found = {}
    for name, array in arguments.items():
        found[name] = np.empty_like(array)
        for i in np.ndindex(array.shape):
            moved = array.astype(complex)
            moved[i] += 1e-200j
            found[name][i] = loss({**arguments, name: moved}).imag / 1e-200
    return found


def everything(params, x, h0):
    return {**params._asdict(), "x": x, "h0": h0}


def complex_params(params, arguments):
    return type(params)(*(arguments[name].astype(complex) for name in params._fields))


def assert_close(grads, expected):
    """Some thousand operations on numbers of order one, each off by one unit of 1.1e-16."""
    for name, slope in expected.items():
        np.testing.assert_allclose(getattr(grads, name), slope, rtol=0, atol=1e-12, err_msg=name)


@EVERY_CELL
@EVERY_BATCH
def test_every_gradient_is_the_slope_of_the_loss(cell, batch):
    params, x, target, h0 = problem(cell, batch, steps=4)

    def loss(a):
        return ((mb.forward(complex_params(params, a), a["x"], a["h0"]).y - target) ** 2).sum()

    _, grads = mb.loss_and_gradients(params, x, target, h0=h0)
    assert grads._fields == (*params._fields, "x", "h0")
    assert_close(grads, slopes(loss, everything(params, x, h0)))


@pytest.mark.parametrize("cell", STEPS)
def test_every_gradient_is_the_slope_of_the_equations(cell):
    params, x, target, h0 = problem(cell)

    def loss(a):
        y = by_loops(cell, complex_params(params, a), a["x"], a["h0"])[1]
        return ((y - target) ** 2).sum()

    _, grads = mb.loss_and_gradients(params, x, target, h0=h0)
    assert_close(grads, slopes(loss, everything(params, x, h0)))


@EVERY_CELL
@EVERY_BATCH
def test_the_gradient_in_a_state_is_that_in_the_initial_state_of_the_rest(cell, batch):
    params, x, target, h0 = problem(cell, batch)
    trace = mb.forward(params, x, h0)
    _, dy = mb.squared_error(trace.y, target)
    dh = mb.hidden_gradients(params, trace, dy, dh_last=h0)
    np.testing.assert_allclose(dh[T], h0 + dy[-1] @ params.V, atol=1e-14)
    for t in range(T):
        rest = mb.Trace(trace.x[t:], trace.h[t:], trace.y[t:])
        at_t = mb.backward(params, rest, dy[t:], dh_last=h0).h0
        np.testing.assert_allclose(dh[t], at_t + (dy[t - 1] @ params.V if t else 0), atol=1e-13)


@EVERY_CELL
@EVERY_BATCH
def test_halves_of_a_sequence_add_up_where_dh_last_joins_them(cell, batch):
    params, x, target, h0 = problem(cell, batch)
    trace = mb.forward(params, x, h0)
    _, dy = mb.squared_error(trace.y, target)
    whole = mb.backward(params, trace, dy)
    first, second = (
        mb.Trace(trace.x[of_x], trace.h[of_h], trace.y[of_x])
        for of_x, of_h in ((slice(3), slice(4)), (slice(3, T), slice(3, T + 1)))
    )
    late = mb.backward(params, second, dy[3:])
    early = mb.backward(params, first, dy[:3], dh_last=late.h0)
    for name in params._fields:
        both = getattr(early, name) + getattr(late, name)
        np.testing.assert_allclose(both, getattr(whole, name), atol=1e-13, err_msg=name)
    np.testing.assert_allclose(np.concatenate([early.x, late.x]), whole.x, atol=1e-13)
    np.testing.assert_allclose(early.h0, whole.h0, atol=1e-13)


@EVERY_CELL
def test_a_single_sequence_is_a_batch_of_one(cell):
    params, x, target, h0 = problem(cell)
    value, single = mb.loss_and_gradients(params, x, target, h0=h0)
    of_batch, batch = mb.loss_and_gradients(params, x[:, None], target[:, None], h0=h0[None])
    assert of_batch == pytest.approx(value, rel=1e-14)
    axis = {"x": 1, "h0": 0}
    for name, one in single._asdict().items():
        other = getattr(batch, name)
        other = other.squeeze(axis[name]) if name in axis else other
        np.testing.assert_allclose(one, other, atol=1e-13, err_msg=name)


# Ways of computing -------------------------------------------------------------------------------


@EVERY_CELL
def test_checkpoints_and_an_executor_change_no_bit(cell, monkeypatch):
    monkeypatch.setattr(blocks, "BLOCK_STEPS", 3)
    for batch in ((), (4,)):
        params, x, target, h0 = problem(cell, batch, steps=20)
        expected = mb.loss_and_gradients(params, x, target, h0=h0)
        trace = mb.forward(params, x, h0)
        grads = mb.backward(params, trace, mb.squared_error(trace.y, target)[1])
        assert_same_bits((expected[0], grads), expected)
        with ThreadPoolExecutor(2) as executor:
            for options in (
                {"checkpoint_every": 1},
                {"checkpoint_every": "sqrt"},
                {"workers": 1},
                {"workers": executor, "checkpoint_every": "sqrt"},
            ):
                found = mb.loss_and_gradients(params, x, target, h0=h0, **options)
                assert_same_bits(found, expected)
                assert type(found[1]) is type(expected[1])


@EVERY_CELL
def test_threads_share_a_batch_and_add_up_to_its_gradient(cell):
    params, x, target, h0 = problem(cell, (4,))
    value, expected = mb.loss_and_gradients(params, x, target, h0=h0)
    of_threads, grads = mb.loss_and_gradients(params, x, target, h0=h0, workers=3)
    assert of_threads == pytest.approx(value, rel=1e-14)
    assert_close(grads, expected._asdict())


@EVERY_CELL
def test_parameters_gradients_and_traces_can_be_pickled(cell):
    """Workers on other machines get the parameters and return gradients."""
    params, x, target, h0 = problem(cell)
    for sent in (params, mb.loss_and_gradients(params, x, target)[1], mb.forward(params, x, h0)):
        got = pickle.loads(pickle.dumps(sent))
        assert type(got) is type(sent)
        assert all(map(np.array_equal, got, sent))


@EVERY_CELL
@pytest.mark.parametrize("dtype", [np.float32, np.longdouble, np.complex128])
def test_results_carry_the_dtype_of_the_parameters(cell, dtype):
    params, x, target, h0 = problem(cell, (4,), dtype=dtype)
    value, grads = mb.loss_and_gradients(params, x, target, h0=h0)
    assert {a.dtype for a in (value, *grads, *mb.forward(params, x, h0))} == {np.dtype(dtype)}


@EVERY_CELL
def test_arguments_are_not_written_to(cell):
    params, x, target, h0 = problem(cell, (4,))
    for array in (*params, x, target, h0):
        array.flags.writeable = False
    trace = mb.forward(params, x, h0)
    for array in trace:
        array.flags.writeable = False
    _, dy = mb.squared_error(trace.y, target)
    dy.flags.writeable = False
    mb.backward(params, trace, dy, dh_last=h0)
    mb.hidden_gradients(params, trace, dy, dh_last=h0)
    mb.loss_and_gradients(params, x, target, h0=h0)


@EVERY_CELL
def test_the_candidate_takes_any_object_with_the_fields_of_the_cell(cell):
    params, x, target, h0 = problem(cell)

    class Holder:
        """An object of the caller's."""

    holder = Holder()
    holder.__dict__ |= params._asdict()
    for options in ({}, {"checkpoint_every": 1}):
        found = candidate(mb.squared_error, cell=cell, **options)(holder, x, h0, target)
        _, grads = mb.loss_and_gradients(params, x, target, h0=h0)
        assert set(found) == {*grads._fields} | (set() if options else {"h", "states"})
        assert all(np.array_equal(found[name], grad) for name, grad in grads._asdict().items())
    missing = params._fields[-1]
    del holder.__dict__[missing]
    with pytest.raises(TypeError, match=f"^params is a Holder; expected .* and {missing}$"):
        candidate(cell=cell)(holder, x, h0, target)


@EVERY_CELL
def test_the_cell_is_that_of_the_type_of_the_parameters_or_the_one_it_is_derived_from(cell):
    kind = mb.CELLS[cell].Params
    derived = type("Own", (kind,), {})
    assert cell_of(problem(cell)[0]) is mb.CELLS[cell]
    assert cell_of(derived(*kind._fields)) is mb.CELLS[cell]


@EVERY_CELL
def test_only_the_labs_cell_has_a_compiled_kernel(cell):
    params, x, target, _ = problem(cell)
    if cell == "tanh":
        pytest.importorskip("numba")
        mb.loss_and_gradients(params, x, target, kernel="numba")
        return
    message = f'kernel "numba" is there for the cell tanh; params are those of {cell}'
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        mb.loss_and_gradients(params, x, target, kernel="numba")


# Beside the gradients ----------------------------------------------------------------------------


@EVERY_CELL
@pytest.mark.parametrize("optimizer", [SGD(momentum=0.9, nesterov=True), Adam(weight_decay=0.1)])
def test_an_optimizer_trains_it(cell, optimizer):
    _, x, target, _ = problem(cell, (8,))
    params = mb.init_params(D, H, O, cell=cell, rng=0)
    settings = Settings(
        steps=60, batch_size=8, optimizer=optimizer, schedule=Constant(0.01), max_norm=1.0
    )
    training = train(params, ArraySequences(x, target), settings, loss=mb.squared_error)
    assert type(training.best) is type(params)
    losses = [step.loss for step in training.steps]
    assert losses[-1] < 0.7 * losses[0]


@pytest.mark.parametrize("cell", sorted({*mb.CELLS} - {"tanh"}))
def test_what_is_of_the_lab_alone_refuses_the_parameters_of_another_cell(cell, tmp_path):
    params, x, target, h0 = problem(cell)
    training = begin(params, Settings(steps=1, batch_size=1))
    message = f"^params are those of the cell {cell}; expected the lab's network, Params$"
    for refuses in (
        lambda: interop.to_torch(params),
        lambda: interop.to_keras(params),
        lambda: interop.to_flax(params),
        lambda: interop.save_safetensors(tmp_path / "a.safetensors", params),
        lambda: save_training(tmp_path / "a.npz", training),
        lambda: save_model(tmp_path / "a.npz", Model(params, *[None] * 6)),
        lambda: equations.unroll(params, x, target, h0),
    ):
        with pytest.raises(TypeError, match=message):
            refuses()
    assert not [*tmp_path.iterdir()]


# Shapes, and where training starts ---------------------------------------------------------------


@EVERY_CELL
def test_a_parameter_of_a_wrong_shape_is_named_with_its_axes(cell):
    params, x, *_ = problem(cell)
    for name, axes in axes_of(mb.CELLS[cell]).items():
        right = getattr(params, name)
        units = [axis for axis, (_, letter) in enumerate(factors(axes)) if letter == "H"]
        short = [np.delete(right, 0, axis) for axis in units]
        for wrong in (*short, right[..., None], right[:0], np.array(1.0)):
            expected = f"params.{name} has shape {wrong.shape}; expected {in_letters(axes)} "
            with pytest.raises(ValueError, match=f"^{re.escape(expected)}(=|with) "):
                mb.forward(params._replace(**{name: wrong}), x)


@EVERY_CELL
def test_each_gate_starts_from_an_orthogonal_matrix_and_biases_of_zero(cell):
    params = mb.init_params(400, 60, 3, cell=cell, rng=0, dtype=np.float32)
    assert type(params) is mb.CELLS[cell].Params
    for name, axes in axes_of(mb.CELLS[cell]).items():
        array = getattr(params, name)
        assert array.dtype == np.float32
        assert array.shape == shape_of(axes, {"D": 400, "H": 60, "O": 3})
        if len(array.shape) == 1:
            assert not array.any()
        elif axes.endswith("HH"):
            gates = array.reshape(-1, 60, 60)
            of_gates = gates @ gates.transpose(0, 2, 1)
            np.testing.assert_allclose(of_gates, [np.eye(60)] * len(gates), atol=1e-5)
        else:
            assert array.std() == pytest.approx(array.shape[1] ** -0.5, rel=0.2)


@pytest.mark.parametrize("cell", ["lstm", "", None, ["gru"]])
def test_a_cell_that_is_not_there_is_refused_with_the_names_of_those_that_are(cell):
    error = ValueError if isinstance(cell, str) else TypeError
    expected = f"cell is {cell!r}; expected one of {', '.join(mb.CELLS)}"
    with pytest.raises(error, match=f"^{re.escape(expected)}$"):
        mb.init_params(1, 1, 1, cell=cell)


# What overflows ----------------------------------------------------------------------------------


@EVERY_CELL
@pytest.mark.parametrize("name", ["W", "U", "b", "bh"])
@pytest.mark.parametrize("steps", [1, T])
def test_what_overflows_is_never_a_plausible_state_or_gradient(steps, cell, name):
    """A saturated unit would make 1 or 0 of an infinity: its gradient must not be a mere zero."""
    params, x, target, h0 = problem(cell, (4,), steps)
    if name not in params._fields:
        return
    large = np.full_like(getattr(params, name), -np.finfo(float).max)
    params, h0 = params._replace(**{name: large}), np.abs(h0) + 1
    x = np.abs(x) + 1
    with np.errstate(over="ignore"):
        if name == "b":
            params = params._replace(U=-np.finfo(float).max * np.ones_like(params.U))
        trace = mb.forward(params, x, h0, check_finite=False)
        dy = np.ones_like(target)
        grads = mb.backward(params, trace, dy, check_finite=False)
    assert not np.isfinite(trace.h[1:]).any()
    assert not np.isfinite(grads.U).any()


def test_relu_has_no_slope_at_zero():
    params = mb.CELLS["relu"].Params(*(np.eye(1), np.eye(1), np.zeros(1), np.eye(1), np.zeros(1)))
    for x, slope in ((-1.0, 0.0), (0.0, 0.0), (5e-324, 1.0), (1.0, 1.0)):
        trace = mb.forward(params, [[x]])
        assert mb.backward(params, trace, [[1.0]]).x == slope


def test_a_gradient_that_has_overflowed_does_not_pass_a_unit_at_rest():
    params = mb.CELLS["relu"].Params(*(np.eye(1), np.eye(1), np.zeros(1), np.eye(1), np.zeros(1)))
    trace = mb.forward(params, [[-1.0], [1.0]])
    grads = mb.backward(params, trace, [[0.0], [np.inf]], check_finite=False)
    assert grads.x.tolist() == [[0.0], [np.inf]]
    assert grads.h0 == 0


@pytest.mark.parametrize("cell", ["gru", "gru_reset_after"])
def test_gates_that_are_all_but_shut_keep_their_digits(cell):
    """sigma(-40) is 4.2e-18: taken from the other end, 1 - sigma(40), it would be zero."""
    params, x, _, h0 = problem(cell)
    b = np.repeat([0.0, -40.0, 0.0], H)  # z is all but zero
    params = params._replace(b=b, W=0 * params.W, U=0 * params.U)
    z = sigma(np.float64(-40.0))
    assert 0 < z < 1e-17
    _, dy = mb.squared_error(mb.forward(params, x, h0).y, np.zeros((T, O)))
    trace = mb.forward(params, x, h0)
    grads = mb.backward(params, trace, dy)
    np.testing.assert_allclose(grads.h0, z * (dy[0] @ params.V), rtol=1e-13)
