"""A small neural differential equation, by the classical Runge-Kutta method of fourth order."""

import jax.numpy as jnp
import numpy as np

from faults import Fault, normal, pairs, parts, zeros_like

DT = 0.4


def loss(params, target):
    def f(y, t):
        a = params["W"] @ y + t * params["u"] + params["b"]
        return params["V"] @ jnp.tanh(a)

    y = params["y0"]
    total = 0.0
    for n in range(len(target)):
        t = n * DT
        k1 = f(y, t)
        k2 = f(y + DT / 2 * k1, t + DT / 2)
        k3 = f(y + DT / 2 * k2, t + DT / 2)
        k4 = f(y + DT * k3, t + DT)
        y = y + DT / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
        total += DT * jnp.sum((y - target[n]) ** 2)
    return total


def arguments(rng):
    T, D, H = 5, 3, 4
    params = {
        "W": rng.normal(size=(H, D)),
        "u": rng.normal(size=H),
        "b": rng.normal(size=H),
        "V": rng.normal(size=(D, H)),
        "y0": rng.normal(size=D),
    }
    return params, normal(rng, T, D)


def stages(params, y, t, dt):
    """Return the states and times of the four stages of a step, and the state at its end."""

    def f(y, t):
        return params["V"] @ np.tanh(params["W"] @ y + t * params["u"] + params["b"])

    states, times = [y], [t, t + dt / 2, t + dt / 2, t + dt]
    for time, fraction in zip(times, (1 / 2, 1 / 2, 1), strict=False):
        states.append(y + dt * fraction * f(states[-1], time))
    k1, k2, k3, k4 = map(f, states, times)
    return states, times, y + dt / 6 * (k1 + 2 * k2 + 2 * k3 + k4)


def gradient(fault, params, target):
    wrong = parts(fault)
    W, u, b, V = (params[name] for name in ["W", "u", "b", "V"])
    T = len(target)
    y = [params["y0"]]
    for n in range(T):
        y.append(stages(params, y[n], n * DT, DT)[2])

    d = zeros_like(params)

    def back(state, t, dk):
        """Add what dk, the gradient in f(state, t), gives to the others, and return the state's."""
        a = W @ state + t * u + b
        h = np.tanh(a)
        d["V"] += np.outer(dk, a if "V before the tanh" in wrong else h)
        slope = 1 - a**2 if "tanh at the pre-activation" in wrong else 1 - h**2
        da = V.T @ dk if "no slope" in wrong else V.T @ dk * slope
        d["W"] += np.outer(da, state)
        d["u"] += da if "u without the time" in wrong else da * t
        d["b"] += da
        return W.T @ da

    dy = np.zeros_like(y[0])
    for n in reversed(range(T)):
        # total += DT sum((y - target)^2)
        error = y[n + 1] - target[n]
        if "error with the next target" in wrong:
            error = y[n + 1] - target[min(n + 1, T - 1)]
        if "error of the state before" in wrong:
            error = y[n] - target[n]
        into_y = 2 * DT * error
        if "no factor 2" in wrong:
            into_y = DT * error
        if "no step size in the loss" in wrong:
            into_y = 2 * error
        if "error at the end alone" in wrong and n < T - 1:
            into_y = 0
        dy = dy + into_y

        start = y[n]
        if "states integrated back" in wrong:
            start = stages(params, y[n + 1], (n + 1) * DT, -DT)[2]
        (y1, y2, y3, y4), (t1, t2, t3, t4), _ = stages(params, start, n * DT, DT)
        if "third stage starts from the first slope" in wrong:
            y3 = y2
        if "every stage at the start of the step" in wrong:
            y2 = y3 = y4 = y1
        if "every stage at the same time" in wrong:
            t2 = t3 = t4 = t1
        if "last stage in mid-step" in wrong:
            t4 = t3

        # y[n+1] = y + DT/6 (k1 + 2 k2 + 2 k3 + k4)
        outer, inner = DT / 6, DT / 3
        if "weights of the stages forgotten" in wrong:
            inner = DT / 6
        if "Simpson's weights" in wrong:
            outer, inner = DT / 6, 4 * DT / 6
        if "a quarter for each stage" in wrong:
            outer = inner = DT / 4
        if "backward by Euler's method" in wrong:
            d4 = d3 = d2 = np.zeros_like(dy)
            d1 = back(y1, t1, DT * dy)
        else:
            # k4 = f(y + DT k3), k3 = f(y + DT/2 k2), k2 = f(y + DT/2 k1), k1 = f(y)
            chain4 = DT / 2 if "last stage chained by half a step" in wrong else DT
            chain3 = DT if "third stage chained by a whole step" in wrong else DT / 2
            chain2 = DT / 2
            if "stages not chained" in wrong:
                chain4 = chain3 = chain2 = 0
            if "second stage not chained" in wrong:
                chain2 = 0
            d4 = back(y4, t4, outer * dy)
            d3 = back(y3, t3, inner * dy + chain4 * d4)
            d2 = back(y2, t2, inner * dy + chain3 * d3)
            d1 = back(y1, t1, outer * dy + chain2 * d2)
        through = d1 + d2 + d3 + d4
        if "state through the first stage alone" in wrong:
            through = d1
        before = dy
        dy = through if "state's own path forgotten" in wrong else dy + through
        if "detached at every other step" in wrong and n % 2 == 0 and n > 0:
            dy = np.zeros_like(dy)
    d["y0"] = before if "y0 gets the first state's" in wrong else dy
    return d


