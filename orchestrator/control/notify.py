"""The vocabulary of file news: what a notifier tells, folder by folder, and how it is asked. It watches nothing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Notice:
    """Something happened to a path (None: news was lost, look at everything). gone: it is no longer there.

    folder: it is a folder. writing: it was written to, and the writer has not closed it yet.
    """

    path: str | None
    gone: bool = False
    folder: bool = False
    writing: bool = False


OnNotice = Callable[[Notice], None]


class Exhausted(Exception):  # noqa: N818 - no failure: the caller polls instead
    """The system refuses more watches; the text names the setting to raise."""


class Notifier(Protocol):
    """Watches single folders (not what is beneath them)."""

    def arm(self, folder: str) -> None:
        """Watch a folder (again). Where it is gone: nothing. Raises Exhausted."""

    def keep(self, folders: set[str]) -> None:
        """Watch no other folders than these."""

    def close(self) -> None:
        """Stop; no notice comes afterwards."""

    async def closed(self) -> None:
        """Return once what ran for it ended."""
