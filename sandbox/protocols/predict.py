"""POST /predict and /predict/batch: the envelope's own way to call a model."""

from __future__ import annotations

import asyncio
import time
from typing import Any, Dict, List, Optional

from sandbox import result
from sandbox.calls import Streamed
from sandbox.model import Prediction
from sandbox.protocols import envelope
from sandbox.protocols.sse import EventStream
from sandbox.protocols.turn import Turn
from sandbox.refusal import Refusal, invalid
from sandbox.result import ResultError
from sandbox.service import Service
from sandbox.slots import Lease


async def predict(service: Service, turn: Turn) -> None:
    """One input object, one prediction; a generator's items as events where the client accepts them."""
    function = service.predict
    if function is None or service.batcher is not None:
        await _predict_by_batch(service, turn)
        return
    inputs, size = envelope.read(turn.request.body)
    args, keywords = function.signature.bind(inputs)
    service.measure(inputs, size)
    stream = None
    lease = await turn.admit(service)
    began = time.perf_counter()
    try:
        if function.is_stream and turn.accepts_events:
            stream = EventStream(turn.connection, turn.headers)
        value = await service.caller.call(function, lease, args, keywords, _sink(stream))
        if stream is not None and value is Streamed:
            await stream.send(f'{{"processing_time":{_since(began)}}}', "end")
            stream.end()
            return
        data = prediction(value, began)
    except BaseException as error:
        refusal = turn.refusal(service, error)
        if stream is None or not stream.begun:
            raise refusal from error
        # The head said 200 long ago: the error is an event of its own, and no "end" follows.
        await stream.send(envelope.error_text(refusal), "error")
        stream.end()
        return
    finally:
        lease.drop()
        if stream is not None:
            stream.close()
    envelope.answer(turn.connection, turn.id, data, turn.queue_header)


async def by_batch(service: Service, turn: Turn, inputs: Any) -> Any:
    """What predict_batch makes of one input: among those of other requests where batching is on, else alone."""
    if service.batcher is not None:
        return await turn.share(service.batcher, inputs)
    if service.predict_batch is None:
        raise no_predict(service)
    lease = await turn.admit(service)
    try:
        (value,) = await service.together(lease, [inputs])
    finally:
        lease.drop()
    return _raised(value)


async def predict_batch(service: Service, turn: Turn) -> None:
    """Many inputs, answered in order; an item that fails does so alone."""
    if service.predict is None and service.predict_batch is None:
        raise no_predict(service)
    body, _ = envelope.read(turn.request.body)
    inputs = body.get("inputs") if isinstance(body, dict) else None
    if not isinstance(inputs, list):
        raise invalid('inputs: missing, expected an array: {"inputs": [{…}, {…}]}', "inputs")
    limit = service.serving["max_batch"]
    if len(inputs) > limit:
        raise Refusal("PAYLOAD_TOO_LARGE", f"inputs: {len(inputs)} items; a batch has at most {limit}")
    lease = await turn.admit(service)
    began = time.perf_counter()
    try:
        if service.predict_batch is not None:
            answers = await _together(service, turn, lease, inputs)
        else:
            answers = await _one_by_one(service, turn, lease, inputs)
    except BaseException as error:
        raise turn.refusal(service, error) from error
    finally:
        lease.drop()
    data = f'{{"predictions":[{",".join(answers)}],"processing_time":{_since(began)},"total":{len(inputs)}}}'
    envelope.answer(turn.connection, turn.id, data, turn.queue_header)


async def warm_up(service: Service, example: Any) -> None:
    """Call the model once with its example. Raises what the model raises."""
    lease = await _free_lease(service)
    try:
        if service.predict is not None:
            args, keywords = service.predict.signature.bind(example)
            result.dumps(_plain(await service.caller.call(service.predict, lease, args, keywords)))
        elif service.predict_batch is not None:
            await service.caller.call(service.predict_batch, lease, [[example]], {})
        elif service.chat is not None and isinstance(example, dict) and "messages" in example:
            await service.chat.turn(example["messages"], {}, lease)
    finally:
        lease.drop()


