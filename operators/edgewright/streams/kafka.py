"""Kafka as an event source: messages become batches of a :class:`~edgewright.streams.batches.BatchLog`.

Delivery: payloads and manifest of a batch are in the artifact store before an offset is committed, and the log (not
Kafka) decides where to go on, so each message is in exactly one batch, whatever dies when. A broker that is away is
waited for. A topic that was deleted and made anew begins a new epoch of its offsets. Messages that retention removed
before they were read are reported in the next batch's manifest. Memory is bounded: a batch is cut at 64 MiB, and the
client keeps as much again.
"""

from __future__ import annotations

import contextlib
import datetime
import hashlib
import logging
import re
import time
from collections.abc import Mapping
from typing import Any

from confluent_kafka import (
    OFFSET_BEGINNING,
    Consumer,
    KafkaError,
    KafkaException,
    Producer,
    TopicPartition,
)
from confluent_kafka.admin import AdminClient

from edgewright.errors import ConfigError, Unavailable
from edgewright.spec.triggers import KafkaTrigger, seconds
from edgewright.streams.addresses import librdkafka_settings
from edgewright.streams.batches import Batch, BatchLog, Positions
from edgewright.streams.dead_letters import send_dead
from edgewright.streams.messages import Decoder, Received, dead_entry

log = logging.getLogger("edgewright.streams")
#: Bytes of payloads at which a batch is cut, whatever its other limits say.
MAX_BYTES = 64 << 20
#: Largest message that is taken.
MAX_MESSAGE = 16 << 20
_TIMEOUT = 10.0
#: Faults that are over as soon as a broker answers.
_AWAY = (KafkaError._ALL_BROKERS_DOWN, KafkaError._TRANSPORT, KafkaError._TIMED_OUT, KafkaError._RESOLVE)
#: Faults of the login, or of what it may do.
_REFUSED = (
    KafkaError._AUTHENTICATION, KafkaError.TOPIC_AUTHORIZATION_FAILED, KafkaError.GROUP_AUTHORIZATION_FAILED,
    KafkaError.CLUSTER_AUTHORIZATION_FAILED,
)  # fmt: skip
_CONSUMER_ONLY = ("group.id", "auto.offset.reset", "enable.auto.commit", "session.timeout.ms", "heartbeat.interval.ms",
                  "max.poll.interval.ms", "group.instance.id", "partition.assignment.strategy")  # fmt: skip


def client_settings(settings: Mapping[str, Any], *, consumer: bool = False) -> dict[str, Any]:
    """Return what librdkafka takes of a connection's settings."""
    left_out = () if consumer else _CONSUMER_ONLY
    return {name: value for name, value in librdkafka_settings(settings).items() if name not in left_out}


