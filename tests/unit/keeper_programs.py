"""Stand-ins for control and gateway, run by a real keeper: `python keeper_programs.py control|gateway|keeper …`.

Each sends one datagram when it starts ("control 812"), so that a test waits for what happens and not for time.
"""

import json
import os
import signal
import socket
import sys

from orchestrator import folders


def announce(notes, text):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as out:
        with folders.socket_address(notes) as address:
            out.connect(address)
        out.send(text.encode())


def control(notes, state):
    """Hands the listener to a new keeper; SIGTERM is a finished down, SIGUSR1 a failure."""

    def finish(*_):
        os.unlink(os.path.join(state, "control.sock"))
        os._exit(0)

    signal.signal(signal.SIGTERM, finish)
    signal.signal(signal.SIGUSR1, lambda *_: os._exit(7))
    with open(os.path.join(state, "control.sock"), "w"):
        pass
    path = os.path.join(state, "handover.sock")
    if os.path.exists(path):
        os.unlink(path)
    server = socket.socket(socket.AF_UNIX)
    with folders.socket_address(path) as address:
        server.bind(address)
    server.listen()
    announce(notes, f"control {os.getpid()}")
    while True:
        connection, _ = server.accept()
        with open(os.path.join(state, "keeper.json")) as file:
            gateways = json.load(file)["gateways"]
        line = {"control": {"pid": os.getpid(), "start_time": folders.start_time(os.getpid())}}
        line["gateways"] = [{**one, "worker": number} for number, one in enumerate(gateways)]
        listener = int(os.environ["SANDBOX_LISTENER_FD"])
        socket.send_fds(connection, [json.dumps(line).encode() + b"\n"], [listener])
        connection.close()


def gateway(notes, _state):
    """Answers each connection with its pid."""
    listener = socket.socket(fileno=int(os.environ["SANDBOX_LISTENER_FD"]))
    listener.setblocking(True)
    announce(notes, f"gateway {os.getpid()}")
    while True:
        connection, _ = listener.accept()
        connection.sendall(str(os.getpid()).encode())
        connection.close()


def keeper(notes, state):
    from orchestrator import keeper as real

    real.LEAVE_DEADLINE = float(os.environ.get("TEST_LEAVE_DEADLINE", real.LEAVE_DEADLINE))
    main = real.main
    me = [sys.executable, __file__]
    sys.exit(main([state], [*me, "control", notes, state], [*me, "gateway", notes, state]))


if __name__ == "__main__":
    {"control": control, "gateway": gateway, "keeper": keeper}[sys.argv[1]](*sys.argv[2:])
