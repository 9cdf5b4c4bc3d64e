"""The Open Inference Protocol (V2): a model's metadata, and inference with tensors as JSON or in the binary extension.

A typed `predict` is reached by parameter name. It knows nothing of repositories and readiness: those are the gateway's.
"""

from __future__ import annotations

import json
from typing import Any, Dict, List, NamedTuple, Optional, Tuple

from sandbox import result
from sandbox.connection import fields
from sandbox.model import Prediction
from sandbox.protocols import envelope, predict, tensors
from sandbox.protocols.tensors import Tensor, TensorError
from sandbox.protocols.turn import Turn
from sandbox.refusal import Refusal, invalid
from sandbox.schema import Type
from sandbox.service import Service
from sandbox.signature import Arguments, Parameter

_LENGTH = "inference-header-content-length"
_JSON_TYPES = {"integer": "INT64", "number": "FP64", "boolean": "BOOL", "string": "BYTES"}


class Input(NamedTuple):
    """How a parameter appears as a tensor. levels: of lists around an element, None where any shape will do.

    as_json: its elements are BYTES that hold JSON, for objects and what else has no tensor.
    """

    datatype: str
    levels: Optional[int]
    as_json: bool = False
    array: bool = False

    @property
    def shape(self) -> List[int]:
        return [1] if self.levels == 0 else [-1] * (self.levels or 1)


async def metadata(service: Service, turn: Turn) -> None:
    """GET: name, versions, platform, inputs and outputs."""
    info = service.info
    typed = service.predict
    inputs = [] if typed is None else [_described(p.name, _input(p.type)) for p in typed.signature.parameters.values()]
    outputs = [_described("prediction", _input(typed.signature.result))] if typed is not None else []
    value = {
        "name": service.name,
        "versions": [info["version"]] if info["version"] else [],
        "platform": "python",
        "inputs": inputs,
        "outputs": outputs,
    }
    _respond(turn, 200, envelope.JSON, result.encode(result.dumps(value)))


async def infer(service: Service, turn: Turn) -> None:
    """POST: tensors in, `predict`, tensors out."""
    body, binary = _read(turn)
    inputs = _inputs(service, body, binary)
    wanted = _wanted(body)
    bound = service.predict.signature.bind(inputs) if service.predict is not None else None
    service.measure(inputs, len(turn.request.body))
    try:
        outputs, extras = _outputs(await _call(service, turn, inputs, bound))
        head, raw = _answer(service, body, _chosen(outputs, wanted), extras)
    except BaseException as error:
        raise turn.refusal(service, error) from error
    if not raw:
        _respond(turn, 200, envelope.JSON, head)
        return
    headers = f"Content-Type: application/octet-stream\r\nInference-Header-Content-Length: {len(head)}\r\n"
    _respond(turn, 200, headers, head + b"".join(raw))


async def _call(service: Service, turn: Turn, inputs: Dict[str, Any], bound: Optional[Arguments]) -> Any:
    if service.predict is None or bound is None or service.batcher is not None:
        return await predict.by_batch(service, turn, inputs)
    lease = await turn.admit(service)
    try:
        return await service.caller.call(service.predict, lease, *bound)
    finally:
        lease.drop()


def refuse(turn: Turn, refusal: Refusal) -> None:
    """Write an error answer: {"error": text}."""
    text = refusal.message
    if refusal.code == "PREDICTION_FAILED" and isinstance(refusal.details, dict) and "traceback" in refusal.details:
        text = f"{text}\n{refusal.details['traceback']}"
    body = result.encode(result.dumps({"error": text}))
    _respond(turn, refusal.status, envelope.JSON + fields(refusal.headers), body)


def _respond(turn: Turn, status: int, headers: str, body: bytes) -> None:
    turn.connection.respond(status, headers + turn.headers, body)


