"""Messages of a real broker become batches: each message in exactly one, whatever happens."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Consumer, Producer
from confluent_kafka.admin import AdminClient, NewTopic

from edgewright.artifacts import ArtifactStore
from edgewright.cli.dev.kafka import KafkaServer
from edgewright.spec.triggers import KafkaTrigger
from edgewright.streams.batches import Batch, BatchLog
from edgewright.streams.kafka import KafkaSource
from edgewright.streams.messages import Decoder

QUICK = {"session.timeout.ms": 6000, "heartbeat.interval.ms": 500, "topic.metadata.refresh.interval.ms": 1000}


@pytest.fixture
def topic(kafka: KafkaServer) -> str:
    name = f"t-{uuid.uuid4().hex[:8]}"
    make_topic(kafka, name, 2)
    return name


def make_topic(kafka: KafkaServer, name: str, partitions: int = 1, **config: str) -> None:
    admin = AdminClient({"bootstrap.servers": kafka.bootstrap})
    admin.create_topics([NewTopic(name, partitions, config=config)])[name].result(20)


def send(kafka: KafkaServer, topic: str, values: list[Any], **more: Any) -> None:
    producer = Producer({"bootstrap.servers": kafka.bootstrap, "message.max.bytes": 20_000_000})
    for value in values:
        raw = value if isinstance(value, bytes) or value is None else json.dumps(value).encode()
        producer.produce(topic, raw, **more)
    assert producer.flush(20) == 0


@pytest.fixture
def source(kafka: KafkaServer, tmp_path: Path) -> Iterator[Callable[..., KafkaSource]]:
    """Make sources of one pipeline that share a store."""
    made: list[KafkaSource] = []

    def make(topic: Any, *, store: str = "store", **config: Any) -> KafkaSource:
        config = {"topic": topic, "start": "earliest", "batch": {"max_messages": 5, "max_wait": 1}, **config}
        if config.get("per_message"):
            del config["batch"]
        trigger = KafkaTrigger.model_validate(config)
        batches = BatchLog(ArtifactStore(tmp_path / store), "pipe", "kafka-x")
        settings = {"bootstrap.servers": kafka.bootstrap, **QUICK}
        made.append(KafkaSource(trigger, settings, batches, Decoder(trigger.format, trigger.key)))
        return made[-1]

    yield make
    for one in made:
        one.close()


def collect(source: KafkaSource, messages: int, seconds: float = 40) -> list[Batch]:
    """Poll until batches hold so many messages (those that cannot be read included)."""
    found: list[Batch] = []
    deadline = time.monotonic() + seconds
    while sum(batch.messages + batch.rejected for batch in found) < messages:
        assert time.monotonic() < deadline, f"only {found}"
        batch = source.poll(0.5)
        if batch is not None:
            found.append(batch)
    return found


def values(source: KafkaSource, batch: Batch) -> list[Any]:
    with source.batches.store.open(batch.data) as file:
        return [json.loads(line)["value"] for line in file]


def all_values(source: KafkaSource) -> list[Any]:
    log = BatchLog(source.batches.store, "pipe", "kafka-x")
    head = log.head()
    found = [log.read(number) for number in range(1, (head.number if head else 0) + 1)]
    return [value for batch in found if batch for value in values(source, batch)]


def test_messages_become_batches_with_what_belongs_to_them(kafka: KafkaServer, topic: str, source: Any) -> None:
    send(kafka, topic, [{"n": n} for n in range(5)], key=b"k", headers={"h": b"v"}, partition=1)
    one = source(topic)
    (batch,) = collect(one, 5)
    assert batch.name == f"{topic}-1-0-4"
    assert batch.ranges == {f"{topic}/1": [0, 4]}
    assert values(one, batch) == [{"n": n} for n in range(5)]
    with one.batches.store.open(batch.data) as file:
        line = json.loads(file.readline())
    assert (line["key"], line["headers"], line["offset"], line["topic"]) == ("k", {"h": "v"}, 0, topic)
    committed = Consumer({"bootstrap.servers": kafka.bootstrap, "group.id": "edgewright.pipe.kafka-x"})
    from confluent_kafka import TopicPartition

    assert committed.committed([TopicPartition(topic, 1)], timeout=10)[0].offset == 5
    committed.close()


def test_what_was_stored_and_not_committed_is_not_stored_again(kafka: KafkaServer, topic: str, source: Any) -> None:
    send(kafka, topic, [{"n": n} for n in range(4)])
    one = source(topic)
    one._commit = lambda batch: None  # as if it had died there
    collect(one, 4)
    one.close()
    send(kafka, topic, [{"n": n} for n in range(4, 8)])
    collect(source(topic), 4)
    assert sorted(value["n"] for value in all_values(one)) == list(range(8))


def test_two_that_both_believe_to_own_a_partition_store_each_message_once(
    kafka: KafkaServer, topic: str, source: Any
) -> None:
    send(kafka, topic, [{"n": n} for n in range(7)], partition=0)
    one, other = source(topic), source(topic)
    other._settings["group.id"] = "another"  # both get every partition
    found: list[Batch] = []
    deadline = time.monotonic() + 40
    while sum(batch.messages for batch in found) < 7 and time.monotonic() < deadline:
        found += [batch for batch in (one.poll(0.5), other.poll(0.5)) if batch]
    for _ in range(6):
        assert one.poll(0.3) is None
        assert other.poll(0.3) is None
    assert sorted(value["n"] for value in all_values(one)) == list(range(7))
    assert [batch.number for batch in found] == list(range(1, len(found) + 1))


def test_latest_means_from_the_first_look_also_after_a_restart(kafka: KafkaServer, topic: str, source: Any) -> None:
    send(kafka, topic, [{"n": "old"}])
    one = source(topic, start="latest")
    for _ in range(12):
        assert one.poll(0.5) is None
        if one._consumer.assignment():
            break
    one.close()
    send(kafka, topic, [{"n": "while nobody looked"}])
    again = source(topic, start="latest")
    collect(again, 1)
    assert all_values(again) == [{"n": "while nobody looked"}]


def test_poison_goes_to_the_dead_letters_with_the_reason(kafka: KafkaServer, topic: str, source: Any) -> None:
    dead = f"{topic}-dead"
    make_topic(kafka, dead)
    send(kafka, topic, [{"n": 1}, b"{", b"\xff\xfe", None, b"[1]"], partition=0)
    one = source(topic, dead_letters=dead)
    (batch,) = collect(one, 5)
    assert (batch.messages, batch.rejected) == (1, 4)
    with one.batches.store.open(f"{one.batches.prefix}/dead/{batch.name}.jsonl") as file:
        kept = [json.loads(line) for line in file]
    assert [entry["offset"] for entry in kept] == [1, 2, 3, 4]
    reader = source(dead, format="bytes", store="dead", batch={"max_messages": 4, "max_wait": 5})
    reader._settings["group.id"] = "reads-dead-letters"
    (letters,) = collect(reader, 4)
    with reader.batches.store.open(letters.data) as file:
        reasons = [json.loads(line)["headers"]["reason"] for line in file]
    assert "no JSON" in reasons[0]
    assert "no object" in reasons[-1]


def test_a_batch_of_poison_alone_starts_nothing(kafka: KafkaServer, topic: str, source: Any) -> None:
    send(kafka, topic, [b"{"] * 3, partition=0)
    one = source(topic)
    (batch,) = collect(one, 3)
    assert batch.messages == 0
    assert list(one.batches.pending()) == []


def test_the_last_of_one_key_counts(kafka: KafkaServer, topic: str, source: Any) -> None:
    send(kafka, topic, [{"id": 1, "v": "a"}, {"id": 2, "v": "b"}, {"id": 1, "v": "c"}], partition=0)
    one = source(topic, key="id")
    (batch,) = collect(one, 2)
    assert sorted(value["v"] for value in values(one, batch)) == ["b", "c"]
    assert batch.details["repeated"] == 1


def test_each_message_alone(kafka: KafkaServer, topic: str, source: Any) -> None:
    send(kafka, topic, [{"n": n} for n in range(3)], partition=0)
    found = collect(source(topic, per_message=True), 3)
    assert [batch.name for batch in found] == [f"{topic}-0-{n}-{n}" for n in range(3)]


def test_a_message_of_five_megabytes(kafka: KafkaServer, source: Any) -> None:
    name = f"big-{uuid.uuid4().hex[:8]}"
    make_topic(kafka, name, 1, **{"max.message.bytes": "10000000"})
    send(kafka, name, [{"blob": "x" * 5_000_000}, {"n": 1}])
    one = source(name)
    assert sum(batch.messages for batch in collect(one, 2)) == 2
    assert len(all_values(one)[0]["blob"]) == 5_000_000


def test_a_topic_that_is_made_anew_begins_again(kafka: KafkaServer, source: Any) -> None:
    name = f"anew-{uuid.uuid4().hex[:8]}"
    make_topic(kafka, name)
    send(kafka, name, [{"n": n} for n in range(3)])
    one = source(name)
    collect(one, 3)
    one.close()
    admin = AdminClient({"bootstrap.servers": kafka.bootstrap})
    admin.delete_topics([name])[name].result(20)
    time.sleep(1)
    make_topic(kafka, name)
    send(kafka, name, [{"n": n} for n in range(10, 15)])
    again = source(name)
    found = collect(again, 5)
    assert sorted(value["n"] for value in all_values(again)) == [0, 1, 2, 10, 11, 12, 13, 14]
    assert found[0].name == f"{name}-0.1-0-4"


def test_a_pattern_takes_topics_that_come_later(kafka: KafkaServer, source: Any) -> None:
    stem = f"ward{uuid.uuid4().hex[:6]}"
    make_topic(kafka, f"{stem}-1")
    one = source(f"^{stem}-[0-9]+", start="latest")
    for _ in range(20):
        one.poll(0.5)
        if one._consumer.assignment():
            break
    make_topic(kafka, f"{stem}-2")
    send(kafka, f"{stem}-2", [{"n": 1}])
    collect(one, 1)
    assert all_values(one) == [{"n": 1}]


@pytest.mark.slow
def test_a_broker_that_is_down_is_waited_for(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    from support.servers import demand

    demand(KafkaServer)
    server = KafkaServer(tmp_path / "broker")
    server.start()
    server.stop()
    trigger = KafkaTrigger.model_validate({"topic": "later", "start": "earliest", "batch": {"max_wait": 1}})
    batches = BatchLog(ArtifactStore(tmp_path / "store"), "pipe", "kafka-later")
    one = KafkaSource(trigger, {"bootstrap.servers": server.bootstrap, **QUICK}, batches, Decoder("json"))
    for _ in range(3):
        assert one.poll(0.5) is None
    assert "waits for Kafka" in caplog.text
    with server:
        make_topic(server, "later")
        send(server, "later", [{"n": 1}])
        collect(one, 1)
        one.close()
