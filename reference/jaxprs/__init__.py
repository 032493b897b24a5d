"""What this package knows of JAX's insides: the equations into which JAX turns a function.

Names of primitives and of their parameters change from one version of JAX to the next. They stand
in this folder and nowhere else: which operations there are and what each does to rounding errors,
what is inside of a loop, a branch or a call, how many terms a sum has, and which line of the user's
an equation comes from.
"""

from reference.jaxprs.entries import (
    moved,
)
from reference.jaxprs.in_numpy import (
    as_numpy,
    made,
)
from reference.jaxprs.interpreter import (
    Interpreter,
)
from reference.jaxprs.operations import (
    CALLS,
    CONVERSION,
    EXACT,
    EXACT_IN_WHOLE_NUMBERS,
    FACTORISATIONS,
    KNOWN,
    MOVES,
    PRODUCTS,
    ROUNDED,
    SUMS,
    axes,
    axes_of_product,
    axis,
    backwards,
    broadcast_dimensions,
    dtypes,
    exponent,
    helps_only,
    name,
    ndim,
    permutation,
    slices,
    terms,
    with_itself,
    words,
)
from reference.jaxprs.places import (
    Source,
    line,
    origin,
    source,
    without_shape,
)
from reference.jaxprs.programs import (
    Branches,
    Call,
    Scan,
    While,
    computed,
    equations,
    evaluate,
    inside,
    numbers,
    opaque,
    states,
    traced,
    unrolled,
)
from reference.jaxprs.tiers import (
    Tiered,
)

__all__ = [
    "CALLS",
    "CONVERSION",
    "EXACT",
    "EXACT_IN_WHOLE_NUMBERS",
    "FACTORISATIONS",
    "KNOWN",
    "MOVES",
    "PRODUCTS",
    "ROUNDED",
    "SUMS",
    "Branches",
    "Call",
    "Interpreter",
    "Scan",
    "Source",
    "Tiered",
    "While",
    "as_numpy",
    "axes",
    "axes_of_product",
    "axis",
    "backwards",
    "broadcast_dimensions",
    "computed",
    "dtypes",
    "equations",
    "evaluate",
    "exponent",
    "helps_only",
    "inside",
    "line",
    "made",
    "moved",
    "name",
    "ndim",
    "numbers",
    "opaque",
    "origin",
    "permutation",
    "slices",
    "source",
    "states",
    "terms",
    "traced",
    "unrolled",
    "with_itself",
    "without_shape",
    "words",
]
