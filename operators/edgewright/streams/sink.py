"""From Kafka's topics into Cassandra, at least once, with rows that may be written again without harm.

Offsets are committed only after every row of a round is stored, or is in the dead-letter topic with the reason. A sink
that is killed reads the last round again and writes the same rows. Any number of sinks with the same group share the
partitions.
"""

from __future__ import annotations

import datetime
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import msgspec

from edgewright.errors import DataError, EdgewrightError, NotFound, Unavailable
from edgewright.streams.cassandra import NUMBERS, TEXT, Row, Writer, kind_of

#: Messages in one round: their offsets are committed together.
ROUND = 2000
_POLL = 0.2
_ANSWERS = 15.0
#: Reasons that are counted one by one.
_REASONS = 20
#: What a sink's own columns are called; a feature of the same name is stored as ``feature_<name>``.
FEATURE_LOG_COLUMNS = {
    "model": TEXT, "model_version": TEXT, "model_variant": TEXT, "probabilities": NUMBERS,
}  # fmt: skip
_TAKEN = {"bucket", "shard", "time", "request_id", "row", "prediction", *FEATURE_LOG_COLUMNS}
_decode = msgspec.json.Decoder().decode


@dataclass(frozen=True)
class Fields:
    """Which fields of a plain message are special.

    Attributes:
        id: Field that makes it unique; without it its place in the topic does.
        time: Field with its time; without it the time at which Kafka got it.
        columns: Types of the other fields; a message with another field is refused. ``None`` takes all.
        required: Fields that may not be missing or null.
    """

    id: str = "request_id"
    time: str = "time"
    columns: dict[str, str] | None = None
    required: tuple[str, ...] = ()


@dataclass
class Progress:
    """What a sink has done.

    Attributes:
        messages: Messages read.
        rows: Rows stored.
        rejected: Messages in the dead-letter topic.
        seconds: Time since it began.
        reasons: Why messages were rejected, and how many.
    """

    messages: int = 0
    rows: int = 0
    rejected: int = 0
    seconds: float = 0.0
    reasons: dict[str, int] = field(default_factory=dict)

    def refuse(self, reason: str) -> None:
        """Count a reason; of those that differ for each message only the first ones are told apart."""
        name = reason if reason in self.reasons or len(self.reasons) < _REASONS else "other reasons"
        self.reasons[name] = self.reasons.get(name, 0) + 1

    def as_dict(self) -> dict[str, Any]:
        """Return it as a document."""
        return asdict(self)


def row_of(message: Any, fields: Fields) -> Row:
    """Return the row that a message stands for.

    A message of the prediction service's feature log is recognised by its ``features``; any other JSON object is a row
    with a column for each field.

    Raises:
        DataError: it is none.
    """
    value = message.value()
    if value is None:
        raise DataError("the message has no value")
    try:
        document = _decode(value)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise DataError(f"not JSON: {error}") from error
    if not isinstance(document, dict):
        raise DataError(f"expected a JSON object, got {type(document).__name__}")
    return row_of_object(document, message, fields)


def row_of_object(document: dict[str, Any], message: Any, fields: Fields) -> Row:
    """Return the row that a JSON object stands for; the message says where it comes from.

    Raises:
        DataError: it is none.
    """
    if isinstance(document.get("features"), dict) and "request_id" in document:
        return _feature_row(document, message)
    return _plain_row(document, message, fields)


def _feature_row(document: dict[str, Any], message: Any) -> Row:
    features = document["features"]
    values = {(name if name not in _TAKEN else f"feature_{name}"): value for name, value in features.items()}
    for name in ("model", "model_version", "model_variant", "prediction", "probabilities"):
        values[name] = document.get(name)
    number = document.get("row", 0)
    if not isinstance(number, int):
        raise DataError(f"row: expected a whole number, got {number!r}")
    return Row(_time(document.get("time"), message), str(document["request_id"]), number, values, message, len(message))


