"""A client of control's management API: HTTP over its unix socket. Standard library only; it starts nothing itself."""

from __future__ import annotations

import http.client
import json
import os
import socket
import time
import urllib.parse
from collections.abc import Generator, Mapping
from typing import Any

from orchestrator import folders
from orchestrator.errors import REFERENCES, SandboxError

# Control answers from memory; what takes long it streams.
ANSWER_DEADLINE = 15.0
# A dead control is back within this where its keeper lives.
RESTART_DEADLINE = 5.0
RETRY_INTERVAL = 0.02

Json = dict[str, Any]


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("sandbox", timeout=ANSWER_DEADLINE)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        with folders.socket_address(self._path) as address:
            self.sock.connect(address)


def target(path: str, query: Mapping[str, str | None]) -> str:
    """A path with its query; what is None or empty is left out."""
    given = {key: value for key, value in query.items() if value}
    return f"{path}?{urllib.parse.urlencode(given)}" if given else path


class ControlClient:
    """Calls on the control process of one sandbox. Every failure is a SandboxError."""

    def __init__(self, place: folders.Folders) -> None:
        self._place = place

    def get(self, path: str) -> Json:
        """The JSON object that `GET path` answers with."""
        return self._answer("GET", path, None)

    def post(self, path: str, body: Json) -> Json:
        """The JSON object that `POST path` answers with."""
        return self._answer("POST", path, body)

    def _answer(self, method: str, path: str, body: Json | None) -> Json:
        connection, response = self._call(method, path, body)
        try:
            return _object(response.read())
        except (OSError, http.client.HTTPException) as error:
            raise _broken(error) from error
        finally:
            connection.close()

    def stream(self, method: str, path: str, body: Json | None = None) -> Generator[Json, None, None]:
        """Each object of a JSON Lines answer as it comes. Closing the iterator hangs up.

        Raises SandboxError("control") where control dies in between.
        """
        connection, response = self._call(method, path, body)
        return self._lines(connection, response)

    @staticmethod
    def _lines(
        connection: http.client.HTTPConnection, response: http.client.HTTPResponse
    ) -> Generator[Json, None, None]:
        try:
            # From here on silence is normal: a build may have nothing to say for minutes.
            if connection.sock is not None:
                connection.sock.settimeout(None)
            while line := response.readline():
                yield _object(line)
        except (OSError, http.client.HTTPException) as error:
            raise _broken(error) from error
        finally:
            connection.close()

    def _call(
        self, method: str, path: str, body: Json | None
    ) -> tuple[http.client.HTTPConnection, http.client.HTTPResponse]:
        payload = None if body is None else json.dumps(body).encode()
        headers = {"Content-Type": "application/json"} if payload else {}
        connection = self._connect()
        try:
            connection.request(method, path, body=payload, headers=headers)
            response = connection.getresponse()
            if response.status >= http.HTTPStatus.BAD_REQUEST:
                raise _refusal(response.status, response.read())
        except (OSError, http.client.HTTPException) as error:
            connection.close()
            raise _broken(error) from error
        except SandboxError:
            connection.close()
            raise
        return connection, response

    def _connect(self) -> _UnixConnection:
        deadline = time.monotonic() + RESTART_DEADLINE
        while True:
            connection = _UnixConnection(self._place.control_socket)
            try:
                connection.connect()
            except OSError as error:
                connection.close()
                if not keeper_lives(self._place):
                    raise not_running(self._place) from error
                if time.monotonic() >= deadline:
                    raise _unanswered(self._place) from error
                time.sleep(RETRY_INTERVAL)
            else:
                return connection


def keeper_lives(place: folders.Folders) -> bool:
    """Whether somebody watches over this sandbox."""
    return folders.living(folders.read_json(place.keeper_record))


def not_running(place: folders.Folders) -> SandboxError:
    return SandboxError("not-running", f"no sandbox runs in {place.directory}", hint="start it with: sandbox up")


def _unanswered(place: folders.Folders) -> SandboxError:
    log = os.path.join(place.logs, "control.log")
    last = last_line(log)
    message = "the control process does not answer" + (f": {last}" if last else "")
    return SandboxError("control", message, hint=f"its log: {os.path.relpath(log)}")


def last_line(path: str) -> str:
    """What a log says last, "" where it says nothing."""
    try:
        with open(path, "rb") as file:
            file.seek(max(0, os.path.getsize(path) - 4096))
            lines = file.read().decode(errors="replace").split("\n")
    except OSError:
        return ""
    return next((line.strip() for line in reversed(lines) if line.strip()), "")


def _object(data: bytes) -> Json:
    try:
        value = json.loads(data)
    except ValueError as error:
        raise SandboxError("control", "the control process sent something that is not JSON") from error
    if not isinstance(value, dict):
        raise SandboxError("control", "the control process sent something that is not a JSON object")
    if isinstance(value.get("error"), dict) and "reference" in value["error"]:
        raise error_from(value["error"])
    return value


def error_from(found: Mapping[str, Any]) -> SandboxError:
    """The SandboxError that another process put on the wire."""
    reference = str(found.get("reference"))
    known = reference if reference in REFERENCES else "control"
    message, hint, at = (str(found.get(key) or "") for key in ("message", "hint", "at"))
    return SandboxError(known, message, hint=hint, at=at)


def _refusal(status: int, body: bytes) -> SandboxError:
    try:
        _object(body)
    except SandboxError as error:
        if b'"reference"' in body:
            return error
    return SandboxError("control", f"the control process answered with HTTP {status}")


def _broken(error: Exception) -> SandboxError:
    if isinstance(error, TimeoutError):
        return SandboxError("control", f"the control process did not answer within {ANSWER_DEADLINE:.0f} s")
    return SandboxError("control", f"the control process hung up: {error}", hint="it is restarted: try again")
