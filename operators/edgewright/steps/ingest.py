"""``ingest``: from a source to a versioned dataset with parts, as a stream.

A first pass reads the source, writes its rows to a scratch file and counts; a second divides them. Memory is that of a
few blocks whatever the size of the source; the holdout alone is remembered by the hashes of its rows (8 bytes each),
because equal rows on both sides are a fault.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from edgewright.errors import DataError, Skipped
from edgewright.spec.steps.ingest import IngestConfig
from edgewright.steps.addresses import shown
from edgewright.steps.context import StepContext
from edgewright.steps.contract import StepOutput
from edgewright.steps.data import DatasetWriter, reference_meta
from edgewright.steps.erased import Erased
from edgewright.steps.event_rows import Events
from edgewright.steps.hashes import HashSet, row_hashes
from edgewright.steps.meter import Meter
from edgewright.steps.opened import open_source
from edgewright.steps.personal import personal_columns
from edgewright.steps.split import Splitter
from edgewright.steps.spool import Spool
from edgewright.steps.tables import Table, open_table, read_all

#: How a file of messages is read, whatever is said about the source.
_MESSAGES = {"format": "jsonl", "compression": "none"}


def run(config: IngestConfig, context: StepContext) -> StepOutput:
    """Read the source and the events of the run, divide them, store them.

    Raises:
        DataError: the source is not there or cannot be read, or its contents do not fit.
        Unavailable: a server does not answer.
        Skipped: there are fewer rows than ``minimum`` asks for; the run's batches then wait for the next run.
    """
    events = Events.of(config, context)
    try:
        return _ingest(config, events, context)
    except Skipped as reason:
        events.put_back(context, reason.message)
        raise


def _ingest(config: IngestConfig, events: Events, context: StepContext) -> StepOutput:
    spool = Spool(context.scratch / "rows.arrow")
    splitter = Splitter(config.split, config.label) if config.split else None
    table, from_source = _read_source(config, events, spool, splitter, context)
    rows = from_source + _add_events(events, table, spool, splitter, context)
    spool.close()
    if splitter is not None:
        splitter.decide()
    source: dict[str, Any] = describe(table)
    if events.batches:
        source["events"] = events.describe()
    if config.personal:
        source["personal"] = personal_columns(config)
    holdout = _read_holdout(config, table, context, source)
    folder = context.folder("dataset")
    writer = DatasetWriter(folder, table.columns, config.label, source)
    repeated = _second_pass(spool, splitter, holdout, writer, (0 if events.pulled else from_source, rows), context)
    manifest = writer.close()
    for name, data in table.attachments.items():
        (folder / name).write_bytes(data)
    _check_minimum(manifest, config)
    _check_parts(manifest, config, skip=bool(events.own))
    notes = _notes(table, rows, events, repeated, manifest)
    for note in notes:
        context.note("%s", note)
    return StepOutput(
        outputs={"dataset": context.put(folder, "dataset", reference_meta(manifest))},
        metrics={"rows": manifest["rows"], "bytes": table.size, "bad_rows": table.bad_count}
        | ({"messages": events.messages} if events.batches and not events.waited else {}),
        notes=notes,
    )


def _notes(table: Table, rows: int, events: Events, repeated: int, manifest: dict[str, Any]) -> list[str]:
    notes = [f"{rows:,} rows, {len(table.columns)} columns from {table.shown}: {_parts(manifest)}"]
    if events.batches and not events.waited:
        notes.append(f"{events.messages:,} of them are messages of {len(events.batches)} batches")
    if repeated:
        notes.append(f"{repeated:,} messages stand in the holdout and were left out")
    if table.bad_count:
        notes.append(f"{table.bad_count:,} unreadable rows were left out, such as {_examples(table)}")
    return notes


def _read_source(
    config: IngestConfig, events: Events, spool: Spool, splitter: Splitter | None, context: StepContext
) -> tuple[Table, int]:
    """Read the source's rows, or only its columns where events stand alone; return it, and how many rows it gave.

    A column of whole numbers in which events have decimal ones is read as numbers.
    """
    if events.waited:
        return _read_waited(config, events, spool, splitter, context)
    if events.pulled:
        path = events.write_whole(context.scratch / "messages.jsonl", context)
        table = open_table(path, shown(config.address), config.model_copy(update=_MESSAGES))
        return table, _first_pass(table, spool, splitter, config, context)
    opened = open_source(config.address, config, context, "source")
    alone = config.on_event == "replace" and bool(events.own)
    table = opened(config, None)
    while True:
        rows = _peek(table) if alone else _first_pass(table, spool, splitter, config, context)
        decimal = events.decimal_columns(table.columns, context) if events.batches else []
        if not decimal:
            return table, rows
        types = {**config.types, **dict.fromkeys(decimal, "number")}
        table = opened(config.model_copy(update={"types": types}), None)
        spool.restart()
        if splitter is not None:
            splitter.restart()


def _read_waited(
    config: IngestConfig, events: Events, spool: Spool, splitter: Splitter | None, context: StepContext
) -> tuple[Table, int]:
    """Read what a task has waited for: its messages, or its objects one after the other, with the first one's columns.

    Raises:
        DataError: it holds no rows: a model version, or objects that are gone.
    """
    (batch,) = events.own
    if batch.kind == "registry":
        raise DataError("this is a version of a model, and no data", where=f"batch {batch.name}")
    if batch.kind != "objects":
        path = events.write_whole(context.scratch / "messages.jsonl", context)
        table = open_table(path, f"batch {batch.name}", config.model_copy(update=_MESSAGES))
        return table, _first_pass(table, spool, splitter, config, context)
    files = events.objects(context)
    first = next(files, None)
    if first is None:
        raise DataError("all its objects were replaced or removed meanwhile", where=f"batch {batch.name}")
    table = open_table(*first, config)
    rows = _first_pass(table, spool, splitter, config, context)
    given = {"columns": [name for name, _ in table.columns], "types": {}, "format": "auto"}
    for path, address in files:
        rows += _add_file(path, address, given, table, spool, splitter, context)
    return table, rows


def _peek(table: Table) -> int:
    """Find a table's columns and types from its beginning."""
    if next((batch for batch in read_all(table) if batch is not None), None) is None:
        raise DataError("there is a header and no row, so the types of its columns are not known", where=table.shown)
    return 0


