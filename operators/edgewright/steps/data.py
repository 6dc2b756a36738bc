"""Datasets on disk: one Parquet file a part and ``dataset.json``. The same rows always give the same bytes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from edgewright.errors import DamagedArtifact, DataError

if TYPE_CHECKING:
    import pandas as pd

MANIFEST = "dataset.json"
#: Parts in the order in which people think of them.
PARTS = ("train", "test", "holdout")
#: Rows of a Parquet row group: what is in memory at a time, whatever the size of the data.
GROUP_ROWS = 65_536
#: An integer label with at most this many values is a class.
MAX_CLASSES = 50

#: More values of the label than this are not counted.
MOST_VALUES = 1_000

_ARROW = {
    "integer": pa.int64(),
    "number": pa.float64(),
    "string": pa.string(),
    "boolean": pa.bool_(),
    "timestamp": pa.timestamp("us"),
    "date": pa.date32(),
}


def arrow_type(name: str) -> pa.DataType:
    """Return the Arrow type of one of our column types."""
    return _ARROW[name]


def type_name(kind: pa.DataType) -> str:
    """Return our name of an Arrow type.

    Raises:
        DataError: the type is none that a dataset can hold (nested columns, binary, ...).
    """
    tests = (
        ("boolean", pa.types.is_boolean),
        ("integer", pa.types.is_integer),
        ("number", lambda t: pa.types.is_floating(t) or pa.types.is_decimal(t)),
        ("string", lambda t: pa.types.is_string(t) or pa.types.is_large_string(t) or pa.types.is_null(t)),
        ("timestamp", pa.types.is_timestamp),
        ("date", pa.types.is_date),
    )
    for name, fits in tests:
        if fits(kind):
            return name
    raise DataError(f"a column of type {kind} cannot be in a dataset", hint="keep columns of plain values only")


def as_column(array: pa.Array, kind: str) -> pa.Array:
    """Return an array as a column of a dataset: of the given type, and NaN is a missing value.

    Raises:
        pyarrow.ArrowInvalid: a value cannot be of that type.
    """
    if pa.types.is_dictionary(array.type):
        array = array.dictionary_decode()
    if array.type != _ARROW[kind]:
        array = array.cast(_ARROW[kind])
    if kind == "number" and pc.any(pc.is_nan(array)).as_py():
        array = pc.if_else(pc.is_nan(array), pa.scalar(None, pa.float64()), array)
    return array


class Dataset:
    """A dataset folder, opened for reading.

    Attributes:
        folder: Where it is.
        manifest: ``dataset.json``, as docs/contracts.md describes it.
    """

    def __init__(self, folder: Path, manifest: dict[str, Any]) -> None:
        self.folder = folder
        self.manifest = manifest

    @classmethod
    def open(cls, folder: Path) -> Dataset:
        """Open a folder.

        Raises:
            DamagedArtifact: it holds no dataset.
        """
        try:
            manifest = json.loads((folder / MANIFEST).read_text())
        except (OSError, ValueError) as error:
            raise DamagedArtifact("this is no dataset", where=str(folder)) from error
        return cls(folder, manifest)

    @property
    def label(self) -> str | None:
        """Name of the column that is to be predicted."""
        label: str | None = self.manifest["label"]
        return label

    @property
    def problem(self) -> str:
        """``classification`` or ``regression``, by the label's type and number of values."""
        return str(self.manifest["problem"])

    @property
    def columns(self) -> list[dict[str, Any]]:
        """The columns' names, types and ranges."""
        return list(self.manifest["columns"])

    @property
    def features(self) -> list[str]:
        """Names of the columns that a model may learn from, in order: neither the label nor pseudonyms of people."""
        return list(self.feature_types)

    @property
    def feature_types(self) -> dict[str, str]:
        """Types of the features by name."""
        left_out = {self.label, *self.pseudonyms}
        return {column["name"]: column["type"] for column in self.columns if column["name"] not in left_out}

    @property
    def pseudonyms(self) -> list[str]:
        """Names of the columns that hold pseudonyms of people."""
        personal = self.manifest["source"].get("personal", {})
        return [name for name, how in personal.items() if how == "token"]

    @property
    def part_names(self) -> list[str]:
        """Names of the parts that there are."""
        return [name for name in PARTS if name in self.manifest["parts"]]

    @property
    def transforms(self) -> list[dict[str, Any]]:
        """Transformations that were applied to these data, the first first."""
        return list(self.manifest.get("transforms", []))

    def rows(self, part: str) -> int:
        """Number of rows of a part."""
        return int(self._entry(part)["rows"])

    def evaluation_part(self) -> str:
        """Return the part that models are measured on: ``holdout`` where there is one, else ``test``.

        Raises:
            DataError: there is neither.
        """
        for part in ("holdout", "test"):
            if part in self.manifest["parts"]:
                return part
        raise DataError("the dataset has no part to measure on", hint="give ingest a split: {test: 0.25} or a holdout:")

    def batches(self, part: str) -> Iterator[pa.RecordBatch]:
        """Yield a part's rows as Arrow batches of at most 65,536 rows."""
        with pq.ParquetFile(self.folder / self._entry(part)["file"]) as file:
            yield from file.iter_batches(batch_size=GROUP_ROWS)

    def table(self, part: str) -> pa.Table:
        """Return a whole part as an Arrow table."""
        with pq.ParquetFile(self.folder / self._entry(part)["file"]) as file:
            return file.read()

    def frame(self, part: str) -> pd.DataFrame:
        """Return a whole part as a pandas frame, with the types of :meth:`to_pandas`."""
        return self.to_pandas(self.table(part))

    def to_pandas(self, rows: pa.Table | pa.RecordBatch) -> pd.DataFrame:
        """Return rows of this dataset as a pandas frame.

        A column of integers that has missing values anywhere in the dataset is float64 with NaN, here too if these
        rows have none: a column's dtype follows from the dataset, not from the rows at hand.
        """
        floats = {c["name"] for c in self.columns if c["type"] == "integer"} & set(self.manifest.get("missing", {}))
        for index, name in enumerate(rows.schema.names):
            if name in floats:
                rows = rows.set_column(index, name, rows.column(index).cast(pa.float64()))
        return rows.to_pandas()

    def X(self, part: str) -> pd.DataFrame:  # noqa: N802 - the field's own name for the features
        """Return the features of a part."""
        return self.frame(part)[self.features]

    def y(self, part: str) -> pd.Series:
        """Return the label of a part.

        Raises:
            DataError: the dataset has no label.
        """
        if self.label is None:
            raise DataError("the dataset has no label", hint="name it in ingest: {label: COLUMN}")
        return self.frame(part)[self.label]

    def _entry(self, part: str) -> dict[str, Any]:
        parts: dict[str, dict[str, Any]] = self.manifest["parts"]
        if part not in parts:
            raise DataError(f"the dataset has no part {part}", hint=f"it has: {', '.join(self.part_names)}")
        return parts[part]


