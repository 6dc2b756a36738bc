"""One shard of a file as a stream of blocks. Memory is bounded by one block, whatever the file's size.

A block is read by Arrow at full speed; only where that fails (a text among numbers, a row that is too short, an empty
line) it is read again with care, so that each faulty row is found and all others are scored.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.json as pajson
import pyarrow.parquet as pq

from edgewright.errors import DataError
from edgewright.steps.score_places import Place
from edgewright.steps.score_rows import BATCH_ROWS, Bad, Block, Wanted, typed
from edgewright.steps.score_scan import line_ends

if TYPE_CHECKING:
    from edgewright.steps.score_tables import TableRows

#: Bytes of text that are read at once.
TEXT_BLOCK = 4 << 20
#: A record longer than this is no record: a quotation mark was never closed, or the file is no text.
LONGEST_RECORD = 256 << 20


@dataclass(frozen=True)
class Reading:
    """How a file is read.

    Attributes:
        place: The file.
        name: Its name for people and in the output.
        format: ``csv``, ``jsonl``, ``parquet`` or ``table``.
        columns: Names in its header (CSV).
        quotes: Whether a CSV has quotation marks.
        folded: Whether line ends stand inside of them.
        packed: Whether it is compressed as a whole.
        delimiter: Of a CSV.
        encoding: Of a CSV.
        missing: Texts that mean a missing value in a CSV.
        table: What is read instead of a file.
    """

    place: Place
    name: str
    format: str
    columns: tuple[str, ...] = ()
    quotes: bool = False
    folded: bool = False
    packed: bool = False
    delimiter: str = ","
    encoding: str = "utf-8"
    missing: tuple[str, ...] = ()
    table: TableRows | None = None

    @property
    def folds(self) -> bool:
        """Whether a line end may stand inside of quotes; of a file that was not looked at before, it may."""
        return self.folded and self.format == "csv"


def blocks(reading: Reading, start: int, stop: int, first_row: int, wanted: Wanted) -> Iterator[Block]:
    """Yield a shard's rows.

    Args:
        reading: How.
        start: First byte (Parquet: first row group).
        stop: Byte after the last (row group after the last).
        first_row: Number of the first row in the file.
        wanted: Which columns, as what.

    Raises:
        DataError: the file is damaged.
    """
    if reading.table is not None:
        from edgewright.steps.score_tables import blocks_of

        for table, rows in blocks_of(reading.table, start, wanted, reading.name):
            yield _cast(table, rows, wanted)
        return
    if reading.format == "parquet":
        yield from _parquet(reading, range(start, stop), first_row, wanted)
        return
    parse = _csv_block if reading.format == "csv" else _jsonl_block
    row = first_row
    for data in _records(reading, start, stop):
        block, records = parse(data, row, reading, wanted)
        block.size = len(data)
        row += records
        yield block


def unpacked(place: Place, packed: bool) -> IO[bytes]:
    """Open a file, unpacked where it is compressed."""
    raw = place.open()
    return gzip.GzipFile(fileobj=raw) if packed else raw  # type: ignore[return-value]


def _records(reading: Reading, start: int, stop: int) -> Iterator[bytes]:
    """Yield pieces of whole records."""
    rest = b""
    with unpacked(reading.place, reading.packed) as file:
        file.seek(start)
        at = start
        while reading.packed or at < stop:
            wanted = TEXT_BLOCK if reading.packed else min(TEXT_BLOCK, stop - at)
            data = _read(file, wanted, reading.name)
            if not data:
                break
            at += len(data)
            whole = rest + data
            end = _last_end(whole, reading.folds)
            if end < 0 and len(whole) > LONGEST_RECORD:
                raise DataError(
                    f"a record is longer than {LONGEST_RECORD >> 20} MiB",
                    where=reading.name,
                    hint="a quotation mark is never closed? Then mend it, or say quotes: false",
                )
            if end >= 0:
                yield whole[: end + 1]
            rest = whole[end + 1 :]
    if rest:
        yield rest


def _read(file: IO[bytes], size: int, name: str) -> bytes:
    try:
        return file.read(size)
    except (EOFError, gzip.BadGzipFile) as error:
        raise DataError(f"the compressed file is damaged: {error}", where=name) from error


def _last_end(data: bytes, quotes: bool) -> int:
    """Return where the last line end outside of quotes is; data begin outside."""
    if not quotes or b'"' not in data:
        return data.rfind(b"\n")
    places = _outside(data)
    return int(places[-1]) if len(places) else -1


def _outside(data: bytes) -> np.ndarray[Any, Any]:
    """Return where line ends outside of quotes are."""
    array = np.frombuffer(data, dtype=np.uint8)
    places, before, _ = line_ends(array, array == 10)
    found: np.ndarray[Any, Any] = places[(before & 1) == 0]
    return found


def count_records(data: bytes, quotes: bool) -> int:
    """Return how many records some bytes hold, empty lines included."""
    ends = len(_outside(data)) if quotes and b'"' in data else data.count(b"\n")
    return ends + (not data.endswith(b"\n"))


# -- CSV -------------------------------------------------------------------------------------------------------------


def _csv_block(data: bytes, row: int, reading: Reading, wanted: Wanted) -> tuple[Block, int]:
    records = count_records(data, reading.folds)
    booleans = {feature.name for feature in wanted.features if feature.type == "boolean"}
    try:
        types = {name: pa.bool_() if name in booleans else kind for name, kind in wanted.types.items()}
        table = _read_csv(data, reading, wanted.names, types)
        if table.num_rows == records:
            for name in booleans:
                place = table.column_names.index(name)
                table = table.set_column(place, name, table.column(name).cast(pa.int8()).cast(wanted.number))
            return Block(table, np.arange(row, row + records, dtype=np.int64)), records
    except pa.ArrowInvalid:
        pass
    return _careful_csv(data, row, records, reading, wanted), records


def _read_csv(data: bytes, reading: Reading, names: list[str], types: dict[str, pa.DataType], **parse: Any) -> pa.Table:
    return pacsv.read_csv(
        pa.BufferReader(data),
        # one block, so that it is parsed at once and by one thread: another process has the other core
        pacsv.ReadOptions(
            column_names=list(reading.columns),
            use_threads=False,
            block_size=len(data) + 1,
            encoding=reading.encoding,
        ),
        pacsv.ParseOptions(
            delimiter=reading.delimiter,
            # a block without any is read quicker when the parser need not look for them
            quote_char='"' if reading.quotes and b'"' in data else False,
            newlines_in_values=reading.folds,
            **parse,
        ),
        pacsv.ConvertOptions(
            column_types=types,
            include_columns=names,
            null_values=list(reading.missing),
            strings_can_be_null=True,
        ),
    )


def _careful_csv(data: bytes, row: int, records: int, reading: Reading, wanted: Wanted) -> Block:
    bad: list[Bad] = []

    def aside(found: Any) -> str:
        reason = f"{found.actual_columns} values instead of {found.expected_columns}"
        bad.append(Bad(row + found.number - 1, [reason], found.text))
        return "skip"

    texts = dict.fromkeys(wanted.names, pa.string())
    try:
        table = _read_csv(data, reading, wanted.names, texts, invalid_row_handler=aside)
        if table.num_rows + len(bad) != records:
            raise pa.ArrowInvalid("empty lines")
        numbers = np.setdiff1d(np.arange(row, row + records), [one.row for one in bad])
    except pa.ArrowInvalid:
        table, numbers, bad = _one_by_one(data, row, reading, wanted)
    block = typed(table, numbers.astype(np.int64), wanted, reading.missing)
    return Block(block.table, block.rows, sorted([*bad, *block.bad], key=lambda one: one.row))


def _one_by_one(
    data: bytes, row: int, reading: Reading, wanted: Wanted
) -> tuple[pa.Table, np.ndarray[Any, Any], list[Bad]]:
    """Read a block record by record: empty lines count as rows and go aside, as does what is no text."""
    text = data.decode(reading.encoding, errors="replace")
    records = csv.reader(
        io.StringIO(text, newline=""),
        delimiter=reading.delimiter,
        quoting=csv.QUOTE_MINIMAL if reading.quotes else csv.QUOTE_NONE,
    )
    places = [reading.columns.index(name) for name in wanted.names]
    kept: list[list[str]] = []
    numbers: list[int] = []
    bad: list[Bad] = []
    for number, values in enumerate(records, row):
        reason = _shape_fault(values, len(reading.columns))
        if reason:
            bad.append(Bad(number, [reason], reading.delimiter.join(values)))
            continue
        kept.append([values[place] for place in places])
        numbers.append(number)
    columns = [pa.array([values[i] for values in kept], pa.string()) for i in range(len(places))]
    return pa.table(columns, names=wanted.names), np.array(numbers, dtype=np.int64), bad


def _shape_fault(values: list[str], expected: int) -> str:
    if not values or (expected > 1 and values == [""]):
        return "the line is empty"
    if len(values) != expected:
        return f"{len(values)} values instead of {expected}"
    return "it is not in the encoding" if any("�" in value for value in values) else ""


# -- JSON lines ------------------------------------------------------------------------------------------------------


def _jsonl_block(data: bytes, row: int, reading: Reading, wanted: Wanted) -> tuple[Block, int]:
    records = count_records(data, quotes=False)
    booleans = {feature.name for feature in wanted.features if feature.type == "boolean"}
    types = {name: pa.float64() if pa.types.is_floating(kind) else kind for name, kind in wanted.types.items()}
    schema = pa.schema([(name, types[name]) for name in wanted.names])
    if not booleans:
        try:
            table = pajson.read_json(
                pa.BufferReader(data),
                pajson.ReadOptions(use_threads=False, block_size=len(data) + 1),
                pajson.ParseOptions(explicit_schema=schema, unexpected_field_behavior="ignore"),
            )
            table.validate(full=True)  # the reader itself takes any bytes for text
            if table.num_rows == records:
                target = pa.schema([(name, wanted.types[name]) for name in wanted.names])
                return Block(table.cast(target, safe=False), np.arange(row, row + records, dtype=np.int64)), records
        except pa.ArrowInvalid:
            pass
    return _careful_jsonl(data, row, wanted, booleans), records


def _careful_jsonl(data: bytes, row: int, wanted: Wanted, booleans: set[str]) -> Block:
    lines = data.split(b"\n")
    block, _ = _json_rows(lines[:-1] if data.endswith(b"\n") else lines, row, wanted, booleans, ())
    return block


def json_block(lines: Sequence[bytes], wanted: Wanted, keep: Sequence[str]) -> tuple[Block, list[dict[str, Any]]]:
    """Return the rows of JSON objects, numbered from 0, and some fields of each as they are."""
    booleans = {feature.name for feature in wanted.features if feature.type == "boolean"}
    return _json_rows(lines, 0, wanted, booleans, keep)


def _json_rows(
    lines: Sequence[bytes], row: int, wanted: Wanted, booleans: set[str], keep: Sequence[str]
) -> tuple[Block, list[dict[str, Any]]]:
    values: dict[str, list[Any]] = {name: [] for name in wanted.names}
    numbers: list[int] = []
    bad: list[Bad] = []
    kept: list[dict[str, Any]] = []
    for number, line in enumerate(lines, row):
        found, reasons = _json_row(line, wanted, booleans)
        kept.append({name: found.get(name) for name in keep})
        if reasons:
            bad.append(Bad(number, reasons, line.decode(errors="replace")))
            continue
        numbers.append(number)
        for name in wanted.names:
            values[name].append(found.get(name))
    types = wanted.types
    table = pa.table({name: pa.array(values[name], types[name]) for name in wanted.names})
    return Block(table, np.array(numbers, dtype=np.int64), bad), kept


def _json_row(line: bytes, wanted: Wanted, booleans: set[str]) -> tuple[dict[str, Any], list[str]]:
    try:
        found = json.loads(line)
    except ValueError as error:
        return {}, ["the line is empty" if not line.strip() else f"it is no JSON: {getattr(error, 'msg', error)}"]
    if not isinstance(found, dict):
        return {}, ["it is no object"]
    reasons = []
    for name, kind in wanted.types.items():
        value = found.get(name)
        fitting, word = _fitting(kind, boolean=name in booleans)
        if value is not None and (not isinstance(value, fitting) or (isinstance(value, bool) and bool not in fitting)):
            reasons.append(f"{name}: {json.dumps(value):.60} is no {word}")
        elif isinstance(value, bool):
            found[name] = float(value) if pa.types.is_floating(kind) else value
    return found, reasons


def _fitting(kind: pa.DataType, *, boolean: bool) -> tuple[tuple[type, ...], str]:
    if boolean:
        return (bool,), "truth value"
    if pa.types.is_floating(kind):
        return (int, float), "number"
    if pa.types.is_integer(kind):
        return (int,), "integer"
    return ((bool,), "truth value") if pa.types.is_boolean(kind) else ((str,), "text")


# -- Parquet ---------------------------------------------------------------------------------------------------------


def _parquet(reading: Reading, groups: range, first_row: int, wanted: Wanted) -> Iterator[Block]:
    row = first_row
    try:
        with reading.place.open() as raw, pq.ParquetFile(raw) as file:
            total = max(1, sum(file.metadata.row_group(group).num_rows for group in groups))
            size = sum(file.metadata.row_group(group).total_byte_size for group in groups)
            for batch in file.iter_batches(
                batch_size=BATCH_ROWS, row_groups=list(groups), columns=wanted.names, use_threads=False
            ):
                numbers = np.arange(row, row + batch.num_rows, dtype=np.int64)
                block = _cast(pa.Table.from_batches([batch]), numbers, wanted)
                block.size = size * batch.num_rows // total
                row += batch.num_rows
                yield block
    except pa.ArrowException as error:
        raise DataError(f"cannot be read as parquet: {error}", where=reading.name) from error


def _cast(table: pa.Table, rows: np.ndarray[Any, Any], wanted: Wanted) -> Block:
    """Give features the model's types; kept columns have the file's own."""
    features = {feature.name: wanted.feature_type(feature) for feature in wanted.features}
    kept = [name for name in wanted.keep if name not in features]
    try:
        columns = [_plain(table.column(name), kind) for name, kind in features.items()]
        found = Block(pa.table(columns, names=list(features)), rows)
    except pa.ArrowInvalid:
        texts = pa.table({name: table.column(name).cast(pa.string()) for name in features})
        found = typed(texts, rows, Wanted(wanted.features, {}, wanted.number), ())
    left = (
        table.select(kept).take(pa.array(found.rows - rows[0])) if len(found.rows) else table.select(kept).slice(0, 0)
    )
    for name in kept:
        found.table = found.table.append_column(name, left.column(name))
    return found


def _plain(column: pa.ChunkedArray, kind: pa.DataType) -> pa.ChunkedArray:
    if column.type == kind:
        return column
    if pa.types.is_boolean(column.type):
        column = column.cast(pa.int8())
    return column.cast(kind, safe=False)
