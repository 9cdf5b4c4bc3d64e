"""What people and their editors do to files, and what the watcher makes of it. Real files, real notifications."""

import asyncio
import os
import shutil

from orchestrator.control.inotify import Inotify, exhausted
from orchestrator.control.notify import Notice
from orchestrator.control.portable import Portable
from orchestrator.plan.types import ReloadPolicy


async def test_a_save_is_told_by_its_path(desk):
    source = desk.model("hello")
    desk.model("other")
    await desk.watch()
    (source / "main.py").write_text("two")
    batch = await desk.next()
    assert (batch.model, batch.paths) == ("hello", {"main.py"})


async def test_a_save_by_renaming_over_is_told_as_the_file_alone(desk):
    source = desk.model("hello")
    await desk.watch()
    for dropping in ("4913", ".main.py.swp", "main.py~", ".#main.py", "main.py___jb_tmp___", ".DS_Store"):
        (source / dropping).write_text("x")
        (source / dropping).unlink()
    (source / "main.py___jb_tmp___").write_text("two")
    os.replace(source / "main.py___jb_tmp___", source / "main.py")
    assert await desk.until("hello", "main.py") == {"main.py"}


async def test_droppings_caches_and_logs_alone_are_no_save(desk):
    source = desk.model("hello")
    (source / "__pycache__").mkdir()
    await desk.watch()
    (source / "__pycache__" / "main.cpython-311.pyc").write_text("x")
    (source / "run.log").write_text("x")
    (source / ".git").mkdir()
    (source / ".git" / "HEAD").write_text("x")
    (source / "last.py").write_text("x")
    assert await desk.until("hello", "last.py") == {"last.py"}


async def test_a_new_subfolder_is_told_and_watched(desk):
    source = desk.model("hello")
    await desk.watch()
    (source / "a" / "b").mkdir(parents=True)
    (source / "a" / "b" / "c.py").write_text("x")
    assert "a" in await desk.until("hello", "a")
    (source / "a" / "b" / "d.py").write_text("x")
    await desk.until("hello", "a/b/d.py")


async def test_a_renamed_subfolder_is_watched_under_its_new_name(desk):
    source = desk.model("hello")
    (source / "a").mkdir()
    await desk.watch()
    os.rename(source / "a", source / "z")
    assert await desk.until("hello", "z") == {"a", "z"}
    (source / "z" / "b.py").write_text("x")
    assert await desk.until("hello", "z/b.py") == {"z/b.py"}


async def test_a_deleted_and_recreated_subfolder_is_watched_again(desk):
    source = desk.model("hello")
    (source / "a").mkdir()
    await desk.watch()
    for number in range(5):
        shutil.rmtree(source / "a")
        (source / "a").mkdir()
        await desk.until("hello", "a")
        (source / "a" / f"{number}.py").write_text("x")
        await desk.until("hello", f"a/{number}.py")


async def test_a_deleted_and_restored_model_directory_is_watched_again(desk):
    source = desk.model("hello")
    await desk.watch()
    shutil.rmtree(source)
    await desk.until("hello", "*")
    desk.model("hello")
    await desk.until("hello", "*")
    (source / "new.py").write_text("x")
    await desk.until("hello", "new.py")


async def test_a_model_directory_that_is_replaced_at_one_stroke_is_watched_again(desk):
    source = desk.model("hello")
    (source / "a").mkdir()
    await desk.watch()
    for number in range(3):
        shutil.rmtree(source)
        desk.model("hello")
        (source / "a").mkdir()
        await desk.until("hello", "*")
        (source / "a" / f"{number}.py").write_text("x")
        await desk.until("hello", f"a/{number}.py")


async def test_a_model_directory_whose_parent_is_renamed_and_made_anew_is_watched_again(desk):
    source = desk.model("hello")
    await desk.watch()
    os.rename(desk.folder / "models", desk.folder / "away")
    await desk.until("hello", "*")
    desk.model("hello")
    await desk.until("hello", "*")
    (source / "new.py").write_text("x")
    await desk.until("hello", "new.py")


async def test_a_linked_model_directory_and_a_link_inside_are_followed(desk):
    source = desk.model("hello")
    shared = desk.folder / "shared"
    shared.mkdir()
    (desk.folder / "one.py").write_text("x")
    os.symlink("../../shared", source / "lib")
    os.symlink("../../one.py", source / "one.py")
    os.symlink("..", source / "up")
    link = desk.folder / "linked"
    os.symlink(source, link)
    desk.models = {"hello": str(link)}
    await desk.watch()
    (shared / "part.py").write_text("x")
    await desk.until("hello", "lib/part.py")
    (desk.folder / "one.py").write_text("y")
    await desk.until("hello", "one.py")
    other = desk.model("other")
    os.unlink(link)
    os.symlink(other, link)
    await desk.until("hello", "*")
    (other / "main.py").write_text("z")
    await desk.until("hello", "main.py")


