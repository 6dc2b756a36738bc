"""What is new in a topic now, as batches: for pipelines that run by a schedule instead of by events.

Reads from where the log of batches ends to where the topic ended when the reading began, and stops. Delivery is that of
:mod:`edgewright.streams.kafka`: the log decides where to go on; nothing is committed to Kafka here.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Iterator, Mapping
from typing import Any

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from edgewright.errors import ConfigError, DataError, Unavailable
from edgewright.spec.triggers import KafkaTrigger
from edgewright.streams.batches import Batch, BatchLog
from edgewright.streams.kafka import MAX_BYTES, KafkaSource
from edgewright.streams.messages import Decoder

log = logging.getLogger("edgewright.streams")
_ANSWER = 15.0
#: Seconds without any message after which a broker is taken to be away.
_SILENCE = 60.0


class KafkaPull(KafkaSource):
    """Takes what is new in one topic.

    Args:
        topic: Its name.
        start: Where to begin the first time: ``latest``, ``earliest`` or a date.
        settings: Of the connection, as librdkafka names them.
        batches: Where batches go, and where to go on.
        connection: Its name, for messages.
    """

    def __init__(
        self,
        topic: str,
        start: str,
        settings: Mapping[str, Any],
        batches: BatchLog,
        connection: str = "kafka_default",
    ) -> None:
        trigger = KafkaTrigger(topic=topic, start=start, connection=connection)
        super().__init__(trigger, settings, batches, Decoder("json"))
        self._topic = topic

    def new_batches(self, room: int) -> Iterator[Batch]:
        """Yield batches of what is new, at most ``room`` messages together.

        Raises:
            DataError: there is no such topic.
            ConfigError: the brokers refuse the login.
            Unavailable: the brokers do not answer.
        """
        try:
            self._consumer = Consumer({**self._consumer_settings(), "enable.partition.eof": True, "log_level": 2})
            ends = self._begin_all()
            yield from self._until(ends, room)
        except KafkaException as error:
            if self._consumer is None:
                raise ConfigError(f"the connection cannot be used: {error.args[0].str()}",
                                  where=self.config.connection) from error  # fmt: skip
            with contextlib.suppress(KafkaException, RuntimeError):
                self._consumer.poll(0)  # what librdkafka has to say about it waits until it is asked
            said = self.problem or self._words(error.args[0])
            if self.refused:
                raise ConfigError(said, where=f"kafka://{self._topic}") from error
            raise Unavailable(f"Kafka does not answer: {said}", where=f"kafka://{self._topic}") from error
        finally:
            self.close()

    def _begin_all(self) -> dict[str, int]:
        """Assign the partitions that have something new; return where each one ends now."""
        found = self._consumer.list_topics(self._topic, timeout=_ANSWER).topics[self._topic]
        if found.error is not None:
            if found.error.code() != KafkaError.UNKNOWN_TOPIC_OR_PART:
                raise KafkaException(found.error)
            raise DataError("there is no such topic", where=f"kafka://{self._topic}",
                            hint="the connection's login may not be allowed to see it")  # fmt: skip
        positions = self.batches.positions()
        ends: dict[str, int] = {}
        begins: list[TopicPartition] = []
        for number in sorted(found.partitions):
            partition = TopicPartition(self._topic, number)
            partition.offset = self._begin(self._consumer, partition, positions)
            low, high = self._consumer.get_watermark_offsets(partition, timeout=_ANSWER)
            if max(partition.offset, low) < high:
                begins.append(partition)
                ends[f"{self._topic}/{number}"] = high
        self._consumer.assign(begins)
        return ends

    def _until(self, ends: dict[str, int], room: int) -> Iterator[Batch]:
        heard = time.monotonic()
        while ends:
            for message in self._consumer.consume(max(1, min(1000, room - len(self._buffer))), 0.1):
                heard = time.monotonic()
                self._one(message, ends)
            if len(self._buffer) >= room or self._bytes >= MAX_BYTES:
                batch = self._cut()
                room -= batch.messages + batch.rejected if batch else 0
                if batch is not None:
                    yield batch
                if room <= 0:
                    return
            if time.monotonic() - heard > _SILENCE:
                raise KafkaException(KafkaError(KafkaError._TRANSPORT, f"nothing came for {_SILENCE:.0f} s"))
        batch = self._cut() if self._buffer else None
        if batch is not None:
            yield batch

    def _one(self, message: Any, ends: dict[str, int]) -> None:
        place = f"{message.topic()}/{message.partition()}"
        error = message.error()
        if error is not None and error.code() == KafkaError._PARTITION_EOF:
            ends.pop(place, None)  # what is behind it was aborted, or compacted away
        elif error is not None:
            self._note_error(error)
        elif place in ends:
            if message.offset() < ends[place]:
                received = self._decoder.received(message, self._epochs.get(place, 0))
                self._buffer.append(received)
                self._bytes += len(received.line or received.payload)
            if message.offset() >= ends[place] - 1:
                del ends[place]

    def _commit(self, batch: Batch) -> None:
        """Commit nothing: that is done when the run has ended well."""


def commit(log_: BatchLog, settings: Mapping[str, Any], through: int) -> None:
    """Tell Kafka how far the runs that ended well are, for those who watch a group's lag; it decides nothing here.

    Args:
        log_: The log of a topic.
        settings: Of the connection.
        through: The last batch before which all are in runs that ended well.
    """
    batch = log_.read(through)
    if batch is None:
        return
    offsets = []
    for place, (_, offset) in batch.positions.items():
        topic, _, partition = place.rpartition("/")
        offsets.append(TopicPartition(topic, int(partition), offset))
    source = KafkaPull(offsets[0].topic, "earliest", settings, log_) if offsets else None
    if source is None:
        return
    consumer = Consumer({**source._consumer_settings(), "socket.timeout.ms": 10_000})
    try:
        consumer.commit(offsets=offsets, asynchronous=False)
    except KafkaException as error:
        log.info("%s: offsets were not committed: %s", log_.source, error.args[0])
    finally:
        with contextlib.suppress(KafkaException, RuntimeError):
            consumer.close()
