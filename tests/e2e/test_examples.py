"""The example project works as it ships: the models of sandbox.yaml.example, in each runtime."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import yaml

from tests.e2e.sandbox import Sandbox

PROJECT = Path(__file__).parents[2]
# The first start installs scikit-learn.
INSTALL = 240.0


@pytest.mark.timeout(300)
def test_the_example_project_runs_as_it_is(sandbox: Sandbox) -> None:
    shutil.copytree(PROJECT / "model_dirs", sandbox.project / "model_dirs")
    text = (PROJECT / "sandbox.yaml.example").read_text()
    if sandbox.runtime == "process":  # elsewhere `auto` takes the engine
        text = text.replace("\n#runtime: auto\n", "\nruntime: process\n")
    (sandbox.project / "sandbox.yaml").write_text(text)
    sandbox.environ["SANDBOX_PORT"] = "0"

    sandbox.up(deadline=INSTALL)

    rows = sandbox.rows()
    assert set(rows) == {"hello", "digits", "chat"}
    assert {(row["state"], row["runtime"]) for row in rows.values()} == {("running", sandbox.runtime)}
    assert sandbox.call("hello", {"x": 5.5}).prediction == 12.0

    six = yaml.safe_load((PROJECT / "model_dirs/digits/config.yaml").read_text())["example"]
    answer = sandbox.call("digits", six)
    assert answer.prediction == 6
    assert answer.body["data"]["confidence"] > 0.5

    question = yaml.safe_load((PROJECT / "model_dirs/chat/config.yaml").read_text())["example"]
    streamed = sandbox.request("POST", "/v1/chat/completions", {"model": "chat", **question, "stream": True})
    assert streamed.headers["content-type"].startswith("text/event-stream")
    assert streamed.body.endswith(b"data: [DONE]\n\n")
    assert streamed.body.count(b"data: ") > 3

    source = (sandbox.project / "model_dirs/hello/main.py").read_text()
    since = sandbox.mark()
    sandbox.save("model_dirs/hello/main.py", source.replace("2 * x + 1", "2 * x + 2"))
    sandbox.event("hello", "reload", since, ok=True)
    assert sandbox.call("hello", {"x": 5.5}).prediction == 13.0
    sandbox.cli("predict", "hello", "x=5.5")
