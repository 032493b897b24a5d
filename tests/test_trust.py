"""docs/trust.md and the code that it speaks of do not drift apart."""

import importlib
import json
import re
import tomllib
from pathlib import Path

import numpy as np
import pytest
from correct_candidates import CANDIDATES

from reference.mistakes import MISTAKES

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "docs" / "trust.md").read_text(encoding="utf-8")


def part(name):
    """Return what a command wrote between its markers."""
    (text,) = re.findall(rf"<!-- {name}: begin -->\n(.+?)<!-- {name}: end -->", PAGE, re.S)
    return text


def rows(name):
    """Return the cells of every row of the tables of a part."""
    lines = [line for line in part(name).splitlines() if line.startswith("| ")]
    cells = [re.split(r" (?<!\\)\| ", line.strip("| ")) for line in lines]
    return [[cell.replace("\\|", "|") for cell in row] for row in cells]


def test_the_table_of_checks_has_every_mistake_and_at_least_two_checks_notice_each():
    table = {first: rest for first, *rest in rows("checks")}
    first_seen = {}
    for name, mistake in MISTAKES.items():
        ours = table[f"{name}: {mistake.sentence}"][:3]
        seen = sorted(int(cell) for cell in ours if cell.isdecimal())
        assert len(seen) >= 2, name
        first_seen[name] = seen[1]
    assert len([k for k in table if ": " in k]) == len(MISTAKES)
    assert part("checks").startswith(f"{len(MISTAKES)} mistakes, ")
    assert f"each mistake within {max(first_seen.values())} problems." in part("checks")
    assert table["mistakes never noticed"][:3] == [f"0 of {len(MISTAKES)}"] * 3
    assert table["right derivation accused"][:3] == ["0 of 200"] * 3


def test_no_correct_candidate_was_accused():
    _, _, *found = rows("correct")
    judged = set()
    for name, dtype, problems, alarms, *ratios in found:
        assert (problems, alarms) == ("10,000", "0"), (name, dtype)
        assert all(0 <= float(ratio) <= 1 for ratio in ratios), (name, dtype)
        judged.add((name, dtype))
    assert len(judged) == len(found)
    names = {name for name, _ in judged}
    assert judged == {(name, dtype) for name in names for dtype in ("float64", "float32")}
    assert {*CANDIDATES} <= names
    assert part("correct").startswith(f"Each of {len(names)} correct derivations was judged")


def test_every_mistake_was_named_rightly():
    table = {first: rest for first, *rest in rows("diagnoses")}
    assert table["by manual-bptt check"] == [f"{len(MISTAKES)} of {len(MISTAKES)}"]


def test_the_check_of_each_step_sees_what_the_page_says_in_both_precisions():
    _, _, *found = rows("sensitivity")
    assert len(found) == 6
    for what, *cells in found:
        eps = np.finfo(what.partition(":")[0]).eps
        for cell in cells:
            size, multiple = re.fullmatch(r"(\S+) \((\d+) eps\)", cell).groups()
            assert float(size) == pytest.approx(int(multiple) * eps, rel=0.05)
        with_states, without, _ = (int(re.search(r"\((\d+)", cell)[1]) for cell in cells)
        assert with_states <= without <= 2**16


def test_the_table_of_mutants_is_that_of_the_last_run_and_every_survivor_has_a_reason(monkeypatch):
    folder = ROOT / "benchmarks" / "mutation"
    monkeypatch.syspath_prepend(folder)
    published = importlib.import_module("published")
    results = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    assert [*results["mutants"]] == [f"{file}.py" for file in published.TESTS]
    *table, _, measured = part("mutants").splitlines()
    assert table == [*published.page(results)]
    assert measured.startswith(f"Measured at commit {results['commit']} by ")
    entries = tomllib.loads((folder / "survivors.toml").read_text(encoding="utf-8"))["survivor"]
    explained = [mutant for entry in entries for mutant in entry["mutants"]]
    assert sorted(explained) == sorted(results["equivalent"])
    assert results["survived"] == []
    last = table[-1].strip("| ").split(" | ")
    assert last[0] == "**all**"
    assert float(last[-2].rstrip("%")) >= 97
