"""The SDK in a notebook: data, tracked runs, the pipeline's own gates, the registry; all of it without Airflow."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import edgewright.sdk as ew
from edgewright.errors import ConfigError, NotFound, Unavailable, UserCodeError
from edgewright.sdk.judging import Verdict
from edgewright.steps.contract import Gate, Identity, Source, StepRequest
from edgewright.steps.execute import execute

ROOT = Path(__file__).resolve().parents[2]
NO_AIRFLOW = """
import sys

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "airflow":
            raise ImportError("this environment has no Airflow")

sys.meta_path.insert(0, Blocked())
"""
NOTEBOOK = """
import edgewright.sdk as ew
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

data = ew.dataset("bracelet")
with ew.start_run("bracelet", name="by hand", params={"C": 1.0}) as run:
    model = make_pipeline(SimpleImputer(), LogisticRegression(max_iter=1000)).fit(data.X(), data.y())
    run.log_metric("loss", 0.5)
    kept = run.keep(model, data)
verdict = ew.evaluate(kept, pipeline="bracelet")
assert verdict.passed, str(verdict)
assert "roc_auc" in verdict._repr_html_()
assert (verdict.report / "report.html").is_file()
strict = ew.evaluate(kept, gates={"accuracy": ">= 0.999"})
assert not strict.passed and str(strict).startswith("FAILED  accuracy"), str(strict)
print("version", ew.register(kept, "bracelet", tags={"by": "hand"}), run.mlflow_run_id)
"""


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An installation in which the bracelet's data were ingested once."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("EDGEWRIGHT_HOME", str(tmp_path / "home"))
    shutil.copytree(ROOT / "dags" / "bracelet", tmp_path / "bracelet", ignore=shutil.ignore_patterns("__pycache__"))
    for run, seed in (("first", 7), ("second", 8)):
        split = {"test": 0.25, "seed": seed, "stratify": True}
        execute(StepRequest(
            step="ingest", config={"source": "cleveland.csv", "label": "num", "split": split},
            identity=Identity(dag_id="bracelet", run_id=run, task_id="data"),
            source=Source(folder=str(tmp_path / "bracelet")), store=f"file://{tmp_path}/home/store",
        ))  # fmt: skip
    return tmp_path


def test_from_data_to_a_challenger_without_airflow(home: Path) -> None:
    (home / "notebook.py").write_text(NO_AIRFLOW + NOTEBOOK)
    done = subprocess.run([sys.executable, "notebook.py"], cwd=home, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    _, version, run_id = done.stdout.split()
    from edgewright.registry import Registry

    registry = Registry(f"sqlite:///{home}/home/mlflow.db")
    found = registry.champion("bracelet", "challenger")
    assert found is not None
    assert (found.version, found.tags["by"]) == (version, "hand")
    assert run_id


def test_versions_of_a_dataset(home: Path) -> None:
    first, second = ew.datasets("bracelet")
    assert ew.dataset("bracelet") == second
    assert ew.dataset("bracelet/data@first") == first == ew.dataset(f"bracelet@{first.sha256[:10]}")
    assert first.parts == {"train": 227, "test": 76}
    assert first.label == "num"
    assert list(first.X("test").columns) == first.features
    assert len(first.y()) == 227
    assert "train 227" in first._repr_html_()
    with pytest.raises(ConfigError, match="no part holdout"):
        first.frame("holdout")


@pytest.mark.parametrize(
    ("name", "message", "hint"),
    [
        ("bracelt", "no pipeline bracelt has run here", 'did you mean "bracelet"'),
        ("bracelet/dta", "no task dta of bracelet made a dataset", "tasks that did: data"),
        ("bracelet@0000000000", "no such version", "run second"),
    ],
)
def test_what_is_not_there_is_said(home: Path, name: str, message: str, hint: str) -> None:
    with pytest.raises(NotFound) as raised:
        ew.dataset(name)
    assert message in raised.value.message
    assert hint in str(raised.value.hint)


def test_a_run_that_fails_is_closed_as_failed(home: Path) -> None:
    with pytest.raises(UserCodeError, match="returned nothing"), ew.start_run("bracelet") as run:
        run.keep(None, ew.dataset("bracelet"))
    from mlflow import MlflowClient

    assert MlflowClient(f"sqlite:///{home}/home/mlflow.db").get_run(run.mlflow_run_id).info.status == "FAILED"


def test_without_airflow_a_trigger_says_how_to_start_one(home: Path) -> None:
    with pytest.raises(Unavailable, match="no stack runs"):
        ew.trigger("bracelet")


def test_a_verdict_for_people() -> None:
    gates = [Gate(metric="a", operator=">=", limit=0.5, value=None, passed=False, note="<none>")]
    verdict = Verdict({}, gates, None)
    assert str(verdict) == "FAILED  a not measured >= 0.5 (<none>)"
    assert "&lt;none&gt;" in verdict._repr_html_()
