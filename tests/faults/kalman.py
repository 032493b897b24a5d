"""The negative log likelihood of a linear Gaussian state space model, by a Kalman filter."""

import jax.numpy as jnp
import numpy as np
from jax import lax

from faults import Fault, normal, pairs, parts, zeros_like


def loss(params, y):
    Q = jnp.diag(jnp.exp(params["q"]))
    R = jnp.diag(jnp.exp(params["r"]))

    def step(state, y_t):
        m, P = state
        m = params["A"] @ m
        P = params["A"] @ P @ params["A"].T + Q
        e = y_t - params["C"] @ m
        G = params["C"] @ P
        S = G @ params["C"].T + R
        K = jnp.linalg.solve(S, G).T
        log_det = jnp.linalg.slogdet(S)[1]
        square = e @ jnp.linalg.solve(S, e)
        m = m + K @ e
        P = P - K @ G
        return (m, P), (log_det + square) / 2

    P0 = params["L0"] @ params["L0"].T
    _, terms = lax.scan(step, (params["m0"], P0), y)
    return jnp.sum(terms)


def arguments(rng):
    T, N, M = 5, 3, 2
    params = {
        "A": normal(rng, N, N),
        "C": rng.normal(size=(M, N)),
        "q": normal(rng, N),
        "r": normal(rng, M),
        "m0": rng.normal(size=N),
        "L0": rng.normal(size=(N, N)),
    }
    return params, rng.normal(size=(T, M))


def gradient(fault, params, y):
    wrong = parts(fault)
    A, C, L0 = params["A"], params["C"], params["L0"]
    Q, R = np.diag(np.exp(params["q"])), np.diag(np.exp(params["r"]))
    T, N = len(y), len(A)
    m, P = np.empty((T + 1, N)), np.empty((T + 1, N, N))  # after each observation
    predicted, spread = np.empty((T, N)), np.empty((T, N, N))  # before it
    m[0], P[0] = params["m0"], L0 @ L0.T
    for t in range(T):
        predicted[t], spread[t] = A @ m[t], A @ P[t] @ A.T + Q
        K = spread[t] @ C.T @ np.linalg.inv(C @ spread[t] @ C.T + R)
        m[t + 1] = predicted[t] + K @ (y[t] - C @ predicted[t])
        P[t + 1] = spread[t] - K @ C @ spread[t]

    d = zeros_like(params)
    dQ, dR = np.zeros_like(Q), np.zeros_like(R)
    dm, dP = np.zeros(N), np.zeros((N, N))
    for t in reversed(range(T)):
        e, G = y[t] - C @ predicted[t], C @ spread[t]
        inverse = np.linalg.inv(G @ C.T + R)
        K = G.T @ inverse

        # m[t] = m + K e, P[t] = P - K G
        dK = np.outer(dm, e) - dP @ G.T
        de, dG, dS = K.T @ dm, -K.T @ dP, np.zeros_like(R)
        if "gain is a constant" in wrong:
            dK = np.zeros_like(dK)
        if "gain's path through the mean alone" in wrong:
            dK = np.outer(dm, e)
        if "gain's path through the covariance alone" in wrong:
            dK = -dP @ G.T
        if "innovation not in the new mean" in wrong:
            de = np.zeros_like(e)
        if "covariance not shrunk on the way back" in wrong:
            dG = np.zeros_like(G)

        # (log det S + e' S^-1 e) / 2
        weighted = inverse @ e
        if "residual after the update" in wrong:
            weighted = inverse @ (y[t] - C @ m[t + 1])
        de = de + (2 * weighted if "half forgotten for the square" in wrong else weighted)
        of_log_det, of_square = inverse / 2, -np.outer(weighted, weighted) / 2
        if "no determinant" in wrong:
            of_log_det = 0
        if "determinant without its half" in wrong:
            of_log_det = inverse
        if "derivative of the inverse with one factor" in wrong:
            of_square = -np.outer(weighted, e) / 2
        if "sign of the inverse's derivative" in wrong:
            of_square = -of_square
        if "innovation's covariance not in the square" in wrong:
            of_square = 0
        dS = dS + of_log_det + of_square

        # K = G' S^-1
        dG = dG + inverse @ dK.T
        if "innovation's covariance not in the gain" not in wrong:
            dS = dS - inverse @ dK.T @ K

        # S = G C' + R, G = C P, e = y - C m
        dR += dS
        dG = dG + dS @ C
        observed = m[t + 1] if "C with the mean after the update" in wrong else predicted[t]
        into_C = -np.outer(de, observed)
        if "sign of the innovation" in wrong:
            into_C = -into_C
        if "C in the innovation alone" not in wrong:
            into_C = into_C + dG @ spread[t]
            into_C = into_C + (0 if "C once in its square" in wrong else dS.T @ G)
        d["C"] += into_C
        dm = dm - C.T @ de
        dP = dP + C.T @ dG

        # m = A m[t-1], P = A P[t-1] A' + Q
        into_A = (dP + dP.T) @ A @ P[t]
        if "A once in its square" in wrong:
            into_A = dP @ A @ P[t]
        if "A with the covariance after the update" in wrong:
            into_A = (dP + dP.T) @ A @ P[t + 1]
        if "A in the mean alone" in wrong:
            into_A = 0
        d["A"] += into_A
        d["A"] += 0 if "A in the covariance alone" in wrong else np.outer(dm, m[t])
        if "Q without the first step" not in wrong or t > 0:
            dQ += dP
        dm = A @ dm if "A not transposed for the mean" in wrong else A.T @ dm
        dP = A @ dP @ A.T if "A the wrong way round for the covariance" in wrong else A.T @ dP @ A
        if "mean not carried" in wrong and t > 0:
            dm = np.zeros(N)
        if "covariance not carried" in wrong and t > 0:
            dP = np.zeros((N, N))

    # P[0] = L0 L0'
    d["m0"] = dm
    d["L0"] = dP @ L0 if "L0 once in its square" in wrong else (dP + dP.T) @ L0
    d["q"], d["r"] = np.diag(dQ) * np.diag(Q), np.diag(dR) * np.diag(R)
    if "no slope of the exponential" in wrong:
        d["q"] = np.diag(dQ).copy()
    if "exponential of half the logarithm" in wrong:
        d["r"] = np.diag(dR) * np.sqrt(np.diag(R))
    return d


