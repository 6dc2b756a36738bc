"""Objects that a store tells of become batches: by SQS and by a Kafka topic; each version once, none lost."""

from __future__ import annotations

import datetime
import json
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote_plus

import boto3
import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, NewTopic

from edgewright.artifacts import ArtifactStore
from edgewright.cli.dev.kafka import KafkaServer
from edgewright.cli.dev.s3 import S3Server
from edgewright.errors import EdgewrightError
from edgewright.spec.triggers import ObjectsTrigger
from edgewright.streams.batches import BatchLog
from edgewright.streams.notices import objects_of
from edgewright.streams.notified import NotifiedSource
from edgewright.streams.sources import open_source


class Bucket:
    """A bucket that tells a queue of its objects."""

    def __init__(self, server: S3Server) -> None:
        self.extra = {"endpoint_url": server.endpoint, "region_name": "us-east-1"}
        self.settings = {"login": server.key, "password": server.secret, "extra": self.extra}
        keys = {"aws_access_key_id": server.key, "aws_secret_access_key": server.secret, **self.extra}
        self.s3, self.sqs = boto3.client("s3", **keys), boto3.client("sqs", **keys)
        self.name = f"told-{uuid.uuid4().hex[:8]}"
        self.s3.create_bucket(Bucket=self.name)
        self.queue = self.sqs.create_queue(QueueName=self.name, Attributes={"VisibilityTimeout": "1"})["QueueUrl"]
        self.arn = self.sqs.get_queue_attributes(QueueUrl=self.queue, AttributeNames=["QueueArn"])["Attributes"][
            "QueueArn"
        ]

    def tell(self, *events: str) -> None:
        rules = [{"QueueArn": self.arn, "Events": list(events)}] if events else []
        self.s3.put_bucket_notification_configuration(
            Bucket=self.name, NotificationConfiguration={"QueueConfigurations": rules}
        )

    def put(self, key: str, body: bytes = b"x\n1\n") -> None:
        self.s3.put_object(Bucket=self.name, Key=key, Body=body)

    def left(self) -> int:
        names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
        found = self.sqs.get_queue_attributes(QueueUrl=self.queue, AttributeNames=names)["Attributes"]
        return sum(map(int, found.values()))


@pytest.fixture
def bucket(s3_server: S3Server) -> Bucket:
    made = Bucket(s3_server)
    made.tell("s3:ObjectCreated:*", "s3:ObjectRemoved:*")
    return made


@pytest.fixture
def source(tmp_path: Path) -> Iterator[Callable[..., NotifiedSource]]:
    made: list[NotifiedSource] = []

    def make(bucket: Bucket, *, settings: dict[str, Any] | None = None, **config: Any) -> NotifiedSource:
        document = {
            "uri": f"s3://{bucket.name}/in/*.csv", "notifications": {"sqs": bucket.queue},
            "batch": {"min_objects": 1, "max_wait": 60}, **config,
        }  # fmt: skip
        batches = BatchLog(ArtifactStore(tmp_path / "store"), "pipe", "objects-x")
        made.append(open_source("objects", document, batches, {**bucket.settings, **(settings or {})}))
        return made[-1]

    yield make
    for one in made:
        one.close()


def taken(source: NotifiedSource, count: int, seconds: float = 60) -> list[str]:
    """Poll until batches hold so many objects; return their keys."""
    found: list[str] = []
    deadline = time.monotonic() + seconds
    while len(found) < count:
        assert time.monotonic() < deadline, found
        batch = source.poll(0.2)
        if batch is not None:
            with source.batches.store.open(batch.data) as file:
                found += [json.loads(line)["value"]["uri"].split("/", 3)[3] for line in file]
    return found


def nothing(source: NotifiedSource, polls: int = 3) -> bool:
    return all(source.poll(0.2) is None for _ in range(polls))


def without_looks(source: NotifiedSource) -> NotifiedSource:
    """Make sure that what comes was heard of, not seen."""
    source._sweep_at = time.monotonic() + 3600
    return source


