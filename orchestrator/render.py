"""How everything looks: errors, tables, events, log lines, JSON. The only module that prints for people."""

from __future__ import annotations

import json
import sys
import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import IO, Any, Literal

from orchestrator.errors import SandboxError

Ansi = Literal["auto", "never", "always"]
Json = Mapping[str, Any]

# What `ps --format json` prints, in this order. Programs read it: a key may be added, never renamed or removed.
ROW_KEYS = (
    "name",
    "state",
    "reason",
    "error",
    "generation",
    "content",
    "runtime",
    "python",
    "replicas",
    "restarts",
    "not_enforced",
    "since",
    "pids",
    "url",
    "unforkable",
)
GOOD, BAD, NEUTRAL = "✔", "✖", "•"
PLAIN_MARKS = {GOOD: "ok", BAD: "x", NEUTRAL: "-"}
MARK_STYLES = {GOOD: "green", BAD: "red", NEUTRAL: "dim"}
STATE_STYLES = {"running": "green", "degraded": "yellow", "failed": "red", "stopped": "dim"}
CODES = {"bold": "1", "dim": "2", "red": "31", "green": "32", "yellow": "33"}
# One per model, in turn, as Compose does; red and green mean something else here.
PREFIX_CODES = ("36", "33", "35", "34", "96", "93", "95", "94")
LONGEST_TRACEBACK = 30


