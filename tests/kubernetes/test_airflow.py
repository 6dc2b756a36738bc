"""Steps in pods of a real cluster, started by a real Airflow whose parts die, and whose user changes their mind."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.cluster import Place, marks, pods, until
from support.storm import Storm

pytestmark = [*marks, pytest.mark.airflow, pytest.mark.timeout(900)]
DAG = """
from airflow.sdk import DAG
from edgewright.operators import IngestOperator, TrainOperator

PROFILES = {{"pods": {profile!r}}}
for name, deferrable in (("waits", True), ("holds", False)):
    with DAG(name, schedule=None):
        data = IngestOperator(task_id="data", source="data.csv", label="y", folder="flow", cache="off")
        TrainOperator(
            task_id="model", data=data.output, entry="model.py:fit", folder="flow", cache="off", profile="pods",
            profiles=PROFILES, deferrable=deferrable, retries=2, retry_delay=1,
        )
"""
#: Says that it began, and goes on when it is let in.
FIT = """
import os, pathlib, time, uuid
from sklearn.linear_model import LogisticRegression

def fit(data):
    home = pathlib.Path("HOME")
    (home / f"began-{uuid.uuid4().hex}").touch()
    print("epoch 1/2 loss 0.5", flush=True)
    while not (home / "open").exists():
        time.sleep(0.2)
    print("epoch 2/2 loss 0.2", flush=True)
    return LogisticRegression().fit(data.X, data.y)
"""
ROWS = "a,y\n" + "".join(f"{number % 7},{number % 2}\n" for number in range(60))


@pytest.fixture(scope="module")
def storm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Storm]:
    place = Place(tmp_path_factory.mktemp("pods"))
    storm = Storm(place.home.parent)
    flow = storm.dags / "flow"
    flow.mkdir()
    (flow / "data.csv").write_text(ROWS)
    (flow / "model.py").write_text(FIT.replace("HOME", str(place.home)))
    (storm.dags / "pods.py").write_text(DAG.format(profile=place.profile()))
    with storm.running(AIRFLOW_CONN_KUBERNETES_DEFAULT=place.environ["AIRFLOW_CONN_KUBERNETES_DEFAULT"]) as running:
        for name in ("waits", "holds"):
            running.api.wait_for_dag(name, 180)
        yield running


@pytest.fixture(autouse=True)
def _closed(storm: Storm) -> Iterator[None]:
    yield
    (storm.home / "open").unlink(missing_ok=True)
    for mark in began(storm):
        mark.unlink()
    until(lambda: not pods())


def began(storm: Storm) -> list[Path]:
    return list(storm.home.glob("began-*"))


def task(storm: Storm, dag: str, run: str) -> dict[str, Any]:
    return next(one for one in storm.api.tasks(dag, run) if one["task_id"] == "model")


def start(storm: Storm, dag: str, state: str) -> tuple[str, str]:
    """Start a run; return it and its pod when that is at work and Airflow's task is in a state."""
    run = storm.api.start_run(dag, {})
    until(lambda: len(began(storm)) == 1 and task(storm, dag, run)["state"] == state, 240)
    (pod,) = pods()
    return run, pod["metadata"]["uid"]


def finish(storm: Storm, dag: str, run: str) -> dict[str, Any]:
    (storm.home / "open").touch()
    until(lambda: storm.api.run(dag, run)["state"] in ("success", "failed"), 300)
    assert storm.api.run(dag, run)["state"] == "success", storm.api.log(dag, run, "model", 1)
    assert len(began(storm)) == 1, "the work was done once"
    return task(storm, dag, run)


def test_a_triggerer_that_dies_while_a_pod_is_at_work(storm: Storm) -> None:
    run, _ = start(storm, "waits", "deferred")
    storm.kill("triggerer")
    (storm.home / "open").touch()
    until(lambda: all(pod["status"]["phase"] == "Succeeded" for pod in pods()))
    storm.start("triggerer")
    assert finish(storm, "waits", run)["try_number"] == 1
    log = storm.api.log("waits", run, "model", 1, lines=400)
    assert "epoch 2/2 loss 0.2" in log


def test_a_worker_that_dies_while_its_pod_is_at_work(storm: Storm) -> None:
    run, uid = start(storm, "holds", "running")
    storm.kill("scheduler")  # and with it the workers of the LocalExecutor
    storm.start("scheduler")
    until(lambda: [pod["metadata"]["labels"]["edgewright.dev/try"] for pod in pods()] == ["2"], 300)
    assert [pod["metadata"]["uid"] for pod in pods()] == [uid]
    assert finish(storm, "holds", run)["try_number"] == 2


@pytest.mark.parametrize(("dag", "state"), [("waits", "deferred"), ("holds", "running")])
def test_a_task_that_is_cancelled_in_airflow_leaves_no_pod(storm: Storm, dag: str, state: str) -> None:
    run, _ = start(storm, dag, state)
    path = f"/dags/{dag}/dagRuns/{run}/taskInstances/model"
    storm.api.call("PATCH", path, json={"new_state": "failed"})  # as its page does
    until(lambda: not pods(), 180)
    until(lambda: storm.api.run(dag, run)["state"] == "failed")
    assert task(storm, dag, run)["state"] == "failed"
