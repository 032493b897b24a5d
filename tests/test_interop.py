"""Parameters and gradients in the layouts of torch, Keras and Flax, and safetensors files.

The libraries themselves are asked where they are installed; elsewhere those tests are skipped.
"""

import json
import os
import re
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from rounding import gamma, rounding_bounds

import manual_bptt as mb
from manual_bptt.interop import (
    from_flax,
    from_keras,
    from_torch,
    gradients_to_torch,
    load_safetensors,
    save_safetensors,
    to_flax,
    to_keras,
    to_torch,
)

T, B, D, H, O = 6, 3, 3, 5, 2
DTYPES = [np.float32, np.float64]
PARAMS = mb.init_params(D, H, O, rng=0)


def ones(*shape):
    return np.ones(shape)


# --- helpers -------------------------------------------------------------------------------------


@st.composite
def networks(draw, dtype):
    """Draw parameters of all sizes and finite values: signed zeros, subnormals, the largest."""
    D, H, O = (draw(st.integers(1, 4)) for _ in range(3))
    numbers = st.floats(allow_nan=False, allow_infinity=False, width=8 * np.dtype(dtype).itemsize)
    shapes = [(H, H), (H, D), (H,), (O, H), (O,)]
    return mb.Params(*(draw(arrays(dtype, shape, elements=numbers)) for shape in shapes))


def assert_same_bits(one, other, where=""):
    for name, a, b in zip(mb.Params._fields, one, other, strict=True):
        assert a.dtype == b.dtype, (where, name)
        assert a.shape == b.shape, (where, name)
        assert a.tobytes() == b.tobytes(), (where, name)


def prefixed(prefix, state):
    return {f"{prefix}{name}": value for name, value in state.items()}


def leaves(tree):
    """Return the arrays in nested dicts, lists and tuples, in order."""
    if isinstance(tree, dict):
        return [a for key in sorted(tree) for a in leaves(tree[key])]
    if isinstance(tree, list | tuple):
        return [a for part in tree for a in leaves(part)]
    return [tree]


def problem(dtype, seed=0):
    """Return (params, x, h0, dy): a contraction, and so one whose rounding errors stay small.

    No row of W has magnitudes that add up to more than 1/2, and no state leaves [-1, 1].
    """
    rng = np.random.default_rng(seed)
    W = rng.uniform(-1, 1, (H, H))
    W *= 0.49 / np.abs(W).sum(axis=1, keepdims=True)
    U, V = rng.uniform(-1, 1, (H, D)), rng.uniform(-1, 1, (O, H))
    b, c = rng.uniform(0.1, 1, H), rng.uniform(-1, 1, O)
    shapes = (T, B, D), (B, H), (T, B, O)
    drawn = W, U, b, V, c, *(rng.uniform(-1, 1, shape) for shape in shapes)
    W, U, b, V, c, x, h0, dy = (a.astype(dtype) for a in drawn)
    return mb.Params(W, U, b, V, c), x, h0, dy


def output_bound(params, x, u):
    """Bound the rounding error of y, to first order, where no row of |W| exceeds 1/2 in sum.

    Each step errs by gamma_n times its terms and by 4 u in tanh, and passes on at most half of what
    it was given, so that no state errs by more than twice that.
    """
    W, U, b, V, c = (np.abs(p) for p in params)
    terms = (W.sum(axis=1) + U.sum(axis=1) * np.abs(x).max() + b).max()
    e_h = 2 * (gamma(D + H + 2, u) * terms + 4 * u)
    return V.sum(axis=1) * e_h + gamma(H + 1, u) * (V.sum(axis=1) + c)


def gradients_by_hand(params, x, h0, dy):
    """Return the gradients of sum(dy * y)."""
    return mb.backward(params, mb.forward(params, x, h0), dy)


def assert_only_rounding_differs(case, y, gradients, laid_out, tanh=4):
    """Compare what a library computed of sum(dy * y) with what we do, in its own layout.

    gradients are (those in its parameters, that in x, that in h0), and laid_out lays out ours like
    the first. Ours may err by the bounds of ``rounding.py``, which allow 4 u of error in tanh;
    theirs by as much more as their tanh may.
    """
    params, x, h0, dy = case
    u = np.finfo(x.dtype).eps / 2
    slack = 1 + tanh / 4
    ours = mb.forward(params, x, h0).y
    wide = mb.Params(*(p.astype(float) for p in params)), *(a.astype(float) for a in (x, h0, dy))
    assert y.dtype == x.dtype
    assert (np.abs(y - ours) <= slack * output_bound(*wide[:2], u)).all()
    grads = gradients_by_hand(*case)
    bounds = mb.Gradients(**rounding_bounds(*wide, u=u))
    expected, allowed = ([laid_out(g), g.x, g.h0] for g in (grads, bounds))
    triples = [leaves(tree) for tree in (expected, [*gradients], allowed)]
    assert len(triples[0]) > len(mb.Gradients._fields) - 1
    for mine, theirs, bound in zip(*triples, strict=True):
        assert mine.dtype == theirs.dtype
        assert mine.shape == theirs.shape
        assert (np.abs(mine - theirs) <= slack * bound).all()


# --- layouts and round trips ---------------------------------------------------------------------


def both_in_one_state_dict(params):
    rnn, linear = to_torch(params)
    return from_torch(prefixed("model.rnn.", rnn) | prefixed("fc.", linear))


def both_in_one_model(params):
    rnn, dense = to_keras(params)
    return from_keras(rnn + dense)


def both_in_one_tree(params):
    rnn, dense = to_flax(params)
    return from_flax({"params": {"SimpleCell_0": rnn, "Dense_0": dense}})


def both_in_one_nnx_tree(params):
    rnn, dense = to_flax(params)
    return from_flax({"rnn": {"cell": prefixed("dense_", rnn)}, "layers": {0: dense}})


