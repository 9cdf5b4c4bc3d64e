"""What people asked of models beside the files: that one is stopped, or made anew. It outlives control."""

from __future__ import annotations

from orchestrator.store import Store

_STOPPED, _RENEWED = "stopped", "renewed"


class Standing:
    """Kept in the project's store."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def stopped(self, model: str) -> bool:
        """Whether somebody stopped it, and nobody started it since."""
        return self._store.noted(_STOPPED, model)

    def stop(self, model: str) -> None:
        """Remember that it is to stay stopped."""
        self._store.note(_STOPPED, model)

    def start(self, model: str) -> None:
        """Forget that it was stopped."""
        self._store.forget(_STOPPED, model)

    def clear(self) -> None:
        """Forget all that was stopped: after a `down` nothing runs anyway."""
        self._store.forget(_STOPPED)

    def renewals(self, model: str) -> int:
        """How often its replicas were asked to be made anew, ever."""
        return self._store.count(f"{_RENEWED}/{model}", by=0)

    def renew(self, model: str) -> int:
        """Ask for it once more; the new count."""
        return self._store.count(f"{_RENEWED}/{model}")
