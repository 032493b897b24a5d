"""The registry of mistakes: ways to get backpropagation through time wrong, one at a time.

``Derivation`` is the textbook's derivation, cut into pieces that are methods; a mistake is that
derivation with one piece replaced. So each differs from the right one by exactly one error, and
runs, and returns numbers that look like gradients. The registry is the yardstick of the checks, and
names what went wrong in code that is not ours.

>>> from reference import compare
>>> mistake = MISTAKES["W for its transpose"]
>>> mistake.family, mistake.sentence
('transpose', 'The gradient travels back through W itself; Eq. 5 needs its transpose.')
>>> report = compare(mistake.candidate(), cases=20)
>>> [row.gradient for row in report.rows if row.status == "mismatch"] == list(mistake.affects)
True
>>> compare(correct(), cases=20).passed
True
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reference.network import losses
from reference.network.gradients import loss_gradient
from reference.network.losses import named_loss
from reference.problems import Problem

Array = NDArray[Any]
Candidate = Callable[[Any, Any, Any, Any], dict[str, Array]]
# The losses of this derivation: those of the outputs that have a name.
LOSSES = tuple(
    name for name, loss in losses.LOSSES.items() if loss.separable and not loss.of_states
)
LOSS_PIECES = frozenset({"counts", "error", "output_gradient"})  # about squared errors alone


class Derivation:
    """Backpropagation through time as in a textbook: every method is a piece that can be wrong.

    Arrays are (time, batch, .), and time is counted as in the lab: ``x[t]`` is the input of step t,
    from 1 to T, and ``h[0]`` the initial state. Rows 0 and T+1 of whatever has no such step are
    zero. A single sequence is a batch of one.
    """

    def __init__(self, params: Any, x: Array, h0: Array, target: Array, loss: str) -> None:
        dtype = self.precision(x.dtype)
        self.W, self.U, self.b, self.V, self.c = (getattr(params, k).astype(dtype) for k in "WUbVc")
        x = self.inputs(x).reshape(len(x), -1, x.shape[-1])
        self.T, self.B, self.D = x.shape
        self.O, self.H = self.V.shape
        self.last_step_alone = not named_loss(loss).over_time
        self.x, self.dx = np.zeros((2, self.T + 2, self.B, self.D), dtype)
        self.a, self.h, self.da, self.dh = np.zeros((4, self.T + 2, self.B, self.H), dtype)
        self.y, self.dy, self.target = np.zeros((3, self.T + 2, self.B, self.O), dtype)
        self.ones = np.ones((self.B, 1), dtype)
        self.h0 = h0.reshape(self.B, self.H).astype(dtype)
        self.x[1:-1] = x
        first = self.T if self.last_step_alone else 1
        self.target[first:-1] = target.reshape(-1, self.B, self.O)

    def gradients(self) -> dict[str, Array]:
        """Return every gradient and the states, with the batch axis."""
        self.forward()
        for t in range(1, self.T + 1):
            self.dy[t] = self.output_gradient(t)
        self.recursion()
        parameters = self.sums()
        rest = {"x": self.dx[1:-1], "h0": self.start(), "h": self.dh[:-1], "states": self.h[:-1]}
        return self.finish(parameters | rest)

    # What goes in

    def precision(self, dtype: np.dtype[Any]) -> Any:
        """Return the dtype to compute in, for problems of this one."""
        return dtype

    def inputs(self, x: Array) -> Any:
        """Return the inputs as they were given."""
        return x

    # Forward

    def forward(self) -> None:
        """Fill a, h and y."""
        self.h[0] = self.initial_state()
        for t in range(1, self.T + 1):
            self.a[t] = self.preactivation(t)
            self.h[t] = self.activation(self.a[t])
            self.y[t] = self.output(t)

    def initial_state(self) -> Any:
        """Return h[0]."""
        return self.h0

    def preactivation(self, t: int) -> Any:
        """Return a[t]."""
        return self.h[t - 1] @ self.W.T + self.x[t] @ self.U.T + self.b  # Eq. 1

    def activation(self, a: Array) -> Any:
        """Return the state."""
        return np.tanh(a)

    def output(self, t: int) -> Any:
        """Return y[t]."""
        return self.h[t] @ self.V.T + self.c  # Eq. 2

    # The loss

    def counts(self, t: int) -> bool:
        """Return whether the loss looks at y[t]."""
        return t == self.T or not self.last_step_alone

    def error(self, t: int) -> Any:
        """Return what the loss squares."""
        return self.y[t] - self.target[t]  # Eq. 3

    def output_gradient(self, t: int) -> Any:
        """Return dy[t]."""
        return 2 * self.error(t) * self.counts(t)

    # Backward

    def steps(self) -> range:
        """Return the steps in the order in which the loop visits them."""
        return range(self.T, 0, -1)

    def recursion(self) -> None:
        """Fill dh and da."""
        for t in self.steps():
            self.dh[t] = self.arriving(t)
            self.da[t] = self.through_tanh(t)
        self.dh[0] = self.before_first_step()

    def arriving(self, t: int) -> Any:
        """Return dh[t]."""
        return self.from_output(t) + self.from_next(t)  # Eqs. 4, 5

    def from_output(self, t: int) -> Any:
        """Return what y[t] sends to h[t]."""
        return self.dy[t] @ self.V

    def from_next(self, t: int) -> Any:
        """Return what step t+1 sends to h[t]."""
        return self.da[t + 1] @ self.W

    def through_tanh(self, t: int) -> Any:
        """Return da[t]."""
        return self.slope(t) * self.dh[t]

    def slope(self, t: int) -> Any:
        """Return the derivative of tanh at a[t]."""
        return 1 - self.h[t] ** 2

    def before_first_step(self) -> Any:
        """Return dh[0]."""
        return self.from_next(0)

    # The sums over time and batch

    def sums(self) -> dict[str, Array]:
        """Return the gradients in the parameters, and fill dx."""
        total = {k: np.zeros_like(getattr(self, k)) for k in "WUbVc"}
        for t in self.steps():
            total["W"] = self.add("W", total["W"], self.term_W(t))
            total["U"] = self.add("U", total["U"], self.term_U(t))
            total["b"] = self.add("b", total["b"], self.term_b(t))
            total["V"] = self.add("V", total["V"], self.term_V(t))
            total["c"] = self.add("c", total["c"], self.term_c(t))
            self.dx[t] = self.input_gradient(t)
        return total

    def add(self, name: str, total: Array, term: Array) -> Any:
        """Return the sum of the steps so far and of one more."""
        return total + term

    def pair(self, left: Array, right: Array) -> Any:
        """Return the sum of left right' over the batch."""
        return left.T @ right

    def term_W(self, t: int) -> Any:  # noqa: N802
        """Return what step t adds to dW."""
        return self.pair(self.da[t], self.h[t - 1])  # Eq. 9

    def term_U(self, t: int) -> Any:  # noqa: N802
        """Return what step t adds to dU."""
        return self.pair(self.da[t], self.x[t])  # Eq. 10

    def term_b(self, t: int) -> Any:
        """Return what step t adds to db: b is the weight of an input that is always one."""
        return self.pair(self.da[t], self.ones)[:, 0]  # Eq. 7

    def term_V(self, t: int) -> Any:  # noqa: N802
        """Return what step t adds to dV."""
        return self.pair(self.dy[t], self.h[t])  # Eq. 8

    def term_c(self, t: int) -> Any:
        """Return what step t adds to dc."""
        return self.pair(self.dy[t], self.ones)[:, 0]  # Eq. 6

    # What comes out

    def input_gradient(self, t: int) -> Any:
        """Return dx[t]."""
        return self.da[t] @ self.U

    def start(self) -> Any:
        """Return the gradient in h0."""
        return self.dh[0]

    def finish(self, results: dict[str, Array]) -> dict[str, Array]:
        """Return the results as they are."""
        return results


