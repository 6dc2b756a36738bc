"""Rows on disk between two passes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.ipc


class Spool:
    """Arrow batches in an uncompressed file: writing and reading cost little more than the disk does.

    Args:
        path: Where to; there is no file before the first row.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._writer: Any = None

    def write(self, batch: pa.RecordBatch) -> None:
        """Add rows; all batches have the same schema."""
        if self._writer is None:
            self._writer = pa.ipc.new_file(self.path, batch.schema)
        self._writer.write_batch(batch)

    def restart(self) -> None:
        """Forget all rows."""
        self.close()
        self._writer = None
        self.path.unlink(missing_ok=True)

    def close(self) -> None:
        """Finish writing."""
        if self._writer is not None:
            self._writer.close()

    def read(self) -> Iterator[pa.RecordBatch]:
        """Yield the batches as they were written."""
        if not self.path.exists():
            return
        with pa.OSFile(str(self.path), "rb") as file:
            reader = pa.ipc.open_file(file)
            for index in range(reader.num_record_batches):
                yield reader.get_batch(index)
