"""The agent's event loop: readable, writable, later, and signals. It knows no process of ours.

Selectors instead of asyncio: an agent idles for weeks in some 9 MB, and asyncio alone would double that.
"""

from __future__ import annotations

import heapq
import itertools
import os
import selectors
import signal
import socket
import time
from typing import Callable, Dict, List, Optional, Tuple

Callback = Callable[[], object]


class Timer:
    """A call to come. `cancel` is idempotent."""

    __slots__ = ("callback",)

    def __init__(self, callback: Callback) -> None:
        self.callback: Optional[Callback] = callback

    def cancel(self) -> None:
        self.callback = None


class Loop:
    """One thread, one selector. Callbacks must not block; an exception in one ends the loop (a bug of ours)."""

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()
        self._calls: Dict[int, Dict[int, Callback]] = {}
        self._timers: List[Tuple[float, int, Timer]] = []
        self._count = itertools.count()
        self._signals: Dict[int, Callback] = {}
        self._running = False
        self._woken, self._wakeup = socket.socketpair()
        self._woken.setblocking(False)
        self._wakeup.setblocking(False)
        signal.set_wakeup_fd(self._wakeup.fileno(), warn_on_full_buffer=False)
        self.reading(self._woken.fileno(), self._take_signals)

    def reading(self, fd: int, callback: Optional[Callback]) -> None:
        """Call back while fd is readable; None: no longer."""
        self._watch(fd, selectors.EVENT_READ, callback)

    def writing(self, fd: int, callback: Optional[Callback]) -> None:
        """Call back while fd is writable; None: no longer."""
        self._watch(fd, selectors.EVENT_WRITE, callback)

    def forget(self, fd: int) -> None:
        """Before an fd is closed."""
        if self._calls.pop(fd, None) is not None:
            self._selector.unregister(fd)

    def later(self, seconds: float, callback: Callback) -> Timer:
        timer = Timer(callback)
        heapq.heappush(self._timers, (time.monotonic() + seconds, next(self._count), timer))
        return timer

    def on_signal(self, number: int, callback: Callback) -> None:
        """Call back in the loop after the signal; several may come as one."""
        self._signals[number] = callback
        signal.signal(number, _wake_only)

    def run(self) -> None:
        """Until `stop`."""
        self._running = True
        while self._running:
            for key, events in self._selector.select(self._patience()):
                for event in (selectors.EVENT_READ, selectors.EVENT_WRITE):
                    # Looked up at the last moment: an earlier callback may have closed this one's descriptor.
                    callback = self._calls.get(key.fd, {}).get(event) if events & event else None
                    if callback is not None:
                        callback()
            self._ring()

    def stop(self) -> None:
        self._running = False

    def _patience(self) -> Optional[float]:
        while self._timers and self._timers[0][2].callback is None:
            heapq.heappop(self._timers)
        return max(0.0, self._timers[0][0] - time.monotonic()) if self._timers else None

    def _ring(self) -> None:
        now = time.monotonic()
        while self._timers and self._timers[0][0] <= now:
            callback = heapq.heappop(self._timers)[2].callback
            if callback is not None:
                callback()

    def _watch(self, fd: int, event: int, callback: Optional[Callback]) -> None:
        calls = self._calls.setdefault(fd, {})
        known = bool(calls)
        if callback is None:
            calls.pop(event, None)
        else:
            calls[event] = callback
        mask = sum(calls)
        if not mask:
            del self._calls[fd]
            if known:
                self._selector.unregister(fd)
        elif known:
            self._selector.modify(fd, mask)
        else:
            self._selector.register(fd, mask)

    def _take_signals(self) -> None:
        try:
            numbers = set(os.read(self._woken.fileno(), 4096))
        except BlockingIOError:
            return
        for number in sorted(numbers):
            callback = self._signals.get(number)
            if callback is not None:
                callback()


def _wake_only(_number: int, _frame: object) -> None:
    """The wakeup descriptor carries the news; Python only needs some handler."""
