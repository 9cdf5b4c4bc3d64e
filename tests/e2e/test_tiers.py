"""Each edit does what `sandbox plan` says beforehand, by the smallest step; what is live restarts nothing."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
from typing import Any

import pytest

from tests.e2e.sandbox import Sandbox

Json = dict[str, Any]
MODEL = "def predict() -> int:\n    return {}\n"


@pytest.fixture(scope="module", autouse=True)
def running(shared: Sandbox) -> None:
    shared.model("one", MODEL.format(1))
    shared.spec({"one": None})
    shared.up()


def planned(shared: Sandbox, code: int = 3) -> list[Json]:
    lines = shared.cli("plan", "--format", "json", "--exit-code", code=code).stdout.splitlines()
    return [json.loads(line) for line in lines]


def test_an_edit_that_waits_to_be_asked_for_is_planned_and_then_done_as_planned(shared: Sandbox) -> None:
    shared.spec({"one": {"reload": {"mode": "off"}}})
    shared.event("one", "reload", tier="live")
    assert planned(shared, 0) == []
    shared.save("one/main.py", MODEL.format(2))
    [plan] = planned(shared)
    assert (plan["model"], plan["verb"], plan["files"]) == ("one", "fork", ["main.py"])
    assert "reload.mode is off" in shared.cli("plan").stdout
    assert shared.call("one").prediction == 1

    since = shared.mark()
    shared.cli("reload", "one")
    done = shared.event("one", "reload", since, result="ok")

    assert done["data"]["tier"] == plan["verb"]
    assert planned(shared, 0) == []
    assert shared.call("one").prediction == 2
    shared.spec({"one": None})
    shared.event("one", "reload", since, tier="live")


def test_a_rejected_edit_is_planned_as_nothing_with_its_reason(shared: Sandbox) -> None:
    since = shared.mark()
    shared.save("one/main.py", "def predict(:\n")
    failed = shared.event("one", "reload", since, result="failed")
    assert failed["data"]["files"] == ["main.py"]
    [plan] = planned(shared, 0)
    assert plan["verb"] == "none"
    assert "SyntaxError main.py:1" in plan["cause"]
    shared.save("one/main.py", MODEL.format(2))
    shared.event("one", "reload", since, result="ok")


def test_a_wrong_file_is_an_error_of_plan(shared: Sandbox) -> None:
    text = (shared.project / "sandbox.yaml").read_text()
    shared.save("sandbox.yaml", text.replace("path: one", "paths: one"))
    assert "models.one.paths" in shared.cli("plan", "--exit-code", code=2).stderr
    shared.save("sandbox.yaml", text)


def test_the_gateways_address_and_number_change_while_the_model_runs(shared: Sandbox) -> None:
    before, identity, since = shared.keeper, shared.identity(shared.row("one")), shared.mark()
    with shared.load("one", keep=4, fresh=0).running() as load:
        shared.spec({"one": None}, gateway={"port": before["port"], "workers": 2})
        event = shared.event(None, "reload", since, tier="live")
    assert load.failures() == []
    assert "gateway.workers 1 → 2" in event["message"]
    assert shared.keeper["gateways"][0] == before["gateways"][0]

    shared.spec({"one": None}, gateway={"port": 0, "workers": 1})
    shared.until(lambda: len(shared.keeper["gateways"]) == 1)
    port = free_port()
    shared.spec({"one": None}, gateway={"port": port, "workers": 1})
    shared.until(lambda: shared.keeper["port"] == port)
    shared.disconnect()
    assert shared.call("one").prediction == 2
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", before["port"]), timeout=5).close()
    assert f":{port}/" in shared.row("one")["url"]
    assert shared.identity(shared.row("one")) == identity
    assert shared.keeper["control"] == before["control"]

    for victim in ("control", "keeper"):  # the new address outlives both
        kept = shared.keeper
        os.kill(kept["control"]["pid"] if victim == "control" else kept["pid"], signal.SIGKILL)
        shared.until(lambda kept=kept: shared.cli("ps", code=None).returncode == 0 and shared.keeper != kept)
        assert shared.keeper["port"] == port
        shared.disconnect()
        assert shared.call("one").prediction == 2


def test_a_port_that_cannot_be_had_is_told_and_changes_nothing(shared: Sandbox) -> None:
    port, since = shared.port, shared.mark()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        shared.spec({"one": None}, gateway={"port": taken.getsockname()[1]})
        event = shared.event(None, "spec", since, ok=False, reference="port-in-use")
    assert f"127.0.0.1:{port} stays" in event["message"]
    assert shared.call("one").prediction == 2


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as found:
        return int(found.getsockname()[1])


def test_a_data_folder_that_is_deleted_and_made_again_is_seen_by_a_new_replica(shared: Sandbox) -> None:
    shared.model("reader", 'def predict() -> str:\n    return open("data/word").read()\n', data___word="one")
    shared.spec({"one": None, "reader": None})
    shared.event("reader", "ready")
    assert shared.call("reader").prediction == "one"
    since = shared.mark()
    fresh = shared.project / "fresh"
    fresh.mkdir()
    (fresh / "word").write_text("two")
    shutil.rmtree(shared.project / "reader" / "data")
    fresh.rename(shared.project / "reader" / "data")
    event = shared.event("reader", "reload", since, tier="replace", result="ok")
    assert "data is another folder now" in event["message"]
    assert shared.until(lambda: shared.call("reader").prediction == "two")


PROOF = """
def predict(x: float) -> float:
    if x < 0:
        raise ValueError("no")
    return x

async def chat(messages):
    yield "a"
    yield "b"
"""


def test_every_proof_of_what_is_live_names_the_same_generation_and_content(shared: Sandbox) -> None:
    shared.model("proof", PROOF)
    shared.spec({"one": None, "proof": None})
    shared.event("proof", "ready")
    shared.edit("proof/main.py", PROOF + "# other\n")
    row = shared.row("proof")
    said = [(row["generation"], row["content"])]

    chat = {"model": "proof", "messages": [{"role": "user", "content": "hello"}]}
    answers = [
        shared.call("proof", {"x": 1}),
        shared.call("proof", {"x": -1}),
        shared.call("proof", {"y": 1}),
        shared.request("POST", "/models/proof/predict/batch", {"inputs": [{"x": 1}]}),
        shared.request("POST", "/v1/chat/completions", chat),
        shared.request("POST", "/v1/chat/completions", {**chat, "messages": 3}),
        shared.request("POST", "/v1/chat/completions", {**chat, "stream": True}),
    ]
    assert [each.status for each in answers] == [200, 500, 400, 200, 200, 400, 200]
    said += [(each.generation, each.content) for each in answers]
    info = shared.info("proof")
    [listed] = [each for each in shared.request("GET", "/v1/models").body["data"] if each["id"] == "proof"]
    [kept, *_] = map(json.loads, shared.cli("generations", "proof", "--format", "json").stdout.splitlines())
    said += [(each["generation"], each["content"]) for each in (info, listed)] + [(kept["number"], kept["content"])]

    assert set(said) == {(2, row["content"])}
    labels = f'model="proof",python="{row["python"]}",runtime="{shared.runtime}"'
    assert f'sandbox_model_info{{generation="2",{labels}}} 1.0' in str(shared.request("GET", "/metrics").body)
    assert "g2 answers" in shared.cli("wait", "proof", "--generation", "latest").stdout
