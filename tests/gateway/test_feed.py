"""The gateway's end of traffic.sock: what cannot be read changes nothing, and it asks again for all."""

from __future__ import annotations

import pytest
from gateway_world import ask, route, says, until


@pytest.mark.parametrize(
    "nonsense",
    [
        b"{\n",
        b"[]\n",
        b'{"type": "sync", "seq": 9}\n',
        b'{"type": "sync", "seq": 9, "policy": {"max_body": 1}, "models": {"hello": {"upstreams": []}}}\n',
        b'{"type": "route", "seq": 9, "model": "hello", "route": {"state": "running", "upstreams": [{"id": "x"}]}}\n',
    ],
)
async def test_a_message_that_cannot_be_read_changes_nothing_and_all_is_asked_for_again(
    port, control, workers, nonsense, caplog
):
    await control.sync({"hello": route(await workers(script=says("still")))})
    before = control._writer
    before.write(nonsense)
    await until(lambda: control._writer is not before)
    assert (await ask(port, "POST", "/models/hello/predict", {})).json == {"said": "still"}
    assert "cannot be read" in caplog.text
    await control.sync({"hello": route(await workers("g2.sock", says("new")), generation=2)})
    assert (await ask(port, "POST", "/models/hello/predict", {})).json == {"said": "new"}


async def test_unknown_types_and_fields_are_ignored(port, control, workers):
    await control.sync({"hello": route(await workers(), colour="blue")}, shape="round")
    control._writer.write(b'{"type": "dance", "seq": 1}\n')
    await control.route("hello", route(await workers("g2.sock", says("new")), generation=2))
    assert (await ask(port, "POST", "/models/hello/predict", {})).json == {"said": "new"}


async def test_a_worker_out_of_reach_is_named_once(port, control, workers):
    gone = await workers()
    await gone.stop()
    await control.sync({"hello": route(gone, queue_timeout=0.1)})
    for _ in range(3):
        assert (await ask(port, "POST", "/models/hello/predict", {})).status == 503
    await control.tell("collect")
    assert control.suspects == [("hello", "g1-1.sock")]