def _plain_row(document: dict[str, Any], message: Any, fields: Fields) -> Row:
    values = {name: value for name, value in document.items() if name not in (fields.id, fields.time)}
    if fields.columns is not None:
        unknown = [name for name in values if name not in fields.columns]
        if unknown:
            raise DataError(f"unknown field: {unknown[0]}")
        for name, value in values.items():
            kind = kind_of(value)
            if kind is not None and kind != fields.columns[name]:
                raise DataError(f"field {name}: expected {fields.columns[name]}, got {value!r}")
    absent = [name for name in fields.required if document.get(name) is None]
    if absent:
        raise DataError(f"field {absent[0]} is missing")
    place = f"{message.topic()}/{message.partition()}/{message.offset()}"
    identifier = document.get(fields.id)
    when = _time(document.get(fields.time), message)
    return Row(when, place if identifier is None else str(identifier), 0, values, message, len(message))


def _time(value: Any, message: Any) -> datetime.datetime:
    """Return a message's time; Kafka's own time of it is the same at every delivery."""
    if value is None:
        return datetime.datetime.fromtimestamp(message.timestamp()[1] / 1000, datetime.UTC)
    try:
        if isinstance(value, int | float) and not isinstance(value, bool):
            # seconds since 1970 until the year 5138; what is larger can only be milliseconds
            return datetime.datetime.fromtimestamp(value if value < 1e11 else value / 1000, datetime.UTC)
        found = datetime.datetime.fromisoformat(value)
    except (TypeError, ValueError, OverflowError, OSError) as error:
        raise DataError(f"time: expected ISO 8601 or seconds since 1970, got {value!r}") from error
    return found if found.tzinfo else found.replace(tzinfo=datetime.UTC)


