"""Control's own log, which is its standard error: for what nobody else can be told."""

from __future__ import annotations

import contextlib
import sys


def note(text: str) -> None:
    """Write one line, if that can be done: the log may be on the disk whose being full is what there is to tell."""
    with contextlib.suppress(OSError):
        print(text, file=sys.stderr, flush=True)
