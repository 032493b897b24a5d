"""Gradients in a declared arithmetic: tf32, bfloat16 or float16 in products, or narrow states.

``gpu_gradients.npz`` has gradients of the lab's network, as ``jax.grad`` of a scan computed them on
an NVIDIA H200 with JAX 0.11.2, for two problems (seeds 0 and 1): at JAX's default precision, which
is TF32 there, and with everything in bfloat16.
"""

import re
from functools import partial
from pathlib import Path

import coarse_candidates
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from coarse_candidates import BREAKS, REGISTERED, ROUND, candidates, gru, in_arithmetic, mistaken
from hypothesis import given
from hypothesis import strategies as st

import reference
from manual_bptt.cli import main
from reference.judging.verdicts import judge_solved
from reference.mistakes import MISTAKES
from reference.oracle.answers import solved
from reference.oracle.programs import machine
from reference.report import FAILURES
from reference.rounding.formats import FORMATS, Arithmetic, named_arithmetic
from reference.rounding.known import closed, exact, narrowed, one_term
from reference.rounding.noise import perturbed

GPU = np.load(Path(__file__).with_name("gpu_gradients.npz"))
SHAPE = {"T": 7, "B": 2, "D": 3, "H": 4, "O": 2}


# Formats -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FORMATS)
@given(value=st.floats(-6e4, 6e4, width=32))
def test_the_nearest_number_of_a_format_is_what_a_conversion_gives(name, value):
    form = FORMATS[name]
    nearest = float(form.nearest(np.float64(value), np))
    assert form.nearest(np.float64(nearest), np) == nearest
    converted = float(ROUND[name](np.float32(value)))
    if nearest != converted:  # a tie, which goes to the even number or away from zero
        assert name == "tf32"
        assert abs(nearest - value) == abs(converted - value)


def test_a_format_ends_where_its_type_does():
    for name, dtype in (("bfloat16", jnp.bfloat16), ("float16", jnp.float16)):
        info, form = jnp.finfo(dtype), FORMATS[name]
        assert float(info.max) == form.largest
        assert float(info.smallest_subnormal) == form.spacing
        assert float(info.eps) / 2 == form.u


def test_problems_have_numbers_of_the_formats_that_are_declared():
    for arithmetic, storage in (("tf32", None), ("float16", "bfloat16"), (None, "bfloat16")):
        formats = {"arithmetic": arithmetic, "storage": storage}
        problem = reference.random_problem(
            **SHAPE, regime="critical", seed=0, dtype="float32", **formats
        )
        for array in problem.arrays.values():
            for name in filter(None, (arithmetic, storage)):
                assert array.dtype == np.float32
                assert np.array_equal(ROUND[name](array), array)
        again = eval(problem.origin)
        assert again.options == problem.options
        assert np.array_equal(again.x, problem.x)
        made = reference.make_problem(**problem.arrays, **problem.options)
        assert eval(made.origin).options == problem.options


# What is allowed for -----------------------------------------------------------------------------


def test_a_number_has_one_error_wherever_it_is_used_and_one_of_the_format_has_none():
    def twice(x, y):
        return jnp.dot(x, y), jnp.dot(2 * x, y) - 2 * jnp.dot(x, y), jnp.dot(y, y)

    third, whole = np.array([1 / 3]), np.array([3.0])
    with jax.enable_x64(True):
        runs = perturbed(twice, third, whole, arithmetic=named_arithmetic("tf32", None))
        found = np.array(runs(2.0**-40, third, whole))[..., None]
    u = FORMATS["tf32"].u
    errors = np.abs(found[:, 0] - 1)
    assert (errors > 0.9 * u).all()
    assert (errors < 2.1 * u).all()
    assert np.ptp(found[:, 0]) > u
    assert (np.abs(found[:, 1]) < 8.1 * u).all()  # 2 x is another number, with another error
    assert (np.abs(found[:, 2] - 9) < 1e-9).all()


def test_the_bound_of_an_exact_factor_is_how_far_it_is_from_a_number_of_the_format():
    form = FORMATS["tf32"]
    with jax.enable_x64(True):
        value = jnp.array([1.0, 1 + 2.0**-12, 3.0])
        assert narrowed(exact(value), form).error.tolist() == [0.0, 2.0**-12, 0.0]
        known = narrowed(one_term(value, jnp.full(3, 1e-9)), form)
        assert (known.error >= form.u * value).all()
        assert (known.error <= 1.001 * form.u * value + 1e-9).all()
        huge = narrowed(exact(jnp.array([7e4])), FORMATS["float16"])
        tiny = narrowed(exact(jnp.array([2.0**-26])), FORMATS["float16"])
        assert huge.error.tolist() == [np.inf]
        assert tiny.error.tolist() == [2.0**-26]


def test_only_the_factors_of_products_are_allowed_to_be_rounded():
    m = machine("float32", named_arithmetic("tf32", None))
    assert m.arithmetic.states is None
    with jax.enable_x64(True):
        number = exact(jnp.array([1 + 2.0**-12]))
        assert closed(number, m).error.tolist() == [0.0]


