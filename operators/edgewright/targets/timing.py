"""How fast a model answers: the median and the 99th percentile of calls, warm, arrays ready."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

_WARM_UP = 50
_CALLS = 500
_SECONDS = 1.0
_FEWEST = 5


@dataclass(frozen=True)
class Latency:
    """Times of one call.

    Attributes:
        p50: Median in microseconds.
        p99: 99th percentile in microseconds.
    """

    BATCHES: ClassVar[tuple[int, ...]] = (1, 256)

    p50: float
    p99: float


def time_calls(call: Callable[[dict[str, Any]], Any], rows: Mapping[str, Any], batch: int) -> Latency | None:
    """Time calls with so many rows each: at most 500 calls, at most a second of them (and five in any case).

    Args:
        call: Takes input arrays.
        rows: Input name -> array ``[rows, ...]``; where there are fewer rows than the batch they are repeated.
        batch: Rows a call.

    Returns:
        The times; ``None`` where one call takes longer than the second.
    """
    feeds = [_take(rows, start * batch, batch) for start in range(32 if batch == 1 else 2)]
    end = time.perf_counter() + _SECONDS
    for index in range(_WARM_UP):
        call(feeds[index % len(feeds)])
        if time.perf_counter() > end:
            if index < _FEWEST:
                return None
            break
    times: list[float] = []
    end = time.perf_counter() + _SECONDS
    while len(times) < _CALLS and (len(times) < _FEWEST or time.perf_counter() < end):
        feed = feeds[len(times) % len(feeds)]
        start = time.perf_counter()
        call(feed)
        times.append(time.perf_counter() - start)
    times.sort()
    return Latency(times[len(times) // 2] * 1e6, times[min(len(times) - 1, int(len(times) * 0.99))] * 1e6)


def _take(rows: Mapping[str, Any], start: int, count: int) -> dict[str, Any]:
    found = {}
    for name, array in rows.items():
        places = [(start + offset) % len(array) for offset in range(count)]
        found[name] = array[places]
    return found
