"""Mistakes whose place is found, and whose numbers are solved for; and those of whole gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from faults import modules
from test_breaks import LOSSES, by_versions, found, gru, gru_by_hand, normal, of_first

from reference.breaks.diagnosis import LeafDiagnosis
from reference.breaks.kinds.free import families
from reference.breaks.reverse import reverse
from reference.breaks.solving import EVIDENCE, _evidence
from reference.breaks.tape import Program, Tape
from reference.devices import float64_on_cpu

T, D, H, O = 5, 3, 4, 2

SAID = {
    "char_rnn": {
        "clipped": "clipped to 0.05",
        "initial state taken as zero": "is that with zero for",
        "labels a step late": "what arrives at `jax.nn.log_softmax(logits, axis=1)` is wrong",
        "embeddings averaged": "by a number of its own at each step: 0.5, 0.5, 0.5, 1",
        "truncated after the last three steps": "the first 4 steps are left out",
    },
    "layer_norm": {
        "epsilon forgotten": "by a number of its own at each step: 1.003, 1.007",
        "gamma after the means": "@ x_t` is wrong, and all that follows from it is right",
        "carried past the statistics": "in each step, what arrives at `h` of the step before",
    },
    "ode": {
        "Simpson's weights": "terms of `k1 + 2 * k2 + 2 * k3 + k4` are multiplied by 1, 2, 2, 1",
        "state through the first stage alone": "uses of `y` send to it are multiplied by",
    },
    "attention": {
        "pooled to the last position": "for each entry of axis 0: 0, 0, 0, 0, 5",
        "softmax's sum without the weights": "what arrives at `jax.nn.softmax(scores, axis=1)`",
    },
    "masked": {
        "mask of the step after": "`m` is that of the step after",
        "mask the wrong way round": "`m` is the wrong way round",
        "no mask on the error": "that of a loss in which `m` is one everywhere",
    },
    "leaky": {"detached every two steps": "by a number of its own at each: 1, 1, 0, 1, 0, 1"},
    "elman": {"first step left out": "the first step is left out"},
    "bidirectional": {"W not transposed, ahead": "at all steps but the first, in the gradient"},
}


@pytest.mark.parametrize(
    ("name", "fault", "words"), [(n, f, w) for n, some in SAID.items() for f, w in some.items()]
)
def test_what_is_wrong_is_said(name, fault, words):
    module = dict(modules())[name]
    arguments = module.arguments(np.random.default_rng(0))
    leaves, tree = jax.tree.flatten(arguments)
    moving = [i for i, a in enumerate(leaves) if np.asarray(a).dtype.kind == "f"]
    values = [np.asarray(leaves[i], float) for i in moving]

    def with_values(values):
        mixed = dict(enumerate(leaves)) | dict(zip(moving, values, strict=True))
        return jax.tree.unflatten(tree, [mixed[i] for i in range(len(leaves))])

    def loss(values):
        return module.loss(*with_values(values))

    def gradient(values):
        return [
            np.asarray(g) for g in jax.tree.leaves(module.gradient(fault, *with_values(values)))
        ]

    number = len(jax.tree.leaves(arguments[0]))
    labels = [f"argument {i}" for i in range(len(values))]
    what = found(loss, values, gradient, number=number)
    assert words in "\n".join(LeafDiagnosis.of(what, (), labels).lines())


def gru_leaves(seed=0):
    rng = np.random.default_rng(seed)
    P = normal(rng, W=(H, H), U=(H, D), Wn=(H, H), Un=(H, D), V=(O, H), h0=(H,))
    return of_first(gru, (P, rng.standard_normal((T, D)), rng.standard_normal((T, O))))


def with_noise(loss, leaves, noise):
    right = by_versions(loss, leaves, [])
    return lambda values: [g + noise.get(i, 0.0) for i, g in enumerate(right(values))]


@pytest.mark.parametrize("size", [1e-8, 1e-4, 1.0])
@pytest.mark.parametrize("leaf", range(6))
def test_noise_in_one_argument_is_not_taken_for_what_arrives_somewhere(leaf, size):
    loss, leaves = gru_leaves()
    noise = size * np.random.default_rng(leaf).standard_normal(leaves[leaf].shape)
    assert found(loss, leaves, with_noise(loss, leaves, {leaf: noise})).explanations == []


@pytest.mark.parametrize("seed", range(4))
def test_nor_is_noise_in_a_part_of_one_vector_of_all_parameters(seed):
    shapes = [(H, H), (H, D), (H,), (O, H)]
    ends = np.cumsum([np.prod(s) for s in shapes])
    rng = np.random.default_rng(seed)
    x, target = rng.standard_normal((T, D)), rng.standard_normal((T, O))

    def loss(values):
        parts = jnp.split(values[0], ends[:-1])
        W, U, h0, V = (p.reshape(s) for p, s in zip(parts, shapes, strict=True))

        def step(h, x_t):
            h = jnp.tanh(W @ h + U @ x_t)
            return h, h

        return jnp.mean((jax.lax.scan(step, h0, x)[1] @ V.T - target) ** 2)

    leaves = [rng.standard_normal(ends[-1])]
    noise = np.zeros(ends[-1])
    noise[ends[1] : ends[2]] = rng.standard_normal(H)  # of h0 alone
    assert found(loss, leaves, with_noise(loss, leaves, {0: noise})).explanations == []


def test_a_place_must_explain_the_gradient_at_other_arguments_too():
    loss, leaves = gru_leaves()
    program = Program.of(loss, leaves, len(leaves))

    def gradient(values):  # of another output, but elsewhere wrong by noise
        tape = Tape(program, values)
        free = list(families(tape, 0))[4:][2][0]
        numbers = np.random.default_rng(1).standard_normal(free.size)
        rows = [g[0] for g in reverse(tape, [free.edits(numbers)])]
        if not all(map(np.array_equal, values, leaves)):
            rows[0] = rows[0] + 0.1 * np.random.default_rng(0).standard_normal(rows[0].shape)
        return rows

    assert found(loss, leaves, gradient).explanations == []
    same_everywhere = found(loss, leaves, lambda values: gradient(leaves))
    assert same_everywhere.explanations == []  # at other arguments it is not what would arrive


def test_what_is_wrong_from_a_place_on_is_named_by_the_place_nearest_the_loss():
    loss, leaves = gru_leaves()
    program = Program.of(loss, leaves, len(leaves))

    def gradient(values):
        tape = Tape(program, values)
        free = next(f for (f,) in list(families(tape, 0))[4:] if f.shape == (1, T, O))
        errors = np.cos(np.arange(free.size)) * np.sum(values[0])
        return [g[0] for g in reverse(tape, [free.edits(errors)])]

    (one,) = found(loss, leaves, gradient).explanations
    assert one.breaks[0].free.shape == (1, T, O)
    assert "all that follows from it is right" in one.breaks[0].says


def slopes(*blocks):
    rows, columns = (sum(b.shape[a] for b in blocks) for a in (0, 1))
    whole, at = np.zeros((rows, columns)), [0, 0]
    for b in blocks:
        whole[at[0] : at[0] + b.shape[0], at[1] : at[1] + b.shape[1]] = b
        at = [at[0] + b.shape[0], at[1] + b.shape[1]]
    return whole


def test_only_equations_beyond_what_numbers_can_meet_are_evidence():
    rng = np.random.default_rng(0)
    loss, leaves = gru_leaves()
    free = list(families(Tape(Program.of(loss, leaves, len(leaves)), leaves), 0))[-1][0]
    tall, square = rng.standard_normal((6, 2)), rng.standard_normal((3, 3))
    both, at = slopes(tall, square), np.arange(9)

    def evidence(matrix, wrong):
        return _evidence(free, matrix, wrong, 1e-6)

    assert evidence(both, at < 6) == 4
    assert evidence(both, at >= 6) == 0 < EVIDENCE
    assert evidence(both, at >= 0) == 4
    assert evidence(both, at == 0) == 1  # five right entries hold two numbers
    assert evidence(slopes(tall, np.zeros((3, 3))), at >= 0) == 4  # untouched entries are none
    mixed = both.copy()
    mixed[6:, :2] = rng.standard_normal((3, 2))
    assert evidence(mixed, at >= 6) == 0  # though all are one part


@pytest.mark.parametrize("left_out", range(1, 6))
def test_any_number_of_first_steps_left_out_has_a_name(left_out):
    _, args = LOSSES["gru"]
    loss, leaves = of_first(gru, args)
    names = sorted(args[0])

    def gradient(values):
        by_hand = gru_by_hand(left_out, dict(zip(names, values, strict=True)), *args[1:])
        return [by_hand[k] for k in names]

    (one,) = found(loss, leaves, gradient).explanations
    steps = f"the first {left_out} steps are" if left_out > 1 else "the first step is"
    assert one.breaks[0].says.startswith(f"{steps} left out")


@pytest.mark.parametrize("bound", [0.037, 0.2])
def test_clipping_has_a_name_at_any_bound(bound):
    loss, leaves = gru_leaves()
    right = by_versions(loss, leaves, [])
    clipped = found(loss, leaves, lambda values: [np.clip(g, -bound, bound) for g in right(values)])
    assert f"clipped to {bound:g}" in clipped.explanations[0].breaks[0].says

    def by_norm(values):
        every = right(values)
        norm = np.sqrt(sum(np.sum(g**2) for g in every))
        return [g * min(1, bound / norm) for g in every]

    shortened = found(loss, leaves, by_norm).explanations[0]
    assert f"clipped to the norm {bound:g}" in shortened.breaks[0].says


def test_what_is_within_the_bound_at_other_arguments_was_clipped_all_the_same():
    loss, leaves = gru_leaves(seed=2)
    right = by_versions(loss, leaves, [])

    def norm(values):
        return np.sqrt(sum(np.sum(g**2) for g in right(values)))

    bound, norms = float(f"{0.98 * norm(leaves):.3g}"), []

    def by_norm(values):
        norms.append(norm(values))
        return [g * min(1, bound / norms[-1]) for g in right(values)]

    shortened = found(loss, leaves, by_norm).explanations[0]
    assert f"clipped to the norm {bound:g}" in shortened.breaks[0].says
    assert min(norms) < bound < max(norms)


@pytest.mark.parametrize("value", [1e-9, -1e-9])
def test_the_same_number_everywhere_is_not_taken_for_clipping(value):
    def loss(values):
        return 1e3 * jnp.sum(jnp.exp(values[0]) * np.sign(value)) + jnp.exp(values[1]) * np.sign(
            value
        )

    def gradient(values):
        return [np.full(v.shape, value) for v in values]

    leaves = [np.array([0.5, 0.2, 0.1]), np.array(0.3)]
    assert found(loss, leaves, gradient).explanations == []


def test_a_tape_with_another_operand_is_another_loss():
    rng = np.random.default_rng(0)
    x, m, n = (rng.standard_normal(4) for _ in range(3))
    loss = lambda values: jnp.sum(jnp.sin(m * values[0]) * m)  # noqa: E731
    other = lambda values: jnp.sum(jnp.sin(n * values[0]) * m)  # noqa: E731
    program = Program.of(loss, [x], 1)
    (number,) = (i for i, node in enumerate(Tape(program, [x]).nodes) if node.name == "sin")
    before = Tape(program, [x]).nodes[number - 1]
    assert before.name == "mul"
    (of_m,) = (k for k, i in enumerate(before.ins) if i not in Tape(program, [x]).arguments)
    tape = Tape(program, [x], {(number - 1, of_m): n})
    with float64_on_cpu():
        value, right = jax.value_and_grad(other)([x])
    np.testing.assert_allclose(tape.values[tape.result], value, rtol=1e-15)
    np.testing.assert_allclose(reverse(tape)[0][0], right[0], rtol=1e-13)
