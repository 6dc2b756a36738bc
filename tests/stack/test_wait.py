"""A run that waits for messages through a real scheduler and triggerer: deferred, resumed, with exactly those."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from confluent_kafka import Producer
from stack_support import Stack

from edgewright.artifacts import ArtifactStore
from edgewright.cli.dev.kafka import KafkaServer
from edgewright.streams.batches import BatchLog

pytestmark = [pytest.mark.stack, pytest.mark.airflow, pytest.mark.slow]
YAML = """
dag_id: held
tasks:
  - id: labels
    uses: wait
    with: {kafka: {topic: held, messages: 5, start: earliest, connection: held_kafka}, timeout: 10m}
  - id: data
    uses: ingest
    with: {source: {$x: labels}, label: y}
  - id: never
    uses: wait
    with: {objects: {uri: "file:///nowhere/*.csv", every: 1s}, timeout: 3s}
"""


def wait_for(what: Callable[[], Any], seconds: float, reason: str) -> Any:
    deadline = time.monotonic() + seconds
    while not (found := what()):
        assert time.monotonic() < deadline, reason
        time.sleep(1)
    return found


def test_a_run_is_held_until_its_messages_are_there(stack: Stack, kafka: KafkaServer) -> None:
    api: httpx.Client = stack.airflow()
    extra = {"bootstrap.servers": kafka.bootstrap, "topic.metadata.refresh.interval.ms": 1000}
    connection = {"connection_id": "held_kafka", "conn_type": "kafka", "extra": json.dumps(extra)}
    api.post("/api/v2/connections", json=connection).raise_for_status()
    (stack.dags / "held").mkdir()
    (stack.dags / "held" / "pipeline.yaml").write_text(YAML)
    wait_for(lambda: api.get("/api/v2/dags/held").is_success, 90, "there is no Dag")
    api.patch("/api/v2/dags/held", json={"is_paused": False}).raise_for_status()
    runs = "/api/v2/dags/held/dagRuns"
    api.post(runs, json={"dag_run_id": "one", "logical_date": None}).raise_for_status()

    def states() -> dict[str, str]:
        return {t["task_id"]: t["state"] for t in api.get(f"{runs}/one/taskInstances").json()["task_instances"]}

    wait_for(lambda: states()["labels"] == "deferred", 90, "it does not wait")
    producer = Producer({"bootstrap.servers": kafka.bootstrap})
    for number in range(7):
        producer.produce("held", json.dumps({"x": number, "y": number % 2}).encode())
    assert producer.flush(20) == 0
    wait_for(lambda: api.get(f"{runs}/one").json()["state"] in ("success", "failed"), 180, "it is held for ever")
    found = states()
    assert (found["labels"], found["data"], found["never"]) == ("success", "success", "failed")
    store = ArtifactStore(stack.home / "store")
    assert store.read_json("runs/held/one/data/result.json")["metrics"]["rows"] == 5
    log = BatchLog(store, "held", "wait-labels-kafka-held")
    assert log.state(1) == "failed"  # the run failed elsewhere: its batch stays its own
    told = api.get(f"{runs}/one/taskInstances/never/logs/1", headers={"Accept": "text/plain"}).text
    assert "file:///nowhere" in told
    assert "came within 3s" in told
