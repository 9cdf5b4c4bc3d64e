"""Puts the calling process behind walls: namespaces, a root of its own, a user of its own.

It knows Linux system calls and the instructions that the host wrote; not why they were chosen, and nothing of models.
It must run before threads, descriptors of other files or user code exist. Run as a program it tries its instructions
and exits 0, so that the host learns what this machine permits before it promises anything.

Instructions (`isolation` of the agent's configuration), a JSON object in which every key may be absent:
  namespaces    some of "user", "mount", "network", "ipc"
  cover         [folders that show nothing but what `keep` brings back]; absolute, symbolic links resolved
  hide          [files that show as empty]
  keep          [paths that stay visible, read-only, where a covered folder would hide them]
  binds         [{"source", "target", "read_only"}] made in the new root
  tmpfs         [{"target", "size", "mode"}] made in the new root; a size of null is that of /tmp
  tmp_size      bytes of the private /tmp and of /dev/shm
  user          {"uid", "gid"} to become, or null
  data_limit    bytes that a process may add to its data before the host's watchdog looks again
  processes     how many processes its user may have, where no cgroup limits them
  oom           the cgroup file that counts kills for lack of memory
  not_enforced  [sentences that the host knows already]
"""

import ctypes
import errno
import fcntl
import functools
import json
import operator
import os
import re
import resource
import socket
import stat
import struct
import sys
from typing import Any, Dict, List, Mapping, Optional, Tuple

NAMESPACES = {"user": 0x10000000, "mount": 0x00020000, "network": 0x40000000, "ipc": 0x08000000}

MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC = 1, 2, 4, 8
MS_REMOUNT, MS_NOATIME, MS_NODIRATIME, MS_BIND, MS_REC = 32, 1024, 2048, 4096, 16384
MS_PRIVATE, MS_RELATIME = 1 << 18, 1 << 21
MNT_DETACH = 2
PR_SET_DUMPABLE, PR_SET_NO_NEW_PRIVS, PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL = 4, 38, 47, 4
PIVOT_ROOT = {"x86_64": 155, "i686": 217, "ppc64le": 203, "s390x": 217}  # every other Linux: 41

_FLAGS = {
    "ro": MS_RDONLY,
    "nosuid": MS_NOSUID,
    "nodev": MS_NODEV,
    "noexec": MS_NOEXEC,
    "noatime": MS_NOATIME,
    "nodiratime": MS_NODIRATIME,
    "relatime": MS_RELATIME,
}
_TMP_SIZE = 1 << 28  # bytes of /tmp unless the instructions say otherwise
# The rule against these names is about files made in a shared folder; here the folders themselves are replaced.
TMP, VAR_TMP, SHM = "/tmp", "/var/tmp", "/dev/shm"  # noqa: S108

libc = ctypes.CDLL(None, use_errno=True)


class IsolationError(Exception):
    """A wall that was asked for could not be put up; the message says which and why."""


def enter(instructions: Optional[Mapping[str, Any]]) -> List[str]:
    """Put up every wall in `instructions` and return, a sentence each, what is not enforced.

    None (a container: the engine did it) does nothing. Raises IsolationError, and the caller must not go on then:
    the host asks only for what it tried before.
    """
    if instructions is None:
        return []
    sentences = [str(sentence) for sentence in instructions.get("not_enforced", [])]
    spaces = list(instructions.get("namespaces", []))
    _unshare(spaces)
    if "mount" in spaces:
        _Root(instructions).build()
    if "network" in spaces:
        _loopback_up()
    _limit_data(instructions.get("data_limit"))
    _limit(resource.RLIMIT_NPROC, instructions.get("processes"))
    user = instructions.get("user")
    if user:
        _become(int(user["uid"]), int(user["gid"]))
    _drop_capabilities()
    if "user" in spaces:
        # Its memory, and its root under /proc, need a capability in the user namespace that those processes are in.
        sentences.append("processes: a model runs as your own user and can signal your other processes")
    return sentences


def oom_file(instructions: Optional[Mapping[str, Any]]) -> Optional[str]:
    """The file of this replica's own cgroup that counts kills for lack of memory; None where it has none."""
    path = (instructions or {}).get("oom")
    return str(path) if path else None


