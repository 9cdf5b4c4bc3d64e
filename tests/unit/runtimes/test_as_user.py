"""The same obligations as an ordinary user: no cgroup may be made, namespaces only where the kernel permits."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from sandbox import isolation

HERE = Path(__file__).parent
REPOSITORY = HERE.parents[2]
USER = 1_234_567

RUN = """
import ctypes, json, os, struct, subprocess, sys
sys.path.insert(0, sys.argv[1])
import isolation
isolation.enter(json.loads(sys.argv[2]))
if sys.argv[4] == "refused":
    # In a Landlock domain that governs files the kernel refuses every mount; moving files (REFER) stays allowed.
    ruleset = isolation.libc.syscall(444, struct.pack("Q", 1 << 11 | 1 << 13), ctypes.c_size_t(8), 0)
    rule = struct.pack("=Qi", 1 << 13, os.open("/", os.O_PATH))
    assert isolation.libc.syscall(445, ruleset, 1, rule, 0) == 0
    assert isolation.libc.syscall(446, ruleset, 0) == 0
os.makedirs("/tmp/home")
environment = {**os.environ, "HOME": "/tmp/home", "PYTHONDONTWRITEBYTECODE": "1"}
environment = {key: value for key, value in environment.items() if not key.startswith(("XDG_", "PYTEST_"))}
os.chdir(sys.argv[3])
sys.exit(subprocess.call([sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *sys.argv[5:]], env=environment))
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="the other tests of this folder run as an ordinary user already")
@pytest.mark.parametrize("mounts", ["permitted", "refused"])
def test_what_root_is_promised_an_ordinary_user_is_promised_or_told(mounts):
    keep = [str(REPOSITORY), sys.prefix, sys.base_prefix, os.path.dirname(os.path.realpath(sys.executable))]
    walls = {
        "namespaces": ["mount"],
        "cover": ["/root", "/home"],
        "keep": keep,
        "user": {"uid": USER, "gid": USER},
        "tmp_size": 1 << 30,
    }
    environment = dict(os.environ)
    # Without a cgroup memory is only watched; all else a user can have too, but for mounts that are refused.
    environment["SANDBOX_REQUIRE_ISOLATION"] = "files,network,pids" if mounts == "permitted" else "network"
    done = subprocess.run(
        [
            sys.executable, "-I", "-c", RUN, str(Path(isolation.__file__).parent), json.dumps(walls), str(REPOSITORY),
            mounts, str(HERE / "test_walls.py"), str(HERE / "test_process.py"),
        ],
        check=False,
        capture_output=True,
        text=True,
        timeout=110,
        env=environment,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    assert " passed" in done.stdout
