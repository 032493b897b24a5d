"""A long short-term memory that reads a sequence, and the cross entropy of one label at its end."""

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from faults import Fault, normal, pairs, parts, sigmoid, softmax, zeros_like


def loss(params, x, label):
    def step(state, x_t):
        h, c = state
        a = params["Wx"] @ x_t + params["Wh"] @ h + params["b"]
        a_i, a_f, a_o, a_g = jnp.split(a, 4)
        i = jax.nn.sigmoid(a_i)
        f = jax.nn.sigmoid(a_f)
        o = jax.nn.sigmoid(a_o)
        g = jnp.tanh(a_g)
        c = f * c + i * g
        h = o * jnp.tanh(c)
        return (h, c), None

    (h, _), _ = lax.scan(step, (params["h0"], params["c0"]), x)
    logits = params["V"] @ h + params["d"]
    log_p = jax.nn.log_softmax(logits)
    return -log_p[label]


def arguments(rng):
    T, D, H, C = 6, 2, 3, 4
    params = {
        "Wx": normal(rng, 4 * H, D),
        "Wh": normal(rng, 4 * H, H),
        "b": normal(rng, 4 * H),
        "h0": normal(rng, H),
        "c0": normal(rng, H),
        "V": normal(rng, C, H),
        "d": normal(rng, C),
    }
    return params, normal(rng, T, D), 2


def gradient(fault, params, x, label):
    wrong = parts(fault)
    Wx, Wh, b, V = (params[name] for name in ["Wx", "Wh", "b", "V"])
    T, H = len(x), len(params["h0"])
    i, f, o, g = (np.empty((T, H)) for _ in range(4))
    h, c = np.empty((T + 1, H)), np.empty((T + 1, H))
    h[0], c[0] = params["h0"], params["c0"]
    for t in range(T):
        a_i, a_f, a_o, a_g = np.split(Wx @ x[t] + Wh @ h[t] + b, 4)
        i[t], f[t], o[t], g[t] = sigmoid(a_i), sigmoid(a_f), sigmoid(a_o), np.tanh(a_g)
        c[t + 1] = f[t] * c[t] + i[t] * g[t]
        h[t + 1] = o[t] * np.tanh(c[t + 1])
    p = softmax(V @ h[T] + params["d"])

    dlogits = p - (np.arange(len(p)) == label)
    if "label not subtracted" in wrong:
        dlogits = p
    if "sign of the loss" in wrong:
        dlogits = -dlogits
    if "softmax as a sigmoid" in wrong:
        dlogits = dlogits * p * (1 - p)

    d = zeros_like(params)
    d["V"] = np.outer(dlogits, h[T - 1] if "V with the state before" in wrong else h[T])
    d["d"] = dlogits
    dh, dc_next = V.T @ dlogits, np.zeros(H)
    for t in reversed(range(T)):
        # h = o tanh(c)
        tanh_c = np.tanh(c[t + 1])
        do = dh * (c[t + 1] if "output gate times the cell" in wrong else tanh_c)
        slope_c = 1 - tanh_c**2
        if "tanh of a tanh" in wrong:
            slope_c = 1 - np.tanh(tanh_c) ** 2
        if "slope at the state" in wrong:
            slope_c = 1 - h[t + 1] ** 2
        if "no slope of the cell's tanh" in wrong:
            slope_c = 1
        from_h = (
            dh * slope_c if "output gate not on the cell's path" in wrong else dh * o[t] * slope_c
        )
        dc = dc_next + from_h
        if "cell gets the last state's alone" in wrong and t < T - 1:
            dc = dc_next

        # c = f c[t-1] + i g
        df = dc * (c[t + 1] if "forget gate with the new cell" in wrong else c[t])
        di, dg = dc * g[t], dc * i[t]
        if "forget gate from the carried part" in wrong:
            df = dc_next * c[t]
        if "input gate and candidate exchanged" in wrong:
            di, dg = dg, di
        dc_next = dc if "forget gate not on the carried cell" in wrong else dc * f[t]
        if "cell not carried" in wrong:
            dc_next = np.zeros(H)

        # i, f, o = sigmoid(a), g = tanh(a)
        slope_f = sigmoid(f[t]) if "sigmoid for its slope" in wrong else f[t] * (1 - f[t])
        slope_g = (
            g[t] * (1 - g[t]) if "sigmoid's slope for the candidate" in wrong else 1 - g[t] ** 2
        )
        da_i, da_f = di * i[t] * (1 - i[t]), df * slope_f
        da_o, da_g = do * o[t] * (1 - o[t]), dg * slope_g
        order = [da_i, da_f, da_o, da_g]
        if "gates in another order" in wrong:
            order = [da_i, da_f, da_g, da_o]
        da = np.concatenate(order)

        # a = Wx x + Wh h[t-1] + b
        d["Wx"] += np.outer(da, x[t])
        d["Wh"] += np.outer(da, h[t + 1] if "Wh with the new state" in wrong else h[t])
        d["b"] += da
        if "no path through the output gate" in wrong:
            dh = Wh.T @ np.concatenate([da_i, da_f, np.zeros(H), da_g])
        elif "state not carried" in wrong:
            dh = np.zeros(H)
        elif "state's gradient never replaced" not in wrong:
            dh = Wh.T @ da
    d["h0"], d["c0"] = dh, dc_next
    if "c0 gets the first cell's" in wrong:
        d["c0"] = dc
    if "h0 and c0 exchanged" in wrong:
        d["h0"], d["c0"] = d["c0"], d["h0"]
    return d


