"""Reading a point in time as Compose's `--since` takes it: a moment, or how long ago. Pure but for the clock."""

from __future__ import annotations

import argparse
import re
from datetime import UTC, datetime, timedelta

UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


def since(text: str) -> str:
    """ISO 8601 in UTC. Raises argparse.ArgumentTypeError."""
    age = re.fullmatch(r"((?:\d+(?:\.\d+)?[smhd])+)", text)
    if age:
        parts = re.findall(r"(\d+(?:\.\d+)?)([smhd])", text)
        ago = sum((timedelta(**{UNITS[unit]: float(number)}) for number, unit in parts), timedelta())
        return written(datetime.now(UTC) - ago)
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(
            f"{text!r} is neither a moment (2026-01-31T12:00:00) nor an age (10m)"
        ) from error
    return written(moment.astimezone(UTC))


def now() -> str:
    """The present, as the API writes it."""
    return written(datetime.now(UTC))


def written(moment: datetime) -> str:
    """A UTC time as the API writes it."""
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
