"""Mutation operators for backpropagation through time, as a provider for cosmic-ray.

Generic tools mutate ``+``, ``<`` and ``True``. A backward pass in NumPy goes wrong elsewhere: in a
transpose, a slice, a time index, the operands of a product, an array mistaken for its neighbour.
Each operator here is a function that yields what else a node of the syntax tree may read.
"""

import re
from collections.abc import Callable, Iterator
from typing import Any

import parso
from cosmic_ray.operators.operator import Example, Operator

# A function or method: what may stand in its place.
RENAMES = {
    "add": ["subtract"],
    "subtract": ["add"],
    "multiply": ["add", "divide"],
    "matmul": ["multiply"],
    "tanh": ["sin", "arctan"],
    "sum": ["mean"],
    "sqrt": ["square"],
    "abs": ["positive"],
    "max": ["min"],
    "all": ["any"],
    "any": ["all"],
    "zeros": ["ones"],
    "zeros_like": ["ones_like"],
    "array": ["asarray"],
}
# A function: which two of its arguments may be swapped.
SWAPS = {"matmul": (0, 1), "subtract": (0, 1), "where": (1, 2)}
# Functions that return what they are given, or a copy of it.
COPIES = {"ascontiguousarray", "copy"}
# Functions whose only argument runs over time.
OVER_TIME = {"rows", "pairwise"}
# A variable: what it may be mistaken for.
NEIGHBOURS = {
    "h": ["x", "da"],
    "x": ["h"],
    "y": ["target"],
    "b": ["c"],
    "c": ["b"],
    "U": ["W"],
    "V": ["W"],
    "W": ["V"],
    "da": ["dy"],
    "dy": ["da"],
    "h_before": ["h_now"],
    "h_now": ["h_before"],
    "Wh": ["h_before"],
    "dh_now": ["da_now", "carried"],
    "da_now": ["dh_now", "carried"],
    "slope_now": ["dh_now"],
    "carried": ["dh_now"],
}


def text(node: Any) -> str:
    """Return the code of a node, without the white space before it."""
    return str(node.get_code(include_prefix=False))


def calls(node: Any) -> Iterator[tuple[str, str, str, list[str]]]:
    """Yield (before, name, after, arguments) for each call ``before.name(arguments)after``."""
    if node.type not in ("atom_expr", "power"):
        return
    for i, child in enumerate(node.children):
        if i == 0 or child.type != "trailer" or child.children[0] != "(":
            continue
        name = re.fullmatch(r"\.?(\w+)", text(node.children[i - 1]))
        if name:
            inside = child.children[1]
            parts = inside.children[::2] if inside.type == "arglist" else [inside]
            before = "".join(map(text, node.children[: i - 1]))
            after = "".join(map(text, node.children[i + 1 :]))
            yield before, name[1], after, [text(p) for p in parts if text(p) != ")"]


def joined(before: str, name: str, after: str, arguments: list[str]) -> str:
    """Return the code of what ``calls`` yields."""
    return f"{before}{'.' * bool(before)}{name}({', '.join(arguments)}){after}"


def transposed(code: str) -> str:
    """Return the code of the transpose."""
    return code.removesuffix(".T") if code.endswith(".T") else f"{code}.T"


def swapped(items: list[str], i: int, j: int) -> list[str]:
    """Return the items with two of them swapped."""
    items = items.copy()
    items[i], items[j] = items[j], items[i]
    return items


def is_known(name: str, node: Any) -> bool:
    """Return whether the function that holds the node has bound this name before the node."""
    function = node.search_ancestor("funcdef")
    if function is None:
        return False
    bound = (leaf for leaf in leaves(function) if leaf.type == "name" and leaf.is_definition())
    return any(leaf.value == name and leaf.start_pos < node.start_pos for leaf in bound)


def leaves(node: Any) -> Iterator[Any]:
    """Yield the leaves of a tree in the order of the code."""
    for child in node.children:
        yield from leaves(child) if hasattr(child, "children") else (child,)


Rewrites = Callable[[Any], Iterator[str]]
OPERATORS: dict[str, type[Operator]] = {}


def operator(before: str, after: str) -> Callable[[Rewrites], Rewrites]:
    """Register a function that yields what else a node may read as an operator.

    Its first rewriting turns the code before into the code after.
    """

    def register(rewrites: Rewrites) -> Rewrites:
        class Rewrite(Operator):
            def mutation_positions(self, node: Any) -> list[Any]:
                return [(node.start_pos, node.end_pos) for _ in rewrites(node)]

            def mutate(self, node: Any, index: int) -> Any:
                return parso.parse(node.get_first_leaf().prefix + list(rewrites(node))[index])

            @classmethod
            def examples(cls) -> tuple[Example]:
                return (Example(before, after),)

        OPERATORS[rewrites.__name__] = Rewrite
        return rewrites

    return register