Q = 'Q = jnp.diag(jnp.exp(params["q"]))'
R = 'R = jnp.diag(jnp.exp(params["r"]))'
L0 = 'P0 = params["L0"] @ params["L0"].T'
PREDICT_M = 'm = params["A"] @ m'
PREDICT_P = 'P = params["A"] @ P @ params["A"].T + Q'
E = 'e = y_t - params["C"] @ m'
G = 'G = params["C"] @ P'
S = 'S = G @ params["C"].T + R'
K = "K = jnp.linalg.solve(S, G).T"
LOG_DET = "log_det = jnp.linalg.slogdet(S)[1]"
SQUARE = "square = e @ jnp.linalg.solve(S, e)"
HALF = "return (m, P), (log_det + square) / 2"
UPDATE_M = "m = m + K @ e"
UPDATE_P = "P = P - K @ G"

FAULTS = {
    "gain is a constant": Fault(
        "The gain is taken for a constant, as if the likelihood were at its optimum in it.",
        (K, UPDATE_M, UPDATE_P),
    ),
    "gain's path through the mean alone": Fault(
        "The gain's gradient lacks what comes from the covariance.", (UPDATE_P,)
    ),
    "gain's path through the covariance alone": Fault(
        "The gain's gradient lacks what comes from the mean.", (UPDATE_M,)
    ),
    "innovation not in the new mean": Fault(
        "The innovation's gradient lacks what comes from the updated mean.", (UPDATE_M,)
    ),
    "covariance not shrunk on the way back": Fault(
        "The covariance's gradient passes the update as if nothing were subtracted.", (UPDATE_P,)
    ),
    "residual after the update": Fault(
        "The likelihood's gradient uses the residual of the updated mean.", (SQUARE, E)
    ),
    "half forgotten for the square": Fault(
        "The square's 2 is kept in the innovation's gradient, though half of it is the loss.",
        (SQUARE, HALF),
    ),
    "no determinant": Fault("The derivative of the determinant is left out.", (LOG_DET,)),
    "determinant without its half": Fault(
        "The derivative of the determinant lacks its 1/2.", (LOG_DET, HALF)
    ),
    "derivative of the inverse with one factor": Fault(
        "The derivative of S^-1 has S^-1 on one side, not on both.", (SQUARE,)
    ),
    "sign of the inverse's derivative": Fault(
        "The derivative of S^-1 lacks its minus sign.", (SQUARE,)
    ),
    "innovation's covariance not in the square": Fault(
        "S lacks its gradient through the square: S is taken for a constant there.", (SQUARE,)
    ),
    "innovation's covariance not in the gain": Fault(
        "S lacks its gradient through the gain.", (K,)
    ),
    "C with the mean after the update": Fault(
        "C's gradient uses the updated mean, not the predicted one.", (E,)
    ),
    "sign of the innovation": Fault("C's gradient lacks the minus sign of y - C m.", (E,)),
    "C in the innovation alone": Fault("C's gradient lacks its covariances, S and G.", (G, S)),
    "C once in its square": Fault("Of C P C', only one C is differentiated.", (S, G)),
    "A once in its square": Fault("Of A P A', only one A is differentiated.", (PREDICT_P,)),
    "A with the covariance after the update": Fault(
        "A's gradient uses the covariance a step too late.", (PREDICT_P,)
    ),
    "A in the mean alone": Fault("A's gradient lacks its covariances.", (PREDICT_P,)),
    "A in the covariance alone": Fault("A's gradient lacks the means.", (PREDICT_M,)),
    "Q without the first step": Fault("Q's gradient lacks the first step.", (PREDICT_P,)),
    "A not transposed for the mean": Fault(
        "A is not transposed on the mean's way back.", (PREDICT_M,)
    ),
    "A the wrong way round for the covariance": Fault(
        "A dP A' is written for A' dP A on the covariance's way back.", (PREDICT_P,)
    ),
    "mean not carried": Fault(
        "The mean's gradient is not carried to the step before.", (PREDICT_M,)
    ),
    "covariance not carried": Fault(
        "The covariance's gradient is not carried to the step before.", (PREDICT_P,)
    ),
    "L0 once in its square": Fault("Of L0 L0', only one L0 is differentiated.", (L0,)),
    "no slope of the exponential": Fault("q gets the variances' gradient, without exp(q).", (Q,)),
    "exponential of half the logarithm": Fault(
        "r is taken for the logarithm of a deviation: the factor is exp(r / 2).", (R,)
    ),
}
FAULTS |= pairs(
    FAULTS,
    ("no determinant", "covariance not carried"),
    ("A once in its square", "no slope of the exponential"),
)
