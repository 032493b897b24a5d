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

# A decorator, not a context: one np.errstate cannot be entered twice, by threads or within itself.
reports_overflow = np.errstate(invalid="ignore", under="ignore")
