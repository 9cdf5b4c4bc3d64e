"""What an installer's output says: progress for people, and the lines that explain a failure."""

from __future__ import annotations

import re
from collections import deque

from orchestrator.errors import BuildError
from orchestrator.ports import Progress, Report

KEPT = 20
NAMES_SHOWN = 6

_BUILDX_PREFIX = re.compile(r"^#\d+ (?:\d+\.\d+ )?")
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
        self._last: deque[str] = deque(maxlen=KEPT)

    def line(self, raw: str) -> None:
        """Take one line, buildx's prefix or not."""
        text = _BUILDX_PREFIX.sub("", raw.rstrip())
        if not text or raw.startswith(("------", " > [", "Dockerfile:", ">>>")):
            return
        self._last.append(text)
        for pattern, message in _STEPS:
            if found := pattern.match(text):
                self._report(Progress(message.format(_short(found[1]))))
                return

    def failure(self, model: str) -> BuildError:
        """The BuildError for what was read so far: the installer's own last lines."""
        # The builder's complaint that its command failed says less than the command's own words.
        own = tuple(line for line in self._last if not line.startswith(("ERROR: failed to solve", "ERROR: process")))
        errors = [line for line in own if line.lower().startswith("error")]
        reason = errors[-1] if errors else (own[-1] if own else "the builder said nothing")
        reason = re.sub(r"^error: ?", "", reason, flags=re.IGNORECASE)
        return BuildError(
            f"models.{model}: its requirements cannot be installed: {reason}",
            hint="the installer's last lines are in the log; fix requirements.txt and save",
            log=own,
        )


def _short(names: str) -> str:
    listed = names.split(", ")
    more = len(listed) - NAMES_SHOWN
    return ", ".join(listed[:NAMES_SHOWN]) + (f" and {more} more" if more > 0 else "")
