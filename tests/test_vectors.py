"""Golden vectors: what the files promise, and that programs in C and JavaScript can rely on it."""

import contextlib
import io
import json
import os
import re
import shutil
import subprocess
from fractions import Fraction
from itertools import chain
from math import ceil, floor
from pathlib import Path

import accuracy
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import manual_bptt as mb
from manual_bptt import cli
from manual_bptt.candidate import candidate
from reference.mistakes import MISTAKES, correct
from reference.network import CELLS
from reference.network.cell import Cell
from reference.network.gradients import GRADIENTS
from reference.problems import make_problem
from reference.vectors import certified as certification
from reference.vectors import enclosures, files
from reference.vectors.certified import DTYPES, Certified, NotVerifiedError, Vector
from reference.vectors.corners import CASES, LABS, LAST, Case, cases_of, expected, inputs, shapes
from reference.vectors.enclosures import bound, nearest, rounded
from reference.vectors.files import hexadecimal, read_vectors, write_vectors

ROOT = Path(__file__).resolve().parents[1]
EXAMPLES = ROOT / "examples" / "golden_vectors"
PAGE = (ROOT / "docs" / "golden-vectors.md").read_text(encoding="utf-8")
exact, mp = accuracy.exact, accuracy.mp
NAMES = [case.name for case in CASES]
INPUTS, EXPECTED = inputs(LABS), expected(LABS)
OTHERS = [name for name in CELLS if name != "tanh"]
# float32 rounds by more than these amount to.
TOO_SMALL_FOR_FLOAT32 = {"slope off by 1e-7", "1e-8 added to the slope"}
FEW = CASES[:3]

