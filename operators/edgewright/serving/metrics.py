"""Counters and histograms in Prometheus's text format (version 0.0.4): base units, few labels, never a request id.

https://prometheus.io/docs/instrumenting/exposition_formats/
"""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from edgewright.streams.feature_log import FeatureLog

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
ROWS = (1, 2, 5, 10, 50, 100, 500, 1000, 5000, 10000)

Labels = tuple[str, ...]


def _escape(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _braces(names: Sequence[str], values: Sequence[str]) -> str:
    inner = ",".join(f'{name}="{_escape(value)}"' for name, value in zip(names, values, strict=True))
    return f"{{{inner}}}" if inner else ""


class Counter:
    """A number that only grows (or, as ``gauge``, is set)."""

    def __init__(self, name: str, help_text: str, labels: Sequence[str] = (), kind: str = "counter") -> None:
        self.name, self.help, self.labels, self.kind = name, help_text, tuple(labels), kind
        self.values: dict[Labels, float] = defaultdict(float)

    def add(self, labels: Labels = (), amount: float = 1.0) -> None:
        """Add to the number of some labels."""
        self.values[labels] += amount

    def lines(self) -> Iterable[str]:
        """Yield the exposition lines."""
        yield f"# HELP {self.name} {self.help}"
        yield f"# TYPE {self.name} {self.kind}"
        if not self.labels and not self.values:
            yield f"{self.name} 0"
        for labels, value in sorted(self.values.items()):
            yield f"{self.name}{_braces(self.labels, labels)} {value:.17g}"


class Histogram:
    """How often values fell below each of some bounds."""

    def __init__(self, name: str, help_text: str, bounds: Sequence[float], labels: Sequence[str] = ()) -> None:
        self.name, self.help, self.bounds, self.labels = name, help_text, tuple(bounds), tuple(labels)
        self.counts: dict[Labels, list[int]] = defaultdict(lambda: [0] * (len(self.bounds) + 1))
        self.sums: dict[Labels, float] = defaultdict(float)

    def observe(self, value: float, labels: Labels = ()) -> None:
        """Count one value."""
        self.counts[labels][bisect_left(self.bounds, value)] += 1
        self.sums[labels] += value

    def lines(self) -> Iterable[str]:
        """Yield the exposition lines; buckets are cumulative."""
        yield f"# HELP {self.name} {self.help}"
        yield f"# TYPE {self.name} histogram"
        for labels, counts in sorted(self.counts.items()):
            total = 0
            for bound, count in zip((*(f"{b:g}" for b in self.bounds), "+Inf"), counts, strict=True):
                total += count
                yield f"{self.name}_bucket{_braces((*self.labels, 'le'), (*labels, bound))} {total}"
            yield f"{self.name}_sum{_braces(self.labels, labels)} {self.sums[labels]:.17g}"
            yield f"{self.name}_count{_braces(self.labels, labels)} {total}"


class Metrics:
    """Everything that the service counts. Only the event loop's thread writes."""

    def __init__(self) -> None:
        self.requests = Counter(
            "edgewright_requests_total", "Prediction requests by answer.", ("model", "version", "code")
        )
        self.duration = Histogram(
            "edgewright_request_duration_seconds", "Time from the whole body to the answer.", SECONDS, ("model",)
        )
        self.inference = Histogram(
            "edgewright_inference_duration_seconds", "Time in the model alone.", SECONDS, ("model", "version")
        )
        self.batch = Histogram("edgewright_batch_size", "Rows in one request.", ROWS, ("model",))
        self.in_flight = Counter("edgewright_in_flight", "Prediction requests being answered now.", kind="gauge")
        self.loads = Counter("edgewright_model_loads_total", "Administration calls by outcome.", ("model", "outcome"))

    def render(self, models: Iterable[tuple[str, str, str, float]]) -> str:
        """Return the exposition text.

        Args:
            models: Name, version, variant and load time (seconds since 1970) of what is served.
        """
        info = Counter("edgewright_model_info", "What is served.", ("model", "version", "variant"), "gauge")
        loaded = Counter("edgewright_model_load_timestamp_seconds", "When the model was loaded.", ("model",), "gauge")
        for name, version, variant, seconds in models:
            info.values[name, version, variant] = 1
            loaded.values[name,] = seconds
        parts = (
            self.requests, self.duration, self.inference, self.batch, self.in_flight, self.loads, info, loaded,
        )  # fmt: skip
        return "\n".join(line for part in parts for line in part.lines()) + "\n"


def render_feature_log(feature_log: FeatureLog) -> str:
    """Return the exposition text of the feature log: entries by what became of them, and what waits on disk."""
    entries = Counter("edgewright_feature_log_entries_total", "Entries by outcome.", ("outcome",))
    waiting = Counter("edgewright_feature_log_waiting_bytes", "Bytes that wait on disk for Kafka.", kind="gauge")
    counts = feature_log.counts
    entries.values.update(
        {
            ("logged",): counts.logged,
            ("sent",): counts.sent,
            ("dropped-full",): counts.dropped_full,
            ("dropped-disk",): counts.dropped_disk,
            ("dropped-size",): counts.dropped_size,
        }
    )
    waiting.values[()] = feature_log.waiting_bytes
    return "\n".join(line for part in (entries, waiting) for line in part.lines()) + "\n"
