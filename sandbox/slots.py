"""How many calls run at once in this worker, and who waits for how long. It knows no call."""

from __future__ import annotations

import asyncio

from sandbox.fairness import FairQueue
from sandbox.refusal import Refusal


class Slots:
    """`concurrency` calls run and `queue_size` wait, fairly between clients, at most `queue_timeout` seconds.

    One event loop.
    """

    def __init__(self, concurrency: int, queue_size: int, queue_timeout: float) -> None:
        self.concurrency = concurrency
        self.queue_size = queue_size
        self.queue_timeout = queue_timeout
        self.running = 0
        self._waiting: FairQueue[asyncio.Future[None]] = FairQueue()

    @property
    def queued(self) -> int:
        return len(self._waiting)

    def configure(self, concurrency: int, queue_size: int, queue_timeout: float) -> None:
        """New limits, at once for who comes and for who waits; a call that runs is left alone."""
        self.concurrency = concurrency
        self.queue_size = queue_size
        self.queue_timeout = queue_timeout
        self._admit()

    def try_acquire(self) -> bool:
        """Take a slot if one is free and nobody waits for it."""
        if self.running < self.concurrency and not self._waiting:
            self.running += 1
            return True
        return False

    async def acquire(self, client: str = "") -> float:
        """Take a slot, waiting for one in turn with other clients. Returns the seconds waited.

        Raises Refusal QUEUE_FULL or QUEUE_TIMEOUT.
        """
        if self.try_acquire():
            return 0.0
        if len(self._waiting) >= self.queue_size:
            raise Refusal(
                "QUEUE_FULL",
                f"{self.running} calls run and {len(self._waiting)} wait, which is this model's limit",
                retry_after=1,
            )
        loop = asyncio.get_running_loop()
        began = loop.time()
        turn: asyncio.Future[None] = loop.create_future()
        self._waiting.push(client, turn)
        timer = loop.call_later(self.queue_timeout, self._give_up, client, turn, self.queue_timeout)
        try:
            await turn
        except asyncio.CancelledError:
            self._leave(client, turn)
            raise
        finally:
            timer.cancel()
        return loop.time() - began

    def release(self) -> None:
        """Give a slot back; whose turn it is among those who wait has it from here on."""
        self.running -= 1
        self._admit()

    def _admit(self) -> None:
        while self._waiting and self.running < self.concurrency:
            turn = self._waiting.pop()
            if not turn.done():
                self.running += 1
                turn.set_result(None)

    def _give_up(self, client: str, turn: asyncio.Future[None], waited: float) -> None:
        if turn.done():
            return
        self._waiting.remove(client, turn)
        turn.set_exception(
            Refusal("QUEUE_TIMEOUT", f"no slot became free within queue.timeout ({waited:g} s)", retry_after=1)
        )

    def _leave(self, client: str, turn: asyncio.Future[None]) -> None:
        """The client went while it waited, maybe in the very moment in which it was admitted."""
        if turn.cancelled():
            self._waiting.remove(client, turn)
        elif turn.exception() is None:
            self.release()


class Lease:
    """One taken slot, shared by a request and the threads that work for it: free once the last of them let go.

    A request whose client left ends at once, while its thread cannot be stopped; the slot is the thread's until then.
    """

    __slots__ = ("_holders", "_slots")

    def __init__(self, slots: Slots) -> None:
        self._slots = slots
        self._holders = 1

    def hold(self) -> None:
        self._holders += 1

    def drop(self) -> None:
        self._holders -= 1
        if self._holders == 0:
            self._slots.release()
