"""search: {method: optuna}: trials of one task, each by what those before it scored."""

from __future__ import annotations

import csv
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from support.models import Workplace
from tests.steps.test_train import client_of, table

from edgewright.artifacts import ArtifactRef
from edgewright.errors import ConfigError, DataError, UserCodeError
from edgewright.spec.steps.train import SearchConfig
from edgewright.steps.tuning import folds_of

pytest.importorskip("optuna")

TREES = """
import os
from pathlib import Path
from sklearn.tree import DecisionTreeClassifier

def fit(data, depth: int, kind: str = "gini", leaf: float = 0.1, die_at: int = 0, bad: int = 0):
    if die_at:
        seen = Path(__file__).parents[1] / "seen"  # beside the folder: a file in it would be part of the key
        seen.write_text(seen.read_text() + "." if seen.exists() else ".")
        if len(seen.read_text()) == die_at:
            os.kill(os.getpid(), 9)
    if depth <= bad:
        raise ValueError(f"too shallow: {depth}")
    tree = DecisionTreeClassifier(max_depth=depth, criterion=kind, min_samples_leaf=leaf, random_state=0)
    return tree.fit(data.X, data.y)
"""
SPACE: dict[str, Any] = {
    "depth": {"from": 1, "to": 8}, "kind": ["gini", "entropy"], "leaf": {"from": 0.01, "to": 0.4, "log": True},
}  # fmt: skip


def place_at(folder: Path, **more: Any) -> tuple[Workplace, ArtifactRef]:
    place = Workplace(folder, **more)
    place.model_py(TREES)
    return place, place.dataset({"train": table(), "test": table(40, 2)}, "y")


def tried(place: Workplace, run: str = "run-1") -> list[dict[str, Any]]:
    document = place.store.read_json(f"runs/demo/{run}/train/trials.json")
    assert document is not None
    return [{**trial, "seconds": 0} for trial in document["trials"]]


@pytest.fixture(scope="module")
def uri(tmp_path_factory: pytest.TempPathFactory) -> str:
    return f"sqlite:///{tmp_path_factory.mktemp('tuning')}/mlflow.db"


def test_the_best_trial_is_trained_on_all_rows_and_the_runs_stand_beneath_one(tmp_path: Path, uri: str):
    place, data = place_at(tmp_path / "tracked", tracking_uri=uri)
    search = {"method": "optuna", "space": SPACE, "trials": 6, "seed": 1}
    result = place.run("train", data=data, entry="model.py:fit", search=search)
    trials = [trial for trial in tried(place) if trial["same_as"] is None]
    best = max(trials, key=lambda trial: trial["metrics"]["roc_auc"])
    assert result.metrics["search_roc_auc"] == best["metrics"]["roc_auc"]
    assert result.metrics["rows"] == 120
    assert f"depth={best['values']['depth']}" in result.notes[-1]
    client = client_of(place)
    parent = client.get_run(result.tags["mlflow_run_id"])
    assert parent.data.params == {name: str(value) for name, value in best["values"].items()}
    beneath = client.search_runs(
        [parent.info.experiment_id], f"tags.`mlflow.parentRunId` = '{parent.info.run_id}'", max_results=50
    )
    assert len(beneath) == len(trials)
    assert {run.info.status for run in beneath} == {"FINISHED"}
    folder = place.store.fetch(result.outputs["report"])
    assert {"report.html", "runs.csv", "comparison.png"} <= {file.name for file in folder.iterdir()}
    with (folder / "runs.csv").open() as file:
        assert next(csv.DictReader(file))["trial"] == str(best["number"] + 1)
    kept = Path(client.download_artifacts(parent.info.run_id, "comparison"))
    assert (kept / "comparison.png").read_bytes().startswith(b"\x89PNG")


def test_a_search_that_was_killed_ends_as_an_undisturbed_one(tmp_path: Path, uri: str):
    whole, data = place_at(tmp_path / "whole")
    search = {"method": "optuna", "space": SPACE, "trials": 13, "folds": 2}
    whole.run("train", data=data, entry="model.py:fit", args={"die_at": 1000}, search=search)

    cut, data = place_at(tmp_path / "cut", tracking_uri=uri)
    request = cut.request("train", run="cut", data=data, entry="model.py:fit", args={"die_at": 9}, search=search)
    (cut.root / "request.json").write_text(request.model_dump_json())
    command = [sys.executable, "-m", "edgewright.steps", str(cut.root / "request.json")]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=300, env={**os.environ})
    assert ended.returncode == -9, ended.stderr
    done = len(tried(cut, "cut"))
    assert 0 < done < 13
    result = cut.run("train", run="cut", data=data, entry="model.py:fit", args={"die_at": 9}, search=search)
    assert f"{done} done by an earlier try" in result.notes[-1]
    assert tried(cut, "cut") == tried(whole)
    client = client_of(cut)
    run = client.get_run(result.tags["mlflow_run_id"])
    which = f"tags.`mlflow.parentRunId` = '{run.info.run_id}'"
    beneath = client.search_runs([run.info.experiment_id], which, max_results=50)
    numbers = sorted(int(run.data.tags["edgewright.trial"]) for run in beneath)
    assert numbers == [trial["number"] for trial in tried(cut, "cut") if trial["same_as"] is None]


def test_trials_that_fail_are_told_and_a_hopeless_search_gives_up(tmp_path: Path):
    place, data = place_at(tmp_path)
    search = {"method": "optuna", "space": SPACE, "trials": 8, "folds": 1}
    result = place.run("train", data=data, entry="model.py:fit", args={"bad": 3}, search=search)
    failed = [trial for trial in tried(place) if trial["error"] and trial["same_as"] is None]
    assert failed
    assert "too shallow" in failed[0]["error"]
    assert f"{len(failed)} failed" in result.notes[-1]
    with pytest.raises(UserCodeError, match="the first 3 trials all failed: .*too shallow"):
        place.run("train", run="run-2", data=data, entry="model.py:fit", args={"bad": 9}, search=search)
    assert len(tried(place, "run-2")) < 8


def test_faults_are_said_before_anything_is_trained(tmp_path: Path):
    place, data = place_at(tmp_path)
    with pytest.raises(ConfigError, match='no such argument: dept; did you mean "depth"'):
        place.run("train", data=data, entry="model.py:fit", search={"method": "optuna", "space": {"dept": [1, 2]}})
    with pytest.raises(ConfigError, match="rmse is no metric of classification"):
        place.run("train", data=data, entry="model.py:fit", run="run-2",
                  search={"method": "optuna", "space": {"depth": [1]}, "metric": "rmse"})  # fmt: skip


def test_equal_rows_stand_on_one_side_of_each_fold(tmp_path: Path):
    class Rows:
        problem = "classification"
        label = "y"

    half = table(60)
    rows = Rows()
    rows.frame = pd.concat([half, half], ignore_index=True)  # type: ignore[attr-defined]
    rows.y = rows.frame["y"]  # type: ignore[attr-defined]
    for train, held in folds_of(rows, SearchConfig(method="optuna", space={"a": [1]}, folds=4)):  # type: ignore[arg-type]
        assert {row % 60 for row in train}.isdisjoint(row % 60 for row in held)
        assert len(train) + len(held) == 120
    rows.y = pd.Series([1, *[0] * 119])  # type: ignore[attr-defined]
    with pytest.raises(DataError, match="a value of y has 1 different rows, too few for 4 folds"):
        folds_of(rows, SearchConfig(method="optuna", space={"a": [1]}, folds=1))  # type: ignore[arg-type]
