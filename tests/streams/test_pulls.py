"""ingest pulls what is new in a topic of a real broker: each message is in one run that ended well."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import uuid
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from edgewright.artifacts import ArtifactStore
from edgewright.cli.dev.kafka import KafkaServer
from edgewright.cli.local import LocalRunner
from edgewright.cli.outcome import RunOutcome
from edgewright.errors import DataError, Skipped, Unavailable
from edgewright.installation import Installation
from edgewright.spec import load_pipeline
from edgewright.steps.contract import Identity, Source, StepRequest, StepResult
from edgewright.steps.data import Dataset
from edgewright.steps.execute import execute
from edgewright.streams.batches import BatchLog
from edgewright.streams.pulls import pull_source, settle_ended, settle_pulls

ROOT = Path(__file__).resolve().parents[2]


class Place:
    """A topic, and a store into which runs of one pipeline pull it."""

    def __init__(self, kafka: KafkaServer, folder: Path) -> None:
        self.topic = f"pull-{uuid.uuid4().hex[:8]}"
        self.folder = folder
        self._kafka = kafka
        admin = AdminClient({"bootstrap.servers": kafka.bootstrap})
        admin.create_topics([NewTopic(self.topic, 2)])[self.topic].result(20)

    @property
    def store(self) -> ArtifactStore:
        return ArtifactStore(self.folder / "store")

    @property
    def log(self) -> BatchLog:
        return BatchLog(self.store, "test", pull_source(self.topic))

    def send(self, *values: Any) -> None:
        producer = Producer({"bootstrap.servers": self._kafka.bootstrap})
        for value in values:
            producer.produce(self.topic, value if isinstance(value, bytes) else json.dumps({"n": value}).encode())
        assert producer.flush(20) == 0

    def pull(self, run: str, **config: Any) -> StepResult:
        request = StepRequest(
            step="ingest", store=self.store.root, source=Source(folder=str(self.folder)),
            config={"source": f"kafka://{self.topic}", "since_last_run": True, **config},
            identity=Identity(dag_id="test", run_id=run, task_id="data"),
        )  # fmt: skip
        return execute(request)

    def end(self, run: str, *, success: bool = True) -> int:
        return settle_pulls(self.store, "test", run, success=success)


@pytest.fixture
def place(kafka: KafkaServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    connection = {"conn_type": "kafka", "extra": {"bootstrap.servers": kafka.bootstrap}}
    monkeypatch.setenv("AIRFLOW_CONN_KAFKA_DEFAULT", json.dumps(connection))
    return Place(kafka, tmp_path)


def numbers(result: StepResult) -> list[int]:
    dataset = Dataset.open(Path(result.outputs["dataset"].uri.removeprefix("file://")))
    return sorted(dataset.frame("train")["n"].tolist())


def manifest(result: StepResult) -> dict[str, Any]:
    return Dataset.open(Path(result.outputs["dataset"].uri.removeprefix("file://"))).manifest


def test_each_run_takes_what_came_since(place: Place) -> None:
    place.send(*range(5))
    assert numbers(place.pull("r1")) == [0, 1, 2, 3, 4]
    place.end("r1")
    place.send(5, 6)
    second = place.pull("r2")
    place.end("r2")
    assert numbers(second) == [5, 6]
    events = manifest(second)["source"]["events"]
    assert events["messages"] == 2
    assert set(events["offsets"]) <= {f"{place.topic}/0", f"{place.topic}/1"}
    assert [place.log.state(number) for number in (1, 2)] == ["done", "done"]


def test_nothing_new_is_a_clear_skip(place: Place) -> None:
    place.send(1)
    place.pull("r1")
    place.end("r1")
    with pytest.raises(Skipped, match=f"there are no new messages in {place.topic}"):
        place.pull("r2")


def test_a_failed_run_leaves_its_messages_to_the_next_one(place: Place) -> None:
    place.send(1, 2)
    first = place.pull("r1")
    place.end("r1", success=False)
    again = place.pull("r2")
    assert numbers(again) == [1, 2]
    # the same offsets are the same dataset, and need not be made twice
    assert again.cache.hit
    assert again.outputs["dataset"].sha256 == first.outputs["dataset"].sha256
    place.end("r2", success=False)
    place.send(3)
    assert numbers(place.pull("r3")) == [1, 2, 3]
    place.end("r3")
    assert {place.log.state(n) for n in place.log.numbers("done")} == {"done"}


def test_a_task_that_is_tried_again_sees_the_same_messages(place: Place) -> None:
    place.send(1, 2)
    assert numbers(place.pull("r1")) == [1, 2]
    place.send(3)
    assert numbers(place.pull("r1")) == [1, 2]
    place.end("r1")
    assert numbers(place.pull("r1")) == [1, 2]


def test_two_runs_at_once_have_different_messages(place: Place) -> None:
    place.send(1, 2)
    assert numbers(place.pull("r1")) == [1, 2]
    with pytest.raises(Skipped, match="r1 has not ended"):
        place.pull("r2")
    place.send(3)
    assert numbers(place.pull("r2")) == [3]
    place.end("r1", success=False)
    place.end("r2")
    assert numbers(place.pull("r3")) == [1, 2]


def test_a_run_that_failed_and_is_cleared_takes_what_nobody_took_meanwhile(
    place: Place, caplog: pytest.LogCaptureFixture
) -> None:
    place.send(1)
    place.pull("r1")
    place.end("r1", success=False)
    assert numbers(place.pull("r1")) == [1]
    place.end("r1", success=False)
    assert numbers(place.pull("r2")) == [1]
    place.end("r2")
    # only a later task of r1 was cleared: its dataset still has the message
    assert place.end("r1") == 0
    assert "r2 has taken batch 1 meanwhile" in caplog.text
    with pytest.raises(Skipped):
        place.pull("r1")


def test_runs_that_could_not_say_how_they_ended_are_asked_about(place: Place) -> None:
    place.send(1)
    place.pull("killed")
    place.send(2)
    place.pull("well")
    settle_ended(place.store, "test", {"killed": "failed", "well": "success"}.get)
    assert numbers(place.pull("next")) == [1]


def test_a_run_takes_so_many_at_most(place: Place) -> None:
    place.send(*range(10))
    assert len(numbers(place.pull("r1", max_messages=4))) == 4
    place.end("r1")
    assert len(numbers(place.pull("r2", max_messages=100))) == 6


def test_too_few_wait_for_the_next_run(place: Place) -> None:
    place.send(1)
    with pytest.raises(Skipped, match="minimum.rows: 2"):
        place.pull("r1", minimum={"rows": 2})
    place.send(2)
    assert numbers(place.pull("r2", minimum={"rows": 2})) == [1, 2]


def test_a_message_that_stands_in_the_holdout_is_left_out(place: Place) -> None:
    (place.folder / "holdout.csv").write_text("n\n1\n")
    place.send(1, 2)
    assert numbers(place.pull("r1", holdout="holdout.csv")) == [2]


def test_what_is_no_json_is_kept_and_blocks_nothing(place: Place) -> None:
    place.send(b"{", 1)
    assert numbers(place.pull("r1")) == [1]
    place.end("r1")
    place.send(b"{")
    with pytest.raises(Skipped):
        place.pull("r2")
    rejected = [batch.rejected for n in range(1, 4) if (batch := place.log.read(n))]
    assert sum(rejected) == 2


def test_start_latest_is_fixed_at_the_first_run(place: Place) -> None:
    place.send(1)
    with pytest.raises(Skipped):
        place.pull("r1", start="latest")
    place.send(2)
    assert numbers(place.pull("r2", start="latest")) == [2]


def test_no_topic_and_no_broker_are_said(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DataError, match="there is no such topic"):
        place.pull("r1", source="kafka://not-there")
    connection = {"extra": {"bootstrap.servers": "127.0.0.1:9", "socket.connection.setup.timeout.ms": 1000}}
    monkeypatch.setenv("AIRFLOW_CONN_NOBODY", json.dumps(connection))
    monkeypatch.setattr("edgewright.streams.kafka_pull._ANSWER", 3.0)
    with pytest.raises(Unavailable, match=r"Kafka does not answer: .*Connect"):
        place.pull("r2", connection="nobody")


# -- whole pipelines -----------------------------------------------------------------------------------------------


def run_nightly(place: Place, folder: Path, run_id: str) -> RunOutcome:
    pipeline = load_pipeline(folder / "pipeline.yaml")
    return LocalRunner(
        pipeline, installation=Installation.load({"EDGEWRIGHT_HOME": str(place.folder / "home")}), run_id=run_id
    ).run()


@pytest.fixture
def nightly(place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The example, on the test's topic."""
    import shutil

    folder = tmp_path / "bracelet-nightly"
    shutil.copytree(ROOT / "dags" / "bracelet-nightly", folder)
    text = (folder / "pipeline.yaml").read_text().replace("bracelet-labelled", place.topic)
    (folder / "pipeline.yaml").write_text(text)
    monkeypatch.setenv("EDGEWRIGHT_HOME", str(place.folder / "home"))
    return folder


