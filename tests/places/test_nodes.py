"""nodes: the Job as Kubernetes takes it, and the program of each node, as real processes that meet on this machine."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from support.models import Workplace

from edgewright.errors import ConfigError
from edgewright.places.choose import choose
from edgewright.places.nodes import build_job, build_service
from edgewright.spec.profiles import Profile
from edgewright.steps.contract import Identity, StepRequest

FIT = """
import os, socket, time
from sklearn.linear_model import LogisticRegression

def fit(data, broken=-1):
    rank, place = int(os.environ["RANK"]), (os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]))
    if rank == broken:
        raise ValueError("no memory")
    if rank:
        while True:
            try:
                socket.create_connection(place).sendall(b"5")
                return None
            except OSError:
                time.sleep(0.1)
    with socket.create_server(place) as server:
        data.log_metric("got", int(server.accept()[0].recv(1)))
    return LogisticRegression().fit(data.X, data.y)
"""


def request_for(**config: Any) -> StepRequest:
    identity = Identity(dag_id="a-pipeline-with-a-very-long-name-indeed", run_id="r", task_id="and-a-task-of-it")
    return StepRequest(step="train", store="s3://b/s", identity=identity, config=config)


def profile(**more: Any) -> Profile:
    return Profile.model_validate({"on": "kubernetes", "image": "i", "nodes": 12, "queue": "team-a", **more})


def test_the_job_is_one_that_kubernetes_takes() -> None:
    from kubernetes.client import models

    from edgewright.places.pod_template import _walk

    job = build_job(profile(), request_for(), "airflow")
    service = build_service({**job, "metadata": {**job["metadata"], "uid": "u"}})
    for kind, document in (("V1Job", job), ("V1Service", service)):
        assert list(_walk(document, kind, kind, models)) == []
    spec = job["spec"]
    assert (spec["completions"], spec["parallelism"], spec["completionMode"]) == (12, 12, "Indexed")
    # the names of pods are names of hosts: 63 characters, with the number of the last node
    assert len(f"{job['metadata']['name']}-11") <= 63
    # Kueue admits the Job, never its pods one by one
    assert job["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "team-a"
    assert "kueue.x-k8s.io/queue-name" not in spec["template"]["metadata"]["labels"]
    env = {one["name"]: one.get("value") for one in spec["template"]["spec"]["containers"][0]["env"]}
    assert env["WORLD_SIZE"] == env["PET_NNODES"] == "12"
    assert env["MASTER_ADDR"] == f"{job['metadata']['name']}-0.{service['metadata']['name']}"


def test_only_training_runs_on_several_nodes() -> None:
    from edgewright.installation import Installation

    own = {"many": {"on": "kubernetes", "image": "i", "nodes": 2}}
    request = request_for().model_copy(update={"step": "evaluate"})
    with pytest.raises(ConfigError, match="nodes: 2 is for a train step; evaluate runs on one"):
        choose("many", None, own, Installation(home=Path("/none")), request)


def start(place: Workplace, file: Path, rank: int, port: int, **more: str) -> subprocess.Popen[str]:
    env = {
        **os.environ, "EDGEWRIGHT_NODE": str(rank), "RANK": str(rank), "EDGEWRIGHT_HOSTS": "127.0.0.1,localhost",
        "EDGEWRIGHT_START_TIMEOUT": "60", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), **more,
    }  # fmt: skip
    return subprocess.Popen([sys.executable, "-m", "edgewright.steps.nodes", str(file)], env=env, text=True,
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE)  # fmt: skip


@pytest.fixture
def place(tmp_path: Path) -> Workplace:
    found = Workplace(tmp_path)
    found.model_py(FIT)
    return found


def file_of(place: Workplace, **args: Any) -> Path:
    rows = pd.DataFrame({"a": [float(n % 7) for n in range(60)], "y": [n % 2 for n in range(60)]})
    data = place.dataset({"train": rows}, "y")
    request = place.request("train", task="model", data=data, entry="model.py:fit", args=args)
    file = place.root / "request.json"
    file.write_text(request.model_dump_json())
    return file


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def test_the_first_node_keeps_the_model_and_the_other_one_nothing(place: Workplace) -> None:
    file, port = file_of(place), free_port()
    nodes = [start(place, file, rank, port) for rank in (0, 1)]
    for node in nodes:
        _, errors = node.communicate(timeout=300)
        assert node.returncode == 0, errors
    assert place.last("model", "run-1")["state"] == "success"
    artifacts = list((place.root / "store" / "artifacts").glob("*/*"))
    assert len(artifacts) == 2  # the dataset and the model


def test_what_fails_on_another_node_is_the_result_of_the_task(place: Workplace) -> None:
    node = start(place, file_of(place, broken=1), 1, free_port())
    node.communicate(timeout=300)
    assert node.returncode == 1
    found = place.last("model", "run-1")
    assert found["error"]["message"].startswith("node 1: model.py:fit raised ValueError: no memory")
    assert found["error"]["user_fault"] is True


def test_nobody_begins_before_all_are_there(place: Workplace) -> None:
    hosts = {"EDGEWRIGHT_HOSTS": "127.0.0.1,nobody.invalid", "EDGEWRIGHT_START_TIMEOUT": "0"}
    node = start(place, file_of(place), 0, free_port(), **hosts)
    _, errors = node.communicate(timeout=300)
    assert node.returncode == 75
    assert "1 of 2 nodes did not come: nobody.invalid" in errors
    assert not list(place.root.glob("store/runs/*/*/*/result.json"))
    assert json.loads((place.root / "request.json").read_text())["step"] == "train"