class _PartWriter:
    """Writes one part in row groups of a fixed size, so that the bytes do not follow from how the rows came in."""

    def __init__(self, path: Path, schema: pa.Schema) -> None:
        self.path = path
        self.rows = 0
        self._schema = schema
        self._waiting: list[pa.RecordBatch] = []
        self._count = 0
        # Dictionaries of decimal numbers cost time and space: they seldom repeat.
        repeating = [field.name for field in schema if not pa.types.is_floating(field.type)]
        self._file = pq.ParquetWriter(
            path, schema, compression="zstd", version="2.6", store_schema=False, use_dictionary=repeating or False
        )

    def write(self, batch: pa.RecordBatch) -> None:
        self._waiting.append(batch)
        self._count += batch.num_rows
        self.rows += batch.num_rows
        if self._count >= GROUP_ROWS:
            table = pa.Table.from_batches(self._waiting, self._schema)
            whole = table.num_rows - table.num_rows % GROUP_ROWS
            self._file.write_table(table.slice(0, whole).combine_chunks(), row_group_size=GROUP_ROWS)
            rest = table.slice(whole).combine_chunks()
            self._waiting, self._count = rest.to_batches(), rest.num_rows

    def close(self) -> None:
        if self._count:
            table = pa.Table.from_batches(self._waiting, self._schema).combine_chunks()
            self._file.write_table(table, row_group_size=GROUP_ROWS)
        self._file.close()