ROUND_TRIPS = {
    "torch": lambda params: from_torch(*to_torch(params)),
    "Keras": lambda params: from_keras(*to_keras(params)),
    "Flax": lambda params: from_flax(*to_flax(params)),
    "torch, one module": both_in_one_state_dict,
    "Keras, one model": both_in_one_model,
    "Flax, one module": both_in_one_tree,
    "Flax NNX, one module": both_in_one_nnx_tree,
}


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_round_trip_through_any_layout_gives_back_every_bit(dtype):
    @given(networks(dtype))
    def holds(params):
        for layout, round_trip in ROUND_TRIPS.items():
            assert_same_bits(round_trip(params), params, layout)

    holds()


def test_torch_has_every_array_as_we_have_it_and_a_second_bias_of_zeros():
    W, U, b, V, c = PARAMS._replace(b=np.arange(5.0))
    rnn, linear = to_torch(mb.Params(W, U, b, V, c))
    expected = {"weight_ih_l0": U, "weight_hh_l0": W, "bias_ih_l0": b, "bias_hh_l0": np.zeros(H)}
    assert rnn.keys() == expected.keys()
    assert all((rnn[k] == expected[k]).all() for k in expected)
    assert linear.keys() == {"weight", "bias"}
    assert (linear["weight"] == V).all()
    assert (linear["bias"] == c).all()


def test_keras_and_flax_have_transposed_kernels():
    W, U, b, V, c = PARAMS
    (kernel, recurrent, bias), (readout, readout_bias) = to_keras(PARAMS)
    for theirs, ours in ((kernel, U), (recurrent, W), (readout, V)):
        assert np.array_equal(theirs, ours.T)
    for theirs, ours in ((bias, b), (readout_bias, c)):
        assert np.array_equal(theirs, ours)
    rnn, dense = to_flax(PARAMS)
    assert {k: sorted(v) for k, v in rnn.items()} == {"i": ["bias", "kernel"], "h": ["kernel"]}
    flat = [rnn["i"]["kernel"], rnn["h"]["kernel"], rnn["i"]["bias"], *dense.values()]
    assert list(dense) == ["kernel", "bias"]
    for theirs, keras in zip(flat, leaves(to_keras(PARAMS)), strict=True):
        assert np.array_equal(theirs, keras)


def test_both_biases_of_torch_are_summed():
    rnn, linear = to_torch(PARAMS)
    rnn |= {"bias_ih_l0": np.arange(5.0), "bias_hh_l0": np.full(5, 10.0)}
    assert from_torch(rnn, linear).b.tolist() == [10, 11, 12, 13, 14]


@given(arrays(np.float32, 4), arrays(np.float32, 4))
def test_the_sum_of_biases_is_that_of_their_dtype_except_for_the_sign_of_zero(one, other):
    rnn, linear = to_torch(mb.init_params(2, 4, 1, rng=0, dtype=np.float32))
    rnn |= {"bias_ih_l0": one, "bias_hh_l0": other}
    with np.errstate(all="ignore"):
        total = one + other
    if np.isfinite(total).all():
        b = from_torch(rnn, linear).b
        assert b.dtype == np.float32
        assert (b == total).all()
    else:
        with pytest.raises(ValueError, match=r"bias_[ih]h_l0'\] holds .*; expected finite float32"):
            from_torch(rnn, linear)


WITHOUT_BIASES = {
    "torch": lambda: from_torch({"weight_ih_l0": PARAMS.U, "weight_hh_l0": PARAMS.W},
                                {"weight": PARAMS.V}),
    "torch, one module": lambda: from_torch(
        {"0.weight_ih_l0": PARAMS.U, "0.weight_hh_l0": PARAMS.W, "1.weight": PARAMS.V}),
    "Keras": lambda: from_keras([PARAMS.U.T, PARAMS.W.T], [PARAMS.V.T]),
    "Keras, one model": lambda: from_keras([PARAMS.U.T, PARAMS.W.T, PARAMS.V.T]),
    "Flax": lambda: from_flax({"i": {"kernel": PARAMS.U.T}, "h": {"kernel": PARAMS.W.T}},
                              {"kernel": PARAMS.V.T}),
}  # fmt: skip


@pytest.mark.parametrize("layout", WITHOUT_BIASES)
def test_biases_that_are_missing_are_zeros(layout):
    assert_same_bits(WITHOUT_BIASES[layout](), PARAMS._replace(b=np.zeros(H), c=np.zeros(O)))


def test_keras_weights_may_lack_either_bias_alone():
    (kernel, recurrent, bias), (readout, readout_bias) = to_keras(
        PARAMS._replace(b=ones(H), c=ones(O))
    )
    first = from_keras([kernel, recurrent, bias, readout])
    assert (first.b.tolist(), first.c.tolist()) == ([1] * H, [0] * O)
    second = from_keras([kernel, recurrent, readout, readout_bias])
    assert (second.b.tolist(), second.c.tolist()) == ([0] * H, [1] * O)


def test_a_cell_of_torch_names_no_layer():
    rnn, linear = to_torch(PARAMS)
    cell = {name.removesuffix("_l0"): value for name, value in rnn.items()}
    assert_same_bits(from_torch(prefixed("cell.", cell) | prefixed("out.", linear)), PARAMS)


def test_the_gradient_in_either_bias_of_torch_is_that_in_their_sum():
    grads = gradients_by_hand(*problem(np.float64))
    rnn, linear = gradients_to_torch(grads)
    assert np.array_equal(rnn["bias_ih_l0"], grads.b)
    assert np.array_equal(rnn["bias_hh_l0"], grads.b)
    assert not np.shares_memory(rnn["bias_ih_l0"], rnn["bias_hh_l0"])
    assert np.array_equal(rnn["weight_hh_l0"], grads.W)
    assert np.array_equal(linear["weight"], grads.V)


