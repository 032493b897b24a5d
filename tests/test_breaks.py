"""The search for the broken rule: what is broken is found, and nothing else is named."""

import inspect
import json
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from correct_gradients import EXAMPLES, draw
from faults import modules

import reference
from reference.breaks.diagnosis import LeafDiagnosis
from reference.breaks.kinds import breaks
from reference.breaks.kinds.loops import windows
from reference.breaks.reverse import reverse
from reference.breaks.search import Explanation, search
from reference.breaks.tape import Program, Tape, UnsearchableError
from reference.breaks.words import mistake
from reference.devices import float64_on_cpu

T, D, H, O = 6, 3, 4, 2
LABELS = "abcdefgh"
EXACT = 1e-11  # of the largest entry: far more than these losses amplify rounding


def sigmoid(z):
    return 1 / (1 + np.exp(-z))


def normal(rng, **shapes):
    return {k: rng.standard_normal(shape) for k, shape in shapes.items()}


def gru(P, x, target):
    def step(h, x_t):
        gate = jax.nn.sigmoid(P["W"] @ h + P["U"] @ x_t)
        new = jnp.tanh(P["Wn"] @ (gate * h) + P["Un"] @ x_t)
        h = h + 0.5 * (new - h)
        return h, h

    _, h = jax.lax.scan(step, P["h0"], x)
    return jnp.mean((h @ P["V"].T - target) ** 2)


def gru_by_hand(fault, P, x, target):
    h, steps = [P["h0"]], []
    for x_t in x:
        gate = sigmoid(P["W"] @ h[-1] + P["U"] @ x_t)
        new = np.tanh(P["Wn"] @ (gate * h[-1]) + P["Un"] @ x_t)
        steps.append((gate, new))
        h.append(h[-1] + 0.5 * (new - h[-1]))
    G, dh = {k: np.zeros_like(v) for k, v in P.items()}, np.zeros(H)
    dy = 2 * (np.array(h[1:]) @ P["V"].T - target) / target.size
    G["V"] = dy.T @ np.array(h[1:])
    for t in reversed(range(fault if isinstance(fault, int) else 0, T)):  # a fault: steps left out
        gate, new = steps[t]
        dh = dh + P["V"].T @ dy[t]
        da = 0.5 * dh * (1 - (h[t + 1] if fault == "slope at h" else new) ** 2)
        dgh = P["Wn"].T @ da
        dg = dgh * h[t] * gate * (1 - gate)
        G["Wn"] += np.outer(da, h[t] if fault == "h for the gated h" else gate * h[t])
        G["Un"] += np.outer(da, x[t])
        if not (fault == "first step left out" and t == 0):
            G["W"] += np.outer(dg, h[t])
        G["U"] += np.outer(dg, x[t])
        through_gate = 0 if fault in ("no path through the gate", "two") else P["W"].T @ dg
        dh = (0.7 if fault == "odd factor" else 0.5) * dh + dgh * gate + through_gate
        if fault == "cut every 3" and t % 3 == 0:
            dh = np.zeros(H)
    G["h0"] = dh
    if fault == "two":
        G["Un"] = G["Un"] / 2
    if fault == "transposed":
        G["Wn"] = G["Wn"].T
    return G


def lstm(P, x, label):
    def step(carry, x_t):
        h, c = carry
        i, f, g, o = jnp.split(P["W"] @ h + P["U"] @ x_t + P["b"], 4)
        c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
        return (jax.nn.sigmoid(o) * jnp.tanh(c), c), None

    (h, _), _ = jax.lax.scan(step, (jnp.zeros(H), jnp.zeros(H)), x)
    return -jax.nn.log_softmax(P["V"] @ h)[label]


def tokens(P, words, labels):
    h, total = P["h0"], 0.0
    for t in range(T):
        h = jnp.tanh(P["E"][words[t]] + P["W"] @ h)
        total = total + jax.nn.logsumexp(P["V"] @ h) - (P["V"] @ h)[labels[t]]
    return total / T


def attention(P, x, target):
    q, k, v = x @ P["Q"], x @ P["K"], x @ P["A"]
    weights = jax.nn.softmax(q @ k.T / jnp.sqrt(1.0 * H), axis=-1)
    pooled = (weights @ v).mean(axis=0)
    centred = pooled - pooled.mean()
    return jnp.sum((centred / jnp.sqrt(jnp.mean(centred**2) + 1e-3) * P["gain"] - target) ** 2)


