"""How small an error do the two checks see? python docs/sensitivity.py, which writes into trust.md.

Three relative errors are put into an otherwise right derivation, from one rounding upwards: in the
h^2 of the derivative of tanh at every step, in the diagonal of W on the way back through time, and
in one entry of dV. All meet the same 200 problems.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from markers import measured, table, write_part

import reference
from reference.judging.verdicts import judge_solved
from reference.mistakes import Derivation
from reference.oracle.answers import solved

PROBLEMS = 200
LARGEST = 2**16  # in units of eps
CHECKS = ("each step, with states", "each step", "end to end")


class InSlope(Derivation):
    """h^2 in the derivative of tanh is off by this relative error."""

    size = 0.0

    def slope(self, t: int) -> Any:
        """Return the derivative of tanh at a[t], with the error."""
        return 1 - self.h.dtype.type(1 + self.size) * self.h[t] ** 2


class InDiagonal(InSlope):
    """The diagonal of W is off on the way back."""

    slope = Derivation.slope

    def from_next(self, t: int) -> Any:
        """Return what step t+1 sends to h[t], with the error."""
        W = self.W * (1 + self.size * np.eye(self.H)).astype(self.W.dtype)
        return self.da[t + 1] @ W


class InEntry(InSlope):
    """One entry of dV is off."""

    slope = Derivation.slope

    def finish(self, results: dict[str, Any]) -> Any:
        """Return the results, with the error."""
        results["V"][0, 0] *= self.V.dtype.type(1 + self.size)
        return results


KINDS = {"h^2 in the slope": InSlope, "diagonal of W": InDiagonal, "one entry of dV": InEntry}


def candidate(kind: type[InSlope], size: float, *, states: bool) -> Callable[..., Any]:
    """Return the derivation with an error of this size, with or without its states."""
    derivation = type("Wrong", (kind,), {"size": size})

    def gradients_of(params: Any, x: Any, h0: Any, target: Any) -> dict[str, Any]:
        results = derivation(params, x, h0, target, "squared_error").gradients()
        return {k: array for k, array in results.items() if states or k != "states"}

    return gradients_of


def share_noticed(chunks: list[Any], kind: type[InSlope], size: float) -> dict[str, float]:
    """Return in which share of the problems each check objects."""
    noticed = dict.fromkeys(CHECKS, 0)
    for states in (True, False):
        for chunk in chunks:
            for verdicts, _ in judge_solved(candidate(kind, size, states=states), chunk):
                local = any((v.local or 0) > 1 for v in verdicts)
                noticed[CHECKS[0] if states else CHECKS[1]] += local
                noticed[CHECKS[2]] += states and any((v.ratio or 0) > 1 for v in verdicts)
    return {k: n / PROBLEMS for k, n in noticed.items()}


def rows(dtype: str) -> list[list[str]]:
    """Return the smallest error that each check notices in half of the problems."""
    eps = float(np.finfo(dtype).eps)
    drawn = reference.draw_problems(PROBLEMS, 0, dtype=dtype, batched=True)
    chunks = list(solved(drawn))
    found = []
    for name, kind in KINDS.items():
        seen = dict.fromkeys(CHECKS, "not seen")
        size = 1
        while "not seen" in seen.values() and size <= LARGEST:
            for check, share in share_noticed(chunks, kind, size * eps).items():
                if share >= 0.5 and seen[check] == "not seen":
                    seen[check] = f"{size * eps:.1e} ({size} eps)"
            size *= 2
        found.append([f"{dtype}: {name}", *seen.values()])
    return found


def main() -> None:
    """Measure, print and write."""
    lines = [
        "The smallest relative error that each check notices in at least half of "
        f"{PROBLEMS} problems, doubled from one eps, the spacing of the numbers at 1:",
        "",
        *table(["relative error in", *CHECKS], [*rows("float64"), *rows("float32")]),
    ]
    text = "\n".join(lines) + "\n"
    print(text)
    write_part("sensitivity", text, measured=measured("python docs/sensitivity.py", "jax"))


if __name__ == "__main__":
    main()
