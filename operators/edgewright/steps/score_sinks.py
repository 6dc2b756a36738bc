"""Tables as where predictions go. Writing a row again writes the same row: it is found by its key."""

from __future__ import annotations

import datetime
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import pyarrow as pa

from edgewright.errors import DataError
from edgewright.spec.steps.row_sources import is_sql
from edgewright.steps.data import type_name
from edgewright.steps.row_source_cassandra import explained as cassandra_explained
from edgewright.steps.row_source_cassandra import table_address
from edgewright.steps.row_source_sql import database_url, explained, open_engine
from edgewright.streams.addresses import CassandraAddress
from edgewright.streams.cassandra import Connection, quoted

_CQL = {
    "integer": "bigint", "number": "double", "string": "text", "boolean": "boolean", "timestamp": "timestamp",
    "date": "date",
}  # fmt: skip
#: Rows on their way to Cassandra at a time.
_IN_FLIGHT = 64


@dataclass(frozen=True)
class Target:
    """A table that predictions go into.

    Attributes:
        address: Its database or, of Cassandra, the table itself.
        key: Columns that tell a row from all others.
        connection: Airflow connection with its credentials.
        table: Name in an SQL database.
        update: Whether rows are there already, and only get predictions.
        partition: Of Cassandra: how many columns of the key make the partition; 0: all of them.
        types: Of Cassandra: CQL types of the key's columns, where the table that is read tells them.
    """

    address: str
    key: tuple[str, ...]
    connection: str | None = None
    table: str = ""
    update: bool = False
    partition: int = 0
    types: tuple[tuple[str, str], ...] = ()

    @property
    def sql(self) -> bool:
        """Whether it is in an SQL database."""
        return is_sql(self.address)


class Sink(Protocol):
    """An open table."""

    shown: str

    def prepare(self, schema: pa.Schema) -> None:
        """Make the table where it lacks, and refuse one that does not fit.

        Raises:
            DataError: it lacks columns, or has another key.
        """
        ...

    def write(self, table: pa.Table) -> None:
        """Put rows in, or replace them."""
        ...

    def close(self) -> None:
        """Let go of connections."""
        ...


_opened: dict[Target, Sink] = {}


def opened(target: Target) -> Sink:
    """Return the open table; the same one each time until :func:`close_all`."""
    if target not in _opened:
        _opened[target] = SqlSink(target) if target.sql else CassandraSink(target)
    return _opened[target]


def close_all() -> None:
    """Close all tables of this process."""
    while _opened:
        _opened.popitem()[1].close()


# -- SQL -------------------------------------------------------------------------------------------------------------