async def _predict_by_batch(service: Service, turn: Turn) -> None:
    inputs, size = envelope.read(turn.request.body)
    if service.predict is not None:
        service.predict.signature.bind(inputs)
    service.measure(inputs, size)
    began = time.perf_counter()
    try:
        data = prediction(await by_batch(service, turn, inputs), began)
    except BaseException as error:
        raise turn.refusal(service, error) from error
    envelope.answer(turn.connection, turn.id, data, turn.queue_header)


async def _together(service: Service, turn: Turn, lease: Lease, inputs: List[Any]) -> List[str]:
    """One call of predict_batch with the items that are valid."""
    answers: Dict[int, str] = {}
    valid = []
    for index, item in enumerate(inputs):
        try:
            service.measure(item, where=f"inputs[{index}]")
            if service.predict is not None:
                service.predict.signature.bind(item, f"inputs[{index}]")
            valid.append(index)
        except Refusal as refusal:
            answers[index] = _item_error(refusal)
    if valid:
        values = await service.together(lease, [inputs[index] for index in valid])
        for index, value in zip(valid, values):
            answers[index] = _item(service, turn, value)
    return [answers[index] for index in range(len(inputs))]


async def _one_by_one(service: Service, turn: Turn, lease: Lease, inputs: List[Any]) -> List[str]:
    """`predict` for each item. The batch's own slot takes them in turn; slots that are free right now help."""
    function = service.predict
    if function is None:
        raise no_predict(service)
    answers: List[str] = [""] * len(inputs)
    indexes = iter(range(len(inputs)))

    async def run(share: Lease) -> None:
        for index in indexes:
            try:
                service.measure(inputs[index], where=f"inputs[{index}]")
                args, keywords = function.signature.bind(inputs[index], f"inputs[{index}]")
                value = await service.caller.call(function, share, args, keywords)
            except asyncio.CancelledError:
                raise
            except BaseException as error:  # noqa: BLE001 - whatever the model raised is this item's answer
                value = error
            answers[index] = _item(service, turn, value)

    async def help_out() -> None:
        share = Lease(service.slots)
        try:
            await run(share)
        finally:
            share.drop()

    helpers: List[asyncio.Future[None]] = []
    while len(helpers) + 1 < len(inputs) and service.slots.try_acquire():
        helpers.append(asyncio.ensure_future(help_out()))
    try:
        await run(lease)
        for helper in helpers:
            await helper
    finally:
        for helper in helpers:
            helper.cancel()
    return answers


def _item(service: Service, turn: Turn, value: Any) -> str:
    if isinstance(value, Refusal):
        return _item_error(value)
    if isinstance(value, BaseException):
        return _item_error(service.failed(value, turn.id))
    try:
        return result.dumps(_plain(value))
    except ResultError as error:
        return _item_error(service.failed(error, turn.id))


def _item_error(refusal: Refusal) -> str:
    message = f'"message":{envelope.quote(refusal.message)},'
    return f'{{"error":{{{message}{envelope.error_text(refusal)[1:]}}}'


def prediction(value: Any, began: float) -> str:
    """What a call returned, and since when it ran, as the envelope's `data`: JSON text."""
    if not isinstance(value, Prediction):
        return f'{{"prediction":{result.dumps(value)},"processing_time":{_since(began)}}}'
    text = f'{{"prediction":{result.dumps(value.value)},"processing_time":{_since(began)}'
    if value.confidence is not None:
        text += f',"confidence":{result.dumps(value.confidence)}'
    if value.details is not None:
        text += f',"details":{result.dumps(value.details)}'
    return text + "}"


def _raised(value: Any) -> Any:
    """predict_batch may return an exception in an item's place."""
    if isinstance(value, BaseException):
        raise value
    return value


def _plain(value: Any) -> Any:
    """In a batch there is no room for extras beside the value."""
    return value.value if isinstance(value, Prediction) else value


def _sink(stream: Optional[EventStream]) -> Any:
    if stream is None:
        return None

    async def send(item: Any) -> None:
        await stream.send(result.dumps(_plain(item)))

    return send


def _since(began: float) -> str:
    return f"{time.perf_counter() - began:.6f}"


async def _free_lease(service: Service) -> Lease:
    await service.slots.acquire()
    return service.begin()


def no_predict(service: Service) -> Refusal:
    """What to answer where the model does something else."""
    other = "/v1/chat/completions" if service.chat is not None else "/v1/embeddings"
    return Refusal("NOT_FOUND", "this model has no predict", f"call {other}")
