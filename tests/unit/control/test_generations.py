"""A save becomes a numbered content in a tree of its own, and nothing that runs is ever touched."""

import errno
import os
import stat

import pytest

from orchestrator.control.generations import Generations
from orchestrator.control.trees import TreesInUse
from orchestrator.errors import SandboxError
from orchestrator.plan.types import ModelDesired, ReloadPolicy
from orchestrator.spec.resolve import model_config
from orchestrator.store import Store


class House:
    """A project with one model, its workshop, and short words for what a person does."""

    def __init__(self, folder):
        self.project = folder / "project"
        self.source = self.project / "hello"
        self.state = self.project / ".sandbox"
        self.source.mkdir(parents=True)
        self.write("main.py", "one")
        self.store = Store(str(self.state / "store.db"))
        self.start()

    def start(self, **wish):
        wish = {"reload": ReloadPolicy(max_draining=2), **wish}
        self.desired = ModelDesired("hello", str(self.source), "process", "0" * 64, "1:0", **wish)
        self.generations = Generations(
            str(self.state), self.store, allowed=[str(self.project)], read_config=model_config
        )
        self.workshop = self.generations.workshop(self.desired)

    def write(self, path, text):
        target = self.source / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)

    def save(self, path, text, **how):
        self.write(path, text)
        return self.made([path], **how)

    def made(self, changed=None, data=None):
        snapshot = self.workshop.snapshot(changed)
        return snapshot and self.workshop.commit(snapshot, data)

    def tree(self, generation):
        return self.state / "generations" / "hello" / generation.tree

    def files(self, generation):
        root = self.tree(generation)
        found = (each for each in root.rglob("*") if each.is_file())
        return {str(each.relative_to(root)): each.read_text() for each in found}


@pytest.fixture
def house(tmp_path):
    made = House(tmp_path)
    yield made
    made.store.close()


def test_a_generation_holds_exactly_the_user_files(house):
    house.write("package/__init__.py", "")
    house.write("package/__pycache__/x.cpython-311.pyc", "junk")
    house.write(".git/HEAD", "junk")
    house.write(".main.py.swp", "junk")
    house.write("4913", "junk")
    house.write("main.py~", "junk")
    house.write("out.log", "junk")
    generation = house.made()
    assert house.files(generation) == {"main.py": "one", "package/__init__.py": ""}
    assert generation.number == 1
    assert generation.changed == ("main.py", "package/__init__.py")


def test_the_content_hash_tells_contents_apart_and_nothing_else(house):
    first = house.made()
    os.utime(house.source / "main.py", (1, 1))
    assert house.made(["main.py"]) is None
    second = house.save("main.py", "two")
    third = house.save("main.py", "one")
    assert second.content != first.content
    assert third.content == first.content
    assert (second.changed, third.number) == (("main.py",), 3)


def test_a_save_of_equal_size_and_time_is_seen(house):
    house.made()
    before = os.stat(house.source / "main.py")
    house.write("main.py", "owe")
    os.utime(house.source / "main.py", ns=(before.st_atime_ns, before.st_mtime_ns))
    assert house.files(house.made(["main.py"])) == {"main.py": "owe"}


def test_a_whole_scan_sees_what_no_event_told(house):
    house.write("a/b.py", "b")
    house.made()
    house.write("a/c.py", "c")
    (house.source / "a/b.py").unlink()
    assert house.files(house.made(None)) == {"main.py": "one", "a/c.py": "c"}


def test_a_removed_folder_takes_its_files_along(house):
    house.write("a/b/c.py", "c")
    house.write("ab.py", "stays")
    house.made()
    os.unlink(house.source / "a/b/c.py")
    os.removedirs(house.source / "a/b")
    generation = house.made(["a"])
    assert house.files(generation) == {"main.py": "one", "ab.py": "stays"}
    assert not (house.tree(generation) / "a").exists()


