"""`sandbox config`: everything said, secrets masked, and the same sandbox when read back."""

from __future__ import annotations

import json

from orchestrator.spec import show

TEXT = """
name: demo
gateway: {port: 0, rate_limit: 5/10s, max_body: 3k, hosts: [a.example]}
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
"""


def shown(folder, text: str) -> tuple[str, object]:
    folder.write(".e", "FROM_FILE=f-hidden\n")
    desired = folder.resolve(text)
    return show.render_config(folder.load(), desired), desired


def test_secrets_are_masked_and_the_rest_is_shown(folder) -> None:
    text, _ = shown(folder, TEXT)
    assert "hidden" not in text
    environment = show.config_mapping(folder.load(), folder.resolve())["models"]["hello"]["environment"]
    assert environment == {
        "FROM_FILE": "***",
        "LEVEL": "info",
        "PRICE": "$$5",
        "API_KEY": "***",
        "db_password": "***",
        "URL": "https://***@host.example/x",
    }


def test_what_is_shown_is_a_sandbox_yaml_that_means_the_same(folder) -> None:
    without_secrets = TEXT.replace("    env_file: .e\n", "")
    for line in ("API_KEY", "db_password", "URL"):
        without_secrets = "\n".join(text for text in without_secrets.split("\n") if line not in text)
    text, desired = shown(folder, without_secrets)
    assert folder.resolve(text) == desired


def test_what_is_shown_is_json_too(folder) -> None:
    mapping = show.config_mapping(folder.load(TEXT.replace("    env_file: .e\n", "")), folder.resolve())
    assert json.loads(json.dumps(mapping)) == mapping
    assert mapping["models"]["digits"]["timeout"] == "1m"