def losses():
    """Return losses with arguments for them."""
    rng = np.random.default_rng(0)
    x, target = rng.standard_normal((T, D)), rng.standard_normal((T, O))
    cell = {"W": (H, H), "U": (H, D), "Wn": (H, H), "Un": (H, D), "V": (O, H), "h0": (H,)}
    words, labels = rng.integers(0, 3, T), rng.integers(0, O, T)
    heads = {"Q": (D, H), "K": (D, H), "A": (D, H), "gain": (H,)}
    return {
        "gru": (gru, (normal(rng, **cell), x, target)),
        "lstm": (lstm, (normal(rng, W=(4 * H, H), U=(4 * H, D), b=(4 * H,), V=(O, H)), x, 1)),
        "tokens": (tokens, (normal(rng, E=(5, H), W=(H, H), V=(O, H), h0=(H,)), words, labels)),
        "attention": (attention, (normal(rng, **heads), x, target[0, 0])),
    }


LOSSES = losses()


def of_first(loss, args):
    """Return a loss of the leaves of its first argument, and these."""
    leaves, tree = jax.tree.flatten(args[0])
    return (lambda values: loss(jax.tree.unflatten(tree, values), *args[1:])), leaves


def found(loss, leaves, gradient, seed=0, number=None):
    program = Program.of(loss, leaves, number or len(leaves))

    def measure(values):
        right = [g[0] for g in reverse(Tape(program, values))[: program.number]]
        return [(g, np.full(g.shape, EXACT * np.abs(g).max())) for g in right]

    rng = np.random.default_rng(seed)
    with np.errstate(all="ignore"):
        return search(loss, leaves, gradient, measure, u=0.0, dtype=float, rng=rng)


def by_versions(loss, leaves, edits):
    """Return the gradient that an edited reverse pass makes."""
    program = Program.of(loss, leaves, len(leaves))

    def gradient(values):
        with np.errstate(all="ignore"):
            return [g[0] for g in reverse(Tape(program, values), [edits])]

    return gradient


def of_example(name):
    """Return the loss of an example in its arrays of real numbers, and these."""
    example = EXAMPLES[name]
    args = draw(example, np.random.default_rng(1), np.float64)
    leaves, tree = jax.tree.flatten(args)
    moving = [i for i, a in enumerate(leaves) if np.asarray(a).dtype.kind == "f"]

    def loss(values):
        mixed = dict(enumerate(leaves)) | dict(zip(moving, values, strict=True))
        return example.loss(*jax.tree.unflatten(tree, [mixed[i] for i in range(len(leaves))]))

    return loss, [np.asarray(leaves[i], float) for i in moving]


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_reverse_pass_over_a_tape_is_autodiff(name):
    loss, values = of_example(name)
    with float64_on_cpu():
        expected = jax.jit(jax.grad(loss))(values)
    program = Program.of(loss, values, len(values))
    if name == "power spectrum":
        with pytest.raises(UnsearchableError, match="complex"):
            Tape(program, values)
        return
    with np.errstate(all="ignore"):
        rows = reverse(Tape(program, values))
    for row, right in zip(rows, expected, strict=True):
        if EXAMPLES[name].calm and np.isfinite(right).all():
            np.testing.assert_allclose(
                row[0], right, rtol=0, atol=1e-9 * np.abs(right).max() + 1e-300
            )
        assert row.shape == (1, *right.shape)


