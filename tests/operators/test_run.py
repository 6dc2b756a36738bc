"""Operators in running Dags: what reaches the step, what is left in XCom, how a fault ends a task."""

from __future__ import annotations

import datetime
import shutil
from pathlib import Path
from typing import Any

import pytest
from airflow.sdk import DAG, Param, task
from support import airflow_env

from edgewright.installation import Installation, Service
from edgewright.operators import EvaluateOperator, IngestOperator, TrainOperator, ValidateOperator

pytestmark = pytest.mark.airflow
BRACELET = Path(__file__).parents[2] / "dags" / "bracelet"
SPLIT = {"test": 0.25, "seed": 7, "stratify": True}


@pytest.fixture
def folder(tmp_path: Path, home: Path) -> Path:
    """A pipeline's folder of its own, in an installation that knows its pages."""
    shutil.copytree(BRACELET, tmp_path / "bracelet", ignore=shutil.ignore_patterns("__pycache__"))
    Installation(
        home=home, urls={"airflow": "http://air:8080", "mlflow": "http://flow:5000"}, services={"s": Service(url="x")}
    ).save()
    return tmp_path / "bracelet"


def test_a_hand_written_dag_trains_and_is_measured(folder: Path):
    with DAG("by_hand", schedule=None, params={"alpha": Param(0.01, type="number")}) as dag:
        data = IngestOperator(task_id="data", source="cleveland.csv", label="num", split=SPLIT, folder=str(folder))
        checks = ValidateOperator(task_id="checks", data=data.output, schema="schema.py:Bracelet", folder=str(folder))
        model = TrainOperator(
            task_id="model", data=checks.output, entry="model.py:fit", folder=str(folder),
            args={"alpha": "{{ params.alpha }}"},
        )  # fmt: skip
        EvaluateOperator(
            task_id="quality", model=model.output, data=checks.output, gates={"accuracy": ">= 0.75"}, folder=str(folder)
        )

        @task
        def report(result: dict[str, Any], metrics: dict[str, Any]) -> float:
            return result["metrics"]["rows"] + metrics["metrics"]["accuracy"]

        report(model.output, dag.get_task("quality").output)
    run = airflow_env.run(dag, run_conf={"alpha": 0.5})
    assert run.state == "success"
    result = airflow_env.xcom(run, "model")
    assert result["outputs"]["model"]["kind"] == "model"
    assert result["tags"]["mlflow_run_id"]
    assert airflow_env.xcom(run, "report") > 227.75
    request = _stored(folder, run, "model", "request.json")
    assert request["config"]["args"] == {"alpha": 0.5}  # the typed param, no text
    assert request["params"] == {"alpha": 0.5}
    address = airflow_env.xcom(run, "model", "edgewright_mlflow_run")
    assert address.startswith("http://flow:5000/#/experiments/")
    assert address.endswith(result["tags"]["mlflow_run_id"])
    report_page = airflow_env.xcom(run, "quality", "edgewright_report")
    assert report_page.startswith("http://air:8080/edgewright/runs/by_hand/manual__")
    assert report_page.endswith("/quality/outputs/report")


def test_a_failed_gate_fails_for_good_and_leaves_its_report(folder: Path):
    seen: list[BaseException] = []
    with DAG("gate", schedule=None) as dag:
        data = IngestOperator(task_id="data", source="cleveland.csv", label="num", split=SPLIT, folder=str(folder))
        model = TrainOperator(task_id="model", data=data, entry="model.py:fit", folder=str(folder))
        quality = EvaluateOperator(
            task_id="quality", model=model, data=data, gates={"accuracy": ">= 0.99", "roc_auc": ">= 0.5"},
            folder=str(folder), retries=3, on_failure_callback=lambda context: seen.append(context["exception"]),
        )  # fmt: skip
        quality >> EvaluateOperator(task_id="after", model=model, data=data, folder=str(folder))
    run = airflow_env.run(dag)
    assert airflow_env.states(run) == {
        "data": "success", "model": "success", "quality": "failed", "after": "upstream_failed",
    }  # fmt: skip
    assert run.get_task_instance("quality").try_number == 1
    assert type(seen[0]).__name__ == "AirflowFailException"
    assert "gate >= 0.99: FAILED" in str(seen[0])
    assert "roc_auc" not in str(seen[0])
    result = airflow_env.xcom(run, "quality")
    assert result["state"] == "failed"
    assert {gate["metric"]: gate["passed"] for gate in result["gates"]} == {"accuracy": False, "roc_auc": True}
    assert airflow_env.xcom(run, "quality", "edgewright_report").endswith("/outputs/report")


def _fails(operator: Any, folder: Path, dag_id: str, **arguments: Any) -> tuple[BaseException, str]:
    seen: list[BaseException] = []
    with DAG(dag_id, schedule=None) as dag:
        operator(
            task_id="it", folder=str(folder), on_failure_callback=lambda context: seen.append(context["exception"]),
            **arguments,
        )  # fmt: skip
    run = airflow_env.run(dag)
    return seen[0], airflow_env.states(run)["it"]


def test_a_fault_of_the_user_is_not_tried_again(folder: Path):
    error, state = _fails(IngestOperator, folder, "missing", source="cleveland.csv", label="nun", retries=3)
    assert state == "failed"
    assert type(error).__name__ == "AirflowFailException"
    assert "nun" in str(error)
    assert error.__suppress_context__  # no traceback of ours in the log


