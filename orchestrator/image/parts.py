"""What either builder is handed: files, settings and names of one build."""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping
from dataclasses import dataclass

from orchestrator.image.index import PackageIndex

NO_PROXY = "127.0.0.1,localhost"


@dataclass(frozen=True, slots=True)
class Parts:
    """One build. folder: private and temporary, holds `context`. tag, labels: of the result.

    base: an image's name, because BuildKit takes an id for a repository.
    """

    folder: str
    context: str
    base: str
    requirements: bool
    index: PackageIndex
    tag: str
    labels: Mapping[str, str]

    def write_secrets(self, urls: Mapping[str, str]) -> Mapping[str, str]:
        """Write the package settings as files; name → path. urls: where the build finds local folders.

        They are to be mounted for the installer's run only, never copied.
        """
        if not self.requirements:
            return {}
        contents = {"pip.conf": self.index.moved(urls).pip_conf().encode()}
        if self.index.certificate:
            with open(self.index.certificate, "rb") as file:
                contents["ca.pem"] = file.read()
        if self.index.proxies:
            # What is served from loopback is never behind a proxy.
            values = {
                key: f"{value},{NO_PROXY}" if key.lower() == "no_proxy" else value for key, value in self.index.proxies
            }
            values = {"NO_PROXY": NO_PROXY, "no_proxy": NO_PROXY} | values
            contents["environment"] = "".join(f"export {k}={shlex.quote(v)}\n" for k, v in values.items()).encode()
        folder = os.path.join(self.folder, "secrets")
        os.mkdir(folder, 0o700)
        paths = {name: os.path.join(folder, name) for name in sorted(contents)}
        for name, path in paths.items():
            with open(path, "wb", opener=lambda p, flags: os.open(p, flags, 0o600)) as file:
                file.write(contents[name])
        return paths
