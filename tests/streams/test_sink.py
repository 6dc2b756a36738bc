"""From a real Kafka into a real Cassandra."""

from __future__ import annotations

import datetime
import json
import os
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from edgewright.cli.dev.cassandra import CassandraServer
from edgewright.cli.dev.kafka import KafkaServer
from edgewright.errors import ConfigError, DataError, NotFound
from edgewright.streams.addresses import cassandra_address, kafka_address
from edgewright.streams.cassandra import Connection, Layout, Row, Table, Writer
from edgewright.streams.sink import FEATURE_LOG_COLUMNS, Fields, Sink

BRACELET = Path(__file__).parents[2] / "dags" / "bracelet"
NOON = datetime.datetime(2026, 1, 1, 12, tzinfo=datetime.UTC)


@pytest.fixture
def topic() -> str:
    return f"log_{uuid.uuid4().hex[:12]}"


@pytest.fixture(scope="module")
def session(cassandra: CassandraServer) -> Iterator[Any]:
    with Connection(cassandra_address(f"cassandra://{cassandra.host}:{cassandra.port}/sinks")) as session:
        yield session


@pytest.fixture
def address(cassandra: CassandraServer, topic: str) -> str:
    return f"cassandra://{cassandra.host}:{cassandra.port}/sinks.{topic}"


Send = Callable[..., None]


@pytest.fixture
def send(kafka: KafkaServer, topic: str) -> Send:
    from confluent_kafka import Producer

    producer = Producer({"bootstrap.servers": kafka.bootstrap, "enable.idempotence": True})

    def send(*messages: Any, to: str = "") -> None:
        for message in messages:
            producer.produce(to or topic, message if isinstance(message, bytes) else json.dumps(message).encode())
        assert producer.flush(30) == 0

    return send


def entry(number: int, **more: Any) -> dict[str, Any]:
    when = (NOON + datetime.timedelta(minutes=number)).isoformat()
    return {
        "request_id": f"request-{number}", "row": 0, "time": when, "model": "bracelet", "model_version": "3",
        "model_variant": "onnx", "features": {"age": 40 + number, "ca": None}, "prediction": number % 2,
        "probabilities": [0.25, 0.75], **more,
    }  # fmt: skip


def store(kafka: KafkaServer, session: Any, address: str, topic: str, group: str = "first", **options: Any) -> Sink:
    columns = options.pop("columns", FEATURE_LOG_COLUMNS)
    table = Table(session, cassandra_address(address), options.pop("layout", Layout()), columns)
    sink = Sink({"bootstrap.servers": kafka.bootstrap}, [topic], f"{group}-{topic}", Writer(table), **options)
    sink.run(once=True)
    return sink


def rows(session: Any, topic: str) -> list[Any]:
    return sorted(session.execute(f"SELECT * FROM sinks.{topic}"), key=lambda row: row.time)


def test_a_feature_log_becomes_a_table_and_a_replay_changes_nothing(
    kafka: KafkaServer, session: Any, address: str, topic: str, send: Send
) -> None:
    send(*map(entry, range(150)))
    sink = store(kafka, session, address, topic)
    assert (sink.progress.messages, sink.progress.rows, sink.progress.rejected) == (150, 150, 0)
    found = rows(session, topic)
    assert [row.request_id for row in found] == [f"request-{number}" for number in range(150)]
    assert (found[1].age, found[1].prediction, found[1].probabilities) == (41.0, 1.0, [0.25, 0.75])
    assert (found[1].bucket, found[1].model, found[1].model_version) == ("2026-01-01T12", "bracelet", "3")
    assert not hasattr(found[1], "ca"), "a feature that was never there has no column yet"
    # the next one has another feature, and one that was null so far
    send(entry(150, features={"age": 50, "ca": 1, "smoker": True, "time": "noon"}))
    assert store(kafka, session, address, topic).progress.rows == 1, "what was committed is not read again"
    assert store(kafka, session, address, topic, "second").progress.rows == 151
    found = rows(session, topic)
    assert len(found) == 151
    assert (found[150].ca, found[150].smoker, found[150].feature_time) == (1.0, True, "noon")
    assert found[0].ca is None


