"""What NumPy reports of the arithmetic in this package, by a warning or an error: overflow alone.

Not invalid operations. OpenBLAS 0.3.31, in NumPy 2.4.2 to 2.4.6, raises the processor's flag of
them now and then on finite numbers: its kernels for AVX-512 read more of the memory than they use.
Arguments are searched for NaN and infinity before anything is computed, and where that search is
left out, NaN in a result says what the flag would have said.

Not underflow. 1 - h^2 is right to the last bit where h^2 vanishes, and a gradient that vanishes on
its way through time is none the worse for being zero; no flag tells the two apart.

>>> subtract = reports_overflow(np.subtract)
>>> with np.errstate(all="raise"):
...     float(subtract(np.inf, np.inf))
nan
"""

import numpy as np

from manual_bptt.arrays import Array, sum_of_squares

# A decorator, not a context: one np.errstate cannot be entered twice, by threads or within itself.
reports_overflow = np.errstate(invalid="ignore", under="ignore")


def mark_overflow(W: Array, a: Array, h0: Array) -> None:
    """Set to NaN what has overflowed, or may: tanh would make a plausible 1 of an infinity.

    a (T, B, G H) or (T, G H) holds U x[t] + b. In ``W h``, where the magnitudes of all terms add up
    to infinity, so may a partial sum of terms that cancel. It is for cells whose states stay
    between -1 and 1, or between -|h0| and |h0|; W is whatever is multiplied by them.
    """
    H, largest = h0.shape[-1], float(np.finfo(W.dtype).max)
    if sum_of_squares(a) + sum_of_squares(W) * (H + sum_of_squares(h0)) < largest:
        return  # |W h| <= |W| |h| (Cauchy, Schwarz), and |h[t]|^2 <= H + |h0|^2 for real numbers
    finite = np.isfinite(a)
    if not finite.all():
        a[~finite] = np.nan
    steepest = np.abs(W).sum() * np.maximum(1, np.abs(h0).max(axis=-1))  # in each sequence
    a[:, ~(steepest < largest)] = np.nan


def sigmoid(a: Array) -> Array:
    """Return 1 / (1 + exp(-a)): no exponential overflows, and small results keep all their digits.

    >>> sigmoid(np.array([-1000.0, -40.0, 0.0, 1000.0])).tolist()
    [0.0, 4.248354255291589e-18, 0.5, 1.0]
    """
    falls = a.real < 0  # a complex number is on the side of its real part
    e = np.exp(np.where(falls, a, -a))
    result: Array = np.where(falls, e, np.ones_like(e)) / (1 + e)
    return result
