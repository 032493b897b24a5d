"""Columns, one dictionary of parameters and one of gradients, cell by cell, a for the state."""

import numpy as np

import reference


def rnn_cell_forward(x, a_prev, parameters):
    Wax, Waa, ba = parameters["Wax"], parameters["Waa"], parameters["ba"]
    Wya, by = parameters["Wya"], parameters["by"]
    a_next = np.tanh(Wax @ x + Waa @ a_prev + ba)
    z = Wya @ a_next + by
    e = np.exp(z - np.max(z))
    return a_next, e / e.sum(axis=0)


def rnn_cell_backward(dy, gradients, parameters, x, a, a_prev):
    gradients["dWya"] += dy @ a.T
    gradients["dby"] += dy
    da = parameters["Wya"].T @ dy + gradients["da_next"]
    daraw = (1 - a * a) * da
    gradients["dba"] += daraw
    gradients["dWax"] += daraw @ x.T
    gradients["dWaa"] += daraw @ a_prev.T
    gradients["da_next"] = parameters["Waa"].T @ daraw


def rnn_forward_backward(X, Y, a0, parameters):
    a, y_hat, loss = {-1: a0}, {}, 0.0
    for t in range(len(X)):
        a[t], y_hat[t] = rnn_cell_forward(X[t], a[t - 1], parameters)
        loss -= np.log(y_hat[t][Y[t], 0])
    names = ("Wax", "Waa", "Wya", "ba", "by")
    gradients = {f"d{k}": np.zeros_like(parameters[k]) for k in names}
    gradients["da_next"] = np.zeros_like(a0)
    for t in reversed(range(len(X))):
        dy = np.copy(y_hat[t])
        dy[Y[t]] -= 1
        rnn_cell_backward(dy, gradients, parameters, X[t], a[t], a[t - 1])
    return loss, gradients, a[len(X) - 1]


# adapting
check = reference.adapt(rnn_forward_backward, layout="columns", loss="cross_entropy", batched=False)
