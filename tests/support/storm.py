"""An Airflow whose processes a test may kill and start again one by one, with pipelines that messages start."""

from __future__ import annotations

import collections
import contextlib
import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pyarrow.parquet as pq
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, NewTopic

from edgewright.artifacts import ArtifactRef, ArtifactStore
from edgewright.cli.airflow_api import AirflowApi
from edgewright.cli.dev.kafka import KafkaServer
from edgewright.cli.stack import airflow
from edgewright.cli.stack.health import wait_until_healthy
from edgewright.cli.stack.ports import HOST, PortClaims
from edgewright.cli.stack.processes import start, stop
from edgewright.cli.stack.secrets import Secrets
from edgewright.cli.stack.state import Part, StackState
from edgewright.errors import EdgewrightError
from edgewright.spec.triggers import source_id
from edgewright.streams.batches import BatchLog

#: So that a test need not wait for minutes until Airflow takes a process that was killed for dead.
IMPATIENT = {
    "AIRFLOW__SCHEDULER__ORPHANED_TASKS_CHECK_INTERVAL": "15",
    "AIRFLOW__SCHEDULER__SCHEDULER_HEALTH_CHECK_THRESHOLD": "15",
    "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": "30",
    "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT_DETECTION_INTERVAL": "5",
    "AIRFLOW__TRIGGERER__TRIGGERER_HEALTH_CHECK_THRESHOLD": "15",
    "AIRFLOW__SCHEDULER__TASK_QUEUED_TIMEOUT": "60",
    "AIRFLOW__SCHEDULER__TASK_QUEUED_TIMEOUT_CHECK_INTERVAL": "10",
}
PIPELINE = """
dag_id: {name}
max_active_runs: 8
task_defaults: {{retries: 3, retry_delay: 2s}}
triggers:
  - kafka: {{topic: {name}, start: earliest, {trigger}}}
tasks:
  - id: data
    uses: ingest
    with: {{source: data.csv, label: y, on_event: replace}}
"""

#: A run of it costs one task, so that hundreds can be run.
LIGHT = """
dag_id: {name}
triggers:
  - kafka: {{topic: {name}, start: earliest, {trigger}}}
tasks:
  - {{id: nothing, uses: airflow.providers.standard.operators.empty.EmptyOperator}}
"""


def wait_for(what: Callable[[], Any], seconds: float, reason: Callable[[], str]) -> Any:
    """Return what comes to be true, or fail with the reason."""
    deadline = time.monotonic() + seconds
    while not (found := what()):
        assert time.monotonic() < deadline, reason()
        time.sleep(1)
    return found


