"""Rows into Cassandra: a table of ours, made from what is stored, and a writer that is fast and may be repeated.

A row belongs to a partition by its time (``bucket``: an hour, by default) and a small number that follows from its
request id (``shard``), so that no partition grows without end and no node takes everything. In it rows are sorted by
time; the request id and the row's number within the request make it unique. **Writing a row again writes the same
row**: everything in the key comes from the message, nothing from the clock, so what is delivered twice is stored once.

Rows of one partition go in one unlogged batch (one mutation: as atomic as a single row, and not subject to the limits
on batches that span partitions); a bounded number of batches is on its way at a time.
"""

from __future__ import annotations

import datetime
import re
import threading
import time
import zlib
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from edgewright.errors import ConfigError, DataError, Unavailable
from edgewright.streams.addresses import CassandraAddress

#: Types of columns: of CQL, by what JSON has; every number is a double, because 1 and 1.5 may follow each other.
NUMBER, TEXT, TRUTH, NUMBERS = "double", "text", "boolean", "frozen<list<double>>"
_KEY = {"bucket": TEXT, "shard": "smallint", "time": "timestamp", "request_id": TEXT, "row": "int"}
_BUCKETS = {"hour": "%Y-%m-%dT%H", "day": "%Y-%m-%d"}
#: Rows and bytes in one batch, and batches on their way at a time.
_BATCH = 100
_BATCH_BYTES = 512 << 10
_IN_FLIGHT = 24


@dataclass
class Row:
    """One row.

    Attributes:
        time: When it happened, with a time zone.
        request_id: What makes it unique.
        number: Its place within the request.
        values: Its other columns.
        source: Where it came from; handed back where it cannot be stored.
        size: About how many bytes it has.
    """

    time: datetime.datetime
    request_id: str
    number: int
    values: dict[str, Any]
    source: Any = None
    size: int = 0


@dataclass(frozen=True)
class Layout:
    """How a table is laid out.

    Attributes:
        bucket: Time of one partition: ``hour`` or ``day``.
        shards: Partitions of one bucket.
        keep: Seconds after which Cassandra forgets a row; 0: never.
        replication: Copies, where the keyspace is made.
    """

    bucket: str = "hour"
    shards: int = 4
    keep: int = 0
    replication: int = 1

    def place(self, row: Row) -> tuple[str, int]:
        """Return a row's partition."""
        bucket = row.time.astimezone(datetime.UTC).strftime(_BUCKETS[self.bucket])
        return bucket, zlib.crc32(row.request_id.encode()) % self.shards


@dataclass
class Rejected:
    """A row that Cassandra will never take, and why."""

    row: Row
    reason: str


def kind_of(value: Any) -> str | None:
    """Return the column type of a JSON value; none for null.

    Raises:
        DataError: there is no column for such a value.
    """
    if value is None:
        return None
    if isinstance(value, bool):
        return TRUTH
    if isinstance(value, int | float):
        return NUMBER
    if isinstance(value, str):
        return TEXT
    if isinstance(value, list) and all(isinstance(v, int | float) and not isinstance(v, bool) for v in value):
        return NUMBERS
    raise DataError(f"cannot be stored: {type(value).__name__}")


