"""Avro messages by a real schema registry: read, refused with the reason, or waited for; each exactly once."""

from __future__ import annotations

import contextlib
import json
import struct
import threading
import time
import uuid
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, NewTopic

from edgewright.artifacts import ArtifactStore
from edgewright.cli.dev.kafka import KafkaServer
from edgewright.cli.dev.schema_registry import SchemaRegistryServer
from edgewright.errors import ConfigError
from edgewright.spec.triggers import KafkaTrigger
from edgewright.streams.batches import Batch, BatchLog
from edgewright.streams.dead_letters import read_again
from edgewright.streams.kafka import KafkaSource, open_source

SCHEMA = {
    "type": "record", "name": "Beat",
    "fields": [
        {"name": "patient", "type": "string"},
        {"name": "rate", "type": ["null", "double"]},
        {"name": "at", "type": {"type": "long", "logicalType": "timestamp-millis"}},
        {"name": "dose", "type": {"type": "bytes", "logicalType": "decimal", "precision": 6, "scale": 2}},
    ],
}  # fmt: skip


class Place:
    """A topic, a registry and a store."""

    def __init__(self, kafka: KafkaServer, registry: SchemaRegistryServer, folder: Path) -> None:
        self.topic = f"avro-{uuid.uuid4().hex[:8]}"
        self.settings = {"bootstrap.servers": kafka.bootstrap, "schema.registry.url": registry.url}
        self.log = BatchLog(ArtifactStore(folder / "store"), "pipe", "kafka-avro")
        admin = AdminClient({"bootstrap.servers": kafka.bootstrap})
        admin.create_topics([NewTopic(self.topic, 1)])[self.topic].result(20)

    def write(self, *rates: float | None) -> list[bytes]:
        """Return messages as a producer with a schema registry writes them."""
        import datetime
        from decimal import Decimal

        from confluent_kafka.schema_registry import SchemaRegistryClient
        from confluent_kafka.schema_registry.avro import AvroSerializer
        from confluent_kafka.serialization import MessageField, SerializationContext

        client = SchemaRegistryClient({"url": self.settings["schema.registry.url"]})
        serialize = AvroSerializer(client, json.dumps(SCHEMA))
        moment = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)
        context = SerializationContext(self.topic, MessageField.VALUE)
        beats = [{"patient": "p1", "rate": rate, "at": moment, "dose": Decimal("12.50")} for rate in rates]
        return [bytes(serialize(beat, context) or b"") for beat in beats]

    def send(self, *payloads: bytes) -> None:
        producer = Producer({"bootstrap.servers": self.settings["bootstrap.servers"]})
        for payload in payloads:
            producer.produce(self.topic, payload)
        assert producer.flush(20) == 0

    @contextlib.contextmanager
    def source(self, **settings: str) -> Iterator[KafkaSource]:
        config = {
            "topic": self.topic,
            "format": "avro",
            "start": "earliest",
            "batch": {"max_messages": 3, "max_wait": 1},
        }
        found = open_source(KafkaTrigger.model_validate(config), {**self.settings, **settings}, self.log)
        try:
            yield found
        finally:
            found.close()

    def lines(self, key: str) -> list[dict[str, Any]]:
        with self.log.store.open(key) as file:
            return [json.loads(line) for line in file]


def next_batch(source: KafkaSource) -> Batch:
    deadline = time.monotonic() + 90
    while time.monotonic() < deadline:
        batch = source.poll(0.3)
        if batch is not None:
            return batch
    raise AssertionError("no batch came")


@pytest.fixture
def place(kafka: KafkaServer, schema_registry: SchemaRegistryServer, tmp_path: Path) -> Place:
    return Place(kafka, schema_registry, tmp_path)


def test_records_become_lines(place: Place) -> None:
    place.send(*place.write(71.5, None))
    with place.source() as source:
        batch = next_batch(source)
    first, second = (line["value"] for line in place.lines(batch.data))
    assert first == {"patient": "p1", "rate": 71.5, "at": "2026-01-01T00:00:00Z", "dose": 12.5}
    assert second["rate"] is None


def test_what_cannot_be_read_is_a_dead_letter_with_the_reason(place: Place) -> None:
    good = place.write(1.0)[0]
    place.send(b"{}", good[:-3], b"\0" + struct.pack(">I", 987654) + b"xyz")
    with place.source() as source:
        batch = next_batch(source)
    assert (batch.messages, batch.rejected) == (0, 3)
    reasons = [entry["reason"] for entry in place.lines(place.log.dead_key(batch))]
    assert "names no schema" in reasons[0]
    assert "not what its schema says" in reasons[1]
    assert "does not know its schema 987654" in reasons[2]
    assert read_again(place.log, batch, settings=place.settings) is None


def test_a_registry_that_is_away_is_waited_for(place: Place, caplog: pytest.LogCaptureFixture) -> None:
    place.send(*place.write(1.0, 2.0, 3.0))
    with place.source(**{"schema.registry.url": "http://127.0.0.1:9"}) as source:
        deadline = time.monotonic() + 60
        while source.problem is None or "schema registry" not in source.problem:
            assert source.poll(0.3) is None
            assert time.monotonic() < deadline
        assert source.poll(0.3) is None
        assert "the schema registry does not answer" in source.problem
        # it is back
        with place.source() as other:
            source._decoder = other._decoder
        batch = next_batch(source)
    assert batch.messages == 3
    assert source.problem is None
    assert [line["value"]["rate"] for line in place.lines(batch.data)] == [1.0, 2.0, 3.0]


@pytest.fixture
def locked() -> Iterator[str]:
    """Return the address of a registry that wants to know who asks."""

    class Locked(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            answer = b'{"error_code": 40101, "message": "Unauthorized"}'
            self.send_response(401)
            self.send_header("content-length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *arguments: Any) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Locked)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_registry_that_refuses_the_login_is_said_without_the_password(place: Place, locked: str) -> None:
    place.send(*place.write(1.0))
    login = {"schema.registry.url": locked, "schema.registry.basic.auth.user.info": "me:hush-hush"}
    with place.source(**login) as source:
        deadline = time.monotonic() + 60
        while source.problem is None or "schema registry" not in source.problem:
            assert source.poll(0.3) is None
            assert time.monotonic() < deadline
        assert "the schema registry refuses the login: Unauthorized (HTTP 401)" in source.problem
        assert "hush" not in source.problem


def test_a_connection_without_a_registry_is_refused(place: Place) -> None:
    with pytest.raises(ConfigError, match=r"schema\.registry\.url"), place.source(**{"schema.registry.url": ""}):
        pass
