"""The wrong gradients in tests/faults are wrong, and the right ones beside them right."""

import inspect
from functools import partial
from itertools import combinations

import jax
import numpy as np
import pytest
from faults import LOSSES, all_faults, modules

import reference

SEEDS = 0, 1
MODULES = dict(modules())
EVERY_LOSS = pytest.mark.parametrize("module", MODULES.values(), ids=LOSSES)


def leaves(module, fault, seed):
    gradient = module.gradient(fault, *module.arguments(np.random.default_rng(seed)))
    return jax.tree_util.tree_leaves(gradient)


def distance(one, other, right):
    """Return by how much two gradients differ, relatively, in the leaf where they do so most."""
    return max(abs(a - b).max() / abs(c).max() for a, b, c in zip(one, other, right, strict=True))


def test_there_are_many_faults():
    assert len(list(all_faults())) >= 200


@EVERY_LOSS
def test_the_right_gradient_is_right(module):
    arguments = module.arguments(np.random.default_rng(SEEDS[0]))
    report = reference.check_gradient(module.loss, partial(module.gradient, None), *arguments)
    assert report.passed, report


@EVERY_LOSS
@pytest.mark.parametrize("seed", SEEDS)
def test_no_entry_of_a_right_gradient_is_zero(module, seed):
    assert all(leaf.all() for leaf in leaves(module, None, seed))


@EVERY_LOSS
@pytest.mark.parametrize("seed", SEEDS)
def test_every_fault_changes_the_gradient_and_no_two_do_so_alike(module, seed):
    gradients = {name: leaves(module, name, seed) for name in (None, *module.FAULTS)}
    shapes = [leaf.shape for leaf in gradients[None]]
    for name, gradient in gradients.items():
        assert [np.shape(leaf) for leaf in gradient] == shapes, name
        assert all(np.isfinite(leaf).all() for leaf in gradient), name
    same = [
        (one, other)
        for one, other in combinations(gradients, 2)
        if distance(gradients[one], gradients[other], gradients[None]) <= 1e-6
    ]
    assert not same


@EVERY_LOSS
def test_every_line_that_is_blamed_stands_once_in_the_loss(module):
    source = inspect.getsource(module.loss)
    for name, fault in module.FAULTS.items():
        assert fault.what.endswith("."), name
        assert [source.count(line) for line in fault.lines] == [1] * len(fault.lines), name
