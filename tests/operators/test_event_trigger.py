"""What the event trigger tells Airflow of a source that is away."""

from __future__ import annotations

import asyncio
import json
import socket
import uuid
from pathlib import Path
from typing import Any

import pytest
from support.storm import make_topic

from edgewright.cli.dev.kafka import KafkaServer
from edgewright.triggers import events
from edgewright.triggers.events import BatchTrigger


def payloads(trigger: BatchTrigger, number: int) -> list[dict[str, Any]]:
    """Return what the first events of a trigger carry."""

    async def collect() -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        stream = trigger.run()
        async for event in stream:
            found.append(event.payload)
            if len(found) == number:
                break
        await stream.aclose()  # type: ignore[attr-defined]
        return found

    return asyncio.run(asyncio.wait_for(collect(), 120))


def trigger(topic: str = "x") -> BatchTrigger:
    return BatchTrigger("pipe", "kafka-x", "kafka", {"topic": topic, "connection": "kafka_away", "start": "earliest"})


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "PATIENCE", 0.5)
    monkeypatch.setattr(events, "PAUSE", 0.1)


def connect(monkeypatch: pytest.MonkeyPatch, bootstrap: str) -> None:
    document = {"conn_type": "kafka", "extra": {"bootstrap.servers": bootstrap}}
    monkeypatch.setenv("AIRFLOW_CONN_KAFKA_AWAY", json.dumps(document))


def test_a_broker_that_does_not_answer_is_an_event_with_the_reason(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # nobody listens there
        connect(monkeypatch, f"127.0.0.1:{taken.getsockname()[1]}")
        ((event),) = payloads(trigger(), 1)
    assert event["source"] == "kafka-x"
    assert "Connect" in event["problem"] or "down" in event["problem"]


def test_a_connection_that_is_not_there_is_one_too(home: Path) -> None:
    ((event),) = payloads(trigger(), 1)
    assert "kafka_away" in event["problem"]


def test_a_source_that_is_back_is_said_too(home: Path, monkeypatch: pytest.MonkeyPatch, kafka: KafkaServer) -> None:
    topic = f"back-{uuid.uuid4().hex[:8]}"
    make_topic(kafka, topic)  # one that is not there is a problem too
    one = trigger(topic)
    one._told = True  # it was away before
    connect(monkeypatch, kafka.bootstrap)
    ((event),) = payloads(one, 1)
    assert event == {"source": "kafka-x", "solved": True}
