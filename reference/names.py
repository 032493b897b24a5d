"""The names that people give the parameters of a recurrent network, and the gradients in them.

    ours  W         U         b         V         c
          Whh       Wxh       bh        Why       by         courses, character-level networks
          Waa       Wax       ba        Wya       by
          Wh        Wx        bh        Wy        by
          weight_hh weight_ih bias_hh   weight_ho bias_ho
          recurrent_kernel kernel bias  dense_kernel dense_bias

each alone, in any case, with or without underscores, with rnn. before it, or as a gradient: dWhh,
dL_dWhh, grad_Whh, Whh_grad. A pattern stands for one of ours or for none: what is not in this table
is not guessed.
"""

import re
from collections.abc import Iterable
from functools import cache

_OF_OUTPUT = tuple(
    f"{layer}_{kind}"
    for layer in ("dense", "output", "out", "fc", "linear", "decoder", "head")
    for kind in ("weight", "kernel", "bias")
)
SPELLINGS: dict[str, tuple[str, ...]] = {
    "W": ("w_hh", "w_aa", "w_h", "w_rec", "weight_hh", "weight_hh_l0", "recurrent_kernel"),
    "U": (
        "w_xh", "w_hx", "w_ax", "w_xa", "w_x", "w_ih", "w_in", "weight_ih", "weight_ih_l0",
        "kernel",
    ),
    "b": ("b_h", "b_a", "bias", "bias_h", "bias_ih", "bias_ih_l0", "bias_hh", "bias_hh_l0"),
    "bh": ("bias_hh", "bias_hh_l0"),
    "V": (
        "w_hy", "w_yh", "w_ya", "w_ay", "w_y", "w_ho", "w_out", "weight_ho",
        *(name for name in _OF_OUTPUT if not name.endswith("bias")),
    ),
    "c": (
        "b_y", "b_o", "b_out", "bias_y", "bias_ho",
        *(name for name in _OF_OUTPUT if name.endswith("bias")),
    ),
    "x": ("xs", "inputs"),
    "h0": ("a0", "h_0", "h_prev"),
}  # fmt: skip
"""What is written for each of ours, in lower case; an underscore may be missing, or be a point."""

DECORATIONS = (r"(?:d|grad|delta|d[LEJ][_.]?d)[_.]?", r"[_.]?grad")  # before a name, and after it
NEED_ONE = frozenset({"x", "h0"})  # such a name alone is the thing itself, and no gradient in it


def role_of(name: str, gradients: Iterable[str], *, decorated: bool = True) -> str | None:
    """Return for which of our gradients a name stands, if it follows a pattern.

    ``gradients`` are the names of ours that there are; without ``decorated``, a name of the
    parameter itself is looked for.

    Examples
    --------
    >>> ours = ("W", "U", "b", "V", "c", "x", "h0", "h")
    >>> [role_of(name, ours) for name in ("dWxh", "weight_hh_l0.grad", "grad_W", "by", "da")]
    ['U', 'W', 'W', 'c', None]
    >>> role_of("Waa", ours, decorated=False), role_of("dWaa", ours, decorated=False)
    ('W', None)
    """
    of_gradients, of_parameters = _patterns(tuple(gradients))
    patterns = of_gradients if decorated else of_parameters
    return next((role for role, found in patterns.items() if re.fullmatch(found, name)), None)


@cache
def any_name(gradients: tuple[str, ...]) -> str:
    """Return the regular expression of every name that ``role_of`` knows."""
    return "|".join(_patterns(gradients)[0].values())


@cache
def _patterns(gradients: tuple[str, ...]) -> tuple[dict[str, str], dict[str, str]]:
    """Return regular expressions by what they stand for: of gradients, and of parameters."""
    before, after = DECORATIONS
    of_gradients, of_parameters = dict[str, str](), dict[str, str]()
    for role in sorted(gradients, key=lambda k: k != "bh"):  # bias_hh is bh where there is one
        spelled = [s.replace("_", "[_.]?") for s in SPELLINGS.get(role, ())]
        forms = [rf"{before}{role}(?:{after})?", rf"d?{role}{after}"]
        if spelled:
            of_parameters[role] = f"(?i:(?:rnn[_.])?(?:{'|'.join(spelled)}))"
            forms.append(rf"{before}{of_parameters[role]}(?:{after})?")
            forms.append(f"{of_parameters[role]}(?:{after}){'' if role in NEED_ONE else '?'}")
        of_gradients[role] = f"(?:{'|'.join(forms)})"
    return of_gradients, of_parameters
