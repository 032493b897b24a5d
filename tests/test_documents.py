"""What every document keeps: sentences end, links lead somewhere, names and commands are alive."""

import importlib
import re
import shlex
from functools import cache
from itertools import pairwise
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from manual_bptt import cli

ROOT = Path(__file__).resolve().parents[1]
PAGES = {
    str(path.relative_to(ROOT)): path.read_text(encoding="utf-8")
    for path in sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("data/*.md")])
}
pages = pytest.mark.parametrize("page", PAGES)
FENCE = re.compile(r"^(```+)(\w*)\n(.*?)^\1$", re.M | re.S)
LINK = re.compile(r"\]\(([^)\s]+)\)")
ITEM = re.compile(r"\s*(?:[-*]|\d+\.) ")
ENDS = re.compile(r"[.:!?][)*\"'`]*\\?$")
CONTENTS = re.compile(r"- \[[^\]]*\]\(#")
INTO_CODE = re.compile(r"\b(and|with|prints|says|hence|function)$|,$", re.I)


def prose(page):
    """Return a page without what its blocks of code and formulas hold."""
    return FENCE.sub("```", PAGES[page])


def blocks(page):
    """Yield the paragraphs and the items of lists, each on one line."""
    text = re.sub(r"<!--.*?-->|<a id=[^>]*></a>", "", prose(page), flags=re.S)
    for block in re.split(r"\n\s*\n", text):
        item = []
        for line in block.strip("\n").splitlines():
            if ITEM.match(line) and item:
                yield " ".join(item).strip()
                item = []
            item.append(line.strip())
        if item:
            yield " ".join(item).strip()


def is_text(block):
    """Return whether a block is text: no heading, table, picture, code or line of links."""
    words = re.sub(r"!?\[[^\]]*\]\([^)]*\)|[·\s]", "", block)
    return bool(words) and not block.startswith(("#", "|", "```")) and not CONTENTS.match(block)


@pages
def test_every_paragraph_and_every_item_ends_as_a_sentence_does(page):
    found = [*blocks(page), ""]
    for block, after in pairwise(found):
        if is_text(block) and not ENDS.search(block):
            goes_on = after.startswith("```") and INTO_CODE.search(block)
            values = ITEM.match(block) and re.search(r"[;`\d]$", block)
            assert goes_on or values, block


@pages
def test_headings_and_tables_stand_apart_from_the_text(page):
    lines = ["", *prose(page).splitlines(), ""]
    for before, line in pairwise(lines):
        if line.startswith("#"):
            assert not before, line
        if line.startswith("|") and not before.startswith("|"):
            assert not before or before.startswith("<!--"), line
        if before.startswith("|") and not line.startswith("|"):
            assert not line or line.startswith("<!--"), line


@pages
def test_every_row_of_a_table_has_as_many_cells_as_its_header(page):
    cells = 0
    for line in prose(page).splitlines():
        if not line.startswith("|"):
            cells = 0
            continue
        found = len(re.findall(r"(?<!\\)\|", re.sub(r"\$`.*?`\$", "", line)))
        assert cells in (0, found), line
        cells = found


@cache
def anchors(path):
    """Return what a link into a page can name: explicit ids, and GitHub's for headings."""
    text = path.read_text(encoding="utf-8")
    headings = re.findall(r"^#+ (.*)$", FENCE.sub("```", text), re.M)
    plain = [re.sub(r"<[^>]*>|[^\w\s-]", "", heading).strip().lower() for heading in headings]
    return {*re.findall(r'<a id="([^"]+)"></a>', text), *(h.replace(" ", "-") for h in plain)}


@pages
def test_links_lead_to_files_and_anchors_that_exist_and_never_to_the_number_of_a_line(page):
    for link in set(LINK.findall(prose(page))):
        parts = urlsplit(link)
        if parts.scheme:
            assert parts.scheme == "https", link
            assert re.fullmatch(r"[\w-]+(\.[\w-]+)+", parts.netloc), link
            continue
        path = (ROOT / page).parent / parts.path if parts.path else ROOT / page
        assert path.exists(), link
        assert not re.fullmatch(r"L\d+(-L\d+)?", parts.fragment), f"{link}: lines move"
        assert not parts.fragment or parts.fragment in anchors(path.resolve()), link


def code_links(text):
    """Yield (code, path) for every link whose text is code and which leads to a file of Python."""
    for code, link in re.findall(r"\[`([^`\n]+)`\]\(([^)\s]+\.py)\)", text):
        if not code.endswith(".py"):
            yield code, link


def lines_that_begin(code, path):
    """Return the lines of a file that begin as a link's text does, or define what it names."""
    lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
    return [line for line in lines if line.startswith((code, f"def {code}(", f"class {code}("))]


@pages
def test_a_link_with_code_as_its_text_leads_to_the_one_file_line_that_begins_so(page):
    for code, link in code_links(prose(page)):
        assert len(lines_that_begin(code, (ROOT / page).parent / link)) == 1, (code, link)


@pytest.mark.parametrize("number", [1, 2, *range(4, 11)])
def test_the_code_that_the_derivation_links_to_at_an_equation_carries_its_number(number):
    text = PAGES["docs/derivation.md"]
    reason = text.partition(f'<a id="eq-{number}"></a>')[2].partition("<!-- eq ")[0]
    found = [
        line
        for code, link in code_links(reason)
        for line in lines_that_begin(code, ROOT / "docs" / link)
    ]
    assert any(re.search(rf"# .*Eq\. {number}\b", line) for line in found), found


