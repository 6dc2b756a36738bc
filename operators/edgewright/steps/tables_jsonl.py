"""JSON lines, compressed or not, as streams of batches.

Arrow's reader is fast and says little about what it cannot read. So where it stops, the whole file is read once more
line by line: either the line that is wrong is found, or the type that each column needs, and then Arrow begins again.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pyarrow.json as pajson

from edgewright.errors import DataError
from edgewright.steps.data import arrow_type
from edgewright.steps.tables import BLOCK, Table

_TIME = re.compile(r"\d{4}-\d{2}-\d{2}([ T]\d{2}:\d{2}(:\d{2}(\.\d{1,6})?)?Z?)?$")


#: What a JSON value may be in a column whose type was said.
_FITTING = {
    "integer": ("null", "integer"), "number": ("null", "integer", "number"), "boolean": ("null", "boolean"),
    "string": ("null", "string", "timestamp"), "timestamp": ("null", "timestamp"), "date": ("null", "timestamp"),
}  # fmt: skip


class JsonlTable(Table):
    """A file with one JSON object a line."""

    format = "jsonl"

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._scanned = False

    def _read(self) -> Iterator[pa.RecordBatch]:
        types = self.known
        schema = pa.schema([(name, arrow_type(kind)) for name, kind in types.items()]) if types else None
        read = pajson.ReadOptions(block_size=BLOCK, use_threads=False)
        parse = pajson.ParseOptions(
            explicit_schema=schema,
            newlines_in_values=False,
            unexpected_field_behavior="ignore" if self._scanned else "infer",
        )
        with self.open_bytes() as file:
            reader = pajson.open_json(file, read_options=read, parse_options=parse)
            names = [name for name in reader.schema.names if name not in self.config.types or self._occurs(name)]
            self.check_names(names)
            wanted = self.config.columns or names
            chosen = pa.schema([reader.schema.field(name) for name in wanted])
            nulls = [f.name for f in chosen if pa.types.is_null(f.type) and not self._scanned]
            if nulls:  # the first block says nothing about them
                raise self._scan()
            yield from self.typed(self._batches(reader, wanted), chosen)

    @staticmethod
    def _batches(reader: Any, wanted: list[str]) -> Iterator[pa.RecordBatch]:
        for batch in reader:
            chosen = batch.select(wanted)
            chosen.validate(full=True)  # the reader itself takes any bytes for text
            yield chosen

    def _occurs(self, name: str) -> bool:
        """Whether a column that the user gave a type to stands in the file at all."""
        if self._scanned:
            return name in self._widened
        return any(name in row for _, row in zip(range(1000), self._rows(), strict=False))

    def _explain(self, error: Exception) -> Exception:
        if "Empty JSON stream" in str(error):
            return DataError("the file is empty", where=self.shown)
        if self._scanned:
            return DataError(f"cannot be read as jsonl: {self.detail(error)}", where=self.shown)
        return self._scan()

    def _rows(self) -> Iterator[dict[str, Any]]:
        """Yield every line's object.

        Raises:
            DataError: a line holds none.
        """
        with self.open_bytes() as file:
            for line, raw in enumerate(file, 1):
                if not raw.strip():
                    continue
                try:
                    row = json.loads(raw)
                except UnicodeDecodeError as error:
                    hint = "JSON is always UTF-8: iconv -f latin1 -t utf-8 makes it so, for example"
                    raise DataError("this is not UTF-8", where=f"{self.shown}:{line}", hint=hint) from error
                except ValueError as error:
                    hint = "each line is one object"
                    if line == 1 and raw.lstrip().startswith((b"[", b"{")):
                        hint = "one object a line is needed, no array over many lines: jq -c '.[]' makes it so"
                    what = getattr(error, "msg", str(error))
                    raise DataError(f"this is no JSON: {what}", where=f"{self.shown}:{line}", hint=hint) from error
                if not isinstance(row, dict):
                    what = "an array" if isinstance(row, list) else "a single value"
                    hint = "one object a line is needed: jq -c '.[]' makes it so of an array"
                    raise DataError(f"this is {what}, no object", where=f"{self.shown}:{line}", hint=hint)
                yield row

    def _scan(self) -> Exception:
        """Find each column's type over the whole file; return the restart, or the fault."""
        kinds: dict[str, str] = {}
        wanted = {*self.config.columns, *self.config.types} if self.config.columns else None
        for line, row in enumerate(self._rows(), 1):
            for name, value in row.items():
                if wanted is not None and name not in wanted:
                    continue
                kind, before = _kind(value), kinds.get(name, "null")
                kinds[name] = _joint(before, kind)
                fault = self._fault(name, line, value, kind, before, kinds[name])
                if fault is not None:
                    return fault
        self._scanned = True
        self._widened = {name: "string" if kind == "null" else kind for name, kind in kinds.items()}
        return self.widen(*next(iter(self._widened.items()), ("", "string")))

    def _fault(self, name: str, line: int, value: Any, kind: str, before: str, joint: str) -> DataError | None:
        place = f"{self.shown}:{line}"
        if kind == "nested":
            hint = "choose the others by columns:, or flatten the objects before"
            return DataError(f"column {name} holds {self.quoted(name, value)}, no plain value", where=place, hint=hint)
        said = self.fixed.get(name)
        if said is not None:
            if kind in _FITTING[said]:
                return None
            hint = f"mend the line; or say another type: types: {{{name}: {kind}}}"
            return DataError(f"column {name}: {self.quoted(name, value)} is no {said}", where=place, hint=hint)
        if joint:
            return None
        if before in ("integer", "number") and isinstance(value, str):
            return self.not_a_number(name, line, value)
        hint = "mend the line; a column holds values of one type"
        return DataError(
            f"column {name} holds values of type {before}, but here it is {self.quoted(name, value)}",
            where=place,
            hint=hint,
        )


def _kind(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, int):
        return "integer" if -(2**63) <= value < 2**63 else "number"
    if isinstance(value, float):
        return "number"
    if isinstance(value, str):
        return "timestamp" if _TIME.match(value) else "string"
    return "nested"


def _joint(one: str, other: str) -> str:
    """Return the type that holds values of both types; empty where there is none."""
    kinds = {one, other} - {"null"}
    if len(kinds) < 2:
        return kinds.pop() if kinds else "null"
    if kinds == {"integer", "number"}:
        return "number"
    return "string" if kinds == {"timestamp", "string"} else ""