# Right ones and wrong ones -----------------------------------------------------------------------


@pytest.mark.parametrize("name", ["tf32", "bfloat16"])
@pytest.mark.parametrize("cell", ["tanh", "gru"])
def test_right_code_in_a_declared_arithmetic_passes_and_each_break_of_it_is_found(name, cell):
    options = {"dtype": "float32", "batched": True, "arithmetic": name, "cell": cell}
    chunks = [*solved(reference.draw_problems(48, 0, sizes=SHAPE, **options))]
    seen = set()
    for of, what, right, candidate in candidates(name):
        if of == cell:
            report = reference.Report.of(
                result
                for chunk in (chunks if right else chunks[:1])
                for result in judge_solved(candidate, chunk)
            )
            assert report.passed == right, (what, report)
            seen.add(what)
    assert seen >= {*(REGISTERED if cell == "tanh" else BREAKS)}


def test_there_are_ten_mistakes_of_each_kind():
    assert len({*BREAKS}) == len({*REGISTERED}) == 10
    assert len({MISTAKES[name].family for name in REGISTERED}) >= 9


def test_states_that_are_kept_narrow_are_allowed_for_where_that_is_declared():
    def kept(params, x, h0, target):
        """The textbook, with every state, and every gradient in one, in bfloat16."""
        narrow = ROUND["bfloat16"]
        h = [h0]
        for x_t in x:
            h.append(narrow(np.tanh(h[-1] @ params.W.T + x_t @ params.U.T + params.b)))
        h = np.array(h)
        dy = 2 * (h[1:] @ params.V.T + params.c - target)
        dh, da = np.zeros_like(h), np.zeros_like(h[1:])
        for t in range(len(x), 0, -1):
            dh[t] = narrow(dh[t] + dy[t - 1] @ params.V)
            da[t - 1] = dh[t] * (1 - h[t] ** 2)
            dh[t - 1] = da[t - 1] @ params.W
        dh[0] = narrow(dh[0])
        return {
            "W": np.einsum("tbi,tbj->ij", da, h[:-1]), "U": np.einsum("tbi,tbj->ij", da, x),
            "b": da.sum((0, 1)), "V": np.einsum("tbi,tbj->ij", dy, h[1:]), "c": dy.sum((0, 1)),
            "x": da @ params.U, "h0": dh[0], "h": dh, "states": h,
        }  # fmt: skip

    options = {"cases": 24, "sizes": SHAPE}
    report = reference.compare(kept, storage="bfloat16", **options)
    assert report.passed, report
    assert report.formats == "states in bfloat16"
    alone = reference.compare(
        lambda *arguments: {k: v for k, v in kept(*arguments).items() if k not in ("h", "states")},
        storage="bfloat16",
        **options,
    )
    assert "FAILED" not in str(alone)
    assert not reference.compare(kept, arithmetic="tf32", explained=False, **options).passed

    def late(params, x, h0, target):
        found = kept(params, x, h0, target)
        return found | {"V": found["V"] + np.outer(found["c"], found["states"][-1].sum(0)) / 4}

    assert not reference.compare(late, storage="bfloat16", explained=False, **options).passed


def test_who_rounds_more_coarsely_than_declared_is_told_how():
    options = {"cases": 12, "sizes": SHAPE, "dtype": "float32"}
    report = reference.compare(mistaken("tf32"), **options)
    assert not report.passed
    assert 'rounded like TF32, in the factors of its products (arithmetic="tf32"' in str(report)
    report = reference.compare(mistaken("bfloat16"), arithmetic="tf32", **options)
    assert not report.passed
    assert "rounded like bfloat16, in the factors of its products" in str(report)


def test_the_report_says_which_errors_still_show():
    report = reference.compare(mistaken("tf32"), arithmetic="tf32", cases=12, sizes=SHAPE)
    assert report.passed, report
    (said,) = re.findall(
        r"with factors in tf32, an error shows in half .* from (\S+) of", str(report)
    )
    assert 1e-4 < float(said) < 2e-2
    assert max(row.as_dict()["shows"] for row in report.rows) == pytest.approx(float(said), rel=0.1)


def test_what_float16_has_no_room_for_proves_nothing():
    huge = np.full((1, 1), 3.0e5, np.float32)
    one, zero = np.ones((1, 1), np.float32), np.zeros(1, np.float32)
    problem = reference.make_problem(
        W=one, U=one, b=zero, V=one, c=zero, x=one, h0=zero, target=huge, dtype="float32",
        arithmetic="float16",
    )  # fmt: skip
    ((verdicts, _),) = reference.judge(in_arithmetic("float16", overflowing), [problem])
    statuses = {v.gradient: v.status for v in verdicts}
    assert statuses["W"] == "nothing proved"
    assert not FAILURES & {*statuses.values()}


def overflowing(params, x, h0, target):
    """Return NaN for what is computed from the gradient in the output, which overflows."""
    return {k: np.full_like(getattr(params, k), np.nan) for k in "WUV"}