class Screen:
    """Standard output and standard error of one command, with its decisions about colour.

    interactive: output goes to a terminal that can redraw a line.
    """

    def __init__(self, ansi: Ansi, environ: Mapping[str, str], out: IO[str] | None = None) -> None:
        self.out: IO[str] = sys.stdout if out is None else out
        terminal = self.out.isatty()
        self.colour = ansi == "always" or (ansi == "auto" and terminal and "NO_COLOR" not in environ)
        self.interactive = terminal and ansi != "never" and environ.get("TERM") != "dumb"
        self._error_colour = ansi == "always" or (ansi == "auto" and sys.stderr.isatty() and "NO_COLOR" not in environ)
        self._unicode = _encodes(self.out, GOOD)
        # Where lines go while something else draws on the terminal.
        self.writer: Callable[[str], None] | None = None
        self._prefixes: dict[str, str] = {}
        self._tracebacks: dict[str, str] = {}

    # Plain things

    def line(self, text: str = "") -> None:
        """One line on standard output, at once: whoever pipes us wants it now."""
        if self.writer is not None:
            self.writer(text)
            return
        encoding = _encoding(self.out)
        self.out.write(text.encode(encoding, "replace").decode(encoding) + "\n")
        self.out.flush()

    def note(self, text: str) -> None:
        """One line beside the output proper."""
        sys.stderr.write(text + "\n")
        sys.stderr.flush()

    def json(self, value: Any, indent: int | None = None) -> None:
        self.line(json.dumps(value, ensure_ascii=not self._unicode, indent=indent))

    def style(self, text: str, name: str) -> str:
        return f"\x1b[{CODES[name]}m{text}\x1b[0m" if self.colour and name else text

    def mark(self, mark: str) -> str:
        shown = mark if self._unicode else PLAIN_MARKS[mark]
        return self.style(shown, MARK_STYLES[mark])

    def error(self, error: SandboxError, log: Iterable[str] = ()) -> None:
        """`error: where: what`, what to do, and the reference to look up."""
        head = f"\x1b[{CODES['red']}merror:\x1b[0m" if self._error_colour else "error:"
        # Several problems come as several lines.
        self.note("\n       ".join(f"{head} {error}".splitlines()))
        for line in [*log, *(f"hint: {line}" for line in error.hint.splitlines())]:
            self.note(f"  {line}")
        self.note(f"  ({error.reference})")

    def table(self, head: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
        """Left-aligned columns, as wide as their longest cell; the last one is as long as it likes."""
        lines = [list(head), *([one_line(cell) for cell in row] for row in rows)]
        widths = [max(_width(line[index]) for line in lines) for index in range(len(head))]
        for number, line in enumerate(lines):
            cells = [cell + " " * (width - _width(cell)) for cell, width in zip(line, widths, strict=True)]
            text = "   ".join(cells).rstrip()
            self.line(self.style(text, "bold") if number == 0 else text)

    # What a sandbox tells

    def models(self, rows: Sequence[Json]) -> None:
        """`sandbox ps`: one line per model, and what it was promised but does not get."""
        head = ("NAME", "GENERATION", "REPLICAS", "RUNTIME", "PYTHON", "URL", "STATUS")
        self.table(head, [_cells(row) for row in rows])
        for row in rows:
            for sentence in row.get("not_enforced") or ():
                self.line(f"{row['name']}: not enforced here: {one_line(sentence)}")
            if row.get("unforkable"):
                self.line(f"{row['name']}: workers are spawned, not forked: {one_line(row['unforkable'])}")

    def event(self, event: Json, width: int = 0, *, when: bool = False) -> None:
        """`hello  ✔ g18 in 38 ms (fork: main.py)`, and a traceback where there is a new one."""
        name = str(event.get("model") or "sandbox")
        moment = f"{event.get('time')} " if when else ""
        self.line(f"{moment}{self._prefix(name, width)}{self.mark(event_mark(event))} {event_text(event)}")
        for line in self._new_traceback(name, event):
            self.line(f"{self._prefix(name, width)}  {line}")

    def _new_traceback(self, name: str, event: Json) -> list[str]:
        error = (event.get("data") or {}).get("error") or {}
        text = str(error.get("traceback") or "").rstrip()
        if event_mark(event) == GOOD:
            self._tracebacks.pop(name, None)
        # A single line is the message again.
        if "\n" not in text or self._tracebacks.get(name) == text:
            return []
        self._tracebacks[name] = text
        return [_printable(line) for line in text.splitlines()[-LONGEST_TRACEBACK:]]

    def log(self, line: Json, width: int = 0, *, prefix: bool = True, timestamps: bool = False) -> None:
        """`hello  | text`: what a model wrote."""
        name = str(line.get("model", ""))
        before = f"{self._prefix(name, width, '| ')}" if prefix else ""
        when = f"{line.get('t', '')} " if timestamps else ""
        self.line(f"{before}{when}{line.get('m', '')}")

    def _prefix(self, name: str, width: int, bar: str = "") -> str:
        text = f"{name.ljust(width)} {bar}"
        if not self.colour:
            return text
        code = self._prefixes.setdefault(name, PREFIX_CODES[len(self._prefixes) % len(PREFIX_CODES)])
        return f"\x1b[{code}m{text}\x1b[0m"

    def action(self, action: Json, width: int = 0) -> None:
        """One line of a plan: `hello fork a forked worker beside g3  (main.py)`."""
        detail = f" {action['detail']}" if action.get("detail") else ""
        cause = f"  ({action['cause']})" if action.get("cause") else ""
        self.line(f"{str(action.get('model') or 'sandbox').ljust(width)} {action['verb']}{detail}{cause}")


def row_json(row: Json) -> dict[str, Any]:
    """A row as `ps --format json` prints it."""
    return {key: row.get(key) for key in ROW_KEYS}


def _cells(row: Json) -> tuple[str, ...]:
    replicas = row.get("replicas") or {}
    generation = row.get("generation")
    return (
        str(row["name"]),
        f"g{generation}" if generation is not None else "-",
        f"{replicas.get('ready', 0)}/{replicas.get('desired', 0)}",
        str(row.get("runtime") or "-"),
        str(row.get("python") or "-"),
        str(row.get("url") or "-"),
        status(row),
    )


def status(row: Json) -> str:
    """`degraded: SyntaxError main.py:3 …`: a state, and why where there is something to say."""
    restarts = row.get("restarts")
    text = ": ".join(str(part) for part in (row.get("state"), row.get("reason")) if part)
    return f"{text} (restarts: {restarts})" if restarts else text


def event_mark(event: Json) -> str:
    """Good news, bad news, or merely news."""
    ok = (event.get("data") or {}).get("ok")
    if event.get("event") in ("degraded", "failed") or ok is False:
        return BAD
    return GOOD if event.get("event") == "ready" or ok is True else NEUTRAL


def event_text(event: Json) -> str:
    """The event's message as one line, without a mark of its own."""
    text = one_line(str(event.get("message") or "")).lstrip(f"{GOOD}{BAD} ")
    kind = str(event.get("event"))
    return f"{kind}: {text}" if kind in ("degraded", "failed") and not text.startswith(kind) else text or kind


def one_line(text: str) -> str:
    """What a model says of itself, unable to draw anywhere but on its own line."""
    return _printable(" ".join(text.split()))


def _printable(text: str) -> str:
    return "".join(" " if char == "\t" else char for char in text if char == "\t" or unicodedata.category(char) != "Cc")


def _width(text: str) -> int:
    return sum(2 if unicodedata.east_asian_width(char) in "WF" else 1 for char in text)


def _encoding(out: IO[str]) -> str:
    return getattr(out, "encoding", None) or "utf-8"


def _encodes(out: IO[str], text: str) -> bool:
    try:
        text.encode(_encoding(out))
    except UnicodeEncodeError:
        return False
    return True
