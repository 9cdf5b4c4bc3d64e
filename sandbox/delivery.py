"""How one attempt comes by its worker: preload.py is run before it where there is one, and what does not fit is redone.

It knows what was preloaded and whether it may be used, not what becomes of the worker.
"""

from __future__ import annotations

import time
from typing import Any, Callable, Dict, NamedTuple, Optional

from sandbox import jobs, start, wire
from sandbox.birth import Wanted, bear
from sandbox.child import Child
from sandbox.prelude import Prelude
from sandbox.replica import Replica
from sandbox.second import Outcome
from sandbox.steps import preloads


class Expecting(NamedTuple):
    """Who waits for the worker. begins: a phase; done: one, and its seconds. hear: the worker's messages; ended: its
    cause of death. born: the child, "fork" or "spawn", and the seconds; failed: the cause, an error, and its stacks.
    """

    begins: Callable[[str], None]
    done: Callable[[str, float], None]
    hear: Callable[[wire.Message], None]
    ended: Callable[[str], None]
    born: Callable[[Child, str, float], None]
    failed: Callable[[str, Optional[Dict[str, Any]], str], None]


class Delivery:
    """`order` is the `load` message; its `mode` becomes "spawn" where no fork will do."""

    def __init__(self, replica: Replica, order: Dict[str, Any], socket: str, expecting: Expecting) -> None:
        self._replica = replica
        self._order = order
        self._socket = socket
        self._expecting = expecting
        # Why it was spawned although it could have been forked.
        self.why = ""
        self.job: start.Job = {}
        self._prelude: Optional[Prelude] = None
        self._births = 0
        self._abandoned = False

    def begin(self) -> None:
        self.job = jobs.worker(self._order, self._replica.config, self._socket)
        tree, second = self.job["assignment"]["tree"], self._replica.cradle.nursery.second
        self._replica.cradle.nursery.meet(tree)
        if not preloads(tree):
            second.drop("")
        elif self._order["mode"] != "spawn" and not second.ready and not self._abandoned:
            self._expecting.begins("preload")
            self._prelude = Prelude(self._replica.cradle, self._order["load_timeout"], self._preloaded)
            self._prelude.begin(self.job)
            return
        self._bear()

    def again(self, stale: wire.Message) -> None:
        """What the zygote preloaded does not fit these files.

        An object of preload.py's is made anew; a module is imported by this worker in an interpreter of its own.
        """
        self._births += 1  # how that child ends is of no interest
        nursery, reason = self._replica.cradle.nursery, str(stale.get("reason"))
        if stale.get("what") == "preload":
            nursery.second.drop(reason)
        else:
            nursery.unfit(str(stale.get("module")), reason)
            self._order["mode"], self.why = "spawn", reason
        self.begin()

    def abandon(self) -> bool:
        """Nobody wants the worker any more. True where none was on its way yet: it is over then."""
        self._abandoned = True
        if self._prelude is None:
            return False
        self._prelude.abandon()
        return True

    def _bear(self) -> None:
        began = time.monotonic()
        if self._abandoned:
            self._expecting.failed("killed", None, "")
            return
        birth = self._births = self._births + 1

        def last(cause: str) -> None:
            if self._births == birth:
                self._expecting.ended(cause)

        def born(child: Child, how: str) -> None:
            self._expecting.born(child, how, time.monotonic() - began)

        def stillborn(why: str, error: Dict[str, Any]) -> None:
            self._expecting.failed(why, error, "")

        job = {"kind": "worker", **self.job}
        mode, generation = self._order["mode"], self._order["generation"]
        bear(self._replica.cradle, Wanted(job, mode, generation, self._expecting.hear, last, born, stillborn))

    def _preloaded(self, outcome: Outcome, seconds: float) -> None:
        self._prelude = None
        if outcome.state in ("failed", "dead", "dropped"):
            self._expecting.failed(outcome.reason, outcome.error, outcome.stacks)
            return
        if outcome.state == "ready":
            self._expecting.done("preload", seconds)
        else:
            # What is forked from it would hang or be wrong: the worker runs preload.py itself.
            self._order["mode"], self.why = "spawn", outcome.reason
            if outcome.module:
                self._replica.cradle.nursery.unfit(outcome.module, outcome.reason)
        self._expecting.begins("fork")
        self._bear()
