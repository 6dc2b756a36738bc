"""Reading a source as a stream of Arrow batches with fixed column types; what all formats have in common.

Types follow from the first block. Where a later value does not fit, a whole number widens to a decimal one, a date to
a time, and the reading starts again; text in a column of numbers is a fault that names the line, never a silent change
of type.
"""

from __future__ import annotations

import difflib
import gzip
import io
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Any

import pyarrow as pa

from edgewright.artifacts.digest import sha256_file
from edgewright.errors import DataError
from edgewright.spec.steps.ingest import IngestConfig
from edgewright.steps.data import arrow_type, as_column, type_name
from edgewright.steps.personal import Protector

#: Bytes of text that are parsed at a time.
BLOCK = 4 << 20
_SUFFIXES = {
    ".csv": "csv", ".tsv": "csv", ".parquet": "parquet", ".jsonl": "jsonl", ".ndjson": "jsonl", ".json": "jsonl",
}  # fmt: skip
_GZIP_MAGIC = b"\x1f\x8b"


class Widened(Exception):
    """A column turned out to need a wider type; the reading starts again."""


class Table:
    """One source, opened as a stream; a subclass a format.

    Args:
        path: Local file.
        shown: How messages name it.
        config: How to read it.
        types: Types that are already decided, by column (another source with the same columns).

    Attributes:
        columns: ``(name, type)`` in order; known from the first batch on.
        bad_rows: The first few unreadable rows that were left out, as ``(line, text)``.
        bad_count: How many there were.
        size: Bytes of the file.
        done: Bytes of the file that were read so far.
        attachments: Files that will lie beside the dataset's rows, by name.
    """

    format = ""
    #: Whether personal columns were treated already, before the rows were written to disk.
    protected = False

    def __init__(self, path: Path, shown: str, config: IngestConfig, types: dict[str, str] | None = None) -> None:
        self.path = path
        self.shown = shown
        self.config = config
        self.fixed: dict[str, str] = {**config.types, **(types or {})}
        self.columns: list[tuple[str, str]] = []
        self.bad_rows: list[tuple[int, str]] = []
        self.bad_count = 0
        self.size = path.stat().st_size
        self.done = 0
        self.attachments: dict[str, bytes] = {}
        self._widened: dict[str, str] = {}

    def describe(self) -> dict[str, Any]:
        """Return what a manifest says about the source."""
        return {"uri": self.shown, "sha256": sha256_file(self.path), "bytes": self.size}

    def batches(self) -> Iterator[pa.RecordBatch]:
        """Yield all rows.

        Raises:
            Widened: the reading has to start again.
            DataError: the file cannot be read, or its contents do not fit.
        """
        self.bad_rows, self.bad_count = [], 0
        if self.size == 0:
            raise DataError("the file is empty", where=self.shown)
        try:
            yield from self._read()
        except (gzip.BadGzipFile, EOFError, zlib.error) as error:
            hint = "fetch it again; or say compression: none if it is not compressed"
            raise DataError(f"the gzip file is damaged: {error}", where=self.shown, hint=hint) from error
        except UnicodeError as error:
            raise self.wrong_encoding(str(error)) from error
        except (pa.ArrowException, OSError) as error:
            raise self._explain(error) from error

    def _read(self) -> Iterator[pa.RecordBatch]:
        raise NotImplementedError

    def _explain(self, error: Exception) -> Exception:
        """Turn a reader's error into one that says what to mend, or into a restart with wider types."""
        return DataError(f"cannot be read as {self.format}: {self.detail(error)}", where=self.shown)

    def detail(self, error: Exception) -> str:
        """Return a reader's own words, which may quote a line: not where columns are personal."""
        return "a line is damaged" if self.config.personal else str(error)

    # -- types -------------------------------------------------------------------------------------------------

    @property
    def known(self) -> dict[str, str]:
        """Types that are decided: said by the user, or found to be necessary."""
        return {**self._widened, **self.fixed}

    def widen(self, name: str, kind: str) -> Widened:
        """Decide for a wider type; raise what this returns."""
        self._widened[name] = kind
        return Widened(name)

    def typed(self, batches: Iterable[pa.RecordBatch], schema: pa.Schema) -> Iterator[pa.RecordBatch]:
        """Cast every batch to the columns' types, which follow from the first schema."""
        self.columns = [(field.name, self.known.get(field.name) or self._type(field)) for field in schema]
        target = pa.schema([(name, arrow_type(kind)) for name, kind in self.columns])
        for batch in batches:
            arrays = [
                self._column(array, name, kind) for array, (name, kind) in zip(batch.columns, self.columns, strict=True)
            ]
            yield pa.RecordBatch.from_arrays(arrays, schema=target)

    def _type(self, field: pa.Field) -> str:
        try:
            return type_name(field.type.value_type if pa.types.is_dictionary(field.type) else field.type)
        except DataError as error:
            hint = "choose the others by columns:, or make a text or a number of it before"
            raise DataError(
                f"column {field.name} is of type {field.type}, which cannot be in a dataset",
                where=self.shown,
                hint=hint,
            ) from error

    def _column(self, array: pa.Array, name: str, kind: str) -> pa.Array:
        try:
            return as_column(array, kind)
        except pa.ArrowException as error:
            raise DataError(
                f"column {name} holds values that are no {kind}: {error}",
                where=self.shown,
                hint=f"say another type: types: {{{name}: ...}}, or mend the values",
            ) from error

    # -- checks and faults -------------------------------------------------------------------------------------

    def check_names(self, names: list[str]) -> None:
        """Refuse names that occur twice or are empty, and names in the configuration that do not occur.

        Raises:
            DataError: one of these.
        """
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise DataError(f"columns occur twice: {', '.join(map(repr, twice))}", where=self.shown, hint="rename them")
        if "" in (self.config.columns or names):
            number = names.index("") + 1 if "" in names else 0
            hint = "give it a name, or choose the others by columns: (pandas writes one with to_csv(index=True))"
            raise DataError(f"column {number} has no name", where=self.shown, hint=hint)
        label = [self.config.label] if self.config.label else []
        chosen = self.config.columns
        # a misspelt personal column would be stored as it is
        personal = [name for name in self.config.personal if chosen is None or name in chosen]
        for name in [*(chosen or []), *label, *self.config.types, *personal]:
            if name not in names:
                near = difflib.get_close_matches(name, names, n=1)
                hint = f"columns are: {', '.join(names)}" + (f'; did you mean "{near[0]}"?' if near else "")
                raise DataError(f"there is no column {name!r}", where=self.shown, hint=hint)

    def quoted(self, name: str, value: object) -> str:
        """Return a value for a message; nothing of a personal column comes into a log."""
        return "a value" if name in self.config.personal else f"{value!r:.60}"

    def not_a_number(self, name: str, line: int | None, text: str, count: int = 1) -> DataError:
        """Return the fault of a text among numbers."""
        more = f" (and {count - 1} more)" if count > 1 else ""
        return DataError(
            f"column {name} holds numbers, but here it is {self.quoted(name, text)}{more}",
            where=f"{self.shown}:{line}" if line else self.shown,
            hint=f"mend the row; or, if the column is text, say types: {{{name}: string}}{self.missing_hint(text)}",
        )

    def missing_hint(self, text: str) -> str:
        """Return how to say that a text stands for a missing value, where the format knows such texts."""
        return ""

    def wrong_encoding(self, detail: str = "") -> DataError:
        """Return the fault of bytes that are no text in the given encoding."""
        hint = "say encoding:, such as latin-1, cp1252 or utf-16; or save the file as UTF-8"
        more = f": {detail}" if detail else ""
        return DataError(f"the file is not {self.config.encoding}{more}", where=self.shown, hint=hint)

    # -- bytes -------------------------------------------------------------------------------------------------

    def open_bytes(self) -> IO[bytes]:
        """Return the contents, unpacked where they are compressed.

        Raises:
            DataError: the file is to be gzip and is not.
        """
        raw = _Counting(self.path, self)
        magic = raw.peek(2)[:2] == _GZIP_MAGIC
        said = self.config.compression
        if not magic and (said == "gzip" or (said == "auto" and self.path.name.endswith(".gz"))):
            raw.close()
            hint = "say compression: none if it is not compressed"
            raise DataError("this is no gzip file", where=self.shown, hint=hint)
        if magic and said != "none":
            return io.BufferedReader(gzip.GzipFile(fileobj=raw), BLOCK)
        return raw


