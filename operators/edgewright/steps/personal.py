"""Personal columns: what identifies people is replaced, masked or left out before a row is stored anywhere."""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping

import pyarrow as pa

from edgewright.errors import DataError
from edgewright.spec.steps.ingest import MASKS, IngestConfig, Mask, Treatment
from edgewright.streams.pseudonyms import Pseudonyms

_MASKED = "***"


class Protector:
    """Treats the personal columns of batches.

    Args:
        personal: How, by column.
        where: How messages name the source.
        pseudonyms: Where columns become tokens; loaded from the environment where it is left out.

    Raises:
        ConfigError: there is no key.
    """

    def __init__(self, personal: Mapping[str, Treatment], where: str, pseudonyms: Pseudonyms | None = None) -> None:
        self._personal = dict(personal)
        self._where = where
        needs_key = "token" in self._personal.values()
        self._of = functools.lru_cache(maxsize=100_000)((pseudonyms or Pseudonyms.load()).of) if needs_key else str
        self._masks = {name: mask_pattern(how) for name, how in self._personal.items() if isinstance(how, Mask)}

    @classmethod
    def of(cls, config: IngestConfig, where: str) -> Protector | None:
        """Return what treats a source's rows; ``None`` where nothing is personal."""
        return cls(config.personal, where) if config.personal else None

    def columns(self, columns: list[tuple[str, str]]) -> list[tuple[str, str]]:
        """Return the columns that are left, with their types.

        Raises:
            DataError: every column is left out.
        """
        treated = {name: "string" for name, how in self._personal.items() if how != "drop"}
        kept = [(name, treated.get(name, kind)) for name, kind in columns if self._personal.get(name) != "drop"]
        if not kept:
            raise DataError("personal: leaves no column", where=self._where, hint="drop fewer columns")
        return kept

    def batch(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """Return a batch without anything that identifies a person."""
        names, arrays = [], []
        for name, array in zip(batch.schema.names, batch.columns, strict=True):
            how = self._personal.get(name)
            if how == "drop":
                continue
            names.append(name)
            arrays.append(array if how is None else self._treated(name, array))
        return pa.RecordBatch.from_arrays(arrays, names=names)

    def _treated(self, name: str, array: pa.Array) -> pa.Array:
        values = array.cast(pa.string()).to_pylist()
        mask = self._masks.get(name)
        change = self._of if mask is None else functools.partial(mask.sub, _MASKED)
        return pa.array([None if value is None else change(value) for value in values], pa.string())


def mask_pattern(mask: Mask) -> re.Pattern[str]:
    """Return one pattern for all that a mask hides: names of :data:`MASKS`, or expressions of the user's own."""
    return re.compile("|".join(f"(?:{MASKS.get(entry, entry)})" for entry in mask.mask))


def personal_columns(config: IngestConfig) -> dict[str, str]:
    """Return what a dataset's manifest says about its personal columns: ``token``, ``drop`` or ``mask`` by name."""
    return {name: how if isinstance(how, str) else "mask" for name, how in config.personal.items()}
