"""Erasing from a real Cassandra and a real Kafka."""

from __future__ import annotations

import datetime
import json
import uuid
from collections.abc import Iterator
from typing import Any

import pytest
from support.people import KEY, TOKENS, RunStep

from edgewright.artifacts import ArtifactStore
from edgewright.artifacts.erasures import Register
from edgewright.cli.dev.cassandra import CassandraServer
from edgewright.cli.dev.kafka import KafkaServer
from edgewright.errors import NotFound, Unavailable
from edgewright.privacy.erase import erase
from edgewright.streams.addresses import CassandraAddress, KafkaAddress, cassandra_address, kafka_address
from edgewright.streams.cassandra import Connection, Layout, Row, Table, Writer
from edgewright.streams.pseudonyms import Pseudonyms
from edgewright.streams.sink import FEATURE_LOG_COLUMNS

AGATHA, BERTRAM = TOKENS["Agatha"], TOKENS["Bertram"]
NOON = datetime.datetime(2026, 1, 1, 12, tzinfo=datetime.UTC)


@pytest.fixture(scope="module")
def session(cassandra: CassandraServer) -> Iterator[Any]:
    with Connection(cassandra_address(f"cassandra://{cassandra.host}:{cassandra.port}/privacy")) as session:
        yield session


@pytest.fixture
def address(cassandra: CassandraServer) -> CassandraAddress:
    name = f"log_{uuid.uuid4().hex[:12]}"
    return cassandra_address(f"cassandra://{cassandra.host}:{cassandra.port}/privacy.{name}")


def write(session: Any, address: CassandraAddress, number: int) -> None:
    """Store requests of a day, every third of them Agatha's, in two columns by turns."""
    rows = []
    for place in range(number):
        person = AGATHA if place % 3 == 0 else BERTRAM
        values = {"model": "bracelet", "patient" if place % 2 else "caller": person, "age": float(place)}
        when = NOON + datetime.timedelta(minutes=20 * place)
        rows.append(Row(when, f"request-{place}", place % 4, values))
    assert Writer(Table(session, address, Layout(), FEATURE_LOG_COLUMNS)).write(rows) == []


def people(session: Any, address: CassandraAddress) -> list[str]:
    found = session.execute(f"SELECT patient, caller FROM privacy.{address.table}")
    return [row.patient or row.caller for row in found]


def test_rows_of_the_feature_log_go_and_all_others_stay(
    session: Any, address: CassandraAddress, store: ArtifactStore
) -> None:
    write(session, address, 90)
    looked = erase(store, AGATHA, tables=[address], dry_run=True)
    assert [(one.what, one.count) for one in looked.erased] == [("cassandra", 30)]
    assert people(session, address).count(AGATHA) == 30
    report = erase(store, AGATHA, tables=[address])
    (finding,) = report.erased
    assert (finding.where, finding.count) == (address.shown, 30)
    assert "gc_grace_seconds" in finding.how
    assert people(session, address) == [BERTRAM] * 60
    assert erase(store, AGATHA, tables=[address]).erased == [finding], "what an earlier attempt did is reported again"


