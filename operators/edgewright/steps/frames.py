"""What a user's function returns, as rows of a dataset: checked, spooled to disk, and of one type a column."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.ipc

from edgewright.errors import DataError, UserCodeError
from edgewright.steps.data import GROUP_ROWS, as_column, type_name


def rows_of(found: Any, entry: str) -> pa.Table:
    """Return what a function returned as an Arrow table.

    Args:
        found: A pandas DataFrame, an Arrow table or a record batch.
        entry: The function, for messages.

    Raises:
        UserCodeError: it is something else, or a column cannot be in a dataset.
    """
    import pandas as pd

    if isinstance(found, pa.RecordBatch):
        found = pa.Table.from_batches([found])
    if isinstance(found, pa.Table):
        names, columns = found.column_names, [column.combine_chunks() for column in found.columns]
    elif isinstance(found, pd.DataFrame):
        names = list(found.columns)
        columns = [_from_pandas(found.iloc[:, place], name, entry) for place, name in enumerate(names)]
    else:
        what = "nothing" if found is None else f"a {type(found).__name__}, not a frame"
        raise UserCodeError(f"{entry} returned {what}", hint="return the DataFrame (or the Arrow table) with its label")
    _check_names(names, entry)
    return pa.table([_storable(array, name, entry) for name, array in zip(names, columns, strict=True)], names=names)


def _check_names(names: list[Any], entry: str) -> None:
    odd = [name for name in names if not isinstance(name, str) or not name]
    if odd:
        raise UserCodeError(f"{entry} returned a column named {odd[0]!r}", hint="columns have texts as names")
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise UserCodeError(f"{entry} returned columns twice: {', '.join(twice)}", hint="rename one of them")


def _from_pandas(column: Any, name: Any, entry: str) -> pa.Array:
    try:
        found = pa.Array.from_pandas(column)
    except (pa.ArrowException, ValueError, OverflowError) as error:
        raise UserCodeError(
            f"{entry} returned a column {name} that holds values of several kinds: {error}",
            hint="give each column one type, such as frame[name].astype(float)",
        ) from error
    return found.combine_chunks() if isinstance(found, pa.ChunkedArray) else found


def _storable(array: pa.Array, name: str, entry: str) -> pa.Array:
    if pa.types.is_dictionary(array.type):
        array = array.dictionary_decode()
    if pa.types.is_null(array.type):
        return array
    try:
        return as_column(array, type_name(array.type))
    except (DataError, pa.ArrowException) as error:
        raise UserCodeError(
            f"{entry} returned a column {name} of type {array.type}, which cannot be in a dataset",
            hint="columns hold whole numbers, numbers, texts, true and false, times or dates",
        ) from error


@dataclass
class _Chunk:
    """Rows of one part with one schema, on disk."""

    path: Path
    schema: pa.Schema
    rows: int
    whole: set[str] = field(default_factory=set)


class CollectedRows:
    """Rows of all parts on disk until the last is known: only then is each column's type.

    Args:
        folder: Empty scratch folder.
        label: Name of the label, which every part must keep.
        integers: Columns that were integers with missing values; pandas makes floats of them, and they become
            integers again where all values still are whole numbers.
    """

    def __init__(self, folder: Path, label: str | None, integers: set[str]) -> None:
        self._folder = folder
        self._label = label
        self._integers = integers
        self._chunks: dict[str, list[_Chunk]] = {}
        self._written = 0

    def add(self, part: str, table: pa.Table, entry: str) -> None:
        """Add rows that a function returned.

        Raises:
            UserCodeError: the label is lost or has missing values, or the columns are not those of the rows before.
        """
        self._check_label(table, entry, part)
        self._check_columns(table, entry, part)
        chunk = _Chunk(self._folder / f"{self._written}.arrow", table.schema, table.num_rows)
        self._written += 1
        for name in self._integers & set(table.column_names):
            column = table.column(name)
            if pa.types.is_floating(column.type) and pc.all(pc.equal(pc.floor(column), column)).as_py() is not False:
                chunk.whole.add(name)
        with pa.ipc.new_file(chunk.path, table.schema) as writer:
            writer.write_table(table, max_chunksize=GROUP_ROWS)
        self._chunks.setdefault(part, []).append(chunk)

    def _check_label(self, table: pa.Table, entry: str, part: str) -> None:
        if self._label is None:
            return
        if self._label not in table.column_names:
            raise UserCodeError(
                f"{entry} lost the label {self._label} (part {part})",
                hint=f"it returned: {', '.join(table.column_names) or 'no columns'}; return the label with the others",
            )
        missing = table.column(self._label).null_count
        if missing:
            raise UserCodeError(
                f"{entry} returned {missing} rows of {part} without a label", hint="leave such rows out"
            )

    def _check_columns(self, table: pa.Table, entry: str, part: str) -> None:
        first = next((chunks[0] for chunks in self._chunks.values()), None)
        if first is None or first.schema.names == table.column_names:
            return
        new = [name for name in table.column_names if name not in first.schema.names]
        lost = [name for name in first.schema.names if name not in table.column_names]
        what = f"new are {', '.join(new) or 'none'}, missing are {', '.join(lost) or 'none'}"
        raise UserCodeError(
            f"{entry} returned other columns for {part} than before: {what if new or lost else 'their order differs'}",
            hint="columns that follow from the values (such as get_dummies) must be found once, by fit:",
        )

    def rows(self, part: str) -> int:
        """Number of rows of a part."""
        return sum(chunk.rows for chunk in self._chunks.get(part, ()))

    def columns(self, entry: str) -> list[tuple[str, str]]:
        """Return ``(name, type)`` of each column, over all parts.

        Raises:
            UserCodeError: a column has texts in one part and numbers in another, say.
        """
        chunks = [chunk for part in self._chunks.values() for chunk in part]
        return [(name, self._type(name, chunks, entry)) for name in chunks[0].schema.names]

    def _type(self, name: str, chunks: list[_Chunk], entry: str) -> str:
        kinds = {c.schema.field(name).type for c in chunks if not pa.types.is_null(c.schema.field(name).type)}
        names = {type_name(kind) for kind in kinds} or {"string"}
        if names == {"integer", "number"}:
            names = {"number"}
        if len(names) > 1:
            raise UserCodeError(
                f"{entry} returned the column {name} as {' and as '.join(sorted(names))}", hint="give it one type"
            )
        kind = names.pop()
        again = kind == "number" and all(name in c.whole or c.schema.field(name).type == pa.int64() for c in chunks)
        return "integer" if again and name in self._integers else kind

    def batches(self, part: str, columns: list[tuple[str, str]]) -> Iterator[pa.RecordBatch]:
        """Yield a part's rows with the final types."""
        for chunk in self._chunks.get(part, ()):
            with pa.OSFile(str(chunk.path), "rb") as file:
                reader = pa.ipc.open_file(file)
                for index in range(reader.num_record_batches):
                    batch = reader.get_batch(index)
                    arrays = [as_column(batch.column(name), kind) for name, kind in columns]
                    yield pa.RecordBatch.from_arrays(arrays, names=[name for name, _ in columns])