def test_a_renamed_folder_moves_its_files(house):
    house.write("a/b.py", "b")
    house.made()
    os.rename(house.source / "a", house.source / "z")
    assert house.files(house.made(["a", "z"])) == {"main.py": "one", "z/b.py": "b"}


def test_a_file_becomes_a_folder_and_back_in_a_reused_tree(house):
    house.write("x", "file")
    for number in range(4):
        generation = house.save("main.py", str(number))
        house.workshop.release(generation.number)
        os.unlink(house.source / "x") if (house.source / "x").is_file() else None
        house.write("x/y", "nested")
        generation = house.made(["x"])
        assert house.files(generation)["x/y"] == "nested"
        house.workshop.release(generation.number)
        os.unlink(house.source / "x/y")
        os.rmdir(house.source / "x")
        generation = house.save("x", "file")
        assert house.files(generation) == {"main.py": str(number), "x": "file"}
        house.workshop.release(generation.number)


def test_a_tree_in_use_never_changes_and_a_free_one_is_used_again(house):
    first = house.made()
    second = house.save("main.py", "two")
    assert second.tree != first.tree
    assert house.files(first) == {"main.py": "one"}
    house.workshop.release(first.number)
    third = house.save("main.py", "three")
    assert third.tree == first.tree
    assert (house.files(second), house.files(third)) == ({"main.py": "two"}, {"main.py": "three"})


def test_trees_are_copies_that_nobody_can_write_through(house):
    first = house.save("run.sh", "#!")
    os.chmod(house.source / "run.sh", 0o755)
    second = house.made(["run.sh"])
    one, two = (house.tree(each) / "main.py" for each in (first, second))
    assert one.stat().st_ino != two.stat().st_ino
    assert one.stat().st_nlink == 1
    assert stat.S_IMODE(two.stat().st_mode) == 0o444
    assert stat.S_IMODE((house.tree(second) / "run.sh").stat().st_mode) == 0o555
    assert stat.S_IMODE(house.tree(second).stat().st_mode) == 0o555


def test_a_full_pool_refuses_and_uses_no_number(house):
    made = [house.save("main.py", str(number)) for number in range(4)]
    with pytest.raises(TreesInUse):
        house.save("main.py", "one too many")
    house.workshop.release(made[1].number)
    assert house.made(["main.py"]).number == 5
    assert house.files(made[0]) == {"main.py": "0"}


def test_a_model_that_was_removed_leaves_no_tree_and_comes_back_with_its_history(house):
    first = house.save("main.py", "1")
    house.generations.forget("hello")
    assert not house.tree(first).parent.exists()
    house.start()
    second = house.save("main.py", "2")
    assert second.number == 2
    house.workshop.release(second.number)
    assert house.files(house.workshop.roll_back(1, 2, None).generation) == {"main.py": "1"}


def test_data_is_reached_by_path_and_its_change_is_a_generation(house):
    house.write("data/weights.bin", "w")
    first = house.made(data="/run/sandbox/data")
    assert os.readlink(house.tree(first) / "data") == "/run/sandbox/data"
    assert "data/weights.bin" not in house.files(first)
    assert house.made(["data/weights.bin"]) is None
    second = house.save("data/weights.bin", "better", data="/run/sandbox/data")
    assert (second.content, second.changed) == (first.content, ("data/weights.bin",))


def test_a_vocabulary_folder_is_data_under_its_own_name(house):
    house.write("vocab_data/words", "w")
    generation = house.made(data="/run/sandbox/data")
    assert os.readlink(house.tree(generation) / "vocab_data") == "/run/sandbox/data"
    assert house.files(generation) == {"main.py": "one"}


def test_writable_data_never_makes_a_generation(house):
    house.start(data_writable=True)
    house.write("data/state", "1")
    house.made()
    house.write("data/state", "22")
    assert house.made(["data/state"]) is None