CONVERSIONS = {
    "to_torch": (to_torch, PARAMS),
    "gradients_to_torch": (gradients_to_torch, PARAMS),
    "to_keras": (to_keras, PARAMS),
    "to_flax": (to_flax, PARAMS),
    "from_torch": (lambda tree: from_torch(*tree), to_torch(PARAMS)),
    "from_keras": (lambda tree: from_keras(*tree), to_keras(PARAMS)),
    "from_flax": (lambda tree: from_flax(*tree), to_flax(PARAMS)),
}


@pytest.mark.parametrize("name", CONVERSIONS)
def test_inputs_are_never_written_to_and_results_share_no_memory_with_them(name):
    convert, tree = CONVERSIONS[name]
    inputs = leaves(tree)
    before = [a.copy() for a in inputs]
    for a in inputs:
        a.flags.writeable = False
    try:
        results = leaves(convert(tree))
    finally:
        for a in inputs:
            a.flags.writeable = True
    assert not any(np.shares_memory(a, r) for a in inputs for r in results)
    assert all(r.flags.writeable and r.flags.c_contiguous for r in results)
    assert all(np.array_equal(a, b) for a, b in zip(inputs, before, strict=True))


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.longdouble, np.complex128, ">f8"])
def test_dtypes_stay_in_native_byte_order(dtype):
    params = mb.Params(*(p.astype(dtype) for p in PARAMS))
    native = np.dtype(dtype).newbyteorder("=")
    trees = to_torch(params), to_keras(params), to_flax(params)
    assert {a.dtype for tree in trees for a in leaves(tree)} == {native}
    for convert, (rnn, readout) in zip((from_torch, from_keras, from_flax), trees, strict=True):
        assert {a.dtype for a in convert(rnn, readout)} == {native}


def test_converting_imports_no_other_library():
    code = (
        "import sys, manual_bptt as mb; from manual_bptt.interop import *;"
        "p = mb.init_params(3, 4, 2, rng=0);"
        "from_torch(*to_torch(p)), from_keras(*to_keras(p)), from_flax(*to_flax(p));"
        "loaded = {'torch', 'keras', 'flax', 'jax', 'safetensors'} & set(sys.modules);"
        "assert not loaded, loaded"
    )
    root = Path(__file__).resolve().parents[1]
    subprocess.run([sys.executable, "-c", code], check=True, cwd=root)


# --- torch itself --------------------------------------------------------------------------------


def torch_layers(dtype, **options):
    torch = pytest.importorskip("torch", reason="torch is not installed")
    kind = torch.float32 if dtype == np.float32 else torch.float64
    rnn = torch.nn.RNN(D, H, dtype=kind, **options)
    return torch, rnn, torch.nn.Linear(H, O, dtype=kind)


def loaded(torch, layer, state):
    layer.load_state_dict({name: torch.from_numpy(array) for name, array in state.items()})


def torch_problem(dtype):
    """Return our problem and torch's layers: both of their biases are above 0, so none cancels."""
    torch, rnn, linear = torch_layers(dtype)
    params, x, h0, dy = problem(dtype)
    state, readout = to_torch(params)
    state["bias_hh_l0"] = np.linspace(0.1, 1, H).astype(dtype)
    loaded(torch, rnn, state)
    loaded(torch, linear, readout)
    params = from_torch(rnn.state_dict(), linear.state_dict())
    return torch, rnn, linear, (params, x, h0, dy)


@pytest.mark.parametrize("dtype", DTYPES)
def test_torch_computes_the_same_outputs_and_gradients(dtype):
    torch, rnn, linear, case = torch_problem(dtype)
    x, h0, dy = (torch.tensor(a, requires_grad=True) for a in case[1:])
    y = linear(rnn(x, h0[None])[0])
    (y * dy.detach()).sum().backward()
    theirs = [
        {name: p.grad.numpy() for name, p in layer.named_parameters()} for layer in (rnn, linear)
    ]
    gradients = theirs, x.grad.numpy(), h0.grad.numpy()
    assert_only_rounding_differs(case, y.detach().numpy(), gradients, gradients_to_torch)
    assert [*map(sorted, theirs)] == [*map(sorted, gradients_to_torch(gradients_by_hand(*case)))]


@pytest.mark.parametrize("dtype", DTYPES)
def test_torch_loads_what_we_give_and_computes_the_same_outputs(dtype):
    torch, rnn, linear = torch_layers(dtype)
    params, x, h0, _ = problem(dtype, seed=1)
    for layer, state in zip((rnn, linear), to_torch(params), strict=True):
        loaded(torch, layer, state)
    with torch.no_grad():
        y = linear(rnn(torch.tensor(x), torch.tensor(h0)[None])[0]).numpy()
    bound = output_bound(params, x, np.finfo(dtype).eps / 2)
    assert (np.abs(y - mb.forward(params, x, h0).y) <= 2 * bound).all()


def test_torch_parameters_that_require_gradients_are_read_and_share_no_memory():
    _, rnn, linear, (params, *_) = torch_problem(np.float32)
    state, readout = dict(rnn.named_parameters()), dict(linear.named_parameters())
    read = from_torch(state, readout)
    assert_same_bits(read, params)
    assert not np.shares_memory(read.W, state["weight_hh_l0"].detach().numpy())


@pytest.mark.parametrize("wrap", ["plain", "DataParallel"])
def test_torch_modules_of_both_layers_are_read_under_any_prefix(wrap):
    torch, rnn, linear, (params, *_) = torch_problem(np.float32)
    module = torch.nn.ModuleDict({"encoder": rnn, "decoder": linear})
    wrapped = module if wrap == "plain" else torch.nn.DataParallel(module)
    assert_same_bits(from_torch(wrapped.state_dict()), params)


