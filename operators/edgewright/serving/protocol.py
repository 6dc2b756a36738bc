"""The body of a prediction request: the forms of MLflow's scoring protocol, and CSV, become rows of cells.

``dataframe_split``    ``{"columns": [...], "data": [[...], ...]}`` (``columns`` may be left out: the model's order)
``dataframe_records``  ``[{"age": 45, ...}, ...]``
``instances``          a list of rows, each a list in the model's order or an object
``inputs``             the same, or an object with a list for each column
``text/csv``           a header line with the columns, then the rows; an empty cell is a missing value
"""

from __future__ import annotations

import csv
import difflib
import io
import math
from collections.abc import Callable
from typing import Any

import msgspec

from edgewright.serving.faults import RequestFault
from edgewright.serving.features import FeatureTable, shown
from edgewright.serving.release import Feature

JSON_TYPES = ("application/json", "")
CSV_TYPES = ("text/csv", "application/csv")

Rows = list[list[Any]]


def read_rows(body: bytes, content_type: str, table: FeatureTable, max_rows: int) -> Rows:
    """Return the rows of a request in the model's order of columns.

    Raises:
        RequestFault: the body cannot be read, has the wrong columns or too many rows.
    """
    media = content_type.partition(";")[0].strip().lower()
    if media in CSV_TYPES:
        rows = _read_csv(body, table)
    elif media in JSON_TYPES or media.endswith("+json"):
        rows = _read_json(body, table)
    else:
        raise RequestFault(
            f"the content type {media} cannot be read", code="unsupported-media-type", status=415,
            hint="send application/json or text/csv",
        )  # fmt: skip
    if not rows:
        raise RequestFault("there are no rows", code="empty", hint="send at least one row")
    if len(rows) > max_rows:
        raise RequestFault(
            f"{len(rows):,} rows are more than the {max_rows:,} that one request may have", code="too-many-rows",
            status=413, hint="send several requests, or score the file with the step score",
        )  # fmt: skip
    return rows


def _read_json(body: bytes, table: FeatureTable) -> Rows:
    try:
        document = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        example = ", ".join(f'"{name}": ...' for name in table.names[:2])
        raise RequestFault(
            f"the body is not JSON: {error}", code="invalid-json", hint=f'{{"dataframe_records": [{{{example}, ...}}]}}'
        ) from error
    if not isinstance(document, dict):
        raise RequestFault(f"expected a JSON object, got {shown(document)}", code="invalid-form", hint=_allowed())
    unknown = [key for key in document if key not in _FORMS and key != "params"]
    if unknown:
        near = difflib.get_close_matches(unknown[0], _FORMS, n=1)
        suggestion = f'; did you mean "{near[0]}"?' if near else ""
        raise RequestFault(f"unknown key: {unknown[0]}{suggestion}", code="invalid-form", hint=_allowed())
    forms = [key for key in document if key in _FORMS]
    if len(forms) != 1:
        raise RequestFault(
            f"expected one of {', '.join(_FORMS)}, got {' and '.join(forms) or 'none of them'}", code="invalid-form"
        )
    if document.get("params"):
        raise RequestFault("the model takes no params", code="invalid-form")
    return _FORMS[forms[0]](document[forms[0]], table)


def _allowed() -> str:
    return f"one of: {', '.join(_FORMS)}"


def _arrange(rows: Any, columns: Any, table: FeatureTable, what: str) -> Rows:
    if not isinstance(rows, list):
        raise RequestFault(f"{what}: expected a list of rows, got {shown(rows)}", code="invalid-shape")
    if columns is None:
        return rows
    if not isinstance(columns, list):
        raise RequestFault(f"columns: expected a list of names, got {shown(columns)}", code="invalid-shape")
    order = table.order(columns)
    if order is None:
        return rows
    width = len(columns)
    for number, row in enumerate(rows):
        if not isinstance(row, list) or len(row) != width:
            got = len(row) if isinstance(row, list) else shown(row)
            raise RequestFault(f"row {number}: expected {width} values, got {got}", code="invalid-shape")
    return [[row[i] for i in order] for row in rows]


def _split(value: Any, table: FeatureTable) -> Rows:
    if not isinstance(value, dict) or "data" not in value:
        raise RequestFault(
            f'dataframe_split: expected {{"columns": [...], "data": [[...]]}}, got {shown(value)}', code="invalid-form"
        )
    unknown = sorted(set(value) - {"columns", "data", "index"})
    if unknown:
        raise RequestFault(
            f"dataframe_split: unknown key: {unknown[0]}", code="invalid-form", hint="it has: columns, index, data"
        )
    return _arrange(value["data"], value.get("columns"), table, "dataframe_split.data")


def _records(value: Any, table: FeatureTable) -> Rows:
    if not isinstance(value, list):
        raise RequestFault(f"dataframe_records: expected a list of objects, got {shown(value)}", code="invalid-shape")
    return table.rows_of(value)


def _instances(value: Any, table: FeatureTable) -> Rows:
    if isinstance(value, list) and value and isinstance(value[0], dict):
        return table.rows_of(value)
    return _arrange(value, None, table, "instances")


def _inputs(value: Any, table: FeatureTable) -> Rows:
    if not isinstance(value, dict):
        return _instances(value, table)
    order = table.order(list(value))
    columns = list(value.values())
    for name, column in value.items():
        if not isinstance(column, list):
            raise RequestFault(f"inputs.{name}: expected a list, got {shown(column)}", code="invalid-shape")
    lengths = {len(column) for column in columns}
    if len(lengths) > 1:
        sizes = ", ".join(f"{name}: {len(column)}" for name, column in value.items())
        raise RequestFault(f"inputs: the columns differ in length ({sizes})", code="invalid-shape")
    rows = [_unwrapped(cells) for cells in zip(*columns, strict=True)]
    return rows if order is None else [[row[i] for i in order] for row in rows]


def _unwrapped(cells: tuple[Any, ...]) -> list[Any]:
    """Return the cells of one row; tensors of the shape ``[rows, 1]`` have each of them in a list of its own."""
    return [cell[0] if isinstance(cell, list) and len(cell) == 1 else cell for cell in cells]


_FORMS: dict[str, Callable[[Any, FeatureTable], Rows]] = {
    "dataframe_split": _split,
    "dataframe_records": _records,
    "instances": _instances,
    "inputs": _inputs,
}


def _read_csv(body: bytes, table: FeatureTable) -> Rows:
    try:
        lines = list(csv.reader(io.StringIO(body.decode("utf-8-sig"), newline=""), strict=True))
    except (csv.Error, UnicodeDecodeError) as error:
        raise RequestFault(f"the body is not CSV in UTF-8: {error}", code="invalid-csv") from error
    lines = [line for line in lines if line]
    if not lines:
        raise RequestFault("there are no rows", code="empty", hint="send a header line with the columns, then rows")
    rows = _arrange(lines[1:], [name.strip() for name in lines[0]], table, "csv")
    table_width = len(table.features)
    if any(len(row) != table_width for row in rows):
        return rows  # the table names the row
    return [[_cell(feature, text) for feature, text in zip(table.features, row, strict=True)] for row in rows]


def _cell(feature: Feature, text: str) -> Any:
    """Return a CSV cell as JSON would have it; what cannot be read stays text and is reported with its place."""
    if text == "":
        return None
    if not feature.numeric:
        return text
    if feature.type == "boolean" and text.strip().lower() in ("true", "false"):
        return text.strip().lower() == "true"
    try:
        number = float(text)
    except ValueError:
        return text
    return number if math.isfinite(number) else text
