"""A value of another step, row or form stands for the right one: each gets its own words."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_breaks import found

from reference.breaks.diagnosis import LeafDiagnosis

T, B, D, H, O = 6, 2, 3, 4, 2
LABELS = ("U", "V", "W", "h0", "x", "target")


def loss(values):
    """Return the squared error of the lab's network, without biases."""
    U, V, W, h0, x, target = values

    def step(h, x_t):
        h = jnp.tanh(W @ h + U @ x_t)
        return h, h

    return jnp.sum((jax.lax.scan(step, h0, x)[1] @ V.T - target) ** 2)


def drawn():
    rng = np.random.default_rng(0)
    return [rng.standard_normal(s) for s in ((H, D), (O, H), (H, H), (H,), (T, D), (T, O))]


def by_hand(values, *, inputs=None, outputs=None, before=None, back=None, aim=None, **of_x):
    """Return the gradient; each option puts something else in the place of what belongs there."""
    U, V, W, h0, x, target = values
    h = [h0]
    for x_t in x:
        h.append(np.tanh(W @ h[-1] + U @ x_t))
    h, steps = np.array(h), range(T)
    dy = 2 * (h[1:] @ V.T - (target if aim is None else aim(target)))
    dU, dW, dx, dh = np.zeros_like(U), np.zeros_like(W), np.zeros_like(x), np.zeros(H)
    for t in reversed(steps):
        dh = dh + (V.T if back is None else back(V)) @ dy[t]
        da = dh * (1 - h[t + 1] ** 2)
        dU += np.outer(da, x[t] if inputs is None else inputs(x, t))
        dW += np.outer(da, h[t] if before is None else before(h, t))
        dx[t], dh = (of_x["into_x"](U) if "into_x" in of_x else U.T) @ da, W.T @ da
    dV = dy.T @ (h[1:] if outputs is None else outputs(h[1:]))
    return [dU, dV, dW, dh, of_x["after"](dx) if "after" in of_x else dx]


def one_late(rows):
    return np.concatenate([0 * rows[:1], rows[:-1]])


def one_early(rows):
    return np.concatenate([rows[1:], 0 * rows[:1]])


def at(rows, t):
    """Return a row, or zeros where there is none."""
    return rows[t] if 0 <= t < len(rows) else 0 * rows[0]


WRONG = {
    "`x_t` of the step before stands": {"inputs": lambda x, t: at(x, t - 1)},
    "`x_t` of the step after stands": {"inputs": lambda x, t: at(x, t + 1)},
    "`x_t` of the step before, but at the first step,": {"inputs": lambda x, t: x[t - (t > 0)]},
    "`x_t` of the step after, but at the last step,": {"inputs": lambda x, t: x[t + (t < T - 1)]},
    "`x_t` of the last step, at every step,": {"inputs": lambda x, t: x[-1]},
    "`x_t` of the first step, at every step,": {"inputs": lambda x, t: x[0]},
    "`x_t` of -2 steps, or of the nearest": {"inputs": lambda x, t: x[max(t - 2, 0)]},
    "`x_t` of +2 steps, or of the nearest": {"inputs": lambda x, t: x[min(t + 2, T - 1)]},
    "of -2 steps, or of the nearest step there is,": {"before": lambda h, t: h[max(t - 1, 0)]},
    "of +1 steps, or of the nearest step there is,": {"before": lambda h, t: h[min(t + 2, T)]},
    "all those of the last entry": {"outputs": lambda h: np.broadcast_to(h[-1], h.shape)},
    "all those of the first entry": {"outputs": lambda h: np.broadcast_to(h[0], h.shape)},
    "the factor `V.T` is reshaped where it": {"back": lambda V: V.reshape(H, O)},
    "the factor `U` is reshaped where it": {"into_x": lambda U: U.reshape(D, H)},
    "x is one entry too late along axis 0": {"after": one_late},
    "x is one entry too early along axis 0": {"after": one_early},
    "that with the rows before for target": {"aim": lambda rows: np.roll(rows, 1, 0)},
    "that with the rows after for target": {"aim": lambda rows: np.roll(rows, -1, 0)},
    "that with the rows in reverse order for target": {"aim": lambda rows: rows[::-1]},
    "that with the rows before, and the first twice,": {"aim": lambda r: r[[0, *range(T - 1)]]},
    "that with the rows after, and the last twice,": {"aim": lambda r: r[[*range(1, T), T - 1]]},
}


def diagnosed(gradient, values, of=loss, labels=LABELS):
    what = found(of, values, gradient, number=5)
    return LeafDiagnosis.of(what, (), labels) if what else None


def test_the_right_gradient_has_no_diagnosis():
    assert diagnosed(by_hand, drawn()) is None


@pytest.mark.parametrize("words", WRONG)
def test_each_is_said(words):
    said = diagnosed(lambda values: by_hand(values, **WRONG[words]), drawn())
    assert any(words in m.says for (m, *_) in said.explanations), said.lines()


def test_weights_on_the_right_are_said():
    """The gradient of x @ W.T + h @ W, in the code's own convention, for a loss with W @ h."""

    def with_weights_on_the_right(values):
        U, V, W, *others = values
        dU, dV, dW, *rest = by_hand([U, V, W.T, *others])
        return [dU, dV, dW.T, *rest]

    said = diagnosed(with_weights_on_the_right, drawn())
    texts = [m.says for (m, *_) in said.explanations]
    assert any("with its transpose, as its own gradient is, for W" in t for t in texts), (
        said.lines()
    )


def test_the_transpose_of_weights_alone_is_said():
    def transposed(values):
        U, V, W, *others = values
        return by_hand([U, V, W.T, *others])

    said = diagnosed(transposed, drawn())
    words = "with its transpose for W"
    assert any(words in m.says for (m, *_) in said.explanations), said.lines()
