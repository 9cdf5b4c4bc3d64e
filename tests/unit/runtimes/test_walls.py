"""What a model in a process replica cannot do. Each is really stopped, or said where the machine cannot stop it."""

from __future__ import annotations

import os
import socket

import pytest

from orchestrator.errors import SandboxError
from orchestrator.plan.types import Limits, Mount
from orchestrator.runtimes import walls

from .conftest import ask, stopped_or_said

HOME = os.path.expanduser("~")


def exists(path):
    return os.path.exists(path)


async def test_a_model_is_not_root_and_owns_no_capability(sandbox):
    replica = await sandbox.started(sandbox.runtime())
    uid, capabilities = await ask(
        replica,
        "status = open('/proc/self/status').read(); result = [os.getuid(), status.split('CapEff:')[1].split()[0]]",
    )
    assert uid == replica.uid
    stopped_or_said(uid != 0 and int(capabilities, 16) == 0, replica, "files")


async def test_two_models_of_one_sandbox_are_two_users_where_root_starts_them(sandbox):
    runtime = sandbox.runtime()
    (sandbox.project / "other").mkdir()
    first = await sandbox.started(runtime)
    second = await sandbox.started(runtime, sandbox.model("other"))
    again = await sandbox.started(runtime)
    assert again.uid == first.uid
    if os.geteuid() == 0:
        stopped_or_said(first.uid != second.uid, first, "files")


async def test_a_model_reads_its_own_tree_and_data(sandbox):
    replica = await sandbox.started(sandbox.runtime())
    source = (
        "result = [open(config['generations'] + '/tree-1/main.py').read(), open(config['data'] + '/words.txt').read()]"
    )
    assert await ask(replica, source) == ["def predict(): ...\n", "words"]


@pytest.mark.parametrize("what", ["project", "state", "home", "registry"])
async def test_a_model_cannot_read_what_is_not_its_own(sandbox, what):
    (sandbox.project / "secret.txt").write_text("secret")
    (sandbox.state / "secret.txt").write_text("secret")
    (sandbox.state.parent / "registry").mkdir()
    (sandbox.state.parent / "registry" / "secret.txt").write_text("secret")
    secrets = {
        "project": sandbox.project / "secret.txt",
        "state": sandbox.state / "secret.txt",
        "registry": sandbox.state.parent / "registry" / "secret.txt",
        "home": HOME,
    }
    replica = await sandbox.started(sandbox.runtime())
    reading = "os.listdir" if what == "home" else "lambda path: open(path).read()"
    found = await ask(replica, f"result = outcome(lambda: ({reading})({str(secrets[what])!r}))")
    kept = {part for part in str(sandbox.folder).split("/") if part} | {".pyenv", ".local", "work"}
    stopped_or_said((isinstance(found, str) and "secret" not in found) or set(found) <= kept, replica, "files")


async def test_a_model_cannot_reach_another_socket_of_the_host(sandbox):
    engine = str(sandbox.state / "engine.sock")
    with socket.socket(socket.AF_UNIX) as listener:
        folder = os.open(sandbox.state, os.O_RDONLY)
        listener.bind(f"/proc/self/fd/{folder}/engine.sock")
        os.close(folder)
        os.chmod(engine, 0o777)
        listener.listen()
        replica = await sandbox.started(sandbox.runtime())
        found = await ask(
            replica,
            f"""
here = os.path.dirname({engine!r})
result = outcome(lambda: socket.socket(socket.AF_UNIX).connect('/proc/self/fd/%d/engine.sock' % os.open(here, os.O_RDONLY)))
""",
        )
    stopped_or_said(found in ("FileNotFoundError", "PermissionError"), replica, "files")


async def test_sockets_in_run_are_out_of_reach(sandbox):
    replica = await sandbox.started(sandbox.runtime())
    stopped_or_said(await ask(replica, "result = os.listdir('/run')") == ["sandbox"], replica, "files")


async def test_a_model_cannot_look_into_processes_of_the_host(sandbox):
    replica = await sandbox.started(sandbox.runtime())
    found = await ask(replica, f"result = outcome(lambda: os.listdir('/proc/{os.getpid()}/root'))")
    stopped_or_said(found == "PermissionError", replica, "files")


@pytest.mark.parametrize("what", ["tree", "data", "environment", "guest", "the system"])
async def test_a_model_cannot_write(sandbox, what):
    replica = await sandbox.started(sandbox.runtime())
    folder = {
        "tree": "config['generations'] + '/tree-1'",
        "data": "config['data']",
        "environment": "sys.prefix",
        "guest": "os.path.dirname(isolation.__file__)",
        "the system": "'/var/lib'",
    }[what]
    found = await ask(replica, f"result = outcome(lambda: open(os.path.join({folder}, 'new'), 'w').close())")
    stopped_or_said(found in ("OSError", "PermissionError"), replica, "files")


async def test_a_model_may_write_to_tmp_and_nobody_else_sees_it(sandbox):
    replica = await sandbox.started(sandbox.runtime())
    path = await ask(replica, "import tempfile; result = tempfile.mkdtemp(); open(result + '/x', 'w').close()")
    stopped_or_said(not exists(path), replica, "files")


