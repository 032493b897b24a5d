"""docs/derivation.md is complete, up to date, and what it shows is what runs."""

import contextlib
import io
import re
import runpy
from pathlib import Path
from xml.etree import ElementTree

import pytest
from latex2mathml.converter import convert

DOCS = Path(__file__).resolve().parents[1] / "docs"
TEXT = (DOCS / "derivation.md").read_text(encoding="utf-8")
BUILD = runpy.run_path(str(DOCS / "build.py"))
BY_HAND = BUILD["PART"].sub("", TEXT)
PYTHON = re.findall(r"^```python\n(.*?)^```$", BY_HAND, re.M | re.S)
SHOWN = re.findall(
    r"^```python\n([^`]*?)^```\n\nprints\n\n```text\n([^`]*?)^```$", BY_HAND, re.M | re.S
)
PROSE = re.sub(r"^```.*?^```$", "", TEXT, flags=re.M | re.S)
FORMULAS = re.findall(r"^```math\n(.*?)^```$", TEXT, re.M | re.S) + re.findall(
    r"\$`(.+?)`\$", PROSE
)
FORBIDDEN = r"\\(label|tag|newcommand|def|operatorname|mbox|phantom|text(tt|bf)|bm|boldsymbol)\b"


def test_each_of_the_37_equations_stands_once_and_in_order():
    numbers = list(range(1, 38))
    headings = re.findall(r'^#### <a id="eq-(\d+)"></a>\((\d+)\) \S', TEXT, re.M)
    assert [int(number) for pair in headings for number in pair] == [
        n for n in numbers for _ in "ab"
    ]
    assert [int(n) for n in re.findall(r"<!-- eq (\d+) -->", TEXT)] == numbers
    assert [int(n) for n in re.findall(r"<!-- /eq (\d+) -->", TEXT)] == numbers
    assert TEXT.count('<a id="') == 37


def test_each_equation_has_its_reason_under_its_own_heading():
    sections = re.split(r"^#+ .*$", TEXT, flags=re.M)
    reasons = [s.partition("<!-- eq ")[0] for s in sections if "<!-- eq " in s]
    assert len(reasons) == 37
    assert min(len(reason.split()) for reason in reasons) >= 15


def test_text_and_code_agree_in_everything_but_the_figures():
    same = BUILD["without_figures"]
    assert same(TEXT) == same(BUILD["build"](TEXT, {}))


def test_every_equation_shows_measured_figures():
    measured = re.findall(
        r"^Measured: .*largest error ([\d.e+-]+) of .*, (\d+) problems\.$", TEXT, re.M
    )
    assert len(measured) == 37
    assert all(float(error) <= 1 and int(problems) > 0 for error, problems in measured)


def test_every_block_of_python_shows_what_it_prints():
    assert [code for code, _ in SHOWN] == PYTHON
    assert len(PYTHON) == 3


@pytest.mark.parametrize(("code", "shown"), SHOWN, ids=range(len(SHOWN)))
def test_a_block_of_python_prints_what_is_shown(code, shown):
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(code, "<derivation.md>", "exec"), {"__name__": "__main__"})
    assert printed.getvalue() == shown


def test_formulas_are_such_that_github_renders_them():
    assert len(FORMULAS) > 47
    assert PROSE.count("$`") == PROSE.count("`$")
    for latex in FORMULAS:
        assert not re.search(FORBIDDEN, latex), latex
        assert "\\" not in convert(latex), latex


def test_the_graph_is_an_svg_with_words_for_those_who_do_not_see_it():
    svg = ElementTree.parse(DOCS / "graph.svg").getroot()
    space = "{http://www.w3.org/2000/svg}"
    assert svg.tag == f"{space}svg"
    assert all(svg.find(f"{space}{name}").text.strip() for name in ("title", "desc"))
    words = ["".join(text.itertext()) for text in svg.iter(f"{space}text")]
    assert {f"{letter}[{t}]" for letter in "hxy" for t in (1, 2, 3)} <= set(words)
    assert all(words.count(parameter) == 3 for parameter in "WUVbc")
