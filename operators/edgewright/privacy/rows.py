"""A person's rows in files of rows: counted, and left out of a copy. Parquet, CSV and JSON lines, packed or not."""

from __future__ import annotations

import ast
import csv
import gzip
import io
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from edgewright.privacy.matcher import Matcher
from edgewright.steps.data import GROUP_ROWS
from edgewright.steps.erased import is_text

#: Bytes of one record of a CSV.
_LONGEST = 1 << 20
Open = Callable[[], IO[bytes]]
#: Fields of a record that was cut off, or is in no known form.
_PIECE = re.compile(r"[^,;|\t'\"{}\[\]:\r\n]+")


class Rows:
    """Finds and leaves out one person's rows.

    Args:
        matcher: Says whose a value is.
    """

    def __init__(self, matcher: Matcher) -> None:
        self._matcher = matcher

    @staticmethod
    def knows(name: str) -> bool:
        """Whether a file of that name can be taken apart."""
        return _form(name) in ("parquet", "csv", "jsonl")

    def count(self, name: str, opened: Open) -> int:
        """Return how many rows are theirs.

        Args:
            name: Of the file: the form follows from its ending.
            opened: Opens it for reading.

        Raises:
            ValueError: it is not what its name says.
        """
        with _reading(name, opened) as file:
            if _form(name) == "parquet":
                return sum(int(pc.sum(mask).as_py() or 0) for _, mask in self._batches(file) if mask is not None)
            if _form(name) == "csv":
                return sum(theirs for _, theirs in self._records(file))
            return sum(map(self._line_of(name), file))

    def without(self, name: str, opened: Open, target: Path) -> int:
        """Write a copy without their rows, and return how many rows it has.

        Args:
            name: Of the file.
            opened: Opens it for reading.
            target: Where the copy is written.

        Raises:
            ValueError: it is not what its name says.
        """
        with _reading(name, opened) as file:
            if _form(name) == "parquet":
                return self._parquet(file, target)
            with _writing(name, target) as out:
                return self._csv(file, out) if _form(name) == "csv" else self._lines(name, file, out)

    @staticmethod
    def total(name: str, path: Path) -> int:
        """Return how many rows a file on this machine has."""
        if _form(name) == "parquet":
            return int(pq.read_metadata(path).num_rows)
        with path.open("rb") as file:
            return max(0, sum(1 for _ in _raw_records(file)) - 1) if _form(name) == "csv" else sum(1 for _ in file)

    # -- forms -------------------------------------------------------------------------------------------------

    def _batches(self, file: IO[bytes]) -> Iterator[tuple[pa.RecordBatch, Any]]:
        with pq.ParquetFile(file) as opened:
            for batch in opened.iter_batches(batch_size=GROUP_ROWS):
                yield batch, self.mask(batch)

    def _parquet(self, file: IO[bytes], target: Path) -> int:
        schema, rows = pq.read_schema(file), 0
        file.seek(0)
        with pq.ParquetWriter(target, schema) as writer:
            for batch, mask in self._batches(file):
                kept = batch if mask is None else batch.filter(pc.invert(mask))
                writer.write_batch(kept)
                rows += kept.num_rows
        return rows

    def _records(self, file: IO[bytes]) -> Iterator[tuple[bytes, bool]]:
        """Yield every record of a CSV as it stands there, and whether it is theirs; the header first."""
        header: list[str] = []
        delimiter = ","
        for raw in _raw_records(file):
            text = raw.decode("utf-8", errors="surrogateescape").removeprefix("\ufeff")
            if not header:
                delimiter = max(",;\t|", key=text.count)
            record = next(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter), [])
            theirs = bool(header) and self._matcher.is_row(dict(zip(header, record, strict=False)))
            header = header or record
            yield raw, theirs

    def _csv(self, file: IO[bytes], out: IO[bytes]) -> int:
        rows = -1
        for raw, theirs in self._records(file):
            if not theirs:
                out.write(raw)
                rows += 1
        return max(0, rows)

    def _lines(self, name: str, file: IO[bytes], out: IO[bytes]) -> int:
        theirs, rows = self._line_of(name), 0
        for line in file:
            if not theirs(line):
                out.write(line)
                rows += 1
        return rows

    def _line_of(self, name: str) -> Callable[[bytes], bool]:
        return self._is_aside if "_rejected/" in name else self._matcher.is_message

    # -- whose -------------------------------------------------------------------------------------------------

    def mask(self, batch: pa.RecordBatch) -> Any:
        """Return a boolean array, which rows are theirs; ``None`` where none is."""
        found = None
        for name, array in zip(batch.schema.names, batch.columns, strict=True):
            if not is_text(array.type) and name not in self._matcher.fields:
                continue
            texts = array.cast(pa.string())
            theirs = [value for value in texts.unique().to_pylist() if value and self._matcher.is_cell(name, value)]
            if theirs:
                one = pc.is_in(texts, value_set=pa.array(theirs, pa.string()))
                found = one if found is None else pc.or_(found, one)
        return found

    def _is_aside(self, line: bytes) -> bool:
        """Whether a row that could not be scored is theirs: it stands there as the text that it was."""
        if self._matcher.is_message(line):
            return True
        try:
            text = str(json.loads(line).get("text") or "")
        except ValueError:
            return False
        return self._matcher.is_any(_pieces(text))


def _pieces(text: str) -> set[str]:
    """Return whatever may be a value of a record: a mapping of Python's or JSON's, or fields of a CSV."""
    found = {piece.strip() for piece in _PIECE.findall(text)}
    try:
        row = ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        row = None
    if isinstance(row, dict):
        found |= {str(value) for value in row.values()}
    for delimiter in ",;\t|":
        for record in csv.reader(io.StringIO(text), delimiter=delimiter):
            found |= set(record)
    return found


def _raw_records(file: IO[bytes]) -> Iterator[bytes]:
    """Yield the records of a CSV as bytes; a line end inside of quotes ends none.

    Raises:
        ValueError: a quotation mark is never closed.
    """
    held, odd = b"", False
    for line in file:
        odd ^= line.count(b'"') % 2 == 1
        held += line
        if not odd:
            yield held
            held = b""
        elif len(held) > _LONGEST:
            raise ValueError("a quotation mark is never closed")
    if held:
        yield held


def _form(name: str) -> str:
    ending = name.lower().removesuffix(".gz").rpartition(".")[2]
    return {"tsv": "csv", "ndjson": "jsonl"}.get(ending, ending)


def _reading(name: str, opened: Open) -> IO[bytes]:
    return gzip.open(opened(), "rb") if name.lower().endswith(".gz") else opened()  # type: ignore[return-value]


def _writing(name: str, target: Path) -> IO[bytes]:
    return gzip.open(target, "wb") if name.lower().endswith(".gz") else target.open("wb")  # type: ignore[return-value]