class KafkaSource:
    """Consumes topics and cuts batches.

    Args:
        config: The trigger.
        settings: Of the connection, as librdkafka names them.
        batches: Where batches go.
        decoder: Reads the messages.
    """

    def __init__(self, config: KafkaTrigger, settings: Mapping[str, Any], batches: BatchLog, decoder: Decoder) -> None:
        if not settings.get("bootstrap.servers"):
            raise ConfigError("the connection says no bootstrap.servers", where=config.connection)
        self.config = config
        self.batches = batches
        self._settings = dict(settings)
        self._decoder = decoder
        self._limit = 1 if config.per_message else config.batch.max_messages
        self._wait = 0.0 if config.per_message else seconds(config.batch.max_wait)
        self._consumer: Any = None
        self._producer: Any = None
        self._buffer: list[Received] = []
        self._bytes = 0
        self._since = 0.0
        self._epochs: dict[str, int] = {}
        self._gaps: list[str] = []
        #: Why nothing can come at the moment.
        self.problem: str | None = None
        self._is_away = False
        #: Whether the brokers have refused the login.
        self.refused = False
        #: Messages that came and could not be read yet, because the schema registry is away.
        self._unread: list[Any] = []

    # -- life --------------------------------------------------------------------------------------------------

    @property
    def gathered(self) -> int:
        """How many messages wait for a batch."""
        return len(self._buffer)

    def poll(self, timeout: float = 1.0) -> Batch | None:
        """Wait for messages at most ``timeout`` seconds; return a batch when one is complete and stored.

        A broker that does not answer is no error: it is said once, and asked again.
        """
        try:
            if self._consumer is None:
                self._open()
            self._take(timeout)
            self._ask_again()
            if self._is_full():
                return self._cut()
        except KafkaException as error:
            self._complain(error.args[0])
            self.close()
            time.sleep(min(timeout, 1.0))
        except Unavailable as error:
            self._complain(str(error))
            self._stay()
            time.sleep(min(timeout, 1.0))
        return None

    def _stay(self) -> None:
        """Take nothing more, and stay a member of the group."""
        self._consumer.pause(self._consumer.assignment())
        message = self._consumer.poll(0)
        if message is not None and message.error() is None:
            self._unread.append(message)

    def close(self) -> None:
        """Leave the group; what is not in a batch yet will come again."""
        if self._consumer is not None:
            consumer, self._consumer = self._consumer, None
            try:
                consumer.close()
            except (KafkaException, RuntimeError) as error:
                log.debug("while leaving the group: %s", error)
        self._drop()

    @property
    def group(self) -> str:
        """The consumer group, whose committed offsets show others how far this is; it decides nothing."""
        return f"edgewright.{self.batches.dag_id}.{self.batches.source}"

    def _open(self) -> None:
        self._consumer = Consumer(self._consumer_settings())
        self._consumer.subscribe(self.config.topics, on_assign=self._assigned, on_revoke=self._revoked,
                                 on_lost=self._revoked)  # fmt: skip

    def _consumer_settings(self) -> dict[str, Any]:
        return {
            "group.id": self.group, "session.timeout.ms": 15000, "heartbeat.interval.ms": 3000,
            "topic.metadata.refresh.interval.ms": 10000,
            "log_level": 2,  # while a broker is away librdkafka writes many lines a second; we say it once
            **client_settings(self._settings, consumer=True),
            "enable.auto.commit": False,
            "enable.auto.offset.store": False,
            "auto.offset.reset": "error",
            "isolation.level": "read_committed",
            "message.max.bytes": MAX_MESSAGE,
            "fetch.max.bytes": MAX_MESSAGE,
            "receive.message.max.bytes": 2 * MAX_MESSAGE,
            "queued.max.messages.kbytes": MAX_BYTES >> 10,
            "error_cb": self._complain,
            "logger": logging.getLogger("edgewright.streams.librdkafka"),
        }  # fmt: skip

    def _complain(self, error: Any) -> None:
        text = self._words(error) if isinstance(error, KafkaError) else str(error)
        self.refused = self.refused or (isinstance(error, KafkaError) and error.code() in _REFUSED)
        self._is_away = isinstance(error, KafkaError) and error.code() in _AWAY
        if isinstance(error, KafkaError) and error.code() == KafkaError._ALL_BROKERS_DOWN and self.problem:
            return  # why was said before
        if text != self.problem:
            self.problem = text
            log.warning("%s waits for Kafka: %s", self.batches.source, text)

    def _words(self, error: KafkaError) -> str:
        """Return what is wrong, and where it is to be mended."""
        place = f"the connection {self.config.connection}"
        if error.code() == KafkaError._AUTHENTICATION:
            return f"the brokers refuse the login of {place}: {error.str()}"
        if error.code() == KafkaError._SSL:
            return f"no TLS with the brokers of {place} (see its ssl.ca.location and security.protocol): {error.str()}"
        if error.code() in _REFUSED:
            return f"the login of {place} may not do this: {error.str()}"
        return str(error.str())

    def _ask_again(self) -> None:
        """Notice that a broker is back although nothing comes: a short absence changes nothing in the group."""
        if not self._is_away or self._consumer is None or not (assigned := self._consumer.assignment()):
            return
        with contextlib.suppress(KafkaException):
            self._consumer.get_watermark_offsets(assigned[0], timeout=0.5)
            self._is_solved()

    def _is_solved(self) -> None:
        if self.problem is not None:
            log.warning("%s: Kafka answers again", self.batches.source)
        self.problem, self._is_away, self.refused = None, False, False

    # -- where to begin ----------------------------------------------------------------------------------------

    def _assigned(self, consumer: Any, partitions: list[TopicPartition]) -> None:
        """Begin each partition where the log of batches ends."""
        positions = self.batches.positions()
        for partition in partitions:
            partition.offset = self._begin(consumer, partition, positions)
        consumer.assign(partitions)
        self._is_solved()

    def _revoked(self, consumer: Any, partitions: list[TopicPartition]) -> None:
        """Forget what came from partitions that somebody else reads from now on."""
        gone = {f"{partition.topic}/{partition.partition}" for partition in partitions}
        self._keep([message for message in self._buffer if message.place not in gone])
        self._unread = [m for m in self._unread if f"{m.topic()}/{m.partition()}" not in gone]

    def _begin(self, consumer: Any, partition: TopicPartition, positions: Positions) -> int:
        place = f"{partition.topic}/{partition.partition}"
        low, high = consumer.get_watermark_offsets(partition, timeout=_TIMEOUT)
        epoch, offset = positions.get(place, [0, -1])
        life = self._life(partition.topic)
        if offset < 0:
            self._epochs[place] = max(life, 0)
            first = self._first_offsets(consumer).get(place, -1)
            return max(first, int(low)) if first >= 0 else int(OFFSET_BEGINNING)
        if (life > epoch) if life >= 0 else offset > high:
            self._epochs[place] = max(life, epoch + 1)
            log.warning("%s: %s was made anew; its messages are read from the first one", self.batches.source, place)
            return int(OFFSET_BEGINNING)
        self._epochs[place] = epoch
        if offset < low:
            self._gaps.append(f"{place}: offsets {offset} to {low - 1} were removed before they were read")
            log.error("%s: %s", self.batches.source, self._gaps[-1])
        if offset > high:
            log.error("%s: %s ends at %s, before what was read", self.batches.source, place, high)
            return int(high)
        return int(max(offset, low))

    def _life(self, topic: str) -> int:
        """Return which life of a topic this is, by the broker's ids; -1 where the broker has none."""
        from confluent_kafka import TopicCollection

        admin = AdminClient(client_settings(self._settings))  # an answer comes only while this is held
        try:
            answer = admin.describe_topics(TopicCollection([topic]), request_timeout=_TIMEOUT)
            found = str(answer[topic].result().topic_id)
        except (KafkaException, AttributeError, ValueError) as error:
            log.debug("no id of the topic %s: %s", topic, error)
            return -1
        key = f"{self.batches.prefix}/topics/{topic}.json"
        ids = (self.batches.store.read_json(key) or {}).get("ids", [])
        if found not in ids:
            ids = [*ids, found]
            self.batches.store.write_json(key, {"ids": ids})
        return int(ids.index(found))

    def _first_offsets(self, consumer: Any) -> dict[str, int]:
        """Return where the source begins by ``start:``; fixed at the first look, so that a restart skips nothing.

        What is not in it (a partition or a topic that came later) is read from its first message.
        """
        key = f"{self.batches.prefix}/start.json"
        document = self.batches.store.read_json(key)
        if document is None:
            offsets = {} if self.config.start == "earliest" else self._offsets_now(consumer)
            self.batches.store.create_json(key, {"start": self.config.start, "offsets": offsets})
            document = self.batches.store.read_json(key) or {"offsets": {}}
        found: dict[str, int] = document["offsets"]
        return found

    def _offsets_now(self, consumer: Any) -> dict[str, int]:
        metadata = consumer.list_topics(timeout=_TIMEOUT).topics
        places = [
            TopicPartition(name, number)
            for name, topic in metadata.items()
            if topic.error is None and any(_matches(wanted, name) for wanted in self.config.topics)
            for number in topic.partitions
        ]
        if self.config.start == "latest":
            ends = [consumer.get_watermark_offsets(place, timeout=_TIMEOUT)[1] for place in places]
        else:
            begin = datetime.datetime.fromisoformat(self.config.start)
            moment = begin if begin.tzinfo else begin.replace(tzinfo=datetime.UTC)
            asked = [TopicPartition(p.topic, p.partition, int(moment.timestamp() * 1000)) for p in places]
            answers = consumer.offsets_for_times(asked, timeout=_TIMEOUT) if asked else []
            ends = [
                answer.offset if answer.offset >= 0 else consumer.get_watermark_offsets(place, timeout=_TIMEOUT)[1]
                for place, answer in zip(places, answers, strict=True)
            ]
        return {f"{place.topic}/{place.partition}": end for place, end in zip(places, ends, strict=True)}

    # -- messages ----------------------------------------------------------------------------------------------

    def _take(self, timeout: float) -> None:
        if self._buffer:
            timeout = max(0.0, min(timeout, self._since + self._wait - time.monotonic()))
        room = max(1, min(1000, self._limit - len(self._buffer)))
        again = bool(self._unread)
        messages, self._unread = self._unread or self._consumer.consume(room, timeout), []
        for number, message in enumerate(messages):
            try:
                self._receive(message)
            except Unavailable:
                self._unread = messages[number:]
                raise
        if again:
            self._is_solved()
            self._consumer.resume(self._consumer.assignment())

    def _receive(self, message: Any) -> None:
        if message.error() is not None:
            self._note_error(message.error())
            return
        place = f"{message.topic()}/{message.partition()}"
        received = self._decoder.received(message, self._epochs.get(place, 0))
        if not self._buffer:
            self._since = time.monotonic()
        self._buffer.append(received)
        self._bytes += len(received.line or received.payload)

    def _note_error(self, error: KafkaError) -> None:
        if error.code() in (KafkaError._AUTO_OFFSET_RESET, KafkaError.OFFSET_OUT_OF_RANGE):
            raise KafkaException(error)  # the topic was made anew, or its messages are gone: begin again
        self._complain(error)

    def _is_full(self) -> bool:
        if not self._buffer:
            return False
        return (
            len(self._buffer) >= self._limit or self._bytes >= MAX_BYTES or time.monotonic() >= self._since + self._wait
        )

    def _keep(self, messages: list[Received]) -> None:
        self._buffer = messages
        self._bytes = sum(len(message.line or message.payload) for message in messages)

    def _drop(self) -> None:
        self._keep([])
        self._unread = []

    # -- batches -----------------------------------------------------------------------------------------------

    def _cut(self) -> Batch | None:
        """Store what is there as the next batch, then commit; messages that another consumer stored are dropped."""
        while True:
            positions = self.batches.positions()
            self._keep([m for m in self._buffer if [m.epoch, m.offset] >= positions.get(m.place, [0, 0])])
            if not self._buffer:
                return None
            made = self.batches.append(self._draft(positions))
            if made is not None:
                break
        self._keep([])
        self._gaps = []
        self._commit(made)
        return made

    def _draft(self, positions: Positions) -> Batch:
        """Write the payloads and return the manifest that belongs to them."""
        ranges = _ranges(self._buffer)
        after = {**positions, **{place: [epoch, last + 1] for place, (epoch, _, last) in ranges.items()}}
        readable = [message for message in self._buffer if message.line is not None]
        dead = [message for message in self._buffer if message.line is None]
        if self.config.key is not None:
            readable = list({message.identity: message for message in readable}.values())
        name = _name(ranges)
        lines = b"".join(message.line for message in readable if message.line is not None)
        self._send_dead(dead)
        key, sha256 = self.batches.write_data(name, lines, [dead_entry(message) for message in dead])
        stamps = [message.timestamp for message in self._buffer]
        repeated = len(self._buffer) - len(dead) - len(readable)
        details: dict[str, Any] = {"format": self.config.format, "connection": self.config.connection}
        details |= {"repeated": repeated} if repeated else {}
        details |= {"gaps": self._gaps} if self._gaps else {}
        return Batch(
            number=0, name=name, kind="kafka", data=key, messages=len(readable), rejected=len(dead), size=len(lines),
            sha256=sha256, ranges={place: [first, last] for place, (_, first, last) in ranges.items()},
            positions=after, timestamps=[min(stamps), max(stamps)], details=details,
        )  # fmt: skip

    def _commit(self, batch: Batch) -> None:
        offsets = []
        for place in batch.ranges:
            topic, _, partition = place.rpartition("/")
            offsets.append(TopicPartition(topic, int(partition), batch.positions[place][1]))
        try:
            self._consumer.commit(offsets=offsets, asynchronous=False)
        except KafkaException as error:
            # the log knows better than Kafka where to go on
            log.info("%s: offsets were not committed: %s", self.batches.source, error.args[0])

    def _send_dead(self, dead: list[Received]) -> None:
        """Send what cannot be read to its topic, before the batch is stored: at least once."""
        if not dead or self.config.dead_letters is None:
            return
        if self._producer is None:
            self._producer = producer(self._settings)
        try:
            send_dead(self._producer, self.config.dead_letters, [dead_entry(message) for message in dead], _TIMEOUT)
        except Unavailable as error:
            raise KafkaException(KafkaError(KafkaError._TRANSPORT, error.message)) from error


