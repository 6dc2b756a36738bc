"""Tables as what is scored: shards are ranges of a key, or of tokens; a row is told by its key, not by its number.

A table has no version, so its rows are scored anew by every run; a run that goes on after a crash keeps the ranges that
it began with, and skips those that are done.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from edgewright.artifacts import digest_json
from edgewright.errors import ConfigError, DataError
from edgewright.spec.steps.ingest import IngestConfig
from edgewright.spec.steps.row_sources import is_sql
from edgewright.spec.steps.score import ScoreConfig
from edgewright.steps.data import type_name
from edgewright.steps.row_source_cassandra import CassandraSource
from edgewright.steps.row_source_sql import SqlSource, database_url
from edgewright.steps.row_sources import Part
from edgewright.steps.score_rows import Block, Wanted

if TYPE_CHECKING:
    from edgewright.steps.context import StepContext

TableSource = SqlSource | CassandraSource

#: Types of a single-column key by whose ranges a table is cut without being told.
_CUTS = ("BIGINT", "INTEGER", "SMALLINT", "TIMESTAMP", "DATETIME", "DATE")
#: In so many shards the types of columns are looked for.
_LOOK = 3


@dataclass(frozen=True)
class TableRows:
    """Rows of a table, cut into parts.

    Attributes:
        source: As ``ingest`` is configured: address, connection, columns, how it is read.
        parts: What :meth:`~edgewright.steps.row_sources.RowSource.read` needs for each; plain JSON.
    """

    source: dict[str, Any]
    parts: tuple[dict[str, Any], ...] = ()


@dataclass(frozen=True)
class Planned:
    """What a table's plan is made of.

    Attributes:
        shown: The table for people.
        rows: The table, cut.
        key: Columns that tell rows apart.
        keep: Types of the columns that go into the output: those of the key first.
        sorts: Of a table of Cassandra: how many columns of its key make the partition, and CQL types by column.
        highest: The watermark up to which rows are scored; ``None`` without one, or where no row is new.
    """

    shown: str
    rows: TableRows
    key: tuple[str, ...]
    keep: dict[str, str | None]
    sorts: tuple[int, dict[str, str]] | None = None
    highest: Any = None


_opened: dict[str, TableSource] = {}


def opened(rows: TableRows) -> TableSource:
    """Return the open source; the same one each time until :func:`close_all`: connecting costs more than a shard."""
    place = digest_json(rows.source)
    if place not in _opened:
        config = IngestConfig.model_validate(rows.source)
        _opened[place] = SqlSource(config, None) if config.kind == "sql" else CassandraSource(config)
    return _opened[place]


def close_all() -> None:
    """Close all sources of this process."""
    while _opened:
        _opened.popitem()[1].close()


def plan_table(config: ScoreConfig, context: StepContext, features: list[str], after: Any = None) -> Planned:
    """Look at a table and cut it; its source stays open until :func:`close_all`.

    Args:
        config: The step's.
        context: The step's.
        features: Columns of the model.
        after: Only rows whose watermark is above this; ``None``: all.

    Raises:
        ConfigError: it has no key.
        DataError: it is not there, or lacks columns.
        Unavailable: the database does not answer.
    """
    given = _source(config, context)
    if not is_sql(config.sources[0]):  # a table may have columns of types that are not read
        given["columns"] = list(dict.fromkeys([*features, *config.kept]))
    rows = TableRows(given)
    source = opened(rows)
    key, sorts, split = _key(config, source)
    both = [name for name in key if name in features]
    if both:
        raise ConfigError(f"{both[0]} is a feature of the model, which takes it as a number with 7 digits",
                          where="key", hint="name other columns in key:")  # fmt: skip
    columns = list(dict.fromkeys([*features, *key, *config.keep]))
    rows = TableRows({**rows.source, **split, "columns": columns})
    source = opened(rows)
    parts, highest = _parts(source, rows, after)
    rows = TableRows(rows.source, tuple({"name": part.name, "at": part.at} for part in parts))
    kept = list(dict.fromkeys([*key, *config.keep]))
    keep = _types(source, parts, kept, dict(config.types))
    return Planned(source.shown, rows, tuple(key), keep, sorts, highest)


def _parts(source: TableSource, rows: TableRows, after: Any) -> tuple[list[Part], Any]:
    """Return the parts, and the watermark that they reach; ``None`` without one, or where no row is new."""
    if not isinstance(source, SqlSource) or source.sql.watermark is None:
        return source.parts(), None
    above = SqlSource(IngestConfig.model_validate(rows.source), None, after)
    try:
        return above.parts(), above.highest
    finally:
        above.close()


def _source(config: ScoreConfig, context: StepContext) -> dict[str, Any]:
    address = config.sources[0]
    if is_sql(address) and address.startswith("sqlite"):
        # a process that scores knows no pipeline's folder
        address = database_url(address, None, context).render_as_string()
    given = {"source": address, "connection": config.connection}
    for name in ("sql", "cassandra"):
        how = getattr(config, name)
        given[name] = None if how is None else how.model_dump(mode="json", exclude_unset=True)
    return {name: value for name, value in given.items() if value is not None}


def _key(
    config: ScoreConfig, source: TableSource
) -> tuple[list[str], tuple[int, dict[str, str]] | None, dict[str, Any]]:
    """Return the key, what Cassandra's says of it, and what a single column's key adds to ``sql:``."""
    if isinstance(source, CassandraSource):
        partition, sorting = source.primary_key()
        whole = {**partition, **sorting}
        key = config.key or list(whole)
        lacking = [name for name in whole if name not in key]
        if lacking:
            raise ConfigError(f"{', '.join(lacking)} belongs to the table's primary key", where="key",
                              hint="leave key: out")  # fmt: skip
        return list(dict.fromkeys([*whole, *key])), (len(partition), whole), {}
    found = source.primary_key() if config.key is None or source.sql.split_by is None else {}
    key = config.key or list(found)
    if not key:
        what = "a query has no primary key" if source.sql.query else f"{source.sql.table} has no primary key"
        raise ConfigError(what, where="key", hint="name the columns that tell a row from all others: key: [id]")
    split: dict[str, Any] = {}
    if source.sql.split_by is None and len(found) == 1 and next(iter(found.values())).startswith(_CUTS):
        split = {"sql": {**source.sql.model_dump(mode="json", exclude_unset=True), "split_by": next(iter(found))}}
    return key, None, split


def _types(source: TableSource, parts: list[Part], kept: list[str], said: dict[str, Any]) -> dict[str, str | None]:
    """Return the types of columns: as the table has them, else as the first rows of the first parts show them."""
    known = source.column_kinds() if isinstance(source, SqlSource) else {}
    found: dict[str, str | None] = {name: said.get(name) or known.get(name) for name in kept}
    if all(found.values()):
        return found
    for part in parts[:_LOOK]:
        for batch in source.read(part):
            for name in kept:
                kind = batch.schema.field(name).type
                if found[name] is None and not pa.types.is_null(kind):
                    found[name] = type_name(kind)
            if batch.num_rows or all(found.values()):
                break
        if all(found.values()):
            break
    return {name: kind or "string" for name, kind in found.items()}


def blocks_of(rows: TableRows, part: int, wanted: Wanted, name: str) -> Iterator[tuple[pa.Table, Any]]:
    """Yield the rows of a part, kept columns as the types that they have everywhere.

    Raises:
        DataError: a value is of another type than those before it.
    """
    source, row = opened(rows), 1
    features = {feature.name for feature in wanted.features}
    for batch in source.read(Part(**rows.parts[part])):
        if not batch.num_rows:
            continue
        table = pa.Table.from_batches([batch])
        for column in wanted.keep:
            kind = wanted.types[column]
            place = table.column_names.index(column)
            if column not in features and table.column(place).type != kind:
                try:
                    table = table.set_column(place, column, table.column(place).cast(kind))
                except pa.ArrowException as error:
                    raise DataError(f"column {column} holds other values than in the first rows: {error}", where=name,
                                    hint=f"say types: {{{column}: number}} or string") from error  # fmt: skip
        yield table, np.arange(row, row + batch.num_rows, dtype=np.int64)
        row += batch.num_rows


def without_key(block: Block, key: tuple[str, ...]) -> dict[int, list[str]]:
    """Return why rows of a block cannot be told from others, by their place in it."""
    reasons: dict[int, list[str]] = {}
    for name in key:
        column = block.table.column(name)
        if column.null_count:
            for place in np.flatnonzero(column.is_null().to_numpy()).tolist():
                reasons.setdefault(place, []).append(f"{name} of the key is missing")
    return reasons
