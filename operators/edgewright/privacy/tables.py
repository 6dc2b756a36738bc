"""A person's rows in a table of Cassandra: looked for partition by partition, so no query walks a whole cluster.

In each partition the columns of text are compared by the database itself. Rows are deleted by their whole key. What is
deleted leaves the disks when the tombstones do: at a compaction after ``gc_grace_seconds``.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Any

from edgewright.errors import NotFound, Unavailable
from edgewright.privacy.findings import Erasure, Finding
from edgewright.privacy.journal import Journal
from edgewright.streams.addresses import CassandraAddress
from edgewright.streams.cassandra import quoted
from edgewright.streams.sink import FEATURE_LOG_COLUMNS

_TEXT = ("text", "ascii")
_PARTITIONS = 500
_CONCURRENT = 16


class TableErasure:
    """Erases one person from one table.

    Args:
        session: A session of the driver.
        address: Keyspace and table.
        report: What is found goes here.
        journal: Counts of earlier attempts; ``None`` where nothing is to be deleted.

    Raises:
        NotFound: there is no such table.
    """

    def __init__(self, session: Any, address: CassandraAddress, report: Erasure, journal: Journal | None) -> None:
        self._session, self._address, self._report, self._journal = session, address, report, journal
        self._place = f"{quoted(address.keyspace)}.{quoted(address.table)}"
        where = (address.keyspace, address.table)
        columns = list(session.execute(
            "SELECT column_name, type, kind, position FROM system_schema.columns "
            "WHERE keyspace_name = %s AND table_name = %s", where
        ))  # fmt: skip
        if not columns:
            raise NotFound("there is no such table", where=address.shown, hint="cassandra://HOST:PORT/KEYSPACE.TABLE")
        by_place = sorted(columns, key=lambda column: column.position)
        self._partition = [column.column_name for column in by_place if column.kind == "partition_key"]
        self._rest = [column.column_name for column in by_place if column.kind == "clustering"]
        own = {*FEATURE_LOG_COLUMNS, *self._partition}
        self._texts = [c.column_name for c in columns if c.type in _TEXT and c.column_name not in own]
        options = "SELECT gc_grace_seconds, default_time_to_live FROM system_schema.tables"
        self._options = session.execute(f"{options} WHERE keyspace_name = %s AND table_name = %s", where).one()

    def run(self, say: Callable[[str], None] = lambda line: None) -> int:
        """Find and delete; return how many rows were found."""
        found = searched = 0
        if self._texts:
            selects = self._prepared_selects()
            delete = self._session.prepare(f"DELETE FROM {self._place} WHERE {self._equals(self._key)}")  # noqa: S608
            for partitions in self._partitions():
                searched += len(partitions)
                found += self._erase_from(partitions, selects, delete)
                say(f"{self._address.shown}: {searched:,} partitions, {found:,} rows")
        self._report.searched[f"partitions of {self._address.shown}"] = searched
        total = found if self._journal is None else self._journal.total
        if total:
            self._report.erased.append(Finding("cassandra", self._address.shown, total, self._how(), self._details()))
        return found

    @property
    def _key(self) -> list[str]:
        return [*self._partition, *self._rest]

    def _how(self) -> str:
        if self._journal is None:
            return "would be deleted"
        days = self._options.gc_grace_seconds / 86400
        return f"deleted; the bytes leave the disks at a compaction after {days:g} days (gc_grace_seconds)"

    def _details(self) -> dict[str, Any]:
        return {"columns": sorted(self._texts), "default_time_to_live": self._options.default_time_to_live}

    def _equals(self, names: list[str]) -> str:
        return " AND ".join(f"{quoted(name)} = ?" for name in names)

    def _prepared_selects(self) -> list[Any]:
        key = ", ".join(quoted(name) for name in self._key)
        one = self._equals(self._partition)
        # names are quoted, values bound; a filter within one partition reads no other
        return [
            self._session.prepare(
                f"SELECT {key} FROM {self._place} WHERE {one} AND {quoted(name)} = ? ALLOW FILTERING"  # noqa: S608
            )
            for name in self._texts
        ]

    def _partitions(self) -> Iterator[list[tuple[Any, ...]]]:
        names = ", ".join(quoted(name) for name in self._partition)
        rows = iter(self._session.execute(f"SELECT DISTINCT {names} FROM {self._place}"))  # noqa: S608
        while some := list(itertools.islice(rows, _PARTITIONS)):
            yield [tuple(row) for row in some]

    def _erase_from(self, partitions: list[tuple[Any, ...]], selects: list[Any], delete: Any) -> int:
        keys: dict[tuple[Any, ...], set[tuple[Any, ...]]] = {}
        for select in selects:
            for partition, rows in zip(partitions, self._all(select, [(*p, self._report.subject) for p in partitions]),
                                       strict=True):  # fmt: skip
                keys.setdefault(partition, set()).update(map(tuple, rows))
        for partition, rows in keys.items():
            if rows and self._journal is not None:
                self._journal.note("/".join(map(str, partition)), len(rows))
                list(self._all(delete, sorted(rows)))
        return sum(map(len, keys.values()))

    def _all(self, statement: Any, values: list[tuple[Any, ...]]) -> Iterator[Any]:
        from cassandra import DriverException
        from cassandra.concurrent import execute_concurrent_with_args

        try:
            for _, rows in execute_concurrent_with_args(self._session, statement, values, concurrency=_CONCURRENT):
                yield rows
        except (DriverException, OSError) as error:
            hint = "run it again: it goes on where it was"
            raise Unavailable(f"Cassandra does not answer: {error}", where=self._address.shown, hint=hint) from error
