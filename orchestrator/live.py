"""The progress of `up`: a table that redraws itself on a terminal, plain lines elsewhere. It decides nothing."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol, Self

from orchestrator.render import BAD, GOOD, Screen, event_mark, event_text, status

if TYPE_CHECKING:
    from rich.live import Live
    from rich.table import Table

Json = Mapping[str, Any]
# What ends a model's line in the table; a later event opens it again.
FINAL = ("ready", "failed", "degraded")


class Progress(Protocol):
    """Shows events until everything has settled."""

    def __enter__(self) -> Self: ...
    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, at: TracebackType | None
    ) -> None: ...
    def show(self, event: Json) -> None: ...
    def settled(self, rows: Sequence[Json]) -> None: ...


def progress(screen: Screen, names: Sequence[str]) -> Progress:
    """What fits this screen. names: the models that are to come up, in file order."""
    return _Table(screen, names) if screen.interactive else Lines(screen, names)


class Lines:
    """One line per event: for pipes, logs and CI."""

    def __init__(self, screen: Screen, names: Sequence[str]) -> None:
        self._screen = screen
        self._width = max(map(len, names), default=0)
        self._told: set[str] = set()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def show(self, event: Json) -> None:
        if event.get("event") in FINAL:
            self._told.add(str(event.get("model")))
        self._screen.event(event, self._width)

    def settled(self, rows: Sequence[Json]) -> None:
        """Name the models of which no event told how they are: those that ran already."""
        for row in rows:
            if row["name"] not in self._told:
                self._screen.event(_as_event(row), self._width)


class _Table:
    """A line per model that is still on its way; those that arrived are printed above, once."""

    def __init__(self, screen: Screen, names: Sequence[str]) -> None:
        self._screen = screen
        self._lines = Lines(screen, names)
        self._began = {name: time.monotonic() for name in names}
        self._doing = dict.fromkeys(names, "waiting")
        self._live: Live | None = None

    def __enter__(self) -> Self:
        from rich.console import Console
        from rich.live import Live
        from rich.text import Text

        console = Console(file=self._screen.out, no_color=not self._screen.colour, highlight=False)
        self._live = Live(console=console, get_renderable=self._table, refresh_per_second=8, transient=True)
        self._screen.writer = lambda text: console.print(Text.from_ansi(text), soft_wrap=True)
        self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            self._live.stop()
        self._screen.writer = None

    def show(self, event: Json) -> None:
        name = str(event.get("model") or "")
        kind = event.get("event")
        if name not in self._began or kind in FINAL or event_mark(event) == BAD:
            self._doing.pop(name, None)
            self._lines.show(event)
        else:
            self._doing[name] = event_text(event)
            if event_mark(event) == GOOD:
                self._lines.show(event)

    def settled(self, rows: Sequence[Json]) -> None:
        self._doing.clear()
        self._lines.settled(rows)

    def _table(self) -> Table:
        from rich.spinner import Spinner
        from rich.table import Table
        from rich.text import Text

        table = Table.grid(padding=(0, 1))
        now = time.monotonic()
        for name, text in list(self._doing.items()):
            elapsed = Text(f"{now - self._began[name]:.0f} s", style="dim")
            table.add_row(
                Spinner("dots"), Text(name, style="bold"), Text(text, overflow="ellipsis", no_wrap=True), elapsed
            )
        return table


def _as_event(row: Json) -> dict[str, Any]:
    kind = {"failed": "failed", "degraded": "degraded", "running": "ready"}.get(str(row.get("state")), "state")
    generation = f" g{row['generation']}" if row.get("generation") is not None else ""
    message = str(row.get("reason") or "") if kind in {"failed", "degraded"} else f"{status(row)}{generation}"
    return {"event": kind, "model": row["name"], "message": message, "data": {"error": row.get("error")}}
