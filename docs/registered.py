"""Are the mistakes of the registry found by the search for broken rules, too?

python docs/registered.py            run, print, and write a part of trust.md
python docs/registered.py --first 5  the first five alone; the page stays as it is

The search knows none of them: it is the one that serves any cell and any function of JAX.
"""

import argparse
from collections import Counter

import numpy as np
from diagnoses import loss_of
from markers import measured, table, write_part

from reference.breaks.kinds.free import FROM_HERE
from reference.explaining.diagnosis import gather
from reference.explaining.rules import broken_rules
from reference.judging.candidates import Caller
from reference.mistakes import MISTAKES, Mistake
from reference.problems import random_problem

SIZES = {"D": 3, "H": 4, "O": 2}
SHAPES = (5, None), (5, 3), (12, 2), (40, None)  # steps and sequences
REGIMES = "contracting", "saturated"
WAYS = ("by a broken rule", "by several together", "by the place alone", "not found")


def found(mistake: Mistake) -> tuple[str, str]:
    """Return how a mistake is found, and in what words."""
    best = WAYS[-1], mistake.sentence
    loss = loss_of(mistake)
    caller = Caller(mistake.candidate(loss))
    for steps, batch in SHAPES:
        for regime in REGIMES if best[0] != WAYS[0] else ():
            options = {"loss": loss, "regime": regime, "seed": 1}
            problem = random_problem(T=steps, B=batch, **SIZES, **options)
            with np.errstate(all="ignore"):
                rules = broken_rules(caller, gather(caller, [problem]))
            if rules is not None and rules.explanations:
                said = " and ".join(rules.names)
                several = len(rules.mistakes) > 1
                way = WAYS[2 if FROM_HERE in said else int(several)]
                if WAYS.index(way) < WAYS.index(best[0]):
                    best = way, said
    return best


def main() -> None:
    """Run, print and write."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--first", type=int, default=len(MISTAKES), help="how many mistakes")
    first = parser.parse_args().first
    count: Counter[str] = Counter()
    missing = []
    for mistake in list(MISTAKES.values())[:first]:
        way, said = found(mistake)
        count[way] += 1
        if way == WAYS[-1]:
            missing.append(mistake.name)
        print(f"{way:20} {mistake.name}: {said}", flush=True)
    rows = [(way, str(count[way])) for way in WAYS]
    text = table(("the mistakes of the registry are found", "how many"), rows)
    text += ["", "Not found: " + "; ".join(missing) + "."]
    if first >= len(MISTAKES):
        how = measured("python docs/registered.py", "jax")
        write_part("registered", "\n".join(text), measured=how)


if __name__ == "__main__":
    main()
