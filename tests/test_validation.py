"""What is taken for an array, whatever its size, kind and nesting, and what is found in it."""

from collections import namedtuple

import numpy as np
import pytest

import manual_bptt as mb
from manual_bptt.axes import in_letters, require_shapes

PARAMS = mb.init_params(3, 4, 2, rng=0)
X = np.ones((5, 6, 3))
TRACE = mb.forward(PARAMS, X)
WHERE_THE_SEARCH_CHANGES = 2**13 // 3


@pytest.mark.parametrize("steps", [WHERE_THE_SEARCH_CHANGES, WHERE_THE_SEARCH_CHANGES + 1])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_the_first_value_that_is_not_finite_is_found_in_arrays_of_any_size(steps, value):
    x = np.ones((steps, 3))
    x[steps - 2 :, 1] = value
    with pytest.raises(ValueError, match=rf"x holds {value} at index \({steps - 2}, 1\)"):
        mb.forward(PARAMS, x)
    large = np.full_like(x, 1e200)  # finite, though its square is not
    np.testing.assert_array_equal(mb.forward(PARAMS, large).x, large)


@pytest.mark.parametrize("kind", [bool, int, np.float32, ">f8"])
def test_numbers_of_any_real_kind_are_taken_in_the_precision_of_the_parameters(kind):
    x = np.arange(3) < X
    trace, expected = mb.forward(PARAMS, x.astype(kind)), mb.forward(PARAMS, x.astype(float))
    assert trace.x.dtype == np.float64
    np.testing.assert_array_equal(trace.h, expected.h)


def test_lists_of_as_many_levels_as_an_array_has_axes_are_taken():
    np.testing.assert_array_equal(mb.forward(PARAMS, X.tolist()).x, X)


def test_a_masked_array_is_found_beside_another_in_a_list():
    with pytest.raises(TypeError, match="x is a masked array"):
        mb.forward(PARAMS, [np.ones(3), np.ma.masked_less(np.ones(3), 2)])


@pytest.mark.parametrize("shape", [(4,), (5, 4), (7, 4), (6, 3), (6, 5), (6, 4, 1)])
def test_a_shape_is_refused_whether_it_is_more_or_less_than_expected(shape):
    with pytest.raises(ValueError, match=r"h0 has shape .* expected \(B, H\) = \(6, 4\)"):
        mb.forward(PARAMS, X, np.ones(shape))
    with pytest.raises(ValueError, match=r"dh_last has shape .* expected \(B, H\) = \(6, 4\)"):
        mb.backward(PARAMS, TRACE, TRACE.y, dh_last=np.ones(shape))


def test_a_stack_of_two_is_spelt_as_one_of_three_is():
    assert [in_letters(axes) for axes in ("HD", "2HD", "3H")] == ["(H, D)", "(2H, D)", "(3H,)"]


def test_a_size_is_read_off_an_axis_of_stacked_gates():
    fields = namedtuple("Params", "b W V c")
    cell = type("Cell", (), {"Params": fields, "AXES": {"b": "2H", "W": "HH"}})
    rest = (3, 3), (2, 3), (2,)
    require_shapes(cell, ((6,), *rest))
    with pytest.raises(ValueError, match=r"params.b has shape \(7,\); expected \(2H,\) with H"):
        require_shapes(cell, ((7,), *rest))