class Table:
    """One table: made where it is not there, and given columns as they come.

    Args:
        session: A session of the driver.
        address: Keyspace and table.
        layout: How it is laid out; the table itself has the last word on ``shards`` and ``bucket`` (in its comment).
        columns: Columns with their types that are known before the first row.
    """

    def __init__(self, session: Any, address: CassandraAddress, layout: Layout, columns: dict[str, str]) -> None:
        from cassandra import RequestValidationException

        self.session, self.address, self.layout = session, address, layout
        self.columns: dict[str, str] = {}
        self._insert: Any = None
        self._names: list[str] = []
        self._place = f"{quoted(address.keyspace)}.{quoted(address.table)}"
        try:
            self._create(columns)
        except RequestValidationException as error:
            raise ConfigError(
                f"Cassandra refuses to make the table: {error}",
                where=address.shown,
                hint="check the user's permissions",
            ) from error

    def _create(self, columns: dict[str, str]) -> None:
        keyspace, layout = self.address.keyspace, self.layout
        self.session.execute(
            f"CREATE KEYSPACE IF NOT EXISTS {quoted(keyspace)} WITH replication = "
            f"{{'class': 'NetworkTopologyStrategy', 'replication_factor': {layout.replication}}}"
        )
        names = {**_KEY, **columns}
        defined = ", ".join(f"{quoted(name)} {kind}" for name, kind in names.items())
        window = layout.bucket.upper() + "S"
        self.session.execute(
            f"CREATE TABLE IF NOT EXISTS {self._place} ({defined}, "
            "PRIMARY KEY ((bucket, shard), time, request_id, row)) "
            f"WITH comment = 'edgewright bucket={layout.bucket} shards={layout.shards}' "
            f"AND default_time_to_live = {layout.keep} AND compaction = {{'class': 'TimeWindowCompactionStrategy', "
            f"'compaction_window_unit': '{window}', 'compaction_window_size': 1}}"
        )
        self._read_back()
        for name, kind in columns.items():
            self.demand(name, kind)
        if layout.keep:
            self._keep(layout.keep)

    def _keep(self, seconds: int) -> None:
        """Let a table that was there before forget, too; rows that it holds already keep the time they came with."""
        found = self.session.execute(
            "SELECT default_time_to_live FROM system_schema.tables WHERE keyspace_name = %s AND table_name = %s",
            (self.address.keyspace, self.address.table),
        )
        if found.one().default_time_to_live != seconds:
            self.session.execute(f"ALTER TABLE {self._place} WITH default_time_to_live = {seconds}")

    def _read_back(self) -> None:
        """Take the columns and the layout that the table really has."""
        where = (self.address.keyspace, self.address.table)
        found = self.session.execute(
            "SELECT column_name, type FROM system_schema.columns WHERE keyspace_name = %s AND table_name = %s", where
        )
        types = {row.column_name: row.type for row in found}
        if any(types.get(name) != kind for name, kind in _KEY.items()):
            raise ConfigError(
                f"the table is there and is not one of ours: it has {', '.join(sorted(types))}",
                where=self.address.shown,
                hint="name another table",
            )
        self.columns = {name: kind for name, kind in types.items() if name not in _KEY}
        comment = (
            self.session.execute(
                "SELECT comment FROM system_schema.tables WHERE keyspace_name = %s AND table_name = %s", where
            )
            .one()
            .comment
        )
        match = re.search(r"bucket=(\w+) shards=(\d+)", comment or "")
        if match:  # rows that are written again must find themselves in the same partition
            self.layout = Layout(match[1], int(match[2]), self.layout.keep, self.layout.replication)
        self._insert = None

    def demand(self, name: str, kind: str) -> None:
        """Make sure that there is a column of this type.

        Raises:
            DataError: there is one of another type.
        """
        known = self.columns.get(name)
        if known is None:
            self._add(name, kind)
            known = self.columns[name]
        if known != kind:
            raise DataError(f"column {name} holds {known}, got {kind}")

    def _add(self, name: str, kind: str) -> None:
        statement = f"ALTER TABLE {self._place} ADD IF NOT EXISTS"
        self.session.execute(f"{statement} {quoted(name)} {kind}")
        self._read_back()

    def check(self, row: Row) -> None:
        """Make sure that a row fits, giving the table columns that it does not have yet.

        Raises:
            DataError: a value does not fit its column.
        """
        for name, value in row.values.items():
            kind = kind_of(value)
            if kind is not None and self.columns.get(name) != kind:
                self.demand(name, kind)

    def cells(self, row: Row) -> list[Any]:
        """Return a row's cells in the order of :meth:`insert`; what it does not have stays unset."""
        from cassandra.query import UNSET_VALUE

        bucket, shard = self.layout.place(row)
        found = map(row.values.get, self._names)
        return [bucket, shard, row.time, row.request_id, row.number, *(UNSET_VALUE if c is None else c for c in found)]

    def insert(self) -> Any:
        """Return the prepared statement for all columns that there are."""
        if self._insert is None:
            self._names = sorted(self.columns)
            names = [*_KEY, *self._names]
            columns, marks = ", ".join(quoted(name) for name in names), ", ".join("?" * len(names))
            # names come from checked addresses or are quoted; values are bound
            text = f"INSERT INTO {self._place} ({columns}) VALUES ({marks})"  # noqa: S608
            self._insert = self.session.prepare(text)
        return self._insert


