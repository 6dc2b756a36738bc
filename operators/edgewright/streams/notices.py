"""Notifications of object stores: where they come from, and what they say.

A notice is one message that tells of objects. It is taken away from its queue (SQS), or passed by (Kafka), only when
what it told of is in a batch in the artifact store, so a process that dies loses none.
"""

from __future__ import annotations

import datetime
import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol
from urllib.parse import unquote_plus, urlsplit

from edgewright.errors import ConfigError, Unavailable
from edgewright.streams.objects import Object

log = logging.getLogger("edgewright.streams")
#: Messages that one look takes at most.
_MOST = 1000
_BATCH = 10  # what SQS gives and takes at once


@dataclass(frozen=True)
class Notice:
    """A message that tells of objects.

    Attributes:
        name: The message's id; one that comes again has the same.
        handle: What its channel needs to be done with it.
        objects: What it tells of; empty where it tells of nothing that was made.
    """

    name: str
    handle: Any
    objects: tuple[Object, ...]


class Channel(Protocol):
    """Where notices come from."""

    def receive(self, timeout: float) -> list[Notice]:
        """Wait for notices at most so many seconds.

        Raises:
            Unavailable: the queue or broker does not answer.
        """

    def settle(self, done: Sequence[Notice], waiting: Sequence[Notice]) -> None:
        """Be done with some notices, and leave those that wait."""

    def close(self) -> None:
        """Let go; what was not settled comes again."""


def objects_of(text: str | bytes) -> Iterator[Object]:
    """Yield the objects that a message says were made: of S3, by SNS or EventBridge or not, and as MinIO writes it.

    Raises:
        ValueError: this is no notification.
    """
    document = json.loads(text)
    if isinstance(document, dict) and document.get("Type") == "Notification" and "Message" in document:
        document = json.loads(document["Message"])
    if not isinstance(document, dict):
        raise ValueError("it is no JSON object")
    if document.get("detail-type") == "Object Created":
        yield _of_event_bridge(document)
        return
    if "Records" not in document:
        if document.get("Event") == "s3:TestEvent":
            return
        raise ValueError("it has no Records")
    for record in document["Records"]:
        if "ObjectCreated:" not in str(record.get("eventName")):
            continue
        entry = record["s3"]["object"]
        uri = f"s3://{record['s3']['bucket']['name']}/{unquote_plus(entry['key'])}"
        yield Object(uri, int(entry.get("size", 0)), _version(entry.get("eTag")), _moment(record.get("eventTime")))


def _of_event_bridge(document: Mapping[str, Any]) -> Object:
    entry = document["detail"]["object"]
    uri = f"s3://{document['detail']['bucket']['name']}/{entry['key']}"  # not escaped, unlike all the others
    return Object(uri, int(entry.get("size", 0)), _version(entry.get("etag")), _moment(document.get("time")))


def _version(tag: object) -> str:
    if not tag:
        raise ValueError("it has no eTag")
    return str(tag).strip('"')


def _moment(text: object) -> float:
    return datetime.datetime.fromisoformat(str(text)).timestamp() if text else 0.0


def _notice(name: str, handle: Any, text: str | bytes) -> Notice:
    try:
        return Notice(name, handle, tuple(objects_of(text)))
    except (ValueError, KeyError, TypeError) as error:
        # it is let go, or it would come again for ever; what it may have told of is found by the next sweep
        log.warning("a message that is no notification of an object store is left out (%s): %.200r", error, text)
        return Notice(name, handle, ())


