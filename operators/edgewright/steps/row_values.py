"""Rows of Python values, as databases and web services give them, as Arrow batches of a dataset's types."""

from __future__ import annotations

import datetime
import decimal
import ipaddress
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import pyarrow as pa

from edgewright.errors import DataError
from edgewright.steps.data import arrow_type

#: A column in which every value is missing so far.
NULL = "null"
_KINDS: dict[type, str] = {
    bool: "boolean", int: "integer", float: "number", decimal.Decimal: "number", str: "string",
    datetime.datetime: "timestamp", datetime.date: "date", datetime.time: "string", uuid.UUID: "string",
    ipaddress.IPv4Address: "string", ipaddress.IPv6Address: "string",
}  # fmt: skip
_WIDER = {frozenset({"integer", "number"}): "number", frozenset({"date", "timestamp"}): "timestamp"}


def kind_of_values(values: Iterable[Any], name: str, where: str) -> str:
    """Return the type of a column's values: one of a dataset's types, or :data:`NULL`.

    Raises:
        DataError: a value has no place in a dataset, or two of them have no type in common.
    """
    found = NULL
    for kind in {type(value) for value in values} - {type(None)}:
        found = joint(found, kind_of_type(kind, name, where), name, where)
    return found


def kind_of_type(kind: type, name: str, where: str) -> str:
    """Return the type of a column whose values are of a type of Python's.

    Raises:
        DataError: such values have no place in a dataset.
    """
    for base in kind.__mro__:
        if base in _KINDS:
            return _KINDS[base]
    raise DataError(
        f"column {name} holds values of type {kind.__name__}, which cannot be in a dataset",
        where=where,
        hint="choose the others by columns:, or make a text or a number of it in a query",
    )


def joint(one: str, other: str, name: str, where: str) -> str:
    """Return the type that holds values of both types.

    Raises:
        DataError: there is none.
    """
    if one == other or other == NULL:
        return one
    if one == NULL:
        return other
    wider = _WIDER.get(frozenset({one, other}))
    if wider is None:
        raise DataError(
            f"column {name} holds values of type {one} and of type {other}",
            where=where,
            hint="cast it to one type in a query, or choose the others by columns:",
        )
    return wider


def array_type(kind: str) -> pa.DataType:
    """Return the Arrow type of a column, :data:`NULL` included."""
    return pa.null() if kind == NULL else arrow_type(kind)


def batch_of(
    names: Sequence[str], rows: Sequence[Sequence[Any]], where: str, kinds: Mapping[str, str] | None = None
) -> pa.RecordBatch:
    """Return rows as a batch whose types follow from their values.

    Args:
        names: The columns.
        rows: Rows with one value a column.
        where: The source, for messages.
        kinds: Types that are known, by column.

    Raises:
        DataError: a value has no place in a dataset.
    """
    known = kinds or {}
    columns = list(zip(*rows, strict=True)) if rows else [()] * len(names)
    return pa.RecordBatch.from_arrays(
        [_array(values, name, known.get(name, NULL), where) for name, values in zip(names, columns, strict=True)],
        names=list(names),
    )


def _array(values: Sequence[Any], name: str, known: str, where: str) -> pa.Array:
    kind = joint(known, kind_of_values(values, name, where), name, where)
    convert = _CONVERT.get(kind)
    try:
        if convert is not None:
            values = [None if value is None else convert(value) for value in values]
        return pa.array(values, array_type(kind))
    except (pa.ArrowException, OverflowError, ValueError) as error:
        raise DataError(
            f"column {name} holds a value that is no {kind}: {error}",
            where=where,
            hint=f"cast it in a query, or say types: {{{name}: ...}}",
        ) from error


def _time(value: datetime.date) -> datetime.datetime:
    """Return a time without a zone; one with a zone becomes UTC's."""
    if not isinstance(value, datetime.datetime):
        return datetime.datetime(value.year, value.month, value.day)
    return value.astimezone(datetime.UTC).replace(tzinfo=None) if value.tzinfo else value


_CONVERT: dict[str, Callable[[Any], Any]] = {"number": float, "string": str, "timestamp": _time}


def encode_value(value: Any) -> dict[str, Any]:
    """Return a number, a text or a time as JSON keeps it.

    Raises:
        DataError: it is none of these.
    """
    if isinstance(value, datetime.datetime):
        return {"timestamp": value.isoformat()}
    if isinstance(value, datetime.date):
        return {"date": value.isoformat()}
    if isinstance(value, decimal.Decimal):
        return {"decimal": str(value)}
    if isinstance(value, (int, float, str)) and not isinstance(value, bool):
        return {"plain": value}
    raise DataError(f"a {type(value).__name__} has no order that can be kept", hint="use a number, a time or a text")


def decode_value(kept: dict[str, Any]) -> Any:
    """Return what :func:`encode_value` kept."""
    kind, value = next(iter(kept.items()))
    read: dict[str, Callable[[Any], Any]] = {
        "timestamp": datetime.datetime.fromisoformat, "date": datetime.date.fromisoformat, "decimal": decimal.Decimal,
    }  # fmt: skip
    return read.get(kind, lambda plain: plain)(value)