def test_what_the_queue_tells_is_taken_once_with_its_right_name(bucket: Bucket, source: Any) -> None:
    one = without_looks(source(bucket))
    assert nothing(one)
    for key in ("in/a b+c.csv", "in/é&=%20.csv", "other/x.csv", "in/x.tmp", "in/deep/y.csv"):
        bucket.put(key)
    bucket.put("in/empty.csv", b"")
    bucket.s3.delete_object(Bucket=bucket.name, Key="other/x.csv")
    assert sorted(taken(one, 2)) == ["in/a b+c.csv", "in/é&=%20.csv"]
    assert nothing(one)
    assert bucket.left() == 0
    again = source(bucket)  # a look at all that is there finds nothing new
    assert nothing(again)
    bucket.put("in/a b+c.csv", b"x\n2\n")
    assert taken(without_looks(again), 1) == ["in/a b+c.csv"]


def test_a_notification_stays_until_the_batch_is_stored(bucket: Bucket, source: Any) -> None:
    one = without_looks(source(bucket, batch={"min_objects": 2, "max_wait": 600}))
    bucket.put("in/a.csv")
    assert nothing(one)
    assert bucket.left() == 1  # held, not deleted
    one.close()  # killed before it had enough
    other = without_looks(source(bucket, batch={"min_objects": 2, "max_wait": 600}))
    bucket.put("in/b.csv")
    assert taken(other, 2) == ["in/a.csv", "in/b.csv"]
    assert bucket.left() == 0


def test_what_nobody_told_of_is_found_by_the_sweep(bucket: Bucket, source: Any) -> None:
    bucket.tell()
    bucket.put("in/before.csv")
    one = source(bucket, notifications={"sqs": bucket.queue, "sweep": 0.5})
    assert taken(one, 1) == ["in/before.csv"]
    bucket.put("in/silent.csv")
    assert taken(one, 1) == ["in/silent.csv"]
    bucket.tell("s3:ObjectCreated:*")
    bucket.put("in/told.csv")  # told and seen
    assert taken(one, 1) == ["in/told.csv"]
    assert nothing(one, 6)
    assert bucket.left() == 0


def test_a_folder_counts_when_its_marker_was_told_of(bucket: Bucket, source: Any) -> None:
    one = without_looks(source(bucket, uri=f"s3://{bucket.name}/*/*.csv", when={"marker": "_SUCCESS"}))
    bucket.put("day1/a.csv")
    bucket.put("day2/b.csv")
    assert nothing(one)
    bucket.put("day1/_SUCCESS", b"")
    assert taken(one, 1) == ["day1/a.csv"]
    assert nothing(one)


def test_a_message_that_is_no_notification_does_not_stop_it(bucket: Bucket, source: Any) -> None:
    one = without_looks(source(bucket))
    bodies = ("{no JSON", "[]", '{"Records": [{"eventName": "ObjectCreated:Put"}]}', '{"Event": "s3:TestEvent"}')
    for body in bodies:
        bucket.sqs.send_message(QueueUrl=bucket.queue, MessageBody=body)
    bucket.put("in/a.csv")
    assert taken(one, 1) == ["in/a.csv"]
    assert nothing(one)
    assert bucket.left() == 0


def test_two_that_hear_of_the_same_take_it_once(bucket: Bucket, source: Any) -> None:
    both = [source(bucket), source(bucket)]
    for number in range(25):
        bucket.put(f"in/{number}.csv")
    found: list[str] = []
    deadline = time.monotonic() + 60
    while len(found) < 25:
        assert time.monotonic() < deadline, found
        for one in both:
            if (batch := one.poll(0.1)) is not None:
                with one.batches.store.open(batch.data) as file:
                    found += [json.loads(line)["value"]["uri"] for line in file]
    assert len(set(found)) == 25
    assert all(nothing(one) for one in both)