def oom_kills(instructions: Optional[Mapping[str, Any]]) -> Optional[int]:
    """How many processes of this replica the kernel killed for lack of memory; None where it does not tell."""
    path = oom_file(instructions)
    if not path:
        return None
    try:
        with open(path, encoding="ascii") as file:
            found = re.search(r"^oom_kill (\d+)$", file.read(), re.MULTILINE)
    except OSError:
        return None
    return int(found.group(1)) if found else None


def _check(result: int, doing: str) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise IsolationError("%s: %s" % (doing, os.strerror(number)))
    return result


def _unshare(spaces: List[str]) -> None:
    flags = 0
    for space in spaces:
        flags |= NAMESPACES[space]
    if not flags:
        return
    uid, gid = os.getuid(), os.getgid()
    _check(libc.unshare(flags), "namespaces %s" % ", ".join(spaces))
    if "user" in spaces:
        for name, text in (
            ("setgroups", "deny"),
            ("uid_map", "%d %d 1" % (uid, uid)),
            ("gid_map", "%d %d 1" % (gid, gid)),
        ):
            try:
                with open("/proc/self/" + name, "w", encoding="ascii") as file:
                    file.write(text)
            except OSError as error:
                raise IsolationError("user namespace: %s: %s" % (name, error.strerror)) from error