# Parts that commands write

PART = re.compile(r"<!-- ([\w ]+): begin -->\n(.*?)<!-- \1: end -->", re.S)
PARTS = {(page, name): part for page, text in PAGES.items() for name, part in PART.findall(text)}
# Written anew and compared: tests/test_guide.py, test_conventions.py and test_imports.py, --check.
COMPARED = {
    ("docs/check-your-gradient.md", f"{which} {what}")
    for which in ("first", "second")
    for what in ("attempt", "report")
}
COMPARED |= {
    ("docs/check-your-gradient.md", f"{which} {what}")
    for which in ("named", "attention")
    for what in ("loss", "mistakes")
}
COMPARED |= {("docs/architecture.md", "arrows"), ("docs/check-your-gradient.md", "conventions")}
MEASURED = re.compile(
    r"\n\nMeasured at commit ([0-9a-f]{7,}) of \d{4}-\d\d-\d\d(, with changes)?"
    r" by\s`python [^`]+\.py[^`]*`"
    r"(, on \d+ cores \(.+\) with .*numpy [\d.]+.*\.|[^|]*\b(was|were)\snot\skept\.)\n$",
    re.I,
)


def test_parts_that_are_compared_exist():
    assert PARTS.keys() > COMPARED
    assert len(PARTS) == sum(text.count(": begin -->") for text in PAGES.values())


@pytest.mark.parametrize(("page", "name"), sorted(PARTS.keys() - COMPARED))
def test_every_measured_part_says_at_which_commit_how_and_on_what(page, name):
    assert MEASURED.search(PARTS[page, name]), PARTS[page, name][-300:]


# Names and commands


@cache
def words_of_the_code():
    """Return every word of the files that the project keeps, except its documents."""
    kept = [*ROOT.glob("*.toml"), *ROOT.glob(".*.yaml"), *ROOT.glob("examples/**/*.*")]
    for folder in ("manual_bptt", "reference", "tests", "docs", "benchmarks", "data"):
        kept += [p for end in ("py", "toml") for p in (ROOT / folder).rglob(f"*.{end}")]
    return set(re.findall(r"\w+", " ".join(p.read_text(encoding="utf-8") for p in kept)))


def quoted(page):
    """Return what stands between backticks in a page."""
    return re.findall(r"(?<![`$])`([^`\n]+)`(?![`$])", prose(page))


@pages
def test_every_name_in_backticks_is_a_word_of_the_code(page):
    for text in quoted(page):
        if re.fullmatch(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*(\(\))?", text) and re.search(r"[_.]", text):
            unknown = {*re.findall(r"\w+", text)} - words_of_the_code()
            assert not unknown, (text, unknown)


@pages
def test_every_name_of_a_package_in_backticks_can_be_imported(page):
    for text in quoted(page):
        name = re.match(r"(?:mb|manual_bptt|reference)((?:\.[A-Za-z_]\w*)+)(?=\(|$)", text)
        if not name:
            continue
        target = importlib.import_module("manual_bptt" if text.startswith("m") else "reference")
        for part in name[1][1:].split("."):
            if not hasattr(target, part):
                importlib.import_module(f"{target.__name__}.{part}")
            target = getattr(target, part)


@pages
def test_every_file_in_backticks_exists(page):
    for text in quoted(page):
        for word in text.split():
            path = re.fullmatch(r"((?:[\w.-]+/)*)[\w.-]+\.(?:py|md|toml|csv|svg|png|c|mjs)", word)
            if not path or "golden" in word or word.startswith("forecast"):
                continue
            places = [ROOT / word, (ROOT / page).parent / word, *ROOT.glob(f"*/{word}")]
            places += [*ROOT.glob(f"*/*/{word}"), *ROOT.glob(f"*/*/*/{word}")]
            assert any(p.exists() for p in places), word


def commands():
    """Yield (page, words) for every command of this project that a document shows."""
    for page, text in PAGES.items():
        shown = [
            line.removeprefix("$ ")
            for _, language, code in FENCE.findall(text)
            if language in ("sh", "text", "")
            for line in code.splitlines()
        ] + quoted(page)
        for line in shown:
            for part in re.split(r" && | \| |; ", line):
                words = shlex.split(part, comments=True) if part.count("'") % 2 == 0 else []
                words = [w for w in words if "=" not in w or w.startswith("-")]
                if words and Path(words[0]).name in ("manual-bptt", "python", "pytest"):
                    yield page, [Path(words[0]).name, *words[1:]]


COMMANDS = sorted({(page, " ".join(words)) for page, words in commands()})


def test_documents_show_commands():
    assert len(COMMANDS) > 30


@pytest.mark.parametrize(("page", "command"), COMMANDS)
def test_every_command_names_options_and_files_that_exist(page, command):
    program, *words = command.split()
    if program == "manual-bptt":
        if len(words) > 1:
            assert cli._parser().parse_args(words).run
        elif words:
            with pytest.raises(SystemExit) as ended:  # a command without what it needs
                cli._parser().parse_args([*words, "--help"])
            assert ended.value.code == 0
        return
    if words[:2] == ["-m", "venv"] or "-c" in words:
        return
    files = [ROOT / w.partition("::")[0] for w in words if ".py" in w]
    assert all(file.is_file() for file in files), command
    if program == "python":
        source = files[0].read_text(encoding="utf-8")
        assert all(f'"{w}"' in source for w in words if w.startswith("--")), command
