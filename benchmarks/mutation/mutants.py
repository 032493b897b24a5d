"""All mutants of a file: what cosmic-ray's operators and ours make of it, each once.

Left out is what says nothing about the tests: code that does not compile; mutations of annotations
and docstrings, which nothing executes; bit operators, which floating arrays refuse, so that any
test would notice; identity for equality, which depends on the interpreter; ``//``, ``%`` and ``**``
for ``+``, ``-`` and ``*``, which are off in the first digit wherever the other two of these are;
and ``+x`` for ``-x``, since ``x`` is another.
"""

import ast
import difflib
import json
import re
import warnings
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path

import cosmic_ray.plugins
from cosmic_ray.ast import ast_nodes, get_ast
from cosmic_ray.mutating import mutate_code
from operators import OPERATORS, Provider

HERE = Path(__file__).resolve().parent
KEPT = HERE / "made"
PROVIDERS = {**cosmic_ray.plugins.OPERATOR_PROVIDERS, "bptt": Provider()}
LEFT_OUT = re.compile(
    "Variable(Replacer|Inserter)"  # random
    "|ReplaceBinaryOperator_.*_(Bit.*|.Shift)"
    "|ReplaceComparisonOperator_((?!Is).*_Is.*|Is.*_(?!Is).*)"
    "|ReplaceBinaryOperator_(Add|Sub|Mul)_(FloorDiv|Mod|Pow)"
    "|ReplaceUnaryOperator_USub_(UAdd|Not|Invert)"
)


@dataclass(frozen=True)
class Mutant:
    """One file with one mutation; the name says which, and stays when other lines move."""

    name: str
    source: str


def mutants(path: Path, title: str) -> list[Mutant]:
    """Return every mutant of the file, no two of which are the same program.

    Names start with the title, for files of one name may stand in two folders. To make them takes
    as long as to judge some of them, so they are kept.
    """
    original = path.read_text(encoding="utf-8")
    makers = [HERE / "mutants.py", HERE / "operators.py"]
    texts = [title, original, version("cosmic-ray"), *(m.read_text("utf-8") for m in makers)]
    kept = KEPT / f"{sha256(repr(texts).encode()).hexdigest()[:16]}.json"
    if not kept.exists():
        KEPT.mkdir(exist_ok=True)
        part = kept.with_suffix(".part")
        made = [asdict(mutant) for mutant in _made(title, original)]
        part.write_text(json.dumps(made), encoding="utf-8")
        part.replace(kept)
    return [Mutant(**of) for of in json.loads(kept.read_text(encoding="utf-8"))]


def _made(title: str, original: str) -> Iterator[Mutant]:
    seen = {_program(original)}
    named: Counter[str] = Counter()
    for source in _mutations(original):
        program = _program(source)
        if program is not None and program not in seen:
            seen.add(program)
            name = f"{title} {_change(original, source)}"
            named[name] += 1  # the same line may occur twice in one function
            yield Mutant(name + f" #{named[name]}" * (named[name] > 1), source)


def check_operators() -> None:
    """Raise AssertionError if an operator of ours does not do what its example says."""
    for operator in OPERATORS.values():
        for e in operator.examples():
            assert mutate_code(e.pre_mutation_code, operator(), 0) == e.post_mutation_code, operator


def _mutations(source: str) -> Iterator[str]:
    nodes = [*ast_nodes(get_ast(source))]
    for provider in PROVIDERS.values():
        for name in provider:
            if LEFT_OUT.fullmatch(name):
                continue
            make = provider[name]()
            for occurrence in range(sum(len([*make.mutation_positions(n)]) for n in nodes)):
                mutated = mutate_code(source, make, occurrence)
                assert mutated is not None
                yield mutated


def _program(source: str) -> str | None:
    """Return what is executed, as text to compare; None if the source does not compile."""
    try:
        with warnings.catch_warnings(action="ignore"):
            compile(source, "mutant", "exec")
    except SyntaxError:
        return None
    return ast.dump(_Executed().visit(ast.parse(source)))


class _Executed(ast.NodeTransformer):
    """Takes annotations and docstrings out of a syntax tree."""

    def visit_arg(self, node: ast.arg) -> ast.arg:
        node.annotation = None
        return node

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        node.returns = None
        return self.generic_visit(node)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.AST:
        node.annotation = ast.Constant(None)
        return self.generic_visit(node)

    def visit_Expr(self, node: ast.Expr) -> ast.AST | None:
        is_text = isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
        return None if is_text else self.generic_visit(node)


def _change(original: str, mutated: str) -> str:
    """Return ``function: line -> line``."""
    before, after = original.splitlines(), mutated.splitlines()
    matcher = difflib.SequenceMatcher(a=before, b=after, autojunk=False)
    changes = [c for c in matcher.get_opcodes() if c[0] != "equal"]
    first, last = changes[0], changes[-1]
    was, becomes = _code(before[first[1] : last[2]]), _code(after[first[3] : last[4]])
    functions = [
        n
        for n in ast.walk(ast.parse(original))
        if isinstance(n, ast.FunctionDef) and n.lineno <= first[1] + 1 <= (n.end_lineno or 0)
    ]
    where = functions[-1].name if functions else "module"
    return f"{where}: {was} -> {becomes}"


def _code(lines: list[str]) -> str:
    """Return lines of code as one, without their comments."""
    return " ".join(line.split("  #")[0].strip() for line in lines)
