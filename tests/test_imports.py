"""Who may import whom: the two packages share no mathematics, and arrows point one way."""

import ast
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import arrows
import pytest
from markers import read_part

ROOT = Path(__file__).resolve().parents[1]

# What each module of the core may import of the core; a package stands for all of its modules.
CORE = {
    "arrays": set(),
    "axes": set(),
    "files": set(),
    "arithmetic": {"arrays"},
    "products": {"arrays"},
    "cells": {"arrays", "arithmetic", "products"},
    "params": {"arrays", "axes", "cells"},
    "validation": {"arrays", "axes", "cells"},
    "losses": {"arrays", "validation", "arithmetic"},
    "engine": {"arrays", "arithmetic", "products", "cells", "params"},
    "forward": {"arrays", "validation", "engine"},
    "backward": {"arrays", "arithmetic", "products", "params", "validation", "engine", "forward"},
    "gradients": {"arrays", "cells", "params", "validation", "losses", "engine", "compiled"},
    "compiled": {"arrays", "products", "engine"},
    "equations": {"arrays", "params", "validation", "arithmetic"},
    "candidate": {"arrays", "cells", "forward", "losses", "validation", "backward", "gradients"},
    "interop": {"arrays", "cells", "params", "validation", "files"},
    "archive": {"arrays", "files"},
}
LAYERS = CORE | {
    "training": {*CORE},
    "estimator": {*CORE, "training"},
    "web": set(),
    "forecasting": {*CORE, "training", "web"},
    "page": {"equations", "web"},
    "cli": {*CORE, "training", "forecasting", "page"},
    "__init__": {"cells", "params", "losses", "forward", "backward", "gradients"},
}
# What each shelf of reference may import of reference, from the ground up.
_GROUND = {"devices", "jaxprs", "names", "user_code"}
_PROVED = {*_GROUND, "network", "rounding", "arrays", "problems", "oracle"}
_JUDGED = {*_PROVED, "mistakes", "findings", "report", "judging"}
REFERENCE = {
    **{name: set() for name in _GROUND},
    "jaxprs": {"devices"},
    "network": _GROUND,
    "adapting": {"names", "user_code"},
    "breaks": _GROUND,
    "rounding": {*_GROUND, "network"},
    "arrays": {"user_code", "network"},
    "problems": {*_GROUND, "network", "rounding", "arrays"},
    "drawing": {"network", "rounding", "problems"},
    "oracle": {*_GROUND, "network", "rounding", "problems"},
    "mistakes": {"network", "problems"},
    "strategies": {"network", "rounding", "problems", "drawing"},
    "findings": {"breaks", "mistakes", "problems"},
    "report": {"network", "problems", "findings"},
    "judging": {*_PROVED, "report"},
    "explaining": {*_JUDGED, "breaks"},
    "vectors": _PROVED,
    "equations": {*_PROVED, "report"},
    "functions": {*_PROVED, "report", "explaining", "breaks"},
    "compare": {*_JUDGED, "drawing", "explaining"},
    "__init__": {
        "adapting",
        *_JUDGED,
        "drawing",
        "explaining",
        "equations",
        "functions",
        "compare",
        "breaks",
    },
}
# What else is imported, and not before a function needs it.
WHEN_NEEDED = {
    "cli": {"reference", "rich", "matplotlib", "threadpoolctl", "jax", "torch", "distributed"},
    "forecasting": {"matplotlib"},
    "engine": {"threadpoolctl"},
    "page": {"latex2mathml"},
    "interop": {"safetensors"},
}
NEEDED = {"estimator": {"sklearn"}, "compiled": {"numba", "scipy"}}  # imported when asked for
BESIDE_JAX = {"strategies": {"hypothesis"}, "enclosures": {"mpmath"}, "intervals": {"mpmath"}}


def imported(path):
    """Return {dotted name: at module level?} for everything that a file imports."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    top = set(tree.body)
    names = {}
    for node in ast.walk(tree):
        found = []
        if isinstance(node, ast.Import):
            found = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        for name in found:
            names[name] = names.get(name, False) or node in top
    return names


def of_package(package, path):
    """Return the top-level modules and folders of a package that one of its files imports."""
    parts = [n.split(".") for n in imported(path) if n.startswith(f"{package}.")]
    return {p[1] for p in parts if p[1] in {f.parts[0] for f in shelves(package)}}


def shelves(package):
    folder = ROOT / package
    return [Path(p.relative_to(folder).parts[0].removesuffix(".py")) for p in files(package)]


def files(package):
    return sorted((ROOT / package).rglob("*.py"))


def layer(path):
    return path.relative_to(ROOT).parts[1].removesuffix(".py")


def outside(path):
    """Return the top-level names of what a file imports, less the standard library."""
    return {n.split(".")[0] for n in imported(path)} - set(sys.stdlib_module_names)


@pytest.mark.parametrize("path", files("manual_bptt"), ids=lambda p: str(p.relative_to(ROOT)))
def test_arrows_within_manual_bptt_point_one_way(path):
    assert of_package("manual_bptt", path) <= LAYERS[layer(path)] | {layer(path)}


@pytest.mark.parametrize("path", files("reference"), ids=lambda p: str(p.relative_to(ROOT)))
def test_arrows_within_reference_point_one_way(path):
    assert of_package("reference", path) <= REFERENCE[layer(path)] | {layer(path)}


def test_the_shelves_of_reference_stand_on_one_another_without_a_circle():
    TopologicalSorter(REFERENCE).prepare()


@pytest.mark.parametrize("path", files("manual_bptt"), ids=lambda p: str(p.relative_to(ROOT)))
def test_manual_bptt_imports_numpy_alone_and_the_command_the_rest_when_needed(path):
    allowed = {"numpy", "manual_bptt", *NEEDED.get(layer(path), set())}
    if layer(path) in WHEN_NEEDED:
        at_top = {n.split(".")[0] for n, top in imported(path).items() if top}
        assert at_top - set(sys.stdlib_module_names) <= allowed
        allowed |= WHEN_NEEDED[layer(path)]
    assert outside(path) <= allowed


@pytest.mark.parametrize("path", files("reference"), ids=lambda p: str(p.relative_to(ROOT)))
def test_reference_never_imports_manual_bptt(path):
    assert outside(path) <= {"jax", "numpy", "reference"} | BESIDE_JAX.get(path.stem, set())


def test_the_picture_of_the_arrows_is_that_of_the_files():
    assert read_part("arrows", arrows.PAGE) == arrows.part()
    assert arrows.needed({"a": {"b", "c"}, "b": {"c"}, "c": set()})["a"] == {"b"}


def run(code):
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def test_importing_manual_bptt_loads_numpy_and_the_standard_library_only():
    run(
        "import sys, numpy.random; before = set(sys.modules);"
        "import manual_bptt, manual_bptt.forecasting;"
        "new = {m.split('.')[0] for m in set(sys.modules) - before};"
        "new = {m for m in new if not m.startswith('_sysconfigdata')};"  # named by the platform
        "assert new - set(sys.stdlib_module_names) <= {'manual_bptt', 'numpy'}, new"
    )


def test_importing_and_using_reference_changes_no_global_jax_setting():
    run(
        "import jax; before = dict(jax.config.values); import reference;"
        "assert dict(jax.config.values) == before;"
        "reference.compare(lambda p, x, h0, t: {'b': p.b}, cases=2, batched=False);"
        "assert dict(jax.config.values) == before;"
        "import jax.numpy as jnp; assert jnp.ones(1).dtype == 'float32'"
    )
