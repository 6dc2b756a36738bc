"""Challenger and champion: measured on the same rows, with what a real registry holds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from support.models import Workplace

from edgewright.artifacts import ArtifactRef
from edgewright.errors import DataError, GateFailed, Unavailable
from edgewright.steps.contract import StepResult

CODE = """
from sklearn.linear_model import LogisticRegression

def fit(data, C: float = 1.0, columns: list[str] = ["a", "b", "c"]):
    return LogisticRegression(C=C, max_iter=1000).fit(data.X[columns], data.y)
"""
GATES = {"accuracy_vs_champion": ">= -0.01"}


def table(rows: int, seed: int) -> pd.DataFrame:
    random = np.random.default_rng(seed)
    frame = pd.DataFrame(random.normal(size=(rows, 3)), columns=["a", "b", "c"])
    frame["y"] = (frame.a + frame.b + random.normal(scale=0.2, size=rows) > 0).astype(int)
    return frame


@pytest.fixture
def place(tmp_path: Path) -> Workplace:
    place = Workplace(tmp_path, tracking_uri=f"sqlite:///{tmp_path}/mlflow.db", registered_model="demo")
    place.model_py(CODE)
    return place


@pytest.fixture
def data(place: Workplace) -> ArtifactRef:
    return place.dataset({"train": table(200, 1), "test": table(100, 2)}, "y")


def train(place: Workplace, data: ArtifactRef, run: str, columns: list[str]) -> ArtifactRef:
    args = {"columns": columns}
    return place.run("train", run=run, data=data, entry="model.py:fit", args=args).outputs["model"]


def publish(place: Workplace, data: ArtifactRef, model: ArtifactRef, run: str) -> StepResult:
    exported = place.run("quantize", run=run, model=model, data=data, target="onnx").outputs["model"]
    models = [ref.model_dump(mode="json") for ref in (model, exported)]
    return place.run("publish", run=run, models=models, name="demo", alias="champion")


def test_from_no_champion_to_a_better_and_a_worse_challenger(place: Workplace, data: ArtifactRef) -> None:
    weak = train(place, data, "run-1", ["a"])
    first = place.run("evaluate", run="run-1", model=weak, data=data, gates=GATES)
    assert (first.gates[0].value, first.gates[0].passed, first.gates[0].note) == (None, True, "no champion yet")
    publish(place, data, weak, "run-1")

    strong = train(place, data, "run-2", ["a", "b", "c"])
    better = place.run("evaluate", run="run-2", model=strong, data=data, gates=GATES)
    assert better.metrics["accuracy_vs_champion"] > 0.1
    expected = better.metrics["accuracy"] - first.metrics["accuracy"]
    assert better.metrics["accuracy_vs_champion"] == pytest.approx(expected)
    assert "demo version 1 has" in better.gates[0].note
    page = (place.store.fetch(better.outputs["report"]) / "report.html").read_text()
    assert "demo version 1" in page
    assert "difference" in page
    publish(place, data, strong, "run-2")

    # the same model and data as in run-1, but the champion is another one now: measured again, not reused
    with pytest.raises(GateFailed, match="accuracy_vs_champion = -0"):
        place.run("evaluate", run="run-3", model=weak, data=data, gates=GATES)
    assert not place.last("evaluate", "run-3")["cache"]["hit"]
    again = place.run("evaluate", run="run-4", model=strong, data=data, gates=GATES)
    assert again.metrics["accuracy_vs_champion"] == pytest.approx(0, abs=0.011)
    assert place.run("evaluate", run="run-5", model=strong, data=data, gates=GATES).cache.hit


def test_a_champion_that_needs_other_columns(place: Workplace, data: ArtifactRef) -> None:
    publish(place, data, train(place, data, "run-1", ["a", "b"]), "run-1")
    narrow = {name: table(rows, rows).drop(columns="b") for name, rows in (("train", 200), ("test", 100))}
    other = place.dataset(narrow, "y")
    model = train(place, other, "run-2", ["a", "c"])
    with pytest.raises(DataError, match="the champion demo version 1 needs b, which the data do not have"):
        place.run("evaluate", run="run-2", model=model, data=other, gates=GATES)
    result = place.run("evaluate", run="run-3", model=model, data=other, gates={"accuracy": ">= 0"})
    assert any("not compared: the champion demo version 1 needs b" in note for note in result.notes)


def test_a_registry_that_is_down_matters_only_to_gates_that_need_it(place: Workplace, data: ArtifactRef) -> None:
    place.tracking_uri = ""
    model = train(place, data, "run-1", ["a"])
    place.tracking_uri = "http://127.0.0.1:9"
    with pytest.raises(Unavailable, match="MLflow does not answer"):
        place.run("evaluate", model=model, data=data, gates=GATES)
    result = place.run("evaluate", model=model, data=data, gates={"accuracy": "> 0.5"})
    assert result.notes == ["the registry did not answer"]
    assert not place.run("evaluate", model=model, data=data, gates={"accuracy": "> 0.5"}).cache.hit
