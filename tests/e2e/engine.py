"""A Docker engine of the tests' own, to be restarted without disturbing the machine's: it knows nothing of sandboxes."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
import uuid
from pathlib import Path

DEADLINE = 30.0
LOOK = 0.05


class Engine:
    """A dockerd with folders, a socket and a network namespace of its own; needs root. `start`, then `restart`."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="sbe"))
        self.address = f"unix://{self.folder}/docker.sock"
        # Not the folder's name, which may end in what a namespace may not end in.
        self._namespace = f"sbe-{uuid.uuid4().hex}"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, *, live_restore: bool) -> None:
        """Start it and wait until it answers."""
        folder = self.folder
        (folder / "daemon.json").write_text(json.dumps({"live-restore": live_restore}))
        # In a network namespace its bridge, its addresses and its rules are nobody else's.
        command = ["unshare", "--net", "dockerd", "--config-file", f"{folder}/daemon.json"]
        command += ["--data-root", f"{folder}/data", "--exec-root", f"{folder}/run", "--pidfile", f"{folder}/pid"]
        command += ["--host", self.address, "--containerd-namespace", self._namespace, "--iptables=false"]
        with (folder / "log").open("ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
        end = time.monotonic() + DEADLINE
        while self._docker("version", check=False).returncode:
            assert self._process.poll() is None, self.log()
            assert time.monotonic() < end, self.log()
            time.sleep(LOOK)

    def stop(self) -> None:
        """End it as a service manager does."""
        assert self._process is not None
        self._process.send_signal(signal.SIGTERM)
        self._process.wait(DEADLINE)

    def restart(self, *, live_restore: bool) -> None:
        self.stop()
        self.start(live_restore=live_restore)

    def copy(self, image: str) -> None:
        """Bring an image of the machine's engine here."""
        saved = subprocess.Popen(["docker", "save", image], stdout=subprocess.PIPE)
        assert saved.stdout is not None
        with saved.stdout:
            self._docker("load", stdin=saved.stdout)
        assert saved.wait(DEADLINE) == 0

    def containers(self) -> list[str]:
        """Ids, of those that ended too."""
        return self._docker("ps", "-aq").stdout.split()

    def close(self) -> None:
        """End it and all that runs in it, and remove its folder."""
        if self._process is not None and self._process.poll() is None:
            if containers := self.containers():
                self._docker("rm", "-f", *containers)
            self.stop()
        subprocess.run(["umount", f"{self.folder}/data"], check=False, capture_output=True)
        shutil.rmtree(self.folder, ignore_errors=True)

    def log(self) -> str:
        return (self.folder / "log").read_text()[-4000:]

    def _docker(self, *words: str, check: bool = True, stdin: object = None) -> subprocess.CompletedProcess[str]:
        environ = {**os.environ, "DOCKER_HOST": self.address}
        return subprocess.run(
            ["docker", *words],
            check=check,
            capture_output=True,
            text=True,
            env=environ,
            stdin=stdin,  # type: ignore[arg-type]
            timeout=DEADLINE,
        )