def _add_events(events: Events, table: Table, spool: Spool, splitter: Splitter | None, context: StepContext) -> int:
    """Add the messages and objects of a run as rows with the source's columns; return how many rows there are."""
    if not events.batches or events.pulled or events.waited:
        return 0
    columns = {"columns": [name for name, _ in table.columns], "types": {}}
    messages = {**columns, **_MESSAGES, "max_bad_rows": 0.0}
    count = 0
    path = events.write(context.scratch / "events.jsonl", table.columns, context)
    if path.stat().st_size:
        count += _add_file(path, "events", messages, table, spool, splitter, context)
    for path, address in events.objects(context):
        count += _add_file(path, address, {**columns, "format": "auto"}, table, spool, splitter, context)
    return count


def _add_file(
    path: Path,
    name: str,
    given: dict[str, Any],
    table: Table,
    spool: Spool,
    splitter: Splitter | None,
    context: StepContext,
) -> int:
    """Add the rows of a file by way of a spool of its own, because reading may start again."""
    config = table.config.model_copy(update=given)
    rows = Spool(context.scratch / "more.arrow")
    count = _first_pass(open_table(path, shown(name), config, dict(table.columns)), rows, None, config, context)
    rows.close()
    for batch in rows.read():
        if splitter is not None:
            splitter.count(batch, row_hashes(batch, splitter.seed))
        spool.write(batch)
    rows.path.unlink()
    return count


def describe(table: Table) -> dict[str, Any]:
    """Return what the manifest says about a source."""
    return table.describe() | ({"bad_rows": table.bad_count} if table.bad_count else {})


def _first_pass(
    table: Table, spool: Spool, splitter: Splitter | None, config: IngestConfig, context: StepContext
) -> int:
    rows = gone = 0
    meter = Meter(context, table.size)
    erased = Erased.load(context.store)
    for whole in read_all(table):
        if whole is None:  # a column's type widened: everything again
            spool.restart()
            if splitter is not None:
                splitter.restart()
            rows = gone = 0
            continue
        batch = erased.without(whole)
        gone += whole.num_rows - batch.num_rows
        _check_label(batch, config.label, table.shown, rows)
        if splitter is not None:
            splitter.count(batch, row_hashes(batch, splitter.seed))
        spool.write(batch)
        rows += batch.num_rows
        meter.show(rows, min(table.done, table.size))
    _check_bad_rows(table, rows + gone, config)
    if gone:
        context.note("%s rows of persons who were erased are left out", f"{gone:,}")
    if rows == 0:
        text = "every row is of a person who was erased" if gone else "there is a header and no row"
        raise DataError(text, where=table.shown)
    return rows


def _check_label(batch: pa.RecordBatch, name: str | None, where: str, before: int) -> None:
    if name is None:
        return
    label = batch.column(name)
    if label.null_count:
        first = pc.index(label.is_null(), True).as_py()
        raise DataError(
            f"the label {name} is missing in row {before + first + 1}",
            where=where,
            hint="remove rows without a label, or label them",
        )


