"""A model with attributes for the gradients, and a loss that is divided by the number of steps."""

import numpy as np

import reference


class SimpleRNN:
    """First forward, then backward, which leaves self.dWx and so on."""

    def __init__(self, input_size, hidden_size, output_size):
        self.Wx = np.zeros((hidden_size, input_size))
        self.Wh = np.zeros((hidden_size, hidden_size))
        self.Wy = np.zeros((output_size, hidden_size))
        self.bh = np.zeros(hidden_size)
        self.by = np.zeros(output_size)
        self.h0 = np.zeros(hidden_size)

    def forward(self, inputs):
        self.inputs, self.h = inputs, {-1: self.h0}
        for t, x in enumerate(inputs):
            self.h[t] = np.tanh(self.Wx @ x + self.Wh @ self.h[t - 1] + self.bh)
        return [self.Wy @ self.h[t] + self.by for t in range(len(inputs))]

    def backward(self, targets):
        T = len(targets)
        self.dWx, self.dWh = np.zeros_like(self.Wx), np.zeros_like(self.Wh)
        self.dWy, self.dbh = np.zeros_like(self.Wy), np.zeros_like(self.bh)
        self.dby, dh_next = np.zeros_like(self.by), np.zeros_like(self.bh)
        for t in reversed(range(T)):
            dy = 2 * (self.Wy @ self.h[t] + self.by - targets[t]) / T
            self.dWy += np.outer(dy, self.h[t])
            self.dby += dy
            draw = (self.Wy.T @ dy + dh_next) * (1 - self.h[t] ** 2)
            self.dWx += np.outer(draw, self.inputs[t])
            self.dWh += np.outer(draw, self.h[t - 1])
            self.dbh += draw
            dh_next = self.Wh.T @ draw


# adapting
check = reference.adapt(
    SimpleRNN, method=("forward", "backward"), loss="squared_error/T", batched=False
)