@dataclass
class _Round:
    """Rows that are on their way, and what became of them."""

    waiting: int = 0
    failed: list[tuple[list[Row], Exception]] = field(default_factory=list)


class Writer:
    """Writes rows by batches of one partition, a bounded number at a time, and again until they are stored.

    Args:
        table: Where they go.
        stopped: Asked between attempts; a writer that is stopped raises instead of trying again.
        say: Told why it waits.
        left_out: Pseudonyms of persons who were erased: their rows are not stored again.

    Attributes:
        forgotten: How many rows the last call of :meth:`write` left out.
    """

    def __init__(
        self,
        table: Table,
        stopped: Callable[[], bool] = lambda: False,
        say: Callable[[str], None] = lambda line: None,
        left_out: Callable[[], frozenset[str]] = frozenset,
    ) -> None:
        self.table = table
        self._stopped, self._say, self._left_out = stopped, say, left_out
        self.forgotten = 0
        self._slots = threading.Semaphore(_IN_FLIGHT)
        self._done = threading.Condition()

    def write(self, rows: Sequence[Row], *, between: Callable[[], None] = lambda: None) -> list[Rejected]:
        """Store rows; return when every one of them is stored or known never to be.

        Args:
            rows: The rows.
            between: Called now and then while it waits for a database that is away.

        Raises:
            Unavailable: it was stopped before all was stored.
        """
        rejected: list[Rejected] = []
        pending, pause, size = self._wanted(rows), 0.1, _BATCH
        self.forgotten = len(rows) - len(pending)
        while pending:
            failed = self._send(pending, size, rejected)
            pending, size, away = [], _BATCH, None
            for group, error in failed:
                if _worth_retrying(error):
                    away = error
                elif len(group) == 1:
                    rejected.append(Rejected(group[0], f"Cassandra refused it: {error}"))
                    continue
                else:
                    size = 1  # one of them is to blame: find out which
                pending += group
            if away is not None:
                self._say(f"Cassandra does not take rows ({_short(away)}); trying again")
                pause = self._wait(pause, between)
        return rejected

    def _wanted(self, rows: Sequence[Row]) -> list[Row]:
        """Return the rows without those of persons who were erased."""
        left_out = self._left_out()
        if not left_out:
            return list(rows)
        return [row for row in rows if left_out.isdisjoint(v for v in row.values.values() if isinstance(v, str))]

    def _wait(self, pause: float, between: Callable[[], None]) -> float:
        if self._stopped():
            raise Unavailable("stopped before all rows were stored", where=self.table.address.shown)
        between()
        time.sleep(pause)
        return min(pause * 2, 5.0)

    def _send(self, rows: Sequence[Row], size: int, rejected: list[Rejected]) -> list[tuple[list[Row], Exception]]:
        """Send rows by partition and wait for all answers."""
        round_ = _Round()
        fitting: list[Row] = []
        for row in rows:
            try:
                self.table.check(row)
                fitting.append(row)
            except DataError as error:
                rejected.append(Rejected(row, str(error)))
        insert = self.table.insert()  # after all columns are there
        groups: dict[tuple[str, int], list[Row]] = defaultdict(list)
        for row in fitting:
            groups[self.table.layout.place(row)].append(row)
        for group in groups.values():
            for batch in _batches(group, size):
                self._send_batch(insert, batch, round_)
        with self._done:
            self._done.wait_for(lambda: round_.waiting == 0)
        return round_.failed

    def _send_batch(self, insert: Any, rows: list[Row], round_: _Round) -> None:
        from cassandra.query import BatchStatement, BatchType

        batch = BatchStatement(BatchType.UNLOGGED)
        try:
            for row in rows:
                batch.add(insert, self.table.cells(row))
        except (TypeError, ValueError, OverflowError) as error:
            round_.failed.append((rows, error))
            return

        def answered(failure: Exception | None) -> None:
            self._slots.release()
            with self._done:
                round_.waiting -= 1
                if failure is not None:
                    round_.failed.append((rows, failure))
                self._done.notify_all()

        self._slots.acquire()
        with self._done:
            round_.waiting += 1
        try:
            future = self.table.session.execute_async(batch)
        except Exception as error:  # no host is up: the driver raises at once
            answered(error)
            return
        future.add_callbacks(lambda _: answered(None), answered)