_PARAMETERS = "W U b V c"
# The gradients downstream of each piece, which a mistake in it changes unless it says otherwise.
_DOWNSTREAM = {
    **dict.fromkeys(("precision", "inputs", "initial_state", "preactivation"), "W U b V c x h0 h"),
    **dict.fromkeys(("activation", "output", "counts", "error"), "W U b V c x h0 h"),
    **dict.fromkeys(("forward", "output_gradient", "steps", "finish"), "W U b V c x h0 h"),
    **dict.fromkeys(("recursion", "from_output", "from_next"), "W U b x h0 h"),
    **dict.fromkeys(("through_tanh", "slope"), "W U b x h0 h"),
    **dict.fromkeys(("add", "pair"), _PARAMETERS),
    **{f"term_{k}": k for k in "WUbVc"},
    "before_first_step": "h0 h",
    "input_gradient": "x",
    "start": "h0",
}


@dataclass(frozen=True)
class Mistake:
    """One wrong derivation.

    ``sentence`` tells a student what is wrong, ``piece`` is the method of ``Derivation`` that it
    replaces, ``derivation`` what results, and ``affects`` the gradients that then differ, if the
    problem is one that shows it.
    """

    name: str
    family: str
    sentence: str
    affects: tuple[str, ...]
    piece: str
    derivation: type[Derivation]

    def candidate(self, loss: str = "squared_error") -> Candidate:
        """Return the mistake as ``reference.compare`` takes it; it may write to its arguments."""
        return _candidate(self.derivation, loss)


def correct(loss: str = "squared_error") -> Candidate:
    """Return the right derivation as ``reference.compare`` takes it."""
    return _candidate(Derivation, loss)


def combined(mistakes: Iterable[Mistake]) -> type[Derivation]:
    """Return the derivation with several mistakes, each in a piece of its own."""
    pieces = {m.piece: getattr(m.derivation, m.piece) for m in mistakes}
    return type("Combined", (Derivation,), pieces)


@np.errstate(over="ignore", invalid="ignore")
def outputs_of(problem: Problem) -> Array:
    """Return the outputs of every step, (T, O) or (T, B, O)."""
    x = problem.x
    none = np.zeros((*x.shape[:-1], len(problem.params.c)), x.dtype)
    d = Derivation(problem.params, x, problem.h0, none, "squared_error")
    d.forward()
    y: Array = d.y[1:-1].reshape(none.shape)
    return y


def results_of(derivation: type[Derivation], problem: Problem) -> dict[str, Array]:
    """Return every gradient and the states that a derivation gives for a problem.

    Raises
    ------
    ValueError
        If the derivation is about squared errors and the loss is another, or its mistake is one
        of reshaping that fails for these sizes.
    """
    known = problem.facts
    squared = isinstance(problem.loss, str) and known.separable
    if not squared:
        if LOSS_PIECES & vars(derivation).keys():
            raise ValueError("this mistake is one in the gradient of squared errors")
        derivation = _for_any_loss(derivation, problem)
    loss = problem.loss.partition("/")[0] if squared else "squared_error"
    target = outputs_of(problem) if known.labels else problem.target
    found = _candidate(derivation, loss)(problem.params, problem.x.copy(), problem.h0, target)
    scale = known.scale(problem.sizes) if squared else 1.0
    return {k: array if k == "states" else scale * array for k, array in found.items()}


def _for_any_loss(derivation: type[Derivation], problem: Problem) -> type[Derivation]:
    """Return the derivation with dy from autodiff, for a loss that is a JAX function."""

    def output_gradient(d: Derivation, t: int) -> Any:
        if t == 1:
            y = d.y[1:-1].reshape(*problem.x.shape[:-1], d.O)
            slope = loss_gradient(problem.facts.function, y, problem.target)
            d.dy[1:-1] = slope.reshape(d.T, d.B, d.O)
        return d.dy[t]

    return type("ForAnyLoss", (derivation,), {"output_gradient": output_gradient})


