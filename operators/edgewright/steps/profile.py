"""What a dataset looks like: types, missing and distinct values, quantiles, histograms, correlations, examples.

Counts, extremes, means and deviations are those of all rows. Distinct and frequent values, quantiles, histograms and
correlations are those of at most 100,000 rows, evenly chosen, so that memory does not grow with the dataset.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from edgewright.steps.data import Dataset
from edgewright.steps.hashes import HashSet, column_hashes

VERSION = 1
#: Rows that quantiles and correlations are found from.
SAMPLE = 100_000
QUANTILES = (0.0, 0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99, 1.0)
_BINS = 20
_FREQUENT = 10
_EXAMPLES = 5
#: Columns whose correlations are shown; more make no table that anybody reads.
_CORRELATED = 40
_NUMERIC = ("integer", "number", "boolean")


def profile(dataset: Dataset, parts: Sequence[str] | None = None) -> dict[str, Any]:
    """Return a dataset's profile as plain JSON.

    Args:
        dataset: The dataset.
        parts: The parts that count; all where it is left out.
    """
    chosen = list(parts or dataset.part_names)
    rows = sum(dataset.rows(part) for part in chosen)
    names = [column["name"] for column in dataset.columns]
    gathered = {name: _Counts() for name in names}
    sample = _sample(dataset, chosen, rows, gathered)
    columns = [_column(entry["name"], entry["type"], gathered[entry["name"]], sample) for entry in dataset.columns]
    return {
        "version": VERSION,
        "label": dataset.label,
        "problem": dataset.problem,
        "rows": rows,
        "sampled": sample.num_rows,
        "parts": {part: dataset.rows(part) for part in chosen},
        "columns": columns,
        "correlations": _correlations(columns, sample),
        "examples": plain(sample.slice(0, _EXAMPLES).to_pylist()),
    }


class _Counts:
    """What is counted over all rows of a column."""

    def __init__(self) -> None:
        self.rows = self.missing = self.finite = 0
        self.mean = self.squares = 0.0
        self.low: Any = None
        self.high: Any = None

    def add(self, array: pa.Array) -> None:
        """Count more rows."""
        self.rows += len(array)
        self.missing += array.null_count
        if pa.types.is_boolean(array.type):
            array = array.cast(pa.int8())
        if pa.types.is_integer(array.type) or pa.types.is_floating(array.type):
            self._add_numbers(array.drop_null().to_numpy(zero_copy_only=False).astype(np.float64))
        elif not pa.types.is_string(array.type) and len(array) > array.null_count:
            found = pc.min_max(array).as_py()
            self._widen(found["min"], found["max"])

    def _add_numbers(self, values: Any) -> None:
        values = values[np.isfinite(values)]
        if not len(values):
            return
        self._widen(float(values.min()), float(values.max()))
        # Chan, Golub and LeVeque, Updating Formulae and a Pairwise Algorithm for Computing Sample Variances, 1979
        count, mean = len(values), float(values.mean())
        total, delta = self.finite + count, mean - self.mean
        self.squares += float(((values - mean) ** 2).sum()) + delta**2 * self.finite * count / total
        self.mean += delta * count / total
        self.finite = total

    def _widen(self, low: Any, high: Any) -> None:
        self.low = low if self.low is None else min(self.low, low)
        self.high = high if self.high is None else max(self.high, high)


def _sample(dataset: Dataset, parts: list[str], rows: int, counts: dict[str, _Counts]) -> pa.Table:
    """Count all rows; return every n-th."""
    step = max(1, math.ceil(rows / SAMPLE))
    kept, done = [], 0
    for part in parts:
        for batch in dataset.batches(part):
            for name, array in zip(batch.schema.names, batch.columns, strict=True):
                counts[name].add(array)
            first = -done % step
            if first < batch.num_rows:
                kept.append(batch.take(pa.array(np.arange(first, batch.num_rows, step))))
            done += batch.num_rows
    return pa.Table.from_batches(kept).combine_chunks()


def _column(name: str, kind: str, counts: _Counts, sample: pa.Table) -> dict[str, Any]:
    values = sample.column(name).combine_chunks()
    known = values.drop_null()
    distinct = len(HashSet([column_hashes(known)])) if len(known) else 0
    found: dict[str, Any] = {
        "name": name, "type": kind, "missing": counts.missing,
        "missing_share": counts.missing / counts.rows if counts.rows else 0.0, "distinct": distinct,
        "minimum": plain(_whole(counts.low, kind)), "maximum": plain(_whole(counts.high, kind)),
    }  # fmt: skip
    if kind in ("integer", "number"):
        found |= _numbers(counts, known)
    if kind in ("string", "boolean") or (kind == "integer" and distinct <= _FREQUENT):
        found["frequent"] = _frequent(known)
    return found


def _whole(value: Any, kind: str) -> Any:
    return int(value) if kind == "integer" and value is not None else value


def _numbers(counts: _Counts, known: pa.Array) -> dict[str, Any]:
    if not counts.finite:
        return {}
    values = known.to_numpy(zero_copy_only=False).astype(np.float64)
    values = values[np.isfinite(values)]
    found: dict[str, Any] = {"mean": counts.mean, "deviation": math.sqrt(counts.squares / counts.finite)}
    if len(values):
        marks = np.quantile(values, QUANTILES)
        found["quantiles"] = {f"{q:g}": float(mark) for q, mark in zip(QUANTILES, marks, strict=True)}
        heights, edges = np.histogram(values, bins=min(_BINS, max(1, len(np.unique(values)))))
        found["histogram"] = {"edges": edges.tolist(), "counts": heights.tolist()}
    return found


def _frequent(known: pa.Array) -> list[dict[str, Any]]:
    pairs = [(plain(entry["values"]), entry["counts"]) for entry in known.value_counts().to_pylist()]
    pairs.sort(key=lambda pair: (-pair[1], str(pair[0])))
    return [{"value": value, "count": count} for value, count in pairs[:_FREQUENT]]


def _correlations(columns: list[dict[str, Any]], sample: pa.Table) -> dict[str, Any]:
    """Return Pearson's correlations of the first columns that hold numbers and vary; over rows where both are known."""
    names = [c["name"] for c in columns if c["type"] in _NUMERIC and c["distinct"] > 1][:_CORRELATED]
    if len(names) < 2:
        return {"columns": [], "values": []}
    matrix = np.stack([sample.column(n).cast(pa.float64()).to_numpy() for n in names])
    correlate: Any = np.ma.corrcoef
    found = correlate(np.ma.masked_invalid(matrix), allow_masked=True)
    values = [
        [None if np.ma.is_masked(v) or not math.isfinite(v) else round(float(v), 4) for v in row] for row in found
    ]
    return {"columns": names, "values": values}


def plain(value: Any) -> Any:
    """Return a value as JSON has it."""
    if isinstance(value, list):
        return [plain(item) for item in value]
    if isinstance(value, dict):
        return {name: plain(item) for name, item in value.items()}
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    return value if value is None or isinstance(value, (bool, int, str)) else value.isoformat()
