"""The keeper, with real processes, a real port and real signals; only what it keeps is a stand-in."""

import contextlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import time

import pytest

from orchestrator import folders, relisten

PROGRAMS = os.path.join(os.path.dirname(__file__), "keeper_programs.py")
DEADLINE = 20


class Bench:
    """A project, a state folder, and the datagrams of those who start."""

    def __init__(self, tmp_path):
        self.project = tmp_path / "project"
        self.project.mkdir()
        self.folders = folders.Folders(str(self.project))
        self.state = self.folders.state
        self.path = str(tmp_path / "notes.sock")
        self.notes = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        with folders.socket_address(self.path) as address:
            self.notes.bind(address)
        self.notes.settimeout(DEADLINE)
        self.keepers = []
        self.pids = set()

    def keeper(self, **orders):
        orders = {"project": str(self.project), "host": "127.0.0.1", "port": 0, "workers": 1, "profiles": [], **orders}
        process = subprocess.Popen(
            [sys.executable, "-P", PROGRAMS, "keeper", self.path, self.state],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self.keepers.append(process)
        process.stdin.write(json.dumps(orders))
        process.stdin.close()
        answer = json.loads(process.stdout.readline())
        process.stdout.close()
        return process, answer

    def started(self, *kinds):
        """Wait until one of each kind has announced itself; their pids in that order."""
        found = {}
        while set(found) != set(kinds):
            kind, pid = self.notes.recv(100).decode().split()
            self.pids.add(int(pid))
            found[kind] = int(pid)
        return [found[kind] for kind in kinds]

    def ask(self, port):
        with socket.create_connection(("127.0.0.1", port), timeout=DEADLINE) as connection:
            return int(connection.makefile().read())

    def ended(self, pid):
        """Wait for a process's end; it is the keeper's child, or nobody's."""
        with contextlib.suppress(ProcessLookupError):
            descriptor = os.pidfd_open(pid)
            poll = select.poll()
            poll.register(descriptor, select.POLLIN)
            found = poll.poll(DEADLINE * 1000)
            os.close(descriptor)
            assert found, f"{pid} lives"

    def record(self):
        return folders.read_json(self.folders.keeper_record)

    def close(self):
        for process in self.keepers:
            process.kill()
            process.wait(DEADLINE)
        # A gateway that is only just starting has not been waited for: it fails to announce itself, or has done so.
        self.notes.shutdown(socket.SHUT_RD)
        self.notes.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while note := self.notes.recv(100):
                self.pids.add(int(note.split()[1]))
        for pid in self.pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.notes.close()


def stop(pid):
    """SIGSTOP, and wait until the process has left the system call that it was in."""
    os.kill(pid, signal.SIGSTOP)
    deadline = time.monotonic() + DEADLINE
    while time.monotonic() < deadline:
        with open(f"/proc/{pid}/stat") as file:
            if file.read().rpartition(")")[2].split()[0] == "T":
                return
        os.sched_yield()
    raise TimeoutError(f"{pid} does not stop")


@pytest.fixture
def bench(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    made = Bench(tmp_path)
    yield made
    made.close()


def test_it_answers_once_the_port_is_ours_and_starts_both(bench):
    process, answer = bench.keeper()
    control, gateway = bench.started("control", "gateway")
    assert answer == {"ok": True, "pid": process.pid, "port": answer["port"]}
    assert bench.ask(answer["port"]) == gateway
    record = bench.record()
    assert (record["pid"], record["control"]["pid"], record["port"]) == (process.pid, control, answer["port"])
    assert record["boot_id"] == folders.boot_id()
    assert len({os.getsid(pid) for pid in (process.pid, control, gateway)}) == 3  # no key press reaches them
    (entry,) = os.listdir(folders.registry_folder())
    assert folders.read_json(os.path.join(folders.registry_folder(), entry))["directory"] == str(bench.project)
    assert os.stat(bench.state).st_mode & 0o777 == 0o700


def test_sigterm_is_a_down_that_leaves_nothing_behind(bench):
    process, answer = bench.keeper()
    bench.started("control", "gateway")
    process.terminate()
    assert process.wait(DEADLINE) == 0
    assert not os.path.exists(bench.state)
    assert os.listdir(folders.registry_folder()) == []
    with pytest.raises(ConnectionRefusedError):
        bench.ask(answer["port"])


def test_a_control_that_ends_with_0_ends_the_sandbox(bench):
    process, _ = bench.keeper()
    control, gateway = bench.started("control", "gateway")
    os.kill(control, signal.SIGTERM)
    assert process.wait(DEADLINE) == 0
    assert folders.start_time(gateway) is None


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGUSR1])
def test_a_dead_control_is_started_again_and_the_gateway_left_alone(bench, number):
    _, answer = bench.keeper()
    control, gateway = bench.started("control", "gateway")
    os.kill(control, number)
    (again,) = bench.started("control")
    assert again != control
    assert bench.ask(answer["port"]) == gateway


