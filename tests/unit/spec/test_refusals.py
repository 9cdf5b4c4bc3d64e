"""Every key and every error reference has at least one mistake here, and what people then read."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from orchestrator.errors import EXIT_USAGE, REFERENCES, SpecError
from orchestrator.spec import schema
from orchestrator.spec.models import SandboxSpec

# Of the command line, and of what only a runtime can see.
ELSEWHERE = {"usage", "exists", "path-permission"}


@dataclass(frozen=True)
class Case:
    """A mistake: the key at fault, the file, and the reference, line, message and hint that it leads to."""

    key: str
    text: str
    reference: str
    line: int
    message: str
    hint: str


def top(key: str, value: str, reference: str, message: str, hint: str) -> Case:
    return Case(key, f"models: {{}}\n{key}: {value}\n", reference, 2, f"{key}: {message}", hint)


def gateway(key: str, value: str, reference: str, message: str, hint: str) -> Case:
    text = f"models: {{}}\ngateway:\n  {key}: {value}\n"
    return Case(f"gateway.{key}", text, reference, 3, f"gateway.{key}: {message}", hint)


def api_key(key: str, value: str, reference: str, message: str, hint: str, suffix: str = "") -> Case:  # noqa: PLR0917 - likewise
    fields = {"name": "ci", "key": "k", key: value}
    items = "".join(f"      {name}: {field}\n" for name, field in fields.items()).replace("      ", "    - ", 1)
    text = f"models: {{}}\ngateway:\n  api_keys:\n{items}"
    line = 4 + list(fields).index(key)
    return Case(
        f"gateway.api_keys.*.{key}", text, reference, line, f"gateway.api_keys.0.{key}{suffix}: {message}", hint
    )


def model(key: str, value: str, reference: str, message: str, hint: str, suffix: str = "") -> Case:  # noqa: PLR0917 - a table below
    """A dotted key becomes nested mappings, its value on the last line."""
    parts = key.split(".")
    nested = "".join(f"{'  ' * (depth + 2)}{part}:\n" for depth, part in enumerate(parts))
    path = "" if key == "path" else "    path: model_dirs/hello\n"
    text = f"models:\n  hello:\n{path}{nested.rstrip()} {value}\n"
    where = f"models.hello.{key}{suffix}: {message}"
    return Case(f"models.*.{key}", text, reference, len(text.rstrip().split("\n")), where, hint)


def dependency(key: str, value: str, reference: str, message: str, hint: str) -> Case:
    text = f"models:\n  a:\n    path: model_dirs/hello\n    depends_on:\n      b:\n        {key}: {value}\n  b: model_dirs/hello\n"
    return Case(f"models.*.depends_on.*.{key}", text, reference, 6, f"models.a.depends_on.b.{key}: {message}", hint)


def volume(key: str, value: str, reference: str, message: str, hint: str, more: str = "") -> Case:  # noqa: PLR0917 - a table below
    """more: what the volume has besides its target."""
    lines = [f"target: /w{more}", *(f"{'  ' * depth}{part}:" for depth, part in enumerate(key.split(".")))]
    nested = "".join(f"        {line}\n" for line in lines).rstrip().replace("        ", "      - ", 1)
    text = f"models:\n  a:\n    path: model_dirs/hello\n    volumes:\n{nested} {value}\n"
    where = f"models.a.volumes.0.{key}: {message}"
    return Case(f"models.*.volumes.*.{key}", text, reference, len(text.rstrip().split("\n")), where, hint)


def secret(key: str, value: str, reference: str, message: str, hint: str) -> Case:
    text = f"secrets:\n  s:\n    {key}: {value}\nmodels: {{a: {{path: model_dirs/hello, secrets: [s]}}}}\n"
    return Case(f"secrets.*.{key}", text, reference, 3, f"secrets.s.{key}: {message}", hint)


YES_NO = "write true or false"
SPAN = "write a duration such as 30s"
SIZE = "write a size such as 512M"
ITEMS = "write [a, b], or - a lines below it"
NO_KEY = "write text in quotes without spaces, best ${VARIABLE}, or sha256: and the 64 hex digits of its hash"
BELOW = "write key: value lines below it"

CASES = [
    top("name", "My App", "bad-name", "'My App' is no valid name", "use 1 to 63 of a-z, 0-9, _ and -, the first a letter or a digit"),
    top("name", "[a]", "wrong-type", "must be text, not a list", "write plain text"),
    top("runtime", "dokcer", "bad-value", "must be auto, docker or process, not 'dokcer'", "did you mean docker?"),
    top("runtime", "7", "wrong-type", "must be auto, docker or process, not the number 7", "write auto, docker or process"),
    top("allow_outside", "/mnt", "wrong-type", "must be a list, not '/mnt'", ITEMS),
    top("include", "shared/sandbox.yaml", "wrong-type", "must be a list, not 'shared/sandbox.yaml'", ITEMS),
    Case("include", "models: {}\ninclude:\n- gone.yaml\n", "path-missing", 3, "include.0: gone.yaml does not exist", "create it, or correct the path"),
    Case("include.*.path", "models: {}\ninclude:\n- env_file: x\n", "missing-key", 3, "include.0.path: is missing", "add path:"),
    Case("include.*.env_file", "models: {}\ninclude:\n- path: gone.yaml\n  env_file: {a: b}\n", "wrong-type", 4, "include.0.env_file: must be a list, not a mapping", ITEMS),
    Case("include.*.project_directory", "models: {}\ninclude:\n- path: gone.yaml\n  project_directory: [b]\n", "wrong-type", 4, "include.0.project_directory: must be text, not a list", "write plain text"),
    top("gateway", "8080", "wrong-type", "must be a mapping, not the number 8080", BELOW),
    Case("models", "models: [hello]\n", "wrong-type", 1, "models: must be a mapping, not a list", BELOW),
    Case("models", "name: x\n", "missing-key", 1, "models: is missing", "add models:"),
    Case("models", "model: {}\nmodels: {}\n", "unknown-key", 1, "model: unknown key", "did you mean models?"),
    Case("models", "models: {}\nservices: {}\n", "unknown-key", 2, "services: unknown key", "models are listed under `models:`"),
    Case("models", "models:\n  Hello: m\n", "bad-name", 2, "models.Hello: 'Hello' is no valid name", "use 1 to 41 of a-z, 0-9, _ and -, the first a letter or a digit"),
    Case("models", "models:\n  hello: m\n  hello: n\n", "duplicate-key", 3, "hello: is written twice in one mapping", "remove one of the two; YAML would silently take the last"),
    Case("models", "models: {\n", "yaml-syntax", 2, "did not find expected node content", "check quotes, brackets and indentation here and on the line above"),
    Case("models", "models:\n  hello: ${DIR:?where is it}\n", "interpolation", 2, "models.hello: the variable DIR is not set: where is it", "set DIR in the environment or in the file .env beside sandbox.yaml"),
    gateway("host", "0.0.0.0", "insecure-gateway", "0.0.0.0 can be reached from other machines, and there are no keys", "write gateway.api_keys, or gateway.insecure: true to open it to everybody, or host: 127.0.0.1"),
    gateway("host", "'*'", "bad-value", "'*' is no address or host name", "write for example 127.0.0.1, ::1 or localhost"),
    gateway("host", "1.2.3", "bad-value", "'1.2.3' is no address or host name", "write for example 127.0.0.1, ::1 or localhost"),
    gateway("port", "65536", "bad-value", "must be between 0 and 65535, not 65536", "write a number between 0 and 65535"),
    gateway("port", "http", "wrong-type", "must be a whole number, not 'http'", "write for example 0"),
    Case("gateway.rate_limit", "gateway:\n  workers: 2\n  rate_limit: 100/minute\nmodels: {}\n", "not-supported", 3, "gateway.rate_limit: is not supported yet with workers", "set gateway.workers to 1, or remove the limit"),
    gateway("workers", "0", "bad-value", "must be at least 1, not 0", "write a number at least 1"),
    gateway("insecure", "maybe", "wrong-type", "must be true or false, not 'maybe'", YES_NO),
    gateway("access_log", "maybe", "wrong-type", "must be true or false, not 'maybe'", YES_NO),
    gateway("hosts", "a.example", "wrong-type", "must be a list, not 'a.example'", ITEMS),
    gateway("origins", "a.example", "wrong-type", "must be a list, not 'a.example'", ITEMS),
    gateway("api_keys", "secret", "wrong-type", "must be a list, not 'secret'", ITEMS),
    gateway("rate_limit", "100", "bad-value", "'100' is no rate", "write for example 100/minute or 5/10s"),
    gateway("max_body", "0", "bad-value", "must be at least one byte", "write for example 10M"),
    gateway("max_body", "true", "wrong-type", "must be a size such as 10M, not true", "write a size such as 10M"),
    gateway("prot", "1", "unknown-key", "unknown key", "did you mean port?"),
    api_key("name", "7", "wrong-type", "must be text, not the number 7", "put it in quotes"),
    *(api_key("key", value, "bad-value", "is no key", NO_KEY) for value in ("''", "a b", "77", "'***'", "sha256:abc", "'a\u00e9'")),
    api_key("models", "all", "wrong-type", "must be a list, not 'all'", ITEMS),
    api_key("allow", "[infer, all]", "bad-value", "must be infer, manage or observe, not 'all'", "write infer, manage or observe", ".1"),
    api_key("models", "[nobody]", "unknown-model", "there is no model 'nobody'", "the models are none", ".0"),
    api_key("allow", "infer", "wrong-type", "must be a list, not 'infer'", ITEMS),
    api_key("rate_limit", "1/0s", "bad-value", "'1/0s' has no period", "write for example 100/minute or 5/10s"),
    Case("gateway.api_keys.*.key", "models: {}\ngateway:\n  api_keys:\n    - name: a\n", "missing-key", 4, "gateway.api_keys.0.key: is missing", "add key:"),
    model("path", "7", "wrong-type", "must be text, not the number 7", "put it in quotes"),
    model("path", "", "missing-key", "is missing", "add path: DIRECTORY"),
    model("path", "gone", "path-missing", "gone does not exist", "create {root}/gone, or correct the path"),
    model("path", "..", "path-outside", ".. leads to {parent}, outside the project", "add {parent} to allow_outside, or move it into the project"),
    model("path", ".", "bad-value", ". holds the project itself", "put the model into a directory of its own below the project"),
    model("path", "sandbox.yaml", "bad-value", "sandbox.yaml is a file, not a directory", "name the directory that holds main.py"),
    model("runtime", "vm", "bad-value", "must be auto, docker or process, not 'vm'", "write auto, docker or process"),
    model("python", "2.7", "bad-value", "'2.7' is no Python version that models can run on", "one of 3.9, 3.10, 3.11, 3.12, 3.13, 3.14"),
    model("python", "3.11.7", "bad-value", "'3.11.7' is no Python version that models can run on", 'write "3.11": the newest of that line is used'),
    model("replicas", "-1", "bad-value", "must be at least 0, not -1", "write a number at least 0"),
    model("replicas", "true", "wrong-type", "must be a whole number, not true", "write for example 0"),
    model("replicas", "1.5", "wrong-type", "must be a whole number, not the number 1.5", "write for example 0"),
    model("resources", "1G", "wrong-type", "must be a mapping, not '1G'", BELOW),
    model("resources.cpus", "0", "bad-value", "must be more than 0, not 0", "write for example 0.5 or 2"),
    model("resources.cpus", "two", "wrong-type", "must be a number of cores, not 'two'", "write for example 0.5 or 2"),
    model("resources.memory", "31M", "bad-value", "31M is less than the 32M that a model needs to start", "write 32M or more; a Python interpreter alone needs about 20M"),
    model("resources.memory", "lots", "bad-value", "'lots' is no size", "write for example 512M, 1.5G or 10485760"),
    model("resources.pids", "0", "bad-value", "must be at least 1, not 0", "write a number at least 1"),
    model("resources.mem", "1G", "unknown-key", "unknown key", "did you mean memory?"),
    model("deploy", "1", "wrong-type", "must be a mapping, not the number 1", BELOW),
    model("deploy.placement", "{}", "unknown-key", "unknown key", "known here: replicas, resources"),
    model("deploy.resources", "1", "wrong-type", "must be a mapping, not the number 1", BELOW),
    model("deploy.resources.reservations", "{}", "unknown-key", "unknown key", "only limits are enforced here; write limits"),
    model("deploy.resources.limits", "1", "wrong-type", "must be a mapping, not the number 1", BELOW),
    model("deploy.resources.limits.cpus", "-1", "bad-value", "must be more than 0, not -1", "write for example 0.5 or 2"),
    model("deploy.resources.limits.memory", "8M", "bad-value", "8M is less than the 32M that a model needs to start", "write 32M or more; a Python interpreter alone needs about 20M"),
    model("deploy.resources.limits.pids", "x", "wrong-type", "must be a whole number, not 'x'", "write for example 1"),
    Case(
        "models.*.deploy.resources.limits.pids",
        "models:\n  hello:\n    path: m\n    resources: {pids: 9}\n    deploy: {resources: {limits: {pids: 9}}}\n",
        "bad-value",
        5,
        "models.hello.deploy.resources.limits.pids: is set in resources.pids as well",
        "keep one of the two",
    ),
    model("environment", "A=1", "wrong-type", "must be a mapping or a list, not 'A=1'", "write NAME: value below it"),
    model("environment", "{A: [1]}", "wrong-type", "A must be text, not a list", "put the value in quotes"),
    model("environment", "{'A=B': 1}", "bad-value", "'A=B' cannot name a variable", "write NAME: value"),
    model("env_file", ".env.gone", "env-file", ".env.gone does not exist", "create {root}/.env.gone, or correct the path"),
    model("env_file", "7", "wrong-type", "must be a list, not the number 7", ITEMS),
    model("env_file", "[a, [b]]", "wrong-type", "must be a mapping, not a list", BELOW, ".1"),
    model("env_file", "[{path: [b]}]", "wrong-type", "must be text, not a list", "write plain text", ".0.path"),
    model("volumes", "./a:/b", "wrong-type", "must be a list, not './a:/b'", ITEMS),
    model("volumes", "[./a]", "volume", "'./a' is not of the form HOST:TARGET", "write HOST:TARGET or HOST:TARGET:ro, for example ./weights:/weights:ro", ".0"),
    model("volumes", "['./model_dirs:/w:rx']", "volume", "'rx' is no mode of a volume", "write ro or rw", ".0"),
    model("volumes", "['weights:/w']", "volume", "'weights' is no path", "write ./weights for a path of the project; named volumes do not exist here", ".0"),
    model("volumes", "['./model_dirs:w']", "volume", "the target 'w' is not absolute", "write /w", ".0"),
    model("volumes", "['./model_dirs:/run/sandbox/x']", "volume", "the target /run/sandbox/x would cover what the model needs to run", "choose a folder of its own, for example /weights", ".0"),
    model("volumes", "['./model_dirs:/w', './model_dirs:/w/']", "volume", "/w is the target of two volumes", "give each volume a target of its own", ".1"),
    model("volumes", "['./gone:/w']", "path-missing", "./gone does not exist on this machine", "create {root}/gone, or correct the path", ".0"),
    model("data", "rwx", "bad-value", "must be ro or rw, not 'rwx'", "did you mean rw?"),
    model("network", "host", "bad-value", "must be none, internal or bridge, not 'host'", "write none, internal or bridge"),
    model("concurrency", "0", "bad-value", "must be at least 1, not 0", "write a number at least 1"),
    model("queue", "64", "wrong-type", "must be a mapping, not the number 64", BELOW),
    model("queue.size", "-1", "bad-value", "must be at least 0, not -1", "write a number at least 0"),
    model("queue.timeout", "30", "bad-value", "'30' is no duration", "a unit is needed: 30s or 30ms"),
    model("timeout", "0s", "bad-value", "must be more than 0, not 0s", "write a longer duration"),
    model("load_timeout", "[1s]", "wrong-type", "must be a duration such as 30s, not a list", SPAN),
    model("max_input", "0", "bad-value", "must be at least 1, not 0", "write a number at least 1"),
    model("max_batch", "0", "bad-value", "must be at least 1, not 0", "write a number at least 1"),
    model("batching", "32", "wrong-type", "must be a mapping, not the number 32", BELOW),
    model("batching.max_size", "0", "bad-value", "must be at least 1, not 0", "write a number at least 1"),
    model("batching.max_wait", "5", "bad-value", "'5' is no duration", "a unit is needed: 5s or 5ms"),
    model("reload", "auto", "wrong-type", "must be a mapping, not 'auto'", BELOW),
    model("reload.quiet", "soon", "bad-value", "'soon' is no duration", "write for example 10ms, 30s or 1m30s"),
    model("reload.max_wait", "1ms", "bad-value", "is shorter than reload.quiet", "write at least reload.quiet"),
    model("reload.drain", "-1s", "bad-value", "'-1s' is no duration", "write for example 10ms, 30s or 1m30s"),
    model("reload.mode", "forks", "bad-value", "must be auto, spawn, replace or off, not 'forks'", "write auto, spawn, replace or off"),
    model("reload.keep", "0", "bad-value", "must be at least 1, not 0", "write a number at least 1"),
    model("reload.max_draining", "0", "bad-value", "must be at least 1, not 0", "write a number at least 1"),
    model("restart", "allways", "bad-value", "must be no, on-failure, always or unless-stopped, not 'allways'", "did you mean always?"),
    model("restart", "false", "wrong-type", "must be no, on-failure, always or unless-stopped, not false", "write no, on-failure, always or unless-stopped"),
    model("extends", "helo", "unknown-model", "there is no model 'helo' in sandbox.yaml", "did you mean hello?"),
    model("extends", "[a]", "wrong-type", "must be a mapping, not a list", BELOW),
    model("extends.service", "[a]", "wrong-type", "must be text, not a list", "write plain text"),
    Case("models.*.extends.file", "models:\n  a:\n    extends:\n      service: b\n      file: 7\n    path: x\n", "wrong-type", 5, "models.a.extends.file: must be text, not the number 7", "put it in quotes"),
    model("extends", "hello", "dependency-cycle", "goes in a circle: sandbox.yaml: hello → sandbox.yaml: hello", "remove one of these extends"),
    Case("models.*.env_file.*.path", "models: {a: {path: x, env_file: [{required: false}]}}\n", "missing-key", 1, "models.a.env_file.0.path: is missing", "add path:"),
    Case("models.*.env_file.*.required", "models: {a: {path: x, env_file: {path: b, required: 2}}}\n", "wrong-type", 1, "models.a.env_file.0.required: must be true or false, not the number 2", YES_NO),
    dependency("condition", "healthy", "bad-value", "must be service_started, service_healthy or service_completed_successfully, not 'healthy'", "did you mean service_healthy?"),
    dependency("condition", "service_completed_successfully", "bad-value", "a model never completes: it serves until it is stopped", "write service_healthy: the other model is ready"),
    dependency("required", "7", "wrong-type", "must be true or false, not the number 7", YES_NO),
    dependency("restart", "7", "wrong-type", "must be true or false, not the number 7", YES_NO),
    model("scale", "x", "wrong-type", "must be a whole number, not 'x'", "write for example 0"),
    Case("models.*.scale", "models:\n  a:\n    path: m\n    replicas: 1\n    scale: 2\n", "bad-value", 5, "models.a.scale: the number of replicas is both 1 and 2", "keep one of the two"),
    model("deploy.replicas", "-1", "bad-value", "must be at least 0, not -1", "write a number at least 0"),
    model("stop_grace_period", "10", "bad-value", "'10' is no duration", "a unit is needed: 10s or 10ms"),
    model("tmpfs", "{a: b}", "wrong-type", "must be a list, not a mapping", ITEMS),
    model("tmpfs", "[tmp]", "volume", "the target 'tmp' is not absolute", "write /tmp", ".0"),
    model("tmpfs", "['/t:uid=1']", "volume", "'uid=1' is no option of a tmpfs", "write for example /scratch:size=64M,mode=0700", ".0"),
    volume("type", "nfs", "bad-value", "must be bind or tmpfs, not 'nfs'", "write bind or tmpfs"),
    volume("source", "[a]", "wrong-type", "must be text, not a list", "write plain text"),
    volume("source", "./d", "bad-value", "a tmpfs has no source", "remove it, or write type: bind", "\n        type: tmpfs"),
    volume("read_only", "7", "wrong-type", "must be true or false, not the number 7", YES_NO),
    volume("tmpfs", "7", "wrong-type", "must be a mapping, not the number 7", BELOW),
    volume("tmpfs", "{}", "bad-value", "says nothing of a volume of type bind", "remove it", "\n        source: ./d"),
    volume("tmpfs.size", "big", "bad-value", "'big' is no size", "write for example 512M, 1.5G or 10485760"),
    volume("tmpfs.mode", "rwx", "bad-value", "must be permission bits, not 'rwx'", "write for example 0400"),
    volume("bind", "{}", "unknown-key", "unknown key", "remove it; the host path must be there"),
    Case("models.*.volumes.*.target", "models: {a: {path: m, volumes: [{source: ./d}]}}\n", "missing-key", 1, "models.a.volumes.0.target: is missing", "add target:"),
    top("secrets", "[a]", "wrong-type", "must be a mapping, not a list", BELOW),
    Case("secrets", "secrets: {s: {}}\nmodels: {}\n", "bad-value", 1, "secrets.s: must have either file or environment", "write {file: PATH}"),
    secret("file", "gone.txt", "path-missing", "gone.txt cannot be read: No such file or directory", "create {root}/gone.txt, or correct the path"),
    secret("environment", "GONE", "interpolation", "the variable GONE is not set", "set GONE in the environment or in the file .env beside sandbox.yaml"),
    model("secrets", "[s]", "bad-value", "there is no secret 's'", "declare it under `secrets:` at the top: {file: PATH}", ".0"),
    model("secrets", "{s: x}", "wrong-type", "must be a list, not a mapping", ITEMS),
    Case("models.*.secrets.*.source", "models: {a: {path: m, secrets: [{target: x}]}}\n", "missing-key", 1, "models.a.secrets.0.source: is missing", "add source:"),
    Case("models.*.secrets.*.target", "models: {a: {path: m, secrets: [{source: s, target: [x]}]}}\n", "wrong-type", 1, "models.a.secrets.0.target: must be text, not a list", "write plain text"),
    Case("models.*.secrets.*.target", "secrets: {s: {file: sandbox.yaml}}\nmodels:\n  a: {path: model_dirs/hello, secrets: [{source: s, target: ../x}]}\n", "bad-value", 3, "models.a.secrets.0.target: ../x does not lie in /run/secrets", "write a name without folders"),
    Case("models.*.secrets.*.mode", "models: {a: {path: m, secrets: [{source: s, mode: 400}]}}\n", "bad-value", 1, "models.a.secrets.0.mode: must be permission bits, not the number 400", "write for example 0400"),
    model("gpus", "[1]", "wrong-type", "must be all or a number, not a list", "write all or for example 1"),
    model("gpus", "all", "not-supported", "is not supported yet", "remove it; this release knows only its default"),
    model("healthcheck", "{test: x}", "not-supported", "is not supported yet", "remove it; this release knows only its default"),
    model("healthcheck.test", "{a: b}", "wrong-type", "must be a list, not a mapping", ITEMS),
    model("healthcheck.interval", "[1]", "wrong-type", "must be a duration such as 30s, not a list", SPAN),
    model("healthcheck.timeout", "[1]", "wrong-type", "must be a duration such as 30s, not a list", SPAN),
    model("healthcheck.start_period", "[1]", "wrong-type", "must be a duration such as 30s, not a list", SPAN),
    model("healthcheck.start_interval", "[1]", "wrong-type", "must be a duration such as 30s, not a list", SPAN),
    model("healthcheck.retries", "x", "wrong-type", "must be a whole number, not 'x'", "write for example 0"),
    model("healthcheck.disable", "7", "wrong-type", "must be true or false, not the number 7", YES_NO),
    model("depends_on", "hello", "wrong-type", "must be a mapping, not 'hello'", BELOW),
    model("depends_on", "[helo]", "unknown-model", "there is no model 'helo'", "did you mean hello?", ".helo"),
    model("depends_on", "[hello]", "dependency-cycle", "goes in a circle: hello → hello", "remove one of these dependencies"),
    model("profiles", "large", "wrong-type", "must be a list, not 'large'", ITEMS),
    model("profiles", "['a b']", "bad-name", "'a b' is no valid name", "use letters, digits, _ . and -, the first a letter or a digit", ".0"),
    model("warmup", "1", "wrong-type", "must be true or false, not the number 1", YES_NO),
    model("debug", "[]", "wrong-type", "must be true or false, not a list", YES_NO),
    model("replica", "2", "unknown-key", "unknown key", "did you mean replicas?"),
    model("ports", "[80]", "unknown-key", "unknown key", "there is one port for all models: gateway.port"),
    Case(
        "models.*.depends_on",
        "models:\n  a: {path: model_dirs/hello, depends_on: [b]}\n  b: {path: model_dirs/hello, profiles: [p]}\n",
        "unknown-profile",
        2,
        "models.a.depends_on.b: b belongs to the profile p, and none of these profiles is active",
        "add --profile p, or give both models a profile in common",
    ),
]  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.key}-{case.reference}")
def test_a_mistake_names_file_line_key_path_and_next_step(folder, case: Case) -> None:
    with pytest.raises(SpecError) as caught:
        folder.resolve(case.text)
    error = caught.value
    expected = tuple(
        text.replace("{root}", str(folder.root)).replace("{parent}", str(folder.root.parent))
        for text in (case.message, case.hint)
    )
    assert (error.reference, error.at) == (case.reference, f"sandbox.yaml:{case.line}")
    assert (error.message, error.hint) == (expected[0], expected[1])
    assert error.exit_code == EXIT_USAGE


def test_every_key_has_a_mistake_here() -> None:
    assert set(schema.keys(SandboxSpec)) - {case.key for case in CASES} == set()


def test_every_reference_of_the_file_has_a_mistake_here(folder) -> None:
    with pytest.raises(SpecError) as caught:
        folder.load()
    found = {case.reference for case in CASES} | {caught.value.reference}
    expected = {name for name, reference in REFERENCES.items() if reference.exit_code == EXIT_USAGE}
    assert found == expected - ELSEWHERE


def test_every_mistake_says_what_to_do() -> None:
    assert [case.message for case in CASES if not case.hint] == []


def test_all_mistakes_of_a_file_are_shown_in_its_order(folder) -> None:
    with pytest.raises(SpecError) as caught:
        folder.load(
            "models:\n  a:\n    path: x\n    replica: 1\n  b: {path: y, timeout: 5, data: no}\ngateway: {port: x}\n"
        )
    assert str(caught.value).split("\n") == [
        "sandbox.yaml:4: models.a.replica: unknown key",
        "sandbox.yaml:5: models.b.data: must be ro or rw, not 'no' (write ro or rw)",
        "sandbox.yaml:5: models.b.timeout: '5' is no duration (a unit is needed: 5s or 5ms)",
        "sandbox.yaml:6: gateway.port: must be a whole number, not 'x' (write for example 0)",
    ]
    assert caught.value.hint == "did you mean replicas?"


def test_a_variable_that_is_missing_is_reported_once_and_not_for_its_form_too(folder) -> None:
    with pytest.raises(SpecError) as caught:
        folder.load("gateway:\n  port: ${P:?set it}\nmodels: {a: {path: m, replicas: x}}\n")
    assert str(caught.value).split("\n") == [
        "sandbox.yaml:2: gateway.port: the variable P is not set: set it",
        "sandbox.yaml:3: models.a.replicas: must be a whole number, not 'x' (write for example 0)",
    ]


def test_a_hundred_mistakes_are_not_a_hundred_lines(folder) -> None:
    with pytest.raises(SpecError) as caught:
        folder.load("models: {}\n" + "".join(f"k{n}: 1\n" for n in range(100)))
    lines = str(caught.value).split("\n")
    assert (len(lines), lines[-1]) == (11, "and 90 more")
