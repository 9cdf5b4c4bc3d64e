"""What the project remembers, over restarts and from many threads."""

import os
import sqlite3
import threading

import pytest

from orchestrator import store as store_module
from orchestrator.errors import SandboxError
from orchestrator.store import GenerationRow, Store


@pytest.fixture
def path(tmp_path):
    return str(tmp_path / ".sandbox" / "store.db")


@pytest.fixture
def store(path):
    made = Store(path)
    yield made
    made.close()


def row(number, **more):
    return GenerationRow("hello", number, "c" * 64, "", f"tree-{number}", **more)


def test_numbers_are_given_once_per_model_over_restarts_and_threads(path):
    given = []
    for _ in range(2):
        store = Store(path)

        def take(store=store):
            given.extend(store.next_generation("hello") for _ in range(20))

        threads = [threading.Thread(target=take) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert store.next_generation("other") == len(given) // 80
        store.close()
    assert sorted(given) == list(range(1, 161))


def test_a_generation_is_remembered_as_it_was(path, store):
    wanted = row(
        3, config={"entry": "main:A"}, changed=("main.py", "data/ö"), created=5.0, pinned=True, origin=1, directory="d"
    )
    store.add_generation(wanted)
    again = Store(path)
    assert again.generation("hello", 3) == wanted
    again.close()
    assert store.generation("hello", 4) is None


def test_the_newest_comes_first_and_only_one_is_active(store):
    for number in (1, 2, 3):
        store.add_generation(row(number))
        store.mark("hello", number, "active")
    store.mark("hello", 3, "failed")
    store.mark("hello", 2, "active")
    assert [(each.number, each.state) for each in store.generations("hello")] == [
        (3, "failed"),
        (2, "active"),
        (1, "retired"),
    ]
    assert store.latest("hello").number == 3
    assert store.latest("hello", "active").number == 2
    assert store.latest("other") is None


def test_forgetting_generations_gives_no_number_free(store):
    store.add_generation(row(store.next_generation("hello")))
    store.remove_generations("hello", [1])
    assert store.generations() == []
    assert store.next_generation("hello") == 2


def test_pins_and_places_are_kept(store):
    store.add_generation(row(1))
    store.pin("hello", 1, True)
    store.place("hello", 1, "tree-9")
    assert (store.generation("hello", 1).pinned, store.generation("hello", 1).tree) == (True, "tree-9")


def test_events_come_back_oldest_first_by_time_model_and_count(store):
    for second, model in enumerate(("a", "b", None, "a")):
        store.add_event(f"2026-11-20T12:00:0{second}.500Z", model, "ready", f"number {second}", {"n": second})
    assert [each["message"] for each in store.events()] == [f"number {n}" for n in range(4)]
    assert [each["data"]["n"] for each in store.events(since="2026-11-20T12:00:01Z")] == [1, 2, 3]
    assert [each["data"]["n"] for each in store.events(since="2026-11-20T14:00:02+02:00")] == [2, 3]
    assert [each["data"]["n"] for each in store.events(models=("a",))] == [0, 3]
    assert [each["data"]["n"] for each in store.events(limit=2)] == [2, 3]
    assert set(store.events()[0]) == {"time", "model", "event", "message", "data"}


def test_an_unreadable_moment_is_a_usage_error(store):
    with pytest.raises(SandboxError, match="'yesterday' is no time") as caught:
        store.events(since="yesterday")
    assert caught.value.reference == "usage"


def test_only_the_newest_events_are_kept(store, monkeypatch):
    monkeypatch.setattr(store_module, "EVENTS_KEPT", 5)
    for number in range(12):
        store.add_event("2026-11-20T12:00:00.000Z", "a", "ready", str(number))
    assert [each["message"] for each in store.events()] == [str(number) for number in range(7, 12)]


def test_a_damaged_file_is_said_with_what_to_do(path, store):
    store.close()
    for name in (path, f"{path}-wal"):
        with open(name, "wb") as file:
            file.write(b"this is no database" * 100)
    with pytest.raises(SandboxError) as caught:
        Store(path)
    assert caught.value.reference == "store"
    assert path in str(caught.value)
    assert "move the file away" in caught.value.hint


def test_a_file_of_the_first_format_keeps_its_generations(path):
    os.makedirs(os.path.dirname(path))
    connection = sqlite3.connect(path)
    connection.executescript(f"{store_module.MIGRATIONS[0]} PRAGMA user_version = 1;")
    old = ("hello", 1, "c" * 64, "", "tree-1", "{}", "[]", 5.0, "active", 1)
    connection.execute("INSERT INTO generations VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", old)
    connection.commit()
    connection.close()
    upgraded = Store(path)
    wanted = row(1, created=5.0, state="active", pinned=True)
    assert upgraded.generation("hello", 1) == wanted
    upgraded.add_generation(row(2, origin=1, directory="d" * 64))
    upgraded.follow_directory("hello")
    found = upgraded.generation("hello", 2)
    assert (found.origin, found.directory) == (1, "")
    upgraded.close()


def test_a_newer_format_is_refused(path, store):
    store.close()
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA user_version = 99")
    connection.close()
    with pytest.raises(SandboxError, match="newer Model Sandbox"):
        Store(path)


def test_a_failed_write_leaves_nothing_and_the_store_usable(store):
    store.add_generation(row(1))
    with pytest.raises(SandboxError):
        store.add_generation(row(1))
    store.add_generation(row(2))
    assert [each.number for each in store.generations()] == [2, 1]


def test_a_full_disk_is_told_as_such(store):
    connection = store._connection
    pages = connection.execute("PRAGMA page_count").fetchone()[0]
    connection.execute(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(SandboxError) as caught:
        store.add_event("2026-11-20T12:00:00.000Z", "a", "ready", "x" * 100_000)
    assert caught.value.reference == "disk-full"
