"""Let every check meet every mistake of the registry: who notices, and after how many problems?

python docs/checks.py               run (needs torch; some minutes), print, and write into trust.md

Three checks of this project, and three ways in which people check a gradient today:

- *each step* and *end to end*, the two checks of ``reference.compare``;
- *complex step*: the loss along every entry of every argument and state, p + 1e-30 i, through a
  forward pass in NumPy; no derivative is written down, and JAX is not asked;
- *allclose*: ``numpy.allclose(gradient, jax.grad, rtol=1e-4)``;
- *check_grads*: ``jax.test_util.check_grads``, reverse mode, with its own tolerances, of a
  ``custom_vjp`` that returns the gradients;
- *gradcheck*: ``torch.autograd.gradcheck`` with its own tolerances, of an ``autograd.Function``.

All problems are in float64, and those of ``reference.draw_problems`` with seed 0, in turns with and
without a batch axis, up to 40 steps.
"""

import sys
from collections.abc import Callable, Iterator
from functools import cache
from itertools import chain
from typing import Any

import jax
import numpy as np
import torch
from jax.test_util import check_grads
from markers import measured, table, write_part

import reference
from reference.judging.verdicts import judge_solved
from reference.mistakes import LOSSES, MISTAKES, Mistake, correct
from reference.network import CELLS
from reference.network.gradients import GRADIENTS
from reference.network.sequence import PARAMETERS, run, zero_probes
from reference.oracle.answers import Answer, solved
from reference.problems import Problem
from reference.rounding.tolerance import decides, over_tolerance
from reference.user_code import Parameters

PROBLEMS = 200
FEW = 16  # that check_grads and gradcheck, which are slower, meet
Candidate = Callable[..., dict[str, np.ndarray]]
Alarms = dict[str, list[bool]]  # of each check, problem by problem