A = 'a = params["W"] @ y + t * params["u"] + params["b"]'
F = 'return params["V"] @ jnp.tanh(a)'
TIME = "t = n * DT"
K1 = "k1 = f(y, t)"
K2 = "k2 = f(y + DT / 2 * k1, t + DT / 2)"
K3 = "k3 = f(y + DT / 2 * k2, t + DT / 2)"
K4 = "k4 = f(y + DT * k3, t + DT)"
Y = "y = y + DT / 6 * (k1 + 2 * k2 + 2 * k3 + k4)"
TOTAL = "total += DT * jnp.sum((y - target[n]) ** 2)"

FAULTS = {
    "V before the tanh": Fault("V's gradient uses a, not tanh(a).", (F,)),
    "tanh at the pre-activation": Fault("1 - a^2 is written for 1 - tanh(a)^2.", (F,)),
    "no slope": Fault("The derivative of tanh is left out.", (F,)),
    "u without the time": Fault("u's gradient lacks the factor t.", (A,)),
    "error with the next target": Fault("The error uses the target of the next step.", (TOTAL,)),
    "error of the state before": Fault("The error uses the state before the step.", (TOTAL,)),
    "no factor 2": Fault("The square's derivative lacks its factor 2.", (TOTAL,)),
    "no step size in the loss": Fault("The error's gradient lacks the factor DT.", (TOTAL,)),
    "error at the end alone": Fault("Only the error of the last state is sent back.", (TOTAL,)),
    "states integrated back": Fault(
        "The states are not kept but integrated backwards in time, which is not exact."
    ),
    "third stage starts from the first slope": Fault(
        "The third stage is computed again from k1 instead of k2.", (K3,)
    ),
    "every stage at the start of the step": Fault(
        "All stages are differentiated at the state that the step starts from.", (K2, K3, K4)
    ),
    "every stage at the same time": Fault(
        "All stages are differentiated at the time that the step starts from.", (K2, K3, K4)
    ),
    "last stage in mid-step": Fault("The last stage is differentiated half a step early.", (K4,)),
    "weights of the stages forgotten": Fault(
        "The second and third stage lack their weight 2 on the way back.", (Y,)
    ),
    "Simpson's weights": Fault("The stages' weights on the way back are 1, 4, 4 and 1.", (Y,)),
    "a quarter for each stage": Fault("Each stage has the weight 1/4 on the way back.", (Y,)),
    "backward by Euler's method": Fault(
        "The way back is that of one Euler step, though forward there are four stages.",
        (K1, K2, K3, K4, Y),
    ),
    "last stage chained by half a step": Fault(
        "What comes from the last stage has the factor DT / 2, not DT.", (K4,)
    ),
    "third stage chained by a whole step": Fault(
        "What comes from the third stage has the factor DT, not DT / 2.", (K3,)
    ),
    "stages not chained": Fault("No stage gets a gradient from the next.", (K2, K3, K4)),
    "second stage not chained": Fault("The first stage gets no gradient from the second.", (K2,)),
    "state through the first stage alone": Fault(
        "The state gets no gradient from the later stages, which start from it too.", (K2, K3, K4)
    ),
    "state's own path forgotten": Fault("The state lacks its gradient as the step's y + ...", (Y,)),
    "detached at every other step": Fault("The state is cut off at every other step.", (Y,)),
    "y0 gets the first state's": Fault(
        "The gradient of the first computed state is returned for y0's.", (Y,)
    ),
}
FAULTS |= pairs(
    FAULTS,
    ("no step size in the loss", "second stage not chained"),
    ("u without the time", "weights of the stages forgotten"),
)