def test_torch_layers_without_biases_are_read_and_a_cell():
    torch, rnn, _ = torch_layers(np.float32, bias=False)
    linear, cell = torch.nn.Linear(H, O, bias=False), torch.nn.RNNCell(D, H)
    params = from_torch(rnn.state_dict(), linear.state_dict())
    assert not params.b.any()
    assert not params.c.any()
    read = from_torch(cell.state_dict(), linear.state_dict())
    assert np.array_equal(read.W, cell.weight_hh.detach().numpy())
    assert np.array_equal(read.b, (cell.bias_ih + cell.bias_hh).detach().numpy())


OTHER_TORCH_NETWORKS = {
    "two layers": (lambda nn: nn.RNN(D, H, num_layers=2), "rnn['weight_ih_l1'] has no place"),
    "two directions": (
        lambda nn: nn.RNN(D, H, bidirectional=True), "rnn['weight_ih_l0_reverse'] has no place"
    ),
    "a projection": (lambda nn: nn.LSTM(D, H, proj_size=2), "rnn['weight_hr_l0'] has no place"),
    "an LSTM": (lambda nn: nn.LSTM(D, H), "expected (H, H) with H at least 1; 4 H is what an LSTM"),
    "a GRU": (lambda nn: nn.GRU(D, H), "expected (H, H) with H at least 1; 3 H is what a GRU"),
    "a GRU's cell": (lambda nn: nn.GRUCell(D, H), "rnn['weight_hh'] has shape (15, 5); expected"),
    "a linear layer": (
        lambda nn: nn.Linear(D, H), "rnn holds ['weight', 'bias']; expected one weight_ih_l0"
    ),
}  # fmt: skip


@pytest.mark.parametrize("network", OTHER_TORCH_NETWORKS)
def test_other_networks_of_torch_are_refused(network):
    torch, _, linear = torch_layers(np.float32)
    make, message = OTHER_TORCH_NETWORKS[network]
    assert message in refusal(
        ValueError, from_torch, make(torch.nn).state_dict(), linear.state_dict()
    )


def test_torch_tensors_that_numpy_cannot_read_are_refused():
    _, rnn, linear = torch_layers(np.float32)
    state = rnn.state_dict()
    for tensor, message in (
        (state["weight_hh_l0"].bfloat16(), "rnn['weight_hh_l0'] is not an array: Got unsupported"),
        (state["weight_hh_l0"].to("meta"), "rnn['weight_hh_l0'] is not an array: "),
        (state["weight_hh_l0"].to_sparse(), "rnn['weight_hh_l0'] is not an array: "),
    ):
        bad = dict(state, weight_hh_l0=tensor)
        assert message in refusal(ValueError, from_torch, bad, linear.state_dict())
    half = {name: tensor.half() for name, tensor in state.items()}
    half_linear = {name: tensor.half() for name, tensor in linear.state_dict().items()}
    assert "is float16; expected float32" in refusal(TypeError, from_torch, half, half_linear)
    assert "rnn is a RNN; expected a state dict" in refusal(TypeError, from_torch, rnn)


# --- Keras itself --------------------------------------------------------------------------------


# Keras asks JAX's arrays for a copy in a way that NumPy deprecates.
KERAS_COPIES = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


@pytest.fixture
def keras(monkeypatch):
    monkeypatch.setenv("KERAS_BACKEND", "jax")  # for the first import
    keras = pytest.importorskip("keras", reason="keras is not installed")
    if keras.backend.backend() != "jax":
        pytest.skip("keras was imported with another backend than JAX")
    return keras


def keras_layers(keras, params):
    rnn, dense = keras.layers.SimpleRNN(H, return_sequences=True), keras.layers.Dense(O)
    rnn.build((B, T, D))
    dense.build((B, T, H))
    for layer, weights in zip((rnn, dense), to_keras(params), strict=True):
        layer.set_weights(weights)
    return rnn, dense


@KERAS_COPIES
def test_keras_computes_the_same_outputs_and_gradients(keras):
    import jax

    case = params, x, h0, dy = problem(np.float32)  # Keras scans in no wider dtype on JAX
    rnn, dense = keras_layers(keras, params)
    seed = [v.value for v in rnn.non_trainable_variables]  # of a dropout that is not there

    def loss(weights, x, h0):
        h, _ = rnn.stateless_call(weights[0], seed, x.swapaxes(0, 1), initial_state=h0)
        y = dense.stateless_call(weights[1], [], h)[0].swapaxes(0, 1)
        return (y * dy).sum(), y

    weights = [[v.value for v in layer.trainable_variables] for layer in (rnn, dense)]
    assert_same_bits(from_keras(*weights), params)
    gradients, y = jax.grad(loss, argnums=(0, 1, 2), has_aux=True)(weights, x, h0)
    theirs, dx, dh0 = jax.tree.map(np.asarray, gradients)
    y = np.asarray(y)
    assert_only_rounding_differs(case, y, (theirs, dx, dh0), to_keras, tanh=8)  # as XLA's may err
    for again, came in zip(leaves(to_keras(from_keras(*theirs))), leaves(theirs), strict=True):
        assert np.array_equal(again, came)


@KERAS_COPIES
def test_keras_models_of_both_layers_are_read_and_others_refused(keras):
    layers = keras.layers
    params = problem(np.float32)[0]
    model = keras.Sequential([keras.Input((T, D)), *keras_layers(keras, params)])
    assert_same_bits(from_keras(model.get_weights()), params)
    assert_same_bits(from_keras(model.weights), params)
    unbiased = [layers.SimpleRNN(H, use_bias=False), layers.Dense(O, use_bias=False)]
    read = from_keras(keras.Sequential([keras.Input((T, D)), *unbiased]).get_weights())
    assert not read.b.any()
    assert not read.c.any()
    for first, message in (
        (layers.LSTM(H), "rnn[1] has shape (5, 20); expected (H, H) with H at least 1; 4 H"),
        (layers.GRU(H), "rnn[1] has shape (5, 15); expected (H, H) with H at least 1; 3 H"),
        (layers.Bidirectional(layers.SimpleRNN(H)), "rnn holds the shapes (3, 5), (5, 5), (5,), "),
    ):
        other = keras.Sequential([keras.Input((T, D)), first, layers.Dense(O)])
        assert message in refusal(ValueError, from_keras, other.get_weights())