def test_a_queue_that_does_not_answer_is_waited_for(bucket: Bucket, source: Any) -> None:
    one = source(bucket, notifications={"sqs": f"{bucket.queue}-gone"})
    assert nothing(one, 1)
    assert "NonExistentQueue" in str(one.problem)


def test_a_topic_tells_as_minio_does(bucket: Bucket, source: Any, kafka: KafkaServer) -> None:
    bucket.tell()
    topic = f"minio-{uuid.uuid4().hex[:8]}"
    admin = AdminClient({"bootstrap.servers": kafka.bootstrap})
    admin.create_topics([NewTopic(topic, 2)])[topic].result(20)
    producer = Producer({"bootstrap.servers": kafka.bootstrap})

    def tell(key: str, body: bytes = b"x\n1\n") -> None:
        tag = bucket.s3.put_object(Bucket=bucket.name, Key=key, Body=body)["ETag"].strip('"')
        told = {"bucket": {"name": bucket.name}, "object": {"key": quote_plus(key), "size": len(body), "eTag": tag}}
        moment = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        record = {"eventVersion": "2.0", "eventName": "s3:ObjectCreated:Put", "eventTime": moment, "s3": told}
        document = {"EventName": "s3:ObjectCreated:Put", "Key": f"{bucket.name}/{key}", "Records": [record]}
        producer.produce(topic, json.dumps(document).encode(), key=f"{bucket.name}/{key}")
        assert producer.flush(20) == 0

    settings = {"notifications": {"bootstrap.servers": kafka.bootstrap, "session.timeout.ms": 6000}}
    config: dict[str, Any] = {"notifications": {"kafka": topic}, "batch": {"min_objects": 2, "max_wait": 600}}
    one = without_looks(source(bucket, settings=settings, **config))
    tell("in/a b.csv")
    assert nothing(one)
    one.close()  # nothing was committed
    other = without_looks(source(bucket, settings=settings, **config))
    tell("in/c.csv")
    assert sorted(taken(other, 2)) == ["in/a b.csv", "in/c.csv"]
    other.close()
    tell("in/d.csv")
    tell("in/e.csv")
    last = without_looks(source(bucket, settings=settings, **config))
    assert sorted(taken(last, 2)) == ["in/d.csv", "in/e.csv"]


def test_what_messages_say() -> None:
    record = {"eventName": "ObjectCreated:Put", "eventTime": "2026-01-01T00:00:00.000Z",
              "s3": {"bucket": {"name": "b"}, "object": {"key": "a+b%2Bc.csv", "size": 3, "eTag": "t"}}}  # fmt: skip
    direct = json.dumps({"Records": [record]})
    (found,) = objects_of(direct)
    assert (found.uri, found.version, found.size, found.modified) == ("s3://b/a b+c.csv", "t", 3, 1767225600.0)
    by_sns = json.dumps({"Type": "Notification", "Message": direct})
    assert list(objects_of(by_sns)) == [found]
    bridge = {"detail-type": "Object Created", "time": "2026-01-01T00:00:00Z",
              "detail": {"bucket": {"name": "b"}, "object": {"key": "a b+c.csv", "size": 3, "etag": "t"}}}  # fmt: skip
    assert list(objects_of(json.dumps(bridge))) == [found]


@pytest.mark.parametrize(
    "config",
    [
        {"notifications": {}},
        {"notifications": {"sqs": "https://q", "kafka": "t"}},
        {"notifications": {"sqs": "https://q", "connection": "c"}},
        {"uri": "file:///x/*.csv", "notifications": {"kafka": "t"}},
        {"every": "10s", "notifications": {"kafka": "t"}},
    ],
)
def test_what_does_not_fit_together_is_refused(config: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="exactly one|credentials|s3://|sweep"):
        ObjectsTrigger.model_validate({"uri": "s3://b/*.csv", **config})


def test_a_topic_without_a_connection_is_refused(bucket: Bucket, source: Any) -> None:
    one = source(bucket, notifications={"kafka": "t"})
    with pytest.raises(EdgewrightError, match=r"no bootstrap\.servers"):
        one.poll(0.1)
