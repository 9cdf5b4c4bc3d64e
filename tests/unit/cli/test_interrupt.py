"""Ctrl-C in an attached `up`, with a real process, real signals and a control that takes its time."""

import signal
import subprocess
import sys
import threading

import pytest

from tests.unit.cli.conftest import event, row

DEADLINE = 20


@pytest.fixture
def attached(control):
    """An `up` that has come up, and a control whose first `down` lasts until it is told to be done, or asked again."""
    control.ending = threading.Event()
    control.asked = threading.Semaphore(0)

    def followed():
        control.ending.wait(DEADLINE)
        return []

    def down():
        control.asked.release()
        timeouts = [call[3]["timeout"] for call in control.calls if call[1] == "/api/down"]
        if timeouts[-1] == 0.0:
            control.ending.set()
        control.ending.wait(DEADLINE)
        if timeouts[-1] == timeouts[0]:
            control.down()
        return [event("stop", "stopped"), {"type": "done"}]

    control.answers |= {
        ("POST", "/api/up"): [{"type": "settled", "failed": [], "models": [row()]}],
        ("POST", "/api/down"): down,
        ("GET", "/api/events"): followed,
        ("GET", "/api/logs"): followed,
    }
    process = subprocess.Popen(
        [sys.executable, "-m", "orchestrator.cli", "up"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert any(line.startswith("http://") for line in process.stdout)
    yield process
    control.ending.set()
    process.kill()
    process.communicate(timeout=DEADLINE)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_an_interrupted_up_takes_the_sandbox_down_and_exits_130(number, attached, control):
    attached.send_signal(number)
    assert control.asked.acquire(timeout=DEADLINE)
    control.ending.set()
    out, err = attached.communicate(timeout=DEADLINE)
    assert attached.returncode == 130
    assert "stopping; Ctrl-C again stops at once" in err
    assert "Traceback" not in err
    assert out.endswith("✔ sandbox stopped\n")
    asked = [body for _, path, _, body in control.calls if path == "/api/down"]  # its streams may ask again meanwhile
    assert asked[-1] == {"timeout": None, "volumes": False, "images": False}


def test_a_second_ctrl_c_waits_for_nobody(attached, control):
    attached.send_signal(signal.SIGINT)
    assert control.asked.acquire(timeout=DEADLINE)
    attached.send_signal(signal.SIGINT)
    _, err = attached.communicate(timeout=DEADLINE)
    assert attached.returncode == 130
    assert "Traceback" not in err
    assert [call[3]["timeout"] for call in control.calls if call[1] == "/api/down"] == [None, 0.0]


def test_ctrl_c_elsewhere_just_ends_with_130(control):
    ending, asked = threading.Event(), threading.Event()

    def followed():
        asked.set()
        ending.wait(DEADLINE)
        return []

    control.answers["GET", "/api/logs"] = followed
    process = subprocess.Popen(
        [sys.executable, "-m", "orchestrator.cli", "logs", "-f"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert asked.wait(DEADLINE)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=DEADLINE)
    ending.set()
    assert (process.returncode, out, err) == (130, b"", b"")
    assert not any(call[0] == "POST" for call in control.calls)
