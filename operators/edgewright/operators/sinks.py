"""What comes through Kafka, stored in Cassandra by a task: the messages that started its run, or all that are new."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseHook, BaseOperator
from airflow.sdk.exceptions import (
    AirflowException,
    AirflowFailException,
    AirflowNotFoundException,
    AirflowSkipException,
)

from edgewright.errors import EdgewrightError, Skipped, UserFault
from edgewright.installation import Installation
from edgewright.operators.base import batch_of

if TYPE_CHECKING:
    from airflow.sdk import Context

    from edgewright.streams.addresses import CassandraAddress
    from edgewright.streams.cassandra import Writer
    from edgewright.streams.sink import Fields, Progress


class CassandraSinkOperator(BaseOperator):
    """Stores messages of Kafka as rows in Cassandra, as ``edgewright sink cassandra`` does.

    Without ``source`` they are exactly those that started the run (``triggers: - kafka:``); a run that nothing started
    is skipped. With ``source`` they are those of the topic that no run before has stored.

    Delivery: at least once, and stored once: a row follows from its message, so a task that is tried again writes the
    same rows. With ``source`` offsets are committed when their rows are stored.

    Args:
        to: ``cassandra://CONNECTION/KEYSPACE.TABLE``, or ``cassandra://HOST:PORT/KEYSPACE.TABLE``.
        source: ``kafka://CONNECTION/TOPIC``, or ``kafka://HOST:PORT/TOPIC``.
        schema: A pandera schema, ``file.py:Name`` beside the Dag: the columns, and which must be there.
        id_field: Field that makes a message unique.
        time_field: Field with its time.
        bucket: Time of one partition, ``hour`` or ``day``.
        shards: Partitions of a bucket.
        keep_days: Cassandra forgets rows after so many days; 0: never.
        replication: Copies, in a new keyspace.
        group: Consumer group of ``source``.
        dead_letters: Topic for messages that cannot be stored; without it they fail the task.

    Returns:
        Messages, rows, rejected messages with their reasons, and the names of the batches.
    """

    template_fields: Sequence[str] = ("to", "source", "dead_letters", "group")
    ui_color = "#dbe9f4"

    def __init__(
        self,
        *,
        to: str,
        source: str | None = None,
        schema: str | None = None,
        id_field: str = "request_id",
        time_field: str = "time",
        bucket: str = "hour",
        shards: int = 4,
        keep_days: int = 0,
        replication: int = 1,
        group: str | None = None,
        dead_letters: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.to = to
        self.source = source
        self.schema = schema
        self.id_field = id_field
        self.time_field = time_field
        self.bucket = bucket
        self.shards = shards
        self.keep_days = keep_days
        self.replication = replication
        self.group = group
        self.dead_letters = dead_letters
        self._stopped = False
        self._sink: Any = None

    def execute(self, context: Context) -> dict[str, Any]:
        """Store them."""
        try:
            with _connections(self.to, self.source):
                return self._pull() if self.source else self._store_batches(context)
        except Skipped as error:
            raise AirflowSkipException(error.message) from None
        except UserFault as error:
            raise AirflowFailException(str(error)) from None
        except EdgewrightError as error:
            raise AirflowException(f"{type(error).__name__}: {error}") from None

    def on_kill(self) -> None:
        """End after the round under way."""
        self._stopped = True
        if self._sink is not None:
            self._sink.stop()

    def _store_batches(self, context: Any) -> dict[str, Any]:
        from edgewright.artifacts import ArtifactStore
        from edgewright.streams.batch_sink import store_batches
        from edgewright.streams.takes import batches_of, take

        run = context["dag_run"]
        claim = batch_of(run.conf)
        if claim is None:
            raise Skipped("no message started this run, and there is no source:")
        store = ArtifactStore(Installation.load().store)
        own = take(store, run.dag_id, run.run_id, claim, growing=False).own
        batches = batches_of(store, run.dag_id, own)
        connection = next((str(batch.details.get("connection", "kafka_default")) for batch in batches), "")
        fields = self._fields()
        with self._writer(fields) as writer:
            progress = store_batches(store, batches, writer, fields, self._send(connection))
        return self._told(progress) | {"batches": [batch.name for batch in batches]}

    def _pull(self) -> dict[str, Any]:
        from edgewright.streams.addresses import kafka_address
        from edgewright.streams.sink import Sink

        kafka, to = kafka_address(str(self.source)), self._address()
        fields = self._fields()
        group = self.group or f"edgewright-sink-{to.keyspace}-{to.table}"
        with self._writer(fields) as writer:
            self._sink = sink = Sink(kafka.settings, [kafka.topic], group, writer, fields=fields, say=self.log.warning,
                                     dead_letters=self.dead_letters or "")  # fmt: skip
            return self._told(sink.run(once=True))

    def _told(self, progress: Progress) -> dict[str, Any]:
        self.log.info("%d rows stored, %d messages refused", progress.rows, progress.rejected)
        for reason, number in sorted(progress.reasons.items()):
            self.log.warning("refused %d times: %s", number, reason)
        return progress.as_dict()

    # -- parts -------------------------------------------------------------------------------------------------

    def _address(self) -> CassandraAddress:
        from dataclasses import replace

        from edgewright.errors import ConfigError
        from edgewright.streams.addresses import cassandra_address

        address = cassandra_address(self.to)
        table = address.table or re.sub(r"[^A-Za-z0-9_]", "_", (self.source or "").rpartition("/")[2]).lower()
        if not table:
            raise ConfigError("no table is named", where="to", hint="cassandra://CONNECTION/KEYSPACE.TABLE")
        return replace(address, table=table)

    @contextlib.contextmanager
    def _writer(self, fields: Fields) -> Iterator[Writer]:
        from edgewright.artifacts import ArtifactStore
        from edgewright.artifacts.erasures import Register
        from edgewright.installation import Installation
        from edgewright.streams.cassandra import Connection, Layout, Table, Writer
        from edgewright.streams.sink import FEATURE_LOG_COLUMNS

        address = self._address()
        layout = Layout(self.bucket, self.shards, self.keep_days * 86400, self.replication)
        with Connection(address) as session:
            table = Table(session, address, layout, fields.columns or FEATURE_LOG_COLUMNS)
            left_out = Register(ArtifactStore(Installation.load().store), self.log.warning)
            yield Writer(table, lambda: self._stopped, self.log.warning, left_out)

    def _fields(self) -> Fields:
        from edgewright.steps.table_columns import columns_of
        from edgewright.streams.sink import Fields

        if self.schema is None:
            return Fields(self.id_field, self.time_field)
        columns, required = columns_of(Path(self.dag.fileloc).parent, self.schema)
        return Fields(self.id_field, self.time_field, columns, required)

    def _send(self, connection: str) -> Callable[[Sequence[dict[str, Any]]], None] | None:
        topic = self.dead_letters
        if not topic:
            return None

        def send(entries: Sequence[dict[str, Any]]) -> None:
            from edgewright.streams.dead_letters import send_dead
            from edgewright.streams.kafka import producer

            send_dead(producer(BaseHook.get_connection(connection).extra_dejson), topic, entries)

        return send


@contextlib.contextmanager
def _connections(*addresses: str | None) -> Iterator[None]:
    """Put the connections that addresses name into the environment, as JSON, where their readers look for them."""
    before: dict[str, str | None] = {}
    for address in addresses:
        place = (address or "").partition("://")[2].partition("/")[0]
        if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_-]*", place):
            continue
        try:
            text = BaseHook.get_connection(place).as_json()
        except AirflowNotFoundException:
            continue  # it is a host, or whoever reads it says what is missing
        variable = f"AIRFLOW_CONN_{re.sub(r'[^A-Za-z0-9]', '_', place).upper()}"
        before[variable] = os.environ.get(variable)
        os.environ[variable] = text
    try:
        yield
    finally:
        for variable, value in before.items():
            if value is None:
                os.environ.pop(variable, None)
            else:
                os.environ[variable] = value
