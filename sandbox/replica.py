"""What every attempt of a replica shares."""

from __future__ import annotations

from typing import Any, Callable, Dict, NamedTuple

from sandbox import wire
from sandbox.birth import Cradle


class Replica(NamedTuple):
    """config: the agent's own. sockets: the open folder of the sockets."""

    cradle: Cradle
    config: Dict[str, Any]
    sockets: int
    report: Callable[[wire.Message], None]
    oom_kills: Callable[[], int]
