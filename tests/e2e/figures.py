"""Figures that tests measured on their way: collected while they run, printed at the end. They decide nothing."""

from __future__ import annotations

LINES: list[str] = []


def tell(line: str) -> None:
    """Have a line printed after the run."""
    LINES.append(line)