class SqsQueue:
    """Notices of a queue of SQS. A message that waits comes again after the queue's visibility timeout.

    Args:
        url: The queue's address.
        settings: Of the connection of the object store: ``login``, ``password``, ``extra``.
    """

    def __init__(self, url: str, settings: Mapping[str, Any]) -> None:
        import boto3
        from botocore.config import Config

        extra = settings.get("extra") or {}
        parts = urlsplit(url)
        labels = parts.netloc.split(".")
        region = extra.get("region_name") or (labels[1] if labels[0] == "sqs" and len(labels) > 2 else None)
        options = {
            "aws_access_key_id": settings.get("login"), "aws_secret_access_key": settings.get("password"),
            "aws_session_token": extra.get("aws_session_token"), "region_name": region,
        }  # fmt: skip
        session = boto3.session.Session(**{name: value for name, value in options.items() if value})
        self._url = url
        # a queue's own address, whatever endpoint the object store has
        self._client = session.client(
            "sqs", endpoint_url=f"{parts.scheme}://{parts.netloc}", region_name=session.region_name or "us-east-1",
            config=Config(connect_timeout=5, read_timeout=25, retries={"total_max_attempts": 2}),
        )  # fmt: skip

    def receive(self, timeout: float) -> list[Notice]:
        """Wait for notices at most so many (whole) seconds, then take what else is there."""
        found: list[Notice] = []
        wait = max(0, min(20, round(timeout)))
        while len(found) < _MOST:
            answer = self._call("receive_message", MaxNumberOfMessages=_BATCH, WaitTimeSeconds=wait)
            messages = answer.get("Messages") or []
            found += [_notice(m["MessageId"], m["ReceiptHandle"], m["Body"]) for m in messages]
            if len(messages) < _BATCH:
                break
            wait = 0
        return found

    def settle(self, done: Sequence[Notice], waiting: Sequence[Notice]) -> None:
        """Delete messages; one that cannot be deleted comes again, and is known by then."""
        for start in range(0, len(done), _BATCH):
            entries = [{"Id": str(n), "ReceiptHandle": notice.handle}
                       for n, notice in enumerate(done[start : start + _BATCH])]  # fmt: skip
            self._call("delete_message_batch", Entries=entries)

    def close(self) -> None:
        """Let go."""
        self._client.close()

    def _call(self, name: str, **arguments: Any) -> Any:
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            return getattr(self._client, name)(QueueUrl=self._url, **arguments)
        except (BotoCoreError, ClientError) as error:
            raise Unavailable(f"{type(error).__name__}: {error}", where=self._url) from error


class KafkaNotices:
    """Notices of a Kafka topic, as MinIO sends them. What waits keeps the offset that is committed before it.

    Args:
        topic: The topic.
        settings: Of the connection, as librdkafka names them.
        group: Consumer group.
    """

    def __init__(self, topic: str, settings: Mapping[str, Any], group: str) -> None:
        from confluent_kafka import Consumer

        from edgewright.streams.kafka import client_settings

        if not settings.get("bootstrap.servers"):
            raise ConfigError("the connection of the notifications says no bootstrap.servers", where=topic)
        self._topic = topic
        self._problem: str | None = None
        self._next: dict[int, int] = {}
        self._consumer = Consumer(
            {
                "group.id": group,
                "topic.metadata.refresh.interval.ms": 10000,
                **client_settings(settings, consumer=True),
                "enable.auto.commit": False,
                "auto.offset.reset": "earliest",  # what was known already is known by its version
                "error_cb": self._complain,
                "logger": logging.getLogger("edgewright.streams.librdkafka"),
            }
        )
        self._consumer.subscribe([topic], on_revoke=self._revoked, on_lost=self._revoked)

    def _complain(self, error: Any) -> None:
        self._problem = error.str()

    def _revoked(self, consumer: Any, partitions: list[Any]) -> None:
        for partition in partitions:
            self._next.pop(partition.partition, None)

    def receive(self, timeout: float) -> list[Notice]:
        """Wait for notices at most so many seconds."""
        self._problem = None
        found: list[Notice] = []
        for message in self._consumer.consume(_MOST, timeout):
            if message.error() is not None:
                self._problem = message.error().str()
                continue
            place = (int(message.partition()), int(message.offset()))
            self._next[place[0]] = place[1] + 1
            found.append(_notice(f"{place[0]}/{place[1]}", place, message.value() or b""))
        if self._problem is not None and not found:
            raise Unavailable(self._problem, where=f"topic {self._topic}")
        return found

    def settle(self, done: Sequence[Notice], waiting: Sequence[Notice]) -> None:
        """Commit up to the first message that waits."""
        from confluent_kafka import KafkaException, TopicPartition

        if not done:
            return
        upto = dict(self._next)
        for notice in waiting:
            partition, offset = notice.handle
            if partition in upto:
                upto[partition] = min(upto[partition], offset)
        offsets = [TopicPartition(self._topic, partition, offset) for partition, offset in upto.items()]
        try:
            if offsets:
                self._consumer.commit(offsets=offsets, asynchronous=False)
        except KafkaException as error:
            log.info("offsets of %s were not committed: %s", self._topic, error.args[0])  # they come again

    def close(self) -> None:
        """Leave the group."""
        self._consumer.close()