def _read(turn: Turn) -> Tuple[Dict[str, Any], bytes]:
    """The JSON part of a request, and the bytes after it."""
    body = turn.request.body
    given = turn.request.headers.get(_LENGTH)
    if given is None:
        head, binary = body, b""
    elif given.isascii() and given.isdigit() and int(given) <= len(body):
        head, binary = body[: int(given)], body[int(given) :]
    else:
        raise invalid(f"Inference-Header-Content-Length: {given!r:.40} is not a length within the body")
    value, _ = envelope.read(head)
    if not isinstance(value, dict):
        raise invalid("the body: expected an object with `inputs`")
    return value, binary


def _inputs(service: Service, body: Dict[str, Any], binary: bytes) -> Dict[str, Any]:
    given = body.get("inputs")
    if not isinstance(given, list):
        raise invalid("inputs: missing, expected an array of tensors", "inputs")
    values: Dict[str, Any] = {}
    at = 0
    for index, entry in enumerate(given):
        where = f"inputs[{index}]"
        if not isinstance(entry, dict) or not isinstance(entry.get("name"), str):
            raise invalid(f"{where}: expected an object with a name", "inputs")
        name = entry["name"]
        if name in values:
            raise invalid(f"{where}: the name {name} came twice", name)
        size = _parameters(entry, where).get("binary_data_size")
        raw = None
        if size is not None:
            if type(size) is not int or size < 0 or at + size > len(binary):
                raise invalid(f"{where}.parameters.binary_data_size: {size!r:.40} is not within the binary data", name)
            raw = binary[at : at + size]
            at += size
        values[name] = _value(service, entry, raw, where)
    if at != len(binary):
        raise invalid(f"{len(binary) - at} bytes of binary data belong to no input")
    return values


def _value(service: Service, entry: Dict[str, Any], raw: Optional[bytes], where: str) -> Any:
    """What the model's parameter gets for one input tensor."""
    parameter = _parameter(service, entry["name"])
    wanted = _input(parameter.type) if parameter is not None else Input("", None)
    shape = entry.get("shape")
    if not isinstance(shape, list) or not all(type(size) is int and 0 <= size < 1 << 48 for size in shape):
        raise invalid(f"{where}.shape: expected an array of sizes", entry["name"])
    if raw is None and "data" not in entry:
        raise invalid(f"{where} ({entry['name']}): it has neither data nor parameters.binary_data_size", entry["name"])
    try:
        if raw is not None:
            tensor = tensors.from_raw(entry.get("datatype"), shape, raw, as_array=wanted.array)
        else:
            tensor = tensors.from_json(entry.get("datatype"), shape, entry["data"])
        return _shaped(tensor, wanted)
    except TensorError as error:
        raise invalid(f"{where} ({entry['name']}): {error}", entry["name"]) from None


def _shaped(tensor: Tensor, wanted: Input) -> Any:
    """The value behind a tensor: its rank may have leading ones that the parameter does not."""
    if wanted.array:
        return tensor.elements if tensor.is_array else tensor.nested()
    if wanted.levels is None and not wanted.as_json:
        return tensor.flat()[0] if tensor.shape in ([], [1]) else tensor.nested()
    levels, shape = wanted.levels or 0, tensor.shape
    while len(shape) > levels and shape[0] == 1:
        shape = shape[1:]
    if len(shape) != levels:
        raise TensorError(f"its shape is {tensor.shape}, and the parameter takes {wanted.shape}")
    flat = tensor.flat()
    if wanted.as_json:
        flat = [_loads(element) for element in flat]
    return Tensor(tensor.datatype, shape, flat).nested() if levels else flat[0]


def _loads(text: Any) -> Any:
    try:
        return json.loads(text)
    except (ValueError, TypeError, RecursionError) as error:
        raise TensorError(f"the parameter takes BYTES that hold JSON: {error}") from None


def _parameter(service: Service, name: str) -> Optional[Parameter]:
    return service.predict.signature.parameters.get(name) if service.predict is not None else None


