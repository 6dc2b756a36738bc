"""``score`` from a topic into a topic of a real broker: each message exactly once, whoever is killed."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
import uuid
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from confluent_kafka import Consumer, KafkaError, Producer
from confluent_kafka.admin import AdminClient, NewTopic
from support.releases import model_folder
from tests.steps.conftest import RunStep

from edgewright.artifacts import ArtifactStore
from edgewright.cli.dev.kafka import KafkaServer
from edgewright.errors import Busy, DataError
from edgewright.steps.contract import Identity, Source, StepRequest
from edgewright.steps.models import load_model


@pytest.fixture
def model(tmp_path: Path) -> dict[str, Any]:
    folder = model_folder(tmp_path / "model")
    return ArtifactStore(tmp_path / "store").put(folder, "model", {}).model_dump(mode="json")


@pytest.fixture
def topics(kafka: KafkaServer, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    extra = {"bootstrap.servers": kafka.bootstrap, "transaction.timeout.ms": 60_000}
    monkeypatch.setenv("AIRFLOW_CONN_KAFKA_DEFAULT", json.dumps({"conn_type": "kafka", "extra": extra}))
    name = f"t-{uuid.uuid4().hex[:8]}"
    found = {"source": name, "to": f"{name}-out", "rejected": f"{name}-out.rejected"}
    admin = AdminClient({"bootstrap.servers": kafka.bootstrap})
    made = admin.create_topics([NewTopic(topic, 3 if topic == name else 2) for topic in found.values()])
    for one in made.values():
        one.result(30)
    return found


def send(kafka: KafkaServer, topic: str, values: list[bytes]) -> None:
    producer = Producer({"bootstrap.servers": kafka.bootstrap, "linger.ms": 20})
    for number, value in enumerate(values):
        producer.produce(topic, value, key=f"k{number}", partition=number % 3)
        producer.poll(0)
    assert producer.flush(60) == 0


def read(kafka: KafkaServer, topic: str) -> list[Any]:
    """Everything that is committed in a topic."""
    consumer = Consumer({
        "bootstrap.servers": kafka.bootstrap, "group.id": uuid.uuid4().hex, "auto.offset.reset": "earliest",
        "isolation.level": "read_committed", "enable.partition.eof": True, "enable.auto.commit": False,
    })  # fmt: skip
    consumer.subscribe([topic])
    found, ended = [], set()
    deadline = time.monotonic() + 120
    while len(ended) < 2 and time.monotonic() < deadline:
        for message in consumer.consume(1000, 0.5):
            if message.error() is None:
                found.append(message)
            elif message.error().code() == KafkaError._PARTITION_EOF:
                ended.add(message.partition())
    consumer.close()
    return found


def row(number: int) -> dict[str, Any]:
    return {"a": number / 100, "b": None if number % 5 == 0 else 1.5, "c": -number / 200, "who": [number]}


def test_new_messages_are_scored_once_and_bad_ones_go_aside(
    kafka: KafkaServer, topics: dict[str, str], model: Any, run_step: RunStep, tmp_path: Path
):
    values = [json.dumps(row(number)).encode() for number in range(300)]
    values[7], values[8], values[9] = b"no json", b'{"a": "x", "b": 1, "c": 2}', b""
    send(kafka, topics["source"], values)
    given = {"model": model, "source": f"kafka://{topics['source']}", "to": f"kafka://{topics['to']}",
             "keep": ["who"], "max_rejected": 0.1}  # fmt: skip
    result = run_step("score", given)
    assert (result.metrics["rows"], result.metrics["rejected"]) == (297, 3)
    assert run_step("score", given, run="r2").metrics["rows"] == 0
    send(kafka, topics["source"], [json.dumps(row(1000)).encode()])
    assert run_step("score", given, run="r3").metrics["rows"] == 1

    found = {(m.key().decode(), m.value()): json.loads(m.value()) for m in read(kafka, topics["to"])}
    assert len(found) == 298
    import pandas as pd

    frame = pd.DataFrame([row(document["who"][0]) for document in found.values()]).astype({"b": float})
    scores = load_model(tmp_path / "model").scores(frame[["a", "b", "c"]])[:, 1]
    np.testing.assert_allclose([document["probability_1"] for document in found.values()], scores, atol=1e-5)
    one = next(document for (key, _), document in found.items() if key == "k10")
    assert (one["topic"], one["partition"], one["offset"], one["who"]) == (topics["source"], 1, 3, [10])
    assert one["model"] == result.tags["model"]
    aside = read(kafka, topics["rejected"])
    reasons = {m.value(): dict(m.headers())["reason"].decode() for m in aside}
    assert reasons[values[8]] == 'a: "x" is no number'
    assert reasons[values[7]].startswith("it is no JSON")
    assert len(aside) == 3


def test_a_run_that_is_killed_leaves_each_offset_scored_once(
    kafka: KafkaServer, topics: dict[str, str], model: Any, run_step: RunStep, tmp_path: Path, pipeline_folder: Path
):
    given = {"model": model, "source": f"kafka://{topics['source']}", "to": f"kafka://{topics['to']}"}
    request = StepRequest(
        step="score", config=given, identity=Identity(dag_id="test", run_id="r1", task_id="score"),
        source=Source(folder=str(pipeline_folder)), store=str(tmp_path / "store"),
    )  # fmt: skip
    (tmp_path / "request.json").write_text(request.model_dump_json())
    chance = random.Random(3)
    count = killed = 0
    for _ in range(5):  # a machine that stands still for a moment may see it end before it is killed
        send(kafka, topics["source"], [json.dumps(row(number)).encode() for number in range(30_000)])
        count += 30_000
        before = _written(kafka, topics["to"])
        child = subprocess.Popen([sys.executable, "-m", "edgewright.steps", str(tmp_path / "request.json")],
                                 stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env={**os.environ})  # fmt: skip
        # more than one transaction's: the first one is committed, and the next one is open
        while child.poll() is None and _written(kafka, topics["to"]) <= before + 2_500:
            time.sleep(0.005)
        time.sleep(chance.uniform(0, 0.05))
        if child.poll() is None:
            child.send_signal(signal.SIGKILL)
            killed += 1
        child.wait()
        if killed:
            break
    assert killed
    last = run_step("score", given)
    assert last.metrics["rows"] < count
    documents = [json.loads(message.value()) for message in read(kafka, topics["to"])]
    places = [(document["partition"], document["offset"]) for document in documents]
    assert len(places) == count
    assert len(set(places)) == count


def _written(kafka: KafkaServer, topic: str) -> int:
    from confluent_kafka import TopicPartition

    consumer = Consumer({"bootstrap.servers": kafka.bootstrap, "group.id": "nobody"})
    try:
        return sum(consumer.get_watermark_offsets(TopicPartition(topic, number), timeout=30)[1] for number in range(2))
    finally:
        consumer.close()


def test_a_run_that_was_thought_dead_is_fenced_off(
    kafka: KafkaServer, topics: dict[str, str], model: Any, run_step: RunStep, tmp_path: Path
):
    from edgewright.steps.connections import kafka_settings
    from edgewright.steps.score_model import Scorer
    from edgewright.steps.score_topic import Counts, Topics, _explained, _score, _Transactions

    send(kafka, topics["source"], [json.dumps(row(number)).encode() for number in range(30)])
    given = {"model": model, "source": f"kafka://{topics['source']}", "to": f"kafka://{topics['to']}"}
    asked = Topics(
        topics["source"], topics["to"], topics["rejected"], "edgewright-score-test-score",
        kafka_settings("kafka_default"), "earliest", (), "m", True,
    )  # fmt: skip
    old = _Transactions(asked)
    try:
        old.begin()
        ends = old.assign(Counts())
        messages: list[Any] = []
        while len(messages) < 30:
            messages += [m for m in old.consumer.consume(30, 1.0) if m.error() is None]
        assert sum(ends.values()) == 30
        assert run_step("score", given).metrics["rows"] == 30
        with pytest.raises(Busy, match="another run of this task"), _explained(asked):
            _score(messages, asked, Scorer(load_model(tmp_path / "model"), 100), old)
    finally:
        old.close()
    assert len(read(kafka, topics["to"])) == 30


def test_a_topic_that_is_not_there_is_a_fault(kafka: KafkaServer, topics: Any, model: Any, run_step: RunStep):
    with pytest.raises(DataError, match="there is no such topic"):
        run_step("score", {"model": model, "source": "kafka://nobody-made-it", "to": "kafka://out"})


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"source": "kafka://t", "to": "file:///out"}, "a topic is scored into a topic"),
        ({"source": "a.csv", "to": "kafka://t"}, "a topic is scored into a topic"),
        ({"source": "kafka://t"}, "a topic is scored into a topic"),
        ({"source": "kafka://h:9092/t", "to": "kafka://o"}, "is no topic: write kafka://TOPIC"),
        ({"source": "kafka://t", "to": "kafka://t"}, "into itself"),
        ({"source": "kafka://t", "to": "kafka://o", "processes": 2}, "processes: for files and tables"),
        ({"source": "a.csv", "start": "latest"}, "start is for kafka://TOPIC"),
    ],
)
def test_what_does_not_go_together_is_said(given: dict[str, Any], said: str):
    from pydantic import ValidationError

    from edgewright.spec.steps.score import ScoreConfig

    with pytest.raises(ValidationError, match=said):
        ScoreConfig.model_validate({"registered": "bracelet", **given})