both_dtypes = pytest.mark.parametrize("dtype", DTYPES)


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """Return the folder of the files; by dtype and name, what was certified; what was printed."""
    folder, certified = tmp_path_factory.mktemp("golden"), {}
    progress, out, err = cli.vectors.progress, io.StringIO(), io.StringIO()

    def remember(found, title, total):
        dtype = title.removesuffix(" vectors")
        certified[dtype] = {vector.name: vector for vector in progress(found, title, total)}
        assert len(certified[dtype]) == total
        return certified[dtype].values()

    with (
        pytest.MonkeyPatch.context() as patch,
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        patch.setattr(cli.vectors, "progress", remember)
        assert cli.main(["vectors", "--out", str(folder)]) == 0
    assert err.getvalue() == ""
    return folder, certified, out.getvalue()


@pytest.fixture(scope="module")
def folder(written):
    return written[0]


@pytest.fixture(scope="module")
def certified(written):
    return written[1]


@pytest.fixture(scope="module")
def few(tmp_path_factory):
    """Return the text of a small file."""
    paths = write_vectors(tmp_path_factory.mktemp("few"), FEW)
    return paths[0].read_text(encoding="ascii")


def bits(vector):
    """Return all that is known of a vector, every array as bytes."""
    arrays = {**vector.inputs}
    for k, numbers in vector.expected.items():
        arrays |= {f"{k}.{part}": array for part, array in numbers._asdict().items()}
    known = {k: (a.dtype.str, a.shape, a.tobytes()) for k, a in arrays.items()}
    return vector.name, vector.about, vector.loss, known


# The numbers -------------------------------------------------------------------------------------


SMALL = ["one-step", "more-inputs-than-units", "saturated-units", "subnormal-inputs", "last-step"]
DOUBT = mp.ldexp(1, -120)  # of a gradient that is a difference of losses


@pytest.mark.parametrize("name", NAMES)
@both_dtypes
def test_the_true_states_outputs_and_loss_are_within_the_error_bounds(certified, dtype, name):
    vector = certified[dtype][name]
    for k, numbers in true_values(vector.problem).items():
        assert_within_error_bounds(vector.expected[k], numbers, mp.ldexp(1, -340))


@pytest.mark.parametrize("name", SMALL)
@both_dtypes
def test_the_true_gradients_are_within_the_error_bounds(certified, dtype, name):
    vector = certified[dtype][name]
    for k, numbers in true_gradients(vector.problem).items():
        assert_within_error_bounds(vector.expected[k], numbers, DOUBT)


def assert_within_error_bounds(certified, true, doubt):
    distance = np.abs(exact(certified.value) - true)
    assert np.all(distance <= exact(certified.error_bound) + doubt)


@pytest.mark.parametrize("name", SMALL)
def test_the_intervals_hold_the_true_answers_and_little_else(name):
    problem = CASES[NAMES.index(name)].problem("float32")
    true = true_values(problem) | true_gradients(problem)
    for k, intervals in enclosures.enclosures(problem, bits=96).items():
        for interval, number in zip(intervals.ravel(), true[k].ravel(), strict=True):
            low, high = map(mp.make_mpf, interval._mpi_)
            assert low - DOUBT <= number <= high + DOUBT
            assert high - low <= mp.ldexp(1, -70)


def true_values(problem):
    """Return states, outputs and loss, computed with 400 bits."""
    W, U, b, V, c = (exact(a) for a in problem.params)
    h = [exact(problem.h0)]
    for x_t in exact(problem.x):
        h.append(np.frompyfunc(mp.tanh, 1, 1)(h[-1] @ W.T + x_t @ U.T + b))
    y = np.array(h[1:]) @ V.T + c
    errors = (y[-1] if problem.loss == LAST else y) - exact(problem.target)
    return {"h": np.array(h), "y": y, "loss": np.array((errors**2).sum())}


def true_gradients(problem):
    """Return every gradient by differences of the loss, which use no formula for a gradient.

    The loss of the last step is that of all steps less that of all steps but the last.
    """
    params, x, h0, target = candidate_arguments(problem)
    if problem.loss != LAST:
        return by_name(accuracy.truth(params, x, h0, target))
    target = np.concatenate([np.zeros((len(x) - 1, *target.shape)), target[None]])
    whole, less = (accuracy.truth(params, x[:n], h0, target[:n]) for n in (len(x), len(x) - 1))
    for k in ("x", "h"):  # on which the loss of the first steps does not depend at the end
        less[k] = np.concatenate([less[k], exact(np.zeros_like(less[k][:1], float))])
    return by_name({k: whole[k] - less[k] for k in GRADIENTS})


def by_name(gradients):
    return {f"d{k}": gradient for k, gradient in gradients.items()}


def candidate_arguments(problem):
    return problem.params, problem.x, problem.h0, problem.target


@both_dtypes
def test_every_value_is_the_nearest_number_of_its_dtype(certified, dtype):
    smallest = float(np.finfo(dtype).smallest_subnormal)
    for vector in certified[dtype].values():
        for k, (value, error_bound, _) in vector.expected.items():
            assert value.dtype == dtype
            half = np.spacing(np.abs(value)).astype(float) / 2
            half_of_smallest = 2.0**-1074 if dtype == "float64" else smallest / 2  # rounded upwards
            assert (error_bound <= np.maximum(half, half_of_smallest)).all(), (vector.name, k)


def test_the_whole_numbers_are_those_that_come_out_by_hand(certified):
    by_hand = {
        "h": [[[1, -1]], [[0, 0]], [[0, 0]]],
        "y": [[[1, 2]], [[1, 2]]],
        "loss": 10,
        "dW": [[50, -50], [60, -60]],
        "dU": [[142, 46], [212, 76]],
        "db": [46, 76],
        "dV": [[0, 0], [0, 0]],
        "dc": [-2, 6],
        "dx": [[[110, 60]], [[12, 16]]],
        "dh0": [[230, 340]],
        "dh": [[[230, 340]], [[50, 60]], [[-4, 16]]],
    }
    for dtype in DTYPES:
        for k, (value, error_bound, _) in certified[dtype]["whole-numbers"].expected.items():
            assert value.tolist() == by_hand[k]
            assert not error_bound.any()


@both_dtypes
def test_a_tolerance_is_small_beside_its_array_or_the_array_is_exactly_zero(certified, dtype):
    for vector in certified[dtype].values():
        for k, (value, error_bound, tolerance) in vector.expected.items():
            zero = not value.any() and not error_bound.any()
            assert zero or tolerance.max() <= 1e-3 * np.abs(value).max(), (vector.name, k)


@given(
    st.fractions() | st.floats(allow_nan=False, allow_infinity=False, width=32).map(Fraction),
    st.integers(-1100, 60),
)
def test_rounding_to_nearest_is_that_of_numpy(number, exponent):
    number *= Fraction(2) ** exponent
    in_float64 = number.numerator / number.denominator  # correctly rounded by Python
    assert nearest(number, "float64") == in_float64
    # Rounding twice differs from rounding once in a tie alone; here the first one is exact.
    assert nearest(Fraction(in_float64), "float32") == np.float32(in_float64)


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_tie_goes_to_the_even_number_among_subnormals_too(dtype):
    smallest = Fraction(float(np.finfo(dtype).smallest_subnormal))
    found = [nearest(smallest * Fraction(halves, 2), dtype) for halves in range(8)]
    assert [Fraction(number) / smallest for number in found] == [0, 0, 1, 2, 2, 2, 3, 4]


@given(st.floats(0, 1e300))
def test_a_bound_is_not_below_what_it_bounds_and_not_much_above(number):
    assert number <= bound(number) <= max(number * (1 + 2**-7), number + 2.0**-1074)
    assert Fraction(bound(number)) == rounded(Fraction(number), 8, -1074, ceil)
    assert rounded(Fraction(number), 8, -1074, floor) <= number


def test_precision_is_added_until_every_value_is_certain(monkeypatch):
    problem = Case("saturated", "", (1, 1, 1, 1, 1), fixed={"b": 300}).problem("float64")
    asked = []
    enclose = enclosures.enclosures

    def watched(problem, bits):
        asked.append(bits)
        return enclose(problem, bits)

    monkeypatch.setattr(enclosures, "enclosures", watched)
    value, error_bound = enclosures.values(problem)["dW"]
    assert asked == [256, 512, 1024]  # 1 - h^2 is about exp(-600)
    assert 0 < error_bound[0, 0] <= np.spacing(abs(value[0, 0])) / 2


# What the problems are about ---------------------------------------------------------------------


def near_one(h):
    return np.abs(np.abs(h[1:]) - 1)


def sizes_are(**expected):
    return lambda v: {k: v.problem.sizes[k] for k in expected} == expected


def zero(*names):
    """Return whether these arrays are zero, of those that there are, and no other ones."""

    def exactly_these(v):
        every = *v.inputs, *v.expected
        return [k for k in every if not array(v, k).any()] == [k for k in names if k in every]

    return exactly_these


def array(v, k):
    return v.inputs[k] if k in v.inputs else v.expected[k].value


def norm(v):
    return np.linalg.norm(v.inputs["W"].astype(float), 2)


CORNERS = {
    "whole-numbers": lambda v: all((a % 1 == 0).all() for a in v.inputs.values()),
    "whole-numbers-fitted": zero("loss", *(f"d{k}" for k in GRADIENTS)),
    "all-sizes-one": sizes_are(T=1, B=1, D=1, H=1, O=1),
    "one-step": sizes_are(T=1, B=2),
    "two-steps": sizes_are(T=2),
    "one-sequence": sizes_are(B=1),
    "batch": sizes_are(B=4),
    "one-unit": sizes_are(H=1),
    "one-input-one-output": sizes_are(D=1, O=1, H=4),
    "more-inputs-than-units": sizes_are(D=6, H=3, O=1),
    "more-outputs-than-units": sizes_are(D=2, H=3, O=6),
    "eight-of-each": sizes_are(D=8, H=8, O=8),
    "zero-h0": zero("h0"),
    "zero-x": zero("x", "dU"),
    "zero-W": zero("W", "dh0"),
    "zero-U": zero("U", "dx"),
    "zero-V": zero("V", "dW", "dU", "db", "dbh", "dx", "dh0", "dh"),
    "all-zeros": lambda v: not any(array(v, k).any() for k in (*v.inputs, *v.expected)),
    "signed-zeros": lambda v: all(
        {*np.signbit(v.inputs[k][..., 1::2]).ravel()} == {True, False}
        and not v.inputs[k][..., 1::2].any()
        for k in ("W", "U", "b", "V", "x", "target")
    ),
    "shift": lambda v: (v.inputs["W"] @ [1, 2, 3, 4] == [0, 1, 2, 3]).all(),
    "rotation": lambda v: norm(v) == 1 and gone(v) > 0.1,
    "norm-above-one": lambda v: norm(v) > 3,
    "long": lambda v: v.problem.sizes["T"] == 40 and norm(v) < 1,
    "long-norm-above-one": lambda v: v.problem.sizes["T"] == 40 and norm(v) > 1.4,
    "nearly-linear": lambda v: 0 < np.abs(v.expected["h"].value).max() < 0.01,
    "nearly-saturated": lambda v: (near_one(v.expected["h"].value) < 0.01).mean() >= 0.25,
    "saturated-units": lambda v: (
        (v.expected["h"].value[1:] == 1).any((0, 1)).sum() == 1
        and (near_one(v.expected["h"].value) == 0).all((0, 1)).sum() == 2
    ),
    "large-targets": lambda v: np.abs(v.inputs["target"]).max() > 1e6,
    "subnormal-inputs": lambda v: (
        (np.abs(v.inputs["x"][..., 0]) < np.finfo(v.inputs["x"].dtype).tiny).all()
        and v.inputs["x"].all()
    ),
    "last-step": lambda v: v.loss == LAST and v.problem.sizes["T"] == 6,
    "last-step-of-one": lambda v: v.loss == LAST and v.problem.sizes["T"] == 1,
    "last-step-long": lambda v: (
        v.loss == LAST and v.problem.sizes["T"] == 40 and 0 < gone(v) < 1e-9
    ),
}


def gone(v):
    """Return the size of the gradient in h0 beside that in the last state."""
    dh = v.expected["dh"].value
    return np.abs(dh[0]).max() / np.abs(dh[-1]).max()


@pytest.mark.parametrize("name", NAMES)
@both_dtypes
def test_a_problem_has_the_corner_that_it_is_about(certified, dtype, name):
    assert CORNERS[name](certified[dtype][name])


def test_each_problem_has_a_name_and_a_corner_of_its_own():
    assert list(CORNERS) == NAMES
    assert {case.sizes[1] for case in CASES} >= {1, 2, 3, 4}
    assert {"squared_error", LAST} == {case.loss for case in CASES}
    described = {k: (a.shape, a.dtype.str) for k, a in bits_free(CASES[3]).items()}
    every = shapes(CASES[3].problem("float32").sizes, "squared_error")
    assert described == {k: (every[k], "<f4") for k in INPUTS}


def bits_free(case):
    problem = case.problem("float32")
    rest = {k: getattr(problem, k) for k in ("x", "h0", "target")}
    return problem.params._asdict() | rest


@pytest.mark.parametrize("case", CASES, ids=NAMES)
def test_float32_inputs_are_the_float64_ones_with_bits_cut_off(case):
    wide, narrow = case.problem("float64"), case.problem("float32")
    pairs = [*zip(wide.params, narrow.params, strict=True), (wide.h0, narrow.h0)]
    pairs += [(wide.target, narrow.target)]
    if case.name != "subnormal-inputs":
        pairs += [(wide.x, narrow.x)]
    for a, b in pairs:
        assert (b.astype(float) <= a).all()
        assert (a - b < 2.0**-22 * np.maximum(1, np.abs(a).max())).all()


def test_the_drawn_inputs_are_the_same_everywhere():
    params = CASES[2].problem("float64").params
    assert CASES[2].name == "all-sizes-one"
    assert [float(a.ravel()[0]).hex() for a in params] == DRAWN


DRAWN = [
    "0x1.5e8057ad5205ep-2",
    "-0x1.a84b852a98b02p-1",
    "0x1.cd536683b4c7ep-2",
    "-0x1.03613de1d8474p-2",
    "0x1.4ac205a9a8ee0p-5",
]


# Other cells -------------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=OTHERS)
def of_cell(request, tmp_path_factory):
    """Return the name of a cell, and the paths of a few of its vectors and these by their name."""
    folder = tmp_path_factory.mktemp(request.param)
    cases = [CASES[NAMES.index(name)] for name in ("two-steps", "signed-zeros", "last-step")]
    paths = write_vectors(folder, cases, cell=request.param)
    return request.param, paths, {path: read_vectors(path) for path in paths}


def test_the_files_of_a_cell_name_it_and_hold_the_same_numbers(of_cell):
    cell, paths, found = of_cell
    suffixes = [f"{dtype}.{kind}" for dtype in DTYPES for kind in ("json", "npz")]
    assert [path.name for path in paths] == [f"golden_{cell}_{suffix}" for suffix in suffixes]
    for path, archive in (paths[:2], paths[2:]):
        assert [bits(v) for v in found[path]] == [bits(v) for v in found[archive]]
        assert {v.cell for v in found[path] + found[archive]} == {CELLS[cell]}
        assert f'"version": 2,\n "cell": "{cell}"' in path.read_text(encoding="ascii")


def test_gradients_by_hand_match_the_vectors_of_a_cell_and_scaled_ones_do_not(of_cell):
    cell, _, found = of_cell
    for vector in chain.from_iterable(found.values()):
        by_hand = candidate(getattr(mb, vector.loss), cell)(*candidate_arguments(vector.problem))
        for k in CELLS[cell].gradients:
            assert vector.expected[f"d{k}"].accepts(by_hand[k]), (vector.name, k)
            assert not by_hand[k].any() or not vector.expected[f"d{k}"].accepts(1.01 * by_hand[k])
        assert vector.expected["h"].accepts(by_hand["states"])


def test_the_numbers_of_a_cell_are_those_of_its_equations_in_mpmath(of_cell):
    cell, (path, *_), found = of_cell
    vector = found[path][0]
    assert vector.name == "two-steps"
    arrays = {k: exact(a) for k, a in vector.inputs.items()}
    arrays["h"] = exact(np.zeros_like(vector.expected["h"].value))  # added to the states
    h, y, loss = in_mpmath(cell, arrays)
    for k, true in {"h": h, "y": y, "loss": loss}.items():
        assert_within_error_bounds(vector.expected[k], true, mp.ldexp(1, -340))
    step = mp.ldexp(1, -150)
    for k in CELLS[cell].gradients:
        gradient = np.empty_like(arrays[k])
        for entry in np.ndindex(gradient.shape):
            arrays[k][entry] += step
            gradient[entry] = (in_mpmath(cell, arrays)[2] - loss) / step
            arrays[k][entry] -= step
        assert_within_error_bounds(vector.expected[f"d{k}"], gradient, DOUBT)


def in_mpmath(cell, a):
    """Return states, outputs and the squared error of a batch."""
    h = [a["h0"] + a["h"][0]]
    for x_t, added in zip(a["x"], a["h"][1:], strict=True):
        h.append(STEPS[cell](a, h[-1], x_t @ a["U"].T + a["b"]) + added)
    y = np.array(h[1:]) @ a["V"].T + a["c"]
    return np.array(h), y, ((y - a["target"]) ** 2).sum()


tanh, sigmoid, relu = (
    np.frompyfunc(function, 1, 1)
    for function in (mp.tanh, lambda a: 1 / (1 + mp.exp(-a)), lambda a: max(a, mp.mpf(0)))
)


def gated(a, h, from_x, candidate_of):
    W_r, W_z, W_n = np.split(a["W"], 3)
    a_r, a_z, a_n = np.split(from_x, 3, axis=-1)
    r, z = sigmoid(a_r + h @ W_r.T), sigmoid(a_z + h @ W_z.T)
    return (1 - z) * candidate_of(W_n, a_n, r) + z * h


STEPS = {
    "relu": lambda a, h, from_x: relu(h @ a["W"].T + from_x),
    "gru": lambda a, h, from_x: gated(
        a, h, from_x, lambda W_n, a_n, r: tanh(a_n + (r * h) @ W_n.T)
    ),
    "gru_reset_after": lambda a, h, from_x: gated(
        a, h, from_x, lambda W_n, a_n, r: tanh(a_n + r * (h @ W_n.T + a["bh"]))
    ),
}


@pytest.mark.parametrize("cell", OTHERS)
def test_a_problem_of_another_cell_has_the_corner_that_it_is_about(cell):
    for case in cases_of(CELLS[cell]):
        problem = case.problem("float64", CELLS[cell])
        found = enclosures.values(problem)
        numbers = {k: Certified(*found[k], found[k][1]) for k in expected(CELLS[cell])}
        of = problem.arrays, numbers, CELLS[cell]
        assert CORNERS[case.name](Vector(case.name, case.about, case.loss, *of)), case.name


def test_a_cell_of_the_users_own_has_certified_numbers_too():
    cell = Cell(lambda p, h, x: (h + jnp.sin(p["k"] * x.sum())) / 2, params={"k": "H"})
    problem = make_problem(
        k=[0.5, -1], V=[[1, 2]], c=[0], x=[[[1]]], h0=[[0.25, 1]], target=[[[0]]], cell=cell
    )
    found = enclosures.values(problem)
    k, dy = np.array([0.5, -1]), 2 * found["y"][0][0, 0, 0]
    np.testing.assert_array_max_ulp(found["h"][0][1, 0], (problem.h0[0] + np.sin(k)) / 2, 1)
    np.testing.assert_array_max_ulp(found["dk"][0], dy * np.array([1, 2]) * np.cos(k) / 2, 4)


def test_a_quotient_by_what_may_be_zero_is_refused():
    cell = Cell(lambda p, h, x: 1 / (h - p["k"] * x.sum()), params={"k": "H"})
    problem = make_problem(k=[1], V=[[1]], c=[0], x=[[[1]]], h0=[[1]], target=[[[0]]], cell=cell)
    with pytest.raises(ZeroDivisionError, match="its denominator may be zero"):
        enclosures.values(problem)


# Power -------------------------------------------------------------------------------------------


def accepted(vector, gradients_of):
    """Return whether the gradients and states of a candidate match a vector."""
    with np.errstate(all="ignore"):
        found = gradients_of(
            *(
                a.copy() if isinstance(a, np.ndarray) else a
                for a in candidate_arguments(vector.problem)
            )
        )
    expected = {k: vector.expected[f"d{k}"] for k in GRADIENTS} | {"states": vector.expected["h"]}
    return all(expected[k].accepts(found[k]) for k in expected)


@both_dtypes
def test_gradients_by_hand_match_every_vector(certified, dtype):
    for vector in certified[dtype].values():
        loss = getattr(mb, vector.loss)
        assert accepted(vector, candidate(loss)), vector.name
        assert accepted(vector, correct(vector.loss)), vector.name
        y = mb.forward(*candidate_arguments(vector.problem)[:3]).y
        assert vector.expected["y"].accepts(y)
        assert vector.expected["loss"].accepts(loss(y, vector.problem.target)[0])


@both_dtypes
def test_every_mistake_of_the_registry_fails(certified, dtype):
    found = certified[dtype].values()

    def caught(mistake):
        return not all(accepted(vector, mistake.candidate(vector.loss)) for vector in found)

    missed = {name for name, mistake in MISTAKES.items() if not caught(mistake)}
    assert missed == (TOO_SMALL_FOR_FLOAT32 if dtype == "float32" else set())


def test_nan_is_never_accepted(certified):
    expected = certified["float64"]["all-zeros"].expected["dW"]
    assert expected.accepts(0 * expected.value)
    assert not expected.accepts(np.nan * expected.value)


# Refusals ----------------------------------------------------------------------------------------


@both_dtypes
def test_a_wrong_derivation_of_values_is_refused_and_nothing_written(monkeypatch, tmp_path, dtype):
    right = enclosures.enclosures

    def transposed(problem, bits):
        found = right(problem, bits)
        return found | {"dW": found["dW"].T} if problem.dtype == dtype else found

    monkeypatch.setattr(enclosures, "enclosures", transposed)
    with pytest.raises(NotVerifiedError, match=r"^dW of whole-numbers: autodiff contradicts"):
        write_vectors(tmp_path, FEW)
    assert not [*tmp_path.iterdir()]


@pytest.mark.parametrize("k", EXPECTED)
def test_every_array_is_compared_with_autodiff(monkeypatch, tmp_path, k):
    right = certification.values

    def off(problem):
        value, error_bound = right(problem)[k]
        return right(problem) | {k: (value + 1e-6 * (1 + np.abs(value)), error_bound)}

    monkeypatch.setattr(certification, "values", off)
    with pytest.raises(NotVerifiedError, match=f"^{k} of whole-numbers: autodiff contradicts"):
        write_vectors(tmp_path, FEW[:1])


def test_a_chaotic_problem_is_refused(tmp_path):
    case = Case("chaotic", "", (40, 1, 2, 4, 1), gains={"W": 16.0, "x": 0.125})
    with pytest.raises(NotVerifiedError, match="chaotic: the tolerance is too large to decide"):
        write_vectors(tmp_path, [case])


# The files ---------------------------------------------------------------------------------------


@both_dtypes
@pytest.mark.parametrize("suffix", ["json", "npz"])
def test_a_file_gives_back_every_bit_of_what_was_certified(folder, certified, dtype, suffix):
    found = read_vectors(folder / f"golden_{dtype}.{suffix}")
    assert [vector.name for vector in found] == NAMES
    assert [bits(v) for v in found] == [bits(certified[dtype][v.name]) for v in found]


def test_the_four_files_are_small_and_nothing_else_is_left(folder):
    names = {f"golden_{dtype}.{suffix}" for dtype in DTYPES for suffix in ("json", "npz")}
    assert {path.name for path in folder.iterdir()} == names
    assert sum(path.stat().st_size for path in folder.iterdir()) < 2e6


def test_the_command_names_the_files_that_it_has_written(written):
    folder, _, out = written
    assert sorted(out.splitlines()) == sorted(map(str, folder.iterdir()))


def test_writing_again_gives_the_same_bytes(folder, tmp_path):
    first, second = (write_vectors(tmp_path / name / "deep", FEW) for name in "ab")
    assert [p.read_bytes() for p in first] == [p.read_bytes() for p in second]
    assert [p.name for p in first] == [p.name for p in second]


def test_a_file_that_cannot_be_written_leaves_the_old_one_and_no_rest(monkeypatch, tmp_path):
    (path, *_) = write_vectors(tmp_path, FEW[:1])
    before = path.read_bytes()

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_vectors(tmp_path, FEW)
    assert path.read_bytes() == before
    assert len([*tmp_path.iterdir()]) == 4


def test_a_folder_that_cannot_be_made_is_an_os_error(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="file"):
        write_vectors(tmp_path / "file" / "folder", FEW)


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_hexadecimal_numbers_are_exact_and_of_the_form_that_is_read(number):
    text = hexadecimal(number)
    assert files.HEXADECIMAL.fullmatch(text)
    assert float.fromhex(text).hex() == number.hex()


ALTERATIONS = [
    (r'"version": 1', '"version": 3', "got schema manual-bptt/golden-vectors, version 3"),
    (r'"version": 1', '"version": 2', "'cell'"),
    (r'"version": 1', '"version": 2, "cell": "lstm9"', "cell is 'lstm9'; expected one of 'gru'"),
    (
        r'"version": 1',
        '"version": 2, "cell": "gru"',
        r"whole-numbers/W has shape \(2, 2\).* \(6, 2",
    ),
    (r'"schema": "[^"]*"', '"schema": "other"', "got schema other"),
    (r'"dtype": "float64"', '"dtype": "float16"', "dtype float16"),
    (r'"dtype": "float64"', '"dtype": "float32"', "holds a number that is not one of float32"),
    (r'"loss": "squared_error"', '"loss": "hinge"', "the loss of whole-numbers is 'hinge'"),
    (r'"T": 2', '"T": 3', r"whole-numbers/x has shape \(2, 1, 2\), dtype float64; expected \(3, 1"),
    (r'"db": ', '"dB": ', "whole-numbers/db is missing"),
    (r'"0x1.8p\+1"', '"3"', "whole-numbers/W holds '3'; expected a number like '0x1.8p-1'"),
    (r'"0x1.8p\+1"', '"nan"', "whole-numbers/W holds 'nan'"),
    (r'"0x1.8p\+1"', '"0x1p+2000"', "too large"),
    (r'"0x1.8p\+1", ', "", "cannot reshape"),
    (r'("error_bound": \[)"', r'\1"-0x1p+0", "', "cannot reshape"),
    (
        r'("db".*"tolerance": \[")',
        r"\1-",
        "whole-numbers/db.tolerance holds a number that it cannot",
    ),
    (r'"vectors": [^$]*', '"vectors": []}', "there are no vectors"),
    (r"}\s*$", "", "Expecting ',' delimiter"),
    (r"[^$]*", "[]", "list indices"),
]


@pytest.mark.parametrize(("old", "new", "message"), ALTERATIONS)
def test_a_file_that_breaks_a_promise_is_refused(few, tmp_path, old, new, message):
    altered = re.sub(old, new, few, count=1)
    assert altered != few
    path = tmp_path / "golden.json"
    path.write_text(altered, encoding="ascii")
    expected = re.escape(f"{path}: expected manual-bptt/golden-vectors, version 1 or 2: ")
    with pytest.raises(ValueError, match=f"^{expected}.*{message}"):
        read_vectors(path)


def test_an_archive_that_breaks_a_promise_is_refused(tmp_path):
    (_, path, *_) = write_vectors(tmp_path, FEW)
    content = path.read_bytes()
    with np.load(path) as archive:
        arrays = dict(archive)
    for name, array, message in [
        (
            "all-sizes-one/W",
            arrays["all-sizes-one/W"].astype("float32"),
            "all-sizes-one/W has .* dtype float32",
        ),
        (
            "all-sizes-one/dW",
            arrays["all-sizes-one/dW"] * np.nan,
            "all-sizes-one/dW holds a number that it",
        ),
        ("all-sizes-one/dW.tolerance", np.array([None]), "Object arrays cannot be loaded"),
        ("header", np.zeros(3, np.uint8), "Expecting value"),
    ]:
        np.savez(path, **arrays | {name: array})
        with pytest.raises(ValueError, match=message):
            read_vectors(path)
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(ValueError, match="not a zip file"):
        read_vectors(path)


def test_a_file_that_is_not_there_is_an_os_error(tmp_path):
    with pytest.raises(FileNotFoundError):
        read_vectors(tmp_path / "golden.json")


# The readers -------------------------------------------------------------------------------------

STRICT = ("-pedantic", "-Wall", "-Wextra", "-Werror", "-O2")
SANITIZERS = ("-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all")


def compiled(folder, text, *options):
    """Return the program that a C compiler makes of a text, or None if the options do not work."""
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        pytest.skip("no C compiler")
    (folder / "check.c").write_text(text, encoding="ascii")
    command = [compiler, "-std=c99", *options, "check.c", "-o", "check", "-lm"]
    result = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    return None if result.returncode else [folder / "check"]


def source(language):
    name = {"C": "check.c", "JavaScript": "check.mjs"}[language]
    return (EXAMPLES / name).read_text(encoding="ascii")


def program(language, folder, text, *options):
    """Return the command that runs a reader; options are for the C compiler, if they work."""
    if language == "C":
        command = compiled(folder, text, *options) or compiled(folder, text)
        assert command is not None
        return command
    node = shutil.which("node")
    if node is None:
        pytest.skip("no Node.js")
    (folder / "check.mjs").write_text(text, encoding="ascii")
    return [node, folder / "check.mjs"]


@pytest.fixture(scope="module", params=["C", "JavaScript"])
def reader(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("reader")
    return program(request.param, folder, source(request.param), *SANITIZERS)


def run(command, path):
    return subprocess.run([*command, path], capture_output=True, text=True, check=False)


@both_dtypes
def test_a_reader_matches_every_vector(folder, reader, dtype):
    result = run(reader, folder / f"golden_{dtype}.json")
    assert result.stdout == f"{len(CASES)} vectors of {dtype}, 8 gradients each: all match\n"
    assert (result.returncode, result.stderr) == (0, "")


def test_the_reader_in_c_is_optimised_without_a_warning_and_matches(folder, tmp_path):
    command = compiled(tmp_path, source("C"), *STRICT)
    assert command is not None
    assert [run(command, folder / f"golden_{dtype}.json").returncode for dtype in DTYPES] == [0, 0]


def test_a_reader_notices_an_altered_value_in_every_array(few, reader, tmp_path):
    document = json.loads(few)
    for k in EXPECTED:
        values = document["vectors"][2]["expected"][k]["value"]
        values[-1] = hexadecimal(float.fromhex(values[-1]) + 1e-12)
    path = tmp_path / "golden.json"
    path.write_text(json.dumps(document), encoding="ascii")
    result = run(reader, path)
    assert result.returncode == 1
    *lines, last = result.stdout.splitlines()
    for k, line in zip(EXPECTED, lines, strict=True):
        assert re.match(
            rf"all-sizes-one: {k}\b.* expected .* \(1 of [12] entries are wrong\)$", line
        )
    assert last == "3 vectors of float64, 8 gradients each: 11 arrays do not match"


BROKEN = [
    ("C", "dh_before[j] += W[i * H + j] * da", "dh_before[j] += W[j * H + i] * da"),
    ("C", "dW[i * H + j] += da * before[j]", "dW[i * H + j] += da * now[j]"),
    ("C", "dU[i * D + j] += da * x_t[j]", "dU[i * D + j] += da * x_t[j] * (REAL)1.001"),
    ("C", "*loss += error * error", "*loss += error * error * (REAL)NAN"),
    ("C", "t == T || !n.last_step", "t >= 1"),
    (
        "JavaScript",
        "add(dh, before + j, W[i * H + j], da)",
        "add(dh, before + j, W[j * H + i], da)",
    ),
    ("JavaScript", "add(dW, i * H + j, da, h[before + j])", "add(dW, i * H + j, da, h[now + j])"),
    ("JavaScript", "const dy = 2 * error", "const dy = error"),
    ("JavaScript", "add(loss, 0, error, error)", "add(loss, 0, error, NaN)"),
    ("JavaScript", "t === T || !lastStep", "true"),
]


@pytest.mark.parametrize(("language", "old", "new"), BROKEN)
def test_a_reader_with_a_broken_derivation_fails(folder, tmp_path, language, old, new):
    text = source(language)
    assert text.count(old) == 1
    command = program(language, tmp_path, text.replace(old, new))
    for dtype in DTYPES:
        result = run(command, folder / f"golden_{dtype}.json")
        assert result.returncode == 1, result
        assert re.search(r"\d+ arrays do not match$", result.stdout)


MALFORMED = {
    "empty": lambda text: "",
    "truncated in a number": lambda text: text[: text.index("p+") + 1],
    "truncated in a name": lambda text: text[: text.index("whole") + 3],
    "truncated in a list": lambda text: text[: text.index("]")],
    "truncated at the end": lambda text: text.rstrip()[:-1],
    "too much at the end": lambda text: text + "}",
    "another schema": lambda text: text.replace("manual-bptt", "other"),
    "another version": lambda text: text.replace('"version": 1', '"version": 2'),
    "another dtype": lambda text: text.replace("float64", "float16"),
    "another loss": lambda text: text.replace('"squared_error"', '"hinge"', 1),
    "no vectors": lambda text: text[: text.index("[")] + "[]}",
    "a list": lambda text: "[1, 2]",
    "nested deeply": lambda text: "[" * 100_000,
    "sizes that differ": lambda text: text.replace('"H": 2', '"H": 3', 1),
    "an enormous size": lambda text: text.replace('"T": 2', '"T": 99999', 1),
    "a negative size": lambda text: text.replace('"T": 2', '"T": -2', 1),
    "a shape that differs": lambda text: text.replace("[2, 2]", "[4, 1]", 1),
    "a number too few": lambda text: text.replace('"0x1.8p+1", ', "", 1),
    "not a number": lambda text: text.replace('"0x1.8p+1"', '"nan"', 1),
    "an empty number": lambda text: text.replace('"0x1.8p+1"', '""', 1),
    "a number with a rest": lambda text: text.replace('"0x1.8p+1"', '"0x1.8p+1x"', 1),
    "a list for a number": lambda text: text.replace('"0x1.8p+1"', "[]", 1),
    "a missing array": lambda text: text.replace('"db"', '"dB"', 1),
    "a missing bound": lambda text: text.replace('"error_bound"', '"bound"', 1),
}


@pytest.mark.parametrize("change", MALFORMED.values(), ids=MALFORMED)
def test_a_reader_says_in_one_line_why_a_file_cannot_be_used(few, reader, tmp_path, change):
    altered = change(few)
    assert altered != few
    path = tmp_path / "golden.json"
    path.write_text(altered, encoding="ascii")
    result = run(reader, path)
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr.count("\n") == 1
    assert f"{path}: " in result.stderr


def test_a_reader_says_in_one_line_that_a_file_cannot_be_read(reader, tmp_path):
    for path in (tmp_path, tmp_path / "golden.json"):
        result = run(reader, path)
        assert (result.returncode, result.stdout) == (2, "")
        assert re.fullmatch(rf"check.*: {path}: .+\n", result.stderr)
    nothing = subprocess.run(reader, capture_output=True, text=True, check=False)
    assert (nothing.returncode, nothing.stdout) == (2, "")
    assert nothing.stderr.startswith("usage: ")


# The page ----------------------------------------------------------------------------------------


def test_the_page_lists_the_problems():
    rows = re.findall(
        r"^\| ([a-zA-Z0-9-]+) \| (.*) \| (\d+) \| (\d+) \| (\d+) \| (\d+) \| (\d+) \|$", PAGE, re.M
    )
    assert rows == [(c.name, c.about, *map(str, c.sizes)) for c in CASES]


def test_the_example_of_the_page_is_an_excerpt_of_the_file(few):
    (block,) = re.findall(r"^```json\n(.*?)^```$", PAGE, re.M | re.S)
    shown, true = json.loads(block), json.loads(few)

    def is_part(a, b):
        if isinstance(a, dict):  # tolerances depend on the machine a little
            return all(k in b and (k == "tolerance" or is_part(v, b[k])) for k, v in a.items())
        if isinstance(a, list) and a and isinstance(a[0], dict):
            return all(is_part(v, w) for v, w in zip(a, b, strict=False))
        return a == b

    assert is_part(shown, true)


def test_the_python_of_the_page_runs(folder, tmp_path, monkeypatch):
    (code,) = re.findall(r"^```python\n(.*?)^```$", PAGE, re.M | re.S)
    (tmp_path / "golden").symlink_to(folder)
    monkeypatch.chdir(tmp_path)
    exec(compile(code, "<golden-vectors.md>", "exec"), {"__name__": "__main__"})


def test_the_page_quotes_the_summary_that_the_readers_print():
    summary = f"`{len(CASES)} vectors of float64, 8 gradients each: all match`"
    assert summary in " ".join(PAGE.split())
