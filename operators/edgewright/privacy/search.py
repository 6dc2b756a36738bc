"""Finding a pseudonym in files: rows of Parquet by their columns of text, all others byte by byte."""

from __future__ import annotations

from collections.abc import Iterator
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet as pq

from edgewright.artifacts import ArtifactStore
from edgewright.steps.data import GROUP_ROWS
from edgewright.steps.erased import Erased, is_text

_BLOCK = 1 << 20


def rows_in(store: ArtifactStore, key: str, erased: Erased) -> int:
    """Return how many rows of a Parquet file of the store are theirs; only its columns of text are read."""
    with store.open(key) as opened, pq.ParquetFile(opened) as file:
        texts = [field.name for field in file.schema_arrow if is_text(field.type)]
        if not texts:
            return 0
        masks = (erased.mask(batch) for batch in file.iter_batches(batch_size=GROUP_ROWS, columns=texts))
        return sum(int(pa.compute.sum(mask).as_py() or 0) for mask in masks if mask is not None)


def holds(store: ArtifactStore, key: str, text: str) -> bool:
    """Whether a file of the store holds a text anywhere; packed files are looked at as they are."""
    with store.open(key) as file:
        needle, tail = text.encode(), b""
        for block in _blocks(file):
            if needle in tail + block:
                return True
            tail = block[-len(needle) :]
    return False


def found_in(store: ArtifactStore, key: str, subject: str, erased: Erased) -> int:
    """Return how many rows, or 1 for a file that is no table, hold a subject."""
    if not key.endswith(".parquet"):
        return int(holds(store, key, subject))
    try:
        return rows_in(store, key, erased)
    except pa.ArrowInvalid:  # its name says so, and it is none
        return int(holds(store, key, subject))


def _blocks(file: IO[bytes]) -> Iterator[bytes]:
    while block := file.read(_BLOCK):
        yield block


def results(store: ArtifactStore) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the folder and the result document of every task of every run that ended well."""
    for key in store.list_keys("runs"):
        if key.count("/") == 4 and key.endswith("/result.json"):
            document = store.read_json(key) or {}
            if document.get("state") == "success":
                yield key.rpartition("/")[0], document
