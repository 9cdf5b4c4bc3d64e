"""Control's own figures: reloads, restarts, states and what replicas use. It counts; exposition.py writes them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping

from orchestrator.exposition import Family, Histogram, counter, gauge
from orchestrator.plan.lifecycle import STATES, State
from orchestrator.ports import Usage

BOUNDS = (0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)
PHASES = (
    *(
        "detect",
        "snapshot",
        "build",
        "start",
        "check",
        "fork",
        "spawn",
        "import",
        "load",
        "warmup",
        "ready",
        "held",
        "held",
        "swap",
    ),
    *("drain", "total"),
)


class Meters:
    """Counts since control started."""

    def __init__(self) -> None:
        self._reloads: Counter[tuple[str, ...]] = Counter()
        self._restarts: Counter[tuple[str, ...]] = Counter()
        self._cut: Counter[tuple[str, ...]] = Counter()
        self._durations = Histogram(
            "sandbox_reload_duration_seconds", "Duration of a reload, by phase.", ("model", "phase"), BOUNDS
        )

    def reload(self, model: str, tier: str, result: str, phases: Mapping[str, float]) -> None:
        """Count one reload, with the seconds of each of its phases."""
        self._reloads[model, tier, result] += 1
        for phase in PHASES:
            if phase in phases:
                self._durations.observe((model, phase), phases[phase])

    def phase(self, model: str, phase: str, seconds: float) -> None:
        """Count a phase that ends after its reload was told of."""
        self._durations.observe((model, phase), seconds)

    def restart(self, model: str, cause: str) -> None:
        """Count a worker or an agent that ended by itself."""
        self._restarts[model, cause] += 1

    def cut(self, model: str, streams: int) -> None:
        """Count streams that were cut at the drain deadline."""
        self._cut[(model,)] += streams

    def families(self) -> list[Family]:
        """The counts as families (exposition.py)."""
        return [
            counter(
                "sandbox_reloads_total", "Reloads, by tier and result.", ("model", "action", "result"), self._reloads
            ),
            self._durations.family(),
            counter(
                "sandbox_worker_restarts_total",
                "Workers and agents that ended by themselves, by cause.",
                ("model", "reason"),
                self._restarts,
            ),
            counter("sandbox_reload_cut_streams_total", "Streams cut at the drain deadline.", ("model",), self._cut),
        ]


def states(rows: Mapping[str, State]) -> Family:
    """`sandbox_model_state`: 1 for the state that a model is in, 0 for the others."""
    series: dict[tuple[str, ...], float] = {
        (model, state): float(state == current) for model, current in rows.items() for state in STATES
    }
    return gauge("sandbox_model_state", "1 for the state that the model is in.", ("model", "state"), series)


def infos(rows: Iterable[tuple[str, int | None, str, str]]) -> Family:
    """`sandbox_model_info`: rows of model, generation, runtime, python."""
    labels = ("model", "generation", "runtime", "python")
    series: dict[tuple[str, ...], float] = {
        (model, str(number or ""), runtime, python): 1.0 for model, number, runtime, python in rows
    }
    return gauge("sandbox_model_info", "What runs: generation, runtime and Python of a model.", labels, series)


def usages(rows: Mapping[str, Usage]) -> list[Family]:
    """CPU and memory by model, replicas summed."""
    cpu: dict[tuple[str, ...], float] = {(model,): usage.cpu_seconds for model, usage in rows.items()}
    memory: dict[tuple[str, ...], float] = {(model,): float(usage.memory) for model, usage in rows.items()}
    return [
        counter("sandbox_model_cpu_seconds_total", "CPU time of the replicas that run now.", ("model",), cpu),
        gauge("sandbox_model_memory_bytes", "Memory of the replicas, without page cache.", ("model",), memory),
    ]
