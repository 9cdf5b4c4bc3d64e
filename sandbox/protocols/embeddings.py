"""POST /v1/embeddings: texts in, vectors out, as numbers or as base64 of little-endian 32-bit floats."""

from __future__ import annotations

import array
import base64
import math
import sys
from typing import Any, Dict, List

from sandbox.protocols import openai
from sandbox.protocols.turn import Turn
from sandbox.refusal import Refusal, invalid
from sandbox.service import Service


async def embed(service: Service, turn: Turn) -> None:
    body = openai.read(turn)
    function = service.embed
    if function is None:
        raise Refusal("NOT_FOUND", "this model does not embed: it has no function embed")
    texts = openai.texts(body, "input")
    encoding = body.get("encoding_format") or "float"
    if encoding not in ("float", "base64"):
        raise invalid("encoding_format: expected float or base64", "encoding_format")
    if len(texts) > service.serving["max_batch"]:
        raise Refusal("PAYLOAD_TOO_LARGE", f"input: at most {service.serving['max_batch']} texts", param="input")
    for text in texts:
        service.measure(text, len(turn.request.body), "input")
    others = {name: value for name, value in body.items() if name not in ("model", "input", "encoding_format")}
    keywords = function.signature.choose({name: value for name, value in others.items() if value is not None})
    lease = await turn.admit(service)
    try:
        vectors = _vectors(await service.caller.call(function, lease, [texts], keywords), len(texts))
    except BaseException as error:
        raise turn.refusal(service, error) from error
    finally:
        lease.drop()
    data = [
        {"object": "embedding", "index": index, "embedding": _base64(vector) if encoding == "base64" else vector}
        for index, vector in enumerate(vectors)
    ]
    count = sum(openai.tokens(text) for text in texts)
    used: Dict[str, int] = {"prompt_tokens": count, "total_tokens": count}
    model = str(body.get("model") or service.name)
    openai.answer(turn, {"object": "list", "data": data, "model": model, "usage": used})


def _vectors(value: Any, expected: int) -> List[List[float]]:
    rows = value.tolist() if hasattr(value, "tolist") else list(value)
    if len(rows) != expected:
        raise TypeError(f"embed got {expected} texts and returned {len(rows)} vectors")
    vectors = [row.tolist() if hasattr(row, "tolist") else [float(number) for number in row] for row in rows]
    if not all(math.isfinite(number) for vector in vectors for number in vector):
        raise ValueError("a vector holds NaN or infinity, which JSON cannot carry")
    return vectors


def _base64(vector: List[float]) -> str:
    packed = array.array("f", vector)
    if sys.byteorder == "big":
        packed.byteswap()
    return base64.b64encode(packed.tobytes()).decode("ascii")
