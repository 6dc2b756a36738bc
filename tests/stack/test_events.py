"""Messages of a real broker start runs of a real Airflow: one run a batch, each message in one dataset."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from confluent_kafka import Consumer, Producer
from stack_support import ROOT, Stack

from edgewright.artifacts import ArtifactStore
from edgewright.cli.dev.cassandra import CassandraServer
from edgewright.cli.dev.kafka import KafkaServer
from edgewright.streams.addresses import cassandra_address
from edgewright.streams.batches import BatchLog
from edgewright.streams.cassandra import Connection

pytestmark = [pytest.mark.stack, pytest.mark.airflow]
DAG, SOURCE = "bracelet-stream", "kafka-bracelet-labelled"
MESSAGES = (ROOT / "dags" / "bracelet-stream" / "messages.jsonl").read_text().splitlines()


def wait_for(what: Callable[[], Any], seconds: float, reason: str) -> Any:
    deadline = time.monotonic() + seconds
    while not (found := what()):
        assert time.monotonic() < deadline, reason
        time.sleep(1)
    return found


def connect(api: httpx.Client, connection: dict[str, Any]) -> None:
    """Make a connection; on a busy machine Airflow's SQLite may be locked for longer than the server waits."""

    def made() -> bool:
        return api.post("/api/v2/connections", json=connection).status_code in (201, 409)

    wait_for(made, 120, f"{connection['connection_id']} cannot be made")


@pytest.fixture(scope="module")
def api(stack: Stack, kafka: KafkaServer) -> httpx.Client:
    """The stack with the example, and a connection to the broker."""
    api = stack.airflow()
    extra = {"bootstrap.servers": kafka.bootstrap, "topic.metadata.refresh.interval.ms": 1000}
    connection = {"connection_id": "kafka_default", "conn_type": "kafka", "extra": json.dumps(extra)}
    connect(api, connection)
    shutil.copytree(ROOT / "dags" / DAG, stack.dags / DAG, ignore=shutil.ignore_patterns("__pycache__"))
    wait_for(lambda: api.get(f"/api/v2/dags/{DAG}__events").is_success, 60, "there is no companion Dag")
    return api


@pytest.fixture
def log(stack: Stack) -> BatchLog:
    return BatchLog(ArtifactStore(stack.home / "store"), DAG, SOURCE)


def send(kafka: KafkaServer, lines: list[str], topic: str = "bracelet-labelled") -> None:
    producer = Producer({"bootstrap.servers": kafka.bootstrap})
    for line in lines:
        producer.produce(topic, line.encode())
    assert producer.flush(20) == 0


def states(log: BatchLog) -> list[str]:
    head = log.head()
    return [log.state(number) for number in range(1, (head.number if head else 0) + 1)]


def messages_done(log: BatchLog) -> int:
    return sum(b.messages for n in log.numbers("done") if (b := log.read(n)))


def runs(api: httpx.Client) -> dict[str, str]:
    answer = api.get(f"/api/v2/dags/{DAG}/dagRuns", params={"limit": 100}).json()
    return {run["dag_run_id"]: run["state"] for run in answer["dag_runs"]}


def replies(kafka: KafkaServer, count: int) -> list[dict[str, Any]]:
    settings = {"bootstrap.servers": kafka.bootstrap, "group.id": "reads", "auto.offset.reset": "earliest"}
    consumer = Consumer(settings)
    consumer.subscribe(["bracelet-done"])
    found: list[dict[str, Any]] = []
    deadline = time.monotonic() + 30
    while len(found) < count and time.monotonic() < deadline:
        found += [json.loads(m.value()) for m in consumer.consume(10, 1.0) if m.error() is None]
    consumer.close()
    return found


def test_messages_become_runs_that_train_on_them(
    api: httpx.Client, kafka: KafkaServer, stack: Stack, log: BatchLog
) -> None:
    send(kafka, [*MESSAGES[:40], "{no JSON", MESSAGES[40].replace('"age": ', '"age": 9')])
    wait_for(lambda: messages_done(log) == 40, 240, f"batches are {states(log)}")
    wait_for(lambda: set(runs(api).values()) == {"success"}, 60, "a run has not ended well")
    found = runs(api)
    claimed = [log.claimed_by(b) for n in log.numbers("done") if (b := log.read(n))]
    assert sorted(found) == sorted(name for name in claimed if name)
    last = replies(kafka, len(found))
    assert {reply["run_id"] for reply in last} == set(found)
    assert {reply["state"] for reply in last} == {"success"}
    assert sum(reply["messages"] for reply in last) == 40
    rows = [reply["metrics"]["data"]["rows"] for reply in last]
    assert max(rows) == 127 + 40 + 76  # the source, every message, the holdout


@pytest.mark.slow
def test_batches_wait_while_the_pipeline_is_paused(
    api: httpx.Client, kafka: KafkaServer, stack: Stack, log: BatchLog
) -> None:
    before, done = len(runs(api)), messages_done(log)  # none, where this test runs alone
    api.patch(f"/api/v2/dags/{DAG}", json={"is_paused": True}).raise_for_status()
    send(kafka, MESSAGES[40:60])
    wait_for(lambda: "pending" in states(log), 60, f"batches are {states(log)}")
    time.sleep(4)
    assert len(runs(api)) == before
    api.patch(f"/api/v2/dags/{DAG}", json={"is_paused": False}).raise_for_status()
    api.post(f"/api/v2/dags/{DAG}__events/dagRuns", json={"logical_date": None}).raise_for_status()
    wait_for(lambda: messages_done(log) == done + 20, 180, f"batches are {states(log)}")