# --- Flax itself ---------------------------------------------------------------------------------


@pytest.fixture
def flax():
    return pytest.importorskip("flax", reason="flax is not installed")


@pytest.mark.parametrize("dtype", DTYPES)
def test_flax_computes_the_same_outputs_and_gradients(flax, dtype):
    import jax
    from flax import linen

    class Network(linen.Module):
        @linen.compact
        def __call__(self, x, h0):
            cell = linen.SimpleCell(H)
            return linen.Dense(O)(linen.RNN(cell, time_major=True)(x, initial_carry=h0))

    def loss(variables, x, h0):
        y = Network().apply(variables, x, h0)
        return (y * dy).sum(), y

    case = params, x, h0, dy = problem(dtype)
    rnn, dense = to_flax(params)
    variables = {"params": {"SimpleCell_0": rnn, "Dense_0": dense}}
    with jax.enable_x64(dtype == np.float64):
        initial = Network().init(jax.random.key(0), x, h0)
        assert jax.tree.map(np.shape, initial) == jax.tree.map(np.shape, variables)
        assert from_flax(initial).W.shape == (H, H)
        derivative = jax.grad(loss, argnums=(0, 1, 2), has_aux=True)
        gradients, y = derivative(variables, x, h0)
    theirs, dx, dh0 = jax.tree.map(np.asarray, gradients)
    layers = theirs["params"]["SimpleCell_0"], theirs["params"]["Dense_0"]
    y = np.asarray(y)
    assert_only_rounding_differs(case, y, (layers, dx, dh0), to_flax, tanh=8)  # as XLA's may err
    for again, came in zip(leaves(to_flax(from_flax(theirs))), leaves(layers), strict=True):
        assert np.array_equal(again, came)


def test_flax_nnx_computes_the_same_outputs(flax):
    from flax import nnx

    class Network(nnx.Module):
        def __init__(self, rngs):
            self.cell = nnx.SimpleCell(D, H, rngs=rngs)
            self.rnn = nnx.RNN(self.cell, time_major=True, rngs=rngs)
            self.out = nnx.Linear(H, O, rngs=rngs)

    params, x, h0, _ = problem(np.float32)
    network, (rnn, dense) = Network(nnx.Rngs(0)), to_flax(params)
    nnx.update(network.cell, {f"dense_{k}": v for k, v in rnn.items()})
    nnx.update(network.out, dense)
    y = np.asarray(network.out(network.rnn(x, initial_carry=h0)))
    bound = output_bound(params, x, np.finfo(np.float32).eps / 2)
    assert (np.abs(y - mb.forward(params, x, h0).y) <= 3 * bound).all()
    assert_same_bits(from_flax(nnx.state(network, nnx.Param)), params)
    assert_same_bits(from_flax(nnx.state(network.cell), nnx.state(network.out)), params)


def test_other_cells_of_flax_are_refused(flax):
    import jax
    from flax import linen

    for cell, message in (
        (linen.GRUCell(H), "expected one i.kernel of a SimpleCell"),
        (linen.LSTMCell(H), "expected one i.kernel of a SimpleCell"),
    ):
        carry = cell.initialize_carry(jax.random.key(0), (B, D))
        variables = cell.init(jax.random.key(0), carry, ones(B, D))
        assert message in refusal(ValueError, from_flax, variables, to_flax(PARAMS)[1])


# --- what is refused -----------------------------------------------------------------------------