def test_a_connection_made_while_the_gateway_is_dead_is_answered_by_the_next(bench):
    _, answer = bench.keeper()
    _, gateway = bench.started("control", "gateway")
    stop(gateway)
    with socket.create_connection(("127.0.0.1", answer["port"]), timeout=DEADLINE) as connection:
        os.kill(gateway, signal.SIGKILL)
        (again,) = bench.started("gateway")
        assert int(connection.makefile().read()) == again


def test_after_kill_9_of_the_keeper_both_serve_on_and_the_next_keeper_takes_over(bench):
    first, answer = bench.keeper()
    control, gateway = bench.started("control", "gateway")
    first.kill()
    first.wait(DEADLINE)
    assert bench.ask(answer["port"]) == gateway

    second, again = bench.keeper()
    assert again == {"ok": True, "pid": second.pid, "port": answer["port"]}
    assert bench.ask(answer["port"]) == gateway
    record = bench.record()
    assert (record["pid"], record["control"]["pid"]) == (second.pid, control)

    os.kill(gateway, signal.SIGKILL)  # it watches what it did not start
    (new_gateway,) = bench.started("gateway")
    assert bench.ask(answer["port"]) == new_gateway
    os.kill(control, signal.SIGKILL)
    (new_control,) = bench.started("control")
    os.kill(new_control, signal.SIGTERM)
    assert second.wait(DEADLINE) == 0


def test_an_adopted_control_that_finished_a_down_is_not_started_again(bench):
    first, _ = bench.keeper()
    control, gateway = bench.started("control", "gateway")
    first.kill()
    first.wait(DEADLINE)
    second, _ = bench.keeper()
    os.kill(control, signal.SIGTERM)
    assert second.wait(DEADLINE) == 0
    assert folders.start_time(gateway) is None


def test_with_keeper_and_control_dead_the_port_goes_on(bench):
    first, answer = bench.keeper()
    control, gateway = bench.started("control", "gateway")
    for pid in (first.pid, control):
        os.kill(pid, signal.SIGKILL)
    first.wait(DEADLINE)
    _, again = bench.keeper(port=answer["port"])
    (new_control,) = bench.started("control")
    assert new_control != control
    # Where the kernel lets us copy the listener the same gateway serves on, elsewhere a new one does.
    assert again["port"] == answer["port"]
    assert bench.ask(answer["port"]) in bench.pids | {gateway}


def test_with_all_dead_a_new_one_starts_afresh(bench):
    first, answer = bench.keeper()
    pids = bench.started("control", "gateway")
    for pid in (first.pid, *pids):
        os.kill(pid, signal.SIGKILL)
    first.wait(DEADLINE)
    _, again = bench.keeper(port=answer["port"])
    _, gateway = bench.started("control", "gateway")
    assert again["port"] == answer["port"]
    assert bench.ask(answer["port"]) == gateway


def test_of_two_keepers_one_wins(bench):
    _, answer = bench.keeper()
    second, refusal = bench.keeper()
    assert answer["ok"]
    assert refusal["error"]["reference"] == "locked"
    assert second.wait(DEADLINE) == 1
    bench.started("control", "gateway")
    assert bench.record()["pid"] == bench.keepers[0].pid


