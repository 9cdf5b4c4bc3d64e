"""What watchers of others tripped over: each way of saving ends in one batch that names the file, and no other file."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from orchestrator.control import remote
from orchestrator.plan.types import ReloadPolicy
from tests.unit.control.desk import Desk


def vim(file: Path, text: str) -> None:
    """As vim with `backupcopy=no`: is the folder writable? then the file becomes the backup, and is written anew."""
    aside = file.with_name("4913")
    aside.touch()
    aside.unlink()
    swap = file.with_name(f".{file.name}.swp")
    swap.write_text(text)
    backup = file.with_name(f"{file.name}~")
    file.rename(backup)
    file.write_text(text)
    backup.unlink()
    swap.unlink()


def vim_copying(file: Path, text: str) -> None:
    """As vim with `backupcopy=yes`: the file itself is emptied and written."""
    backup = file.with_name(f"{file.name}~")
    shutil.copy2(file, backup)
    file.write_text(text)
    backup.unlink()


def emacs(file: Path, text: str) -> None:
    """A lock that is a link to nothing, an autosave, and a backup by renaming that stays."""
    lock, autosave = file.with_name(f".#{file.name}"), file.with_name(f"#{file.name}#")
    lock.symlink_to("somebody@somewhere.1234:1700000000")
    autosave.write_text(text)
    file.rename(file.with_name(f"{file.name}~"))
    file.write_text(text)
    autosave.unlink()
    lock.unlink()


def jetbrains(file: Path, text: str) -> None:
    """As JetBrains' "safe write"."""
    new, old = file.with_name(f"{file.name}___jb_tmp___"), file.with_name(f"{file.name}___jb_old___")
    new.write_text(text)
    file.rename(old)
    new.rename(file)
    old.unlink()


def vscode(file: Path, text: str) -> None:
    """Emptied, written and flushed in place."""
    with file.open("w") as stream:
        stream.flush()
        stream.write(text)
        stream.flush()
        os.fsync(stream.fileno())


def gedit(file: Path, text: str) -> None:
    """As everything that saves through GLib."""
    new = file.with_name(".goutputstream-ABC123")
    new.write_text(text)
    new.rename(file)


def in_pieces(file: Path, text: str) -> None:
    """As a slow writer: the file is half there for a while, and open."""
    with file.open("w") as stream:
        for letter in text:
            stream.write(letter)
            stream.flush()


SAVES = [vim, vim_copying, emacs, jetbrains, vscode, gedit, in_pieces]


@pytest.mark.parametrize("save", SAVES, ids=lambda save: save.__name__)
async def test_every_editors_way_of_saving_is_one_edit_of_that_file(
    desk: Desk, save: Callable[[Path, str], None]
) -> None:
    source = desk.model("hello")
    await desk.watch()

    save(source / "main.py", "the last content")

    assert (await desk.next()).paths == {"main.py"}
    assert (source / "main.py").read_text() == "the last content"
    # Nothing of it comes later.
    (source / "end.py").write_text("x")
    assert (await desk.next()).paths == {"end.py"}


async def test_a_hundred_saves_in_a_row_are_few_edits_and_the_last_is_after_the_last_save(desk: Desk) -> None:
    source = desk.model("hello")
    await desk.watch()
    for number in range(100):
        gedit(source / "main.py", str(number))
    seen = []
    (source / "end.py").write_text("x")
    while not seen or "end.py" not in seen[-1]:
        seen.append((await desk.next()).paths)
    assert len(seen) <= 10
    assert set().union(*seen) == {"main.py", "end.py"}


async def test_a_file_renamed_in_a_subfolder_is_told_under_both_names(desk: Desk) -> None:
    source = desk.model("hello")
    (source / "pkg").mkdir()
    (source / "pkg" / "old.py").write_text("x")
    await desk.watch()
    (source / "pkg" / "old.py").rename(source / "pkg" / "new.py")
    assert (await desk.next()).paths == {"pkg/old.py", "pkg/new.py"}


async def test_a_file_that_is_written_without_end_keeps_no_save_from_being_told(desk: Desk) -> None:
    source = desk.model("hello", reload=ReloadPolicy(quiet=0.01, max_wait=0.05))
    await desk.watch()
    end = asyncio.Event()

    async def write_on() -> None:
        with (source / "steps.txt").open("a") as steps:
            while not end.is_set():
                steps.write("step\n")
                steps.flush()
                await asyncio.sleep(0.001)

    writing = asyncio.create_task(write_on())
    try:
        await desk.until("hello", "steps.txt")
        (source / "main.py").write_text("two")
        await desk.until("hello", "main.py")
    finally:
        end.set()
        await writing


async def test_a_log_that_is_written_without_end_is_never_told(desk: Desk) -> None:
    source = desk.model("hello", reload=ReloadPolicy(quiet=0.001, max_wait=0.002))
    await desk.watch()
    with (source / "run.log").open("a") as log:
        for _ in range(200):
            log.write("a line\n")
            log.flush()
            await asyncio.sleep(0)
    (source / "main.py").write_text("two")
    assert (await desk.next()).paths == {"main.py"}