def refusal(error, function, *arguments):
    """Return the one line that function refuses its arguments with."""
    with pytest.raises(error) as caught:
        function(*arguments)
    assert type(caught.value) is error
    assert "\n" not in str(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__ or caught.value.__context__ is None
    return str(caught.value)


RNN, LINEAR = to_torch(PARAMS)
BOTH = prefixed("rnn.", RNN) | prefixed("fc.", LINEAR)
ENDLESS = {}
ENDLESS["self"] = ENDLESS


class Unreadable(dict):
    def items(self):
        raise RuntimeError("no")


def without(mapping, *names):
    return {name: value for name, value in mapping.items() if name not in names}


BAD_TORCH = [
    ((None,), TypeError, "rnn is a NoneType; expected a state dict"),
    ((RNN, [1]), TypeError, "linear is a list; expected a state dict"),
    ((Unreadable(),), TypeError, "rnn cannot be read; expected a state dict"),
    ((ENDLESS,), TypeError, "rnn cannot be read; expected a state dict"),
    (({},), ValueError, "rnn holds []; expected one weight_ih_l0 of an RNN"),
    ((LINEAR, RNN), ValueError,
     "rnn holds ['weight', 'bias']; expected one weight_ih_l0 of an RNN"),
    ((prefixed("a.", RNN) | prefixed("b.", RNN), LINEAR), ValueError,
     "rnn holds ['a.weight_ih_l0', 'b.weight_ih_l0']; expected one weight_ih_l0 of an RNN"),
    ((without(RNN, "weight_hh_l0"), LINEAR), ValueError,
     "rnn holds no weight_hh_l0; expected it beside weight_ih_l0"),
    ((without(BOTH, "rnn.bias_hh_l0"),), ValueError,
     "rnn holds no rnn.bias_hh_l0; expected it beside rnn.bias_ih_l0"),
    ((without(RNN, "bias_ih_l0"), LINEAR), ValueError,
     "rnn holds no bias_ih_l0; expected it beside bias_hh_l0"),
    ((RNN,), ValueError,
     "rnn, beside the recurrent layer, holds []; expected one weight of a Linear"),
    ((RNN, RNN), ValueError, "; expected one weight of a Linear"),
    ((BOTH | prefixed("head.", LINEAR),), ValueError,
     "rnn, beside the recurrent layer, holds ['fc.weight', 'head.weight']; expected one weight"),
    ((BOTH, LINEAR), ValueError, "rnn['fc.weight'] has no place in the network; expected one RNN"),
    ((RNN, LINEAR | {"steps": np.ones(1)}), ValueError,
     "linear['steps'] has no place in the network; expected one RNN of one layer and one"),
    ((RNN | {"weight_ih_l1": ones(H, H)}, LINEAR), ValueError,
     "rnn['weight_ih_l1'] has no place in the network"),
    ((BOTH | {"fc.weight": ones(O, H + 1)},), ValueError,
     "rnn['fc.weight'] has shape (2, 6); expected (O, H) with H = 5"),
    ((RNN | {"weight_ih_l0": ones(D, H)}, LINEAR), ValueError,
     "rnn['weight_ih_l0'] has shape (3, 5); expected (H, D) with H = 5"),
    ((RNN | {"weight_ih_l0": ones(H, 0)}, LINEAR), ValueError, "has shape (5, 0); expected (H, D)"),
    ((RNN | {"weight_hh_l0": ones(4 * H, H)}, LINEAR), ValueError,
     "rnn['weight_hh_l0'] has shape (20, 5); expected (H, H) with H at least 1; 4 H is what an"),
    ((RNN | {"weight_hh_l0": ones(0, 0)}, LINEAR), ValueError,
     "rnn['weight_hh_l0'] has shape (0, 0); expected (H, H) with H at least 1"),
    ((RNN | {"weight_hh_l0": ones(H)}, LINEAR), ValueError, "has shape (5,); expected (H, H)"),
    ((RNN | {"bias_hh_l0": ones(1)}, LINEAR), ValueError,
     "rnn['bias_hh_l0'] has shape (1,); expected (5,), as rnn['bias_ih_l0']"),
    ((RNN | {"bias_hh_l0": ones(3), "bias_ih_l0": ones(3)}, LINEAR), ValueError,
     "rnn['bias_ih_l0'] + rnn['bias_hh_l0'] has shape (3,); expected (H,) = (5,)"),
    ((RNN, LINEAR | {"bias": ones(3)}), ValueError,
     "linear['bias'] has shape (3,); expected (O,) = (2,)"),
    ((RNN, LINEAR | {"bias": np.array([0, np.nan])}), ValueError,
     "linear['bias'] holds nan at index (1,); expected finite float64 values"),
    ((RNN | {"bias_ih_l0": np.full(H, 1e308), "bias_hh_l0": np.full(H, 1e308)}, LINEAR), ValueError,
     "rnn['bias_ih_l0'] + rnn['bias_hh_l0'] holds inf at index (0,); expected finite float64"),
    ((RNN, LINEAR | {"bias": ["a", "b"]}), TypeError, "linear['bias'] has dtype <U1; expected num"),
    ((RNN, LINEAR | {"bias": None}), TypeError, "linear['bias'] has dtype object"),
    (({k: v.astype(int) for k, v in RNN.items()}, {"weight": ones(O, H).astype(int)}), TypeError,
     "the common dtype of rnn['weight_hh_l0'] and the rest is int64; expected float32, float64"),
]  # fmt: skip


@pytest.mark.parametrize(("arguments", "error", "message"), BAD_TORCH)
def test_from_torch_refuses(arguments, error, message):
    assert message in refusal(error, from_torch, *arguments)


K, R, BIAS = (a.copy() for a in to_keras(PARAMS)[0])
VK, C = (a.copy() for a in to_keras(PARAMS)[1])
FORM = "expected (D, H), (H, H), (H,) of one SimpleRNN and (H, O), (O,) of one Dense"
BAD_KERAS = [
    (({"kernel": K},), TypeError, "rnn is a dict; expected the list that get_weights() gives"),
    ((K,), TypeError, "rnn is a ndarray; expected the list"),
    (([K, R, BIAS], VK), TypeError, "dense is a ndarray; expected the list"),
    (([],), ValueError, f"rnn holds the shapes ; {FORM}"),
    (([K, R, BIAS],), ValueError, f"rnn holds the shapes (3, 5), (5, 5), (5,); {FORM}"),
    (([K, R, BIAS], [VK, C, C]), ValueError, "rnn and dense hold the shapes (3, 5), (5, 5), "),
    (([K, R, BIAS, VK, C, VK],), ValueError, FORM),
    (([K, R[:-1], BIAS], [VK, C]), ValueError, "rnn[1] has shape (4, 5); expected (H, H)"),
    (([ones(D, 3 * H), ones(H, 3 * H), ones(2, 3 * H)], [VK, C]), ValueError,
     "rnn[1] has shape (5, 15); expected (H, H) with H at least 1; 3 H is what a GRU has"),
    (([K.T, R, BIAS], [VK, C]), ValueError,
     "rnn[0] has shape (5, 3); expected (D, H) with H = 5"),
    (([K, R, BIAS], [VK.T, C]), ValueError,
     "dense[0] has shape (2, 5); expected (H, O) with H = 5"),
    (([K, R, BIAS[1:]], [VK, C]), ValueError, "rnn[2] has shape (4,); expected (H,) = (5,)"),
    (([K, R, BIAS], [VK, ones(3)]), ValueError, "dense[1] has shape (3,); expected (O,) = (2,)"),
    (([K, R * np.inf, BIAS], [VK, C]), ValueError, "rnn[1] holds"),
    (([K, R, BIAS], [VK, "c"]), TypeError, "dense[1] has dtype <U1; expected numbers"),
    (([np.float16(a) for a in (K, R, BIAS)], [np.float16(VK)]), TypeError,
     "the common dtype of rnn[1] and the rest is float16"),
]  # fmt: skip


@pytest.mark.parametrize(("arguments", "error", "message"), BAD_KERAS)
def test_from_keras_refuses(arguments, error, message):
    assert message in refusal(error, from_keras, *arguments)


CELL, DENSE = to_flax(PARAMS)
BAD_FLAX = [
    ((None,), TypeError, "rnn is a NoneType; expected a mapping of parameters"),
    ((CELL, 3), TypeError, "dense is a int; expected a mapping of parameters"),
    ((ENDLESS,), TypeError, "rnn cannot be read; expected a mapping of parameters"),
    ((DENSE, CELL), ValueError, "rnn holds ['kernel', 'bias']; expected one i.kernel"),
    (({"a": CELL, "b": CELL}, DENSE), ValueError,
     "rnn holds ['a.i.kernel', 'b.i.kernel']; expected one i.kernel of a SimpleCell"),
    (({"a": {"i": CELL["i"]}}, DENSE), ValueError,
     "rnn holds no a.h.kernel; expected it beside a.i.kernel"),
    ((CELL,), ValueError,
     "rnn, beside the recurrent layer, holds []; expected one kernel of a Dense"),
    (({"cell": CELL, "one": DENSE, "two": DENSE},), ValueError,
     "holds ['one.kernel', 'two.kernel']; expected one kernel of a Dense"),
    ((CELL, {"params": DENSE, "scale": ones(1)}), ValueError,
     "dense['scale'] has no place in the network; expected one SimpleCell and one Dense"),
    (({"i": {"kernel": K.T}, "h": CELL["h"]}, DENSE), ValueError,
     "rnn['i']['kernel'] has shape (5, 3); expected (D, H) with H = 5"),
    (({"params": {"dense_i": CELL["i"], "dense_h": {"kernel": ones(H, 3 * H)}}}, DENSE), ValueError,
     "rnn['params']['dense_h']['kernel'] has shape (5, 15); expected (H, H) with H at least 1; 3 H"
     " is what a GRU has"),
    ((CELL, {"kernel": VK.T}), ValueError,
     "dense['kernel'] has shape (2, 5); expected (H, O) with H = 5"),
    ((CELL, {"kernel": VK * np.nan}), ValueError, "dense['kernel'] holds nan at index (0, 0)"),
]  # fmt: skip


@pytest.mark.parametrize(("arguments", "error", "message"), BAD_FLAX)
def test_from_flax_refuses(arguments, error, message):
    assert message in refusal(error, from_flax, *arguments)


def to_a_file(params):
    return save_safetensors("never-written.safetensors", params)


@pytest.mark.parametrize("function", [to_torch, to_keras, to_flax, to_a_file])
@pytest.mark.parametrize(
    ("params", "error", "message"),
    [
        (None, TypeError, "params is a NoneType; expected Params, or an object with the attrib"),
        (PARAMS._replace(V=ones(H)), ValueError, "params.V has shape (5,); expected (O, H)"),
        (PARAMS._replace(W=ones(H, D)), ValueError, "params.W has shape (5, 3); expected (H, H)"),
        (PARAMS._replace(c=ones(3)), ValueError, "params.c has shape (3,); expected (O,) = (2,)"),
        (PARAMS._replace(b=np.full(H, np.inf)), ValueError,
         "params.b holds inf at index (0,); expected finite float64 values"),
        (mb.Params(*(p.astype(np.float16) for p in PARAMS)), TypeError, "is float16; expected"),
    ],
)  # fmt: skip
def test_bad_params_are_refused_on_the_way_out(function, params, error, message):
    assert message in refusal(error, function, params)


def test_gradients_are_refused_as_parameters_of_torch_and_bad_ones_at_all():
    grads = gradients_by_hand(*problem(np.float64))
    assert "expected Params (gradients_to_torch" in refusal(TypeError, to_torch, grads)
    assert "grads is a int; expected Gradients, or" in refusal(TypeError, gradients_to_torch, 1)
    bad = grads._replace(U=grads.U * np.nan)
    assert "grads.U holds nan at index (0, 0)" in refusal(ValueError, gradients_to_torch, bad)


# --- safetensors ---------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_file_gives_back_every_bit(dtype, tmp_path):
    path = tmp_path / "rnn.safetensors"

    @given(networks(dtype))
    def holds(params):
        save_safetensors(path, params)
        read = load_safetensors(str(path))
        assert_same_bits(read, params)
        assert all(a.flags.writeable for a in read)

    holds()
    assert os.listdir(tmp_path) == [path.name]


def test_a_file_holds_the_five_arrays_by_the_labs_letters(tmp_path):
    from safetensors.numpy import load_file

    path = tmp_path / "rnn.safetensors"
    save_safetensors(path, mb.Params(*(np.asfortranarray(p) for p in PARAMS)))
    held = load_file(path)
    assert_same_bits(mb.Params(**held), PARAMS)


@pytest.mark.parametrize(("where", "failing"), [(os, "fsync"), (Path, "replace")])
def test_a_file_is_written_whole_or_not_at_all(where, failing, tmp_path, monkeypatch):
    path = tmp_path / "rnn.safetensors"
    save_safetensors(path, PARAMS)

    def fails(*_):
        raise OSError("the disk is full")

    monkeypatch.setattr(where, failing, fails)
    with pytest.raises(OSError, match="the disk is full"):
        save_safetensors(path, mb.init_params(1, 1, 1, rng=0))
    monkeypatch.undo()
    assert os.listdir(tmp_path) == [path.name]
    assert_same_bits(load_safetensors(path), PARAMS)


def test_a_folder_that_is_not_there_and_a_folder_in_the_place_of_a_file_are_errors(tmp_path):
    with pytest.raises(FileNotFoundError, match="absent"):
        save_safetensors(tmp_path / "absent" / "rnn.safetensors", PARAMS)
    with pytest.raises(OSError, match=re.escape(str(tmp_path))):
        save_safetensors(tmp_path, PARAMS)
    with pytest.raises(FileNotFoundError, match="absent"):
        load_safetensors(tmp_path / "absent")
    with pytest.raises(OSError, match=re.escape(str(tmp_path))):
        load_safetensors(tmp_path)
    assert not any(tmp_path.iterdir())
    assert "path is 5; expected a str or a path" in refusal(TypeError, load_safetensors, 5)
    assert "path is None; expected" in refusal(TypeError, save_safetensors, None, PARAMS)


@pytest.mark.parametrize("dtype", [np.longdouble, np.complex128])
def test_dtypes_that_a_file_cannot_hold_are_refused(dtype, tmp_path):
    params = mb.Params(*(p.astype(dtype) for p in PARAMS))
    message = refusal(TypeError, save_safetensors, tmp_path / "rnn.safetensors", params)
    assert message.endswith(f"is {np.dtype(dtype)}; expected float32 or float64")


def file_of(arrays):
    """Return the bytes of a safetensors file, made by hand: a dict of (dtype, shape, data)."""
    header, data = {}, b""
    for name, (dtype, shape, content) in arrays.items():
        end = len(data) + len(content)
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [len(data), end]}
        data += content
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