class Sink:
    """Reads topics and stores their messages.

    Args:
        settings: librdkafka's settings for the brokers.
        topics: Topics; one that begins with ``^`` is a pattern.
        group: Consumer group.
        writer: Where rows go.
        dead_letters: Topic for what cannot be stored; empty: such a message stops the sink.
        fields: What the fields of plain messages mean.
        say: Told what is unusual.
    """

    def __init__(
        self,
        settings: dict[str, Any],
        topics: Sequence[str],
        group: str,
        writer: Writer,
        *,
        dead_letters: str = "",
        fields: Fields | None = None,
        say: Callable[[str], None] = lambda line: None,
    ) -> None:
        self._settings, self._topics, self._group = settings, list(topics), group
        self._writer, self._dead, self._fields = writer, dead_letters, fields or Fields()
        self._say = say
        self._stop = threading.Event()
        self._ended: set[tuple[str, int]] = set()
        self._assigned: set[tuple[str, int]] | None = None
        self._producer: Any = None
        self._paused = False
        self.progress = Progress()

    def stop(self) -> None:
        """End after the round that is under way; safe to call from a signal handler."""
        self._stop.set()

    def stopping(self) -> bool:
        """Whether it was told to end."""
        return self._stop.is_set()

    def run(self, *, once: bool = False, report: Callable[[Progress], None] = lambda progress: None) -> Progress:
        """Store messages until it is stopped.

        Args:
            once: End when everything is stored that was there.
            report: Told after each round what was done.

        Raises:
            NotFound: with ``once``, a topic is not there.
            Unavailable: with ``once``, the brokers do not answer.
            DataError: a message cannot be stored and there is no topic for dead letters.
        """
        consumer = self._open(once)
        began = time.monotonic()
        try:
            while not self.stopping():
                messages = self._poll(consumer)
                if messages:
                    self._store(consumer, messages)
                    self.progress.seconds = time.monotonic() - began
                    report(self.progress)
                elif once and self._assigned is not None and self._assigned <= self._ended:
                    break
        finally:
            consumer.close()
        self.progress.seconds = time.monotonic() - began
        return self.progress

    def _open(self, once: bool) -> Any:
        from confluent_kafka import Consumer

        settings = {
            "auto.offset.reset": "earliest",
            "reconnect.backoff.max.ms": 2000,
            "partition.assignment.strategy": "cooperative-sticky",
            **self._settings,
            "group.id": self._group,
            "enable.auto.commit": False,
            "enable.partition.eof": True,
            "error_cb": lambda error: self._say(f"Kafka: {error.str()}"),
            "log_level": 2,
        }
        consumer = Consumer(settings)
        if once:
            try:
                self._demand_topics(consumer)
            except EdgewrightError:
                consumer.close()
                raise
        consumer.subscribe(self._topics, on_assign=self._on_assign, on_revoke=self._on_revoke, on_lost=self._on_revoke)
        return consumer

    def _demand_topics(self, consumer: Any) -> None:
        from confluent_kafka import KafkaException

        try:
            there = consumer.list_topics(timeout=_ANSWERS).topics
        except KafkaException as error:
            place = self._settings["bootstrap.servers"]
            raise Unavailable("Kafka does not answer", where=place, hint="edgewright dev kafka") from error
        absent = [topic for topic in self._topics if not topic.startswith("^") and topic not in there]
        if absent:
            raise NotFound(f"there is no topic {absent[0]}", hint=f"there are: {', '.join(sorted(there)) or 'none'}")

    def _on_assign(self, consumer: Any, partitions: list[Any]) -> None:
        self._assigned = (self._assigned or set()) | {(p.topic, p.partition) for p in partitions}

    def _on_revoke(self, consumer: Any, partitions: list[Any]) -> None:
        # rounds are stored and committed between polls, so nothing of these is under way
        gone = {(p.topic, p.partition) for p in partitions}
        self._assigned = (self._assigned or set()) - gone
        self._ended -= gone

    def _poll(self, consumer: Any) -> list[Any]:
        from confluent_kafka import KafkaError

        found = []
        for message in consumer.consume(ROUND, _POLL):
            error = message.error()
            if error is None:
                found.append(message)
            elif error.code() == KafkaError._PARTITION_EOF:
                self._ended.add((message.topic(), message.partition()))
            else:
                self._say(f"Kafka: {error.str()}")
        return found

    def _store(self, consumer: Any, messages: list[Any]) -> None:
        """Store one round, then commit it."""
        rows: list[Row] = []
        rejected: list[tuple[Any, str]] = []
        for message in messages:
            try:
                rows.append(row_of(message, self._fields))
            except DataError as error:
                rejected.append((message, error.message))
        refused = self._writer.write(rows, between=lambda: self._keep_alive(consumer))
        if self._paused:
            consumer.resume(consumer.assignment())
            self._paused = False
        rejected += [(entry.row.source, entry.reason) for entry in refused]
        self._reject(rejected)
        self._commit(consumer, messages)
        self.progress.messages += len(messages)
        self.progress.rows += len(rows) - len(refused) - self._writer.forgotten
        self.progress.rejected += len(rejected)

    def _keep_alive(self, consumer: Any) -> None:
        """Poll while the database is away: a consumer that does not is taken for dead, and its partitions given away.

        Nothing is fetched meanwhile. Only then: a pause throws away what was fetched ahead.
        """
        consumer.pause(consumer.assignment())
        self._paused = True
        consumer.poll(0)

    def _commit(self, consumer: Any, messages: list[Any]) -> None:
        from confluent_kafka import KafkaException, TopicPartition

        ends: dict[tuple[str, int], int] = {}
        for message in messages:
            ends[message.topic(), message.partition()] = message.offset() + 1
        try:
            consumer.commit(offsets=[TopicPartition(*key, end) for key, end in ends.items()], asynchronous=False)
        except KafkaException as error:
            # another has these partitions now, or the broker is away: they are stored, and storing again is harmless
            self._say(f"Kafka: offsets were not committed: {error.args[0].str()}")

    def _reject(self, rejected: list[tuple[Any, str]]) -> None:
        """Put messages into the dead-letter topic, each with its reason and its place; return when they are there."""
        if not rejected:
            return
        if not self._dead:
            message, reason = rejected[0]
            place = f"{message.topic()}/{message.partition()}/{message.offset()}"
            raise DataError(reason, where=place, hint="--dead-letters TOPIC sets such messages aside")
        if self._producer is None:
            from confluent_kafka import Producer

            self._producer = Producer({**self._settings, "enable.idempotence": True, "log_level": 2})
        for message, reason in rejected:
            headers = [
                *(message.headers() or []),
                ("edgewright-reason", reason.encode()),
                ("edgewright-source", f"{message.topic()}/{message.partition()}/{message.offset()}".encode()),
            ]
            self._producer.produce(self._dead, message.value(), message.key(), headers=headers)
            self.progress.refuse(reason)
        if self._producer.flush(60):
            raise Unavailable("the dead letters could not be sent", where=self._dead)