def test_a_taken_port_is_named_with_its_owner_and_nothing_is_left(bench):
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        process, answer = bench.keeper(port=port)
        assert process.wait(DEADLINE) == 1
    assert answer["error"]["reference"] == "port-in-use"
    assert f"port {port} is taken by" in answer["error"]["message"]
    assert f"(pid {os.getpid()})" in answer["error"]["message"]
    assert not os.path.exists(bench.state)


def test_the_keeper_stays_small(bench):
    process, _ = bench.keeper()
    bench.started("control", "gateway")
    with open(f"/proc/{process.pid}/status") as file:
        anonymous = next(int(line.split()[1]) for line in file if line.startswith("RssAnon:"))
    assert anonymous < 8 * 1024  # KiB; what a bare interpreter takes, and a little


def test_a_full_disk_costs_the_keeper_its_words_not_its_life() -> None:
    code = "from orchestrator import keeper; keeper._say('control ended'); print('goes on')"
    with open("/dev/full", "wb") as full:
        ran = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=full, text=True, check=False)
    assert ran.stdout == "goes on\n"


def move(bench, **asked):
    """Ask the keeper as control does; its answer, and the listener."""
    answer, descriptor = relisten.ask(bench.state, *({"host": "127.0.0.1", "port": 0, "workers": 1} | asked).values())
    return answer, None if descriptor is None else socket.socket(fileno=descriptor)


def test_another_port_is_bound_and_served_before_the_old_one_closes_and_control_stays(bench):
    process, before = bench.keeper()
    control, gateway = bench.started("control", "gateway")
    answer, listener = move(bench)
    with listener:
        assert listener.getsockname()[1] == answer["port"] != before["port"]
    (newer,) = bench.started("gateway")
    assert bench.ask(answer["port"]) == newer != gateway
    record = bench.record()
    assert (record["port"], record["control"]["pid"], record["orders"]["port"]) == (answer["port"], control, 0)
    bench.ended(gateway)
    process.terminate()
    assert process.wait(DEADLINE) == 0
    assert not os.path.exists(bench.state)


def test_a_port_that_is_taken_changes_nothing(bench):
    _, before = bench.keeper()
    _, gateway = bench.started("control", "gateway")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        answer, listener = move(bench, port=taken.getsockname()[1], workers=3)
    assert listener is None
    assert answer["error"]["reference"] == "port-in-use"
    assert bench.ask(before["port"]) == gateway


def test_gateways_are_added_and_taken_away_on_the_same_listener(bench):
    _, before = bench.keeper()
    _, first = bench.started("control", "gateway")
    same = {"port": before["port"]}
    move(bench, workers=2, **same)[1].close()
    (second,) = bench.started("gateway")
    assert [one["pid"] for one in bench.record()["gateways"]] == [first, second]
    move(bench, workers=1, **same)[1].close()
    bench.ended(second)
    assert bench.ask(before["port"]) == first


def test_a_gateway_that_does_not_leave_is_killed_in_the_end(bench, monkeypatch):
    monkeypatch.setenv("TEST_LEAVE_DEADLINE", "0.2")
    bench.keeper()
    _, gateway = bench.started("control", "gateway")
    stop(gateway)
    move(bench)[1].close()
    bench.ended(gateway)


def test_one_who_asks_nonsense_is_hung_up_on(bench):
    bench.keeper()
    bench.started("control", "gateway")
    for text in (b"{}\n", b"no\n", b""):
        with socket.socket(socket.AF_UNIX) as asking:
            asking.settimeout(DEADLINE)
            with folders.socket_address(os.path.join(bench.state, relisten.NAME)) as address:
                asking.connect(address)
            asking.sendall(text)
            asking.shutdown(socket.SHUT_WR)
            assert asking.recv(100) == b""
    answer, listener = move(bench)
    listener.close()
    assert answer["ok"]