FILE = {k: ("F64", list(p.shape), p.tobytes()) for k, p in PARAMS._asdict().items()}
GOOD = file_of(FILE)
NOT_OURS = "expected a file that save_safetensors wrote: "
BAD_FILES = {
    "empty": (b"", NOT_OURS),
    "text": (b"h = tanh(W h + U x + b)", NOT_OURS),
    "a header longer than the file": ((2**63 - 1).to_bytes(8, "little") + b"{}", NOT_OURS),
    "no JSON": ((4).to_bytes(8, "little") + b"oops", NOT_OURS),
    "cut short": (GOOD[:-1], NOT_OURS),
    "too long": (GOOD + b"\0", NOT_OURS),
    "a shape that overflows": (file_of(FILE | {"c": ("F64", [2**62] * 2, b"\0" * 16)}), NOT_OURS),
    "a shape of another size": (file_of(FILE | {"c": ("F64", [3], b"\0" * 16)}), NOT_OURS),
    "a dtype unknown to NumPy": (file_of(FILE | {"c": ("BF16", [8], b"\0" * 16)}), ""),
    "a dtype unknown to all": (file_of(FILE | {"c": ("F7", [8], b"\0" * 16)}), NOT_OURS),
    "half precision": (file_of(FILE | {"c": ("F16", [2], b"\0" * 4)}),
                       "holds W float64, U float64, b float64, V float64, c float16; expected fl"),
    "single and double": (file_of(FILE | {"c": ("F32", [2], b"\0" * 8)}), "c float32; expected"),
    "integers": (file_of({k: ("I64", *FILE[k][1:]) for k in FILE}),
                 "holds W int64, U int64, b int64, V int64, c int64; expected float32 or float64"),
    "nothing": (file_of({}), "holds the arrays []; expected W, U, b, V and c"),
    "an array missing": (file_of(without(FILE, "c")), "holds the arrays ['U', 'V', 'W', 'b']; exp"),
    "an array too many": (file_of(FILE | {"h0": FILE["c"]}), "expected W, U, b, V and c"),
    "a W that is not square": (file_of(FILE | {"W": FILE["U"]}),
                               "W has shape (5, 3); expected (H, H) with H at least 1"),
    "a matrix for a bias": (file_of(FILE | {"c": ("F64", [2, 1], b"\0" * 16)}),
                            "c has shape (2, 1); expected (O,) = (2,)"),
    "no hidden units": (file_of(FILE | {"W": ("F64", [0, 0], b"")}), "W has shape (0, 0)"),
    "a number that is not finite": (file_of(FILE | {"c": ("F64", [2], b"\xff" * 16)}),
                                    "c holds nan at index (0,); expected finite float64 values"),
}  # fmt: skip