def test_a_link_inside_the_project_is_followed_and_one_that_leaves_it_is_refused(house, tmp_path):
    (house.project / "shared").mkdir()
    (house.project / "shared/part.py").write_text("part")
    os.symlink("../shared", house.source / "shared")
    os.symlink("..", house.source / "shared" / "loop")
    assert house.files(house.made())["shared/part.py"] == "part"
    (tmp_path / "secret").write_text("s")
    os.symlink(tmp_path / "secret", house.source / "stolen")
    with pytest.raises(SandboxError) as caught:
        house.made(["stolen"])
    assert caught.value.reference == "path-outside"
    assert "stolen leads to" in str(caught.value)
    os.unlink(house.source / "stolen")
    assert house.made(["stolen"]) is None


@pytest.mark.parametrize("what", ["main.py", "."])
def test_a_missing_source_is_said_and_comes_back(house, what, tmp_path):
    house.made()
    os.rename(house.source / what, tmp_path / "away")
    with pytest.raises(SandboxError, match="source missing") as caught:
        house.workshop.snapshot([what])
    assert caught.value.reference == "no-main"
    os.rename(tmp_path / "away", house.source / what if what != "." else house.source)
    house.write("main.py", "two")
    assert house.files(house.made(["main.py"])) == {"main.py": "two"}


def test_paths_of_a_failed_scan_are_read_by_the_next(house, tmp_path):
    house.made()
    os.symlink(tmp_path, house.source / "out")
    house.write("new.py", "n")
    with pytest.raises(SandboxError):
        house.workshop.snapshot(["out", "new.py"])
    os.unlink(house.source / "out")
    assert house.files(house.made(["out"]))["new.py"] == "n"


def test_a_full_disk_leaves_nothing_half_written(house, monkeypatch):
    house.made()

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "rename", full)
        with pytest.raises(SandboxError) as caught:
            house.save("main.py", "two")
    assert caught.value.reference == "disk-full"
    assert not list((house.state / "objects" / "new").iterdir())
    second = house.made(["main.py"])
    assert (second.number, house.files(second)) == (2, {"main.py": "two"})


def test_a_restart_keeps_held_trees_and_trusts_no_other(house):
    first = house.made()
    second = house.save("main.py", "two")
    house.start()
    assert house.workshop.hold(first.number) == first
    os.chmod(house.tree(second), 0o755)
    (house.tree(second) / "main.py").unlink()
    (house.tree(second) / "main.py").write_text("half-written")
    assert house.made() is None
    house.workshop.hold(2)
    house.workshop.release(2)
    third = house.save("main.py", "two", data="/elsewhere") or house.save("main.py", "three")
    assert house.files(first) == {"main.py": "one"}
    assert house.files(third) == {"main.py": "three"}


def test_a_kept_generation_comes_back_with_every_byte_verified(house):
    first = house.made(data="/d")
    house.workshop.release(first.number)
    second = house.save("main.py", "two", data="/d")
    house.workshop.release(second.number)
    os.chmod(house.tree(first) / "main.py", 0o644)
    (house.tree(first) / "main.py").write_text("0ne")
    back = house.workshop.restore(first.number, "/d")
    assert (back.number, back.content) == (first.number, first.content)
    assert house.files(back) == {"main.py": "one"}


def test_a_damaged_kept_file_is_refused_and_the_next_snapshot_heals_it(house):
    first = house.made()
    second = house.save("main.py", "two")
    for each in (first, second):
        house.workshop.release(each.number)
    house.workshop.release(house.save("main.py", "three").number)
    house.save("main.py", "four")
    house.save("main.py", "five")
    (kept,) = [each for each in (house.state / "objects").rglob("*") if each.is_file() and each.read_text() == "one"]
    os.chmod(kept, 0o644)
    kept.write_text("0ne")
    with pytest.raises(SandboxError) as caught:
        house.workshop.restore(first.number, None)
    assert caught.value.reference == "store"
    assert house.files(house.save("main.py", "one"))["main.py"] == "one"
    assert house.files(house.workshop.restore(first.number, None))["main.py"] == "one"