def test_a_fault_of_the_system_is_tried_again(folder: Path, monkeypatch: pytest.MonkeyPatch):
    (folder / "file").write_text("")
    monkeypatch.setenv("EDGEWRIGHT_STORE", str(folder / "file" / "below"))
    error, state = _fails(IngestOperator, folder, "broken_store", source="cleveland.csv")
    assert type(error).__name__ == "AirflowException"  # retries apply to it
    assert "StoreError" in str(error)
    assert state == "failed"


def test_too_few_rows_skip_the_task_and_what_follows(folder: Path):
    with DAG("few", schedule=None) as dag:
        data = IngestOperator(
            task_id="data", source="cleveland.csv", label="num", minimum={"rows": 10_000}, folder=str(folder)
        )
        ValidateOperator(task_id="checks", data=data.output, folder=str(folder))
    run = airflow_env.run(dag)
    assert airflow_env.states(run) == {"data": "skipped", "checks": "skipped"}
    assert airflow_env.xcom(run, "data")["state"] == "skipped"


def test_a_profile_that_is_not_there_is_refused(folder: Path):
    error, _ = _fails(IngestOperator, folder, "gpu", source="cleveland.csv", profile="gpu-small")
    assert "there is no profile gpu-small" in str(error)


def test_a_preferred_profile_that_is_not_there_falls_back_and_says_so(folder: Path, caplog: pytest.LogCaptureFixture):
    with DAG("prefer", schedule=None) as dag:
        IngestOperator(task_id="data", source="cleveland.csv", folder=str(folder), preferred="gpu-small")
    with caplog.at_level("INFO"):
        run = airflow_env.run(dag)
    assert run.state == "success"
    assert "profile gpu-small is not here (there is no profile gpu-small): running in local" in caplog.text


def test_nothing_is_said_twice_in_the_log(folder: Path, caplog: pytest.LogCaptureFixture):
    with DAG("once", schedule=None) as dag:
        IngestOperator(task_id="data", source="cleveland.csv", folder=str(folder))
    with caplog.at_level("INFO"):
        airflow_env.run(dag)
    assert caplog.text.count("303 rows, 14 columns") == 1
    assert "output dataset: dataset" in caplog.text


def test_a_template_that_fails_ends_the_task_in_one_line(folder: Path):
    error, state = _fails(IngestOperator, folder, "template", source="{{ no_such_name }}.csv", retries=2)
    assert state == "failed"
    assert "template '{{ no_such_name }}.csv': 'no_such_name' is undefined" in str(error)


def test_a_run_can_ask_for_no_cache(folder: Path):
    def build() -> DAG:
        with DAG("cached", schedule=None) as dag:
            IngestOperator(task_id="data", source="cleveland.csv", label="num", folder=str(folder))
        return dag

    def hit(**options: Any) -> bool:
        return airflow_env.xcom(airflow_env.run(build(), **options), "data")["cache"]["hit"]

    assert hit() is False
    assert hit() is True
    assert hit(run_conf={"edgewright": {"cache": "off"}}) is False
    assert hit() is True


def test_a_wrong_wish_for_the_cache_is_told(folder: Path):
    with DAG("wrong_cache", schedule=None) as dag:
        IngestOperator(task_id="data", source="cleveland.csv", folder=str(folder))
    run = airflow_env.run(dag, run_conf={"edgewright": {"cache": "no"}})
    assert airflow_env.states(run) == {"data": "failed"}


def test_identity_and_time_of_the_data_come_from_the_run(folder: Path):
    moment = datetime.datetime(2026, 3, 1, tzinfo=datetime.UTC)
    with DAG("when", schedule="@daily", start_date=datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)) as dag:
        IngestOperator(task_id="data", source="cleveland.csv", folder=str(folder))
    run = airflow_env.run(dag, logical_date=moment)
    request = _stored(folder, run, "data", "request.json")
    assert request["data_time"] == "2026-03-01T00:00:00+00:00"
    assert request["identity"] == {
        "dag_id": "when", "run_id": run.run_id, "task_id": "data", "map_index": -1, "try_number": 1,
    }  # fmt: skip


def test_mapped_steps_keep_their_results_apart(folder: Path):
    with DAG("sweep", schedule=None) as dag:
        data = IngestOperator(task_id="data", source="cleveland.csv", label="num", split=SPLIT, folder=str(folder))
        TrainOperator.partial(task_id="model", data=data.output, entry="model.py:fit", folder=str(folder)).expand(
            args=[{"alpha": 0.1}, {"alpha": 0.2}]
        )
    run = airflow_env.run(dag)
    assert run.state == "success"
    found = [_stored(folder, run, f"model.{index}", "request.json")["config"]["args"] for index in (0, 1)]
    assert found == [{"alpha": 0.1}, {"alpha": 0.2}]


def _stored(folder: Path, run: Any, task_id: str, name: str) -> Any:
    from edgewright.artifacts import ArtifactStore
    from edgewright.steps.contract import Identity

    task, _, index = task_id.partition(".")
    identity = Identity(dag_id=run.dag_id, run_id=run.run_id, task_id=task, map_index=int(index or -1))
    return ArtifactStore(Installation.load().store).read_json(f"{identity.key}/{name}")