@pytest.mark.parametrize("kind", BAD_FILES)
def test_a_bad_file_is_refused_in_one_line_that_names_it(kind, tmp_path):
    path = tmp_path / "stranger.safetensors"
    content, message = BAD_FILES[kind]
    path.write_bytes(content)
    line = refusal(ValueError, load_safetensors, path)
    assert line.startswith(f"{path}: {message}" if message in (NOT_OURS, "") else f"{path}: ")
    assert message in line


def test_files_made_by_hand_are_read_where_nothing_is_wrong_with_them(tmp_path):
    (tmp_path / "good").write_bytes(GOOD)
    assert_same_bits(load_safetensors(tmp_path / "good"), PARAMS)


@pytest.mark.parametrize("damage", ["cut", "changed"])
def test_a_damaged_file_is_refused_in_one_line_or_holds_finite_parameters(damage, tmp_path):
    path = tmp_path / "damaged.safetensors"

    @given(st.integers(0, len(GOOD) - 1), st.integers(1, 255))
    def holds(where, change):
        content = bytearray(GOOD)
        content[where] ^= change
        path.write_bytes(GOOD[:where] if damage == "cut" else content)
        params = None
        with suppress(ValueError):
            params = load_safetensors(path)
        if params is None:
            assert refusal(ValueError, load_safetensors, path).startswith(f"{path}: ")
        else:
            assert damage == "changed"
            mb.forward(params, ones(1, params.U.shape[1]))  # which refuses what is not finite

    holds()


def test_a_missing_library_is_named_with_the_extra_that_brings_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "safetensors", None)
    for function, arguments in (
        (save_safetensors, (tmp_path / "x", PARAMS)),
        (load_safetensors, (tmp_path / "x",)),
    ):
        message = refusal(ImportError, function, *arguments)
        assert message == "this function needs safetensors: pip install 'manual-bptt[interop]'"
    assert not any(tmp_path.iterdir())