async def test_a_checkout_of_two_hundred_files_by_git_itself_is_one_edit(desk: Desk) -> None:
    source = desk.model("hello", reload=ReloadPolicy(quiet=0.005, max_wait=0.01))
    git(desk.folder, "init", "--initial-branch", "main")
    # In the midst of it git stops for a filter, as large files of git-lfs make it do; its lock tells that it goes on.
    git(desk.folder, "config", "filter.slow.smudge", "sleep 0.2; cat")
    (desk.folder / ".gitattributes").write_text("part100.py filter=slow\n")
    names = {f"pkg{number % 7}/part{number}.py" for number in range(200)}
    for branch in ("main", "other"):
        git(desk.folder, "checkout", "-B", branch)
        for name in names:
            (source / name).parent.mkdir(exist_ok=True)
            (source / name).write_text(f"# {branch}\n")
        git(desk.folder, "add", ".")
        git(desk.folder, "commit", "-m", branch)
    await desk.watch()

    await asyncio.to_thread(git, desk.folder, "checkout", "main")

    assert (await desk.next()).paths == names
    (source / "end.py").write_text("x")
    assert (await desk.next()).paths == {"end.py"}


def git(folder: Path, *words: str) -> None:
    identity = ("-c", "user.name=test", "-c", "user.email=test@localhost", "-c", "commit.gpgsign=false")
    subprocess.run(["git", *identity, *words], cwd=folder, check=True, capture_output=True)


# Watches one model under a limit of its own user namespace, saves a file, and prints what it was told.
LIMITED = """
import asyncio, pathlib, sys
from tests.unit.control.desk import Desk

async def main():
    name, value, folder = sys.argv[1:]
    pathlib.Path("/proc/sys/user", name).write_text(value)
    desk = Desk(pathlib.Path(folder))
    source = desk.model("hello")
    for sub in "abcdef":
        (source / sub).mkdir()
    await desk.watch()
    print(*desk.told, flush=True)
    await desk.saved("hello", "f/main.py")
    print("told of f/main.py")
    await desk.batches.aclose()
    await desk.watcher.close()

asyncio.run(main())
"""


@pytest.mark.parametrize(
    ("limit", "value", "setting", "error"),
    [
        ("max_inotify_instances", "0", "fs.inotify.max_user_instances", "EMFILE"),
        ("max_inotify_watches", "3", "fs.inotify.max_user_watches", "ENOSPC"),
    ],
)
def test_where_the_system_has_no_watches_left_the_setting_is_named_and_files_are_polled(
    tmp_path: Path, limit: str, value: str, setting: str, error: str
) -> None:
    namespace = ["unshare", "--user", "--map-root-user"]
    if subprocess.run([*namespace, "true"], check=False, capture_output=True).returncode:
        pytest.skip("no user namespaces here")
    command = [*namespace, sys.executable, "-c", LIMITED, limit, value, str(tmp_path)]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert f"sysctl {setting}=" in done.stdout
    assert error in done.stdout
    assert "told of f/main.py" in done.stdout


@pytest.mark.skipif(os.geteuid() != 0, reason="mounts a file system")
async def test_what_others_write_to_a_remote_file_system_is_looked_for(
    desk: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # What is written beneath an overlay raises no event above it: as what another machine writes to a network share.
    monkeypatch.setattr(remote, "REMOTE", remote.REMOTE | {"overlay"})
    theirs, upper, work, source = (tmp_path / name for name in ("theirs", "upper", "work", "models/hello"))
    for folder in (theirs, upper, work, source):
        folder.mkdir(parents=True)
    (theirs / "main.py").write_text("one")
    options = f"lowerdir={theirs},upperdir={upper},workdir={work}"
    mounting = ["mount", "-t", "overlay", "overlay", "-o", options, str(source)]
    if (await asyncio.to_thread(subprocess.run, mounting, capture_output=True)).returncode:
        pytest.skip("no overlay can be mounted here")
    try:
        desk.models["hello"] = str(source)  # type: ignore[assignment]
        await desk.watch()
        (theirs / "main.py").write_text("written by another machine")
        assert (await desk.next()).paths == {"main.py"}
        await desk.watcher.close()
    finally:
        # Lazily: a thread that looks cannot be cancelled, and may still be in there.
        await asyncio.to_thread(subprocess.run, ["umount", "--lazy", str(source)], check=True)


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        *((kind, True) for kind in ("nfs4", "cifs", "9p", "virtiofs", "fuse", "fuse.sshfs", "fuse.grpcfuse")),
        *((kind, False) for kind in ("", "ext4", "tmpfs", "overlay", "btrfs", "fuseblk", "fuse.fuse-overlayfs")),
    ],
)
def test_remote_file_systems_are_known_by_name(kind: str, *, expected: bool) -> None:
    assert remote.is_remote(kind) == expected


def test_the_mounted_file_systems_are_known_by_their_device(tmp_path: Path) -> None:
    assert remote.mounted()[os.stat("/proc").st_dev] == "proc"
    assert not remote.is_remote(remote.mounted().get(tmp_path.stat().st_dev, ""))
