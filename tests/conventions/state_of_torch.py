"""The names of a torch module's parameters, with the two biases that they have."""

import numpy as np

import reference


def backward(state, x, h0, target):
    w_ih, w_hh = state["rnn.weight_ih_l0"], state["rnn.weight_hh_l0"]
    h = [h0]
    for x_t in x:
        a = x_t @ w_ih.T + state["rnn.bias_ih_l0"] + h[-1] @ w_hh.T + state["rnn.bias_hh_l0"]
        h.append(np.tanh(a))
    h = np.array(h)
    y = h[1:] @ state["fc.weight"].T + state["fc.bias"]
    dy = 2 * (y - target) / x.shape[1]
    dh, da = np.zeros_like(h[0]), np.zeros_like(h[1:])
    for t in reversed(range(len(x))):
        da[t] = (dy[t] @ state["fc.weight"] + dh) * (1 - h[t + 1] ** 2)
        dh = da[t] @ w_hh
    return {
        "rnn.weight_ih_l0": np.tensordot(da, x, ((0, 1), (0, 1))),
        "rnn.weight_hh_l0": np.tensordot(da, h[:-1], ((0, 1), (0, 1))),
        "rnn.bias_ih_l0": da.sum(axis=(0, 1)),
        "rnn.bias_hh_l0": da.sum(axis=(0, 1)),
        "fc.weight": np.tensordot(dy, h[1:], ((0, 1), (0, 1))),
        "fc.bias": dy.sum(axis=(0, 1)),
    }


# adapting
check = reference.adapt(backward, names={"state": "params"}, loss="squared_error/B")
