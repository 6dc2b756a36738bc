"""Reading CSV, Parquet and JSON lines as a stream of Arrow batches with fixed column types.

Types are inferred from the first block. Where a later value does not fit, a whole number widens to a decimal one and
the reading starts again; text in a column of numbers is a fault that names the line, never a silent change of type.
"""

from __future__ import annotations

import codecs
import csv
import difflib
import gzip
import io
import re
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Any

import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.json as pajson
import pyarrow.parquet as pq

from edgewright.errors import DataError
from edgewright.spec.steps.ingest import IngestConfig
from edgewright.steps.data import GROUP_ROWS, arrow_type, type_name

_BLOCK = 4 << 20
_CONVERSION = re.compile(
    r"In CSV column #(\d+): (?:Row #(\d+): )?CSV conversion error to (\S+): invalid value '(.*)'", re.S
)
#: A text column of which at least this share of the first block are numbers was meant to be numbers.
_MOSTLY = 0.8
_SUFFIXES = {
    ".csv": "csv", ".tsv": "csv", ".parquet": "parquet", ".jsonl": "jsonl", ".ndjson": "jsonl", ".json": "jsonl",
}  # fmt: skip
_WIDER = {"null": "integer", "integer": "number", "date": "timestamp"}


class Table:
    """One source, opened as a stream.

    Args:
        path: Local file.
        shown: How messages name it.
        config: How to read it.
        types: Types that are already decided, by column (another source with the same columns).

    Attributes:
        columns: ``(name, type)`` in order; known after :meth:`open`.
        bad_rows: Unreadable rows that were left out, as ``(line, text)``; the first few.
        bad_count: How many there were.
    """

    def __init__(self, path: Path, shown: str, config: IngestConfig, types: dict[str, str] | None = None) -> None:
        self.path = path
        self.shown = shown
        self.config = config
        self.fixed: dict[str, str] = {**config.types, **(types or {})}
        self.columns: list[tuple[str, str]] = []
        self.bad_rows: list[tuple[int, str]] = []
        self.bad_count = 0
        self._widened: dict[str, str] = {}
        self.format = _format(path, config)

    def batches(self) -> Iterator[pa.RecordBatch]:
        """Yield all rows; raises :class:`Widened` where the reading has to start again."""
        self.bad_rows, self.bad_count = [], 0
        if self.path.stat().st_size == 0:
            raise DataError("the file is empty", where=self.shown)
        reader = {"csv": self._csv, "parquet": self._parquet, "jsonl": self._jsonl}[self.format]
        try:
            yield from reader()
        except (pa.ArrowException, OSError, EOFError, zlib.error, UnicodeError) as error:
            raise self._explain(error) from error

    # -- formats -----------------------------------------------------------------------------------------------

    def _csv(self) -> Iterator[pa.RecordBatch]:
        header = self._header()
        convert = pacsv.ConvertOptions(
            column_types={n: arrow_type(t) for n, t in {**self._widened, **self.fixed}.items() if n in header},
            null_values=self.config.missing,
            strings_can_be_null=True,
            include_columns=self.config.columns or None,
        )
        with self._open() as file:
            reader = pacsv.open_csv(
                file,
                read_options=pacsv.ReadOptions(block_size=_BLOCK, encoding=self.config.encoding, use_threads=False),
                parse_options=pacsv.ParseOptions(
                    delimiter=self.config.delimiter, newlines_in_values=True, invalid_row_handler=self._bad_row
                ),
                convert_options=convert,
            )
            yield from self._typed(reader, reader.schema)

    def _bad_row(self, row: Any) -> str:
        self.bad_count += 1
        if len(self.bad_rows) < 5:
            what = f"{row.actual_columns} values instead of {row.expected_columns}: {row.text[:80]!r}"
            self.bad_rows.append((row.number or 0, what))
        return "skip"

    def _parquet(self) -> Iterator[pa.RecordBatch]:
        with pq.ParquetFile(self.path) as file:
            schema = file.schema_arrow
            self._check_names(schema.names)
            wanted = self.config.columns or schema.names
            schema = pa.schema([schema.field(name) for name in wanted])
            batches = (b.select(wanted) for b in file.iter_batches(batch_size=GROUP_ROWS, columns=wanted))
            yield from self._typed(batches, schema)

    def _jsonl(self) -> Iterator[pa.RecordBatch]:
        types = {**self._widened, **self.fixed}
        explicit = pa.schema([(name, arrow_type(kind)) for name, kind in types.items()]) if types else None
        with self._open() as file:
            reader = pajson.open_json(
                file,
                read_options=pajson.ReadOptions(block_size=_BLOCK, use_threads=False),
                parse_options=pajson.ParseOptions(explicit_schema=explicit, newlines_in_values=False),
            )
            self._check_names(reader.schema.names)
            wanted = self.config.columns or reader.schema.names
            schema = pa.schema([reader.schema.field(name) for name in wanted])
            yield from self._typed((batch.select(wanted) for batch in reader), schema)

    # -- types -------------------------------------------------------------------------------------------------

    def _typed(self, batches: Iterable[pa.RecordBatch], schema: pa.Schema) -> Iterator[pa.RecordBatch]:
        """Cast every batch to the columns' types; the types follow from the first schema."""
        known = {**self._widened, **self.fixed}
        self.columns = [(field.name, known.get(field.name) or type_name(field.type)) for field in schema]
        target = pa.schema([(name, arrow_type(kind)) for name, kind in self.columns])
        first = True
        for batch in batches:
            if first and self.format == "csv":
                self._refuse_mixed(batch)
            first = False
            yield batch.cast(target) if batch.schema != target else batch

    def _refuse_mixed(self, batch: pa.RecordBatch) -> None:
        """Refuse a column that is text only because a few of its values are no numbers."""
        for (name, kind), array in zip(self.columns, batch.columns, strict=True):
            if kind != "string" or name in self.fixed or not pa.types.is_string(array.type):
                continue
            texts = array.to_pylist()
            wrong = [(line, text) for line, text in enumerate(texts, 2) if text is not None and not _is_number(text)]
            filled = len(texts) - array.null_count
            if wrong and filled and 1 - len(wrong) / filled >= _MOSTLY:
                raise self._not_a_number(name, wrong[0][0], wrong[0][1], len(wrong))

    def _not_a_number(self, name: str, line: int | None, text: str, count: int = 1) -> DataError:
        place = f"{self.shown}:{line}" if line else self.shown
        more = f" (and {count - 1} more)" if count > 1 else ""
        return DataError(
            f"column {name} holds numbers, but here it is {text!r}{more}",
            where=place,
            hint=f"mend the row; or, if the column is text, say types: {{{name}: string}}; "
            f"or, if {text!r} stands for a missing value, add it to missing:",
        )

    # -- checks and faults -------------------------------------------------------------------------------------

    def _header(self) -> list[str]:
        try:
            with self._open() as raw:
                text = codecs.getreader(self.config.encoding)(raw)
                header = next(csv.reader(text, delimiter=self.config.delimiter), [])
        except LookupError as error:
            raise DataError(f"no such encoding: {self.config.encoding}", where=self.shown) from error
        self._check_names(header)
        return header

    def _check_names(self, names: list[str]) -> None:
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise DataError(f"columns occur twice: {', '.join(map(repr, twice))}", where=self.shown, hint="rename them")
        for name in [
            *(self.config.columns or []),
            *([self.config.label] if self.config.label else []),
            *self.config.types,
        ]:
            if name not in names:
                near = difflib.get_close_matches(name, names, n=1)
                hint = f"columns are: {', '.join(names)}" + (f'; did you mean "{near[0]}"?' if near else "")
                raise DataError(f"there is no column {name!r}", where=self.shown, hint=hint)

    def _explain(self, error: Exception) -> Exception:
        """Turn a reader's error into one that says what to mend, or into a restart with wider types."""
        match = _CONVERSION.search(str(error))
        if match is None:
            return DataError(f"cannot be read as {self.format}: {error}", where=self.shown, hint=self._hint())
        number, line, kind, text = match.groups()
        name = self._column_name(int(number))
        current = {"null": "null", "int64": "integer", "double": "number", "date32[day]": "date"}.get(kind, kind)
        wider = _WIDER.get(current)
        if name not in self.fixed and wider is not None and (current == "null" or self._fits(text, wider)):
            self._widened[name] = wider if self._fits(text, wider) else ("number" if _is_number(text) else "string")
            return Widened(name)
        if name not in self.fixed and current == "number" and not _is_number(text):
            return self._not_a_number(name, int(line) if line else None, text)
        if current == "integer" and name not in self.fixed:
            return self._not_a_number(name, int(line) if line else None, text)
        place = f"{self.shown}:{line}" if line else self.shown
        return DataError(f"column {name}: {text!r} is no {current}", where=place, hint="mend the row, or change types:")

    def _column_name(self, number: int) -> str:
        return (self.config.columns or self._header())[number]

    @staticmethod
    def _fits(text: str, kind: str) -> bool:
        if kind == "integer":
            return bool(re.fullmatch(r"\s*[-+]?\d{1,18}\s*", text))
        return kind == "timestamp" or _is_number(text)

    def _hint(self) -> str:
        if self.format == "csv":
            return f"check delimiter: {self.config.delimiter!r} and encoding: {self.config.encoding}"
        return "say format: if its name does not tell"

    def _open(self) -> IO[bytes]:
        compressed = self.config.compression == "gzip" or (
            self.config.compression == "auto" and self.path.name.endswith(".gz")
        )
        if not compressed:
            return self.path.open("rb")
        return io.BufferedReader(gzip.open(self.path, "rb"), _BLOCK)  # type: ignore[arg-type]


class Widened(Exception):
    """A column turned out to need a wider type; the reading starts again."""


def read_all(table: Table) -> Iterator[list[pa.RecordBatch] | pa.RecordBatch]:
    """Yield a table's batches; ``[]`` is yielded where everything so far must be forgotten, because types widened."""
    while True:
        try:
            yield from table.batches()
        except Widened:
            yield []
        else:
            return


def _format(path: Path, config: IngestConfig) -> str:
    if config.format != "auto":
        return config.format
    name = path.name.removesuffix(".gz").lower()
    for suffix, found in _SUFFIXES.items():
        if name.endswith(suffix):
            return found
    raise DataError("its name does not tell the format", where=str(path.name), hint="say format: csv, parquet or jsonl")


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
