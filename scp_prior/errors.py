"""The one exception an artist ever sees from this pack."""

from __future__ import annotations


class SCPError(Exception):
    """Something the user can put right: a file, a size, a choice of widget.

    The message says what was expected, what came instead, and what to change. ComfyUI shows it unaltered in its error
    dialog, and the command line prints it without a traceback.
    """
