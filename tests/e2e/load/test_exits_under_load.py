"""A worker exits just before or just after it is swapped in: what another answers is not lost, and nothing runs twice."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from tests.e2e.load import editor, model, mutants, verdict
from tests.e2e.load.clients import Load
from tests.e2e.sandbox import Sandbox

# Exits as soon as somebody opens the pipe `exit` to write; a worker that comes after it waits for the next.
EXITS = (
    "import threading; exit = self.data_dir / 'exit'; "
    "threading.Thread(target=lambda: (exit.read_text(), os._exit(7)), daemon=True).start()"
)


def pipe(sandbox: Sandbox) -> Path:
    made = sandbox.project / model.NAME / "data" / "exit"
    os.mkfifo(made)
    made.chmod(0o666)
    return made


def test_an_exit_between_ready_and_the_swap_loses_and_holds_nothing(
    sandbox: Sandbox, tell: Callable[[str], None]
) -> None:
    mutants.run_instead(sandbox, mutants.PAUSED_BEFORE_SWAP)
    editor.started(sandbox)
    load = Load(sandbox.port, sandbox.state / "control.sock")
    door = pipe(sandbox)
    with load.running():
        since = sandbox.mark()
        (sandbox.state / "pause").touch()
        sandbox.save(editor.MAIN, model.source(1, load=EXITS))
        sandbox.until((sandbox.state / "paused").exists)
        door.write_text("")
        ended = sandbox.event(model.NAME, "exit", since)
        (sandbox.state / "paused").unlink()
        live = sandbox.event(model.NAME, "reload", since, ok=True)
        sandbox.until(lambda: load.samples[-1].version == 1)

    held = editor.held(sandbox)
    tell(verdict.Figures(f"an exit before the swap, {sandbox.runtime}", load, [1], {"held": f"{held:.0f}"}).line())
    assert "exit 7" in ended["message"]
    assert verdict.judge(load, editor.ran(sandbox)).faults == ()
    assert held == 0
    # It was never said to be live while no worker of it lived.
    assert live["time"] > ended["time"]
    assert sandbox.state_of(model.NAME, "running")["generation"] == live["data"]["generation"]


def test_an_exit_just_after_the_swap_loses_what_that_worker_had_read_and_no_more(
    sandbox: Sandbox, tell: Callable[[str], None]
) -> None:
    editor.started(sandbox)
    load = Load(sandbox.port, sandbox.state / "control.sock")
    door = pipe(sandbox)
    with load.running():
        since = sandbox.mark()
        live = sandbox.edit(editor.MAIN, model.source(1, load=EXITS))
        # Those clients call back to back: it has their next streams, and slow calls, in its hands.
        sandbox.until(lambda: [each for each in load.samples if (each.kind, each.version) == ("stream", 1)])
        door.write_text("")
        ended = sandbox.event(model.NAME, "exit", since)
        sandbox.until(lambda: load.samples[-1].sent > ended["seen"] and not load.samples[-1].fault)

    lost = [each for each in load.samples if each.fault]
    ran = editor.ran(sandbox)
    tell(verdict.Figures(f"an exit after the swap, {sandbox.runtime}", load, [1]).line())
    read = {line.split()[0] for line in ran.splitlines()}
    # Of a large one, the worker may have read a part and called nothing.
    assert [each for each in lost if each.id not in read and "large" not in each.kind] == []
    assert [each for each in lost if each.sent > ended["seen"]] == []
    assert [each for each in lost if each.kind != "stream" and "WORKER_DIED" not in each.fault] == []
    assert 0 < len(lost) < sum(kind.clients for kind in load.mix)
    assert [each for each in verdict.reran(load.samples, ran) if "ran 0 times" not in each] == []
    assert load.closed == []
    assert "exit 7" in ended["message"]
    assert sandbox.row(model.NAME)["generation"] == live["data"]["generation"]