def test_generations_beyond_keep_are_forgotten_and_their_files_collected(house, monkeypatch):
    house.start(reload=ReloadPolicy(keep=2))
    made = [house.save("main.py", str(number)) for number in range(5)]
    for each in made[1:]:
        house.workshop.release(each.number)
    house.workshop.prune()
    assert [row.number for row in house.store.generations("hello")] == [5, 4, 1]
    assert house.generations.collect() == 0  # too young: it may belong to a snapshot that is being made
    for each in (house.state / "objects").rglob("*"):
        os.utime(each, (1, 1))
    assert house.generations.collect() == 4
    for each in made[3:]:
        assert house.files(house.workshop.restore(each.number, None)) == {"main.py": str(each.number - 1)}


def test_a_spare_tree_is_brought_ahead_and_never_one_in_use(house):
    first = house.made()
    house.workshop.spare()
    (spare,) = {each.name for each in (house.state / "generations/hello").iterdir()} - {first.tree}
    assert house.save("main.py", "two").tree == spare
    assert house.files(first) == {"main.py": "one"}


def test_config_is_read_from_the_snapshot_and_names_the_entry(house):
    house.write("config.yaml", "entry: main:Hello\nparameters: {a: 1}")
    snapshot = house.workshop.snapshot(None)
    house.write("config.yaml", "entry: later:Hello")
    generation = house.workshop.commit(snapshot, None)
    assert (generation.config, generation.entry) == ({"entry": "main:Hello", "parameters": {"a": 1}}, "main:Hello")
    assert house.workshop.latest() == generation


def test_an_invalid_config_refuses_the_generation_and_names_the_users_file(house):
    house.write("config.yaml", "name: hello\nparameters: [")
    with pytest.raises(SandboxError) as caught:
        house.made()
    assert caught.value.at.startswith("hello/config.yaml:")
    assert house.store.latest("hello") is None
    assert house.save("config.yaml", "name: hello").number == 1


def test_a_pipe_in_the_directory_blocks_nobody(house):
    os.mkfifo(house.source / "pipe")
    assert house.files(house.made()) == {"main.py": "one"}


# Going back


def test_going_back_gives_an_old_content_a_new_number_and_makes_the_directory_no_edit(house):
    first = house.made()
    second = house.save("main.py", "two")
    back = house.workshop.roll_back(1, second.number, None)
    assert (back.generation.number, back.generation.content, back.origin) == (3, first.content, 1)
    assert (back.generation.origin, back.generation.changed) == (1, ("main.py",))
    assert house.files(back.generation) == {"main.py": "one"}
    assert house.files(second) == {"main.py": "two"}, "what a worker runs from was changed"
    assert (house.source / "main.py").read_text() == "two"
    assert house.made() is None
    house.start()
    assert house.workshop.latest().origin == 1
    assert house.made() is None, "a new control took the directory for an edit"
    assert house.save("main.py", "three").changed == ("main.py",)


def test_without_a_number_it_goes_to_the_newest_other_content_that_was_active(house):
    house.start(reload=ReloadPolicy(max_draining=20))
    for number, text in ((1, "one"), (2, "two"), (3, "broken"), (4, "four"), (5, "four ")):
        assert house.save("main.py", text).number == number
        house.workshop.mark(number, "failed" if text == "broken" else "active")
    assert house.workshop.roll_back(None, 5, None).origin == 4
    assert house.workshop.roll_back(None, 4, None).origin == 5, "active before a control that found nothing running"
    house.workshop.mark(7, "active")
    assert house.workshop.roll_back(None, 7, None).origin == 4


@pytest.mark.parametrize(("number", "words"), [(7, "generation 7 is not kept"), (None, "no other content")])
def test_what_is_not_kept_cannot_be_gone_back_to(house, number, words):
    house.workshop.mark(house.made().number, "active")
    with pytest.raises(SandboxError, match=words) as raised:
        house.workshop.roll_back(number, 1, None)
    assert raised.value.reference == "no-generation"


