"""From a snapshot to a service: import main, find the model, load it, warm it up, each a timed phase. No sockets."""

from __future__ import annotations

import asyncio
import inspect
import logging
import sys
import time
from typing import Any, Callable, Dict, List, NamedTuple, Optional

from sandbox import compat, discovery, loader, materials, model, preloading
from sandbox.failure import Source, describe
from sandbox.heritage import Heritage
from sandbox.protocols import predict
from sandbox.refusal import Refusal
from sandbox.service import Service
from sandbox.steps import preloads

PhaseDone = Callable[[str, float], None]


class Loaded(NamedTuple):
    """imports: the third-party modules that the user's code names."""

    service: Service
    imports: List[str]
    phases: Dict[str, float]


class LoadError(Exception):
    """The model's code failed in a phase. error: {type, message, file, line, traceback}."""

    def __init__(self, phase: str, error: Dict[str, Any]) -> None:
        super().__init__(f"{phase}: {error['type']}: {error['message']}")
        self.phase = phase
        self.error = error


class Stale(Exception):  # noqa: N818 - a finding, not an error of anybody's
    """What this worker was forked with does not fit its files. what: "environment" or "preload"."""

    def __init__(self, what: str, reason: str, module: str = "") -> None:
        super().__init__(reason)
        self.what = what
        self.module = module


class Loading:
    """One assignment's way to a service. `done` is told each phase as it ends; `wait` returns when the phase before
    which the assignment wants a pause may begin.
    """

    def __init__(
        self,
        assignment: Dict[str, Any],
        loop: asyncio.AbstractEventLoop,
        done: PhaseDone,
        heritage: Optional[Heritage] = None,
        wait: Callable[[], None] = lambda: None,
    ) -> None:
        self._assignment = assignment
        self._loop = loop
        self._done = done
        self._steering = None if heritage is None else heritage.steering
        self._inherited = None if heritage is None else heritage.preloaded
        self._preloaded: Any = None
        self._wait = wait
        self._source = Source(assignment["source"], assignment["tree"])
        self._phases: Dict[str, float] = {}
        self._config: Dict[str, Any] = assignment.get("config") or {}

    def run(self) -> Loaded:
        """Load the model. Raises LoadError, Stale. Not on a running loop: `load` may want to run one of its own."""
        self._preload()
        imports = loader.Imports(self._source.tree, self._steering)
        with imports:
            found = self._phase("import", self._import)
            service = self._phase("load", lambda: self._load(found))
        if self._assignment.get("warmup") and self._config.get("example") is not None:
            self._phase("warmup", lambda: self._warm_up(service))
        return Loaded(service, imports.third_party(), self._phases)

    def _phase(self, name: str, work: Callable[[], Any]) -> Any:
        if self._assignment.get("pause") == name:
            self._wait()
        began = time.perf_counter()
        try:
            value = work()
        except BaseException as error:
            self._refuse_stale()
            if isinstance(error, preloading.PreloadError):
                raise LoadError(name, error.error) from error
            raise LoadError(name, describe(error, self._source)) from error
        self._refuse_stale()
        self._phases[name] = round(time.perf_counter() - began, 6)
        self._done(name, self._phases[name])
        return value

    def _preload(self) -> None:
        """Have what preload.py makes: the zygote's, where it was made from the same, or else made here."""
        assignment, inherited = self._assignment, self._inherited
        wanted = preloads(self._source.tree)
        if inherited is not None:
            changed = materials.changed(inherited.made_from, assignment) if wanted else "preload.py is gone"
            if changed:
                raise Stale("preload", changed)
        elif wanted:
            inherited = self._phase("preload", lambda: preloading.run(assignment, self._steering, to_fork=False))
        if inherited is not None:
            self._preloaded = inherited.value
            model.keep(inherited.value)

    def _refuse_stale(self) -> None:
        """Also where the model's own code caught what the import raised."""
        found = None if self._steering is None else self._steering.stale
        if found is not None:
            raise Stale("environment", found.reason, found.module)

    def _import(self) -> discovery.Found:
        compat.install()
        loader.prepare(self._source)
        _speak_to_stderr(self._assignment["model"])
        return discovery.find(self._source, self._assignment.get("entry") or self._config.get("entry"))

    def _load(self, found: discovery.Found) -> Service:
        instance: Any = None
        if found.factory is not None:
            instance = _blank(found.factory)
            model.place(
                instance,
                folder=self._source.tree,
                config=self._config,
                name=self._assignment["model"],
                preloaded=self._preloaded,
            )
            instance.__init__()
        load = discovery.hook(found, instance, "load")
        if load is not None:
            value = load()
            if inspect.isawaitable(value):
                self._loop.run_until_complete(_awaited(value))
        service = Service(
            self._loop,
            found,
            instance,
            name=self._assignment["model"],
            config=self._config,
            source=self._source,
            serving=self._assignment.get("serving") or {},
        )
        self._loop.run_until_complete(service.start())
        return service

    def _warm_up(self, service: Service) -> None:
        try:
            self._loop.run_until_complete(predict.warm_up(service, self._config["example"]))
        except Refusal as refusal:
            raise ValueError(f"the example of config.yaml is not what the model takes: {refusal.message}") from None


def _blank(factory: Any) -> Any:
    """An instance before its `__init__`, which may already use config and data_dir."""
    return factory.__new__(factory)


async def _awaited(value: Any) -> Optional[Any]:
    return await value


def _speak_to_stderr(name: str) -> None:
    """The model's own logger writes from INFO on; the root logger is left to the author's own configuration."""
    logger = logging.getLogger(name)
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(levelname)s %(message)s"))
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logger.propagate = False
