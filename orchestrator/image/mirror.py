"""Serves local package folders to a build over loopback HTTP, read-only, under a path that cannot be guessed.

BuildKit reads no folder where it lies: it would copy all of it into its store first, gigabytes for a mirror of which
a build takes a few files.
"""

from __future__ import annotations

import functools
import http.server
import os
import secrets
import threading
from collections.abc import Sequence
from types import TracebackType
from typing import Self
from urllib.parse import unquote, urlsplit


class Mirror:
    """A server of `folders` while its context is open. urls: each folder → the URL at which a build finds it."""

    def __init__(self, folders: Sequence[str]) -> None:
        self._token = secrets.token_urlsafe(24)
        roots = {f"{self._token}/{number}": folder for number, folder in enumerate(folders)}
        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(_Files, roots))
        self._server.daemon_threads = True
        host, port = "127.0.0.1", self._server.server_address[1]
        self.urls = {folder: f"http://{host}:{port}/{key}" for key, folder in roots.items()}
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True, name="mirror")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Files(http.server.SimpleHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = 30

    def __init__(self, roots: dict[str, str], *arguments: object) -> None:
        self._roots = roots
        super().__init__(*arguments)  # type: ignore[arg-type]

    def translate_path(self, path: str) -> str:
        token, _, rest = unquote(urlsplit(path).path).lstrip("/").partition("/")
        number, _, inside = rest.partition("/")
        root = self._roots.get(f"{token}/{number}")
        if root is None:
            return os.devnull + "/nothing"
        wanted = os.path.realpath(os.path.join(root, inside))
        inner = os.path.realpath(root)
        # Links that lead out of the folder are not part of what was offered.
        if wanted != inner and not wanted.startswith(inner + "/"):
            return os.devnull + "/nothing"
        return wanted + ("/" if inside.endswith("/") else "")

    def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002 (the name is inherited)
        """Say nothing: the installer tells what it fetches."""
