"""Mapped trainings in MLflow: beneath one run, which holds their comparison."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest
from support.models import Workplace
from tests.steps.test_train import LOGISTIC, client_of, table

from edgewright.artifacts import ArtifactRef
from edgewright.steps.contract import StepResult
from edgewright.steps.execute import execute


def mapped(place: Workplace, step: str, index: int, **config: Any) -> StepResult:
    request = place.request(step, f"sweep.{step}", **config)
    identity = request.identity.model_copy(update={"map_index": index})
    return execute(request.model_copy(update={"identity": identity}), store=place.store)


@pytest.fixture(scope="module")
def uri(tmp_path_factory: pytest.TempPathFactory) -> str:
    return f"sqlite:///{tmp_path_factory.mktemp('sweeps')}/mlflow.db"


def test_trainings_of_a_sweep_are_compared(tmp_path: Path, uri: str):
    place = Workplace(tmp_path / "tracked", tracking_uri=uri)
    data: ArtifactRef = place.dataset({"train": table(), "test": table(40, 2)}, "y")
    place.model_py(LOGISTIC)
    client = client_of(place)
    parents = set()
    for index, strength in enumerate((0.001, 1.0, 10.0)):
        trained = mapped(place, "train", index, data=data, entry="model.py:fit", args={"C": strength})
        run = client.get_run(trained.tags["mlflow_run_id"])
        parents.add(run.data.tags["mlflow.parentRunId"])
        mapped(place, "evaluate", index, model=trained.outputs["model"], data=data)
    (parent,) = parents
    whole = client.get_run(parent)
    assert whole.info.status == "FINISHED"
    assert whole.data.tags["edgewright.task_id"] == "sweep.train"
    folder = Path(client.download_artifacts(parent, "comparison"))
    assert (folder / "comparison.png").read_bytes().startswith(b"\x89PNG")
    with (folder / "runs.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert {row["C"] for row in rows} == {"0.001", "1.0", "10.0"}
    scores = [float(row["roc_auc"]) for row in rows]
    assert scores == sorted(scores, reverse=True)


def test_a_training_that_is_not_mapped_stands_alone(tmp_path: Path, uri: str):
    place = Workplace(tmp_path / "tracked", tracking_uri=uri)
    data = place.dataset({"train": table(), "test": table(40, 2)}, "y")
    place.model_py(LOGISTIC)
    trained = place.run("train", data=data, entry="model.py:fit", args={"C": 1.0})
    run = client_of(place).get_run(trained.tags["mlflow_run_id"])
    assert "mlflow.parentRunId" not in run.data.tags
