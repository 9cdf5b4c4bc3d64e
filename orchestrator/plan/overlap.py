"""Whether two generations of a model fit into memory beside each other: numbers in, a verdict with its reason out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

# A load may take more than the last one did.
MARGIN = 1.2

# The phase of the new generation before which the old one ends.
Pause = Literal["import", "load"]


@dataclass(frozen=True, slots=True)
class Peak:
    """Bytes of its own that the last generation which loaded took at most: while it was imported, and in all."""

    imported: int
    loaded: int


@dataclass(frozen=True, slots=True)
class Room:
    """What there is, in bytes. limit: of a replica, None where it has none; used: by the replica that uses most, less
    file pages that can be dropped. available: on the machine (MemAvailable), None where that is not known; replicas:
    how many of them load at once.
    """

    limit: int | None
    used: int | None
    available: int | None
    replicas: int = 1


@dataclass(frozen=True, slots=True)
class Tight:
    """They do not fit. reason: with the numbers, for people."""

    pause: Pause
    reason: str


def tight(room: Room, peak: Peak) -> Tight | None:
    """Decide; None where they fit, or where nothing speaks against it.

    1. Limit less what is used, or what the machine has for all replicas, is less than 1.2 times the peak → the old
       generation ends before the new one's `load()`.
    2. So it is with what importing alone takes → it ends before the import.
    """
    reason = _short(room, peak.loaded)
    if not reason:
        return None
    return Tight("import" if _short(room, peak.imported) else "load", reason)  # 2, 1


def _short(room: Room, peak: int) -> str:
    """What is missing, or ""."""
    needed = MARGIN * peak
    if room.limit is not None and room.used is not None and room.limit < room.used + needed:
        return f"memory {size(room.limit)} < {size(room.used)} in use + {MARGIN:g} times {size(peak)} for a load"
    wanted = room.replicas * needed
    if room.available is not None and room.available < wanted:
        loads = f"each of {room.replicas} loads" if room.replicas > 1 else "a load"
        return f"{size(room.available)} available here < {MARGIN:g} times {size(peak)} for {loads}"
    return ""


def size(count: int) -> str:
    """Bytes as people read them: "310 MiB"."""
    mib = count / (1 << 20)
    if mib >= 1024:
        return f"{mib / 1024:.1f} GiB"
    return f"{mib:.0f} MiB" if mib >= 10 else f"{mib:.1f} MiB"
