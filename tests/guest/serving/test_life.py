"""A worker's end: drained without losing a connection, cut at the deadline, orphaned and adopted again."""

import json
import os
import signal
import socket
from pathlib import Path

import pytest

SLOW = """
import asyncio
async def predict():
    open("data/started", "w").close()
    while not __import__("os").path.exists("data/open"):
        await asyncio.sleep(0.01)
    return 1
"""
REQUEST = b"POST /predict HTTP/1.1\r\nContent-Length: 0\r\n\r\n"


def until(worker, name):
    path = worker.data / name
    while not path.exists():
        assert worker.process.poll() is None
        os.sched_yield()


def test_a_drain_takes_the_backlog_in_and_waits_for_every_connection(serve):
    worker = serve("def predict():\n    return 1\n")
    alone = len(os.listdir(f"/proc/{worker.process.pid}/fd"))
    worker.call("GET", "/health")  # its loop runs by now
    while len(os.listdir(f"/proc/{worker.process.pid}/fd")) > alone:
        os.sched_yield()
    os.kill(worker.process.pid, signal.SIGSTOP)
    worker.tell("drain")  # the first that the worker sees when it wakes: nobody is connected
    waiting = worker.connect()  # and this one is in its backlog
    waiting.sendall(REQUEST)
    os.kill(worker.process.pid, signal.SIGCONT)
    assert waiting.recv(65536).startswith(b"HTTP/1.1 200")
    waiting.sendall(REQUEST)
    assert waiting.recv(65536).startswith(b"HTTP/1.1 200")
    assert worker.process.poll() is None
    waiting.close()
    assert worker.until("drained") == {"type": "drained", "cut": 0}
    assert worker.wait() == 0
    assert not os.path.exists(worker.socket_path)


@pytest.mark.parametrize("by", ["message", "signal"])
def test_a_cut_ends_what_is_left_and_counts_it(serve, by):
    worker = serve(SLOW)
    idle, busy = worker.connect(), worker.connect()
    busy.sendall(REQUEST)
    until(worker, "started")
    if by == "message":
        worker.tell("drain")
        worker.tell("cut")
    else:
        worker.process.send_signal(signal.SIGTERM)
    assert worker.until("drained") == {"type": "drained", "cut": 1}
    assert worker.wait() == 0
    for connection in (idle, busy):
        with connection:
            assert ended(connection)


def ended(connection):
    try:
        return connection.recv(10) == b""
    except ConnectionResetError:
        return True


def test_an_orphan_serves_on_and_is_adopted_with_its_output_in_the_log(boot, tmp_path):
    out_read, out_write = os.pipe()
    err_read, err_write = os.pipe()
    code = "import os\nos.dup2(%d, 1)\nos.dup2(%d, 2)\ndef predict(x: str):\n    print('said', x, flush=True)\n    return x\n"
    try:
        # As the agent does it: the worker has the write ends as 1 and 2, and holds the read ends too.
        worker = boot(
            code % (out_write, err_write),
            output=[out_read, err_read],
            extra=[out_write, err_write],
        )
        worker.until("listening")
        os.close(out_read)
        os.close(err_read)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        listener.settimeout(20)
        folder = worker.assignment["sockets"]
        listener.bind(os.path.join(folder, "workers.sock"))
        listener.listen()
        worker.channel.shutdown(socket.SHUT_RDWR)
        agent, _ = listener.accept()
        agent.settimeout(20)
        with agent, listener, agent.makefile("r") as lines:
            adopt = json.loads(lines.readline())
            assert adopt["type"] == "adopt"
            assert (adopt["generation"], adopt["pid"], adopt["state"]) == (1, worker.process.pid, "ready")
            assert adopt["info"]["predict"] is True
            agent.sendall(b'{"type": "adopted"}\n')
            assert worker.predict(x="hello").prediction == "hello"
            log = Path(folder, "log.jsonl")
            while not (log.exists() and "said hello" in log.read_text()):
                assert worker.process.poll() is None
            agent.sendall(b'{"type": "drain"}\n')
            assert json.loads(lines.readline()) == {"type": "drained", "cut": 0}
        assert worker.wait() == 0
    finally:
        for fd in (out_write, err_write):
            os.close(fd)