def test_what_cannot_be_stored_goes_to_the_dead_letters_with_the_reason(
    kafka: KafkaServer, session: Any, address: str, topic: str, send: Send
) -> None:
    from confluent_kafka import Consumer

    send(entry(0), b"\xffnonsense", b"[1, 2]", entry(1, features={"age": "forty"}), entry(2, time="yesterday"))
    with pytest.raises(DataError, match="--dead-letters"):
        store(kafka, session, address, topic)
    sink = store(kafka, session, address, topic, dead_letters=f"{topic}-dead")
    assert (sink.progress.rows, sink.progress.rejected) == (1, 4)
    consumer = Consumer({"bootstrap.servers": kafka.bootstrap, "group.id": topic, "auto.offset.reset": "earliest"})
    consumer.subscribe([f"{topic}-dead"])
    found: list[Any] = []
    deadline = time.monotonic() + 120
    while len(found) < 4 and time.monotonic() < deadline:
        found += [message for message in consumer.consume(10, 1) if not message.error()]
    consumer.close()
    reasons = {message.value(): dict(message.headers())["edgewright-reason"].decode() for message in found}
    assert reasons[b"[1, 2]"] == "expected a JSON object, got list"
    assert "not JSON" in reasons[b"\xffnonsense"]
    # whichever came first has made the column: the topic has three partitions
    kinds = {"column age holds double, got text", "column age holds text, got double"}
    assert len(kinds & set(reasons.values())) == 1
    assert "time: expected ISO 8601 or seconds since 1970, got 'yesterday'" in reasons.values()
    assert all(dict(message.headers())["edgewright-source"].decode().startswith(f"{topic}/") for message in found)


def test_the_table_follows_from_a_pipelines_schema(
    kafka: KafkaServer, session: Any, address: str, topic: str, send: Send
) -> None:
    names = "age sex cp trestbps chol fbs restecg thalach exang oldpeak slope num"
    whole = dict.fromkeys(names.split(), 1)
    send({**whole, "request_id": "a", "age": 51.5, "thal": None}, {**whole, "colour": "red"}, {"age": 3})
    command = [
        sys.executable, "-m", "edgewright.cli.main", "sink", "cassandra", "--from", f"kafka://{kafka.bootstrap}/{topic}",
        "--to", address, "--pipeline", str(BRACELET / "pipeline.yaml"), "--keep", "30d", "--once", "--json",
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=BRACELET)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["reasons"] == {"unknown field: colour": 1, "field sex is missing": 1}
    (row,) = rows(session, topic)
    assert (row.request_id, row.age, row.thal, row.ca) == ("a", 51.5, None, None)
    kept = session.execute(
        "SELECT default_time_to_live FROM system_schema.tables WHERE keyspace_name = 'sinks' AND table_name = %s",
        (topic,),
    ).one()
    assert kept.default_time_to_live == 30 * 86400


@pytest.mark.slow
def test_a_sink_that_is_killed_loses_nothing_and_stores_nothing_twice(
    kafka: KafkaServer, session: Any, address: str, topic: str, send: Send
) -> None:
    number = 12_000
    send(*map(entry, range(number)))
    settings = {"bootstrap.servers": kafka.bootstrap, "session.timeout.ms": 6000, "heartbeat.interval.ms": 1000}
    environ = {**os.environ, "AIRFLOW_CONN_BROKER": json.dumps({"extra": settings})}
    command = [
        sys.executable, "-m", "edgewright.cli.main", "sink", "cassandra", "--from", f"kafka://broker/{topic}",
        "--to", address, "--once", "--json",
    ]  # fmt: skip
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environ)
    try:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and process.poll() is None:
            try:
                if session.execute(f"SELECT time FROM sinks.{topic} LIMIT 1").one():
                    break
            except Exception:  # the table is not there yet
                time.sleep(0.02)
    finally:
        process.kill()
        process.wait()
    stored = session.execute(f"SELECT count(*) FROM sinks.{topic}").one().count
    assert 0 < stored < number, "it was killed half-way"
    name = f"edgewright-sink-sinks-{topic}"
    table = Table(session, cassandra_address(address), Layout(), FEATURE_LOG_COLUMNS)
    # the broker gives the partitions away once it misses the one that was killed
    Sink({"bootstrap.servers": kafka.bootstrap}, [topic], name, Writer(table)).run(once=True)
    assert session.execute(f"SELECT count(*) FROM sinks.{topic}").one().count == number


