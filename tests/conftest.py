"""Hypothesis profiles: the same examples in every run, or many random ones on demand."""

import os

# Tests run in as many processes as there are cores; more threads in each would only get in the way.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

from hypothesis import settings

settings.register_profile("fixed", derandomize=True, deadline=None, max_examples=60)
settings.register_profile("random", deadline=None, max_examples=2000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "fixed"))