@pytest.mark.parametrize("name", EXAMPLES)
def test_every_break_of_every_example_can_be_made(name):
    loss, values = of_example(name)
    program = Program.of(loss, values, len(values))
    if name == "power spectrum":
        return  # no tape, see above
    with np.errstate(all="ignore"):
        tape = Tape(program, values)
        every = [b for leaf in range(len(values)) for b in breaks(tape, leaf)]
        some = every[:: 1 + len(every) // 50]
        rows = reverse(tape, [b.edits for b in some])
    assert all(
        row.shape in ((1, *v.shape), (len(some), *v.shape))
        for row, v in zip(rows, values, strict=True)
    )
    assert all(mistake(tape, b, [f"leaf{i}" for i in range(len(values))]).says for b in every)


def test_gates_that_slices_take_from_one_array_can_be_in_another_order():
    def loss(P):
        both = P["W"] @ P["h"]
        one, two = (jax.lax.slice(both, (start,), (start + 3,)) for start in (0, 3))
        return jnp.sum(jnp.tanh(one) * jax.nn.sigmoid(two))

    P = normal(np.random.default_rng(0), W=(6, 3), h=(3,))

    def gradient(P):
        a, b = np.split(P["W"] @ P["h"], 2)
        one, two = np.tanh(a), sigmoid(b)
        d = np.concatenate([one * two * (1 - two), (1 - one**2) * two])
        return {"W": np.outer(d, P["h"]), "h": P["W"].T @ d}

    report = reference.check_gradient(loss, gradient, P)
    assert "the 2 parts of what arrives" in report.diagnosis.names[0]


@pytest.mark.parametrize("name", LOSSES)
def test_breaks_drawn_at_random_are_named_with_their_line(name):
    loss, leaves = of_first(*LOSSES[name])
    tape = Tape(Program.of(loss, leaves, len(leaves)), leaves)
    every = list(breaks(tape, 0))
    rng = np.random.default_rng(2)
    right = reverse(tape)
    named = 0
    for number in rng.choice(len(every), 12, replace=False):
        broken = every[number]
        gradient = by_versions(loss, leaves, broken.edits)
        wrong = gradient(leaves)
        pairs = list(zip(wrong, right, strict=True))
        if not all(np.isfinite(w).all() for w in wrong):
            continue
        if all(np.abs(w - r[0]).max() < 1e-6 * np.abs(r).max() for w, r in pairs):
            continue  # it changes nothing
        what = found(loss, leaves, gradient)
        lines = {
            m.line
            for e in what.explanations
            for m in [mistake(tape, b, "abcdefgh") for b in e.breaks]
        }
        assert mistake(tape, broken, "abcdefgh").line in lines, broken.says
        named += 1
    assert named >= 5


SENTENCES = {
    "no path through the gate": ('does not pass through `h` in `P["W"] @ h`', "gate ="),
    "slope at h": ("the derivative of `jnp.tanh(", "new ="),
    "h for the gated h": ("stands for `gate * h`", "new ="),
    "first step left out": ('`P["W"]` in `P["W"] @ h` at the first step', "gate ="),
    "odd factor": ("multiplied by", "h = h + 0.5"),
    "cut every 3": ("carried through 3 steps at most", "h = h + 0.5"),
    "transposed": ("transposed", "new ="),
}


@pytest.mark.parametrize("fault", SENTENCES)
def test_a_gru_by_hand_gets_a_sentence_and_its_line(fault):
    _, args = LOSSES["gru"]
    report = reference.check_gradient(gru, partial(gru_by_hand, fault), *args)
    words, line = SENTENCES[fault]
    said = "\n".join(report.diagnosis.lines())
    assert words in said
    assert line in said
    assert report.diagnosis.names[0] in str(report)
    marked = report._repr_html_().partition("<pre")[2].partition("</pre>")[0]
    assert "^^^" in marked
    assert json.loads(report.to_json())["diagnosis"]["explanations"][0][0]["line"] > 0


BY_OTHERS = {
    "lstm": "no path through the output gate",
    "attention": "sum over the positions",
    "masked": "mean over the batch",
    "leaky": "sum over the steps",
    "kalman": "gain is a constant",
}


@pytest.mark.parametrize("name", BY_OTHERS)
def test_faults_that_others_wrote_are_named(name):
    module = dict(modules())[name]
    fault = BY_OTHERS[name]
    source, first = inspect.getsourcelines(module.loss)
    quoted = module.FAULTS[fault].lines
    about = [first + i for i, text in enumerate(source) if any(q in text for q in quoted)]
    arguments = module.arguments(np.random.default_rng(0))
    report = reference.check_gradient(module.loss, partial(module.gradient, fault), *arguments)
    assert set(about) & set(report.diagnosis.lines_of_loss())


def test_two_mistakes_that_meet_in_some_leaves_are_both_named():
    _, args = LOSSES["gru"]
    report = reference.check_gradient(gru, partial(gru_by_hand, "two"), *args)
    assert len(report.diagnosis.mistakes) == 2
    said = " ".join(report.diagnosis.names)
    assert "does not pass through `h`" in said
    assert "Un" in said


def test_the_right_gradient_has_no_diagnosis():
    _, args = LOSSES["gru"]
    report = reference.check_gradient(gru, partial(gru_by_hand, None), *args)
    assert report.passed
    assert report.diagnosis is None


def test_float32_is_diagnosed_too():
    _, args = LOSSES["gru"]
    args = jax.tree.map(lambda a: a.astype(np.float32), args)
    gradient = partial(gru_by_hand, "no path through the gate")
    report = reference.check_gradient(gru, gradient, *args)
    assert "does not pass through `h`" in report.diagnosis.names[0]


def elman(values):
    W, U, b, V = values

    def step(h, x_t):
        h = jnp.tanh(W @ h + U @ x_t + b)
        return h, V @ h

    _, (_, x, target) = LOSSES["gru"]
    return jnp.sum((jax.lax.scan(step, jnp.zeros(H), x)[1] - target) ** 2)


def truncated(steps, values):
    """Go back from each output by itself, through a number of steps at most."""
    W, U, b, V = values
    _, (_, x, target) = LOSSES["gru"]
    h = [np.zeros(H)]
    for x_t in x:
        h.append(np.tanh(W @ h[-1] + U @ x_t + b))
    dW, dU, db, dV = (np.zeros_like(v) for v in values)
    for t in range(T, 0, -1):
        dy = 2 * (V @ h[t] - target[t - 1])
        dV += np.outer(dy, h[t])
        dh = V.T @ dy
        for s in range(t, max(t - steps, 0), -1):
            da = (1 - h[s] ** 2) * dh
            dW, dU, db = dW + np.outer(da, h[s - 1]), dU + np.outer(da, x[s - 1]), db + da
            dh = W.T @ da
    return [dW, dU, db, dV]


@pytest.mark.parametrize("steps", range(2, T))
def test_truncation_after_any_number_of_steps_has_a_name(steps):
    leaves = [*normal(np.random.default_rng(3), W=(H, H), U=(H, D), b=(H,), V=(O, H)).values()]
    what = found(elman, leaves, partial(truncated, steps))
    assert what.explanations[0].breaks[0].window == steps
    assert found(elman, leaves, partial(truncated, T)) is None  # then it is right


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("name", LOSSES)
def test_what_is_wrong_by_noise_gets_no_name(name, seed):
    loss, leaves = of_first(*LOSSES[name])
    program = Program.of(loss, leaves, len(leaves))
    rng = np.random.default_rng(seed)
    spoilt = rng.integers(len(leaves))
    entries = rng.random(leaves[spoilt].shape) < rng.choice([0.2, 1.0])
    entries.flat[0] = True
    noise = rng.standard_normal(leaves[spoilt].shape) * entries * 10.0 ** rng.integers(-6, 1)

    def gradient(values):
        rows = [g[0] for g in reverse(Tape(program, values))]
        rows[spoilt] = rows[spoilt] + noise
        return rows

    assert found(loss, leaves, gradient).explanations == []


@pytest.mark.parametrize("name", ["step of an LSTM", "bags of words", "largest of each block"])
def test_what_is_wrong_by_noise_in_all_arguments_gets_no_name(name):
    loss, leaves = of_example(name)
    right = by_versions(loss, leaves, [])

    def gradient(values):
        return [g + 0.1 * np.cos(7.0 * np.arange(g.size)).reshape(g.shape) for g in right(values)]

    assert found(loss, leaves, gradient).explanations == []


def test_a_name_must_hold_at_other_arguments_too():
    loss, leaves = of_first(*LOSSES["gru"])
    program = Program.of(loss, leaves, len(leaves))

    def gradient(elsewhere, values):  # twice what is right, at these arguments alone
        rows = [g[0] for g in reverse(Tape(program, values))]
        same = all(np.array_equal(a, b) for a, b in zip(values, leaves, strict=True))
        return [row * (2 if same else elsewhere(row)) for row in rows]

    def noise(row):
        return np.linspace(1, 2, row.size).reshape(row.shape) ** 2

    assert found(loss, leaves, partial(gradient, noise)).explanations == []
    (*_, one) = found(loss, leaves, partial(gradient, lambda _: 3)).explanations
    assert "is multiplied by a number that depends on the arguments: 2" in one.breaks[0].says


def test_windows_are_the_gradient_if_nothing_is_dropped():
    loss, leaves = of_first(*LOSSES["gru"])
    tape = Tape(Program.of(loss, leaves, len(leaves)), leaves)
    longest = list(windows(tape, 0))[-1]
    start = (np.arange(T + 2) == 0).astype(float)
    ages = reverse(tape, [Explanation((longest,)).edits] * (T + 2), start)
    for by_age, right in zip(ages, reverse(tape), strict=True):
        np.testing.assert_allclose(by_age.sum(0), right[0], rtol=0, atol=1e-12)


def test_a_loop_of_python_and_one_of_jax_have_the_same_steps():
    loss, leaves = of_first(*LOSSES["tokens"])
    assert Tape(Program.of(loss, leaves, len(leaves)), leaves).steps == T


def test_while_loops_and_branches_are_followed():
    def loss(x, n):
        y = jax.lax.while_loop(lambda c: c[1] < n, lambda c: (c[0] * jnp.sin(x), c[1] + 1), (x, 0))[
            0
        ]
        return jax.lax.cond(y > 0, lambda: y**2, lambda: 3 * y).sum()

    values = [np.array(0.7)]
    tape = Tape(Program.of(lambda v: loss(v[0], 3), values, 1), values)
    with float64_on_cpu():
        y, slope = jax.jvp(lambda x: loss(x, 3), (0.7,), (1.0,))
    assert tape.steps == 3
    np.testing.assert_allclose(tape.values[tape.result], y, rtol=1e-15)
    np.testing.assert_allclose(reverse(tape)[0][0], slope, rtol=1e-14)


def test_a_loss_of_too_many_operations_is_not_searched(monkeypatch):
    monkeypatch.setattr("reference.breaks.tape.MOST", 5)
    loss, leaves = of_first(*LOSSES["gru"])
    with pytest.raises(UnsearchableError, match="more than 5 operations"):
        Tape(Program.of(loss, leaves, len(leaves)), leaves)
    _, args = LOSSES["gru"]
    report = reference.check_gradient(gru, partial(gru_by_hand, "slope at h"), *args)
    assert "no mistake was looked for: the loss has more than 5 operations" in str(report)
    assert report.verdict == "FAILED"


def test_a_search_that_would_take_too_long_is_given_up(monkeypatch):
    _, args = LOSSES["gru"]
    monkeypatch.setattr("reference.breaks.case.MOST_WORK", 200_000)
    right = partial(gru_by_hand, None)
    report = reference.check_gradient(gru, partial(gru_by_hand, "slope at h"), *args)
    assert "is taken at" in report.diagnosis.names[0]  # it is found early

    def noisy(*args):
        return jax.tree.map(
            lambda g: g + 0.1 * np.cos(np.arange(g.size)).reshape(g.shape), right(*args)
        )

    report = reference.check_gradient(gru, noisy, *args)
    assert report.diagnosis.explanations == []
    assert "given up after" in report.diagnosis.note
    assert "such as one of fewer steps" in str(report)


def test_a_diagnosis_without_explanations_says_how_many_were_tried():
    assert LeafDiagnosis(("a", "b"), tried=7).lines() == ["a b: none of 7 mistakes explains this"]


# Rules that somebody wrote --------------------------------------------------------------------


def wrapped(rule):
    @jax.custom_vjp
    def unit(W, h, n):
        a = W @ h
        return 0.7 * jnp.tanh(a), n * jnp.sum(h)

    unit.defvjp(lambda W, h, n: (unit(W, h, n), (W, h, n, unit(W, h, n)[0])), rule)
    return unit


def rule(slope, kept, g):
    W, h, n, y = kept
    da = g[0] * slope(y)
    return jnp.outer(da, h), W.T @ da + g[1] * n, None


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_custom_vjp_is_judged_by_what_it_wraps(dtype):
    rng = np.random.default_rng(0)
    args = rng.standard_normal((3, 3)).astype(dtype), rng.standard_normal(3).astype(dtype), 3
    right = wrapped(partial(rule, lambda y: 0.7 * (1 - (y / 0.7) ** 2)))
    assert reference.check_custom_vjp(right, *args).passed
    report = reference.check_custom_vjp(wrapped(partial(rule, lambda y: 0.7 * (1 - y**2))), *args)
    assert not report.passed
    assert "the derivative of `jnp.tanh(a)` is taken at" in report.diagnosis.names[0]


def test_a_custom_jvp_and_what_is_not_differentiated():
    @partial(jax.custom_jvp, nondiff_argnums=(0,))
    def scaled(factor, x):
        return factor * jnp.sin(x)

    scaled.defjvp(lambda factor, p, t: (scaled(factor, *p), factor * jnp.cos(p[0]) * t[0]))
    x = np.array([0.3, 1.2])
    assert reference.check_custom_vjp(scaled, 2.0, x).passed
    scaled.defjvp(lambda factor, p, t: (scaled(factor, *p), jnp.cos(p[0]) * t[0]))
    assert not reference.check_custom_vjp(scaled, 2.0, x).passed


def test_only_a_function_with_a_rule_of_its_own_has_one_to_judge():
    with pytest.raises(TypeError, match=r"expected what jax\.custom_vjp"):
        reference.check_custom_vjp(jnp.sin, np.ones(2))
    with pytest.raises(ValueError, match="hold no floating numbers"):
        reference.check_custom_vjp(wrapped(None), 1, 2, 3)