class SqlSink:
    """A table of an SQL database, by SQLAlchemy.

    Raises:
        ConfigError: the driver is not installed, or the connection is not there.
    """

    def __init__(self, target: Target) -> None:
        url = database_url(target.address, target.connection, None)
        self.shown = f"{url.get_backend_name()}://{url.host or ''}/{url.database}#{target.table}"
        self._target = target
        self._engine = open_engine(url)
        self._found: Any = None

    def close(self) -> None:
        """Close all connections."""
        self._engine.dispose()

    def prepare(self, schema: pa.Schema) -> None:
        """Make the table where it lacks, and refuse one that does not fit."""
        from sqlalchemy import inspect

        place, _, name = self._target.table.rpartition(".")
        with explained(self.shown):
            there = inspect(self._engine).has_table(name, schema=place or None)
            if not there and not self._target.update:
                self._create(schema)
        lacking = [column for column in schema.names if column not in self._table().columns]
        if lacking:
            kinds = {field.name: _sql_type(type_name(_plain(field.type))) for field in schema}
            added = ", ".join(f"ADD COLUMN {column} {kinds[column].compile(self._engine.dialect)}"
                              for column in lacking)  # fmt: skip
            raise DataError(f"the table has no column {', '.join(lacking)}", where=self.shown,
                            hint=f"ALTER TABLE {self._target.table} {added}")  # fmt: skip

    def _create(self, schema: pa.Schema) -> None:
        from sqlalchemy import Column, MetaData, String, Table
        from sqlalchemy.exc import SQLAlchemyError

        place, _, name = self._target.table.rpartition(".")
        columns: list[Any] = []
        for one in schema:
            kind, is_key = _sql_type(type_name(_plain(one.type))), one.name in self._target.key
            if is_key and isinstance(kind, String) and self._engine.dialect.name not in ("postgresql", "sqlite"):
                kind = String(255)  # they index no text without a length
            columns.append(Column(one.name, kind, primary_key=is_key, autoincrement=False))
        try:
            Table(name, MetaData(), *columns, schema=place or None).create(self._engine)
        except SQLAlchemyError:
            from sqlalchemy import inspect

            if not inspect(self._engine).has_table(name, schema=place or None):
                raise  # else another task of this job was first

    def _table(self) -> Any:
        from sqlalchemy import MetaData, Table
        from sqlalchemy.exc import NoSuchTableError

        if self._found is None:
            place, _, name = self._target.table.rpartition(".")
            try:
                with explained(self.shown):
                    self._found = Table(name, MetaData(), schema=place or None, autoload_with=self._engine)
            except NoSuchTableError as error:
                raise DataError("there is no such table", where=self.shown) from error
        return self._found

    def write(self, table: pa.Table) -> None:
        """Put rows in, or replace them; of equal keys the last one stays."""
        found = self._table()
        names = [name for name in table.column_names if name in found.columns]
        convert = {name: _converter(found.columns[name].type) for name in names}
        rows = {}
        for row in table.select(names).to_pylist():
            row = {name: convert[name](value) for name, value in row.items()}
            rows[tuple(row[name] for name in self._target.key)] = row
        if not rows:
            return
        with explained(self.shown), self._engine.begin() as connection:
            for statement, marked in self._statements(found, names):
                given = [{f"ew_{name}" if marked else name: value for name, value in row.items()}
                         for row in rows.values()]  # fmt: skip
                connection.execute(statement, given)

    def _statements(self, table: Any, names: list[str]) -> list[tuple[Any, bool]]:
        """Return what is sent, and whether names of its parameters are marked: an update may not use columns' own."""
        from sqlalchemy import bindparam, delete, insert, update

        key = self._target.key
        here = [table.columns[name] == bindparam(f"ew_{name}") for name in key]
        others = [name for name in names if name not in key]
        if self._target.update:
            return [(update(table).where(*here).values({name: bindparam(f"ew_{name}") for name in others}), True)]
        dialect = self._engine.dialect.name
        if dialect in ("postgresql", "sqlite"):
            import importlib

            statement = importlib.import_module(f"sqlalchemy.dialects.{dialect}").insert(table)
            put = {name: statement.excluded[name] for name in others}
            return [(statement.on_conflict_do_update(index_elements=list(key), set_=put), False)]
        return [(delete(table).where(*here), True), (insert(table), False)]


def _sql_type(kind: str) -> Any:
    from sqlalchemy import BigInteger, Boolean, Date, DateTime, Float, Text

    kinds = {"integer": BigInteger(), "number": Float(53), "string": Text(), "boolean": Boolean(),
             "timestamp": DateTime(), "date": Date()}  # fmt: skip
    return kinds[kind]


def _converter(kind: Any) -> Callable[[Any], Any]:
    """Return what makes a value of ours one that a column takes."""
    try:
        wanted = kind.python_type
    except NotImplementedError:
        return lambda value: value
    if wanted is uuid.UUID:
        return lambda value: uuid.UUID(value) if isinstance(value, str) else value
    if wanted is datetime.datetime and getattr(kind, "timezone", False):
        return lambda value: value if value is None or value.tzinfo else value.replace(tzinfo=datetime.UTC)
    return lambda value: str(value) if wanted is str and value is not None else value


def _plain(kind: pa.DataType) -> pa.DataType:
    return kind.value_type if pa.types.is_dictionary(kind) else kind


# -- Cassandra -------------------------------------------------------------------------------------------------------


