"""Requests from a real Kafka into a real Cassandra, by the tasks of the examples."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support import airflow_env
from support.storm import make_topic

from edgewright.artifacts import ArtifactStore
from edgewright.cli.dev.cassandra import CassandraServer
from edgewright.cli.dev.kafka import KafkaServer
from edgewright.factory import dag_from_yaml
from edgewright.installation import Installation
from edgewright.spec.triggers import KafkaTrigger
from edgewright.streams.addresses import cassandra_address
from edgewright.streams.batches import BatchLog
from edgewright.streams.cassandra import Connection
from edgewright.streams.dispatch import Dispatcher, Rules
from edgewright.streams.kafka import open_source

pytestmark = pytest.mark.airflow
DAGS = Path(__file__).parents[2] / "dags"
SOURCE = "kafka-requests"


@pytest.fixture
def name() -> str:
    return f"requests_{uuid.uuid4().hex[:10]}"


@pytest.fixture(scope="module")
def session(cassandra: CassandraServer) -> Iterator[Any]:
    with Connection(cassandra_address(f"cassandra://{cassandra.host}:{cassandra.port}/live")) as session:
        yield session


@pytest.fixture
def connections(
    monkeypatch: pytest.MonkeyPatch, kafka: KafkaServer, cassandra: CassandraServer, home: Path
) -> dict[str, Any]:
    """The two connections that the examples name, as Airflow knows them."""
    extra = {"bootstrap.servers": kafka.bootstrap}
    both = {
        "KAFKA_DEFAULT": {"conn_type": "kafka", "extra": extra},
        "CASSANDRA_DEFAULT": {"conn_type": "cassandra", "host": cassandra.host, "port": cassandra.port},
    }
    for connection, document in both.items():
        monkeypatch.setenv(f"AIRFLOW_CONN_{connection}", json.dumps(document))
    Installation(home=home).save()
    return extra


def entry(number: int, **more: Any) -> dict[str, Any]:
    return {
        "request_id": f"request-{number}", "row": 0, "time": f"2026-01-01T12:00:{number:02d}Z", "model": "bracelet",
        "model_version": "3", "model_variant": "onnx", "features": {"age": 40 + number}, "prediction": number % 2,
        "probabilities": [0.25, 0.75], **more,
    }  # fmt: skip


def send(kafka: KafkaServer, topic: str, *messages: dict[str, Any]) -> None:
    from confluent_kafka import Producer

    producer = Producer({"bootstrap.servers": kafka.bootstrap})
    for message in messages:
        producer.produce(topic, json.dumps(message).encode())
    assert producer.flush(30) == 0


def example(folder: str, tmp_path: Path, name: str) -> Any:
    """Return an example's Dag, with a topic and a table of its own."""
    text = (DAGS / folder / "pipeline.yaml").read_text()
    path = tmp_path / folder / "pipeline.yaml"
    path.parent.mkdir()
    path.write_text(text.replace("live.bracelet", f"live.{name}").replace("bracelet-requests", name))
    return dag_from_yaml(path)


def rows(session: Any, table: str) -> list[str]:
    return sorted(row.request_id for row in session.execute(f"SELECT request_id FROM live.{table}"))


class Started:
    """Runs that a dispatcher starts, to be run here."""

    def __init__(self) -> None:
        self.runs: list[tuple[str, dict[str, Any]]] = []

    def start(self, run_id: str, conf: Any) -> bool:
        self.runs.append((run_id, dict(conf)))
        return True

    def state(self, run_id: str) -> None:
        return None


def test_each_batch_is_stored_by_a_run_of_its_own(
    kafka: KafkaServer, session: Any, connections: dict[str, Any], tmp_path: Path, name: str, home: Path
) -> None:
    dag = example("requests-tracked", tmp_path, name)
    make_topic(kafka, name)  # one partition: batches in the order of the messages
    send(kafka, name, *map(entry, range(30)), entry(30, features={"age": "forty"}), entry(31, time="yesterday"))
    log = BatchLog(ArtifactStore(Installation.load().store), dag.dag_id, SOURCE)
    config = KafkaTrigger.model_validate(
        {"topic": name, "start": "earliest", "batch": {"max_messages": 16, "max_wait": "60s"}}
    )
    source = open_source(config, connections, log)
    try:
        while sum(b.messages for b in log.pending()) < 32:
            source.poll(0.5)
    finally:
        source.close()
    started = Started()
    assert len(Dispatcher(log.store, dag.dag_id, Rules(SOURCE), started).start()) == 2
    results = []
    for run_id, conf in started.runs:
        run = airflow_env.run(dag, run_conf=conf)
        assert run.state == "success", run_id
        results.append(run.get_task_instance("store").xcom_pull("store"))
    assert [(r["messages"], r["rows"], r["rejected"]) for r in results] == [(16, 16, 0), (16, 14, 2)]
    assert [len(r["batches"]) for r in results] == [1, 1]
    assert any("yesterday" in reason for reason in results[1]["reasons"])
    assert rows(session, name) == sorted(f"request-{number}" for number in range(30))
    assert {log.state(1), log.state(2)} == {"done"}
    # a run that is tried again stores the same rows
    log.release(1, force=True)
    again = Started()
    Dispatcher(log.store, dag.dag_id, Rules(SOURCE), again).start()
    assert airflow_env.run(dag, run_conf=again.runs[0][1]).state == "success"
    assert len(rows(session, name)) == 30


def test_a_run_that_no_message_started_stores_nothing(connections: dict[str, Any], tmp_path: Path, name: str) -> None:
    run = airflow_env.run(example("requests-tracked", tmp_path, name))
    assert run.get_task_instance("store").state == "skipped"


def test_every_hour_what_is_new_is_stored(
    kafka: KafkaServer, session: Any, connections: dict[str, Any], tmp_path: Path, name: str
) -> None:
    dag = example("requests-hourly", tmp_path, name)
    send(kafka, name, *map(entry, range(5)))
    for known in (5, 8):
        run = airflow_env.run(dag)
        assert run.state == "success"
        assert run.get_task_instance("store").xcom_pull("store")["messages"] == (5 if known == 5 else 3)
        assert len(rows(session, name)) == known
        send(kafka, name, *map(entry, range(5, 8)))
