"""What the gateway counts. Recording is a dictionary access and an addition; families are made when asked for.

No label is unbounded: routes are rows of the path table, codes are statuses, and a model that does not exist is one
fixed value.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from orchestrator.exposition import Histogram, Labels, counter, gauge

UNKNOWN_MODEL = "_unknown"
OTHER_ROUTE = "_other"
# The code of a client that left before its answer was whole (nginx's word for it).
CLIENT_LEFT = 499

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)

# A wait of more seconds is no wait but a worker that does not know what it says (inf, say).
_TOO_LONG = 1e6
_SIZES = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0)


class Recorder:
    """One gateway process's figures."""

    def __init__(self) -> None:
        self._requests: defaultdict[tuple[str, str, int], int] = defaultdict(int)
        self._in_progress: defaultdict[str, int] = defaultdict(int)
        self._held: Counter[Labels] = Counter()
        self._retries: Counter[Labels] = Counter()
        self._durations = Histogram(
            "sandbox_request_duration_seconds",
            "From a request's head to the last byte of its answer.",
            ("model", "route"),
            _SECONDS,
        )
        self._first_bytes = Histogram(
            "sandbox_time_to_first_byte_seconds",
            "From a request's head to the first byte of the model's answer.",
            ("model",),
            _SECONDS,
        )
        self._queue_waits = Histogram(
            "sandbox_queue_wait_seconds", "What requests waited in a worker's queue.", ("model",), _SECONDS
        )

        self._batches = Histogram(
            "sandbox_batch_size", "Calls that shared one call of predict_batch.", ("model",), _SIZES
        )

    def begin(self, model: str) -> None:
        """A request for this model is in progress."""
        self._in_progress[model] += 1

    def end(self, model: str) -> None:
        """It no longer is."""
        self._in_progress[model] -= 1

    def answered(self, model: str, route: str, code: int, seconds: float) -> None:
        """A request is over. code: the HTTP status; 502 also where the answer was cut, 499 where the client left."""
        self._requests[model, route, code] += 1
        self._durations.observe((model, route), seconds)

    def held(self, model: str, reason: str) -> None:
        """A request had nothing to be sent to."""
        self._held[model, reason] += 1

    def retried(self, model: str, reason: str) -> None:
        """A request that never started was sent again."""
        self._retries[model, reason] += 1

    def first_byte(self, model: str, seconds: float) -> None:
        """A model began to answer."""
        self._first_bytes.observe((model,), seconds)

    def queue_wait(self, model: str, said: bytes | None) -> None:
        """A worker said how long a request waited in its queue (X-Sandbox-Queue-Seconds); what is no number is not."""
        if said is not None:
            try:  # suppress() would cost more than all the rest
                seconds = float(said)
            except ValueError:
                return
            if 0.0 <= seconds < _TOO_LONG:
                self._queue_waits.observe((model,), seconds)

    def batched(self, model: str, said: bytes | None) -> None:
        """A worker said which place of how many a request had in its batch (X-Sandbox-Batch); the first one counts."""
        if said is not None and said.startswith(b"1/"):
            with suppress(ValueError):
                self._batches.observe((model,), float(int(said[2:])))

    def families(self) -> list[dict[str, Any]]:
        """Everything, in exposition.py's form."""
        in_progress: Mapping[Labels, float] = {(model,): number for model, number in self._in_progress.items()}
        return [
            counter(
                "sandbox_requests_total",
                "Requests answered, by HTTP status.",
                ("model", "route", "code"),
                {(model, route, str(code)): number for (model, route, code), number in self._requests.items()},
            ),
            self._durations.family(),
            gauge("sandbox_requests_in_progress", "Requests not answered yet.", ("model",), in_progress),
            counter(
                "sandbox_requests_held_total",
                "Requests held because no generation was active.",
                ("model", "reason"),
                self._held,
            ),
            counter(
                "sandbox_requests_retried_total",
                "Requests that provably never started and were sent again.",
                ("model", "reason"),
                self._retries,
            ),
            self._queue_waits.family(),
            self._first_bytes.family(),
            self._batches.family(),
        ]
