"""What an installer's output says: progress for people, and the lines that explain a failure."""

from __future__ import annotations

import re
from collections import deque

from orchestrator.errors import BuildError
from orchestrator.ports import Progress, Report

KEPT = 20
NAMES_SHOWN = 6

_ERROR = re.compile(r"^error:? ?", re.IGNORECASE)
_STEPS = (
    (re.compile(r"^Collecting (\S+)"), "collecting {}"),
    (re.compile(r"^\s*Downloading (?:\S*/)?(\S+?)(?: \(([^)]+)\))?$"), "downloading {}"),
    (re.compile(r"^\s*Building wheel for (\S+)"), "building {}"),
    (re.compile(r"^Installing collected packages: (.+)$"), "installing {}"),
)


class Transcript:
    """An installer's output line by line: reports its steps, keeps the last lines."""

    def __init__(self, report: Report) -> None:
        self._report = report
        self._own: deque[str] = deque(maxlen=KEPT)
        self._aside: deque[str] = deque(maxlen=KEPT)

    def line(self, raw: str) -> None:
        """Take one line that the installer wrote."""
        text = raw.rstrip()
        # pip opens with where it looks: the settings of this machine, which explain nothing.
        if not text or text.startswith("Looking in "):
            return
        self._own.append(text)
        for pattern, message in _STEPS:
            if found := pattern.match(text):
                self._report(Progress(message.format(_short(found[1]))))
                return

    def aside(self, raw: str) -> None:
        """Take one line that the builder wrote about itself: it counts only where the installer said nothing."""
        if text := raw.rstrip():
            self._aside.append(text)

    def failure(self, model: str) -> BuildError:
        """The BuildError for what was read so far: the installer's own last lines."""
        log = tuple(self._own or self._aside)
        errors = [line for line in log if _ERROR.match(line)]
        reason = errors[-1] if errors else (log[-1] if log else "the builder said nothing")
        return BuildError(
            f"models.{model}: its requirements cannot be installed: {_ERROR.sub('', reason)}",
            hint="the log has the installer's last lines; fix requirements.txt and save",
            log=log,
        )


def _short(names: str) -> str:
    listed = names.split(", ")
    more = len(listed) - NAMES_SHOWN
    return ", ".join(listed[:NAMES_SHOWN]) + (f" and {more} more" if more > 0 else "")