class DatasetWriter:
    """Writes a dataset folder part by part; memory stays that of one row group.

    Args:
        folder: Empty folder.
        columns: ``(name, type)`` of each column, in order.
        label: Name of the label, if there is one.
        source: What the manifest says about the source.
    """

    def __init__(self, folder: Path, columns: list[tuple[str, str]], label: str | None, source: dict[str, Any]) -> None:
        self.folder = folder
        self.columns = columns
        self.label = label
        self.source = source
        self.schema = pa.schema([(name, arrow_type(kind)) for name, kind in columns])
        self._parts: dict[str, _PartWriter] = {}
        self._missing = dict.fromkeys((name for name, _ in columns), 0)
        self._train_missing = dict.fromkeys((name for name, _ in columns), 0)
        self._ranges: dict[str, tuple[Any, Any]] = {}
        self._classes: dict[str, dict[Any, int]] = {}
        self._too_many = False

    def write(self, part: str, batch: pa.RecordBatch) -> None:
        """Add rows to a part; the batch has the writer's columns."""
        if batch.num_rows == 0:
            return
        if part not in self._parts:
            self._parts[part] = _PartWriter(self.folder / f"{part}.parquet", self.schema)
        self._parts[part].write(batch)
        self._count(part, batch)

    def _count(self, part: str, batch: pa.RecordBatch) -> None:
        for (name, kind), array in zip(self.columns, batch.columns, strict=True):
            self._missing[name] += array.null_count
            if part == "train":
                self._train_missing[name] += array.null_count
                if kind in ("integer", "number"):
                    self._widen(name, array)
        if self.label is not None and not self._too_many:
            counts = self._classes.setdefault(part, {})
            for entry in batch.column(self.label).value_counts().to_pylist():
                if entry["values"] is not None:
                    counts[entry["values"]] = counts.get(entry["values"], 0) + entry["counts"]
            if len(counts) > MOST_VALUES:
                self._many_values()

    def _many_values(self) -> None:
        """Stop counting: what has so many values is a quantity. A text cannot be one."""
        if dict(self.columns)[str(self.label)] == "string":
            raise DataError(
                f"the label {self.label} has more than {MOST_VALUES:,} different texts",
                hint="a label is a class or a number; is this the right column?",
            )
        self._too_many = True
        self._classes = {part: {} for part in self._classes}

    def _widen(self, name: str, array: pa.Array) -> None:
        if pa.types.is_floating(array.type):
            array = array.filter(pc.is_finite(array))  # JSON knows no infinity
        found = pc.min_max(array).as_py()
        low, high = found["min"], found["max"]
        if low is not None:
            known = self._ranges.get(name, (low, high))
            self._ranges[name] = (min(known[0], low), max(known[1], high))

    def close(self, transforms: list[dict[str, Any]] | None = None) -> dict[str, Any]:
        """Finish the files, write the manifest and return it."""
        for writer in self._parts.values():
            writer.close()
        problem = self._problem()
        parts = {name: self._part_entry(name, problem) for name in PARTS if name in self._parts}
        manifest: dict[str, Any] = {
            "version": 1,
            "label": self.label,
            "problem": problem,
            "source": self.source,
            "columns": [self._column_entry(name, kind) for name, kind in self.columns],
            "parts": parts,
            "rows": sum(writer.rows for writer in self._parts.values()),
            "missing": {name: count for name, count in self._missing.items() if count},
        }
        if problem == "classification":
            totals: dict[str, int] = {}
            for entry in parts.values():
                for value, count in entry["classes"].items():
                    totals[value] = totals.get(value, 0) + count
            manifest["classes"] = totals
        if transforms:
            manifest["transforms"] = transforms
        (self.folder / MANIFEST).write_text(json.dumps(manifest, indent=1, ensure_ascii=False))
        return manifest

    def _problem(self) -> str:
        if self.label is None:
            return "regression"
        kind = dict(self.columns)[self.label]
        values = {value for counts in self._classes.values() for value in counts}
        if kind in ("string", "boolean"):
            return "classification"
        return (
            "classification"
            if kind == "integer" and not self._too_many and len(values) <= MAX_CLASSES
            else "regression"
        )

    def _part_entry(self, name: str, problem: str) -> dict[str, Any]:
        entry: dict[str, Any] = {"file": f"{name}.parquet", "rows": self._parts[name].rows}
        if problem == "classification":
            counts = self._classes.get(name, {})
            entry["classes"] = {str(value): counts[value] for value in sorted(counts)}
        return entry

    def _column_entry(self, name: str, kind: str) -> dict[str, Any]:
        entry: dict[str, Any] = {"name": name, "type": kind, "missing": self._train_missing[name]}
        if name in self._ranges:
            entry["minimum"], entry["maximum"] = self._ranges[name]
        return entry


def reference_meta(manifest: dict[str, Any]) -> dict[str, Any]:
    """Return the small facts that a dataset's reference carries."""
    return {
        "rows": manifest["rows"],
        "columns": len(manifest["columns"]),
        "parts": {name: entry["rows"] for name, entry in manifest["parts"].items()},
        "label": manifest["label"],
    }
