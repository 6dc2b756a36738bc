"""``wait`` without Airflow: messages of a real broker, objects of a real S3 server, versions of a real registry."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import uuid
from pathlib import Path
from typing import Any

import boto3
import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, NewTopic
from mlflow import MlflowClient
from support.mlflow_server import MlflowServer

from edgewright.artifacts import ArtifactStore
from edgewright.cli.dev.kafka import KafkaServer
from edgewright.cli.dev.s3 import S3Server
from edgewright.errors import ConfigError, DataError, Skipped, TimedOut
from edgewright.steps.contract import StepResult
from edgewright.streams.batches import BatchLog

ROOT = Path(__file__).parents[2]
MESSAGES = (ROOT / "dags" / "bracelet-stream" / "messages.jsonl").read_text().splitlines()


@pytest.fixture
def topic(kafka: KafkaServer, monkeypatch: pytest.MonkeyPatch) -> str:
    extra = {"bootstrap.servers": kafka.bootstrap, "topic.metadata.refresh.interval.ms": 1000}
    monkeypatch.setenv("AIRFLOW_CONN_KAFKA_DEFAULT", json.dumps({"conn_type": "kafka", "extra": extra}))
    name = f"w-{uuid.uuid4().hex[:8]}"
    admin = AdminClient({"bootstrap.servers": kafka.bootstrap})  # its answers come only while it is held
    admin.create_topics([NewTopic(name, 1)])[name].result(20)
    return name


def send(kafka: KafkaServer, topic: str, lines: list[str]) -> None:
    producer = Producer({"bootstrap.servers": kafka.bootstrap})
    for line in lines:
        producer.produce(topic, line.encode())
    assert producer.flush(20) == 0


def batch(result: StepResult) -> dict[str, Any]:
    return result.outputs["batch"].model_dump(mode="json")


def test_so_many_messages_are_the_dataset_and_the_next_wait_takes_the_next(
    run_step, kafka: KafkaServer, topic: str, tmp_path: Path
) -> None:
    config = {"kafka": {"topic": topic, "messages": 4, "start": "earliest"}, "timeout": 60}
    lines = [json.dumps({"x": n, "y": n % 2, "name": f"n{n}"}) for n in range(8)]
    later = threading.Timer(1.5, lambda: send(kafka, topic, lines[1:]))
    send(kafka, topic, lines[:1])
    later.start()
    first = run_step("wait", config, task="labels")
    later.join()
    assert first.metrics == {"messages": 4, "rejected": 0}
    assert first.tags["batch"] == f"{topic}-0-0-3"
    assert run_step("wait", config, task="labels").outputs == first.outputs  # tried again
    second = run_step("wait", config, task="labels", run="r2")
    assert second.tags["batch"] == f"{topic}-0-4-7"
    data = run_step("ingest", {"source": batch(second), "label": "y"}, run="r2")
    assert data.metrics["rows"] == 4
    manifest = json.loads(
        (ArtifactStore(tmp_path / "store").fetch(data.outputs["dataset"]) / "dataset.json").read_text()
    )
    assert [column["name"] for column in manifest["columns"]] == ["x", "y", "name"]
    assert manifest["source"]["events"]["own"] == [f"{topic}-0-4-7"]
    assert run_step("ingest", {"source": batch(second), "label": "y"}, run="r3").cache.hit


def test_too_few_in_time_fail_or_skip_and_are_there_for_the_next(run_step, kafka: KafkaServer, topic: str) -> None:
    send(kafka, topic, MESSAGES[:3])
    config = {"kafka": {"topic": topic, "messages": 10, "start": "earliest"}, "timeout": 5}
    with pytest.raises(TimedOut, match=rf"^3 of 10 messages of {topic} came within 5 s"):
        run_step("wait", config, task="labels")
    with pytest.raises(Skipped, match="3 of 10"):
        run_step("wait", config | {"soft_fail": True}, task="labels", run="r2")
    few = run_step(
        "wait", {**config, "kafka": {**config["kafka"], "max_wait": 1}, "timeout": 60}, task="labels", run="r3"
    )
    assert few.metrics["messages"] == 3


def test_a_connection_that_is_not_there_is_said_at_once(run_step) -> None:
    with pytest.raises(ConfigError, match="no connection 'nowhere'"):
        run_step("wait", {"kafka": {"topic": "a", "connection": "nowhere"}})


def test_a_broker_that_does_not_answer_is_in_the_reason(run_step, monkeypatch: pytest.MonkeyPatch) -> None:
    document = {"conn_type": "kafka", "extra": {"bootstrap.servers": "127.0.0.1:9"}}
    monkeypatch.setenv("AIRFLOW_CONN_AWAY", json.dumps(document))
    with pytest.raises(TimedOut, match="the last look failed: .*(refused|down|failed)"):
        run_step("wait", {"kafka": {"topic": "a", "connection": "away"}, "timeout": 4})


def test_objects_of_a_bucket_are_the_dataset(run_step, s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    extra = {"endpoint_url": s3_server.endpoint, "region_name": "us-east-1"}
    lake = {"conn_type": "aws", "login": s3_server.key, "password": s3_server.secret, "extra": extra}
    monkeypatch.setenv("AIRFLOW_CONN_LAKE", json.dumps(lake))
    client = boto3.client("s3", aws_access_key_id=s3_server.key, aws_secret_access_key=s3_server.secret, **extra)
    bucket = f"wait-{uuid.uuid4().hex[:8]}"
    client.create_bucket(Bucket=bucket)
    client.put_object(Bucket=bucket, Key="in/ä b.csv", Body=b"x,y\n1,0\n")
    uri = f"s3://{bucket}/in/*.csv"
    config = {"objects": {"uri": uri, "objects": 2, "connection": "lake", "every": 0.2}, "timeout": 2}
    with pytest.raises(TimedOut, match="[01] of 2 objects of"):
        run_step("wait", config, task="files")
    client.put_object(Bucket=bucket, Key="in/c.csv", Body=b"y,x\n1,2\n1,3\n")
    found = run_step("wait", config | {"timeout": 60}, task="files")
    assert found.metrics["messages"] == 2
    data = run_step("ingest", {"source": batch(found), "label": "y", "connection": "lake"})
    assert data.metrics["rows"] == 3
    with pytest.raises(Skipped):  # each version is taken once
        run_step("wait", config | {"soft_fail": True}, task="files", run="r2")


def test_a_version_that_is_there_counts_once(
    run_step, mlflow_server: MlflowServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGEWRIGHT_TRACKING_URI", mlflow_server.uri)
    client, name = MlflowClient(mlflow_server.uri), f"waited-{uuid.uuid4().hex[:6]}"
    client.create_registered_model(name)
    for _ in range(3):
        client.create_model_version(name, "s3://x/y")
    config = {"registry": {"model": name, "every": 0.1}, "timeout": 60}
    found = run_step("wait", config, task="model")
    assert (found.tags["model"], found.tags["version"]) == (name, "3")
    with pytest.raises(DataError, match="a version of a model, and no data"):
        run_step("ingest", {"source": batch(found)})
    with pytest.raises(TimedOut, match=f"new versions of {name} came within 1 s"):
        run_step("wait", config | {"timeout": 1}, task="model", run="r2")
    client.set_registered_model_alias(name, "champion", "2")
    alias = {"registry": {"model": name, "alias": "champion", "every": 0.1}, "timeout": 60}
    assert run_step("wait", alias, task="alias").tags["version"] == "2"


def test_the_example_trains_on_what_it_waited_for(kafka: KafkaServer, topic: str, tmp_path: Path) -> None:
    folder = tmp_path / "bracelet-weekly"
    folder.mkdir()
    for file in (ROOT / "dags" / "bracelet-weekly").glob("*.[py]*"):
        text = file.read_text().replace("topic: bracelet-labelled", f"topic: {topic}")
        (folder / file.name).write_text(text)
    send(kafka, topic, ["{no JSON", *MESSAGES])
    environ = {**os.environ, "EDGEWRIGHT_HOME": str(tmp_path / "home"), "EDGEWRIGHT_TRACKING_URI": ""}
    command = [sys.executable, "-m", "edgewright.cli.main", "run", str(folder), "--json", "--until", "data"]
    done = subprocess.run(command, env=environ, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "waiting: 0 of 100 messages of" in done.stderr
    results = {task["task_id"]: task["result"] for task in json.loads(done.stdout)["tasks"]}
    assert results["labels"]["metrics"] == {"messages": 99, "rejected": 1}
    assert results["data"]["metrics"]["rows"] == 99


def test_an_interrupted_run_leaves_what_came_to_the_next(kafka: KafkaServer, topic: str, tmp_path: Path) -> None:
    send(kafka, topic, ['{"x": 1}'])
    wait = f"{{kafka: {{topic: {topic}, messages: 2, start: earliest}}}}"
    (tmp_path / "pipeline.yaml").write_text(f"dag_id: held\ntasks: [{{id: labels, uses: wait, with: {wait}}}]\n")
    environ = {**os.environ, "EDGEWRIGHT_HOME": str(tmp_path / "home")}
    command = [sys.executable, "-m", "edgewright.cli.main", "run", str(tmp_path)]
    process = subprocess.Popen(command, env=environ, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    before = ""
    while "waiting: 0 of 2" not in before:  # a busy machine's libraries may have something to say first
        line = process.stderr.readline()
        assert line, f"it ended: {before}"
        before += line
    process.send_signal(signal.SIGTERM)
    _, told = process.communicate(timeout=120)
    assert (process.returncode, "interrupted" in told, "Traceback" in told) == (130, True, False), before + told
    assert BatchLog(ArtifactStore(tmp_path / "home" / "store"), "held", f"wait-labels-kafka-{topic}").head() is None