def _batches(rows: Sequence[Row], most: int) -> Iterator[list[Row]]:
    """Yield rows by batches of so many, or of so many bytes."""
    batch: list[Row] = []
    size = 0
    for row in rows:
        if batch and (len(batch) >= most or size + row.size > _BATCH_BYTES):
            yield batch
            batch, size = [], 0
        batch.append(row)
        size += row.size
    if batch:
        yield batch


def quoted(name: str) -> str:
    """Return a name as CQL takes any name."""
    return '"' + name.replace('"', '""') + '"'


def _short(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"[:200]


def _worth_retrying(error: Exception) -> bool:
    """Whether a failure is the database's state rather than the row's fault."""
    from cassandra import DriverException, InvalidRequest, Timeout, Unavailable, WriteFailure
    from cassandra.cluster import NoHostAvailable
    from cassandra.connection import ConnectionException

    if isinstance(error, InvalidRequest | TypeError | ValueError | OverflowError):
        return False
    return isinstance(
        error, NoHostAvailable | ConnectionException | Timeout | Unavailable | WriteFailure | DriverException
    )


class Connection:
    """A session with a cluster, as a context manager.

    Args:
        address: Its nodes and who we are.
    """

    def __init__(self, address: CassandraAddress) -> None:
        self._address = address

    def __enter__(self) -> Any:
        from cassandra import AuthenticationFailed, ConsistencyLevel
        from cassandra.auth import PlainTextAuthProvider
        from cassandra.cluster import EXEC_PROFILE_DEFAULT, Cluster, ExecutionProfile, NoHostAvailable
        from cassandra.policies import ConstantReconnectionPolicy, DCAwareRoundRobinPolicy, TokenAwarePolicy

        profile = ExecutionProfile(
            load_balancing_policy=TokenAwarePolicy(DCAwareRoundRobinPolicy()),
            consistency_level=ConsistencyLevel.LOCAL_QUORUM,
            request_timeout=15,
        )
        login = PlainTextAuthProvider(self._address.login, self._address.password) if self._address.login else None
        self._cluster = Cluster(
            list(self._address.hosts),
            port=self._address.port,
            auth_provider=login,
            execution_profiles={EXEC_PROFILE_DEFAULT: profile},
            reconnection_policy=ConstantReconnectionPolicy(1.0, None),
        )
        try:
            return self._cluster.connect()
        except NoHostAvailable as error:
            self._cluster.shutdown()
            if any(isinstance(reason, AuthenticationFailed) for reason in dict(error.errors).values()):
                raise ConfigError(
                    "Cassandra does not know this user and password", where=self._address.shown
                ) from error
            raise Unavailable(
                f"Cassandra does not answer: {_short(error)}",
                where=self._address.shown,
                hint="edgewright dev cassandra",
            ) from error

    def __exit__(self, *failure: object) -> None:
        self._cluster.shutdown()