def test_the_command_shows_them(stack: Stack, log: BatchLog) -> None:
    shown = json.loads(stack.run("events", "list", DAG, "--json").stdout)["batches"]
    assert {row["state"] for row in shown if row["messages"]} == {"done"}
    assert sum(row["rejected"] for row in shown) == 2
    told = [stack.run("events", "show", DAG, row["name"]).stdout for row in shown if row["rejected"]]
    assert "no JSON" in "".join(told)
    assert "it does not fit: age: fails in_range(18, 110)" in "".join(told)


@pytest.mark.slow
def test_a_file_that_lands_in_a_folder_starts_a_run(api: httpx.Client, stack: Stack) -> None:
    inbox, pipeline = stack.home.parent / "inbox", stack.dags / "inbox"
    inbox.mkdir()
    pipeline.mkdir()
    (pipeline / "data.csv").write_text("x,y\n1,0\n2,1\n")
    trigger = f"{{objects: {{uri: 'file://{inbox}/*.csv', every: 1s}}}}"
    task = "{id: data, uses: ingest, with: {source: data.csv, label: y, on_event: replace}}"
    (pipeline / "pipeline.yaml").write_text(f"dag_id: inbox\ntriggers: [{trigger}]\ntasks: [{task}]\n")
    wait_for(lambda: api.get("/api/v2/dags/inbox__events").is_success, 60, "there is no companion Dag")
    (inbox / "new.csv").write_text("y,x\n0,7\n1,8\n1,9\n")
    store = ArtifactStore(stack.home / "store")
    found = wait_for(lambda: store.list_folders("events/inbox"), 90, "nothing was seen")
    log = BatchLog(store, "inbox", next(name for name in found if name.startswith("objects")))
    wait_for(lambda: states(log) == ["done"], 90, f"batches are {states(log)}")
    (run,) = api.get("/api/v2/dags/inbox/dagRuns").json()["dag_runs"]
    assert run["dag_run_id"].startswith("event__new.csv-")
    result = store.read_json(f"runs/inbox/{run['dag_run_id']}/data/result.json")
    assert result["metrics"]["rows"] == 3


PULLING = """
dag_id: pulling
schedule: null
tasks:
  - id: data
    uses: ingest
    with: {source: "kafka://pulled", since_last_run: true}
  - id: check
    uses: transform
    with: {data: {$x: data}, entry: check.py:check}
"""
CHECK = """
from pathlib import Path

def check(frame):
    assert not Path("FAIL").exists(), "told to fail"
    return frame
"""


@pytest.mark.slow
def test_runs_pull_what_came_since_the_last_one_that_ended_well(
    api: httpx.Client, stack: Stack, kafka: KafkaServer
) -> None:
    fail = stack.home.parent / "fail"
    (stack.dags / "pulling").mkdir()
    (stack.dags / "pulling" / "check.py").write_text(CHECK.replace("FAIL", str(fail)))
    (stack.dags / "pulling" / "pipeline.yaml").write_text(PULLING)
    producer = Producer({"bootstrap.servers": kafka.bootstrap})
    producer.produce("pulled", b'{"n": 1}')
    producer.produce("pulled", b'{"n": 2}')
    assert producer.flush(20) == 0
    wait_for(lambda: api.get("/api/v2/dags/pulling").is_success, 90, "the Dag is not there")
    store = ArtifactStore(stack.home / "store")

    def messages(run_id: str) -> int:
        return int(store.read_json(f"runs/pulling/{run_id}/data/result.json")["metrics"]["messages"])

    fail.touch()
    assert stack.trigger("--run-id", "one", dag_id="pulling", check=False)["state"] == "failed"
    fail.unlink()
    producer.produce("pulled", b'{"n": 3}')
    assert producer.flush(20) == 0
    assert stack.trigger("--run-id", "two", dag_id="pulling")["state"] == "success"
    assert (messages("one"), messages("two")) == (2, 3)
    log = BatchLog(store, "pulling", "pull-pulled")
    assert set(states(log)) == {"done"}
    # the others are skipped with their task
    stack.trigger("--run-id", "three", dag_id="pulling")
    result = store.read_json("runs/pulling/three/data/result.json")
    assert result["state"] == "skipped"
    assert "no new messages in pulled" in result["error"]["message"]


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_requests_of_the_service_go_into_cassandra_by_runs_of_their_own(
    api: httpx.Client, kafka: KafkaServer, cassandra: CassandraServer, stack: Stack
) -> None:
    connect(api, {
        "connection_id": "cassandra_default", "conn_type": "cassandra", "host": cassandra.host, "port": cassandra.port,
    })  # fmt: skip
    name = "requests-tracked"
    shutil.copytree(ROOT / "dags" / name, stack.dags / name)
    wait_for(lambda: api.get(f"/api/v2/dags/{name}__events").is_success, 60, "there is no companion Dag")
    requests = (ROOT / "dags" / name / "requests.jsonl").read_text().splitlines()
    send(kafka, [*requests, "{no JSON"], topic="bracelet-requests")
    log = BatchLog(ArtifactStore(stack.home / "store"), name, "kafka-bracelet-requests")
    wait_for(lambda: messages_done(log) == len(requests), 240, f"batches are {states(log)}")
    with Connection(cassandra_address(f"cassandra://{cassandra.host}:{cassandra.port}/live")) as session:
        rows = [(row.request_id, row.row) for row in session.execute("SELECT request_id, row FROM live.bracelet")]
    assert sorted(rows) == [("53b9", 0), ("53b9", 1), ("9c01", 0)]
    done = api.get(f"/api/v2/dags/{name}/dagRuns").json()["dag_runs"]
    assert {run["state"] for run in done} == {"success"}
