"""Workers that outlived their agent dial workers.sock; here they are awaited and taken in, one that proves its pid."""

from __future__ import annotations

import os
import socket
import time
from typing import Any, Callable, Dict, List, Optional

from sandbox import children, sockets, wire
from sandbox.loop import Loop
from sandbox.peer import Peer
from sandbox.roster import Key

# Workers retry every 100 ms; one that hangs must not keep control waiting.
_PATIENCE = 2.0
# A serving worker drains by itself when it found no agent for 30 s.
_LAST_PATIENCE = 60.0
_FIRST_WORD_SECONDS = 5.0
_MOST_STRANGERS = 32
_FIELDS = {"generation": int, "attempt": int, "content": str, "pid": int, "state": str, "phases": dict}

Adopt = Callable[[wire.Message, Peer, float], None]


class Adoption:
    """Calls `adopt` with each survivor and `gathered` once all that `survivors` (see Roster.read) names are there."""

    NAME = "workers.sock"

    def __init__(
        self, loop: Loop, directory: int, survivors: List[Dict[str, Any]], adopt: Adopt, gathered: Callable[[], None]
    ) -> None:
        self._loop = loop
        self._adopt = adopt
        self._gathered: Optional[Callable[[], None]] = gathered
        self._deadlines: Dict[Key, float] = {
            (survivor["generation"], survivor["attempt"]): float(survivor["deadline"]) for survivor in survivors
        }
        self._awaited = set(self._deadlines)
        for survivor in survivors:
            self._expect(survivor)
        self._strangers = 0
        self._listener = sockets.listen(directory, self.NAME)
        loop.reading(self._listener.fileno(), self._accept)
        loop.later(_PATIENCE, self._gather)
        self._look()

    def _expect(self, survivor: Dict[str, Any]) -> None:
        """One that never dials in hangs where nobody can reach it; past its time to load it is killed."""
        key = (survivor["generation"], survivor["attempt"])
        try:
            pidfd = os.pidfd_open(survivor["pid"])
        except ProcessLookupError:
            self._awaited.discard(key)
            return

        def expire() -> None:
            if key in self._awaited:
                children.kill(pidfd)
            os.close(pidfd)

        self._loop.later(max(_LAST_PATIENCE, self._deadlines[key] - time.monotonic()), expire)

    def _look(self) -> None:
        if not self._awaited:
            self._gather()

    def _gather(self) -> None:
        gathered, self._gathered = self._gathered, None
        if gathered is not None:
            gathered()

    def _accept(self) -> None:
        try:
            sock, _ = self._listener.accept()
        except OSError:
            return
        claimed = sockets.credentials(sock)
        if claimed.uid != os.getuid() or self._strangers >= _MOST_STRANGERS:
            sock.close()
            return
        self._strangers += 1
        self._meet(sock, claimed.pid)

    def _meet(self, sock: socket.socket, pid: int) -> None:
        """Wait for its one word."""
        peer = Peer(self._loop, sock)

        def parted(_reason: str = "") -> None:
            peer.closed = _ignore
            deadline.cancel()
            self._strangers -= 1

        def gone() -> None:
            parted()
            peer.close()

        def heard(message: wire.Message) -> None:
            parted()
            if message.get("type") != "adopt" or not _is_whole(message) or message["pid"] != pid:
                peer.close()
                return
            key = (message["generation"], message["attempt"])
            self._adopt(message, peer, self._deadlines.get(key, 0.0))
            self._awaited.discard(key)
            self._look()

        deadline = self._loop.later(_FIRST_WORD_SECONDS, gone)
        peer.receive, peer.closed = heard, parted


def _is_whole(message: wire.Message) -> bool:
    fields = all(isinstance(message.get(name), kind) for name, kind in _FIELDS.items())
    return fields and message["state"] in ("loading", "ready", "draining")


def _ignore(_reason: str) -> None:
    """Its end is somebody else's business now."""
