"""The zygote that ran preload.py: made when a load needs it, kept until what it was made from has changed.

It does not know what that is: its children look, and say so (materials.py).
"""

from __future__ import annotations

from typing import Any, Callable, Dict, List, NamedTuple, Optional

from sandbox import start, wire
from sandbox.children import Children
from sandbox.forker import Birth, Forker, MakeCapture
from sandbox.loop import Loop


class Outcome(NamedTuple):
    """state: "ready", "failed" with error, "unfit" with module, "unsafe", "dead" or "dropped". stacks: see trace.py."""

    state: str
    reason: str = ""
    error: Optional[Dict[str, Any]] = None
    module: str = ""
    stacks: str = ""


Settled = Callable[[Outcome], None]


class Second:
    """`changed` is called when there is another one, or none any more."""

    def __init__(self, loop: Loop, capture: MakeCapture, changed: Callable[[], None]) -> None:
        self._loop = loop
        self._capture = capture
        self._changed = changed
        self._leaving: List[Forker] = []
        self._settled: Optional[Settled] = None
        self.forker: Optional[Forker] = None
        # Why the last one is not in use.
        self.reason = ""

    @property
    def ready(self) -> bool:
        return self.forker is not None and self.forker.state == "ready"

    @property
    def forkers(self) -> List[Forker]:
        return [*self._leaving, *([self.forker] if self.forker is not None else [])]

    @property
    def state(self) -> wire.Message:
        """The `preload` of the wire's `zygote`."""
        forker = self.forker
        state = "absent" if forker is None else forker.state
        return {
            "state": state,
            "pid": forker.pid if forker is not None and forker.alive else None,
            "reason": self.reason,
        }

    def make(self, brood: Children, parent: Forker, job: start.Job, settled: Settled) -> None:
        """Fork one from `parent`, in place of any other. `settled` is called once."""
        self.drop("")
        self._settled = settled
        self.forker = Forker(self._loop, brood, parent.wish, self._capture, self._took, birth=Birth(parent, job))

    def ask_place(self) -> None:
        """Have it write where it is."""
        if self.forker is not None:
            self.forker.ask_place()

    def drop(self, reason: str) -> None:
        """End it: what it was made from is no longer what there is, or nobody waits for it any more."""
        forker, self.forker, self.reason = self.forker, None, reason
        if forker is None:
            return
        stacks = forker.stacks
        if forker.alive or forker.state == "starting":
            self._leaving.append(forker)
            if forker.state == "ready":
                forker.dismiss()
            else:
                forker.kill()
        self._settle(Outcome("dropped", reason, stacks=stacks))
        self._changed()

    def _took(self, forker: Forker) -> None:
        if forker is not self.forker:
            if forker.state == "dead":
                self._leaving = [other for other in self._leaving if other is not forker]
            return
        if forker.state == "ready":
            self.reason = ""
            self._settle(Outcome("ready"))
            self._changed()
            return
        self.forker, self.reason = None, forker.reason
        if forker.alive:
            self._leaving.append(forker)
            forker.dismiss()
        self._settle(Outcome(forker.state, forker.reason, forker.error, forker.module, forker.stacks))
        self._changed()

    def _settle(self, outcome: Outcome) -> None:
        settled, self._settled = self._settled, None
        if settled is not None:
            settled(outcome)