class _Counting(io.BufferedReader):
    """A file that tells its table how far it was read."""

    def __init__(self, path: Path, table: Table) -> None:
        super().__init__(io.FileIO(path), BLOCK)
        self._table = table
        table.done = 0

    def read(self, size: int | None = -1, /) -> bytes:
        """Read, and count."""
        data = super().read(size)
        self._table.done += len(data)
        return data

    def readinto(self, buffer: Any, /) -> int:
        """Read into a buffer, and count."""
        count = super().readinto(buffer)
        self._table.done += count
        return count


def open_table(path: Path, shown: str, config: IngestConfig, types: dict[str, str] | None = None) -> Table:
    """Return a source as a table of its format.

    Raises:
        DataError: the name does not tell the format, and the configuration neither.
    """
    found = config.format if config.format != "auto" else _format(path, shown)
    if found == "parquet":
        from edgewright.steps.tables_parquet import ParquetTable

        return ParquetTable(path, shown, config, types)
    if found == "jsonl":
        from edgewright.steps.tables_jsonl import JsonlTable

        return JsonlTable(path, shown, config, types)
    from edgewright.steps.tables_csv import CsvTable

    return CsvTable(path, shown, config, types)


def _format(path: Path, shown: str) -> str:
    name = path.name.lower().removesuffix(".gz")
    for suffix, found in _SUFFIXES.items():
        if name.endswith(suffix):
            return found
    raise DataError(
        "its name does not tell the format",
        where=shown,
        hint="say format: csv, parquet or jsonl; other kinds of file are not read",
    )


def read_all(table: Table) -> Iterator[pa.RecordBatch | None]:
    """Yield a table's batches; ``None`` where everything so far must be forgotten, because a type widened.

    Personal columns leave here as pseudonyms, masked, or not at all.
    """
    protector = None if table.protected else Protector.of(table.config, table.shown)
    while True:
        try:
            for batch in table.batches():
                if protector is not None:
                    table.columns = protector.columns(table.columns)
                yield batch if protector is None else protector.batch(batch)
        except Widened:
            yield None
        else:
            return


def is_number(text: str) -> bool:
    """Return whether a text is a number."""
    try:
        float(text)
    except ValueError:
        return False
    return True