def test_a_message_without_id_is_known_by_its_place(
    kafka: KafkaServer, session: Any, address: str, topic: str, send: Send
) -> None:
    send({"temperature": 36.6, "device": "a1"}, {"temperature": 37.1, "device": "a2", "seen": 1767268800})
    for group in ("one", "two"):
        store(kafka, session, address, topic, group, fields=Fields(time="seen"), columns={})
    found = {row.device: row for row in rows(session, topic)}
    assert len(found) == 2
    assert found["a2"].time == datetime.datetime(2026, 1, 1, 12)
    assert found["a1"].request_id.startswith(f"{topic}/")


def test_the_tables_layout_is_kept_and_a_foreign_table_is_refused(session: Any, address: str, topic: str) -> None:
    table = Table(session, cassandra_address(address), Layout("day", 2), {})
    row = Row(NOON, "a", 0, {})
    again = Table(session, cassandra_address(address), Layout("hour", 16), {})
    assert table.layout.place(row) == again.layout.place(row)
    assert table.layout.place(row)[0] == "2026-01-01"
    session.execute(f"CREATE TABLE sinks.foreign_{topic} (id text PRIMARY KEY)")
    other = cassandra_address(address.replace(topic, f"foreign_{topic}"))
    with pytest.raises(ConfigError, match="not one of ours: it has id"):
        Table(session, other, Layout(), {})


def test_a_row_that_cassandra_refuses_does_not_stop_the_others(session: Any, address: str) -> None:
    table = Table(session, cassandra_address(address), Layout(), {"text": "text"})
    huge = "x" * 70_000  # a part of the key may have 64 KiB
    writer = Writer(table)
    written = [Row(NOON, huge if number == 3 else str(number), number, {"text": "a"}) for number in range(6)]
    (rejected,) = writer.write(written)
    assert rejected.row.number == 3
    assert "Cassandra refused it" in rejected.reason
    found = session.execute(f"SELECT row FROM sinks.{table.address.table}")
    assert sorted(row.row for row in found) == [0, 1, 2, 4, 5]


def test_a_topic_that_is_not_there_is_said(kafka: KafkaServer, session: Any, address: str) -> None:
    with pytest.raises(NotFound, match="there is no topic nowhere"):
        store(kafka, session, address, "nowhere")


