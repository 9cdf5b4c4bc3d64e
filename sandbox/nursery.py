"""Which zygote workers are forked from: the one in use, the one that may replace it, and when to start another.

It knows no worker. A model whose zygote is missing or unsafe has its workers spawned by the caller.
"""

from __future__ import annotations

import time
from typing import Any, Callable, Dict, List, Mapping, Optional, Tuple

from sandbox import children, start
from sandbox.forker import Forked, Forker, MakeCapture, Wish
from sandbox.loop import Loop
from sandbox.second import Outcome, Second, Settled
from sandbox.steps import Step, preloads
from sandbox.trial import Trial, Verdict
from sandbox.wishes import Wishes, package, steered

# A trial has so long, and so many times what the load took that it repeats.
TRIAL_SECONDS, _TRIAL_TIMES = 10.0, 3.0
_BACKOFF = (0.1, 30.0)
# A zygote that lived this long died of something else than its own start.
_SOUND_SECONDS = 60.0


class Nursery:
    """Owns the zygotes. `changed` is called with `state` whenever it is another one."""

    def __init__(
        self,
        loop: Loop,
        capture: MakeCapture,
        changed: Callable[[Dict[str, Any]], None],
        *,
        cpus: Optional[float] = None,
        trial_seconds: float = TRIAL_SECONDS,
    ) -> None:
        self._loop = loop
        self._cpus = cpus
        self._trial_seconds = trial_seconds
        self._capture = capture
        self._changed = changed
        self._wishes = Wishes()
        self._current: Optional[Forker] = None
        self._next: Optional[Forker] = None
        self._leaving: List[Forker] = []
        # Why the successor that was wished for is not in use.
        self._note = ""
        self._backoff = _BACKOFF[0]
        self._started = 0.0
        self._waiting: List[Callable[[], None]] = []
        # What a successor is tried with: the newest load that went well, and the seconds that it took.
        self._model: Optional[Tuple[start.Job, float]] = None
        self._model_steps: List[Step] = []
        # Whether a successor waits for a load to be tried with.
        self._untried = False
        # The load with which the one in use failed its trial.
        self._failed_with: Optional[start.Job] = None
        self.second = Second(loop, capture, self._second_changed)
        self._closed = False

    def open(self, brood: children.Children) -> None:
        self._brood = brood
        self._current = self._start(self._wishes.now(handed=False))

    @property
    def ready(self) -> bool:
        return self.second.ready or (self._current is not None and self._current.state == "ready")

    @property
    def source(self) -> Optional[Tuple[int, int]]:
        """Which zygote children come from, and how often it has imported; None while that is not settled."""
        source = self.second.forker if self.second.ready else self._current
        return (source.pid, source.probes) if source is not None and source.state in ("ready", "unsafe") else None

    @property
    def soon(self) -> bool:
        """Whether waiting is likely to be quicker than spawning: a bare zygote is on its way."""
        return self._current is not None and self._current.state == "starting" and not self._current.wish

    @property
    def busy(self) -> bool:
        """Whether a fork order is open: until it is answered, an unknown child may be its fruit."""
        return any(forker.busy for forker in self._all())

    @property
    def state(self) -> Dict[str, Any]:
        """The `zygote` of the wire."""
        current = self._current
        if current is None:
            return {"state": "absent", "pid": None, "reason": "", "imports": [], "preload": self.second.state}
        return {
            "state": current.state,
            "pid": current.pid if current.alive else None,
            "reason": self._reason(current),
            "imports": current.imports,
            "preload": self.second.state,
        }

    def _reason(self, current: Forker) -> str:
        """Why it cannot be forked from, or does not have all that workers imported; "" where neither is so."""
        return current.reason or self._note or next(iter(self._wishes.unfit.values()), "")

    def when_settled(self, settled: Callable[[], None]) -> None:
        """Call once the zygote is no longer starting."""
        if self._current is not None and self._current.state == "starting":
            self._waiting.append(settled)
        else:
            settled()

    def fork(self, job: start.Job, ends: start.Ends, forked: Forked) -> None:
        """Fork a child from the zygote in use, which must be ready."""
        source = self.second.forker if self.second.ready else self._current
        if source is None or source.state != "ready":
            forked(None, "no zygote is ready")
        else:
            source.fork(job, ends, forked)

    def run_preload(self, job: start.Job, settled: Settled) -> None:
        """Have a zygote that has run preload.py, or be told why there is none."""
        if self.second.ready:
            settled(Outcome("ready"))
        elif self._current is None or self._current.state != "ready":
            settled(Outcome("unsafe", "no zygote is ready" if self._current is None else self._current.reason))
        else:
            self.second.make(self._brood, self._current, job, settled)

    def preload(self, imports: List[str], environment: Mapping[str, str]) -> None:
        """Control's wish; what workers were seen to import is added to it."""
        self._wishes.asked = [("set", *item) for item in sorted(environment.items())] + [
            ("import", name) for name in imports
        ]
        if not self._replace():
            self._changed(self.state)

    def learn(self, imports: List[str], job: start.Job, seconds: float) -> None:
        """Add what a good worker imported: the next ones find it there.

        job: the worker's; seconds: what its load took.
        """
        self._model, self._model_steps = (job, seconds), self._wishes.scanned
        if self._untried and self._next is not None:
            self._untried = False
            self._try(self._next, job, seconds)
        self._wishes.learn(imports)
        self._replace()

    def hand(self, imports: List[str]) -> None:
        """What workers of other replicas imported. The next zygote has it, and waits for a load to be tried with."""
        self._wishes.hand(imports)

    def meet(self, tree: str) -> None:
        """The files of a load that begins."""
        self._wishes.namesakes(tree)

    def stumbled(self) -> None:
        """A load failed. Where none ever went well, nothing that has to be tried would come into use."""
        if self._model is None:
            self._renounce()

    def scanned(self, steps: List[Step]) -> None:
        """What the newest files begin with: other steps make another zygote, and what was unfit may fit now."""
        if steps != self._wishes.scanned:
            self._wishes.scanned = steps
            self._wishes.unfit.clear()
        self._replace()

    def unfit(self, module: str, reason: str) -> None:
        """Leave out a module that was preloaded under other variables, unless a better zygote is coming."""
        if self._next is None:
            self._wishes.unfit[package(module)] = reason
            self._replace()
        self.second.drop(reason)

    def look(self) -> None:
        """Take in announcements that have arrived."""
        for forker in self._all():
            forker.read()

    def close(self) -> None:
        """End every zygote; none is started again."""
        self._closed = True
        for forker in self._all():
            forker.kill()

    def when_gone(self, gone: Callable[[], None]) -> None:
        """After `close`: call once no zygote lives."""
        if any(forker.alive for forker in self._all()):
            self._loop.later(0.005, lambda: self.when_gone(gone))
        else:
            gone()

    def _all(self) -> List[Forker]:
        own = (self._current, self._next, *self._leaving, *self.second.forkers)
        return [forker for forker in own if forker is not None]

    def _start(self, wish: Wish) -> Forker:
        self._started = time.monotonic()
        return Forker(self._loop, self._brood, wish, self._capture, self._took, cpus=self._cpus)

    def _replace(self) -> bool:
        """Start a successor unless the one in use, or on its way, already is what is wished. True if one comes."""
        wish = self._wishes.now()
        if self._next is not None:
            # When it is there, `_took` looks at the wish again.
            return True
        current = self._current
        if self._closed or current is None or current.state == "dead" or wish in self._wishes.hopeless:
            return False
        wanted, there = steered(wish), steered(current.wish)
        if self._failed_with is not None and self._model is not None and self._failed_with is not self._model[0]:
            # Other code: it may do now.
            self._failed_with = None
            self._next = self._start(wish)
            return True
        unfit = any(package(name) in self._wishes.unfit for name in there)
        if not unfit and all(there.get(name) == sets for name, sets in wanted.items()):
            return False
        self._next = self._start(wish)
        return True

    def _took(self, forker: Forker) -> None:
        """A zygote's state changed."""
        if forker is self._next:
            self._arrived(forker)
        elif forker is self._current:
            if forker.state == "dead":
                self._lose(forker)
            if forker.state == "unsafe":
                forker.dismiss()
            self._changed(self.state)
        elif forker.state == "dead":
            self._leaving = [other for other in self._leaving if other is not forker]
        if self._current is None or self._current.state != "starting":
            waiting, self._waiting = self._waiting, []
            for settled in waiting:
                settled()

    def _arrived(self, forker: Forker) -> None:
        """The successor has imported, or could not."""
        if forker.state == "ready" and forker.imports and self._model is not None:
            self._try(forker, *self._model)
        elif forker.state == "ready" and self._wishes.has_handed(forker.wish):
            self._untried = True
        elif forker.state == "ready" or not self._renounce():
            self._succeed(forker)

    def _renounce(self) -> bool:
        """Do without what was handed over: this model may not need it. True where a successor is given up for that."""
        handed, forker = self._wishes.renounce(), self._next
        if forker is None or handed.isdisjoint(step[1] for step in forker.wish):
            return False
        self._next, self._untried = None, False
        if forker.state != "dead":
            self._leaving.append(forker)
            forker.kill()
        self._replace()
        return True

    def _try(self, forker: Forker, job: start.Job, seconds: float) -> None:
        """Only a zygote whose fork can load the model comes into use."""
        if preloads(job["assignment"]["tree"]):
            self._succeed(forker)  # its workers come from the second one
            return

        def done(verdict: Verdict) -> None:
            if forker is not self._next:
                return
            if verdict.fault and self._model is not None and self._model[0] is not job:
                self._try(forker, *self._model)  # its files may have been changed under it
                return
            if verdict.module and self._model_steps != self._wishes.scanned:
                self._untried = True  # that code sets other variables than the newest, for which this zygote is
                return
            if verdict.module:
                self._wishes.unfit[package(verdict.module)] = verdict.fault
            elif verdict.fault and self._renounce():
                return  # what other replicas imported may be at fault: the one without it is tried by itself
            elif verdict.fault:
                forker.state, forker.reason, self._failed_with = "unsafe", verdict.fault, job
            self._succeed(forker)

        Trial(self._loop, self._brood, forker, job, self._trial_seconds + _TRIAL_TIMES * seconds, done=done)

    def _succeed(self, forker: Forker) -> None:
        """The successor is up, or is not: then the old one stays, and the news says why."""
        self._next, self._untried = None, False
        if forker.state == "dead":
            self._wishes.hopeless.append(forker.wish)
            self._note = f"preloading {', '.join(steered(forker.wish))} failed: {forker.reason}"
            self._changed(self.state)
            return
        self._note = ""
        old, self._current = self._current, forker
        if old is not None and old.state != "dead":
            self._leaving.append(old)
            old.dismiss()
        if forker.state == "unsafe":
            forker.dismiss()
        self._changed(self.state)
        self._replace()
        self._catch_up()

    def _second_changed(self) -> None:
        self._catch_up()
        self._changed(self.state)

    def _catch_up(self) -> None:
        """What a clean zygote could import, the one that ran preload.py can: it keeps what it made."""
        current, second = self._current, self.second.forker
        if current is None or second is None or self._closed or {current.state, second.state} != {"ready"}:
            return
        if steered(current.wish).items() - steered(second.wish).items():
            second.bring(current.wish)

    def _lose(self, forker: Forker) -> None:
        """The one in use died: another after a back-off, which a long life resets."""
        if self._closed:
            return
        if not forker.probes:
            self._wishes.hopeless.append(forker.wish)
        if time.monotonic() - self._started > _SOUND_SECONDS:
            self._backoff = _BACKOFF[0]
        self._loop.later(self._backoff, self._restart)
        self._backoff = min(self._backoff * 2, _BACKOFF[1])

    def _restart(self) -> None:
        if self._closed or self._current is None or self._current.state != "dead":
            return
        wish = self._wishes.now(handed=False)
        # One that never got ready with its imports is tried bare.
        self._current = self._start(() if wish in self._wishes.hopeless else wish)
        self._changed(self.state)