async def test_data_is_writable_where_it_is_asked_for(sandbox):
    data = sandbox.project / "hello" / "data"
    runtime = sandbox.runtime()
    model = sandbox.model(data_writable=True)
    if os.geteuid() == 0:
        with pytest.raises(SandboxError, match="cannot write") as caught:
            runtime.check_access(model)
        assert (caught.value.reference, "chown -R" in caught.value.hint) == ("path-permission", True)
        uid = int(caught.value.hint.split()[3].split(":")[0])
        for path in (data, data / "words.txt"):
            os.chown(path, uid, uid)
    replica = await sandbox.started(runtime, model)
    await ask(replica, "open(config['data'] + '/new', 'w').write('more')")
    assert (data / "new").read_text() == "more"


@pytest.mark.parametrize("target", ["/weights", "/opt/some/weights", "/srv/weights"])
async def test_a_volume_appears_at_its_target_and_the_host_does_not_change(sandbox, tmp_path, target):
    weights = tmp_path / "weights"
    weights.mkdir()
    (weights / "w").write_text("1")
    model = sandbox.model(mounts=(Mount(str(weights), target, read_only=True),))
    runtime = sandbox.runtime()
    if not walls.machine().own_root:
        with pytest.raises(SandboxError, match="cannot be mounted"):
            await sandbox.started(runtime, model)
        return
    replica = await sandbox.started(runtime, model)
    source = (
        f"result = [open('{target}/w').read(), outcome(lambda: open('{target}/x', 'w').close()), os.listdir('/opt')]"
    )
    text, written, listed = await ask(replica, source)
    assert (text, written) == ("1", "OSError")
    assert set(os.listdir("/opt")) <= set(listed)
    assert not exists(target)


async def test_network_none_has_a_loopback_of_its_own_and_not_the_hosts(sandbox):
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        replica = await sandbox.started(sandbox.runtime())
        own, hosts = await ask(
            replica,
            f"""
server = socket.create_server(("127.0.0.1", 0))
own = outcome(lambda: socket.create_connection(server.getsockname(), 5).close())
result = [own, outcome(lambda: socket.create_connection(("127.0.0.1", {port}), 5).close())]
""",
        )
    assert own is None
    stopped_or_said(hosts == "ConnectionRefusedError", replica, "network")


async def test_network_bridge_is_the_hosts_network(sandbox):
    with socket.create_server(("127.0.0.1", 0)) as server:
        replica = await sandbox.started(sandbox.runtime(), sandbox.model(network="bridge"))
        port = server.getsockname()[1]
        assert (
            await ask(replica, f"result = outcome(lambda: socket.create_connection(('127.0.0.1', {port}), 5).close())")
            is None
        )


async def test_an_internal_network_is_refused_and_nothing_is_left(sandbox):
    runtime = sandbox.runtime()
    with pytest.raises(SandboxError, match="internal") as caught:
        await sandbox.started(runtime, sandbox.model(network="internal"))
    assert caught.value.reference == "isolation"
    assert caught.value.hint
    assert os.listdir(sandbox.state / "r") == []


async def test_a_fork_bomb_stops_at_pids(sandbox):
    replica = await sandbox.started(sandbox.runtime(), sandbox.model(limits=Limits(pids=40)))
    made = await ask(
        replica,
        """
import time
made = 0
while made < 80:
    try:
        pid = os.fork()
    except OSError:
        break
    if pid == 0:
        time.sleep(60)
        os._exit(0)
    made += 1
result = made
""",
    )
    stopped_or_said(made < 40, replica, "pids")


async def test_a_memory_hog_is_killed_alone(sandbox):
    runtime = sandbox.runtime()
    replica = await sandbox.started(runtime, sandbox.model(limits=Limits(memory=96 << 20, pids=64)))
    pid = await ask(
        replica,
        """
def hog():
    open("/proc/self/oom_score_adj", "w").write("1000")
    kept = []
    while True:
        kept.append(bytearray(1 << 20))
        kept[-1][::4096] = b"x" * 256
result = fork_worker(hog)
""",
    )
    # The agent answers on: it asks for the hog until that is gone.
    while await ask(replica, f"result = outcome(lambda: os.kill({pid}, 0))") is None:
        state = await ask(
            replica, f"result = outcome(lambda: open('/proc/{pid}/stat').read().rpartition(')')[2].split()[0])"
        )
        if state in ("Z", "FileNotFoundError"):
            break
    kills = await ask(replica, "result = isolation.oom_kills(config['isolation'])")
    stopped_or_said(kills is not None and kills > 0, replica, "memory")


async def test_the_environment_holds_nothing_of_the_hosts(sandbox, monkeypatch):
    monkeypatch.setenv("HOST_SECRET", "secret")
    replica = await sandbox.started(sandbox.runtime(), sandbox.model(environment={"LOG_LEVEL": "info"}))
    found = await ask(replica, "result = sorted(os.environ)")
    assert set(found) - {"LC_CTYPE"} == {"HOME", "LANG", "LOG_LEVEL", "PATH", "TMPDIR"}