def test_nothing_answers(tmp_path: Path) -> None:
    command = [
        sys.executable, "-m", "edgewright.cli.main", "sink", "cassandra", "--from", "kafka://127.0.0.1:1/a",
        "--to", "cassandra://127.0.0.1:1/a.b", "--once",
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 69
    assert "error: cassandra://127.0.0.1:1/a.b: Cassandra does not answer" in done.stderr


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("kafka://host:9092", "no topic is named"),
        ("kafka://user:secret@host:9092/a", "an address holds no credentials"),
        ("kafka://host:9092/a b", "is no topic's name"),
        ("http://host/a", "is no address of kafka"),
        ("kafka://nowhere/a", "no connection 'nowhere'"),
    ],
)
def test_addresses_of_kafka(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        kafka_address(text)


def test_addresses_by_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    extra = {"bootstrap.servers": "a:1,b:2", "sasl.password": "secret"}
    monkeypatch.setenv("AIRFLOW_CONN_KAFKA_DEFAULT", json.dumps({"conn_type": "kafka", "extra": json.dumps(extra)}))
    found = kafka_address("kafka:kafka_default/topic-1")
    assert found.settings == extra
    assert "secret" not in repr(found)
    monkeypatch.setenv(
        "AIRFLOW_CONN_CASS", json.dumps({"host": "c1,c2", "port": 9, "login": "me", "password": "hidden"})
    )
    node = cassandra_address("cassandra://cass/live.requests")
    assert (node.hosts, node.port, node.login, node.password) == (("c1", "c2"), 9, "me", "hidden")
    assert "hidden" not in repr(node)
    with pytest.raises(ConfigError, match="'1st' is no keyspace's name"):
        cassandra_address("cassandra://host/1st.b")
    monkeypatch.setenv("AIRFLOW_CONN_KAFKA_DEFAULT", "kafka://secret")
    with pytest.raises(ConfigError, match="is not written as a JSON object") as caught:
        kafka_address("kafka:kafka_default/topic-1")
    assert "secret" not in str(caught.value)


def test_reasons_that_all_differ_are_bounded() -> None:
    from edgewright.streams.sink import Progress

    progress = Progress()
    for number in range(1000):
        progress.refuse(f"field age: expected double, got {number}")
    assert sum(progress.reasons.values()) == 1000
    assert len(progress.reasons) == 21
    assert progress.reasons["other reasons"] == 980


def test_the_scheduled_example_runs_without_airflows_services(
    kafka: KafkaServer, cassandra: CassandraServer, session: Any, topic: str, send: Send, tmp_path: Path
) -> None:
    document = (BRACELET.parent / "requests-hourly" / "pipeline.yaml").read_text()
    text = document.replace("bracelet-requests", topic).replace("live.bracelet", f"sinks.{topic}")
    (tmp_path / "pipeline.yaml").write_text(text)
    send(*map(entry, range(5)))
    environ = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "AIRFLOW_HOME": str(tmp_path / "airflow"),
        "AIRFLOW_CONN_KAFKA_DEFAULT": json.dumps(
            {"conn_type": "kafka", "extra": {"bootstrap.servers": kafka.bootstrap}}
        ),
        "AIRFLOW_CONN_CASSANDRA_DEFAULT": json.dumps(
            {"conn_type": "cassandra", "host": cassandra.host, "port": cassandra.port}
        ),
    }
    command = [sys.executable, "-m", "edgewright.cli.main", "run", "pipeline.yaml"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path, env=environ)
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(rows(session, topic)) == 5


@pytest.mark.slow
def test_a_sink_waits_for_a_database_that_is_away(kafka: KafkaServer, topic: str, send: Send, tmp_path: Path) -> None:
    from support.servers import demand

    demand(CassandraServer)
    number = 6000
    send(*map(entry, range(number // 2)))
    node = CassandraServer(tmp_path / "node")
    said: list[str] = []
    with node:
        address = cassandra_address(f"cassandra://{node.host}:{node.port}/sinks.{topic}")
        with Connection(address) as session:
            table = Table(session, address, Layout(), FEATURE_LOG_COLUMNS)
            settings = {"bootstrap.servers": kafka.bootstrap}
            sink = Sink(settings, [topic], topic, Writer(table, lambda: sink.stopping(), said.append), say=said.append)
            thread = threading.Thread(target=sink.run)
            thread.start()
            try:
                wait_for(lambda: sink.progress.rows > 0)
                node.kill()
                send(*map(entry, range(number // 2, number)))
                wait_for(lambda: any("trying again" in line for line in said))
                assert thread.is_alive()
                node.start()
                wait_for(lambda: sink.progress.rows >= number)
                assert session.execute(f"SELECT count(*) FROM sinks.{topic}").one().count == number
            finally:
                sink.stop()
                thread.join(60)
    assert not thread.is_alive()


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_big_rows_go_in_small_batches(session: Any, address: str) -> None:
    table = Table(session, cassandra_address(address), Layout(shards=1), {"text": "text"})
    big = [Row(NOON, str(number), number, {"text": "x" * 200_000}, size=200_000) for number in range(40)]
    assert Writer(table).write(big) == []
    assert session.execute(f"SELECT count(*) FROM sinks.{table.address.table}").one().count == 40
