"""docs/trust.md and the code that it speaks of do not drift apart."""

import re
from pathlib import Path

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
    """Return the cells of every row of the tables of a part, by the first cell."""
    lines = [line for line in part(name).splitlines() if line.startswith("| ")]
    cells = [re.split(r" (?<!\\)\| ", line.strip("| ")) for line in lines]
    return {first.replace("\\|", "|"): rest for first, *rest in cells}


def test_the_table_of_checks_has_every_mistake_and_at_least_two_checks_notice_each():
    table = rows("checks")
    for name, mistake in MISTAKES.items():
        ours = table[f"{name}: {mistake.sentence}"][:3]
        assert sum(cell.isdecimal() for cell in ours) >= 2, name
    assert len([k for k in table if ": " in k]) == len(MISTAKES)
    assert table["right derivation accused"][:3] == ["0 of 200"] * 3


def test_no_correct_candidate_was_accused():
    table = rows("correct")
    for name in CANDIDATES:
        found = [cells for first, cells in table.items() if first.startswith(name)]
        assert found, name


@pytest.mark.parametrize("command", sorted(set(re.findall(r"`(?:python|pytest) ([^`]+)`", PAGE))))
def test_every_command_on_the_page_names_files_that_exist(command):
    for word in command.split():
        assert not word.endswith(".py") or (ROOT / word).is_file()
