"""A loss and all its gradients in one call: Eqs. 1-3 forward, Eqs. 4-10 backward."""

from collections.abc import Callable
from inspect import signature
from typing import Any, Literal

from manual_bptt.arrays import AnyParams, Array, in_words
from manual_bptt.cells import CELLS, cell_of, name_of
from manual_bptt.engine.blocks import PLAIN, Kernel
from manual_bptt.engine.segments import Plan, require_checkpoints
from manual_bptt.engine.workers import Workers, compute, require_workers
from manual_bptt.losses import cross_entropy, last_step_squared_error, squared_error
from manual_bptt.params import Gradients
from manual_bptt.validation import as_inputs, as_outputs, as_params, as_state

Loss = Callable[..., tuple[Any, Any]]
COMPILED = (CELLS["tanh"],)  # the cells that have a compiled kernel


def loss_and_gradients(
    params: AnyParams,
    x: Any,
    target: Any,
    *,
    h0: Any = None,
    loss: Loss = squared_error,
    weights: Any = None,
    workers: Workers = None,
    checkpoint_every: int | Literal["sqrt"] | None = None,
    kernel: Literal["numpy", "numba"] = "numpy",
    check_finite: bool = True,
) -> tuple[Any, Gradients]:
    """Return the loss of the network on (x, target) and its gradients.

    Of the errors that ``np.errstate`` knows, this package reports overflow alone: what underflows
    is zero or nearly so, and what is not a number says so itself.

    Parameters
    ----------
    params : Params
        The parameters, whose type is the cell; their dtype is that of the result.
    x : array_like, (T, B, D) or (T, D)
        The inputs, time first.
    target : array_like
        What the loss compares the outputs with: like y for ``squared_error``, (B, O) or (O,) for
        ``last_step_squared_error``, integers (T, B) or (T,) for ``cross_entropy``.
    h0 : array_like, (B, H) or (H,), optional
        The state before the first step; zeros if None.
    loss : callable
        ``(y, target) -> (value, dy)``, or ``(y, target, weights=...)`` where weights are given.
    weights : array_like, optional
        Passed on to the loss. With zeros at the end, sequences of different lengths share a batch;
        steps at the start change the states that follow, whatever their weight.
    workers : int or concurrent.futures.Executor, optional
        Where to compute: in this thread if None; in n threads, each with an equal share of the
        batch; or by the workers of an executor, each task with up to 64 sequences, on this machine
        or on others.
        The result does not depend on which worker is ready first, and with an executor
        not on how many there are; what a worker raises is raised here. The loss is computed in
        this thread, of all outputs. A single sequence is not shared out.
    checkpoint_every : int or "sqrt", optional
        Keep the state every n steps, or every sqrt(T), and compute the others once more: with
        "sqrt", memory for about 2 sqrt(T) states instead of T, for about half as much time again.
        The result has the same bits. The number is rounded up to whole blocks, of 256 steps or,
        with more than 4 sequences, 1,024 rows.
    kernel : str
        What runs the two loops over time: "numpy", or "numba", compiled at the first call, for
        float32 and float64, of the lab's cell. It is several times as fast where a step is too
        small for NumPy, which is so for single sequences and up to some hundred units, and slower
        elsewhere.
    check_finite : bool
        Whether to look for NaN and infinity in the arguments, those of this package's losses too.

    Raises
    ------
    TypeError
        If an argument is of the wrong kind, the loss takes no weights, or it returns no pair.
    ValueError
        If shapes disagree, a value is not finite, or the cell has no such kernel.
    ModuleNotFoundError
        If the kernel is "numba" and numba is not installed.

    Examples
    --------
    >>> import numpy as np
    >>> from manual_bptt import init_params
    >>> params = init_params(3, 4, 2, rng=0)
    >>> loss, grads = loss_and_gradients(params, np.ones((5, 3)), np.zeros((5, 2)))
    >>> smaller, _ = loss_and_gradients(
    ...     params._replace(W=params.W - 1e-3 * grads.W), np.ones((5, 3)), np.zeros((5, 2)))
    >>> bool(smaller < loss)
    True
    """
    if not callable(loss):
        raise TypeError(f"loss is {in_words(loss)}; expected a function (y, target) -> (value, dy)")
    params = as_params(params, check_finite=check_finite)
    x = as_inputs(params, x, check_finite=check_finite)
    h0 = as_state("h0", h0, params, x.shape[1:-1], check_finite=check_finite)
    options = _options(loss, weights, check_finite)
    require_workers(workers)
    require_checkpoints(checkpoint_every)
    plan = Plan(checkpoint_every, _kernel(kernel, params))

    def loss_of(y: Array) -> tuple[Any, Array]:
        result = loss(y, target, **options)
        if not isinstance(result, tuple) or len(result) != 2:
            raise TypeError(f"loss returned a {type(result).__name__}; expected a pair (value, dy)")
        value, dy = result
        return value, as_outputs("dy, from the loss,", dy, params, x, check_finite=check_finite)

    return compute(params, x, h0, loss_of, workers, plan)


def _kernel(kernel: Any, params: AnyParams) -> Kernel:
    """Return what goes through time."""
    if not isinstance(kernel, str):
        raise TypeError(f'kernel is {in_words(kernel)}; expected "numpy" or "numba"')
    if kernel not in ("numpy", "numba"):
        raise ValueError(f'kernel is {in_words(kernel)}; expected "numpy" or "numba"')
    if kernel == "numpy":
        return PLAIN
    if cell_of(params) not in COMPILED:
        there, own = ", ".join(map(name_of, COMPILED)), name_of(cell_of(params))
        raise ValueError(f'kernel "numba" is there for the cell {there}; params are those of {own}')
    if params.W.dtype.char not in "fd":
        raise TypeError(f'kernel "numba" takes float32 and float64; the rest is {params.W.dtype}')
    return _compiled_kernel()


def _compiled_kernel() -> Kernel:
    try:
        from manual_bptt.compiled import KERNEL
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"kernel \"numba\" needs {error.name}: pip install 'manual-bptt[compiled]'",
            name=error.name,
        ) from None
    return KERNEL


def _options(loss: Loss, weights: Any, check_finite: bool) -> dict[str, Any]:
    """Return the keyword arguments of the loss: weights, and check_finite if it is one of ours."""
    options: dict[str, Any] = {}
    if not check_finite and loss in (squared_error, last_step_squared_error, cross_entropy):
        options["check_finite"] = False
    if weights is not None:
        options["weights"] = _accepted(loss, weights)
    return options


def _accepted(loss: Loss, weights: Any) -> Any:
    """Return weights, if the loss takes them."""
    try:
        parameters = signature(loss).parameters.values()
    except (TypeError, ValueError):  # some built-in functions have no signature
        parameters = {}.values()
    if any(p.name == "weights" or p.kind is p.VAR_KEYWORD for p in parameters):
        return weights
    name = getattr(loss, "__name__", in_words(loss))
    raise TypeError(f"weights was given, but the loss {name} takes none")