def test_the_example_learns_from_what_came(place: Place, nightly: Path, kafka: KafkaServer) -> None:
    lines = (ROOT / "dags" / "bracelet-stream" / "messages.jsonl").read_bytes().splitlines()
    place.send(*lines[:60])
    first = run_nightly(place, nightly, "n1")
    assert first.state == "success", [task.error for task in first.tasks]
    second = run_nightly(place, nightly, "n2")
    assert {task.state for task in second.tasks} == {"skipped"}
    place.send(*lines[60:])
    assert run_nightly(place, nightly, "n3").state == "success"
    log = BatchLog(ArtifactStore(place.folder / "home" / "store"), "bracelet-nightly", pull_source(place.topic))
    assert sum(batch.messages for n in log.numbers("done") if (batch := log.read(n))) == len(lines)
    # what Kafka shows of the group is where the runs are
    group = f"edgewright.bracelet-nightly.{log.source}"
    consumer = Consumer({"bootstrap.servers": kafka.bootstrap, "group.id": group})
    committed = consumer.committed([TopicPartition(place.topic, number) for number in (0, 1)], timeout=10)
    consumer.close()
    assert sum(max(0, partition.offset) for partition in committed) == len(lines)


SLOW = """
import time
from pathlib import Path

def keep(frame):
    Path("HERE/started").touch()
    while Path("HERE/hold").exists():
        time.sleep(0.05)
    return frame
"""
PIPELINE = """
dag_id: test
tasks:
  - id: data
    uses: ingest
    with: {source: "kafka://TOPIC", since_last_run: true}
  - id: slow
    uses: transform
    with: {data: {$x: data}, entry: slow.py:keep}
"""


