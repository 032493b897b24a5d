"""Breaks in words: what is wrong, the expression of the loss that it is about, and its line."""

import ast
import linecache
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from reference import jaxprs
from reference.breaks.changes import Exchanged
from reference.breaks.kinds.site import Break
from reference.breaks.reverse import ARRIVED, Leaf
from reference.breaks.tape import Node, Tape

LONGEST = 60  # characters of an expression that is quoted
OPERATORS = {
    ast.Add: ("add", "add_any"),
    ast.Sub: ("sub",),
    ast.Mult: ("mul",),
    ast.Div: ("div",),
    ast.MatMult: ("dot_general",),
    ast.Pow: ("integer_pow", "pow", "square"),
}
CHOICES = {1: 2, 2: 1}  # select_n has the case for False first, jnp.where the one for True


@dataclass(frozen=True)
class Mistake:
    """What is wrong with a gradient, and where in the loss.

    ``says`` is a sentence, ``operation`` JAX's name for what it is about, ``file``, ``line``,
    ``column`` and ``end_column`` are where that stands (columns from 0), ``function`` is the
    function that it is in. They are None where JAX does not know. ``used`` are further lines, in
    which the value is made or used that the sentence is about.
    """

    says: str
    operation: str
    file: str | None = None
    function: str | None = None
    line: int | None = None
    column: int | None = None
    end_column: int | None = None
    used: tuple[int, ...] = ()

    @property
    def place(self) -> str:
        """The file's name, the line and the function, as far as they are known."""
        if self.file is None:
            return ""
        function = str(self.function).rsplit(".", 1)[-1]
        *most, last = map(str, self.used or ("",))
        others = f"{', '.join(most)} and {last}" if most else last
        word = {0: "", 1: ", with line "}.get(len(self.used), ", with lines ")
        return f"{Path(self.file).name}, line {self.line}{word}{others}, in {function}"

    def __str__(self) -> str:
        return f"{self.says} ({self.place})" if self.place else self.says

    def lines(self) -> list[str]:
        """Return the sentence, the line of the loss, and a mark below what it is about."""
        text = "" if self.file is None else linecache.getline(self.file, self.line or 0).rstrip()
        if not text.strip() or self.column is None or self.end_column is None:
            return [str(self)]
        indent = len(text) - len(text.lstrip())
        end = self.end_column if self.end_column > self.column else len(text)
        mark = " " * (self.column - indent) + "^" * (end - self.column)
        return [str(self), f"    {text.strip()}", f"    {mark}"]

    def as_dict(self) -> dict[str, Any]:
        """Return everything as JSON values."""
        return asdict(self)


def mistake(tape: Tape, broken: Break, labels: Sequence[str]) -> Mistake:
    """Return a break in words; the arguments have labels."""
    edit = broken.edits[0]
    if isinstance(edit.key, Leaf):
        whole = labels[edit.key.number]
        says = broken.says.replace("{value}", whole).replace("{operand}", whole)
        if isinstance(edit.change, Exchanged):
            says = says.replace("{other}", labels[edit.change.number])
        uses = tape.uses[tape.arguments[edit.key.number]]
        return _placed(says, "the whole gradient", uses[0][0].source if uses else None)
    about, node = (tape.places[key][0] for key in (broken.key, edit.key))
    where = node.source
    expression = _expression(node, where)
    part, other = (_operand(node, where, k) for k in (edit.operand, 1 - edit.operand))
    words = {
        "operand": f"{part} in {expression}" if part else expression,
        "other": other or "the other factor",
        "expression": expression,
        "value": _value(tape, broken.value, labels, None if where is None else where.file),
    }
    says = broken.says
    for name, text in words.items():
        says = says.replace(f"{{{name}}}", text)
    keys = [*(edit.key for edit in broken.edits), *broken.near]
    others = {tape.places[key][0].source for key in keys if not isinstance(key, Leaf)}
    lines = {o.line for o in others if o is not None and where is not None and o.file == where.file}
    found = _placed(says, about.name, about.source)
    return replace(found, used=tuple(sorted(lines - {found.line})))


def _placed(says: str, operation: str, where: jaxprs.Source | None) -> Mistake:
    if where is None:
        return Mistake(says, operation)
    end = where.end_column if where.end_line == where.line else where.column
    return Mistake(says, operation, where.file, where.function, where.line, where.column, end)


def _value(tape: Tape, of: Any, labels: Sequence[str], file: str | None) -> str:
    """Return what a value is called in a file: an argument's label, or an operation's.

    That is the name that it is given there, or by which it is used, or else its source.
    """
    if of is None:
        return ""
    if isinstance(of, int):
        return f"`{labels[of]}`"
    node = tape.places[of][0]
    where = node.source
    names = [] if where is None or where.file != file else [_assigned(where)]
    for user, k in tape.uses[node.out]:
        at = user.source
        if at is not None and at.file == file:
            names.append((_operand(user, at, k) or "").strip("`"))
    name = next((name for name in names if name and name.isidentifier()), _text(where))
    return f"`{name}`" if name else f"the result of {node.name}"


def _expression(node: Node, where: jaxprs.Source | None) -> str:
    text = _text(where)
    return f"`{text}`" if text else node.name


def _operand(node: Node, where: jaxprs.Source | None, k: int) -> str | None:
    """Return the source of an operand, if that can be read."""
    text = _text(where, whole=True)
    try:
        tree = ast.parse(text, mode="eval").body
    except SyntaxError:
        return None
    found = None if k == ARRIVED else _part(tree, node.name, k)
    part = "" if found is None else ast.get_source_segment(text, found) or ""
    return f"`{_shortened(part)}`" if part and part != text else None


def _part(tree: ast.expr, name: str, k: int) -> ast.expr | None:
    match tree:
        case ast.BinOp(left, operator, right) if name in OPERATORS.get(type(operator), ()):
            return (left, right)[k] if k < 2 else None
        case ast.UnaryOp(operand=operand) if name == "neg":
            return operand
        case ast.Call(args=args) if name == "select_n" and len(args) == 3:
            return args[CHOICES[k]] if k in CHOICES else None
        case ast.Call(args=args) if 0 <= k < len(args) <= 2 and not any(
            isinstance(a, ast.Starred) for a in args
        ):
            return args[k]
    return None


def _text(where: jaxprs.Source | None, *, whole: bool = False) -> str:
    """Return the source of an expression in one line, shortened unless it is wanted whole."""
    if where is None:
        return ""
    lines = [linecache.getline(where.file, n) for n in range(where.line, where.end_line + 1)]
    if not all(lines):
        return ""
    encoded = [line.encode() for line in lines]  # columns are of bytes
    encoded[-1] = encoded[-1][: where.end_column]
    encoded[0] = encoded[0][where.column :]
    text = " ".join(b" ".join(encoded).decode().split())
    return text if whole else _shortened(text)


def _shortened(text: str) -> str:
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 3]}..."


def _assigned(where: jaxprs.Source) -> str | None:
    """Return the name that a line gives to the whole of an expression."""
    line = linecache.getline(where.file, where.line)
    before, after = (
        line.encode()[: where.column].decode(),
        line.encode()[where.end_column :].decode(),
    )
    name = before.strip().removesuffix("=").strip()
    whole = before.rstrip().endswith("=") and not after.strip()
    return name if whole and name.isidentifier() else None
