"""CSV files, compressed or not, as streams of batches."""

from __future__ import annotations

import codecs
import csv
import re
from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pyarrow.csv as pacsv

from edgewright.errors import DataError
from edgewright.steps.data import arrow_type
from edgewright.steps.tables import BLOCK, Table, is_number

_CONVERSION = re.compile(
    r"In CSV column #(\d+): (?:Row #(\d+): )?CSV conversion error to (\S+): invalid value '(.*)'", re.S
)
_BAD_TEXT = re.compile(r"In CSV column #(\d+): (?:Row #(\d+): )?CSV conversion error to \S+: invalid UTF8 data")
#: A text column of which at least this share of the first block are numbers was meant to be numbers.
_MOSTLY = 0.8
_KINDS = {"null": "null", "int64": "integer", "double": "number", "bool": "boolean", "date32[day]": "date"}


class CsvTable(Table):
    """A CSV file with a header."""

    format = "csv"

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # what identifies people is text: 007 is not 7
        self.fixed = {**self.fixed, **dict.fromkeys(self.config.personal, "string")}

    @property
    def delimiter(self) -> str:
        """The character between values: a tab in a ``.tsv`` file where nothing else was said."""
        said = "delimiter" in self.config.model_fields_set
        return (
            "\t" if not said and self.path.name.lower().removesuffix(".gz").endswith(".tsv") else self.config.delimiter
        )

    def _read(self) -> Iterator[pa.RecordBatch]:
        header = self._header()
        convert = pacsv.ConvertOptions(
            column_types={name: arrow_type(kind) for name, kind in self.known.items() if name in header},
            null_values=self.config.missing,
            strings_can_be_null=True,
            include_columns=self.config.columns or None,
        )
        parse = pacsv.ParseOptions(delimiter=self.delimiter, newlines_in_values=True, invalid_row_handler=self._bad_row)
        # One thread: only then does a bad row know its line.
        read = pacsv.ReadOptions(block_size=BLOCK, encoding=self.config.encoding, use_threads=False)
        with self.open_bytes() as file:
            reader = pacsv.open_csv(file, read_options=read, parse_options=parse, convert_options=convert)
            self._check_types(reader.schema)
            yield from self.typed(self._batches(reader), reader.schema)

    def _batches(self, reader: Any) -> Iterator[pa.RecordBatch]:
        for number, batch in enumerate(reader):
            if number == 0:
                self._refuse_mixed(batch)
            yield batch

    def _bad_row(self, row: Any) -> str:
        self.bad_count += 1
        if len(self.bad_rows) < 5:
            what = f"{row.actual_columns} values instead of {row.expected_columns}: {row.text[:80]!r}"
            self.bad_rows.append((row.number or 0, what))
        return "skip"

    def _check_types(self, schema: pa.Schema) -> None:
        """Read times of day as text; refuse text that is not in the encoding."""
        for field in schema:
            if pa.types.is_time(field.type):
                raise self.widen(field.name, "string")
            if pa.types.is_binary(field.type):
                raise self.wrong_encoding(f"column {field.name}")

    def _refuse_mixed(self, batch: pa.RecordBatch) -> None:
        """Refuse a column that is text only because a few of its values are no numbers."""
        for field, array in zip(batch.schema, batch.columns, strict=True):
            if field.name in self.known or not pa.types.is_string(array.type):
                continue
            texts = array.to_pylist()
            wrong = [(line, text) for line, text in enumerate(texts, 2) if text is not None and not is_number(text)]
            filled = len(texts) - array.null_count
            if wrong and filled and 1 - len(wrong) / filled >= _MOSTLY:
                raise self.not_a_number(field.name, wrong[0][0], wrong[0][1], len(wrong))

    # -- the header --------------------------------------------------------------------------------------------

    def _header(self) -> list[str]:
        encoding = "utf-8-sig" if codecs_name(self.config.encoding) == "utf-8" else self.config.encoding
        try:
            with self.open_bytes() as raw:
                text = codecs.getreader(encoding)(raw)
                header = next((row for row in csv.reader(text, delimiter=self.delimiter) if row), None)
        except LookupError as error:
            raise DataError(f"no such encoding: {self.config.encoding}", where=self.shown) from error
        except csv.Error as error:
            raise DataError(f"the header cannot be read: {error}", where=self.shown) from error
        if header is None:
            raise DataError("the file is empty", where=self.shown)
        self._check_delimiter(header)
        self.check_names(header)
        return header

    def _check_delimiter(self, header: list[str]) -> None:
        other = next(
            (sign for sign in ";\t|," if len(header) == 1 and sign in header[0] and sign != self.delimiter), ""
        )
        if other and "delimiter" not in self.config.model_fields_set:
            raise DataError(
                f"there is only one column, named {header[0]!r}", where=self.shown, hint=f'say delimiter: "{other}"'
            )

    # -- faults ------------------------------------------------------------------------------------------------

    def _explain(self, error: Exception) -> Exception:
        text = str(error)
        if match := _CONVERSION.search(text):
            number, line, kind, value = match.groups()
            current = "timestamp" if kind.startswith("timestamp") else _KINDS.get(kind, kind)
            name = (self.config.columns or self._header())[int(number)]
            return self._misfit(name, current, kind, int(line) if line else None, value)
        if match := _BAD_TEXT.search(text):
            name = (self.config.columns or self._header())[int(match.group(1))]
            return self.wrong_encoding(f"column {name}" + (f", row {match.group(2)}" if match.group(2) else ""))
        hint = f"check delimiter: {self.delimiter!r} and encoding: {self.config.encoding}"
        if "straddling" in text or "block_size" in text:
            hint = "a quotation mark that is never closed makes the rest of the file one value"
        return DataError(f"cannot be read as csv: {self.detail(error)}", where=self.shown, hint=hint)

    def _misfit(self, name: str, current: str, kind: str, line: int | None, text: str) -> Exception:
        """Return the fault of a value that does not fit its column, or a restart with a wider type."""
        if name not in self.fixed:
            wider = _wider(current, kind, text)
            if wider is not None:
                return self.widen(name, wider)
            if current in ("integer", "number"):
                return self.not_a_number(name, line, text)
        return DataError(
            f"column {name}: {self.quoted(name, text)} is no {current}",
            where=f"{self.shown}:{line}" if line else self.shown,
            hint=f"mend the row; or say types: {{{name}: {'number' if is_number(text) else 'string'}}}"
            f"{self.missing_hint(text)}",
        )

    def missing_hint(self, text: str) -> str:
        """Return how to say that a text stands for a missing value."""
        return f"; or, if {text!r} stands for a missing value, add it to missing:"


def codecs_name(encoding: str) -> str:
    """Return an encoding's usual name, or the text itself where Python knows none."""
    try:
        return codecs.lookup(encoding).name
    except LookupError:
        return encoding


def _wider(current: str, kind: str, text: str) -> str | None:
    """Return the type that a column must have so that a value fits too; ``None`` where there is none."""
    if current == "null":  # nothing was known of the column until now
        if re.fullmatch(r"\s*[-+]?\d{1,18}\s*", text):
            return "integer"
        return "number" if is_number(text) else "string"
    if current == "integer" and is_number(text):
        return "number"
    times = current == "date" or (current == "timestamp" and kind != "timestamp[us]")
    return "timestamp" if times and re.match(r"\d{4}-\d{2}-\d{2}[ T]", text) else None
