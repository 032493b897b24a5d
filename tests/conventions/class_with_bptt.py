"""A class that reads words: self.U, self.V, self.W and bptt, no biases and no initial state."""

import numpy as np

import reference


class RNN:
    """x and y are lists of words."""

    def __init__(self, word_dim, hidden_dim=100):
        self.word_dim, self.hidden_dim = word_dim, hidden_dim
        rng = np.random.default_rng(0)
        self.U = rng.uniform(-1, 1, (hidden_dim, word_dim))
        self.V = rng.uniform(-1, 1, (word_dim, hidden_dim))
        self.W = rng.uniform(-1, 1, (hidden_dim, hidden_dim))

    def forward_propagation(self, x):
        T = len(x)
        s = np.zeros((T + 1, self.hidden_dim))
        o = np.zeros((T, len(self.V)))
        for t in range(T):
            s[t] = np.tanh(self.U[:, x[t]] + self.W @ s[t - 1])
            e = np.exp(self.V @ s[t])
            o[t] = e / e.sum()
        return o, s

    def bptt(self, x, y):
        T = len(y)
        o, s = self.forward_propagation(x)
        dLdU, dLdV, dLdW = np.zeros(self.U.shape), np.zeros(self.V.shape), np.zeros(self.W.shape)
        delta_o = o
        delta_o[np.arange(T), y] -= 1
        for t in np.arange(T)[::-1]:
            dLdV += np.outer(delta_o[t], s[t])
            delta_t = self.V.T @ delta_o[t] * (1 - s[t] ** 2)
            for step in np.arange(0, t + 1)[::-1]:
                dLdW += np.outer(delta_t, s[step - 1])
                dLdU[:, x[step]] += delta_t
                delta_t = self.W.T @ delta_t * (1 - s[step - 1] ** 2)
        return [dLdU, dLdV, dLdW]


# adapting
check = reference.adapt(
    RNN, returns=("dU", "dV", "dW"), loss="cross_entropy", tokens=True, batched=False
)
