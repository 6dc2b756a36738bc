"""Hashes of rows: equal rows are found, and rows are divided, without keeping the rows themselves in memory."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Any

import numpy as np
import pyarrow as pa

_FIRST, _SECOND = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)
_GAMMA = np.uint64(0x9E3779B97F4A7C15)
_NULL = np.uint64(0x5BD1E9952545F491)


def row_hashes(batch: pa.RecordBatch, seed: int = 0) -> Any:
    """Return a 64-bit hash of each row's contents: equal rows have equal hashes, whatever batch they came in.

    Args:
        batch: Rows; the columns' types must be the same for all batches that are compared.
        seed: Another seed gives other hashes.

    Returns:
        numpy array of uint64, shape ``[rows]``.
    """
    with np.errstate(over="ignore"):
        found = _mix(np.full(batch.num_rows, np.uint64(seed % 2**64) + _GAMMA, dtype=np.uint64))
        for array in batch.columns:
            found = _mix(found * _GAMMA + column_hashes(array))
    return found


def column_hashes(array: pa.Array) -> Any:
    """Return a 64-bit hash of each value of a column; all missing values have the same one."""
    if pa.types.is_string(array.type) or pa.types.is_large_string(array.type):
        values = _text_hashes(array)
    elif pa.types.is_floating(array.type):
        numbers = array.fill_null(0.0).to_numpy(zero_copy_only=False).astype(np.float64) + 0.0  # -0.0 equals 0.0
        values = _mix(numbers.view(np.uint64))
    else:
        numbers = array.cast(pa.int32() if pa.types.is_date32(array.type) else pa.int64()).fill_null(0)
        values = _mix(numbers.to_numpy(zero_copy_only=False).astype(np.int64).view(np.uint64))
    if array.null_count:
        values = np.where(array.is_null().to_numpy(zero_copy_only=False), _NULL, values)
    return values


def _text_hashes(array: pa.Array) -> Any:
    encoded = array.dictionary_encode()
    words = [hashlib.blake2b(word.encode(), digest_size=8).digest() for word in encoded.dictionary.to_pylist()]
    table = np.frombuffer(b"".join(words), dtype="<u8") if words else np.zeros(1, dtype=np.uint64)
    return table[encoded.indices.fill_null(0).to_numpy(zero_copy_only=False)]


def _mix(values: Any) -> Any:
    """Scramble 64-bit integers: the finaliser of SplitMix64 (Steele, Lea and Flood, OOPSLA 2014)."""
    with np.errstate(over="ignore"):
        values = (values ^ (values >> np.uint64(30))) * _FIRST
        values = (values ^ (values >> np.uint64(27))) * _SECOND
    return values ^ (values >> np.uint64(31))


class HashSet:
    """A growing set of 64-bit hashes: 8 bytes each, in sorted runs that are merged as they double."""

    def __init__(self, batches: Iterable[Any] = ()) -> None:
        self._runs: list[Any] = []
        for hashes in batches:
            self.add(hashes)

    def __len__(self) -> int:
        return sum(len(run) for run in self._runs)

    def add(self, hashes: Any) -> None:
        """Add an array of hashes."""
        run = np.unique(hashes)
        while self._runs and len(self._runs[-1]) <= 2 * len(run):
            run = np.union1d(self._runs.pop(), run)
        if len(run):
            self._runs.append(run)

    def contains(self, hashes: Any) -> Any:
        """Return a boolean array: which of the hashes are in the set."""
        found = np.zeros(len(hashes), dtype=bool)
        for run in self._runs:
            place = np.minimum(np.searchsorted(run, hashes), len(run) - 1)
            found |= run[place] == hashes
        return found