class Storm:
    """The parts of Airflow on one machine.

    Args:
        folder: Where everything lies.
        database: Address of Airflow's database; default: SQLite in the folder.
        twice: Parts of which there are two.
    """

    def __init__(self, folder: Path, database: str | None = None, twice: Iterable[str] = ()) -> None:
        self.home, self.dags = folder / "home", folder / "dags"
        self.dags.mkdir(parents=True)
        self.state = StackState(home=str(self.home), dags=str(self.dags))
        self._database = database
        self._twice = set(twice)
        self._variables: dict[str, str] = {}

    @property
    def store(self) -> ArtifactStore:
        """The store of events and results."""
        return ArtifactStore(self.home / "store")

    @property
    def api(self) -> AirflowApi:
        """Airflow's REST API."""
        return AirflowApi.local(self.home)

    @contextlib.contextmanager
    def running(self, **variables: str) -> Iterator[Storm]:
        """Start all parts, and stop what is left of them at the end.

        Args:
            variables: Environment of all parts beside what the local stack has.
        """
        secrets = Secrets.of(self.home)
        claims = PortClaims()
        try:
            with claims.held():
                port = claims.take(21000 + os.getpid() % 5000)
                settings = airflow.environment(self.home, self.dags, port, secrets)
                self._variables = {**settings, **IMPATIENT, **variables}
                airflow.prepare(self.home, secrets)
                self._migrate()
                self.state.urls["airflow"] = f"http://{HOST}:{port}"
                self.state.login_file = str(airflow.login_file(self.home))
                for name in airflow.COMPONENTS:
                    self.start(name, port if name == "api-server" else None)
                    if name in self._twice:
                        self.start(name)
                self.state.complete = True
                self.state.save()
                wait_until_healthy(self.state, lambda line: None, 300)
            yield self
        finally:
            stop(self.state, grace=10)
            self.state.forget()

    def _migrate(self) -> None:
        if self._database is None:
            airflow.migrate(self.home, self._variables, lambda line: None)
            return
        for name in ("SQL_ALCHEMY_CONN", "SQL_ALCHEMY_CONN_ASYNC"):
            self._variables[f"AIRFLOW__DATABASE__{name}"] = self._database
        command = [airflow.executable(), "db", "migrate"]
        done = subprocess.run(command, env=self._variables, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr[-3000:]

    # -- its processes -----------------------------------------------------------------------------------------

    def start(self, name: str, port: int | None = None) -> Part:
        """Start a part."""
        log = self.home / "logs" / f"{name}.log"
        command = [airflow.executable(), *airflow.COMPONENTS[name]]
        part = start(name, command, self._variables, log, port=port)
        self.state.parts.append(part)
        self.state.save()
        return part

    def parts(self, name: str) -> list[Part]:
        """Return the parts of a name that live."""
        return [part for part in self.state.parts if part.name == name and part.process() is not None]

    def kill(self, name: str, number: int = 0) -> None:
        """End a part with everything that it started, as a machine that fails would."""
        part = self.parts(name)[number]
        process = psutil.Process(part.pid)
        children = process.children(recursive=True)
        os.killpg(part.pid, signal.SIGKILL)
        for child in children:
            with contextlib.suppress(psutil.NoSuchProcess):
                child.kill()
        psutil.wait_procs([process, *children], timeout=20)
        self.state.parts.remove(part)
        self.state.save()

    def kill_all(self, name: str) -> int:
        """End all parts of a name, and return how many they were."""
        number = len(self.parts(name))
        for _ in range(number):
            self.kill(name)
        return number

    # -- its pipelines -----------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def pipeline(self, name: str, trigger: str, text: str = PIPELINE) -> Iterator[Pipeline]:
        """Add a pipeline that messages of the topic of its name start, and take it away at the end."""
        folder = self.dags / name
        folder.mkdir()
        (folder / "data.csv").write_text("n,y\n0,0\n1,1\n")
        (folder / "pipeline.yaml").write_text(text.format(name=name, trigger=trigger))
        try:
            yield Pipeline(self, name)
        finally:
            shutil.rmtree(folder)

    def asset_events(self, name: str) -> list[dict[str, Any]]:
        """Return the events of a pipeline's asset that Airflow's web page shows, with what they carry."""
        query = {"limit": 100, "order_by": "-timestamp"}
        events = self.api.call("GET", "/assets/events", params=query)["asset_events"]
        return [event["extra"].get("payload") or {} for event in events if event["uri"].endswith(f"/kafka-{name}")]


class Pipeline:
    """One pipeline of a :class:`Storm`.

    Args:
        storm: Where it runs.
        name: Of the pipeline and of its topic.
    """

    def __init__(self, storm: Storm, name: str) -> None:
        self.storm = storm
        self.name = name

    @property
    def log(self) -> BatchLog:
        """Its batches."""
        return BatchLog(self.storm.store, self.name, source_id("kafka", {"topic": self.name}))

    def is_there(self) -> bool:
        """Whether Airflow knows it."""
        with contextlib.suppress(EdgewrightError):
            return bool(self.storm.api.call("GET", f"/dags/{self.name}__events"))
        return False

    def batches(self) -> int:
        """Return how many batches were stored."""
        head = self.log.head()
        return head.number if head else 0

    def states(self) -> collections.Counter[str]:
        """Return how many batches are in which state."""
        return collections.Counter(self.log.state(number) for number in range(1, self.batches() + 1))

    def done(self) -> int:
        """Return how many messages are in batches whose run ended well."""
        log = self.log
        return sum(batch.messages for number in log.numbers("done") if (batch := log.read(number)))

    def runs(self) -> dict[str, str]:
        """Return the state of each run that an event started."""
        found: dict[str, str] = {}
        while True:
            query = {"limit": 100, "offset": len(found), "order_by": "run_after"}
            page = self.storm.api.call("GET", f"/dags/{self.name}/dagRuns", params=query)
            found |= {run["dag_run_id"]: run["state"] for run in page["dag_runs"]}
            if not page["dag_runs"] or len(found) >= page["total_entries"]:
                return found

    def rows(self) -> collections.Counter[int]:
        """Return how often each message stands in the datasets of runs that ended well."""
        counts: collections.Counter[int] = collections.Counter()
        for run_id, state in self.runs().items():
            if state != "success":
                continue
            result = self.storm.store.read_json(f"runs/{self.name}/{run_id}/data/result.json")
            if result["state"] != "success":
                continue
            (output,) = result["outputs"].values()
            folder = self.storm.store.fetch(ArtifactRef(**output))
            for file in folder.glob("*.parquet"):
                counts.update(pq.read_table(file, columns=["n"]).column("n").to_pylist())
        return counts

    def wait_until_done(self, messages: int, seconds: float) -> None:
        """Wait until so many messages are in runs that ended well; say where they are if they never are."""

        def reason() -> str:
            return f"{self.done()} of {messages} are done; batches {dict(self.states())}"

        wait_for(lambda: self.done() >= messages, seconds, reason)
        unfinished = ("queued", "running")
        wait_for(lambda: not any(state in unfinished for state in self.runs().values()), 240, reason)

    def check_runs(self, number: int, what: str) -> None:
        """Check that each batch has one run of its own, which ended well, and print how many."""
        runs, log = self.runs(), self.log
        print(f"{what}: {self.batches()} batches, {len(runs)} runs {dict(collections.Counter(runs.values()))}")
        assert set(runs.values()) == {"success"}
        claims = [(log.marked("claimed", n) or {}).get("run_id") for n in range(1, self.batches() + 1)]
        assert sorted(runs) == sorted(str(claim) for claim in claims)
        assert len(runs) == number

    def check(self, numbers: Iterable[int], what: str) -> None:
        """Check that each message is in the dataset of exactly one run that ended well, and print how many."""
        counts, runs = self.rows(), self.runs()
        states = dict(collections.Counter(runs.values()))
        print(f"{what}: {sum(counts.values())} messages in {self.batches()} batches and {len(runs)} runs {states}")
        assert sorted(counts) == sorted(numbers)
        assert set(counts.values()) <= {1}


def make_topic(server: KafkaServer, name: str, partitions: int = 1, **config: str) -> None:
    """Make a topic; waits for one of that name to be gone."""
    admin = AdminClient({"bootstrap.servers": server.bootstrap})
    admin.create_topics([NewTopic(name, partitions, config=config)])[name].result(30)


def send(server: KafkaServer, topic: str, numbers: Iterable[int], **more: Any) -> None:
    """Send a message for each number."""
    producer = Producer({"bootstrap.servers": server.bootstrap, "message.max.bytes": 20_000_000})
    for number in numbers:
        producer.produce(topic, json.dumps({"n": number, "y": number % 2, **more}).encode())
    assert producer.flush(60) == 0
