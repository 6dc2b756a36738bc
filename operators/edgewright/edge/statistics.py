"""What a node tells about the requests of one period: how many, how fast, and how their values lie.

Drift is told in two numbers a column that need no data of the training: ``outside``, the share of values outside of the
range seen in training, and ``shift``, the mean's distance from that of the bundle's golden rows in their standard
deviations. They say that something changed, not that the model is wrong.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edgewright.serving.release import Feature

_TIMES = 4096


class _Column:
    """Sums of one column; Welford's method for the mean."""

    def __init__(self, feature: Feature, golden: Sequence[Any]) -> None:
        known = np.array([value for value in golden if isinstance(value, (int, float))], dtype=np.float64)
        self._feature = feature
        self._center = float(known.mean()) if known.size else None
        self._spread = float(known.std()) if known.size else 0.0
        self.clear()

    def clear(self) -> None:
        self.count = self.missing = self.outside = 0
        self.mean = 0.0
        self.low = self.high = 0.0

    def add(self, value: Any) -> None:
        if value is None or value != value or value == "":
            self.missing += 1
            return
        self.count += 1
        if not self._feature.numeric:
            return
        number = float(value)
        self.mean += (number - self.mean) / self.count
        self.low, self.high = (number, number) if self.count == 1 else (min(self.low, number), max(self.high, number))
        feature = self._feature
        self.outside += (feature.minimum is not None and number < feature.minimum) or (
            feature.maximum is not None and number > feature.maximum
        )

    def describe(self) -> dict[str, Any]:
        told: dict[str, Any] = {"count": self.count, "missing": self.missing}
        if self._feature.numeric and self.count:
            told |= {"mean": self.mean, "minimum": self.low, "maximum": self.high, "outside": self.outside / self.count}
            if self._center is not None and self._spread > 0:
                told["shift"] = (self.mean - self._center) / self._spread
        return told


class Statistics:
    """Counts of one model since the last report; used by several threads.

    Args:
        features: The model's columns.
        golden: Its golden rows.
    """

    def __init__(self, features: Sequence[Feature], golden: Sequence[dict[str, Any]]) -> None:
        self._lock = threading.Lock()
        self._columns = {f.name: _Column(f, [row.get(f.name) for row in golden]) for f in features}
        self._clear()

    @classmethod
    def of_bundle(cls, folder: Path, features: Sequence[Feature]) -> Statistics:
        """Return empty counts for an opened bundle."""
        return cls(features, json.loads((folder / "golden.json").read_bytes())["inputs"])

    def _clear(self) -> None:
        self._requests = self._rows = self._faults = self._failures = 0
        self._seconds: list[float] = []
        for column in self._columns.values():
            column.clear()

    def answered(self, cells: Sequence[Sequence[Any]], seconds: float) -> None:
        """Count a request that was answered: its rows, and the seconds that the model took."""
        with self._lock:
            self._requests += 1
            self._rows += len(cells)
            if len(self._seconds) < _TIMES:
                self._seconds.append(seconds)
            for row in cells:
                for column, value in zip(self._columns.values(), row, strict=True):
                    column.add(value)

    def failed(self, *, ours: bool) -> None:
        """Count a request that was not answered: because of the caller, or (``ours``) of the model."""
        with self._lock:
            self._requests += 1
            self._failures += ours
            self._faults += not ours

    def describe(self, *, clear: bool = False) -> dict[str, Any]:
        """Return the counts, and with ``clear`` begin again."""
        with self._lock:
            times = np.array(self._seconds or [0.0]) * 1e6
            told = {
                "requests": self._requests, "rows": self._rows, "faults": self._faults, "failures": self._failures,
                "latency_us": {"p50": float(np.percentile(times, 50)), "p99": float(np.percentile(times, 99))}
                if self._seconds else None,
                "inputs": {name: column.describe() for name, column in self._columns.items()},
            }  # fmt: skip
            if clear:
                self._clear()
        return told
