"""What models print is copied, whatever they wrote into their log by themselves."""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path

from orchestrator.control.logs import Logs

TIME = "2026-01-01T00:00:00Z"


async def test_no_line_of_one_model_stops_the_copying_of_any(tmp_path: Path) -> None:
    logs = Logs(str(tmp_path))
    lines = ["[" * 100_000, json.dumps({"t": TIME, "m": "\ud800"}), json.dumps({"t": TIME, "m": "good"})]
    (tmp_path / "log.jsonl").write_text("\n".join(lines) + "\n")
    copying = asyncio.create_task(logs.run())
    with logs.listen() as heard:
        logs.follow("hello", "ab12cd34", str(tmp_path), os.getuid())
        async with asyncio.timeout(10):
            assert [(await heard.get())["m"] for _ in range(2)] == ["?", "good"]
    copying.cancel()
    await asyncio.wait({copying})
    assert [line["m"] for line in logs.past(("hello",), None, None)] == ["?", "good"]