@operator("da.T @ h", "h @ da.T")
def product(node: Any) -> Iterator[str]:
    """Products with operands swapped, multiplied entry by entry, or off by 1e-7."""
    if node.type == "term":
        parts = [text(c) for c in node.children]
        for i in range(1, len(parts), 2):
            if parts[i] == "@":
                yield " ".join(swapped(parts, i - 1, i + 1))
                yield " ".join([*parts[:i], "*", *parts[i + 1 :]])
                yield " ".join([*parts[: i - 1], "1.0000001 *", *parts[i - 1 :]])
    for before, name, after, arguments in calls(node):
        if name == "dot" and before:
            yield joined(arguments[0], name, after, [before, *arguments[1:]])
            yield joined("np", "multiply", after, [before, *arguments])


@operator("h @ W", "h.T @ W")
def transpose(node: Any) -> Iterator[str]:
    """A transpose left out, or one too many, in a product or a copy made for one."""
    if node.type == "term":
        parts = [text(c) for c in node.children]
        for i in range(0, len(parts), 2):
            if "@" in parts[max(i - 1, 0) : i + 2]:
                yield " ".join([*parts[:i], transposed(parts[i]), *parts[i + 1 :]])
    for before, name, after, arguments in calls(node):
        if name == "dot" and before:
            yield joined(transposed(before), name, after, arguments)
        if name in ("dot", "matmul", "ascontiguousarray"):
            for i in range(2 if name == "matmul" else 1):
                changed = [*arguments[:i], transposed(arguments[i]), *arguments[i + 1 :]]
                yield joined(before, name, after, changed)


@operator("h[1:]", "h[:]")
def slice(node: Any) -> Iterator[str]:
    """A slice shifted by one step, widened, or run through in reverse."""
    if node.type == "trailer" and node.children[0] == "[" and ":" in text(node):
        parts = [p.strip() for p in text(node)[1:-1].split(":")]
        for i, part in enumerate(parts):
            if part:
                yield f"[{':'.join([*parts[:i], '', *parts[i + 1 :]])}]"
        if parts in (["1", ""], ["", "-1"]):
            yield "[:-1]" if parts[0] else "[1:]"
        if len(parts) == 2:
            yield f"{text(node)}[::-1]"
    for before, name, after, arguments in calls(node):
        if name in OVER_TIME:
            yield joined(before, name, after, [f"{arguments[0]}[::-1]"])


@operator("h[t]", "h[t - 1]")
def index(node: Any) -> Iterator[str]:
    """A step before, a step after, and first for last."""
    if node.type != "trailer" or not re.fullmatch(r"\[(-?\d+|[a-z])\]", text(node)):
        return
    inside = text(node)[1:-1]
    if inside.isalpha():
        yield from (f"[{inside} - 1]", f"[{inside} + 1]")
    else:
        ends = {"0": "-1", "-1": "0"}
        yield from (f"[{i}]" for i in (int(inside) - 1, int(inside) + 1))
        yield from (f"[{ends[i]}]" for i in [inside] if i in ends)


@operator("np.tanh(a)", "np.sin(a)")
def function(node: Any) -> Iterator[str]:
    """A function in the place of its opposite, its arguments swapped, a copy left out."""
    for before, name, after, arguments in calls(node):
        for other in RENAMES.get(name, ()):
            yield joined(before, other, after, arguments)
        if name in SWAPS:
            yield joined(before, name, after, swapped(arguments, *SWAPS[name]))
        if name in COPIES:
            yield f"{arguments[0] if arguments else before}{after}"
        if name == "isfinite":
            yield "~" + joined(before, "isnan", after, arguments)


@operator("h += b", "h = b")
def assignment(node: Any) -> Iterator[str]:
    """A sum that is overwritten or subtracted from where it should be added to."""
    opposite = {"+=": "-=", "-=": "+=", "*=": "/=", "/=": "*="}
    if node.type == "operator" and node.value in opposite:
        yield from ("=", opposite[node.value])


@operator("h[0] = h0", "pass")
def statement(node: Any) -> Iterator[str]:
    """A statement left out: a call, a raise, an assignment to entries or in place."""
    alone = node.parent is not None and node.parent.type in ("simple_stmt", "file_input")
    in_place = node.type == "expr_stmt" and (
        text(node.children[0]).endswith("]") or text(node.children[1]) in ("+=", "-=", "*=")
    )
    if alone and (in_place or node.type in ("atom_expr", "raise_stmt")):
        yield "pass"


@operator("1 - h", "1.0000001 - h")
def number(node: Any) -> Iterator[str]:
    """A number in arithmetic that is off by 1e-7."""
    if node.type == "number" and node.parent.type in ("term", "arith_expr", "arglist"):
        yield f"{float(node.value) * 1.0000001}"


@operator("def f(x, h): return x", "def f(x, h): return h")
def neighbour(node: Any) -> Iterator[str]:
    """A variable mistaken for another that lives beside it."""
    if node.type != "name" or node.is_definition():
        return
    is_keyword = node.parent.type == "argument" and node is node.parent.children[0]
    is_attribute = node.parent.type == "trailer" and node.parent.children[0] == "."
    if not (is_keyword or is_attribute):
        yield from (n for n in NEIGHBOURS.get(node.value, ()) if is_known(n, node))


class Provider:
    """What cosmic-ray asks for operators by name."""

    def __iter__(self) -> Iterator[str]:
        return iter(OPERATORS)

    def __getitem__(self, name: str) -> type[Operator]:
        return OPERATORS[name]
