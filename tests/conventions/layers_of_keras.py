"""Batch first, kernels on the right, the mean of all squared errors: as layers of Keras have it."""

import numpy as np

import reference


def train_step(inputs, targets, weights):
    kernel, recurrent_kernel = weights["kernel"], weights["recurrent_kernel"]
    batch, steps, _ = inputs.shape
    states = np.zeros((batch, steps + 1, len(recurrent_kernel)))
    for t in range(steps):
        z = inputs[:, t] @ kernel + states[:, t] @ recurrent_kernel + weights["bias"]
        states[:, t + 1] = np.tanh(z)
    outputs = states[:, 1:] @ weights["dense_kernel"] + weights["dense_bias"]
    d_outputs = 2 * (outputs - targets) / outputs.size
    grads = {
        "dense_kernel": np.einsum("bth,bto->ho", states[:, 1:], d_outputs),
        "dense_bias": d_outputs.sum(axis=(0, 1)),
        "kernel": np.zeros_like(kernel),
        "recurrent_kernel": np.zeros_like(recurrent_kernel),
        "bias": np.zeros_like(weights["bias"]),
    }
    carry = np.zeros((batch, len(recurrent_kernel)))
    for t in reversed(range(steps)):
        d_state = d_outputs[:, t] @ weights["dense_kernel"].T + carry
        dz = d_state * (1 - states[:, t + 1] ** 2)
        grads["kernel"] += inputs[:, t].T @ dz
        grads["recurrent_kernel"] += states[:, t].T @ dz
        grads["bias"] += dz.sum(axis=0)
        carry = dz @ recurrent_kernel.T
    return np.mean((outputs - targets) ** 2), grads


# adapting
check = reference.adapt(train_step, layout="batch_first_rows", loss="squared_error/TBO")
