"""Rows of persons who were erased: found by their pseudonym in any column of text, and left out."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from edgewright.artifacts import ArtifactStore, erasures


class Erased:
    """Leaves out the rows of some persons.

    A pseudonym has 130 bits, so a cell that equals one means this person, whatever its column is called.

    Args:
        subjects: Their pseudonyms.
    """

    def __init__(self, subjects: Iterable[str]) -> None:
        self._subjects = sorted(subjects)
        self._values = pa.array(self._subjects, pa.string())

    @classmethod
    def load(cls, store: ArtifactStore) -> Erased:
        """Return what leaves out everybody who was erased from a store's installation."""
        return cls(erasures.subjects(store))

    def without(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """Return the rows of all others."""
        if not self._subjects:
            return batch
        mask = self.mask(batch)
        return batch if mask is None else batch.filter(pc.invert(mask))

    def mask(self, batch: pa.RecordBatch) -> Any:
        """Return a boolean array, which rows are theirs; ``None`` where none is."""
        found = None
        for array in batch.columns:
            if is_text(array.type):
                one = pc.is_in(array.cast(pa.string()), value_set=self._values)
                found = one if found is None else pc.or_(found, one)
        return found if found is not None and pc.any(found).as_py() else None


def is_text(kind: pa.DataType) -> bool:
    """Whether a column may hold pseudonyms."""
    if pa.types.is_dictionary(kind):
        return is_text(kind.value_type)
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))
