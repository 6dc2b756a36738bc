"""A person's messages in a topic of Kafka: a tombstone where the topic is compacted by the person, else a date.

A log cannot be edited. A message goes when its topic's retention is over, or, where ``cleanup.policy`` has ``compact``
and the message's key is the person, at the compaction after a message with that key and no value.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from edgewright.errors import NotFound, Unavailable
from edgewright.privacy.findings import Erasure, Finding
from edgewright.privacy.journal import Journal
from edgewright.privacy.matcher import Matcher
from edgewright.streams.addresses import KafkaAddress

_ANSWERS = 15.0
_ROUND = 1000


@dataclass
class _Found:
    """What a topic holds of the person.

    Attributes:
        keyed: Messages by partition and key, where the key is the person's.
        alive: Those keys whose last message has a value.
        others: Messages that hold the person in their value only.
        last: Time of the last of these, in milliseconds since 1970.
        messages: All that were read.
    """

    keyed: dict[tuple[int, bytes], int] = field(default_factory=dict)
    alive: dict[tuple[int, bytes], bool] = field(default_factory=dict)
    others: int = 0
    last: int = 0
    messages: int = 0


class TopicErasure:
    """Erases one person from one topic, as far as the topic allows.

    Args:
        address: Brokers and topic.
        matcher: Says which messages are the person's.
        report: What is found goes here.
        journal: Counts of earlier attempts; ``None`` where nothing is to be sent.
    """

    def __init__(self, address: KafkaAddress, matcher: Matcher, report: Erasure, journal: Journal | None) -> None:
        self._address, self._matcher, self._report, self._journal = address, matcher, report, journal

    def run(self) -> int:
        """Find messages and send tombstones; return how many messages there are.

        Raises:
            NotFound: there is no such topic.
            Unavailable: the brokers do not answer.
        """
        from confluent_kafka import KafkaException

        try:
            policy, retention = self._settings()
            found = self._search()
            if "compact" in policy:
                self._bury(found)
        except KafkaException as error:
            text = f"Kafka does not answer: {error.args[0].str()}"
            raise Unavailable(text, where=self._address.shown, hint="run it again: nothing is lost") from error
        self._report.searched[f"messages of {self._address.shown}"] = found.messages
        rest = found.others + (0 if "compact" in policy else sum(found.keyed.values()))
        if rest:
            self._expiring(rest, found.last, policy, retention)
        return found.others + sum(found.keyed.values())

    def _settings(self) -> tuple[str, int]:
        """Return the topic's ``cleanup.policy`` and ``retention.ms``."""
        from confluent_kafka.admin import AdminClient, ConfigResource

        admin = AdminClient({**self._address.settings, "log_level": 2})
        if self._address.topic not in admin.list_topics(timeout=_ANSWERS).topics:
            raise NotFound(f"there is no topic {self._address.topic}", where=self._address.shown)
        resource = ConfigResource(ConfigResource.Type.TOPIC, self._address.topic)
        found = admin.describe_configs([resource])[resource].result(_ANSWERS)
        return str(found["cleanup.policy"].value), int(found["retention.ms"].value)

    def _search(self) -> _Found:
        found = _Found()
        for message in self._messages():
            found.messages += 1
            place = message.partition(), message.key() or b""
            if self._matcher.is_key(message.key()):
                if message.value() is not None:
                    found.keyed[place] = found.keyed.get(place, 0) + 1
                found.alive[place] = message.value() is not None
            elif self._matcher.is_value(message.value()):
                found.others += 1
            else:
                continue
            found.last = max(found.last, message.timestamp()[1])
        return found

    def _messages(self) -> Iterator[Any]:
        """Yield every message that is there now, without a trace in any group's offsets."""
        from confluent_kafka import Consumer, TopicPartition

        topic = self._address.topic
        settings = {**self._address.settings, "group.id": "edgewright-privacy", "enable.auto.commit": False,
                    "enable.partition.eof": False, "log_level": 2}  # fmt: skip
        consumer = Consumer(settings)
        try:
            waiting, starts = {}, []
            for number in consumer.list_topics(topic, timeout=_ANSWERS).topics[topic].partitions:
                low, high = consumer.get_watermark_offsets(TopicPartition(topic, number), timeout=_ANSWERS)
                if low < high:
                    waiting[number] = high
                    starts.append(TopicPartition(topic, number, low))
            consumer.assign(starts)
            while waiting:
                for message in consumer.consume(_ROUND, 1.0):
                    if message.error() is None and message.offset() < waiting.get(message.partition(), 0):
                        yield message
                for place in consumer.position([TopicPartition(topic, number) for number in waiting]):
                    # a compacted log ends with gaps, over which the position moves
                    if place.offset >= waiting[place.partition]:
                        del waiting[place.partition]
        finally:
            consumer.close()

    def _bury(self, found: _Found) -> None:
        """Send a tombstone for each key that still has a value."""
        if self._journal is not None:
            self._send([place for place, alive in found.alive.items() if alive], found)
        total = sum(found.keyed.values()) if self._journal is None else self._journal.total
        if total:
            how = "tombstones are sent; the broker removes the messages at its next compactions of closed segments"
            if self._journal is None:
                how = "tombstones would be sent"
            self._report.erased.append(Finding("kafka", self._address.shown, total, how, {"keys": len(found.alive)}))

    def _send(self, places: list[tuple[int, bytes]], found: _Found) -> None:
        from confluent_kafka import Producer

        if self._journal is None or not places:
            return
        producer = Producer({**self._address.settings, "enable.idempotence": True, "log_level": 2})
        for partition, key in places:
            named = "pseudonym" if key == self._report.subject.encode() else "name"  # which is not written down
            self._journal.note(f"{partition}/{named}", found.keyed[partition, key])
            producer.produce(self._address.topic, None, key, partition)
        if producer.flush(60):
            raise Unavailable("the tombstones could not be sent", where=self._address.shown)

    def _expiring(self, count: int, last: int, policy: str, retention: int) -> None:
        where, details = self._address.shown, {"cleanup.policy": policy, "retention.ms": retention}
        if "delete" not in policy or retention < 0:
            why = "compacted by another key" if "delete" not in policy else "the topic keeps messages for ever"
            hint = "delete the records (kafka-delete-records) or give the topic a retention"
            self._report.kept.append(Finding("kafka", where, count, f"{why}: {hint}", details))
            return
        when = datetime.datetime.fromtimestamp((last + retention) / 1000, datetime.UTC).isoformat(timespec="minutes")
        how = f"expires by retention at {when}, and its segment when it is closed"
        self._report.expiring.append(Finding("kafka", where, count, how, {**details, "expires": when}))
