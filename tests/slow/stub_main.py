"""What `-m scp_prior` is, with the stub for a VAE; for torchrun. One process may be told to be killed."""

from __future__ import annotations

import importlib
import os
import sys
from pathlib import Path

if __name__ == "__main__":
    tests = Path(__file__).resolve().parents[1]
    sys.path[:0] = [str(tests), str(tests.parent)]
    lost = os.environ["RANK"] == os.environ.get("LOST_RANK")
    environment = {**os.environ, **({"DIES_AT": os.environ["LOST_AT"]} if lost else {})}
    importlib.import_module("reducing").in_child(sys.argv[1:], None, environment)
