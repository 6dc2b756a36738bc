"""announce: of publish: one message for each version, after the registry has it, also when the first try failed."""

from __future__ import annotations

import json
import time
import uuid
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Consumer
from support.models import Workplace
from support.releases import put_model

from edgewright.cli.dev.kafka import KafkaServer
from edgewright.errors import ConfigError, Unavailable
from edgewright.registry import Registry


@pytest.fixture
def place(tmp_path: Path) -> Workplace:
    return Workplace(tmp_path / "place", tracking_uri=f"sqlite:///{tmp_path / 'mlflow.db'}")


def connection(monkeypatch: pytest.MonkeyPatch, bootstrap: str) -> None:
    document = {"conn_type": "kafka", "extra": {"bootstrap.servers": bootstrap}}
    monkeypatch.setenv("AIRFLOW_CONN_WARD", json.dumps(document))


def messages(kafka: KafkaServer, topic: str, count: int) -> list[dict[str, Any]]:
    consumer = Consumer({"bootstrap.servers": kafka.bootstrap, "group.id": topic, "auto.offset.reset": "earliest"})
    consumer.subscribe([topic])
    found: list[Any] = []
    deadline = time.monotonic() + 60
    while len(found) < count and time.monotonic() < deadline:
        found += [message for message in consumer.consume(10, 0.5) if message.error() is None]
    # one more look: what should not be there
    found += [message for message in consumer.consume(1, 1.0) if message.error() is None]
    consumer.close()
    assert {message.key() for message in found} == {b"beat"}
    return [json.loads(message.value()) for message in found]


def test_each_version_is_announced_and_none_is_lost(
    place: Workplace, kafka: KafkaServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    topic = f"models-{uuid.uuid4().hex[:8]}"
    asked = {"name": "beat", "announce": {"topic": topic, "connection": "ward"}}
    first = put_model(place.store, place.root / "one")
    # the brokers are away: the version is there, and the task fails
    connection(monkeypatch, "127.0.0.1:9")
    monkeypatch.setattr("edgewright.steps.announce._TIMEOUT", 1.0)
    with pytest.raises(Unavailable, match="the announcement was not taken"):
        place.run("publish", "release", run="r1", models=[first], **asked)
    assert Registry(place.tracking_uri).champion("beat", "champion") is not None
    connection(monkeypatch, kafka.bootstrap)
    monkeypatch.setattr("edgewright.steps.announce._TIMEOUT", 30.0)
    again = place.run("publish", "release", run="r1", models=[first], **asked)
    assert again.tags["registration"] == "reused"
    assert any(f"announced to {topic}" in note for note in again.notes)
    # nothing new, nothing to say
    place.run("publish", "release", run="r2", models=[first], **asked)
    (said,) = messages(kafka, topic, 1)
    assert (said["model"], said["version"], said["alias"]) == ("beat", "1", "champion")
    assert said["digest"] == again.tags["release_digest"]
    assert said["variants"]
    assert said["run_id"] == "r1"


def test_without_its_connection_it_is_said(place: Workplace) -> None:
    model = put_model(place.store, place.root / "one")
    with pytest.raises(ConfigError, match="no connection 'ward'"):
        place.run("publish", "release", models=[model], name="beat", announce={"topic": "models", "connection": "ward"})