def _candidate(derivation: type[Derivation], loss: str) -> Candidate:
    if loss not in LOSSES:
        raise ValueError(f"loss is {loss!r}; expected one of {', '.join(LOSSES)}")

    def candidate(params: Any, x: Any, h0: Any, target: Any) -> dict[str, Array]:
        with np.errstate(over="ignore", invalid="ignore"):
            results = derivation(params, x, h0, target, loss).gradients()
        if x.ndim == 2:  # without the batch axis
            results |= {k: results[k][:, 0] for k in ("x", "h", "states")}
            results["h0"] = results["h0"][0]
        return {k: array.astype(x.dtype) for k, array in results.items()}

    return candidate


MISTAKES: dict[str, Mistake] = {}


def _mistake(
    family: str, piece: str, name: str, affects: str = ""
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Return a decorator: the function below is a wrong piece, and its docstring says why."""

    def register(function: Callable[..., Any]) -> Callable[..., Any]:
        sentence = " ".join(str(function.__doc__).split())
        changed = tuple((affects or _DOWNSTREAM[piece]).split())
        derivation = type("Wrong", (Derivation,), {piece: function, "__doc__": sentence})
        MISTAKES[name] = Mistake(name, family, sentence, changed, piece, derivation)
        return function

    return register


def _gradients(results: dict[str, Array], change: Callable[[Array], Array]) -> dict[str, Array]:
    """Return the results with a change made to every gradient."""
    return {k: array if k == "states" else change(array) for k, array in results.items()}


def _narrower(dtype: np.dtype[Any]) -> Any:
    """Return the next smaller kind of float."""
    return np.float32 if dtype == np.float64 else np.float16


def _through(dtype: Any, array: Array) -> Array:
    """Return the array rounded to a dtype on the way."""
    return array.astype(dtype).astype(array.dtype)


# Transposes --------------------------------------------------------------------------------------

_transpose = partial(_mistake, "transpose")


@_transpose("from_next", "W for its transpose")
def _(d: Derivation, t: int) -> Any:
    """The gradient travels back through W itself; Eq. 5 needs its transpose."""
    return d.da[t + 1] @ d.W.T


@_transpose("before_first_step", "W for its transpose in dh0")
def _(d: Derivation) -> Any:
    """The last step back, into h0, goes through W itself instead of its transpose."""
    return d.da[1] @ d.W.T


@_transpose("preactivation", "W transposed in the forward pass")
def _(d: Derivation, t: int) -> Any:
    """States are rows, so the forward pass needs h W'; this one computes h W."""
    return d.h[t - 1] @ d.W + d.x[t] @ d.U.T + d.b


@_transpose("term_W", "dW transposed")
def _(d: Derivation, t: int) -> Any:
    """dW is the outer product of h[t-1] and da[t], in this order; Eq. 9 has da[t] h[t-1]'."""
    return d.pair(d.h[t - 1], d.da[t])


@_transpose("term_U", "dU reshaped")
def _(d: Derivation, t: int) -> Any:
    """dU is built as x[t] da[t]' and reshaped to fit, which is not the transpose."""
    return d.pair(d.x[t], d.da[t]).reshape(d.H, d.D)


@_transpose("term_V", "dV reshaped")
def _(d: Derivation, t: int) -> Any:
    """dV is built as h[t] dy[t]' and reshaped to fit, which is not the transpose."""
    return d.pair(d.h[t], d.dy[t]).reshape(d.O, d.H)


@_transpose("from_output", "V reshaped")
def _(d: Derivation, t: int) -> Any:
    """V is reshaped to (H, O) where Eq. 4 needs its transpose."""
    return d.dy[t] @ d.V.reshape(d.H, d.O).T


@_transpose("input_gradient", "U reshaped in dx")
def _(d: Derivation, t: int) -> Any:
    """U is reshaped to (D, H) where dx[t] = U' da[t] needs its transpose."""
    return d.da[t] @ d.U.reshape(d.D, d.H).T


# Time indices ------------------------------------------------------------------------------------

_time = partial(_mistake, "time index")


@_time("term_W", "h[t] for h[t-1] in dW")
def _(d: Derivation, t: int) -> Any:
    """dW pairs da[t] with the state after the step; W was applied to the state before it."""
    return d.pair(d.da[t], d.h[t])


@_time("term_W", "last state for h0 in dW")
def _(d: Derivation, t: int) -> Any:
    """The first step pairs da[1] with h[T], because index -1 of the states h[1..T] is the
    last one.
    """
    return d.pair(d.da[t], d.h[t - 1] if t > 1 else d.h[d.T])


@_time("term_U", "x[t-1] for x[t] in dU")
def _(d: Derivation, t: int) -> Any:
    """dU pairs da[t] with the input of the step before, and the first step with nothing."""
    return d.pair(d.da[t], d.x[t - 1])


@_time("term_U", "x[t-1] for x[t] in dU, wrapping")
def _(d: Derivation, t: int) -> Any:
    """dU pairs da[t] with the input of the step before, and da[1] with x[T], because index
    -1 is the last one.
    """
    return d.pair(d.da[t], d.x[t - 1 if t > 1 else d.T])


@_time("term_U", "x[t+1] for x[t] in dU")
def _(d: Derivation, t: int) -> Any:
    """dU pairs da[t] with the input of the step after, and the last step with nothing."""
    return d.pair(d.da[t], d.x[t + 1])


@_time("term_U", "inputs reversed in dU")
def _(d: Derivation, t: int) -> Any:
    """da is in the order of the backward loop and x in that of the forward loop, so dU
    pairs da[t] with x[T+1-t].
    """
    return d.pair(d.da[t], d.x[d.T + 1 - t])


@_time("term_U", "last input in dU")
def _(d: Derivation, t: int) -> Any:
    """dU pairs every da[t] with x[T], which the forward loop left in its variable."""
    return d.pair(d.da[t], d.x[d.T])


@_time("term_V", "h[t-1] for h[t] in dV")
def _(d: Derivation, t: int) -> Any:
    """dV pairs dy[t] with the state before the step; V was applied to the state after it."""
    return d.pair(d.dy[t], d.h[t - 1])


@_time("term_V", "last state in dV")
def _(d: Derivation, t: int) -> Any:
    """dV pairs every dy[t] with h[T], which the forward loop left in its variable."""
    return d.pair(d.dy[t], d.h[d.T])


@_time("sums", "da in the order of the loop", affects="W U x")
def _(d: Derivation) -> Any:
    """The list of da was filled from the last step to the first and never reversed before
    the sums.
    """
    d.da[1:-1] = d.da[-2:0:-1].copy()
    return Derivation.sums(d)


@_time("finish", "dx in the order of the loop", affects="x")
def _(d: Derivation, results: dict[str, Array]) -> Any:
    """dx was filled from the last step to the first and returned without being reversed."""
    return results | {"x": results["x"][::-1]}


@_time("finish", "dx one step late", affects="x")
def _(d: Derivation, results: dict[str, Array]) -> Any:
    """The gradient in x[t] is stored in the place of x[t+1]."""
    return results | {"x": d.dx[:-2]}


@_time("finish", "dh in the order of the loop", affects="h")
def _(d: Derivation, results: dict[str, Array]) -> Any:
    """dh was filled from the last step to the first and returned without being reversed."""
    return results | {"h": results["h"][::-1]}


@_time("finish", "dh one step early", affects="h")
def _(d: Derivation, results: dict[str, Array]) -> Any:
    """The gradient in h[t] is stored in the place of h[t-1], and the last place stays empty."""
    return results | {"h": d.dh[1:]}


@_time("slope", "slope at h[t-1]")
def _(d: Derivation, t: int) -> Any:
    """The derivative of tanh is taken at the state before the step; da[t] needs 1 - h[t]^2."""
    return 1 - d.h[t - 1] ** 2


@_time("slope", "slope at h[t+1]")
def _(d: Derivation, t: int) -> Any:
    """The derivative of tanh is taken at the state of the step after; da[t] needs 1 - h[t]^2."""
    return 1 - d.h[min(t + 1, d.T)] ** 2


@_time("slope", "slope at the last state")
def _(d: Derivation, t: int) -> Any:
    """The derivative of tanh is taken at h[T], which the forward loop left in its variable."""
    return 1 - d.h[d.T] ** 2


@_time("from_next", "slope at h[t] in the carry")
def _(d: Derivation, t: int) -> Any:
    """What travels from step t+1 to h[t] has to pass 1 - h[t+1]^2; here it passes 1 - h[t]^2."""
    return ((1 - d.h[t] ** 2) * d.dh[t + 1]) @ d.W


@_time("from_output", "dy one step late")
def _(d: Derivation, t: int) -> Any:
    """h[t] receives the gradient of y[t-1]; the state sends its value to y[t]."""
    return d.dy[t - 1] @ d.V


@_time("from_output", "dy one step early")
def _(d: Derivation, t: int) -> Any:
    """h[t] receives the gradient of y[t+1]; the state sends its value to y[t]."""
    return d.dy[t + 1] @ d.V


@_time("from_output", "last dy at every step")
def _(d: Derivation, t: int) -> Any:
    """Every h[t] receives the gradient of y[T], which the forward loop left in its variable."""
    return d.dy[d.T] @ d.V


@_time("error", "target of the step before")
def _(d: Derivation, t: int) -> Any:
    """y[t] is compared with the target of step t-1, and y[1] with zero."""
    return d.y[t] - d.target[t - 1]


@_time("error", "last target at every step")
def _(d: Derivation, t: int) -> Any:
    """Every output is compared with the target of step T, which a loop left in its variable."""
    return d.y[t] - d.target[d.T]


@_time("output", "y from h[t-1]")
def _(d: Derivation, t: int) -> Any:
    """The output is computed from the state before the step; Eq. 2 has y[t] = V h[t] + c."""
    return d.h[t - 1] @ d.V.T + d.c


# First and last steps ----------------------------------------------------------------------------

_boundary = partial(_mistake, "boundary")


@_boundary("steps", "first step left out")
def _(d: Derivation) -> Any:
    """The backward loop stops at step 2, so step 1 is missing from every gradient."""
    return range(d.T, 1, -1)


@_boundary("term_W", "first step left out of dW")
def _(d: Derivation, t: int) -> Any:
    """dW starts at step 2, as if h[0] were zero."""
    return (t > 1) * Derivation.term_W(d, t)


@_boundary("term_U", "first step left out of dU")
def _(d: Derivation, t: int) -> Any:
    """dU starts at step 2, though x[1] passes through U as well."""
    return (t > 1) * Derivation.term_U(d, t)


@_boundary("term_b", "first step left out of db")
def _(d: Derivation, t: int) -> Any:
    """db starts at step 2, though b is added at step 1 as well."""
    return (t > 1) * Derivation.term_b(d, t)


@_boundary("term_W", "last step left out of dW")
def _(d: Derivation, t: int) -> Any:
    """dW ends at step T-1, as it would if states and gradients were zipped from h[1] on."""
    return (t < d.T) * Derivation.term_W(d, t)


@_boundary("term_V", "last step left out of dV")
def _(d: Derivation, t: int) -> Any:
    """dV ends at step T-1; the last output passes through V as well."""
    return (t < d.T) * Derivation.term_V(d, t)


@_boundary("term_b", "last step left out of db")
def _(d: Derivation, t: int) -> Any:
    """db ends at step T-1, though b is added at step T as well."""
    return (t < d.T) * Derivation.term_b(d, t)


@_boundary("term_c", "last step left out of dc")
def _(d: Derivation, t: int) -> Any:
    """dc ends at step T-1, though c is added at step T as well."""
    return (t < d.T) * Derivation.term_c(d, t)


@_boundary("counts", "first output ignored")
def _(d: Derivation, t: int) -> Any:
    """The loss leaves out y[1], so nothing of its error arrives anywhere."""
    return t > 1 and Derivation.counts(d, t)


@_boundary("counts", "last output ignored")
def _(d: Derivation, t: int) -> Any:
    """The loss leaves out y[T], so nothing of its error arrives anywhere."""
    return t < d.T and Derivation.counts(d, t)


@_boundary("initial_state", "h0 ignored")
def _(d: Derivation) -> Any:
    """The forward pass starts from zero instead of from h0."""
    return np.zeros_like(d.h0)


@_boundary("start", "dh0 left at zero")
def _(d: Derivation) -> Any:
    """No gradient is returned for h0, as if it were a constant."""
    return np.zeros_like(d.h0)


@_boundary("before_first_step", "dh[1] for dh[0]")
def _(d: Derivation) -> Any:
    """The recursion ends one step early, so that dh[1] is returned as the gradient in h0."""
    return d.dh[1]


@_boundary("before_first_step", "slope forgotten before h0")
def _(d: Derivation) -> Any:
    """dh[0] is computed as W' dh[1]; the way back to h0 passes tanh as well, so it is W' da[1]."""
    return d.dh[1] @ d.W


@_boundary("finish", "dh[0] left at zero", affects="h")
def _(d: Derivation, results: dict[str, Array]) -> Any:
    """The gradients in the states are stored from h[1] on, and the place of h[0] stays empty."""
    return results | {"h": np.concatenate([0 * d.h[:1], d.dh[1:-1]])}


@_boundary("input_gradient", "dx left at zero at the first step")
def _(d: Derivation, t: int) -> Any:
    """The loop that fills dx stops at step 2."""
    return (t > 1) * Derivation.input_gradient(d, t)


# The derivative of tanh --------------------------------------------------------------------------

_derivative = partial(_mistake, "derivative")


@_derivative("slope", "1 - h")
def _(d: Derivation, t: int) -> Any:
    """The derivative of tanh is written 1 - h[t]; the square is missing."""
    return 1 - d.h[t]


@_derivative("slope", "1 - tanh(h)^2")
def _(d: Derivation, t: int) -> Any:
    """tanh is applied a second time, to h[t], which is the tanh of a[t] already."""
    return 1 - np.tanh(d.h[t]) ** 2


@_derivative("slope", "1 - a^2")
def _(d: Derivation, t: int) -> Any:
    """The derivative 1 - h[t]^2 is computed from the argument a[t] of tanh instead of its value."""
    return 1 - d.a[t] ** 2


@_derivative("slope", "no slope")
def _(d: Derivation, t: int) -> Any:
    """The gradient passes tanh unchanged, as if the network were linear."""
    return np.ones_like(d.h[t])


@_derivative("slope", "slope squared")
def _(d: Derivation, t: int) -> Any:
    """The derivative of tanh is applied twice at every step."""
    return (1 - d.h[t] ** 2) ** 2


@_derivative("slope", "square root of the slope")
def _(d: Derivation, t: int) -> Any:
    """The derivative of tanh is written 1 / cosh(a[t]); the square is missing."""
    return np.sqrt(1 - d.h[t] ** 2)


@_derivative("slope", "slope off by 1e-7")
def _(d: Derivation, t: int) -> Any:
    """The derivative of tanh is 1 - 1.0000001 h[t]^2, off by what float32 can hardly tell."""
    return 1 - 1.0000001 * d.h[t] ** 2


@_derivative("slope", "slope of the sigmoid")
def _(d: Derivation, t: int) -> Any:
    """h[t] (1 - h[t]) is the derivative of the logistic function, not of tanh."""
    return d.h[t] * (1 - d.h[t])


@_derivative("slope", "slope of relu")
def _(d: Derivation, t: int) -> Any:
    """The gradient passes where a[t] is positive and nowhere else: the derivative of relu."""
    return (d.a[t] > 0).astype(d.h.dtype)


@_derivative("slope", "1 + h^2")
def _(d: Derivation, t: int) -> Any:
    """The derivative of tanh is written 1 + h[t]^2; the sign is a minus."""
    return 1 + d.h[t] ** 2


@_derivative("slope", "h^2 - 1")
def _(d: Derivation, t: int) -> Any:
    """The derivative of tanh is 1 - h[t]^2; here the difference is taken the other way round."""
    return d.h[t] ** 2 - 1


@_derivative("slope", "-2 h")
def _(d: Derivation, t: int) -> Any:
    """The derivative 1 - h[t]^2 was differentiated once more."""
    return -2 * d.h[t]


@_derivative("slope", "slope without the bias")
def _(d: Derivation, t: int) -> Any:
    """The derivative of tanh is taken at W h[t-1] + U x[t]; the bias is missing."""
    return 1 - np.tanh(d.a[t] - d.b) ** 2


@_derivative("slope", "slope by finite differences")
def _(d: Derivation, t: int) -> Any:
    """The derivative of tanh is (tanh(a[t] + 0.001) - tanh(a[t])) / 0.001, near but not it."""
    return (np.tanh(d.a[t] + 1e-3) - d.h[t]) / 1e-3


@_derivative("activation", "sigmoid for tanh in the forward pass")
def _(d: Derivation, a: Array) -> Any:
    """The forward pass computes the logistic function; network and derivative are those of tanh."""
    return 0.5 * (1 + np.tanh(a / 2))


# The recursion -----------------------------------------------------------------------------------

_recursion = partial(_mistake, "recursion")


@_recursion("from_next", "no recurrence")
def _(d: Derivation, t: int) -> Any:
    """Nothing travels from a step to the one before: the term W' da[t+1] of Eq. 5 is missing."""
    return 0 * d.dh[t]


@_recursion("from_next", "cut every 8 steps")
def _(d: Derivation, t: int) -> Any:
    """Nothing travels across every eighth step, as in truncated backpropagation."""
    return Derivation.from_next(d, t) * (t % 8 > 0 or t == 0)


@_recursion("from_next", "cut every 32 steps")
def _(d: Derivation, t: int) -> Any:
    """Nothing travels across step 32, as in truncated backpropagation; shorter sequences
    are right.
    """
    return Derivation.from_next(d, t) * (t % 32 > 0 or t == 0)


@_recursion("from_next", "each output followed for 8 steps")
def _(d: Derivation, t: int) -> Any:
    """The gradient of every output is followed back through eight states and then dropped."""
    part = 0 * d.dh[t]
    for later in range(min(t + 7, d.T), t, -1):
        part = (d.slope(later) * (d.from_output(later) + part)) @ d.W
    return part


@_recursion("steps", "last 8 steps alone")
def _(d: Derivation) -> Any:
    """The backward loop ends after eight steps, whatever the length of the sequence."""
    return range(d.T, max(d.T - 8, 0), -1)


@_recursion("steps", "last 32 steps alone")
def _(d: Derivation) -> Any:
    """The backward loop ends after 32 steps, so that shorter sequences are right."""
    return range(d.T, max(d.T - 32, 0), -1)


@_recursion("from_output", "output term at the last step alone")
def _(d: Derivation, t: int) -> Any:
    """V' dy[t] is added at the last step (Eq. 4) and left out of the steps before it (Eq. 5)."""
    return (t == d.T) * (d.dy[t] @ d.V)


@_recursion("from_output", "output term twice")
def _(d: Derivation, t: int) -> Any:
    """V' dy[t] is added to dh[t] twice."""
    return 2 * (d.dy[t] @ d.V)


@_recursion("from_next", "carry twice")
def _(d: Derivation, t: int) -> Any:
    """W' da[t+1] is added to dh[t] twice."""
    return 2 * (d.da[t + 1] @ d.W)


@_recursion("from_next", "carry subtracted")
def _(d: Derivation, t: int) -> Any:
    """W' da[t+1] is subtracted from the output term; Eq. 5 adds it."""
    return -(d.da[t + 1] @ d.W)


@_recursion("from_next", "carry accumulated")
def _(d: Derivation, t: int) -> Any:
    """The carry is added to that of the steps before (+=) where it should take its place."""
    return d.da[t + 1 :].sum(axis=0) @ d.W


@_recursion("from_next", "no slope in the carry")
def _(d: Derivation, t: int) -> Any:
    """W' dh[t+1] is carried back; Eq. 5 has W' da[t+1], which has passed tanh."""
    return d.dh[t + 1] @ d.W


@_recursion("from_next", "slope twice in the carry")
def _(d: Derivation, t: int) -> Any:
    """da[t+1] has passed tanh already; here it passes a second time on its way through W'."""
    return (d.slope(t + 1) * d.da[t + 1]) @ d.W


@_recursion("from_next", "slope after W'")
def _(d: Derivation, t: int) -> Any:
    """The carry passes W' before tanh; the chain rule meets tanh first."""
    return d.slope(t + 1) * (d.dh[t + 1] @ d.W)


@_recursion("from_next", "diagonal of W")
def _(d: Derivation, t: int) -> Any:
    """Each unit sends its gradient back to itself alone, as if W were diagonal."""
    return d.da[t + 1] * np.diag(d.W)


@_recursion("through_tanh", "slope on the carry alone")
def _(d: Derivation, t: int) -> Any:
    """V' dy[t] is added after tanh; both terms of Eq. 5 arrive at h[t] and pass it together."""
    return d.from_output(t) + d.slope(t) * d.from_next(t)


@_recursion("through_tanh", "slope on the output term alone")
def _(d: Derivation, t: int) -> Any:
    """The carry is added after tanh; both terms of Eq. 5 arrive at h[t] and pass it together."""
    return d.slope(t) * d.from_output(t) + d.from_next(t)


@_recursion("from_next", "W updated within the loop")
def _(d: Derivation, t: int) -> Any:
    """Every step of the backward loop takes a step of gradient descent, so earlier ones see
    a new W.
    """
    d.W = d.W - 1e-3 * d.pair(d.da[t + 1], d.h[t])
    return d.da[t + 1] @ d.W


# What the sums multiply --------------------------------------------------------------------------

_factor = partial(_mistake, "wrong factor")


@_factor("term_W", "dh for da in dW")
def _(d: Derivation, t: int) -> Any:
    """dW is the sum of dh[t] h[t-1]'; the gradient has to pass tanh before it meets W."""
    return d.pair(d.dh[t], d.h[t - 1])


@_factor("term_U", "dh for da in dU")
def _(d: Derivation, t: int) -> Any:
    """dU is the sum of dh[t] x[t]'; the gradient has to pass tanh before it meets U."""
    return d.pair(d.dh[t], d.x[t])


@_factor("term_b", "dh for da in db")
def _(d: Derivation, t: int) -> Any:
    """db is the sum of dh[t]; the gradient has to pass tanh before it meets b."""
    return d.dh[t].sum(axis=0)


@_factor("input_gradient", "dh for da in dx")
def _(d: Derivation, t: int) -> Any:
    """dx[t] is U' dh[t]; the gradient has to pass tanh before it meets U."""
    return d.dh[t] @ d.U


@_factor("term_W", "output term alone in dW")
def _(d: Derivation, t: int) -> Any:
    """dW leaves out what arrives from later steps, as if every step were the last."""
    return d.pair(d.slope(t) * d.from_output(t), d.h[t - 1])


@_factor("input_gradient", "output term alone in dx")
def _(d: Derivation, t: int) -> Any:
    """dx[t] leaves out what arrives from later steps, as if every step were the last."""
    return (d.slope(t) * d.from_output(t)) @ d.U


@_factor("term_V", "a for h in dV")
def _(d: Derivation, t: int) -> Any:
    """dV pairs dy[t] with a[t]; V was applied to its tanh."""
    return d.pair(d.dy[t], d.a[t])


@_factor("term_W", "a for h in dW")
def _(d: Derivation, t: int) -> Any:
    """dW pairs da[t] with a[t-1]; W was applied to its tanh."""
    return d.pair(d.da[t], d.a[t - 1] if t > 1 else d.h[0])


@_factor("add", "dW overwritten", affects="W")
def _(d: Derivation, name: str, total: Array, term: Array) -> Any:
    """dW is assigned at every step (=) instead of added to (+=), so the last visited step
    remains.
    """
    return term if name == "W" else total + term


@_factor("add", "every sum overwritten")
def _(d: Derivation, name: str, total: Array, term: Array) -> Any:
    """Sums are assigned at every step (=) instead of added to (+=), so the last visited
    step remains.
    """
    return term


# Scale -------------------------------------------------------------------------------------------

_scale = partial(_mistake, "scale")


@_scale("error", "sign of the error")
def _(d: Derivation, t: int) -> Any:
    """The derivative of (y - target)^2 in y is 2 (y - target); here it is 2 (target - y)."""
    return d.target[t] - d.y[t]


@_scale("output_gradient", "factor 2 lost")
def _(d: Derivation, t: int) -> Any:
    """The derivative of (y - target)^2 is 2 (y - target); the 2 is missing."""
    return d.error(t) * d.counts(t)


@_scale("output_gradient", "mean over the steps")
def _(d: Derivation, t: int) -> Any:
    """The loss is a sum over time; its gradient was divided by T."""
    return Derivation.output_gradient(d, t) / d.T


@_scale("output_gradient", "mean over the batch")
def _(d: Derivation, t: int) -> Any:
    """The loss is a sum over the sequences; its gradient was divided by B."""
    return Derivation.output_gradient(d, t) / d.B


@_scale("output_gradient", "mean over the outputs")
def _(d: Derivation, t: int) -> Any:
    """The loss is a sum over the outputs; its gradient was divided by O."""
    return Derivation.output_gradient(d, t) / d.O


@_scale("output_gradient", "mean over everything")
def _(d: Derivation, t: int) -> Any:
    """The loss is a sum; its gradient is that of the mean over steps, sequences and outputs."""
    return Derivation.output_gradient(d, t) / (d.T * d.B * d.O)


@_scale("pair", "parameters averaged over the batch")
def _(d: Derivation, left: Array, right: Array) -> Any:
    """The gradients in the parameters are means over the sequences, those in x and h sums."""
    return left.T @ right / d.B


@_scale("pair", "parameters averaged over the steps")
def _(d: Derivation, left: Array, right: Array) -> Any:
    """The gradients in the parameters are means over time, those in x and h sums."""
    return left.T @ right / d.T


@_scale("term_W", "dW counted twice")
def _(d: Derivation, t: int) -> Any:
    """Every term is added to dW twice."""
    return 2 * Derivation.term_W(d, t)


# Biases ------------------------------------------------------------------------------------------

_bias = partial(_mistake, "bias")


@_bias("term_b", "db averaged over the steps")
def _(d: Derivation, t: int) -> Any:
    """db is the mean of da[t] over time; Eq. 7 has the sum."""
    return Derivation.term_b(d, t) / d.T


@_bias("term_b", "db averaged over the batch")
def _(d: Derivation, t: int) -> Any:
    """db is the mean of da[t] over the sequences; every sequence adds to it."""
    return d.da[t].mean(axis=0)


@_bias("term_b", "db from the last step alone")
def _(d: Derivation, t: int) -> Any:
    """db is da[T]; Eq. 7 sums over every step."""
    return (t == d.T) * Derivation.term_b(d, t)


@_bias("term_c", "dc averaged over the steps")
def _(d: Derivation, t: int) -> Any:
    """dc is the mean of dy[t] over time; Eq. 6 has the sum."""
    return Derivation.term_c(d, t) / d.T


@_bias("term_c", "dc averaged over the batch")
def _(d: Derivation, t: int) -> Any:
    """dc is the mean of dy[t] over the sequences; every sequence adds to it."""
    return d.dy[t].mean(axis=0)


@_bias("term_c", "dc from the last step alone")
def _(d: Derivation, t: int) -> Any:
    """dc is dy[T]; Eq. 6 sums over every step."""
    return (t == d.T) * Derivation.term_c(d, t)


@_bias("preactivation", "b forgotten in the forward pass")
def _(d: Derivation, t: int) -> Any:
    """The forward pass leaves out b, so every gradient is that of another network."""
    return d.h[t - 1] @ d.W.T + d.x[t] @ d.U.T


@_bias("output", "c forgotten in the forward pass")
def _(d: Derivation, t: int) -> Any:
    """The forward pass leaves out c, so every gradient is that of another network."""
    return d.h[t] @ d.V.T


# Damage ------------------------------------------------------------------------------------------

_damage = partial(_mistake, "damage")


@_damage("finish", "entries clipped to 1")
def _(d: Derivation, results: dict[str, Array]) -> Any:
    """Every entry of every gradient is clipped to [-1, 1] before it is returned."""
    return _gradients(results, lambda g: np.clip(g, -1, 1))


@_damage("finish", "parameters clipped to 5", affects=_PARAMETERS)
def _(d: Derivation, results: dict[str, Array]) -> Any:
    """Every entry of a gradient in a parameter is clipped to [-5, 5] before it is returned."""
    return results | {k: np.clip(results[k], -5, 5) for k in "WUbVc"}


@_damage("finish", "norm clipped to 1", affects=_PARAMETERS)
def _(d: Derivation, results: dict[str, Array]) -> Any:
    """The gradients in the parameters are scaled down until their common norm is 1."""
    norm = np.sqrt(sum(np.sum(results[k] ** 2) for k in "WUbVc"))
    return results | {k: results[k] / max(norm, 1) for k in "WUbVc"}


@_damage("from_next", "carry clipped to 1")
def _(d: Derivation, t: int) -> Any:
    """What is carried from step to step is clipped to [-1, 1]."""
    return np.clip(d.da[t + 1] @ d.W, -1, 1)


@_damage("forward", "one array for every state", affects="W U b V x h0 h")
def _(d: Derivation) -> Any:
    """The list of states holds one array that every step overwrote, so each of them is h[T]."""
    Derivation.forward(d)
    d.h[:-1] = d.h[d.T]


@_damage("finish", "one array for every dh", affects="h")
def _(d: Derivation, results: dict[str, Array]) -> Any:
    """The list of dh holds one array that every step overwrote, so each of them is dh[0]."""
    return results | {"h": np.broadcast_to(d.dh[0], d.dh[:-1].shape)}


@_damage("slope", "states squared in place", affects="W V")
def _(d: Derivation, t: int) -> Any:
    """h[t] is squared in place for the slope, and dW and dV find its square later."""
    d.h[t] *= d.h[t]
    return 1 - d.h[t]


@_damage("through_tanh", "da written over dh", affects="h")
def _(d: Derivation, t: int) -> Any:
    """dh[t] is multiplied by the slope in place, so da[t] is returned in its place."""
    d.dh[t] *= d.slope(t)
    return d.dh[t]


@_damage("error", "error written over the target")
def _(d: Derivation, t: int) -> Any:
    """The target is overwritten by y - target, which is then subtracted from y once more."""
    d.target[t] = d.y[t] - d.target[t]
    return d.y[t] - d.target[t]


@_damage("inputs", "inputs centred in place")
def _(d: Derivation, x: Array) -> Any:
    """The mean over time is subtracted from the caller's own x before the forward pass."""
    x -= x.mean(axis=0)
    return x


@_damage("term_W", "weight decay in dW")
def _(d: Derivation, t: int) -> Any:
    """dW has a millionth of W added, a weight decay that the loss does not have."""
    return Derivation.term_W(d, t) + (t == d.T) * 1e-6 * d.W


# Precision ---------------------------------------------------------------------------------------

_precision = partial(_mistake, "precision")


@_precision("precision", "half the precision")
def _(d: Derivation, dtype: np.dtype[Any]) -> Any:
    """Everything is computed with half the bits of the problem: float32 for float64."""
    return _narrower(dtype)


@_precision("activation", "tanh in half the precision")
def _(d: Derivation, a: Array) -> Any:
    """tanh alone is computed with half the bits of the problem: float32 for float64."""
    return _through(_narrower(a.dtype), np.tanh(a))


@_precision("add", "sums in half the precision")
def _(d: Derivation, name: str, total: Array, term: Array) -> Any:
    """The sums over time are kept with half the bits of the problem: float32 for float64."""
    return _through(_narrower(term.dtype), total + term)


@_precision("finish", "rounded to six decimals")
def _(d: Derivation, results: dict[str, Array]) -> Any:
    """Gradients are rounded to six decimals, as they are when copied from a printed table."""
    return _gradients(results, lambda g: np.round(g, 6))


@_precision("finish", "small gradients set to zero")
def _(d: Derivation, results: dict[str, Array]) -> Any:
    """Entries below a millionth are set to zero."""
    return _gradients(results, lambda g: np.where(np.abs(g) < 1e-6, 0, g))


@_precision("slope", "1e-8 added to the slope")
def _(d: Derivation, t: int) -> Any:
    """The derivative of tanh has 1e-8 added so that it never vanishes."""
    return 1 - d.h[t] ** 2 + 1e-8


@_precision("activation", "rational approximation of tanh")
def _(d: Derivation, a: Array) -> Any:
    """The forward pass computes a (27 + a^2) / (27 + 9 a^2), cut off at 1, for tanh."""
    return np.clip(a * (27 + a**2) / (27 + 9 * a**2), -1, 1)


# What shows with some data only ------------------------------------------------------------------

_data = partial(_mistake, "data-dependent")


@_data("forward", "room for 32 states", affects="W U b V x h0 h")
def _(d: Derivation) -> Any:
    """States are kept in 32 places used in turn, so beyond 32 steps the early ones are lost."""
    Derivation.forward(d)
    for t in range(d.T - 32, 0, -1):
        d.h[t] = d.h[t + 32]


@_data("term_W", "first sequence alone in dW")
def _(d: Derivation, t: int) -> Any:
    """dW comes from the first sequence of the batch; every sequence adds to it."""
    return d.pair(d.da[t, :1], d.h[t - 1, :1])


@_data("pair", "last sequence alone")
def _(d: Derivation, left: Array, right: Array) -> Any:
    """The gradients in the parameters come from the last sequence of the batch alone."""
    return left[-1:].T @ right[-1:]


@_data("start", "dh0 summed over the batch")
def _(d: Derivation) -> Any:
    """Every sequence is given the sum of all gradients in h0; each has an initial state of
    its own.
    """
    return d.ones * d.dh[0].sum(axis=0)


@_data("slope", "slope averaged over the batch")
def _(d: Derivation, t: int) -> Any:
    """The derivative of tanh is averaged over the sequences; each has its own states."""
    return (1 - d.h[t] ** 2).mean(axis=0)


@_data("forward", "state not reset between sequences")
def _(d: Derivation) -> Any:
    """Each sequence of a batch starts from the last state of the one before instead of its
    own h0.
    """
    for _ in range(d.B):
        Derivation.forward(d)
        d.h0[1:] = d.h[d.T, :-1]


@_data("recursion", "carry not reset between sequences")
def _(d: Derivation) -> Any:
    """Each sequence of a batch starts its way back with what is left of the one before."""
    for _ in range(d.B):
        Derivation.recursion(d)
        d.da[d.T + 1, 1:] = d.da[1, :-1]


@_data("slope", "slope zero at saturation")
def _(d: Derivation, t: int) -> Any:
    """The derivative of tanh is taken to be zero where |h[t]| exceeds 0.99."""
    return (1 - d.h[t] ** 2) * (np.abs(d.h[t]) <= 0.99)


@_data("slope", "slope of at least 0.001")
def _(d: Derivation, t: int) -> Any:
    """The derivative of tanh is kept from falling below 0.001, so that gradients do not vanish."""
    return np.maximum(1 - d.h[t] ** 2, 1e-3)


@_data("preactivation", "a clipped to 3")
def _(d: Derivation, t: int) -> Any:
    """The forward pass clips the argument of tanh to [-3, 3]."""
    return np.clip(Derivation.preactivation(d, t), -3, 3)


@_data("counts", "loss of the last step alone")
def _(d: Derivation, t: int) -> Any:
    """The loss sums the errors of every step; only that of the last one is differentiated."""
    return t == d.T


@_data("output_gradient", "every step in the loss of the last one")
def _(d: Derivation, t: int) -> Any:
    """Every output is compared with the target of the last step; the loss looks at y[T] alone."""
    return 2 * (d.y[t] - d.target[d.T if d.last_step_alone else t])
