"""Metric families as plain JSON: how the gateways' figures reach control, are summed, and are written for Prometheus.

It knows the form of a family and Prometheus's text formats, and no metric of ours by name. A family is

    {"name": "sandbox_requests_total", "type": "counter" | "gauge", "help": "…",
     "labels": ["model", "code"], "series": [[["hello", "200"], 3]]}
    {"name": "sandbox_request_duration_seconds", "type": "histogram", "help": "…", "labels": ["model"],
     "bounds": [0.01, 0.1], "series": [[["hello"], [5, 1, 0], 0.09]]}

where a histogram's counts are per bucket (not cumulative) and one longer than its bounds: the last is +Inf. The form
is compact because a gateway sends all of its families in one line of at most 1 MiB.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

Family = Mapping[str, Any]
Labels = tuple[str, ...]


class Histogram:
    """One family of histograms by label values; `observe` costs a bisection and two additions."""

    __slots__ = ("_series", "bounds", "help", "labels", "name")

    def __init__(self, name: str, help_: str, labels: Sequence[str], bounds: Sequence[float]) -> None:
        self.name = name
        self.help = help_
        self.labels = tuple(labels)
        self.bounds = tuple(bounds)
        self._series: dict[Labels, tuple[list[int], list[float]]] = {}

    def observe(self, labels: Labels, value: float) -> None:
        """Count one value (base units) under these label values."""
        series = self._series.get(labels)
        if series is None:
            series = self._series[labels] = ([0] * (len(self.bounds) + 1), [0.0])
        series[0][bisect_left(self.bounds, value)] += 1
        series[1][0] += value

    def family(self) -> dict[str, Any]:
        """The family as JSON types."""
        return {
            "name": self.name,
            "type": "histogram",
            "help": self.help,
            "labels": list(self.labels),
            "bounds": list(self.bounds),
            "series": [[list(labels), list(counts), total[0]] for labels, (counts, total) in self._series.items()],
        }


def counter(name: str, help_: str, labels: Sequence[str], series: Mapping[Labels, float]) -> dict[str, Any]:
    """A counter family; the name ends in _total."""
    return _numbers("counter", name, help_, labels, series)


def gauge(name: str, help_: str, labels: Sequence[str], series: Mapping[Labels, float]) -> dict[str, Any]:
    """A gauge family."""
    return _numbers("gauge", name, help_, labels, series)


def without_gauges(families: Iterable[Family]) -> list[Family]:
    """What stays true of a process that died: its counters and histograms."""
    return [family for family in families if family["type"] != "gauge"]


def merge(lists: Iterable[Iterable[Family]]) -> list[dict[str, Any]]:
    """Sum families of several processes by name and label values; order of first appearance.

    Raises ValueError where two families of one name differ in type, labels or bounds.
    """
    merged: dict[str, dict[str, Any]] = {}
    sums: dict[str, dict[Labels, list[Any]]] = {}
    for families in lists:
        for family in families:
            name = family["name"]
            known = merged.setdefault(name, {key: value for key, value in family.items() if key != "series"})
            if any(known.get(key) != family.get(key) for key in ("type", "labels", "bounds")):
                raise ValueError(f"two different families are named {name}")
            series = sums.setdefault(name, {})
            for labels, *values in family["series"]:
                key = tuple(labels)
                series[key] = (
                    [_add(a, b) for a, b in zip(series[key], values, strict=True)] if key in series else values
                )
    return [
        {**family, "series": [[list(key), *values] for key, values in sums[name].items()]}
        for name, family in merged.items()
    ]


def render(families: Iterable[Family], accept: str = "") -> tuple[bytes, str]:
    """The text of these families and its Content-Type: Prometheus 0.0.4, or OpenMetrics where `accept` asks for it."""
    encoder, content_type = choose_encoder(accept)
    return encoder(_Families(families)), content_type


class _Families(Collector):
    """Families as prometheus_client wants to collect them."""

    def __init__(self, families: Iterable[Family]) -> None:
        self._families = families

    def collect(self) -> Iterable[Metric]:
        return [_metric(family) for family in self._families]


def _metric(family: Family) -> Metric:
    name, help_, labels = family["name"], family["help"], family["labels"]
    match family["type"]:
        case "counter":
            total = CounterMetricFamily(name, help_, labels=labels)
            for values, number in family["series"]:
                total.add_metric(values, number)
            return total
        case "gauge":
            level = GaugeMetricFamily(name, help_, labels=labels)
            for values, number in family["series"]:
                level.add_metric(values, number)
            return level
        case "histogram":
            histogram = HistogramMetricFamily(name, help_, labels=labels)
            for values, counts, sum_ in family["series"]:
                histogram.add_metric(values, _cumulative(family["bounds"], counts), sum_)
            return histogram
        case other:
            raise ValueError(f"{name}: {other!r} is no type of family")


def _cumulative(bounds: Sequence[float], counts: Sequence[int]) -> list[tuple[str, float]]:
    buckets, seen = [], 0
    for bound, count in zip([*map(str, map(float, bounds)), "+Inf"], counts, strict=True):
        seen += count
        buckets.append((bound, float(seen)))
    return buckets


def _numbers(
    type_: str, name: str, help_: str, labels: Sequence[str], series: Mapping[Labels, float]
) -> dict[str, Any]:
    rows = [[list(key), number] for key, number in series.items()]
    return {"name": name, "type": type_, "help": help_, "labels": list(labels), "series": rows}


def _add(a: Any, b: Any) -> Any:
    return [x + y for x, y in zip(a, b, strict=True)] if isinstance(a, list) else a + b
