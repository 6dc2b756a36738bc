"""``ingest``: from a source to a versioned dataset with parts, as a stream.

Without a split the rows go straight to the part ``train``. With one, a first pass writes them to a scratch file and
counts, a second divides them. Memory is that of a few blocks whatever the size of the source; the holdout alone is
remembered by the hashes of its rows (8 bytes each), because equal rows on both sides are a fault.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.ipc

from edgewright.artifacts.digest import sha256_file
from edgewright.errors import DataError, Skipped
from edgewright.spec.steps.ingest import IngestConfig
from edgewright.steps.context import StepContext
from edgewright.steps.contract import StepOutput
from edgewright.steps.data import DatasetWriter, reference_meta
from edgewright.steps.hashes import row_hashes
from edgewright.steps.sources import obtain
from edgewright.steps.split import Splitter
from edgewright.steps.tables import Table, read_all


def run(config: IngestConfig, context: StepContext) -> StepOutput:
    """Read the source, divide it, store it.

    Raises:
        DataError: the source is not there or cannot be read, or its contents do not fit.
        Unavailable: a server does not answer.
        Skipped: there are fewer rows than ``minimum`` asks for.
    """
    path = obtain(config.source, context, "source")
    table = Table(path, config.source, config)
    spool = _Spool(context.scratch / "rows.arrow")
    splitter = Splitter(config.split, config.label) if config.split else None
    rows = _first_pass(table, spool, splitter, config, context)
    if rows == 0:
        raise DataError("there is a header and no row", where=config.source)
    holdout = _read_holdout(config, table, context)
    folder = context.folder("dataset")
    source = {"uri": config.source, "sha256": sha256_file(path), "bytes": path.stat().st_size}
    if table.bad_count:
        source["bad_rows"] = table.bad_count
    writer = DatasetWriter(folder, table.columns, config.label, source)
    _second_pass(spool, splitter, holdout, writer, rows, context)
    manifest = writer.close()
    _check_minimum(manifest, config)
    notes = [f"{rows:,} rows, {len(table.columns)} columns from {config.source}: {_parts(manifest)}"]
    if table.bad_count:
        notes.append(f"{table.bad_count:,} unreadable rows were left out, such as {_examples(table)}")
    for note in notes:
        context.note(note)
    return StepOutput(
        outputs={"dataset": context.put(folder, "dataset", reference_meta(manifest))},
        metrics={"rows": rows, "bytes": path.stat().st_size, "bad_rows": table.bad_count},
        notes=notes,
    )


class _Spool:
    """Rows on disk between the two passes, uncompressed."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._writer: Any = None

    def write(self, batch: pa.RecordBatch) -> None:
        if self._writer is None:
            self._writer = pa.ipc.new_file(self.path, batch.schema)
        self._writer.write_batch(batch)

    def restart(self) -> None:
        self.close()
        self._writer = None

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()

    def read(self) -> Iterator[pa.RecordBatch]:
        if not self.path.exists():
            return
        with pa.OSFile(str(self.path), "rb") as file:
            reader = pa.ipc.open_file(file)
            for index in range(reader.num_record_batches):
                yield reader.get_batch(index)


def _first_pass(
    table: Table, spool: _Spool, splitter: Splitter | None, config: IngestConfig, context: StepContext
) -> int:
    rows = 0
    for batch in read_all(table):
        if isinstance(batch, list):  # a column's type widened: everything again
            spool.restart()
            if splitter is not None:
                splitter.restart()
            rows = 0
            continue
        _check_label(batch, config, rows)
        if splitter is not None:
            splitter.count(batch, row_hashes(batch, splitter.seed))
        spool.write(batch)
        rows += batch.num_rows
        context.progress("read", rows, unit="rows")
    spool.close()
    _check_bad_rows(table, rows, config)
    if splitter is not None:
        splitter.decide()
    return rows


def _check_label(batch: pa.RecordBatch, config: IngestConfig, before: int) -> None:
    if config.label is None:
        return
    label = batch.column(config.label)
    if label.null_count:
        first = pc.index(label.is_null(), True).as_py()
        raise DataError(
            f"the label {config.label} is missing in row {before + first + 1}",
            where=config.source,
            hint="remove rows without a label, or label them",
        )


def _check_bad_rows(table: Table, rows: int, config: IngestConfig) -> None:
    if table.bad_count > config.max_bad_rows * (rows + table.bad_count):
        raise DataError(
            f"{table.bad_count:,} rows cannot be read, such as {_examples(table)}",
            where=config.source,
            hint="mend them, or allow a share of them: max_bad_rows: 0.01",
        )


def _examples(table: Table) -> str:
    return "; ".join(f"line {line}: {text}" for line, text in table.bad_rows[:3])


def _read_holdout(
    config: IngestConfig, main: Table, context: StepContext
) -> Callable[[], Iterator[pa.RecordBatch]] | None:
    """Return a function that yields the holdout's rows, spooled with the main source's types."""
    if config.holdout is None:
        return None
    path = obtain(config.holdout, context, "holdout")
    names = [name for name, _ in main.columns]
    table = Table(path, config.holdout, config.model_copy(update={"columns": names}), types=dict(main.columns))
    spool = _Spool(context.scratch / "holdout.arrow")
    for batch in table.batches():
        _check_label(batch, config, 0)
        spool.write(batch)
    spool.close()
    return spool.read


def _second_pass(
    spool: _Spool,
    splitter: Splitter | None,
    holdout: Callable[[], Iterator[pa.RecordBatch]] | None,
    writer: DatasetWriter,
    rows: int,
    context: StepContext,
) -> None:
    import numpy as np

    known = np.concatenate([row_hashes(b) for b in holdout()]) if holdout else None
    done = 0
    for batch in spool.read():
        if known is not None and (both := np.isin(row_hashes(batch), known)).any():
            raise DataError(
                f"{int(both.sum())} rows of the source stand in the holdout too (leakage), the first is row "
                f"{done + int(both.argmax()) + 1}: {batch.slice(int(both.argmax()), 1).to_pylist()[0]}",
                hint="a model must be measured on rows that it has not seen: remove them from one of the two",
            )
        if splitter is None:
            writer.write("train", batch)
        else:
            test = pa.array(splitter.is_test(batch, row_hashes(batch, splitter.seed)))
            writer.write("train", batch.filter(pc.invert(test)))
            writer.write("test", batch.filter(test))
        done += batch.num_rows
        context.progress("write", done, rows, "rows")
    for batch in holdout() if holdout else ():
        writer.write("holdout", batch)


def _check_minimum(manifest: dict[str, Any], config: IngestConfig) -> None:
    rows = manifest["rows"]
    if rows < config.minimum.rows:
        raise Skipped(f"{rows} rows are fewer than minimum.rows: {config.minimum.rows}")
    for value, count in manifest.get("classes", {}).items():
        if count < config.minimum.per_class:
            raise Skipped(f"{count} rows of class {value} are fewer than minimum.per_class: {config.minimum.per_class}")


def _parts(manifest: dict[str, Any]) -> str:
    return ", ".join(f"{name} {entry['rows']:,}" for name, entry in manifest["parts"].items())
