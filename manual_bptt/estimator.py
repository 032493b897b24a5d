"""The network as a scikit-learn estimator: pip install 'manual-bptt[sklearn]'.

    y[T] = V h[T] + c        h[t] = tanh(W h[t-1] + U x[t] + b)        (Eqs. 1-2)

reads the T steps of a sample and forecasts its target from the last state. Trained on the mean
squared error of standardised targets (the lab's Exercise 2), with the gradients by hand.
"""

from typing import Any

import numpy as np

from manual_bptt.arithmetic import reports_overflow
from manual_bptt.arrays import Array
from manual_bptt.forward import forward
from manual_bptt.params import Params, init_params
from manual_bptt.training import (
    Adam,
    ArraySequences,
    Settings,
    Training,
    WarmupCosine,
    mean_last_step_squared_error,
    moments,
    train,
)

try:
    from sklearn.base import BaseEstimator, RegressorMixin
    from sklearn.utils import check_random_state
    from sklearn.utils.validation import check_is_fitted, validate_data
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        f"RNNForecaster needs {error.name}: pip install 'manual-bptt[sklearn]'", name=error.name
    ) from None


class RNNForecaster(RegressorMixin, BaseEstimator):  # type: ignore[misc]
    """A simple recurrent network that forecasts from the steps of each sample.

    Parameters
    ----------
    n_inputs : int
        D, the features of a step. A row of X in two dimensions holds the D features of the first
        step, then those of the second, and so on to step T.
    n_hidden : int
        H, the hidden units.
    steps, batch_size : int
        Steps of training, and samples a step; all samples, where there are fewer.
    learning_rate : float
        The highest rate, after a warm-up of a twentieth of the steps; it falls to zero at the end.
    weight_decay : float
        Of W, U and V, as in AdamW.
    max_norm : float
        To which the gradient is clipped.
    validation_fraction : float
        The share of the samples, the last ones, that are held out; the parameters with the smallest
        error on them are kept. 0 trains on all, and keeps the last parameters.
    random_state : int, RandomState or None
        Where the first weights and the shuffling come from.

    Attributes
    ----------
    params_ : Params
        W, U, b, V, c, for standardised inputs and targets.
    training_ : Training
        The loss of every step, in ``training_.losses``, and more.
    n_features_in_ : int
        The columns of X, T D in number.

    Raises
    ------
    ValueError
        If the columns of X cannot be shared out among steps of n_inputs, or a parameter is out of
        range.

    Examples
    --------
    >>> series = np.sin(np.arange(300) / 5)
    >>> windows = np.lib.stride_tricks.sliding_window_view(series, 9)
    >>> X, y = windows[:, :8], windows[:, 8]
    >>> model = RNNForecaster(n_hidden=8, steps=300, random_state=0).fit(X[:200], y[:200])
    >>> bool(model.score(X[200:], y[200:]) > 0.99)
    True
    """

    def __init__(
        self,
        *,
        n_inputs: int = 1,
        n_hidden: int = 32,
        steps: int = 1000,
        batch_size: int = 32,
        learning_rate: float = 3e-3,
        weight_decay: float = 0.01,
        max_norm: float = 1.0,
        validation_fraction: float = 0.0,
        random_state: Any = None,
    ) -> None:
        self.n_inputs = n_inputs
        self.n_hidden = n_hidden
        self.steps = steps
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.max_norm = max_norm
        self.validation_fraction = validation_fraction
        self.random_state = random_state

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags

    @reports_overflow
    def fit(self, X: Any, y: Any) -> "RNNForecaster":
        """Train on X (n, T D), or an array (n, T, D), and y (n,) or (n, O)."""
        X, y = validate_data(self, self._flat(X), y, dtype=float, multi_output=True, y_numeric=True)
        for name in ("n_inputs", "n_hidden", "steps", "batch_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; expected at least 1")
        if not 0 < self.learning_rate < np.inf:
            raise ValueError(f"learning_rate is {self.learning_rate}; expected a number above 0")
        if not 0 <= self.validation_fraction < 1:
            raise ValueError(
                f"validation_fraction is {self.validation_fraction}; expected a number in [0, 1)"
            )
        x, target = self._steps_of(X), y.reshape(len(y), -1).astype(float)
        self._one_target = y.ndim == 1
        held_out = int(self.validation_fraction * len(y))
        kept = len(y) - held_out
        self.x_mean_, self.x_scale_ = moments(x[:, :kept].reshape(-1, self.n_inputs))
        self.y_mean_, self.y_scale_ = moments(target[:kept])
        x = (x - self.x_mean_) / self.x_scale_
        target = (target - self.y_mean_) / self.y_scale_

        def error(params: Params) -> float:
            y = forward(params, x[:, kept:]).y[-1]
            return float(np.mean((y - target[kept:]) ** 2))

        self.training_ = self._trained(x[:, :kept], target[:kept], error if held_out else None)
        self.params_ = self.training_.best
        return self

    @reports_overflow
    def predict(self, X: Any) -> Array:
        """Return the forecasts of X (n, T D) or (n, T, D): (n,) or (n, O), as y was."""
        check_is_fitted(self)
        X = validate_data(self, self._flat(X), dtype=float, reset=False)
        x = (self._steps_of(X) - self.x_mean_) / self.x_scale_
        y = forward(self.params_, x).y[-1] * self.y_scale_ + self.y_mean_
        return np.asarray(y[:, 0] if self._one_target else y)

    def _flat(self, X: Any) -> Any:
        """Return an array of three dimensions with two, anything else as it is."""
        shape: Any = getattr(X, "shape", ())
        if len(shape) != 3:
            return X
        if shape[2] != self.n_inputs:
            raise ValueError(f"X has shape {shape}; expected (n, T, D) with D = {self.n_inputs}")
        return X.reshape(shape[0], shape[1] * shape[2])

    def _steps_of(self, X: Array) -> Array:
        """Return X as (T, n, D)."""
        n, columns = X.shape
        if columns % self.n_inputs:
            raise ValueError(
                f"X has {columns} columns; expected a multiple of n_inputs = {self.n_inputs}"
            )
        return X.reshape(n, -1, self.n_inputs).transpose(1, 0, 2)

    def _trained(self, x: Array, target: Array, validate: Any) -> Training:
        random = check_random_state(self.random_state)
        of_start, of_batches = (int(seed) for seed in random.randint(2**31 - 1, size=2))
        settings = Settings(
            steps=self.steps,
            batch_size=min(self.batch_size, len(target)),
            optimizer=Adam(weight_decay=self.weight_decay),
            schedule=WarmupCosine(self.learning_rate, self.steps // 20, self.steps),
            max_norm=self.max_norm,
            seed=of_batches,
        )
        return train(
            init_params(self.n_inputs, self.n_hidden, target.shape[1], rng=of_start),
            ArraySequences(x, target),
            settings,
            loss=mean_last_step_squared_error,
            validate=validate,
        )
