"""A loss and all its gradients in one call: Eqs. 1-3 forward, Eqs. 4-10 backward."""

from collections.abc import Callable
from inspect import signature
from typing import Any

import numpy as np

from manual_bptt.backward import run_backward
from manual_bptt.forward import run_forward
from manual_bptt.losses import last_step_squared_error, squared_error
from manual_bptt.parallel import Workers, in_shards, require_workers
from manual_bptt.params import Array, Gradients, Params, in_words
from manual_bptt.validation import as_inputs, as_outputs, as_params, as_state

Loss = Callable[..., tuple[Any, Any]]


def loss_and_gradients(
    params: Params,
    x: Any,
    target: Any,
    *,
    h0: Any = None,
    loss: Loss = squared_error,
    weights: Any = None,
    workers: Workers = None,
    check_finite: bool = True,
) -> tuple[Any, Gradients]:
    """Return the loss of the network on (x, target) and its gradients.

    Parameters
    ----------
    params : Params
        The parameters; their dtype is that of the result.
    x : array_like, (T, B, D) or (T, D)
        The inputs, time first.
    target : array_like
        What the loss compares the outputs with: like y for ``squared_error``, (B, O) or (O,) for
        ``last_step_squared_error``.
    h0 : array_like, (B, H) or (H,), optional
        The state before the first step; zeros if None.
    loss : callable
        ``(y, target) -> (value, dy)``, or ``(y, target, weights=...)`` where weights are given.
    weights : array_like, optional
        Passed on to the loss.
    workers : int or concurrent.futures.Executor, optional
        Who computes: this thread if None; so many threads, each with an equal share of the batch;
        or the workers of an executor, each task with up to 64 sequences, on this machine or on
        others. The result does not depend on which worker is ready first, and with an executor
        not on how many there are; what a worker raises is raised here. The loss is computed in
        this thread, of all outputs. A single sequence is not shared out.
    check_finite : bool
        Whether to look for NaN and infinity in the arguments, those of this package's losses too.

    Raises
    ------
    TypeError
        If an argument is of the wrong kind, the loss takes no weights, or it returns no pair.
    ValueError
        If shapes disagree or a value is not finite.

    Examples
    --------
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

    def loss_of(y: Array) -> tuple[Any, Array]:
        result = loss(y, target, **options)
        if not isinstance(result, tuple) or len(result) != 2:
            raise TypeError(f"loss returned a {type(result).__name__}; expected a pair (value, dy)")
        value, dy = result
        return value, as_outputs("dy, from the loss,", dy, params, x, check_finite=check_finite)

    if workers is not None:
        require_workers(workers)
        if x.ndim == 3:
            return in_shards(params, x, h0, loss_of, workers)
    trace = run_forward(params, x, h0)
    value, dy = loss_of(trace.y)
    return value, run_backward(params, trace, dy, np.zeros_like(h0))


def _options(loss: Loss, weights: Any, check_finite: bool) -> dict[str, Any]:
    """Return the keyword arguments of the loss: weights, and check_finite if it is one of ours."""
    options: dict[str, Any] = {}
    if not check_finite and loss in (squared_error, last_step_squared_error):
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