# Gradients of a GPU ------------------------------------------------------------------------------


def loss_of(p, x, h0, target):
    def step(h, x):
        h = jnp.tanh(h @ p["W"].T + x @ p["U"].T + p["b"])
        return h, h @ p["V"].T + p["c"]

    _, y = jax.lax.scan(step, h0, x)
    return jnp.sum((y - target) ** 2)


def judged(number, precision, **formats):
    """Judge what a GPU computed; for other arguments there is nothing."""
    p = {k: GPU[f"{number}/{k}"] for k in "WUbVc"}
    rest = [GPU[f"{number}/{k}"] for k in ("x", "h0", "target")]
    found = {k: GPU[f"{number}/{precision}/d{k}"].astype(np.float32) for k in p}

    def on_the_gpu(params, *_):
        if not np.array_equal(params["W"], p["W"]):
            raise LookupError("the GPU was asked for one gradient alone")
        return found

    return reference.check_gradient(loss_of, on_the_gpu, p, *rest, **formats)


@pytest.mark.parametrize("number", [0, 1])
def test_the_gradients_of_a_gpu_pass_in_its_arithmetic(number):
    report = judged(number, "default", arithmetic="tf32")
    assert report.passed, report
    assert max(row.ratio for row in report.rows) > 0.01
    assert "with factors in tf32, an error shows from" in str(report)


def test_the_gradients_of_a_gpu_are_refused_in_finer_arithmetic_and_told_what_they_are():
    plain = judged(0, "default")
    assert {row.status for row in plain.rows} == {"mismatch"}
    assert all("rounded like TF32, in the factors" in row.detail for row in plain.rows)
    coarser = judged(0, "bfloat16", arithmetic="tf32")
    assert not coarser.passed
    assert "rounded like bfloat16" in str(coarser)
    assert judged(0, "bfloat16", arithmetic="bfloat16").passed


# Arguments ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("option", ["arithmetic", "storage"])
def test_formats_are_checked(option):
    right = mistaken("tf32")
    with pytest.raises(ValueError, match=f"^{option} is 'fp8'; expected 'tf32', 'bfloat16', 'fl"):
        reference.compare(right, **{option: "fp8"})
    with pytest.raises(ValueError, match=r"^dtype is 'float64'; expected 'float32' with an arith"):
        reference.compare(right, dtype="float64", **{option: "tf32"})
    p = {"w": np.ones(2)}
    with pytest.raises(ValueError, match=r"^dtype is 'float64'; expected 'float32' with"):
        reference.check_gradient(lambda p: p["w"].sum(), lambda p: p, p, **{option: "tf32"})


def test_storage_needs_a_state():
    p = np.ones(2, np.float32)
    with pytest.raises(ValueError, match=r"^storage is 'bfloat16', but no jax.lax.scan of loss_fn"):
        reference.check_gradient(jnp.sum, np.ones_like, p, storage="bfloat16")


def test_the_command_takes_formats(tmp_path, monkeypatch, capsys):
    (tmp_path / "mine.py").write_text(
        "from coarse_candidates import mistaken\nright = mistaken('bfloat16')\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))
    given = ["check", "mine:right", "--cases", "6", "--sizes", "T=7,B=2,D=3,H=4,O=2"]
    assert main([*given, "--arithmetic", "bfloat16"]) == 0
    assert "with factors in bfloat16, an error shows in half" in capsys.readouterr().out
    assert main([*given, "--arithmetic", "fp8"]) == 2
    assert "arithmetic is 'fp8'; expected 'tf32'" in capsys.readouterr().err
    assert main([*given, "--storage", "tf32", "--dtype", "float64"]) == 2
    assert "expected 'float32'" in capsys.readouterr().err


def test_the_table_counts_who_is_accused(monkeypatch, capsys):
    def two(name):
        yield "tanh", "right", True, mistaken(name)
        yield "tanh", "wrong", False, mistaken(name)

    monkeypatch.setattr(coarse_candidates, "candidates", two)
    monkeypatch.setattr(
        coarse_candidates, "draw_problems", partial(reference.draw_problems, sizes=SHAPE)
    )
    assert coarse_candidates.main(["--problems", "3", "--arithmetic", "tf32"]) == 1
    table = capsys.readouterr().out
    assert "| cell | gradient | tf32 | worst |" in table
    assert table.count("| 0 | 0.") == 2


def test_both_units_are_the_same_before_rounding():
    for cell, after in (("gru", False), ("gru_reset_after", True)):
        problem = reference.random_problem(**SHAPE, regime="critical", seed=1, cell=cell)
        candidate = partial(gru, after=after)
        right = reference.gradients(
            problem.params, problem.x, problem.target, h0=problem.h0, cell=cell
        )
        found = candidate(problem.params, problem.x, problem.h0, problem.target)
        for k, gradient in right.items():
            np.testing.assert_allclose(found[k], gradient, 1e-9, 1e-12)
    assert isinstance(machine("float32").arithmetic, Arithmetic)