def open_source(config: KafkaTrigger, settings: Mapping[str, Any], batches: BatchLog) -> KafkaSource:
    """Return the source of a trigger."""
    return KafkaSource(config, settings, batches, Decoder(config.format, config.key, settings))


def producer(settings: Mapping[str, Any]) -> Any:
    """Return a producer with the settings of a connection; it waits for all replicas and repeats nothing."""
    return Producer(
        {**client_settings(settings), "enable.idempotence": True, "message.max.bytes": MAX_MESSAGE, "linger.ms": 5}
    )


def _matches(wanted: str, name: str) -> bool:
    return re.search(wanted, name) is not None if wanted.startswith("^") else wanted == name


def _ranges(messages: list[Received]) -> dict[str, tuple[int, int, int]]:
    """Return epoch, first and last offset by partition, of the newest epoch."""
    found: dict[str, tuple[int, int, int]] = {}
    for message in messages:
        epoch, first, last = found.get(message.place, (message.epoch, message.offset, message.offset))
        if message.epoch > epoch:
            epoch, first, last = message.epoch, message.offset, message.offset
        found[message.place] = (epoch, min(first, message.offset), max(last, message.offset))
    return dict(sorted(found.items()))


def _name(ranges: Mapping[str, tuple[int, int, int]]) -> str:
    """Return the name of a batch: what its offsets are."""
    parts = []
    for place, (epoch, first, last) in ranges.items():
        topic, _, partition = place.rpartition("/")
        life = f".{epoch}" if epoch else ""
        parts.append(f"{topic}-{partition}{life}-{first}-{last}")
    text = "_".join(parts)
    if len(text) <= 120:
        return text
    return f"{text[:80]}_{hashlib.sha256(text.encode()).hexdigest()[:16]}"
