"""An agent for tests of walls: enters isolation, then runs the Python that it is sent and answers with `result`.

Its workers are forked processes in sessions of their own, which live on without it as real ones do.
"""

import json
import os
import signal
import socket
import sys
import traceback

from sandbox import isolation


def fork_worker(body):
    """A worker: a double fork into a session of its own. Returns its pid."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.setsid()
        worker = os.fork()
        if worker:
            os.write(writer, str(worker).encode())
            os._exit(0)
        os.close(writer)
        listener.close()
        body()
        os._exit(0)
    os.close(writer)
    os.waitpid(child, 0)
    with os.fdopen(reader) as file:
        return int(file.read())


def outcome(action):
    """What an attempt led to: its value, or the name of its error."""
    try:
        return action()
    except Exception as error:  # noqa: BLE001 whatever it is, the test judges it
        return type(error).__name__


config = json.loads(sys.argv[1])
said = isolation.enter(config["isolation"])
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
folder = os.open(config["sockets"], os.O_RDONLY)
path = f"/proc/self/fd/{folder}/agent.sock"
listener = socket.socket(socket.AF_UNIX)
listener.bind(path)
os.chmod(path, 0o666)
listener.listen(16)
while True:
    connection, _ = listener.accept()
    with connection, connection.makefile("rw") as stream:
        scope = dict(globals())
        try:
            exec(json.loads(stream.readline()), scope)
            answer = {"result": scope.get("result")}
        except Exception:  # noqa: BLE001 it is the answer
            answer = {"error": traceback.format_exc()}
        stream.write(json.dumps(answer) + "\n")
