"""The README's Python blocks run as they stand, one after the other."""

import re
from pathlib import Path

import pytest

README = Path(__file__).resolve().parents[1] / "README.md"
BLOCKS = re.findall(r"^```python\n(.*?)^```$", README.read_text(encoding="utf-8"), re.M | re.S)


def test_the_blocks_of_the_readme_run():
    pytest.importorskip("numba")
    names = {"__name__": "__main__"}
    for code in BLOCKS:
        exec(compile(code, "<README.md>", "exec"), names)


def test_the_readme_has_both_examples():
    assert sum("import manual_bptt" in code for code in BLOCKS) == 1
    assert sum("reference.compare" in code for code in BLOCKS) == 1