A = 'a = params["Wx"] @ x_t + params["Wh"] @ h + params["b"]'
SPLIT = "a_i, a_f, a_o, a_g = jnp.split(a, 4)"
F = "f = jax.nn.sigmoid(a_f)"
O = "o = jax.nn.sigmoid(a_o)"
G = "g = jnp.tanh(a_g)"
C = "c = f * c + i * g"
H = "h = o * jnp.tanh(c)"
SCAN = '(h, _), _ = lax.scan(step, (params["h0"], params["c0"]), x)'
LOGITS = 'logits = params["V"] @ h + params["d"]'
SOFTMAX = "log_p = jax.nn.log_softmax(logits)"
PICK = "return -log_p[label]"

FAULTS = {
    "label not subtracted": Fault(
        "The probabilities are taken for the gradient; the label's 1 is not subtracted.",
        (PICK, SOFTMAX),
    ),
    "sign of the loss": Fault("The label minus p is written for p minus the label.", (PICK,)),
    "softmax as a sigmoid": Fault(
        "The gradient through softmax and logarithm is multiplied by p (1 - p) once more.",
        (SOFTMAX,),
    ),
    "V with the state before": Fault("V's gradient uses the last state but one.", (LOGITS,)),
    "output gate times the cell": Fault("The output gate gets dh c, not dh tanh(c).", (H,)),
    "tanh of a tanh": Fault("The derivative applies tanh to tanh(c) a second time.", (H,)),
    "slope at the state": Fault("1 - h^2 is written for 1 - tanh(c)^2.", (H,)),
    "no slope of the cell's tanh": Fault("The derivative of tanh(c) is left out.", (H,)),
    "output gate not on the cell's path": Fault("The cell gets dh without the factor o.", (H,)),
    "cell gets the last state's alone": Fault(
        "Before the last step the cell lacks the gradient that comes through the state.", (H,)
    ),
    "forget gate with the new cell": Fault("The forget gate gets dc c[t], not dc c[t-1].", (C,)),
    "forget gate from the carried part": Fault(
        "The forget gate is given the carried dc before the state's part has been added.", (C, H)
    ),
    "input gate and candidate exchanged": Fault("di has the factor i and dg the factor g.", (C,)),
    "forget gate not on the carried cell": Fault("dc is carried back without the factor f.", (C,)),
    "cell not carried": Fault("No gradient is carried from cell to cell.", (C,)),
    "sigmoid for its slope": Fault(
        "The forget gate's gradient is multiplied by sigmoid(f), not by the sigmoid's derivative.",
        (F,),
    ),
    "sigmoid's slope for the candidate": Fault("g (1 - g) is written for 1 - g^2.", (G,)),
    "gates in another order": Fault(
        "The gates' gradients are joined as i, f, g, o; they were split as i, f, o, g.",
        (SPLIT, O, G),
    ),
    "Wh with the new state": Fault("Wh's gradient uses h[t] for h[t-1].", (A,)),
    "no path through the output gate": Fault(
        "The old state's gradient is summed over the other three gates.", (A, O)
    ),
    "state not carried": Fault("No gradient is carried from state to state.", (A,)),
    "state's gradient never replaced": Fault(
        "dh stays the one of the last state: the loop forgets to replace it.", (A,)
    ),
    "c0 gets the first cell's": Fault(
        "The gradient of the first cell is returned for that of c0: the factor f is missing.",
        (C, SCAN),
    ),
    "h0 and c0 exchanged": Fault(
        "The gradients of the two initial states are returned in each other's place.", (SCAN,)
    ),
}
FAULTS |= pairs(
    FAULTS,
    ("sigmoid for its slope", "tanh of a tanh"),
    ("forget gate with the new cell", "cell not carried"),
)