def _input(kind: Type) -> Input:
    """The tensor that stands for a type hint."""
    if kind.dtype is not None:
        datatype = tensors.datatype_of(kind.dtype.name) or "FP64"
        return Input(datatype, 0) if kind.dtype.scalar else Input(datatype, None, array=True)
    schema, levels = kind.schema, 0
    while True:
        choices = [each for each in schema.get("anyOf", []) if each.get("type") != "null"]
        if len(choices) == 1:
            schema = choices[0]
        elif schema.get("type") == "array" and "prefixItems" not in schema:
            schema, levels = schema.get("items", {}), levels + 1
        else:
            break
    named = schema.get("type")
    if isinstance(named, str) and named in _JSON_TYPES:
        return Input(_JSON_TYPES[named], levels)
    if named is None and "enum" not in schema and "anyOf" not in schema and "$ref" not in schema:
        return Input("BYTES", None)
    if named is None and all(isinstance(choice, str) for choice in schema.get("enum", [0])):
        return Input("BYTES", levels)
    return Input("BYTES", levels, as_json=True)


def _described(name: str, tensor: Input) -> Dict[str, Any]:
    return {"name": name, "datatype": tensor.datatype, "shape": tensor.shape}


def _outputs(value: Any) -> Tuple[Dict[str, Tensor], Dict[str, Any]]:
    """Named tensors, and the answer's parameters."""
    extras: Dict[str, Any] = {}
    if isinstance(value, Prediction):
        told = {"confidence": value.confidence, "details": value.details}
        extras = {name: extra for name, extra in told.items() if extra is not None}
        value = value.value
    named = value if isinstance(value, dict) and value and all(isinstance(key, str) for key in value) else None
    return {name: tensors.from_value(each) for name, each in (named or {"prediction": value}).items()}, extras


def _wanted(body: Dict[str, Any]) -> Tuple[Optional[Dict[str, bool]], bool]:
    """Which outputs, None for all, with whether each comes as bytes; and whether all do."""
    everything = bool(_parameters(body, "the body").get("binary_data_output", False))
    asked = body.get("outputs")
    if not asked:
        return None, everything
    if not isinstance(asked, list) or not all(isinstance(e, dict) and isinstance(e.get("name"), str) for e in asked):
        raise invalid("outputs: expected an array of objects with a name", "outputs")
    chosen = {}
    for entry in asked:
        parameters = _parameters(entry, f"outputs ({entry['name']})")
        if parameters.get("classification"):
            raise invalid(f"outputs ({entry['name']}): the classification extension is not supported", "outputs")
        chosen[entry["name"]] = bool(parameters.get("binary_data", everything))
    return chosen, everything


def _chosen(
    outputs: Dict[str, Tensor], wanted: Tuple[Optional[Dict[str, bool]], bool]
) -> List[Tuple[str, Tensor, bool]]:
    names, everything = wanted
    if names is None:
        return [(name, tensor, everything) for name, tensor in outputs.items()]
    for name in names:
        if name not in outputs:
            raise invalid(f"outputs: there is no output {name}, there are {', '.join(outputs)}", "outputs")
    return [(name, outputs[name], binary) for name, binary in names.items()]


def _answer(
    service: Service, body: Dict[str, Any], outputs: List[Tuple[str, Tensor, bool]], extras: Dict[str, Any]
) -> Tuple[bytes, List[bytes]]:
    """The JSON part and the binary parts."""
    described: List[Dict[str, Any]] = []
    parts: List[bytes] = []
    for name, tensor, binary in outputs:
        entry: Dict[str, Any] = {"name": name, "shape": tensor.shape, "datatype": tensor.datatype}
        if binary:
            parts.append(tensor.raw())
            entry["parameters"] = {"binary_data_size": len(parts[-1])}
        else:
            entry["data"] = tensor.flat()
        described.append(entry)
    version = service.info["version"]
    answer: Dict[str, Any] = {"model_name": service.name, **({"model_version": version} if version else {})}
    if body.get("id") is not None:
        answer["id"] = str(body["id"])
    if extras:
        answer["parameters"] = extras
    return result.encode(result.dumps({**answer, "outputs": described})), parts


def _parameters(entry: Dict[str, Any], where: str) -> Dict[str, Any]:
    parameters = entry.get("parameters") or {}
    if not isinstance(parameters, dict):
        raise invalid(f"{where}.parameters: expected an object")
    return parameters