def test_a_damaged_file_is_refused_and_takes_no_number(house):
    first = house.made()
    second = house.save("main.py", "two")
    for each in house.state.glob("objects/*/*"):
        if each.is_file() and each.read_bytes() == b"one":
            each.chmod(0o644)
            each.write_text("evil")
    for each in (house.tree(first), house.tree(first) / "main.py"):
        each.chmod(0o755)
    (house.tree(first) / "main.py").write_text("evil")
    house.workshop.release(1)
    with pytest.raises(SandboxError, match="generation 1 cannot be restored: a kept file was changed") as raised:
        house.workshop.roll_back(1, second.number, None)
    assert raised.value.reference == "store"
    assert [row.number for row in house.workshop.kept()] == [2, 1]
    assert house.made() is None


def test_a_free_tree_that_was_changed_is_not_believed(house):
    house.write("same.py", "same")
    first = house.made()
    second = house.save("main.py", "two")
    house.workshop.release(1)
    assert house.save("main.py", "three").tree == first.tree
    house.workshop.release(2)
    (house.tree(second) / "same.py").chmod(0o644)
    (house.tree(second) / "same.py").write_text("evil")
    back = house.workshop.roll_back(1, 3, None).generation
    assert back.tree == second.tree
    assert house.files(back) == {"main.py": "one", "same.py": "same"}


def test_other_data_than_then_is_said(house):
    house.write("data/weights.bin", "w")
    house.made()
    house.save("main.py", "two")
    assert not house.workshop.roll_back(1, 2, None).data_moved
    house.save("data/weights.bin", "better")
    assert house.workshop.roll_back(1, 4, None).data_moved


def test_a_directory_that_comes_to_the_old_content_is_no_edit_and_ends_the_rollback(house):
    house.made()
    house.save("main.py", "two")
    house.workshop.roll_back(1, 2, None)
    house.write("main.py", "one")
    assert house.made() is None
    assert house.workshop.latest().origin is None
    assert house.save("main.py", "two").number == 4


def test_after_a_down_the_directory_wins(house):
    house.made()
    house.save("main.py", "two")
    house.workshop.roll_back(1, 2, None)
    house.workshop.follow_directory()
    assert house.files(house.made()) == {"main.py": "two"}


def test_going_back_needs_no_directory(house):
    house.made()
    house.save("main.py", "two")
    (house.source / "main.py").unlink()
    back = house.workshop.roll_back(1, 2, None)
    assert house.files(back.generation) == {"main.py": "one"}
    house.write("main.py", "two")
    assert house.made() is None


def test_pinned_and_active_generations_outlive_the_others(house):
    house.start(reload=ReloadPolicy(keep=2, max_draining=2))
    for number in range(1, 6):
        house.workshop.release(house.save("main.py", str(number)).number)
    house.workshop.pin(1, pinned=True)
    house.workshop.mark(2, "active")
    house.workshop.prune()
    assert [row.number for row in house.workshop.kept()] == [5, 4, 2, 1]
    assert house.files(house.workshop.roll_back(1, 5, None).generation) == {"main.py": "1"}
    house.workshop.pin(1, pinned=False)
    house.workshop.prune()
    assert [row.number for row in house.workshop.kept()] == [6, 5, 2]


def test_a_link_that_leads_to_itself_is_no_file_and_stops_no_reload(house):
    os.symlink("circle", house.source / "circle")
    assert house.files(house.made()) == {"main.py": "one"}
    assert house.files(house.made(["circle", "main.py"]) or house.save("main.py", "two")) == {"main.py": "two"}


@pytest.mark.nonroot
@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every folder: make test-nonroot runs it")
@pytest.mark.parametrize("folder", ["closed", "data/closed"])
def test_a_folder_that_cannot_be_read_is_told(house, folder):
    house.write(f"{folder}/module.py", "")
    (house.source / folder).chmod(0)
    with pytest.raises(SandboxError, match=f"{folder} cannot be read") as caught:
        house.made()
    assert caught.value.reference == "path-permission"
    (house.source / folder).chmod(0o700)
