"""Control's own log may be on a disk that is full."""

from __future__ import annotations

import contextlib
import sys

import pytest

from orchestrator.control.stderr import note


def test_a_note_that_cannot_be_written_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    full = open("/dev/full", "w", encoding="utf-8")  # noqa: SIM115 - closing it fails too
    monkeypatch.setattr(sys, "stderr", full)

    note("no space left")

    with contextlib.suppress(OSError):
        full.close()


def test_a_note_is_a_line_of_the_log(capsys: pytest.CaptureFixture[str]) -> None:
    note("something")

    assert capsys.readouterr().err == "something\n"
