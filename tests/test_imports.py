"""Who may import whom: the two packages share no mathematics, and arrows point one way."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

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


def files(package):
    return sorted((ROOT / package).rglob("*.py"))


def layer(path):
    return path.relative_to(ROOT / "manual_bptt").parts[0].removesuffix(".py")


def outside(path):
    """Return the top-level names of what a file imports, less the standard library."""
    return {n.split(".")[0] for n in imported(path)} - set(sys.stdlib_module_names)


@pytest.mark.parametrize("path", files("manual_bptt"), ids=lambda p: str(p.relative_to(ROOT)))
def test_arrows_within_manual_bptt_point_one_way(path):
    own = layer(path)
    parts = [n.split(".") for n in imported(path) if n.startswith("manual_bptt.")]
    used = {p[1] for p in parts if p[1] in LAYERS}
    assert used <= LAYERS[own] | {own}


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