def test_a_run_that_is_killed_leaves_its_messages_to_the_next(place: Place, tmp_path: Path) -> None:
    folder = tmp_path / "pipeline"
    folder.mkdir()
    (folder / "pipeline.yaml").write_text(PIPELINE.replace("TOPIC", place.topic))
    (folder / "slow.py").write_text(SLOW.replace("HERE", str(tmp_path)))
    (tmp_path / "hold").touch()
    place.send(1, 2, 3)
    environment = {**os.environ, "EDGEWRIGHT_HOME": str(tmp_path / "home"), "EDGEWRIGHT_STORE": place.store.root}
    command = [sys.executable, "-m", "edgewright.cli.main", "run", str(folder), "--json", "--run-id"]
    process = subprocess.Popen([*command, "killed"], env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    try:
        deadline = time.monotonic() + 120
        while not (tmp_path / "started").exists():
            assert process.poll() is None, process.stdout and process.stdout.read().decode()
            assert time.monotonic() < deadline
            time.sleep(0.05)
        assert place.log.state(1) == "dispatched"
    finally:
        process.kill()
        process.communicate()
    (tmp_path / "hold").unlink()
    place.send(4)
    done = subprocess.run([*command, "next"], env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    tasks = json.loads(done.stdout)["tasks"]
    assert tasks[0]["result"]["metrics"]["messages"] == 4
    takers = {(place.log.marked("done", number) or {}).get("run_id") for number in (1, 2)}
    assert takers == {"next"}
