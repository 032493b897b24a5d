"""No correct gradient is accused, whatever it looks like; the command counts those that are."""

from functools import cache
from itertools import combinations, product

import correct_candidates
import numpy as np
import pytest
from correct_candidates import CANDIDATES, judge_all, main, markdown

from reference.judging.verdicts import judge_solved
from reference.mistakes import MISTAKES, correct
from reference.oracle.answers import solved
from reference.problems import REGIMES, random_problem


def drawn(dtype):
    """One batch and one single sequence of each regime, all padded to one shape."""
    sizes = ({"T": 9, "B": 3, "D": 4, "H": 3, "O": 2}, {"T": 11, "B": None, "D": 2, "H": 4, "O": 3})
    made = product(REGIMES, sizes)
    return [
        random_problem(**size, regime=regime, seed=i, dtype=dtype)
        for i, (regime, size) in enumerate(made)
    ]


@cache
def answered(dtype):
    (chunk,) = solved(drawn(dtype))
    return chunk


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("name", CANDIDATES)
def test_correct_code_is_never_accused(name, dtype):
    verdicts, notes = zip(*judge_solved(CANDIDATES[name], answered(dtype)), strict=True)
    statuses = {v.status for vs in verdicts for v in vs}
    assert {"match"} <= statuses <= {"match", "not returned", "nothing proved"}
    assert not any(notes)


def test_no_two_candidates_wear_the_same_clothes():
    def results(name):
        return [CANDIDATES[name](p.params, p.x, p.h0, p.target) for p in drawn("float64")]

    returned = {name: results(name) for name in CANDIDATES}
    for a, b in combinations(CANDIDATES, 2):
        assert any(
            one.keys() != two.keys()
            or any(
                one[k].strides != two[k].strides or not np.array_equal(one[k], two[k]) for k in one
            )
            for one, two in zip(returned[a], returned[b], strict=True)
        ), (a, b)


def test_a_false_alarm_is_counted_and_shown(monkeypatch, capsys):
    accused = {"correct": correct(), "accused": MISTAKES["1 - h"].candidate()}
    monkeypatch.setattr(correct_candidates, "CANDIDATES", accused)
    monkeypatch.setattr(correct_candidates, "problems_of", lambda n, seed, dtype: drawn(dtype))
    assert main(["--problems", "12"]) == 1
    table = capsys.readouterr().out
    assert "| correct | float64 | 12 | 0 |" in table
    assert "| accused | float32 | 12 | 12 |" in table
    assert "accused: W is accused of mismatch in reference.random_problem(" in table


def test_candidates_share_the_answers_and_the_table_has_a_row_for_each():
    found = judge_all(drawn("float64"), {k: CANDIDATES[k] for k in list(CANDIDATES)[:3]})
    assert [row.problems for row in found] == [12, 12, 12]
    assert len(markdown(found).splitlines()) == 5
    assert len(CANDIDATES) >= 10
