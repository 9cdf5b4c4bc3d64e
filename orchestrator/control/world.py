"""What a model's control needs around it, handed in once: ports, folders and the journal."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from orchestrator.control.journal import Journal
from orchestrator.control.learned import Learned
from orchestrator.control.logs import Logs
from orchestrator.control.meters import Meters
from orchestrator.control.standing import Standing
from orchestrator.plan.types import RuntimeKind
from orchestrator.ports import Runtime, Traffic


@dataclass(frozen=True, slots=True)
class World:
    """state: the sandbox's state folder. generations: `.sandbox/generations`. guest: the installed guest's folder."""

    sandbox_id: str
    state: str
    generations: str
    guest: str
    runtimes: Mapping[RuntimeKind, Runtime]
    traffic: Traffic
    journal: Journal
    logs: Logs
    meters: Meters
    standing: Standing
    learned: Learned

    def revivable(self) -> dict[str, bool]:
        """Whether a dead agent can be started again, by runtime."""
        return {kind: runtime.revivable for kind, runtime in self.runtimes.items()}
