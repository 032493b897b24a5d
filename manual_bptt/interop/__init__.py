"""The parameters of the network in the layouts of other libraries, as NumPy arrays.

    h[t] = tanh(W h[t-1] + U x[t] + b)        y[t] = V h[t] + c

| ours     | torch: RNN, Linear      | Keras: SimpleRNN, Dense | Flax: SimpleCell, Dense |
|----------|-------------------------|-------------------------|-------------------------|
| W (H, H) | weight_hh_l0            | recurrent_kernel.T      | h: kernel.T             |
| U (H, D) | weight_ih_l0            | kernel.T                | i: kernel.T             |
| b (H,)   | bias_ih_l0 + bias_hh_l0 | bias                    | i: bias                 |
| V (O, H) | weight                  | kernel.T                | kernel.T                |
| c (O,)   | bias                    | bias                    | bias                    |

Gradients are laid out like the parameters they belong to, so ``to_keras`` and ``to_flax`` take them
too, and ``from_keras`` and ``from_flax`` read them. Not so in torch, which adds two biases: the
gradient in each of them is that in their sum b, and ``gradients_to_torch`` gives it twice.
By default x, and the gradient in it, are (T, B, D) in torch as here, (B, T, D) in Keras and Flax;
h0, and the gradient in it, are (1, B, H) in torch, (B, H) in the others.

No other library is imported to convert: anything that NumPy can read as an array will do, and so
will torch tensors. Nothing in these layouts tells which activation a network has; it has to be
tanh. Files are in the safetensors format, and need the package of this name.
"""

from manual_bptt.interop.flax import from_flax, to_flax
from manual_bptt.interop.keras import from_keras, to_keras
from manual_bptt.interop.safetensors import load_safetensors, save_safetensors
from manual_bptt.interop.torch import from_torch, gradients_to_torch, to_torch

__all__ = [
    "from_flax",
    "from_keras",
    "from_torch",
    "gradients_to_torch",
    "load_safetensors",
    "save_safetensors",
    "to_flax",
    "to_keras",
    "to_torch",
]
