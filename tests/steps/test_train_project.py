"""train by an MLflow Project: MLflow's own runner, its parameters, the model that it logs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from support.models import Workplace

from edgewright.artifacts import ArtifactRef
from edgewright.errors import ConfigError, UserCodeError
from edgewright.steps.code import code_digests
from edgewright.steps.models import load_model, read_document

PROJECT = """
name: churn
{environment}
entry_points:
  main:
    parameters:
      data: path
      alpha: {{type: float, default: 1.0}}
    command: python train.py {{data}} {{alpha}}
  nothing:
    command: python nothing.py
  broken:
    command: python broken.py
  untrusted:
    command: python untrusted.py
"""
TRAIN = """
import os, sys
import mlflow, mlflow.sklearn
import pandas as pd
from sklearn.linear_model import LogisticRegression
from helpers import features

rows = pd.read_csv(sys.argv[1])
with mlflow.start_run():
    model = LogisticRegression(C=float(sys.argv[2])).fit(rows[features(rows)], rows["y"])
    mlflow.log_metric("accuracy_here", model.score(rows[features(rows)], rows["y"]))
    mlflow.sklearn.log_model(model, name="model", serialization_format="cloudpickle")
open(os.environ["EDGEWRIGHT_OUTPUT"] + "/coefficients.txt", "w").write(str(model.coef_))
print("python is", sys.executable)
"""
UNTRUSTED = """
import mlflow, mlflow.sklearn
from sklearn.tree import DecisionTreeClassifier

with mlflow.start_run():
    mlflow.sklearn.log_model(DecisionTreeClassifier().fit([[0], [1]], [0, 1]), name="model")
"""


@pytest.fixture
def place(tmp_path: Path) -> Workplace:
    return Workplace(tmp_path)


@pytest.fixture
def data(place: Workplace) -> ArtifactRef:
    random = np.random.default_rng(1)
    frame = pd.DataFrame(random.normal(size=(160, 3)), columns=["a", "b", "c"])
    frame["y"] = (frame.a + 0.5 * frame.b > 0).astype(int)
    return place.dataset({"train": frame[:120], "test": frame[120:]}, "y")


def project(place: Workplace, environment: str = "") -> None:
    folder = place.code / "churn"
    folder.mkdir()
    (folder / "MLproject").write_text(PROJECT.format(environment=environment))
    (folder / "train.py").write_text(TRAIN)
    (folder / "helpers.py").write_text("def features(rows):\n    return [n for n in rows if n != 'y']\n")
    (folder / "nothing.py").write_text("print('no model')\n")
    (folder / "broken.py").write_text("1 / 0\n")
    (folder / "untrusted.py").write_text(UNTRUSTED)


def test_an_entry_point_and_parameters_that_are_not_there_are_said_before_anything_runs(
    place: Workplace, data: ArtifactRef
) -> None:
    with pytest.raises(ConfigError, match="churn is no MLflow Project: there is no file MLproject"):
        place.run("train", data=data, project="churn")
    project(place)
    says = r"no parameter alhpa; main of churn needs the parameter data\n  hint: main takes: data, alpha"
    with pytest.raises(ConfigError, match=says):
        place.run("train", data=data, project="churn", args={"alhpa": 1})


def test_a_changed_module_of_a_project_trains_anew(place: Workplace) -> None:
    project(place)
    before = code_digests(place.code, ["churn/MLproject"])
    assert {"churn/MLproject", "churn/train.py", "churn/helpers.py"} <= set(before)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_model_that_a_project_logs_is_the_tasks_model(place: Workplace, data: ArtifactRef) -> None:
    project(place)
    place.tracking_uri = f"sqlite:///{place.root / 'mlflow.db'}"
    config = {"project": "churn", "inputs": {"data": "train.csv"}, "args": {"alpha": 0.5}}
    result = place.run("train", data=data, **config)
    folder = place.store.fetch(result.outputs["model"])
    assert read_document(folder).label == "y"
    estimator = load_model(folder).estimator  # type: ignore[attr-defined]
    assert estimator.C == 0.5
    assert result.metrics["accuracy_here"] == result.metrics["train_accuracy"]
    assert (place.store.fetch(result.outputs["report"]) / "coefficients.txt").is_file()
    from mlflow.tracking import MlflowClient

    run = MlflowClient(place.tracking_uri).get_run(result.tags["mlflow_run_id"])
    assert run.info.status == "FINISHED"
    assert run.data.params["alpha"] == "0.5"


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    ("entry_point", "says"),
    [
        ("nothing", r"churn/MLproject logged no model\n  hint: log one model, such as mlflow\.sklearn\.log_model"),
        ("untrusted", r"untrusted of churn logs a model with types that skops does not trust\n  hint: .*cloudpickle"),
        ("broken", r"broken of churn ended with 1\n  hint: its last lines: .*ZeroDivisionError: division by zero"),
    ],
)
def test_what_is_wrong_with_a_project_is_said(place: Workplace, data: ArtifactRef, entry_point: str, says: str) -> None:
    project(place)
    with pytest.raises(UserCodeError, match=says):
        place.run("train", data=data, project="churn", entry_point=entry_point)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_project_runs_in_the_environment_that_it_describes(
    place: Workplace,
    data: ArtifactRef,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    from importlib.metadata import version

    monkeypatch.setenv("EDGEWRIGHT_HOME", str(tmp_path / "home"))
    project(place, "python_env: python_env.yaml")
    wanted = [
        f"{name}=={version(name)}" for name in ("mlflow-skinny", "scikit-learn", "pandas", "sqlalchemy", "alembic")
    ]
    lines = ["python: '3.11'", "build_dependencies: [setuptools]", f"dependencies: {wanted}"]
    (place.code / "churn" / "python_env.yaml").write_text("\n".join(lines).replace("'", '"') + "\n")
    with caplog.at_level("INFO"):
        result = place.run("train", data=data, project="churn", environment="uv", inputs={"data": "train.csv"})
    assert result.metrics["train_accuracy"] > 0.8
    assert f"python is {tmp_path / 'home' / 'environments' / 'mlflow'}" in caplog.text
