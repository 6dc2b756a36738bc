"""Rows of a source on disk before their columns' types are final, and all of them as one table."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from edgewright.artifacts.digest import digest_json, sha256_file
from edgewright.errors import DataError
from edgewright.spec.steps.ingest import IngestConfig
from edgewright.steps.data import GROUP_ROWS, arrow_type, type_name
from edgewright.steps.row_values import NULL, array_type, joint
from edgewright.steps.tables import Table


@dataclass(frozen=True)
class Segment:
    """A Parquet file with rows of one part, whose types hold for this file alone."""

    path: Path

    @property
    def rows(self) -> int:
        """Number of rows."""
        return int(pq.read_metadata(self.path).num_rows)

    def kinds(self) -> dict[str, str]:
        """Return the columns' types."""
        return {field.name: _kind(field) for field in pq.read_schema(self.path)}

    def batches(self) -> Iterator[pa.RecordBatch]:
        """Yield its rows."""
        with pq.ParquetFile(self.path) as file:
            yield from file.iter_batches(batch_size=GROUP_ROWS)


def _kind(field: pa.Field) -> str:
    return NULL if pa.types.is_null(field.type) else type_name(field.type)


class SegmentWriter:
    """Writes rows to a file; to a further one from where a column needs a wider type on.

    Args:
        folder: Where to.
        name: What the files' names begin with.
        where: The source, for messages.
    """

    def __init__(self, folder: Path, name: str, where: str) -> None:
        self._folder, self._name, self._where = folder, name, where
        self._kinds: dict[str, str] = {}
        self._file: Any = None
        self.segments: list[Segment] = []

    def write(self, batch: pa.RecordBatch) -> None:
        """Add rows."""
        if batch.num_rows == 0:
            return
        kinds = dict(self._kinds)
        for field in batch.schema:
            kinds[field.name] = joint(kinds.get(field.name, NULL), _kind(field), field.name, self._where)
        if self._file is None or kinds != self._kinds:
            self.close()
            self._kinds = kinds
            self._open()
        schema = pa.schema([(name, array_type(kind)) for name, kind in self._kinds.items()])
        self._file.write_batch(
            pa.RecordBatch.from_arrays([_cell(batch, name, schema) for name in kinds], schema=schema)
        )

    def _open(self) -> None:
        path = self._folder / f"{self._name}.{len(self.segments)}.parquet"
        schema = pa.schema([(name, array_type(kind)) for name, kind in self._kinds.items()])
        self._file = pq.ParquetWriter(path, schema, compression="zstd", version="2.6", store_schema=False)
        self.segments.append(Segment(path))

    def close(self) -> None:
        """Finish the file."""
        if self._file is not None:
            self._file.close()
            self._file = None


def _cell(batch: pa.RecordBatch, name: str, schema: pa.Schema) -> pa.Array:
    kind = schema.field(name).type
    place = batch.schema.get_field_index(name)
    return pa.nulls(batch.num_rows, kind) if place < 0 else batch.column(place).cast(kind)


class SegmentTable(Table):
    """All segments of a source as one table, personal columns already treated.

    Args:
        segments: The files, in order.
        names: The source's columns before personal ones were treated.
        shown: How messages name the source.
        config: How to read it.
        types: Types that are already decided, by column.
        about: What the manifest says of the source beside its address.
    """

    format = "rows"
    protected = True

    def __init__(
        self,
        segments: list[Segment],
        names: list[str],
        shown: str,
        config: IngestConfig,
        types: dict[str, str] | None = None,
        about: dict[str, Any] | None = None,
    ) -> None:
        self._segments, self._names, self._about = segments, names, about or {}
        super().__init__(segments[0].path if segments else Path(), shown, config, types)
        self.size = sum(segment.path.stat().st_size for segment in segments)

    def describe(self) -> dict[str, Any]:
        """Return what the manifest says: the digest is that of the rows as they were written here."""
        digest = digest_json([sha256_file(segment.path) for segment in self._segments])
        return {"uri": self.shown, "sha256": digest, "bytes": self.size, **self._about}

    def _read(self) -> Iterator[pa.RecordBatch]:
        self.check_names(self._names)
        kinds = self._kinds()
        wanted = [name for name in self.config.columns or kinds if name in kinds]
        schema = pa.schema([(name, arrow_type(kinds[name])) for name in wanted])
        yield from self.typed(self._batches(wanted), schema)

    def _kinds(self) -> dict[str, str]:
        """Return each column's type over all segments; one without any value is text."""
        found: dict[str, str] = {}
        for segment in self._segments:
            for name, kind in segment.kinds().items():
                before = found.get(name, NULL)
                # a type that the user chose decides, whatever the values are
                found[name] = kind if name in self.known else joint(before, kind, name, self.shown)
        return {name: "string" if kind == NULL else kind for name, kind in found.items()}

    def _batches(self, wanted: list[str]) -> Iterator[pa.RecordBatch]:
        self.done = 0
        for segment in self._segments:
            for batch in segment.batches():
                here = batch.schema.names
                arrays = [batch.column(n) if n in here else pa.nulls(batch.num_rows) for n in wanted]
                yield pa.RecordBatch.from_arrays(arrays, names=wanted)
            self.done += segment.path.stat().st_size

    def _explain(self, error: Exception) -> Exception:
        return DataError(f"its rows cannot be read: {self.detail(error)}", where=self.shown)
