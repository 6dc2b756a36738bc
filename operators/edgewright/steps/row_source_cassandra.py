"""Rows of a Cassandra table by ranges of tokens, several at a time: each node is asked for a part of what it has."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
from collections.abc import Callable, Iterator
from typing import Any

import pyarrow as pa

from edgewright.errors import ConfigError, DataError, Unavailable
from edgewright.spec.steps.ingest import IngestConfig
from edgewright.spec.steps.row_sources import CassandraRows
from edgewright.steps.connections import Credentials
from edgewright.steps.row_sources import Part, RowSource
from edgewright.steps.row_values import batch_of
from edgewright.streams.addresses import CassandraAddress, cassandra_address
from edgewright.streams.cassandra import Connection, quoted

#: Types of columns by CQL's; others cannot be in a dataset.
_KINDS = {
    **dict.fromkeys(("tinyint", "smallint", "int", "bigint", "varint", "counter"), "integer"),
    **dict.fromkeys(("float", "double", "decimal"), "number"),
    **dict.fromkeys(("text", "varchar", "ascii", "uuid", "timeuuid", "inet", "time"), "string"),
    "boolean": "boolean", "timestamp": "timestamp", "date": "date",
}  # fmt: skip
#: The driver has classes of its own for these.
_CONVERT: dict[str, Callable[[Any], Any]] = {"date": lambda value: value.date(), "time": str, "inet": str}
_LEAST, _MOST = -(2**63), 2**63 - 1
_TIMEOUT = 60.0


class CassandraSource(RowSource):
    """Rows of a table.

    Args:
        config: The step's configuration.

    Raises:
        ConfigError: the address names no table, or the connection is not there.
        Unavailable: no node answers.
    """

    def __init__(self, config: IngestConfig) -> None:
        self.how = config.cassandra or CassandraRows()
        self.address = table_address(config.address, config.connection)
        self.shown = self.address.shown
        self.parallel = self.how.parallel
        self._connection = Connection(self.address)
        self._session = self._connection.__enter__()
        try:
            self._table = self._described()
            self._columns = self._chosen(config)
            self._statement = self._prepared()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Close the session."""
        self._connection.__exit__()

    def _described(self) -> Any:
        keyspace = self._session.cluster.metadata.keyspaces.get(self.address.keyspace)
        table = keyspace.tables.get(self.address.table) if keyspace else None
        if table is None:
            what = "table" if keyspace else "keyspace"
            there = sorted(keyspace.tables) if keyspace else sorted(self._session.cluster.metadata.keyspaces)
            raise DataError(f"there is no such {what}", where=self.shown, hint=f"there are: {', '.join(there)}")
        return table

    def _chosen(self, config: IngestConfig) -> dict[str, str]:
        """Return the columns that are read, with their CQL types."""
        found = {name: column.cql_type for name, column in self._table.columns.items()}
        unknown = [name for name in config.columns or () if name not in found]
        if unknown:
            hint = f"columns are: {', '.join(found)}"
            raise DataError(f"there is no column {unknown[0]!r}", where=self.shown, hint=hint)
        chosen = {name: found[name] for name in config.columns or found}
        odd = [f"{name} ({kind})" for name, kind in chosen.items() if kind not in _KINDS]
        if odd:
            hint = "choose the others by columns:"
            raise DataError(f"columns that cannot be in a dataset: {', '.join(odd)}", where=self.shown, hint=hint)
        return chosen

    def _prepared(self) -> Any:
        key = ", ".join(quoted(column.name) for column in self._table.partition_key)
        columns = ", ".join(map(quoted, self._columns))
        place = f"{quoted(self.address.keyspace)}.{quoted(self.address.table)}"
        # names come from the database and are quoted; values are bound
        text = f"SELECT {columns} FROM {place} WHERE token({key}) > ? AND token({key}) <= ?"  # noqa: S608
        with self._explained():
            return self._session.prepare(text)

    # -- rows --------------------------------------------------------------------------------------------------

    def parts(self) -> list[Part]:
        """Return even ranges of the ring of tokens.

        Raises:
            DataError: the cluster has tokens of another kind.
        """
        partitioner = str(self._session.cluster.metadata.partitioner)
        if not partitioner.endswith("Murmur3Partitioner"):
            raise DataError(f"only Murmur3Partitioner is read, not {partitioner}", where=self.shown)
        edges = [_LEAST + (_MOST - _LEAST) * number // self.how.parts for number in range(self.how.parts + 1)]
        return [
            Part(f"{number:05}", {"after": after, "to": to})
            for number, (after, to) in enumerate(itertools.pairwise(edges))
        ]

    def read(self, part: Part) -> Iterator[pa.RecordBatch]:
        """Yield the rows of a range of tokens, page by page."""
        from cassandra.cluster import EXEC_PROFILE_DEFAULT
        from cassandra.query import tuple_factory

        names = list(self._columns)
        kinds = {name: _KINDS[kind] for name, kind in self._columns.items()}
        yield batch_of(names, [], self.shown, kinds)
        statement = self._statement.bind((part.at["after"], part.at["to"]))
        statement.fetch_size = self.how.fetch
        with self._explained():
            profile = self._session.execution_profile_clone_update(EXEC_PROFILE_DEFAULT, row_factory=tuple_factory)
            profile.request_timeout = _TIMEOUT
            answer = self._session.execute(statement, execution_profile=profile)
            while True:
                rows = list(answer.current_rows)
                if rows:
                    yield batch_of(names, self._plain(rows), self.shown, kinds)
                if not answer.has_more_pages:
                    return
                answer.fetch_next_page()

    def _plain(self, rows: list[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
        """Return rows in which the driver's own classes became Python's."""
        places = {place: _CONVERT[kind] for place, kind in enumerate(self._columns.values()) if kind in _CONVERT}
        if not places:
            return rows
        return [tuple(places[p](v) if p in places and v is not None else v for p, v in enumerate(row)) for row in rows]

    def primary_key(self) -> tuple[dict[str, str], dict[str, str]]:
        """Return the columns of the partition's key and those that sort its rows, with their CQL types."""
        described = self._table
        return ({column.name: column.cql_type for column in described.partition_key},
                {column.name: column.cql_type for column in described.clustering_key})  # fmt: skip

    def _explained(self) -> contextlib.AbstractContextManager[None]:
        return explained(self.shown)


@contextlib.contextmanager
def explained(where: str) -> Iterator[None]:
    """Turn Cassandra's errors into ours.

    Raises:
        DataError: it refuses the statement or the user.
        Unavailable: it does not answer.
    """
    from cassandra import DriverException, InvalidRequest, RequestExecutionException, Unauthorized
    from cassandra.cluster import NoHostAvailable
    from cassandra.connection import ConnectionException

    try:
        yield
    except Unauthorized as error:
        raise DataError(f"Cassandra refuses this user: {error}", where=where) from error
    except InvalidRequest as error:
        raise DataError(f"Cassandra refuses: {error}", where=where) from error
    except (NoHostAvailable, ConnectionException, RequestExecutionException, DriverException) as error:
        text = f"{type(error).__name__}: {error}"[:200]
        raise Unavailable(f"Cassandra does not answer: {text}", where=where) from error


def table_address(address: str, connection: str | None) -> CassandraAddress:
    """Return a table's address; what it leaves out comes from an Airflow connection.

    Raises:
        ConfigError: it names no table, or the connection is not there.
    """
    login = password = ""
    if connection is not None:
        found = Credentials.of(connection, "cassandra://USER:PASSWORD@HOST:9042")
        login, password = found.login, found.password
        if address.startswith("cassandra:///"):
            place = f"{found.host or '127.0.0.1'}:{found.port or 9042}"
            address = f"cassandra://{place}/{address.removeprefix('cassandra:///')}"
    parsed = cassandra_address(address)
    if not parsed.table:
        raise ConfigError("names no table", where=parsed.shown, hint="cassandra://HOST[:PORT]/KEYSPACE.TABLE")
    return dataclasses.replace(parsed, login=login, password=password) if login else parsed