async def test_data_written_by_the_model_is_no_save_and_starves_none(desk):
    source = desk.model("hello", data_writable=True)
    (source / "data" / "deep").mkdir(parents=True)
    await desk.watch()
    for number in range(100):
        (source / "data" / "deep" / "state").write_text(str(number))
    (source / "data" / "new").mkdir()
    (source / "main.py").write_text("two")
    assert await desk.until("hello", "main.py") == {"main.py"}


async def test_data_is_told_apart_from_a_save_and_later(desk):
    source = desk.model("hello")
    (source / "data").mkdir()
    await desk.watch()
    (source / "data" / "weights").write_text("w")
    (source / "main.py").write_text("two")
    assert (await desk.next()).paths == {"main.py"}
    assert (await desk.next()).paths == {"data/weights"}


async def test_the_sandboxes_own_files_are_told_by_their_whole_path(desk):
    desk.model("hello")
    spec = desk.folder / "sandbox.yaml"
    absent = desk.folder / ".env"
    spec.write_text("a")
    desk.files = {str(spec), str(absent)}
    await desk.watch()
    (desk.folder / "unrelated").write_text("x")
    (desk.folder / "aside").write_text("b")
    os.replace(desk.folder / "aside", spec)
    assert await desk.until(None, str(spec)) == {str(spec)}
    absent.write_text("X=1")
    await desk.until(None, str(absent))


async def test_a_checkout_under_gits_lock_is_one_batch(desk):
    source = desk.model("hello", reload=ReloadPolicy(quiet=0.001))
    (desk.folder / ".git").mkdir()
    lock = desk.folder / ".git" / "index.lock"
    await desk.watch()
    lock.write_text("")
    (source / "main.py").write_text("two")
    told = asyncio.ensure_future(desk.next())
    done, _ = await asyncio.wait([told], timeout=0.1)
    assert not done
    (source / "other.py").write_text("two")
    lock.unlink()
    assert (await told).paths == {"main.py", "other.py"}


async def test_saves_that_come_while_one_is_worked_on_arrive_as_one(desk):
    source = desk.model("hello", reload=ReloadPolicy(quiet=0.001, max_wait=0.002))
    other = desk.model("other", reload=ReloadPolicy(quiet=0.001, max_wait=0.002))
    await desk.watch()
    before = asyncio.get_running_loop().time()
    (source / "a.py").write_text("x")
    (other / "end.py").write_text("x")
    first = await desk.next()
    while first.model != "other":
        (source / "b.py").write_text("x")
        first = await desk.next()
    (source / "c.py").write_text("x")
    assert before <= (await desk.next()).seen_at


async def test_watching_another_set_loses_no_save_in_between(desk):
    source = desk.model("hello")
    await desk.watch()
    (source / "main.py").write_text("two")
    added = desk.model("added")
    desk.watcher.watch(desk.models, desk.files)
    seen = {}
    while set(seen) != {"hello", "added"}:
        batch = await desk.next()
        seen[batch.model] = batch.paths
    assert seen == {"hello": {"main.py"}, "added": None}
    del desk.models["hello"]
    desk.watcher.watch(desk.models, desk.files)
    (source / "main.py").write_text("three")
    (added / "main.py").write_text("two")
    assert (await desk.next()).model == "added"


async def test_lost_news_let_everything_be_looked_at(desk):
    desk.model("hello")
    await desk.watch()
    desk.watcher._hear(Notice(None))
    assert (await desk.next()).paths is None


async def test_exhausted_watches_are_said_with_the_setting_and_polled_instead(desk):
    def refuse(_):
        raise exhausted(28)

    desk.use(refuse)
    desk.model("hello")
    await desk.watch()
    (message,) = desk.told
    assert "sysctl fs.inotify.max_user_watches=" in message
    await desk.saved("hello", "main.py")
    shutil.rmtree(desk.models["hello"].path)
    await desk.until("hello", "*")
    desk.model("hello")
    await desk.until("hello", "*")
    await desk.saved("hello", "main.py")


async def test_too_few_watches_midway_fall_back_too(desk, monkeypatch):
    real = Inotify.arm
    left = [3]

    def arm(self, folder):
        left[0] -= 1
        if left[0] < 0:
            raise exhausted(28)
        real(self, folder)

    monkeypatch.setattr(Inotify, "arm", arm)
    source = desk.model("hello")
    for name in "abc":
        (source / name).mkdir()
    await desk.watch()
    assert len(desk.told) == 1
    await desk.saved("hello", "c/deep.py")


async def test_the_portable_watch_tells_the_same(desk):
    desk.use(Portable)
    source = desk.model("hello")
    await desk.watch()
    await desk.saved("hello", "main.py")
    (source / "a").mkdir()
    await desk.saved("hello", "a/b.py")