def test_an_attempt_that_broke_off_is_finished(
    session: Any, address: CassandraAddress, store: ArtifactStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    from edgewright.privacy.tables import TableErasure

    write(session, address, 60)
    whole, calls = TableErasure._all, [0]

    def breaks(self: TableErasure, statement: Any, values: list[tuple[Any, ...]]) -> Iterator[Any]:
        calls[0] += 1
        if calls[0] == 6:
            raise Unavailable("the node went away")
        return whole(self, statement, values)

    monkeypatch.setattr(TableErasure, "_all", breaks)
    with pytest.raises(Unavailable):
        erase(store, AGATHA, tables=[address])
    assert 0 < people(session, address).count(AGATHA) < 20
    monkeypatch.undo()
    assert [one.count for one in erase(store, AGATHA, tables=[address]).erased] == [20]
    assert people(session, address) == [BERTRAM] * 40


def test_a_sink_does_not_bring_anybody_back(session: Any, address: CassandraAddress, store: ArtifactStore) -> None:
    write(session, address, 9)
    erase(store, AGATHA, tables=[address])
    writer = Writer(Table(session, address, Layout(), FEATURE_LOG_COLUMNS), left_out=Register(store))
    rows = [Row(NOON, f"late-{n}", 0, {"patient": (AGATHA, BERTRAM)[n % 2]}) for n in range(4)]
    assert writer.write(rows) == []
    assert writer.forgotten == 2
    assert people(session, address) == [BERTRAM] * 8


def test_a_table_that_is_there_learns_to_forget(session: Any, address: CassandraAddress) -> None:
    write(session, address, 2)
    table = Table(session, address, Layout(keep=86_400), FEATURE_LOG_COLUMNS)
    assert Writer(table).write([Row(NOON, "late", 0, {"patient": BERTRAM, "age": 1.0})]) == []
    Table(session, address, Layout(), FEATURE_LOG_COLUMNS)  # without --keep nothing changes
    found = session.execute(f"SELECT request_id, TTL(age) AS left FROM privacy.{address.table}")
    left = {row.request_id: row.left for row in found}
    assert left["request-0"] is None, "what was stored before keeps its time"
    assert 0 < left["late"] <= 86_400


def test_a_table_that_is_not_there(session: Any, address: CassandraAddress, store: ArtifactStore) -> None:
    with pytest.raises(NotFound, match="no such table"):
        erase(store, AGATHA, tables=[address])


# -- Kafka ---------------------------------------------------------------------------------------------------------


def topic(kafka: KafkaServer, **config: str) -> KafkaAddress:
    from confluent_kafka.admin import AdminClient, NewTopic

    name = f"privacy-{uuid.uuid4().hex[:12]}"
    admin = AdminClient({"bootstrap.servers": kafka.bootstrap})
    admin.create_topics([NewTopic(name, 2, 1, config=config)])[name].result(30)
    return kafka_address(f"kafka://{kafka.bootstrap}/{name}")


def send(kafka: KafkaServer, address: KafkaAddress, *messages: tuple[str | None, Any]) -> None:
    from confluent_kafka import Producer

    producer = Producer({"bootstrap.servers": kafka.bootstrap})
    for key, value in messages:
        producer.produce(address.topic, json.dumps(value).encode(), key)
    assert producer.flush(30) == 0


def last_by_key(kafka: KafkaServer, address: KafkaAddress) -> dict[str, bool]:
    """Return whether the last message of each key has a value: what a compaction leaves."""
    from confluent_kafka import Consumer, TopicPartition

    consumer = Consumer({"bootstrap.servers": kafka.bootstrap, "group.id": "test", "auto.offset.reset": "earliest"})
    places, count, found = [], 0, {}
    for partition in (0, 1):
        low, high = consumer.get_watermark_offsets(TopicPartition(address.topic, partition), timeout=30)
        count += high - low
        places.append(TopicPartition(address.topic, partition, low))
    consumer.assign(places)
    while count:
        for message in consumer.consume(100, 1):
            count -= 1
            found[message.key().decode()] = message.value() is not None
    consumer.close()
    return found


def test_a_topic_that_is_compacted_by_the_person_gets_tombstones(kafka: KafkaServer, store: ArtifactStore) -> None:
    address = topic(kafka, **{"cleanup.policy": "compact"})
    send(kafka, address, (AGATHA, {"n": 1}), (AGATHA, {"n": 2}), (BERTRAM, {"n": 3}))
    assert [one.count for one in erase(store, AGATHA, topics=[address], dry_run=True).erased] == [2]
    assert last_by_key(kafka, address) == {AGATHA: True, BERTRAM: True}
    report = erase(store, AGATHA, topics=[address])
    assert [(one.what, one.count, one.where) for one in report.erased] == [("kafka", 2, address.shown)]
    assert last_by_key(kafka, address) == {AGATHA: False, BERTRAM: True}
    before = report.searched[f"messages of {address.shown}"]
    again = erase(store, AGATHA, topics=[address])
    assert [one.count for one in again.erased] == [2]
    assert again.searched[f"messages of {address.shown}"] == before + 1 == 4, "one tombstone, and no second one"


def test_a_topic_that_cannot_forget_says_when_it_will(kafka: KafkaServer, store: ArtifactStore) -> None:
    address = topic(kafka, **{"cleanup.policy": "delete", "retention.ms": str(86_400_000)})
    messages = [("request-1", {"features": {"patient": AGATHA}}), ("request-2", {"features": {"patient": BERTRAM}})]
    send(kafka, address, *messages, (AGATHA, {"n": 1}))
    report = erase(store, AGATHA, topics=[address])
    assert report.erased == []
    (finding,) = report.expiring
    assert finding.count == 2
    expires = datetime.datetime.fromisoformat(finding.details["expires"])
    left = expires - datetime.datetime.now(datetime.UTC)
    assert datetime.timedelta(hours=12) < left <= datetime.timedelta(days=1)
    for_ever = topic(kafka, **{"cleanup.policy": "delete", "retention.ms": "-1"})
    send(kafka, for_ever, ("request-1", {"patient": AGATHA}))
    (kept,) = erase(store, AGATHA, topics=[for_ever]).kept
    assert "keeps messages for ever" in kept.how


def test_with_the_key_a_person_is_found_under_their_name(
    kafka: KafkaServer, store: ArtifactStore, made: Any, run_step: RunStep
) -> None:
    address = topic(kafka, **{"cleanup.policy": "compact"})
    by_name, others = ("Agatha", {"n": 1}), ("x", {"person": "Agatha"})
    send(kafka, address, by_name, others, ("y", {"city": "Agatha"}), ("z", {"person": "Bertram"}))
    assert not [one for one in erase(store, AGATHA, topics=[address]).erased if one.what == "kafka"]
    report = erase(store, AGATHA, topics=[address], pseudonyms=Pseudonyms(KEY))
    assert [one.count for one in report.erased if one.what == "kafka"] == [1]
    assert [(one.count, one.how[:24]) for one in report.kept if one.what == "kafka"] == [
        (1, "compacted by another key")
    ]
    assert last_by_key(kafka, address) == {"Agatha": False, "x": True, "y": True, "z": True}
    assert "Agatha" not in json.dumps(report.as_dict())


def test_a_topic_that_is_not_there(kafka: KafkaServer, store: ArtifactStore) -> None:
    with pytest.raises(NotFound, match="no topic nothing"):
        erase(store, AGATHA, topics=[kafka_address(f"kafka://{kafka.bootstrap}/nothing")])
