"""The parameters that training starts from."""

import numpy as np
import pytest

import manual_bptt as mb
from manual_bptt.estimator import RNNForecaster
from manual_bptt.forecasting.recipes import orthogonal

DRAWS = 400


def from_init_params(seed, H):
    return mb.init_params(2, H, 1, rng=seed)


def from_the_recipe(seed, H):
    return orthogonal(np.random.default_rng(seed), 2, H, 1)


def from_the_estimator(seed, H):
    """What is trained at a rate of nearly zero is still what was drawn."""
    x, y = np.eye(2), np.arange(2.0)
    model = RNNForecaster(n_hidden=H, steps=1, learning_rate=1e-300, random_state=seed)
    return model.fit(x, y).params_


@pytest.mark.parametrize("draw", [from_init_params, from_the_recipe, from_the_estimator])
def test_a_drawn_orthogonal_matrix_has_every_sign_as_often(draw):
    """What LAPACK returns has a sign that depends on the column: W must be made uniform.

    (Mezzadri, How to generate random matrices from the classical compact groups, 2007.) Each count
    is binomial, of 400 draws with probability one half: its deviation is 10.
    """
    drawn = np.array([draw(seed, 3).W for seed in range(DRAWS)])
    np.testing.assert_allclose(drawn @ drawn.transpose(0, 2, 1), [np.eye(3)] * DRAWS, atol=1e-14)
    assert (np.abs((drawn > 0).sum(axis=0) - DRAWS / 2) < 50).all()
    assert abs((np.linalg.det(drawn) > 0).sum() - DRAWS / 2) < 50


def test_what_is_drawn_is_split_into_an_orthogonal_and_a_positive_triangular_factor():
    """That is the one way to split it (Mezzadri's Eq. 2.13): a seed tells W to the sign."""
    drawn = np.random.default_rng(0).standard_normal((30, 30))
    triangle = from_init_params(0, 30).W.T @ drawn
    np.testing.assert_allclose(np.tril(triangle, -1), 0, atol=1e-13)
    assert (np.diag(triangle) > 0).all()


def test_a_single_unit_starts_from_one_or_minus_one():
    drawn = [from_init_params(seed, 1).W.item() for seed in range(40)]
    assert set(drawn) == {-1.0, 1.0}


@pytest.mark.parametrize(
    ("draw", "of_V"), [(from_init_params, 1 / np.sqrt(500)), (from_the_recipe, 0)]
)
def test_inputs_and_outputs_are_scaled_by_the_number_of_their_columns(draw, of_V):
    params = draw(0, 500)
    assert params.U.std() == pytest.approx(1 / np.sqrt(2), rel=0.1)
    assert params.V.std() == pytest.approx(of_V, rel=0.1)
    assert abs(params.U.mean()) + abs(params.V.mean()) < 0.1
    assert not params.b.any()
    assert not params.c.any()


def test_a_size_that_is_too_large_is_refused_before_memory_is_asked_for():
    with pytest.raises(ValueError, match=r"n_hidden is 536870913; expected at most 536870912"):
        mb.init_params(2, 536_870_913, 1)


def test_the_largest_size_is_not_refused():
    class Full(np.random.Generator):
        def standard_normal(self, *_):
            raise MemoryError

    with pytest.raises(MemoryError):
        mb.init_params(536_870_912, 1, 1, rng=Full(np.random.PCG64()))


@pytest.mark.parametrize(("length", "shown"), [(160, 160), (161, 160)])
def test_a_message_shows_160_characters_of_a_value(length, shown):
    text = "".join(chr(ord("a") + i % 26) for i in range(length - 2))
    with pytest.raises(TypeError) as error:
        mb.init_params(2, text, 1)
    said = str(error.value).removeprefix("n_hidden is ").partition(";")[0]
    assert len(said) == shown
    assert said == repr(text) if shown == length else said == repr(text)[:157] + "..."
