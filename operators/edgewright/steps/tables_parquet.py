"""Parquet files as streams of batches."""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow as pa
import pyarrow.parquet as pq

from edgewright.errors import DataError
from edgewright.steps.data import GROUP_ROWS
from edgewright.steps.tables import Table


class ParquetTable(Table):
    """A Parquet file; its columns have types already."""

    format = "parquet"

    def _read(self) -> Iterator[pa.RecordBatch]:
        with pq.ParquetFile(self.path) as file:
            schema = file.schema_arrow
            self.check_names(schema.names)
            wanted = self.config.columns or schema.names
            chosen = pa.schema([schema.field(name) for name in wanted])
            rows = file.metadata.num_rows
            yield from self.typed(self._batches(file, wanted, rows), chosen)

    def _batches(self, file: pq.ParquetFile, wanted: list[str], rows: int) -> Iterator[pa.RecordBatch]:
        done = 0
        for batch in file.iter_batches(batch_size=GROUP_ROWS, columns=wanted):
            done += batch.num_rows
            self.done = self.size * done // max(rows, 1)
            batch.validate(full=True)  # what a damaged or careless file holds as text may be no text
            yield batch.select(wanted)

    def _explain(self, error: Exception) -> Exception:
        return DataError(
            f"cannot be read as parquet: {error}",
            where=self.shown,
            hint="the file is damaged or incomplete, or is of another kind: then say format:",
        )