class _Root:
    """The root that the process sees: a read-only copy of the host's, with holes, and with what it was given."""

    def __init__(self, instructions: Mapping[str, Any]) -> None:
        self.cover = _topmost(["/run", TMP, VAR_TMP, *instructions.get("cover", [])])
        self.hide = list(instructions.get("hide", []))
        self.keep = list(instructions.get("keep", []))
        self.binds = list(instructions.get("binds", []))
        self.tmpfs = list(instructions.get("tmpfs", []))
        self.tmp_size = int(instructions.get("tmp_size") or _TMP_SIZE)
        self.tmp = "mode=1777,size=%d" % self.tmp_size
        self.made: List[str] = []  # host folders replaced by a tmpfs, to make mount points in
        self.new = TMP  # where the new root is put together; its own /tmp is another

    def build(self) -> None:
        """Put the root together beside the old one and move into it."""
        _mount("none", "/", "", MS_REC | MS_PRIVATE)
        # Opened before anything is covered: a descriptor still leads there afterwards.
        kept = {path: os.open(path, os.O_PATH | os.O_CLOEXEC) for path in self.keep if _inside(path, self.cover)}
        given = [(os.open(bind["source"], os.O_PATH | os.O_CLOEXEC), bind) for bind in self.binds]
        entries = self._host_entries()
        _mount("tmpfs", self.new, "tmpfs", MS_NOSUID | MS_NODEV, "mode=0755,size=16m")
        for name, descriptor in entries.items():
            self._entry("/" + name, descriptor, os.readlink("/" + name) if os.path.islink("/" + name) else None)
        _remount_read_only(self.new, but=[self.new, self.new + "/proc"])
        self._cover()
        for path, descriptor in kept.items():
            self._bind(descriptor, path, read_only=True)
        for descriptor, bind in given:
            self._bind(descriptor, bind["target"], read_only=bool(bind.get("read_only", True)))
        for folder in self.tmpfs:
            self._memory(folder)
        for descriptor in [*entries.values(), *kept.values(), *(number for number, _ in given)]:
            os.close(descriptor)
        self._seal()
        self._pivot()

    def _host_entries(self) -> Dict[str, int]:
        found = {}
        for name in os.listdir("/"):
            found[name] = os.open("/" + name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
        return found

    def _entry(self, path: str, descriptor: int, link: Optional[str]) -> None:
        target = self.new + path
        mode = os.fstat(descriptor).st_mode
        if link is not None:
            os.symlink(link, target)
        elif path in self.cover:
            os.mkdir(target, 0o755)
        elif stat.S_ISDIR(mode):
            os.mkdir(target, 0o755)
            _mount("/proc/self/fd/%d" % descriptor, target, "", MS_BIND | MS_REC)
        elif stat.S_ISREG(mode):
            os.close(os.open(target, os.O_CREAT | os.O_WRONLY, 0o644))
            _mount("/proc/self/fd/%d" % descriptor, target, "", MS_BIND)

    def _cover(self) -> None:
        for path in self.cover:
            if path.count("/") > 1 and os.path.isdir(self.new + path):
                _unmount_inside(self.new + path)
                _mount("tmpfs", self.new + path, "tmpfs", MS_NOSUID | MS_NODEV, "mode=0755,size=1m")
        if os.path.isdir(self.new + TMP):
            _mount("tmpfs", self.new + TMP, "tmpfs", MS_NOSUID | MS_NODEV, self.tmp)
        if os.path.isdir(self.new + SHM):
            _mount("tmpfs", self.new + SHM, "tmpfs", MS_NOSUID | MS_NODEV, self.tmp)
        for path in self.hide:
            if not _inside(path, self.cover) and os.path.exists(self.new + path):
                _mount(self.new + "/dev/null", self.new + path, "", MS_BIND)

    def _bind(self, descriptor: int, path: str, read_only: bool) -> None:
        source, target = "/proc/self/fd/%d" % descriptor, self.new + path
        try:
            if not os.path.exists(target):
                self._make_room(os.path.dirname(path))
            if stat.S_ISDIR(os.fstat(descriptor).st_mode):
                os.makedirs(target, mode=0o755, exist_ok=True)
            elif not os.path.exists(target):
                os.makedirs(os.path.dirname(target), mode=0o755, exist_ok=True)
                os.close(os.open(target, os.O_CREAT | os.O_WRONLY, 0o644))
        except OSError as error:
            raise IsolationError("%s cannot be made here: %s" % (path, os.strerror(error.errno or 0))) from error
        _mount(source, target, "", MS_BIND | MS_REC)
        if read_only:
            _remount_read_only(target, but=[])

    def _memory(self, folder: Mapping[str, Any]) -> None:
        path = str(folder["target"])
        try:
            if not os.path.exists(self.new + path):
                self._make_room(os.path.dirname(path))
            os.makedirs(self.new + path, mode=0o755, exist_ok=True)
        except OSError as error:
            raise IsolationError("%s cannot be made here: %s" % (path, os.strerror(error.errno or 0))) from error
        options = "mode=%o,size=%d" % (int(folder["mode"]), int(folder["size"] or self.tmp_size))
        _mount("tmpfs", self.new + path, "tmpfs", MS_NOSUID | MS_NODEV, options)

    def _make_room(self, folder: str) -> None:
        """Let something be made in `folder` without touching the host's: its entries move into a tmpfs in its place."""
        while not os.path.isdir(self.new + folder):
            folder = os.path.dirname(folder)
        if folder == "/" or folder in self.made or _inside(folder, self.cover):
            return
        target = self.new + folder
        names = os.listdir(target)
        entries = {name: os.open(target + "/" + name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC) for name in names}
        links = {name: os.readlink(target + "/" + name) for name in names if os.path.islink(target + "/" + name)}
        _mount("tmpfs", target, "tmpfs", MS_NOSUID | MS_NODEV, "mode=0755,size=1m")
        self.made.append(folder)
        for name, descriptor in entries.items():
            self._entry(folder + "/" + name, descriptor, links.get(name))
            os.close(descriptor)
        _remount_read_only(target, but=[target])

    def _seal(self) -> None:
        """Nothing more is made in the folders that only hold mount points."""
        flags = MS_REMOUNT | MS_BIND | MS_RDONLY | MS_NOSUID | MS_NODEV
        writable = {self.new + TMP, self.new + SHM}
        for path in [*(self.new + path for path in self.cover + self.made), self.new]:
            if path not in writable and (path == self.new or os.path.ismount(path)):
                _mount("none", path, "", flags)

    def _pivot(self) -> None:
        os.chdir(self.new)
        number = PIVOT_ROOT.get(os.uname().machine, 41)
        _check(libc.syscall(number, b".", b"."), "pivot_root")
        _check(libc.umount2(b".", MNT_DETACH), "umount the host's root")
        os.chdir("/")


def _topmost(paths: List[str]) -> List[str]:
    """Without those that lie inside another one; "/" cannot be covered."""
    real = sorted({os.path.realpath(path) for path in paths if os.path.isdir(path)} - {"/"})
    return [path for path in real if not _inside(os.path.dirname(path), real)]


def _inside(path: str, folders: List[str]) -> bool:
    return any(path == folder or path.startswith(folder + "/") for folder in folders)


def _mount(source: str, target: str, kind: str, flags: int, data: str = "") -> None:
    result = libc.mount(
        os.fsencode(source), os.fsencode(target), kind.encode(), ctypes.c_ulong(flags), data.encode() if data else None
    )
    _check(result, "mount %s" % target)


def _mounts(prefix: str) -> List[Tuple[str, int]]:
    """The mounts at or below `prefix`, in the order they were made: (mount point, its flags)."""
    found = []
    with open("/proc/self/mountinfo", "rb") as file:
        for line in file:
            row = line.split()
            path = os.fsdecode(re.sub(rb"\\([0-7]{3})", lambda octal: bytes([int(octal.group(1), 8)]), row[4]))
            if _inside(path, [prefix]):
                flags = [_FLAGS.get(option, 0) for option in row[5].decode("ascii").split(",")]
                found.append((path, functools.reduce(operator.or_, flags, 0)))
    return found


def _unmount_inside(folder: str) -> None:
    """Let go of mounts that a cover would only hide: they would keep other replicas' memory alive.

    In a user namespace the host's mounts are locked and stay, hidden.
    """
    for path, _ in reversed(_mounts(folder)):
        if path != folder:
            libc.umount2(os.fsencode(path), MNT_DETACH)


def _remount_read_only(prefix: str, but: List[str]) -> None:
    """Make every mount at or below `prefix` read-only, except those in `but`.

    The flags that a mount has must be named again: dropping one is refused in a user namespace.
    """
    # Of several mounts on one path the last is the one that the path names.
    for path, had in dict(_mounts(prefix)).items():
        if path in but:
            continue
        flags = had | MS_REMOUNT | MS_BIND | MS_RDONLY
        if libc.mount(b"none", os.fsencode(path), None, ctypes.c_ulong(flags), None) < 0:
            number = ctypes.get_errno()
            # A mount under another one cannot be named, nor can it be reached.
            if number not in (errno.EINVAL, errno.ENOENT, errno.EACCES):
                raise IsolationError("%s cannot be made read-only: %s" % (path, os.strerror(number)))


def _loopback_up() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as channel:
        request = struct.pack("16sh22x", b"lo", 0)
        try:
            flags = struct.unpack("16sh22x", fcntl.ioctl(channel, 0x8913, request))[1]  # SIOCGIFFLAGS
            fcntl.ioctl(channel, 0x8914, struct.pack("16sh22x", b"lo", flags | 1))  # SIOCSIFFLAGS, IFF_UP
        except OSError as error:
            raise IsolationError("loopback: %s" % error.strerror) from error


def _limit_data(extra: Optional[int]) -> None:
    if extra:
        with open("/proc/self/status", encoding="ascii", errors="replace") as file:
            found = re.search(r"^VmData:\s*(\d+) kB", file.read(), re.MULTILINE)
        _limit(resource.RLIMIT_DATA, int(extra) + (int(found.group(1)) * 1024 if found else 0))


def _limit(which: int, value: Optional[int]) -> None:
    hard = resource.getrlimit(which)[1]
    if value and (hard == resource.RLIM_INFINITY or value < hard):
        resource.setrlimit(which, (value, value))


def _become(uid: int, gid: int) -> None:
    try:
        os.setgroups([])
        os.setresgid(gid, gid, gid)
        os.setresuid(uid, uid, uid)
    except OSError as error:
        raise IsolationError("user %d: %s" % (uid, error.strerror)) from error


def _drop_capabilities() -> None:
    _check(libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "no_new_privs")
    libc.prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0)
    if os.getuid() != 0:
        header, nothing = struct.pack("Ii", 0x20080522, 0), bytes(24)  # _LINUX_CAPABILITY_VERSION_3, this thread
        _check(libc.capset(header, nothing), "capabilities")
    # A change of user makes /proc/self root's, and with it oom_score_adj and fd of every worker.
    _check(libc.prctl(PR_SET_DUMPABLE, 1, 0, 0, 0), "dumpable")


if __name__ == "__main__":
    try:
        print(json.dumps(enter(json.loads(sys.argv[1]))))
    except IsolationError as error:
        sys.exit(str(error))
