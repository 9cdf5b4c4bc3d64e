"""predict: calling a model through the gateway as any client would. It knows HTTP, nothing of control's insides."""

from __future__ import annotations

import argparse
import http.client
import json
import os
import shlex
import sys
import urllib.parse
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from orchestrator.commands.session import Session, add_command
from orchestrator.errors import SandboxError, near
from orchestrator.folders import POLICY, Folders, read_json

if TYPE_CHECKING:
    from orchestrator.commands.session import Subparsers

Json = dict[str, Any]
CONNECT_DEADLINE = 10.0
INFO_DEADLINE = 2.0
# A longer example is no use in a terminal.
LONGEST_EXAMPLE = 160


def register(commands: Subparsers) -> None:
    parser = add_command(
        commands,
        "predict",
        predict,
        "call a model and print its prediction as JSON",
        """
        sandbox predict hello x=5.5
        sandbox predict hello '{"x": 5.5}'
        sandbox predict digits @digit.json
        echo '{"x": 5.5}' | sandbox predict hello -
        """,
    )
    parser.add_argument("model", metavar="MODEL", help="the model to call")
    parser.add_argument(
        "input", nargs="+", metavar="INPUT", help="a JSON object, @FILE, - (standard input), or KEY=VALUE …"
    )
    parser.add_argument(
        "--format", choices=("prediction", "json"), default="prediction", help="json: the whole answer (prediction)"
    )


def predict(args: argparse.Namespace, session: Session) -> int:
    body = model_input(args.input)
    found, key = session.connect().get("/api/models"), own_key(session.place())
    names = [row["name"] for row in found["models"]]
    if args.model not in names:
        hint = near(args.model, names) or f"there are: {', '.join(names) or 'none'}"
        raise SandboxError("unknown-model", f"no model {args.model} runs here", hint=hint)
    status, answer = _call("POST", f"{found['sandbox']['url']}/models/{args.model}/predict", body, key=key)
    if status >= http.HTTPStatus.BAD_REQUEST or not answer.get("success", True):
        raise _refused(status, answer, found["sandbox"]["url"], args.model)
    data = answer.get("data")
    if args.format == "json":
        session.screen.json(answer, indent=2)
    else:
        session.screen.json(data["prediction"] if isinstance(data, dict) and "prediction" in data else data)
    return 0


def model_input(words: Sequence[str]) -> bytes:
    """The request's body. Raises SandboxError("usage")."""
    first = words[0]
    if len(words) == 1 and (first == "-" or first[0:1] in ("@", "{", "[")):
        return _json_text(first)
    found: Json = {}
    for word in words:
        key, equals, value = word.partition("=")
        if not equals or not key:
            hint = "write KEY=VALUE, a JSON object, @FILE or -"
            raise SandboxError("usage", f"{word!r} is no input for a model", hint=hint)
        try:
            found[key] = json.loads(value)
        except ValueError:
            found[key] = value
    return json.dumps(found).encode()


def _json_text(word: str) -> bytes:
    where = "standard input" if word == "-" else word.removeprefix("@") if word.startswith("@") else "the input"
    try:
        if word == "-":
            text = sys.stdin.read()
        elif word.startswith("@"):
            with open(word[1:], encoding="utf-8") as file:
                text = file.read()
        else:
            text = word
        json.loads(text)
    except OSError as error:
        raise SandboxError("usage", f"{where} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise SandboxError(
            "usage", f"{where} is not JSON: {error}", hint="quote it for the shell: '{\"x\": 1}'"
        ) from error
    return text.encode()


def own_key(place: Folders) -> str | None:
    """The key that control made for this user's commands; None where the gateway asks for none."""
    key = (read_json(os.path.join(place.state, POLICY)) or {}).get("key")
    return str(key) if key else None


def _call(
    method: str, url: str, body: bytes | None = None, deadline: float | None = None, key: str | None = None
) -> tuple[int, Json]:
    """One request to the gateway. The answer may take as long as the model does; only connecting has our deadline."""
    parts = urllib.parse.urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=deadline or CONNECT_DEADLINE)
    try:
        connection.connect()
        if deadline is None and connection.sock is not None:
            connection.sock.settimeout(None)
        headers = {"Accept": "application/json", **({"Content-Type": "application/json"} if body else {})}
        headers |= {"X-API-Key": key} if key else {}
        connection.request(method, parts.path, body=body, headers=headers)
        response = connection.getresponse()
        answer = json.loads(response.read())
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise SandboxError("request", f"no answer from {url}: {error}", hint="see: sandbox ps") from error
    finally:
        connection.close()
    return response.status, answer if isinstance(answer, dict) else {}


def _refused(status: int, answer: Json, url: str, model: str) -> SandboxError:
    error = answer.get("error")
    detail = error if isinstance(error, dict) else {}
    message = f"{detail.get('code') or f'HTTP {status}'}: {answer.get('message') or 'no reason given'}"
    theirs = status < http.HTTPStatus.INTERNAL_SERVER_ERROR
    hint = f"what it takes: curl {url}/models/{model}/info" if theirs else f"see: sandbox logs {model}"
    details = detail.get("details")
    more = details if isinstance(details, str) else json.dumps(details or "").strip('"')
    return SandboxError("request", message, hint=f"{more}\n{hint}" if more and more not in message else hint)


def example_call(url: str, rows: Sequence[Json], key: str | None = None) -> str:
    """A command to paste: the first model that answers and has a short example in its config.yaml; "" if none has.

    key: ours, where the gateway asks for one; it is not shown.
    """
    for row in rows:
        if row.get("state") not in ("running", "degraded"):
            continue
        try:
            _, answer = _call("GET", f"{url}/models/{row['name']}/info", deadline=INFO_DEADLINE, key=key)
        except SandboxError:
            continue  # an example is a courtesy
        info = answer.get("data")
        example = info.get("example") if isinstance(info, dict) else None
        if not isinstance(example, dict):
            continue
        chat = isinstance(example.get("messages"), list)
        target = f"{url}/v1/chat/completions" if chat else f"{url}/models/{row['name']}/predict"
        text = json.dumps({"model": row["name"], **example} if chat else example, ensure_ascii=False)
        if len(text) <= LONGEST_EXAMPLE:
            needed = '-H "X-API-Key: $KEY" ' if key else ""
            return f"curl {needed}-d {shlex.quote(text)} {target}"
    return ""
