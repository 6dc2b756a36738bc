"""A worker that is killed leaves nothing half-done, and the retry finishes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from edgewright.artifacts import ArtifactStore
from edgewright.steps.contract import StepResult

#: Waits the first time it is called, so that it can be killed in the middle.
SLOW = """
import pathlib, time
from sklearn.linear_model import LogisticRegression

def fit(data):
    began = pathlib.Path(__file__).with_name("began.txt")
    if not began.exists():
        began.write_text("now")
        time.sleep(120)
    return LogisticRegression(max_iter=500).fit(data.X, data.y)
"""


@pytest.fixture
def request_file(run_step: Any, pipeline_folder: Path, tmp_path: Path) -> Path:
    frame = pd.DataFrame({"a": range(80), "y": [number % 2 for number in range(80)]})
    frame.to_csv(pipeline_folder / "data.csv", index=False)
    (pipeline_folder / "model.py").write_text(SLOW)
    data = run_step("ingest", {"source": "data.csv", "label": "y"})
    request = {
        "version": 1,
        "step": "train",
        "config": {"data": data.outputs["dataset"].model_dump(mode="json"), "entry": "model.py:fit"},
        "identity": {"dag_id": "test", "run_id": "killed", "task_id": "model"},
        "source": {"folder": str(pipeline_folder)},
        "store": str(tmp_path / "store"),
        "tracking_uri": f"sqlite:///{tmp_path / 'mlflow.db'}",
    }
    place = tmp_path / "request.json"
    place.write_text(json.dumps(request))
    return place


def begin(request_file: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "edgewright.steps", str(request_file), "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_a_worker_killed_in_train_leaves_no_half_artifact_and_the_retry_finishes(
    request_file: Path, pipeline_folder: Path, tmp_path: Path
) -> None:
    worker = begin(request_file)
    deadline = time.monotonic() + 60
    while not (pipeline_folder / "began.txt").exists():
        assert worker.poll() is None, worker.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.1)
    os.kill(worker.pid, signal.SIGKILL)
    worker.communicate()
    store = ArtifactStore(tmp_path / "store")
    assert store.read_json("runs/test/killed/model/result.json") is None
    assert len(list((tmp_path / "store" / "artifacts").glob("*/*"))) == 1  # the dataset, nothing of the model
    retry = begin(request_file)
    out, errors = retry.communicate(timeout=120)
    assert retry.returncode == 0, errors
    result = StepResult.model_validate_json(out)
    assert store.verify(result.outputs["model"])
    assert _mlflow_states(tmp_path) == ["FAILED", "FINISHED"]


def _mlflow_states(tmp_path: Path) -> list[str]:
    from mlflow.tracking import MlflowClient

    client = MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("test")
    return sorted(run.info.status for run in client.search_runs([experiment.experiment_id]))


def test_a_full_disk_is_said_and_nothing_is_kept(run_step: Any, pipeline_folder: Path, tmp_path: Path) -> None:
    """The operating system refuses to write more than a little into one file, as a full disk would."""
    (pipeline_folder / "data.csv").write_text("a,b\n" + "".join(f"{n},{n * 0.37}\n" for n in range(60_000)))
    request = {
        "version": 1, "step": "ingest", "config": {"source": "data.csv"},
        "identity": {"dag_id": "test", "run_id": "full", "task_id": "data"},
        "source": {"folder": str(pipeline_folder)}, "store": str(tmp_path / "store"),
    }  # fmt: skip
    code = (
        "import resource, signal, sys; signal.signal(signal.SIGXFSZ, signal.SIG_IGN); "
        "resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000)); "
        "from edgewright.steps.__main__ import main; sys.exit(main([sys.argv[1]]))"
    )
    place = tmp_path / "request.json"
    place.write_text(json.dumps(request))
    done = subprocess.run([sys.executable, "-c", code, str(place)], capture_output=True, text=True, check=False)
    assert done.returncode == 70, done.stderr
    assert "Traceback" not in done.stderr
    assert not list((tmp_path / "store").glob("artifacts/*/*"))
    document = json.loads((tmp_path / "store/runs/test/full/data/result.json").read_text())
    assert document["state"] == "failed"
    assert document["error"]["retriable"] is True
    assert run_step("ingest", {"source": "data.csv"}).state == "success"
