"""Imported first by conftests: one thread for torch and numpy, in child processes too.

What tests compute is small. Two threads make it slower, and far slower where the machine is busy.
"""

from __future__ import annotations

import os

for _library in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_library, "1")
