"""``wait`` and the sensors in running Dags: deferred to their trigger, and what they took reaches the next task."""

from __future__ import annotations

import asyncio
import json
import time
import uuid
from pathlib import Path
from typing import Any

import pytest
from airflow.sdk import DAG
from support import airflow_env

from edgewright.artifacts import ArtifactStore
from edgewright.errors import ConfigError
from edgewright.operators import IngestOperator, KafkaBatchSensor, ModelVersionSensor, ObjectSensor, WaitOperator
from edgewright.streams.batches import BatchLog
from edgewright.triggers import waits
from edgewright.triggers.waits import WaitTrigger

pytestmark = pytest.mark.airflow


@pytest.fixture
def inbox(tmp_path: Path, home: Path) -> Path:
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "a.csv").write_text("x,y\n1,0\n2,1\n")
    return folder


def waiting_dag(dag_id: str, folder: Path, **arguments: Any) -> DAG:
    with DAG(dag_id, schedule=None) as dag:
        files = ObjectSensor(
            task_id="files", uri=f"file://{folder}/*.csv", poke_interval=0.2, folder=str(folder),
            **{"timeout": "5m", **arguments},
        )  # fmt: skip
        IngestOperator(task_id="data", source=files, label="y", folder=str(folder))
    return dag


def test_the_sensors_say_what_wait_says() -> None:
    with DAG("d", schedule=None):
        labels = KafkaBatchSensor(task_id="labels", topic="a", messages=5, timeout=60, soft_fail=True)
        model = ModelVersionSensor(task_id="model", model="m", alias="champion", poke_interval=5)
    assert labels.config == {"kafka": {"topic": "a", "messages": 5}, "timeout": 60, "soft_fail": True}
    assert model.config == {"registry": {"model": "m", "alias": "champion", "every": 5}}


def test_all_faults_of_a_sensor_are_told_at_once() -> None:
    with DAG("d", schedule=None), pytest.raises(ConfigError) as caught:
        KafkaBatchSensor(task_id="labels", messages=0, timeout="soon")
    assert "topic is required" in str(caught.value)
    assert "kafka.messages: 0" in str(caught.value)
    assert "timeout: 'soon': must be a duration" in str(caught.value)


def test_a_sensor_defers_and_the_next_task_reads_what_it_took(inbox: Path, home: Path) -> None:
    run = airflow_env.run(waiting_dag("defers", inbox))
    assert airflow_env.states(run) == {"files": "success", "data": "success"}
    assert airflow_env.xcom(run, "data")["metrics"]["rows"] == 2
    log = BatchLog(ArtifactStore(home / "store"), "defers", airflow_env.xcom(run, "files")["tags"]["batch"])
    log = BatchLog(log.store, "defers", next(iter(log.store.list_folders("events/defers"))))
    assert log.state(1) == "dispatched"
    (inbox / "b.csv").write_text("x,y\n3,0\n")
    second = airflow_env.run(waiting_dag("defers", inbox))
    assert airflow_env.xcom(second, "data")["metrics"]["rows"] == 1
    assert BatchLog(log.store, "defers", log.source).state(1) == "done"  # its run has ended since


def test_without_the_triggerer_the_worker_waits(inbox: Path) -> None:
    run = airflow_env.run(waiting_dag("holds", inbox, deferrable=False))
    assert airflow_env.states(run) == {"files": "success", "data": "success"}


def test_a_timeout_fails_for_good_with_the_reason(inbox: Path) -> None:
    seen: list[BaseException] = []
    dag = waiting_dag("late", inbox, objects=2, timeout=1, retries=3,
                      on_failure_callback=lambda context: seen.append(context["exception"]))  # fmt: skip
    run = airflow_env.run(dag)
    assert airflow_env.states(run) == {"files": "failed", "data": "upstream_failed"}
    assert type(seen[0]).__name__ == "AirflowFailException"
    assert f" of 2 objects of file://{inbox}/*.csv came within 1 s" in str(seen[0])


def test_a_soft_timeout_skips_and_what_follows(inbox: Path) -> None:
    run = airflow_env.run(waiting_dag("soft", inbox, objects=2, timeout=1, soft_fail=True))
    assert airflow_env.states(run) == {"files": "skipped", "data": "skipped"}


def test_a_connection_that_is_not_there_fails_at_once(home: Path, tmp_path: Path) -> None:
    seen: list[BaseException] = []
    with DAG("nowhere", schedule=None) as dag:
        WaitOperator(
            task_id="labels", kafka={"topic": "a", "connection": "nowhere"}, retries=2, folder=str(tmp_path),
            on_failure_callback=lambda context: seen.append(context["exception"]),
        )  # fmt: skip
    airflow_env.run(dag)
    assert "no connection 'nowhere'" in str(seen[0])


def test_a_mapped_sensor_takes_a_batch_each(inbox: Path) -> None:
    other = inbox / "other"
    other.mkdir()
    (other / "b.csv").write_text("x,y\n3,0\n")
    with DAG("mapped", schedule=None) as dag:
        ObjectSensor.partial(task_id="files", poke_interval=0.2, folder=str(inbox), timeout="5m").expand(
            uri=[f"file://{inbox}/*.csv", f"file://{other}/*.csv"]
        )
    run = airflow_env.run(dag)
    assert run.state == "success"


def test_a_trigger_is_made_again_and_two_triggerers_find_the_same_batch(
    inbox: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(waits, "LEAST", 0.0)
    config = {"objects": {"uri": f"file://{inbox}/*.csv", "every": 0.1}, "timeout": 300}
    trigger = WaitTrigger("d", "r1", "files", -1, config, time.time() + 300)
    path, kwargs = trigger.serialize()
    assert path == "edgewright.triggers.waits.WaitTrigger"
    kwargs = json.loads(json.dumps(kwargs))

    async def event(one: WaitTrigger) -> Any:
        return await anext(one.run())

    async def both() -> list[Any]:
        return await asyncio.gather(event(WaitTrigger(**kwargs)), event(WaitTrigger(**kwargs)))

    first, second = asyncio.run(both())
    assert first.payload == second.payload
    assert first.payload["state"] == "found"


def test_a_trigger_does_not_fire_at_once(inbox: Path, home: Path) -> None:
    config = {"objects": {"uri": f"file://{inbox}/*.csv", "every": 0.1}, "timeout": 300}
    trigger = WaitTrigger("d", uuid.uuid4().hex, "files", -1, config, time.time() + 300)

    async def event() -> Any:
        return await anext(trigger.run())

    begun = time.monotonic()
    assert asyncio.run(event()).payload["state"] == "found"
    assert time.monotonic() - begun >= waits.LEAST
