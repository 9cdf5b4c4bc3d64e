"""One client that calls back to back over one connection and notes every call. It judges nothing."""

from __future__ import annotations

import http
import http.client
import json
import threading
import time
from typing import Self
from urllib.parse import urlsplit

from tests.bench.figures import Call

BODY = json.dumps({"x": 0.0}).encode()
HEADERS = {"Content-Type": "application/json"}
# After a failure: a client that hammered a port that is closed would take the machine from the server that starts.
BREATH = 0.01


class Caller(threading.Thread):
    """Calls `url` until it is left; a good answer is `{"data": {"prediction": VERSION}}`."""

    def __init__(self, url: str) -> None:
        super().__init__(daemon=True)
        parts = urlsplit(url)
        self._host, self._path = parts.netloc, parts.path
        self.calls: list[Call] = []
        self.trouble = ""
        self._first: dict[int, float] = {}
        self._news = threading.Condition()
        self._ending = threading.Event()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ending.set()
        self.join()

    def run(self) -> None:
        connection = http.client.HTTPConnection(self._host, timeout=60)
        while not self._ending.is_set():
            began = time.perf_counter()
            version = self._call(connection)
            ended = time.perf_counter()
            self.calls.append(Call(began, ended, version))
            if version is None:
                connection.close()
                self._ending.wait(BREATH)
            elif version not in self._first:
                with self._news:
                    self._first[version] = ended
                    self._news.notify_all()
        connection.close()

    def _call(self, connection: http.client.HTTPConnection) -> int | None:
        try:
            connection.request("POST", self._path, BODY, HEADERS)
            answer = connection.getresponse()
            text = answer.read()
        except (OSError, http.client.HTTPException) as error:
            self.trouble = repr(error)
            return None
        version = _version(text) if answer.status == http.HTTPStatus.OK else None
        if version is None:
            self.trouble = text.decode(errors="replace")[:300]
        return version

    def wait(self, version: int, timeout: float) -> float | None:
        """When this version first answered; None where it does not within `timeout` seconds."""
        with self._news:
            self._news.wait_for(lambda: version in self._first, timeout)
        return self._first.get(version)


def _version(text: bytes) -> int | None:
    try:
        return round(json.loads(text)["data"]["prediction"])
    except (ValueError, KeyError, TypeError):
        return None
