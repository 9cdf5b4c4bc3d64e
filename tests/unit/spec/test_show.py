"""`sandbox config`: everything said, secrets masked, and the same sandbox when read back."""

from __future__ import annotations

import hashlib
import json

from orchestrator.spec import show

TEXT = """
name: demo
gateway:
  {port: 0, rate_limit: 5/10s, max_body: 3k, hosts: [a.example], api_keys: [{name: ci, key: k-hidden, models: [hello], rate_limit: 1/s}]}
models:
  digits: model_dirs/digits
  hello:
    path: model_dirs/hello
    python: "3.12"
    resources: {cpus: 0.5, memory: 96M}
    env_file: .e
    environment:
      LEVEL: info
      PRICE: $$5
      API_KEY: k-hidden
      db_password: p-hidden
      URL: https://user:u-hidden@host.example/x
    volumes: ["./model_dirs:/w:ro"]
    queue: {size: 3, timeout: 1500ms}
    timeout: 90s
    depends_on: [digits]
  other:
    path: model_dirs/hello
    volumes: [{type: bind, source: ./model_dirs, target: /w}, {type: tmpfs, target: /t, tmpfs: {size: 1M, mode: 0700}}]
    tmpfs: [/u, "/v:size=2M"]
    secrets: [{source: licence, target: l.txt, mode: 0400}, token]
    depends_on: {digits: {condition: service_started}, hello: {required: false}}
    stop_grace_period: 90s
    deploy: {replicas: 3}
secrets: {licence: {file: .l}, token: {environment: TOKEN}}
"""
KEYS = ", api_keys: [{name: ci, key: k-hidden, models: [hello], rate_limit: 1/s}]"
ENVIRON = {"TOKEN": "t-hidden"}


def shown(folder, text: str) -> tuple[str, object]:
    folder.write(".e", "FROM_FILE=f-hidden\n")
    folder.write(".l", "l-hidden")
    desired = folder.resolve(text, environ=ENVIRON)
    return show.render_config(folder.load(environ=ENVIRON), desired), desired


def test_secrets_are_masked_and_the_rest_is_shown(folder) -> None:
    text, _ = shown(folder, TEXT)
    assert "hidden" not in text
    environment = show.config_mapping(folder.load(), folder.resolve(environ=ENVIRON))["models"]["hello"]["environment"]
    assert environment == {
        "FROM_FILE": "***",
        "LEVEL": "info",
        "PRICE": "$$5",
        "API_KEY": "***",
        "db_password": "***",
        "URL": "https://***@host.example/x",
    }


def test_what_is_shown_is_a_sandbox_yaml_that_means_the_same(folder) -> None:
    without_secrets = TEXT.replace("    env_file: .e\n", "").replace(KEYS, "")
    for line in ("API_KEY", "db_password", "URL"):
        without_secrets = "\n".join(text for text in without_secrets.split("\n") if line not in text)
    text, desired = shown(folder, without_secrets)
    assert folder.resolve(text, environ=ENVIRON) == desired


def test_what_is_shown_is_json_too(folder) -> None:
    folder.write(".l", "l-hidden")
    project = folder.load(TEXT.replace("    env_file: .e\n", ""))
    mapping = show.config_mapping(project, folder.resolve(environ=ENVIRON))
    assert json.loads(json.dumps(mapping)) == mapping
    assert mapping["models"]["digits"]["timeout"] == "1m"


def test_a_key_is_known_by_its_digest_from_either_form_and_shown_in_neither(folder) -> None:
    digest = "8c7dd922ad47494fc02c388e12c00eac278d3e0d8a5eb8d9d4d6f0a0c8c2a5e1"
    text = (
        f"models: {{}}\ngateway: {{api_keys: [{{name: a, key: hidden}}, {{name: b, key: 'sha256:{digest.upper()}'}}]}}"
    )
    first, second = folder.resolve(text).gateway.api_keys
    assert first.digest == hashlib.sha256(b"hidden").hexdigest()
    assert second.digest == digest
    assert (first.allow, first.models) == (("infer",), ())
    assert "hidden" not in f"{folder.load().spec!r}{first!r}"
    assert digest not in repr(second) + show.render_config(folder.load(), folder.resolve())
