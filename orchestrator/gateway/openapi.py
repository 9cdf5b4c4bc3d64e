"""The OpenAPI 3.1 document of a gateway: its paths, and each model's with the model's own schemas. Pure; no request."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from orchestrator import __version__
from orchestrator.gateway.envelope import CODES
from orchestrator.ports import Route

_ENVELOPE = {
    "success": {"type": "boolean"},
    "message": {"type": "string"},
    "timestamp": {"type": "string", "format": "date-time"},
    "request_id": {"type": "string"},
}
_ANYTHING: dict[str, Any] = {}
_KEYS = {
    "bearer": {"type": "http", "scheme": "bearer"},
    "key": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
}
_INTEGERS = tuple(f"{sign}INT{width}" for sign in ("", "U") for width in (8, 16, 32, 64))
_DATATYPES = ("BOOL", *_INTEGERS, "FP16", "FP32", "FP64", "BYTES")


def document(models: Mapping[str, Route], *, keyed: bool = False) -> dict[str, Any]:
    """What `GET /openapi.json` answers. keyed: a call needs a key."""
    paths, schemas = _gateway_paths(), _schemas()
    for name, route in models.items():
        paths |= _model_paths(name, route, schemas)
    paths |= _openai_paths(models)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Model Sandbox",
            "version": __version__,
            "description": "Each answer of a model says which code it was: X-Sandbox-Generation, X-Sandbox-Content.",
        },
        "paths": paths,
        "components": {"schemas": schemas, **({"securitySchemes": _KEYS} if keyed else {})},
        **({"security": [{name: []} for name in _KEYS]} if keyed else {}),
    }


def _schemas() -> dict[str, Any]:
    error = {"code": {"type": "string", "enum": sorted(CODES)}, "details": _ANYTHING}
    return {
        "Error": {
            "type": "object",
            "properties": {**_ENVELOPE, "error": {"type": "object", "properties": error, "required": ["code"]}},
            "required": ["success", "message", "error", "timestamp", "request_id"],
        },
        "OpenAIError": _object({"error": _object(dict.fromkeys(("message", "type", "param", "code"), _ANYTHING))}),
        "V2Error": _object({"error": {"type": "string"}}),
        "Tensor": _object(
            {
                "name": {"type": "string"},
                "datatype": {"enum": list(_DATATYPES)},
                "shape": {"type": "array", "items": {"type": "integer", "minimum": 0}},
                "parameters": {"type": "object"},
                "data": {"type": "array"},
            },
            required=["name", "datatype", "shape"],
        ),
    }


def _gateway_paths() -> dict[str, Any]:
    told = {"type": "object"}
    return {
        "/": {"get": _get("What there is", _enveloped(told))},
        "/health": {"get": _get("This gateway serves", _enveloped(told))},
        "/ready": {"get": _get("Every model answers", _enveloped(told), "Error")},
        "/v1/models": {"get": _get("The models, as OpenAI lists them", told)},
        "/v2": {"get": _get("The server, in the Open Inference Protocol", told)},
        "/v2/health/live": {"get": _get("The server is alive", told)},
        "/v2/health/ready": {"get": _get("Every model is ready", told, "V2Error")},
    }


def _model_paths(name: str, route: Route, schemas: dict[str, Any]) -> dict[str, Any]:
    info, base = route.info, f"/models/{name}"
    paths: dict[str, Any] = {
        f"{base}/info": {"get": _get(f"What {name} is", _enveloped({"type": "object"}), tag=name)},
        f"{base}/health": {"get": _get(f"Whether {name} answers", _enveloped({"type": "object"}), "Error", name)},
    }
    if info.get("predict", True):
        taken = _schema(name, info.get("input_schema"), schemas)
        given = _schema(name, info.get("output_schema"), schemas)
        data = _object({"prediction": given, "processing_time": {"type": "number"}}, ["prediction"])
        said = str(info.get("description") or f"Call {name}")
        paths[f"{base}/predict"] = {"post": _post(said, taken, _enveloped(data), name, example=info.get("example"))}
        tensors = {"type": "array", "items": {"$ref": "#/components/schemas/Tensor"}}
        asked, told = _object({"inputs": tensors}), _object({"outputs": tensors})
        infer = _post(f"Call {name} with tensors", asked, told, name, error="V2Error")
        paths[f"/v2/models/{name}/infer"] = {"post": infer}
        batch = _object({"inputs": {"type": "array", "items": _ANYTHING}})
        answers = _object({"predictions": {"type": "array"}, "total": {"type": "integer"}})
        paths[f"{base}/predict/batch"] = {
            "post": _post(f"Call {name} with many inputs", batch, _enveloped(answers), name)
        }
    return paths


def _openai_paths(models: Mapping[str, Route]) -> dict[str, Any]:
    """OpenAI's endpoints, for the models that do such a thing."""
    texts = {"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}, "minItems": 1}]}
    message = _object({"role": {"type": "string"}, "content": {"type": "string"}})
    messages = {"type": "array", "items": message, "minItems": 1}
    offered = (
        ("/v1/chat/completions", "chat", "messages", messages, "Chat, as OpenAI's clients do"),
        ("/v1/completions", "chat", "prompt", texts, "Complete a prompt, as OpenAI's clients do"),
        ("/v1/embeddings", "embed", "input", texts, "Embed texts, as OpenAI's clients do"),
    )
    paths = {}
    for path, task, field, schema, summary in offered:
        named = [name for name, route in models.items() if route.info.get(task)]
        if named:
            taken = _object({"model": {"type": "string", "enum": named}, field: schema})
            paths[path] = {"post": _post(summary, taken, {"type": "object"}, "openai", error="OpenAIError")}
    return paths


def _post(
    summary: str,
    taken: Mapping[str, Any],
    given: Mapping[str, Any],
    tag: str,
    *,
    example: object = None,
    error: str = "Error",
) -> dict[str, Any]:
    content: dict[str, Any] = {"schema": taken}
    if example is not None:
        content["example"] = example
    body = {"required": True, "content": {"application/json": content}}
    return {"summary": summary, "tags": [tag], "requestBody": body, "responses": _responses(given, error)}


def _get(summary: str, given: Mapping[str, Any], error: str = "Error", tag: str = "gateway") -> dict[str, Any]:
    return {"summary": summary, "tags": [tag], "responses": _responses(given, error)}


def _responses(given: Mapping[str, Any], error: str) -> dict[str, Any]:
    refused = {"description": "refused or failed", "content": _json({"$ref": f"#/components/schemas/{error}"})}
    return {"200": {"description": "ok", "content": _json(given)}, "default": refused}


def _json(schema: Mapping[str, Any]) -> dict[str, Any]:
    return {"application/json": {"schema": schema}}


def _enveloped(data: Mapping[str, Any]) -> dict[str, Any]:
    return _object({**_ENVELOPE, "data": data})


def _object(properties: Mapping[str, Any], required: list[str] | None = None) -> dict[str, Any]:
    return {"type": "object", "properties": dict(properties), "required": required or list(properties)}


def _schema(name: str, schema: object, schemas: dict[str, Any]) -> dict[str, Any]:
    """A model's schema within the document: its definitions become components, under the model's name."""
    if not isinstance(schema, dict):
        return {}
    definitions = schema.get("$defs")
    if isinstance(definitions, dict):
        for key, value in definitions.items():
            schemas[f"{name}.{key}"] = _moved(name, value)
    moved = _moved(name, {key: value for key, value in schema.items() if key not in ("$schema", "$defs")})
    return moved if isinstance(moved, dict) else {}


def _moved(name: str, value: Any) -> Any:
    if isinstance(value, list):
        return [_moved(name, item) for item in value]
    if not isinstance(value, dict):
        return value
    moved = {key: _moved(name, item) for key, item in value.items()}
    target = moved.get("$ref")
    if isinstance(target, str) and target.startswith("#/$defs/"):
        moved["$ref"] = f"#/components/schemas/{name}.{target.removeprefix('#/$defs/')}"
    return moved
