"""The simple recurrent network and every derivative of it, by hand, in NumPy.

>>> import manual_bptt as mb
>>> import numpy as np
>>> params = mb.init_params(n_inputs=3, n_hidden=4, n_outputs=2, rng=0)
>>> loss, grads = mb.loss_and_gradients(params, np.ones((5, 3)), np.zeros((5, 2)))
>>> grads.W.shape
(4, 4)
"""

from manual_bptt.backward import backward, hidden_gradients
from manual_bptt.cells import CELLS
from manual_bptt.forward import Trace, forward
from manual_bptt.gradients import loss_and_gradients
from manual_bptt.losses import cross_entropy, last_step_squared_error, squared_error
from manual_bptt.params import Gradients, Params, init_params

__version__ = "0.1.0"
__all__ = [
    "CELLS",
    "Gradients",
    "Params",
    "Trace",
    "backward",
    "cross_entropy",
    "forward",
    "hidden_gradients",
    "init_params",
    "last_step_squared_error",
    "loss_and_gradients",
    "squared_error",
]