class CassandraSink:
    """A table of Cassandra.

    Raises:
        ConfigError: the address names no table, or the connection is not there.
        Unavailable: no node answers.
    """

    def __init__(self, target: Target) -> None:
        self.address: CassandraAddress = table_address(target.address, target.connection)
        self.shown = self.address.shown
        self._target = target
        self._connection = Connection(self.address)
        self._session = self._connection.__enter__()
        self._statements: dict[tuple[str, ...], Any] = {}

    def close(self) -> None:
        """Close the session."""
        self._connection.__exit__()

    def prepare(self, schema: pa.Schema) -> None:
        """Make the table where it lacks, and refuse one that does not fit."""
        kinds = {one.name: _CQL[type_name(_plain(one.type))] for one in schema} | dict(self._target.types)
        if self.address.keyspace not in self._session.cluster.metadata.keyspaces:
            raise DataError("there is no such keyspace", where=self.shown,
                            hint=f"CREATE KEYSPACE {self.address.keyspace} WITH replication = ...")  # fmt: skip
        if not self._columns():
            self._create({name: kinds[name] for name in schema.names})
        found = self._columns()
        key = [name for name, (_, role) in found.items() if role != "regular"]
        if set(key) != set(self._target.key):
            raise DataError(f"its primary key is {', '.join(key)}, not {', '.join(self._target.key)}",
                            where=self.shown, hint="name another table in to:, or these columns in key:")  # fmt: skip
        lacking = [name for name in schema.names if name not in found]
        if lacking:
            added = ", ".join(f"{quoted(name)} {kinds[name]}" for name in lacking)
            raise DataError(f"the table has no column {', '.join(lacking)}", where=self.shown,
                            hint=f"ALTER TABLE {self.address.keyspace}.{self.address.table} ADD ({added})")  # fmt: skip

    def _create(self, kinds: dict[str, str]) -> None:
        key = list(self._target.key)
        split = self._target.partition or len(key)
        inner = f"({', '.join(map(quoted, key[:split]))})"
        primary = ", ".join([inner, *map(quoted, key[split:])])
        columns = ", ".join(f"{quoted(name)} {kind}" for name, kind in kinds.items())
        with cassandra_explained(self.shown):
            self._session.execute(f"CREATE TABLE IF NOT EXISTS {self._place} ({columns}, PRIMARY KEY ({primary}))")

    @property
    def _place(self) -> str:
        return f"{quoted(self.address.keyspace)}.{quoted(self.address.table)}"

    def _columns(self) -> dict[str, tuple[str, str]]:
        """Return type and role of each column that the table has; nothing where there is none."""
        with cassandra_explained(self.shown):
            rows = self._session.execute(
                "SELECT column_name, type, kind FROM system_schema.columns "
                "WHERE keyspace_name = %s AND table_name = %s",
                (self.address.keyspace, self.address.table),
            )
            return {row.column_name: (row.type, row.kind) for row in rows}

    def write(self, table: pa.Table) -> None:
        """Put rows in, or replace them."""
        from cassandra.concurrent import execute_concurrent_with_args

        names = tuple(table.column_names)
        with cassandra_explained(self.shown):
            if names not in self._statements:
                marks = ", ".join("?" * len(names))
                # names come from the database or are quoted; values are bound
                text = f"INSERT INTO {self._place} ({', '.join(map(quoted, names))}) VALUES ({marks})"  # noqa: S608
                self._statements[names] = (self._session.prepare(text), self._columns())
            statement, kinds = self._statements[names]
            convert = [_cql_converter(kinds[name][0]) for name in names]
            columns = [list(map(one, table.column(name).to_pylist())) for one, name in zip(convert, names, strict=True)]
            try:
                rows = list(zip(*columns, strict=True))
                execute_concurrent_with_args(self._session, statement, rows, concurrency=_IN_FLIGHT)
            except (TypeError, ValueError, OverflowError) as error:
                raise DataError(f"a value does not fit its column: {error}", where=self.shown) from error


def _cql_converter(kind: str) -> Callable[[Any], Any]:
    """Return what makes a value of ours one that a column takes."""
    make: dict[str, Callable[[Any], Any]] = {
        "uuid": uuid.UUID, "timeuuid": uuid.UUID, "text": str, "varchar": str, "ascii": str, "double": float,
        "float": float, "decimal": _decimal,
    }  # fmt: skip
    found = make.get(kind)
    return (lambda value: value) if found is None else lambda value: None if value is None else found(value)


def _decimal(value: Any) -> Any:
    from decimal import Decimal

    return Decimal(str(value))