def drawn(loss: str) -> list[Problem]:
    """Return batches and single sequences in turns."""
    options: dict[str, Any] = {"cases": PROBLEMS // 2, "seed": 0, "dtype": "float64", "loss": loss}
    both = [reference.draw_problems(**options, batched=batched) for batched in (True, False)]
    return [*chain(*zip(*both, strict=True))]


def complex_step(problem: Problem) -> dict[str, np.ndarray]:
    """Return every gradient of the loss, from the forward pass alone."""
    batch = problem.x.shape[1:-1] or (1,)
    arrays = {k: getattr(problem.params, k) for k in PARAMETERS}
    arrays |= {"x": problem.x.reshape(-1, *batch, problem.x.shape[-1])}
    arrays |= {"h0": problem.h0.reshape(*batch, -1)}
    arrays |= {"h": np.zeros((len(problem.x) + 1, *arrays["h0"].shape))}
    target = problem.target.reshape(-1, *batch, problem.sizes["O"])
    return {
        k: _loss({**arrays, k: _nudged(array)}, target).imag.reshape(problem.gradient_shape(k))
        * 1e30
        for k, array in arrays.items()
    }


def _nudged(array: np.ndarray) -> np.ndarray:
    """Return copies of the array, each with another entry moved by 1e-30 i."""
    copies = np.repeat(array[None].astype(complex), array.size, axis=0)
    copies.reshape(array.size, -1)[np.diag_indices(array.size)] += 1e-30j
    return copies


def _loss(v: dict[str, np.ndarray], target: np.ndarray) -> Any:
    """Return the loss, of as many last steps as it has targets, for every copy of an argument."""
    axes = {"W": 2, "U": 2, "b": 1, "V": 2, "c": 1, "x": 3, "h0": 2, "h": 3}
    v = {k: a if a.ndim > axes[k] else a[None] for k, a in v.items()}
    W, U, V = (v[k].swapaxes(-1, -2) for k in "WUV")
    h = v["h0"] + v["h"][:, 0]
    total, ignored = 0, v["x"].shape[1] - len(target)
    for t in range(1, ignored + len(target) + 1):
        a = h @ W + v["x"][:, t - 1] @ U + v["b"][:, None]
        h = np.tanh(a) + v["h"][:, t]  # Eq. 1
        if t > ignored:
            error = h @ V + v["c"][:, None] - target[t - 1 - ignored]  # Eqs. 2, 3
            total = total + (error**2).sum((1, 2))
    return total


def noticed_by_complex_step(result: dict[str, np.ndarray], answer: Answer) -> bool:
    """Return whether a gradient differs from it by more than the end-to-end tolerance."""
    truth = by_complex_step(answer.problem)
    return any(
        not over_tolerance(result[k] - truth[k], tolerance).max() <= 1
        for k, (value, tolerance) in answer.truth.items()
        if k in GRADIENTS and decides(value, tolerance, np.float64)
    )


by_complex_step = cache(complex_step)  # problems are compared by identity


def noticed_by_allclose(result: dict[str, np.ndarray], answer: Answer) -> bool:
    """Return whether NumPy's comparison tells a gradient from that of autodiff."""
    return any(not np.allclose(result[k], answer.truth[k][0], rtol=1e-4) for k in GRADIENTS)


def call(candidate: Candidate, problem: Problem, *arguments: Any) -> dict[str, np.ndarray]:
    """Call a candidate with copies: W, U, b, V, c, x and h0 as given, or those of the problem."""
    given = [np.array(a) for a in arguments or (*problem.params, problem.x, problem.h0)]
    return candidate(Parameters(*given[:5]), *given[5:], problem.target.copy())


def noticed_by_check_grads(candidate: Candidate, problem: Problem) -> bool:
    """Return whether JAX's check of a custom derivative objects."""

    @jax.custom_vjp
    def loss(*arguments: Any) -> Any:
        params = dict(zip(PARAMETERS, arguments[:5], strict=True))
        x, h0 = arguments[5:]
        _, y = run(CELLS["tanh"], params, x, h0, zero_probes(params, x, h0))
        return problem.facts.function(y, problem.target)

    def backward(arguments: Any, cotangent: Any) -> Any:
        gradients = call(candidate, problem, *map(np.asarray, arguments))
        return tuple(cotangent * gradients[k] for k in GRADIENTS[:7])

    loss.defvjp(lambda *arguments: (loss(*arguments), arguments), backward)
    with jax.enable_x64(True):
        try:
            check_grads(loss, (*problem.params, problem.x, problem.h0), order=1, modes=["rev"])
        except AssertionError:
            return True
    return False


def noticed_by_gradcheck(candidate: Candidate, problem: Problem) -> bool:
    """Return whether torch's check of a custom derivative objects."""

    class Loss(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, *arguments: Any) -> Any:
            ctx.save_for_backward(*arguments)
            W, U, b, V, c, x, h = arguments
            y = []
            for x_t in x:
                h = torch.tanh(h @ W.T + x_t @ U.T + b)
                y.append(h @ V.T + c)
            last = problem.loss == "last_step_squared_error"
            outputs = y[-1] if last else torch.stack(y)
            return ((outputs - torch.from_numpy(problem.target)) ** 2).sum()

        @staticmethod
        def backward(ctx: Any, cotangent: Any) -> Any:
            gradients = call(candidate, problem, *(a.numpy() for a in ctx.saved_tensors))
            return tuple(cotangent * torch.from_numpy(gradients[k]) for k in GRADIENTS[:7])

    arguments = (*problem.params, problem.x, problem.h0)
    tensors = [torch.tensor(a, requires_grad=True) for a in arguments]
    return not torch.autograd.gradcheck(Loss.apply, tensors, raise_exception=False)


CHECKS = ("each step", "end to end", "complex step", "allclose", "check_grads", "gradcheck")
OURS = CHECKS[:3]


def alarms(candidate: Candidate, chunks: list[Any], order: dict[Problem, int]) -> Alarms:
    """Return who objects to a candidate, problem by problem; the few problems come first."""
    found: Alarms = {k: [False] * (PROBLEMS if k in CHECKS[:4] else FEW) for k in CHECKS}
    for chunk in chunks:
        few = order[chunk.answers[0].problem] < FEW
        if not few and all(any(found[k]) for k in CHECKS[:4]):
            break
        for answer, (verdicts, _) in zip(
            chunk.answers, judge_solved(candidate, chunk), strict=True
        ):
            i = order[answer.problem]
            result = call(candidate, answer.problem)
            found["each step"][i] = any((v.local or 0) > 1 for v in verdicts)
            found["end to end"][i] = any((v.ratio or 0) > 1 for v in verdicts)
            found["complex step"][i] = noticed_by_complex_step(result, answer)
            found["allclose"][i] = noticed_by_allclose(result, answer)
    return found


def ask_the_others(candidate: Candidate, problems: list[Problem], found: Alarms) -> None:
    """Let check_grads and gradcheck look at the few problems."""
    for name, noticed in OTHERS.items():
        found[name] = [noticed(candidate, problem) for problem in problems[:FEW]]


def ask_the_others_until_they_object(
    candidate: Candidate, problems: list[Problem], right: Alarms, found: Alarms
) -> None:
    """The same, up to the first objection that the right derivation does not get."""
    for name, noticed in OTHERS.items():
        for i, problem in enumerate(problems[:FEW]):
            if not right[name][i] and noticed(candidate, problem):
                found[name][i] = True
                break


OTHERS = {"check_grads": noticed_by_check_grads, "gradcheck": noticed_by_gradcheck}


def first(objections: list[bool]) -> str:
    """Return the number of the first problem at which a check objects."""
    return str(objections.index(True) + 1) if any(objections) else "never"


def asked(check: str, mistake: Mistake) -> bool:
    """Return whether a check looks at any gradient that a mistake affects."""
    return check not in OTHERS or mistake.affects != ("h",)


def rows(found: dict[str, Alarms]) -> Iterator[list[str]]:
    """Yield the rows of the table of mistakes."""
    for name, mistake in MISTAKES.items():
        cells = [first(found[name][k]) if asked(k, mistake) else "not asked" for k in CHECKS]
        yield [f"{name}: {mistake.sentence}", *cells]


def part(found: dict[str, Alarms], right: Alarms) -> str:
    """Return what stands between the markers."""
    slowest = max(
        sorted(found[name][k].index(True) + 1 for k in OURS if any(found[name][k]))[1]
        for name in MISTAKES
    )
    met = {k: [found[n][k] for n, m in MISTAKES.items() if asked(k, m)] for k in CHECKS}
    missed = {k: sum(not any(objections) for objections in met[k]) for k in CHECKS}
    false = {k: sum(right[k]) for k in CHECKS}
    lines = [
        f"{len(MISTAKES)} mistakes, one at a time in an otherwise right derivation, met {PROBLEMS} "
        f"problems ({FEW} for `check_grads` and `gradcheck`). The tables say at which problem each "
        "check first objected, where it does not object to the right derivation as well; the last "
        "two are not asked about the gradients in the states. At least two of the first three "
        f"checks noticed each mistake within {slowest} problems.",
        "",
        *table(
            ["", *CHECKS],
            [
                ["mistakes never noticed", *(f"{missed[k]} of {len(met[k])}" for k in CHECKS)],
                [
                    "right derivation accused",
                    *(f"{false[k]} of {len(right[k])}" for k in CHECKS),
                ],
            ],
        ),
        "",
    ]
    families: dict[str, list[list[str]]] = {}
    for row, mistake in zip(rows(found), MISTAKES.values(), strict=True):
        families.setdefault(mistake.family, []).append(row)
    for family, members in families.items():
        lines += [*table([f"**{family}**", *CHECKS], members), ""]
    return "\n".join(lines)


class Jury:
    """The checks, with their problems of one loss and what they say of the right derivation."""

    def __init__(self, loss: str) -> None:
        self.loss, self.problems = loss, drawn(loss)
        self.order = {p: i for i, p in enumerate(self.problems)}
        self.chunks = [*solved(self.problems[:FEW]), *solved(self.problems[FEW:])]
        self.right = alarms(correct(loss), self.chunks, self.order)
        ask_the_others(correct(loss), self.problems, self.right)
        if any(any(self.right[k]) for k in OURS):
            sys.exit("the right derivation is accused")

    def hears(self, mistake: Mistake) -> Alarms:
        """Return who objects to a mistake."""
        candidate = mistake.candidate(self.loss)
        found = alarms(candidate, self.chunks, self.order)
        if asked("gradcheck", mistake) and any(any(found[k]) for k in OURS):
            ask_the_others_until_they_object(candidate, self.problems, self.right, found)
        return found


def main() -> None:
    """Measure, print and write."""
    usual, last_step = (Jury(loss) for loss in LOSSES)
    found = {}
    for name, mistake in MISTAKES.items():
        found[name] = usual.hears(mistake)
        if not any(any(found[name][k]) for k in OURS):  # it shows in the other loss alone
            found[name] = last_step.hears(mistake)
        print(name, *(first(found[name][k]) for k in CHECKS), sep="\t", flush=True)
        if sum(any(found[name][k]) for k in OURS) < 2:
            sys.exit(f"fewer than two checks notice {name!r}")
    text = part(found, usual.right)
    print(text)
    write_part("checks", text, measured=measured("python docs/checks.py", "jax", "torch"))


if __name__ == "__main__":
    main()
