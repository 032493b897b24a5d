"""Hypothesis profiles: the same examples in every run, or many random ones on demand."""

import atexit
import os
import shutil
import tempfile

# Tests run in as many processes as there are cores; more threads in each would only get in the way.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
# What one process has compiled the others need not. The first of them makes a folder for this run
# alone: what XLA has compiled for one processor may crash another.
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    folder = tempfile.mkdtemp(prefix="compiled-by-xla-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    os.environ["JAX_COMPILATION_CACHE_DIR"] = folder
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.3")

from hypothesis import settings

settings.register_profile("fixed", derandomize=True, deadline=None, max_examples=60)
settings.register_profile("random", deadline=None, max_examples=2000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "fixed"))