def _check_bad_rows(table: Table, rows: int, config: IngestConfig) -> None:
    if table.bad_count > config.max_bad_rows * (rows + table.bad_count):
        raise DataError(
            f"{table.bad_count:,} rows cannot be read, such as {_examples(table)}",
            where=table.shown,
            hint="mend them, or allow a share of them: max_bad_rows: 0.01",
        )


def _examples(table: Table) -> str:
    if table.config.personal:  # nobody knows what a damaged line holds
        return "; ".join(f"line {line}" for line, _ in table.bad_rows[:3])
    return "; ".join(f"line {line}: {text}" for line, text in table.bad_rows[:3])


def _read_holdout(config: IngestConfig, main: Table, context: StepContext, source: dict[str, Any]) -> Spool | None:
    """Return the rows of the holdout with the main source's columns and types, and describe it in the manifest."""
    if config.holdout is None:
        return None
    opened = open_source(config.holdout, config, context, "holdout")
    names = [name for name, _ in main.columns]
    table = opened(config.model_copy(update={"columns": names}), dict(main.columns))
    spool = Spool(context.scratch / "holdout.arrow")
    rows = _first_pass(table, spool, None, config, context)
    spool.close()
    if rows == 0:
        raise DataError("the holdout has no row", where=table.shown)
    source["holdout"] = describe(table)
    return spool


def _second_pass(
    spool: Spool,
    splitter: Splitter | None,
    holdout: Spool | None,
    writer: DatasetWriter,
    rows: tuple[int, int],
    context: StepContext,
) -> int:
    """Divide the rows; ``rows`` counts those of the source and all. Return how many messages the holdout has."""
    known = HashSet(row_hashes(batch) for batch in holdout.read()) if holdout else None
    done = repeated = 0
    for whole in spool.read():
        batch = whole
        if known is not None and done < rows[0]:
            _refuse_leaks(batch, known, done)
        elif known is not None:
            # who sends messages cannot mend them any more, and they must not stop every later run
            batch = batch.filter(pa.array(~known.contains(row_hashes(batch))))
            repeated += whole.num_rows - batch.num_rows
        if splitter is None:
            writer.write("train", batch)
        else:
            test = pa.array(splitter.is_test(batch, row_hashes(batch, splitter.seed)))
            writer.write("train", batch.filter(pc.invert(test)))
            writer.write("test", batch.filter(test))
        done += whole.num_rows
        context.progress("rows written", done, rows[1])
    for batch in holdout.read() if holdout else ():
        writer.write("holdout", batch)
    return repeated


def _refuse_leaks(batch: pa.RecordBatch, known: HashSet, before: int) -> None:
    both = known.contains(row_hashes(batch))
    if both.any():
        first = int(both.argmax())
        raise DataError(
            f"{int(both.sum())} rows of the source stand in the holdout too (leakage), the first is row "
            f"{before + first + 1}: {batch.slice(first, 1).to_pylist()[0]}",
            hint="a model must be measured on rows that it has not seen: remove them from one of the two",
        )


def _check_parts(manifest: dict[str, Any], config: IngestConfig, *, skip: bool) -> None:
    """Refuse a split that leaves a part without rows: later steps could say less about it. More events may mend it."""
    for part in ("train", "test") if config.split else ("train",):
        if part not in manifest["parts"]:
            if skip:
                raise Skipped(f"no row of {manifest['rows']} went to the part {part}: too few for this split")
            raise DataError(
                f"split: no row of {manifest['rows']} went to the part {part}",
                where=shown(config.address),
                hint="equal rows stay together; bring more rows, another seed, or leave split: out",
            )


def _check_minimum(manifest: dict[str, Any], config: IngestConfig) -> None:
    """Skip the run where there is too little to learn from; the holdout is not learnt from and does not count."""
    parts = {name: entry for name, entry in manifest["parts"].items() if name != "holdout"}
    rows = sum(entry["rows"] for entry in parts.values())
    least = config.minimum
    if rows < least.rows:
        raise Skipped(f"{rows} rows are fewer than minimum.rows: {least.rows}")
    counts: dict[str, int] = dict.fromkeys(manifest.get("classes", {}), 0)
    for entry in parts.values():
        for value, count in entry.get("classes", {}).items():
            counts[value] += count
    for value, count in counts.items():
        if count < least.per_class:
            raise Skipped(f"{count} rows of class {value} are fewer than minimum.per_class: {least.per_class}")
    if least.per_class and len(counts) == 1:
        raise Skipped(f"there is only the class {next(iter(counts))}; minimum.per_class needs two")


def _parts(manifest: dict[str, Any]) -> str:
    return ", ".join(f"{name} {entry['rows']:,}" for name, entry in manifest["parts"].items())
