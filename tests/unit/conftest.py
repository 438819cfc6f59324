from __future__ import annotations

import one_thread  # noqa: F401
