"""The pipeline `bracelet` through a real Airflow, driven through the front door."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from stack_support import EDGEWRIGHT, Stack

pytestmark = [pytest.mark.stack, pytest.mark.timeout(600)]

STEPS = ["data", "checks", "model", "quality", "int8", "release", "live"]
PATIENT = {
    "age": 45, "sex": 1, "cp": 3, "trestbps": 112, "chol": 230, "fbs": 0, "restecg": 2, "thalach": 165, "exang": 0,
    "oldpeak": 2.5, "slope": 2, "ca": 1, "thal": 7,
}  # fmt: skip


def by_task(outcome: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {task["task_id"]: task["result"] for task in outcome["tasks"]}


def test_a_run_takes_data_to_a_served_int8_model(stack: Stack, first_run: dict[str, Any]) -> None:
    assert first_run["state"] == "success"
    assert [task["state"] for task in first_run["tasks"]] == ["success"] * 7
    summary = first_run["summary"]
    assert summary["dataset"]["rows"] == 303
    assert all(gate["passed"] for gate in summary["gates"])
    assert {variant["target"] for variant in summary["variants"]} == {"onnx", "onnx-int8"}
    assert summary["deployment"]["variant"] == "onnx-int8"


def test_the_service_answers_with_the_deployed_model(stack: Stack, first_run: dict[str, Any]) -> None:
    url = stack.urls["service bracelet"]
    answer = httpx.post(f"{url}/invocations", json={"dataframe_records": [PATIENT]}).json()
    assert answer["predictions"] == [1]
    assert answer["model"]["variant"] == "onnx-int8"
    assert sum(answer["probabilities"][0]) == pytest.approx(1, abs=1e-5)


def test_the_local_runner_gives_the_same_digests(stack: Stack, first_run: dict[str, Any], tmp_path: Path) -> None:
    done = subprocess.run(
        [str(EDGEWRIGHT), "run", str(stack.dags / "bracelet" / "pipeline.yaml"), "--skip", "live", "--json"],
        env={**os.environ, "EDGEWRIGHT_HOME": str(tmp_path / "other"), "OMP_NUM_THREADS": "2"},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    here = by_task(json.loads(done.stdout))
    there = by_task(first_run)
    digests = {
        (task, name): (ref["sha256"], there[task]["outputs"][name]["sha256"])
        for task in ("data", "checks", "model", "int8")
        for name, ref in here[task]["outputs"].items()
        if name != "report"
    }
    assert len(digests) == 5
    assert all(one == other for one, other in digests.values()), digests
    # a release's folder names the run that made it; its digest covers what is published
    releases = [results["release"]["outputs"]["release"]["meta"]["digest"] for results in (here, there)]
    assert releases[0] == releases[1]


def test_an_unchanged_pipeline_reuses_what_it_can_and_says_so(stack: Stack, first_run: dict[str, Any]) -> None:
    outcome = stack.trigger("--run-id", "second")
    results = by_task(outcome)
    assert all(results[task]["cache"]["hit"] for task in ("data", "checks", "model", "int8"))
    assert {entry["task"] for entry in outcome["summary"]["cached"]} >= {"data", "checks", "model", "int8"}
    assert results["release"]["tags"]["model_version"] == by_task(first_run)["release"]["tags"]["model_version"]
    with stack.airflow() as client:
        log = client.get("/api/v2/dags/bracelet/dagRuns/second/taskInstances/model/logs/1").text
    assert "cached: reused from run" in log


def test_a_changed_model_py_trains_again_and_why_says_so(stack: Stack, first_run: dict[str, Any]) -> None:
    code = stack.dags / "bracelet" / "model.py"
    before = code.read_text()
    try:
        code.write_text(before + "\n# another thought\n")
        _wait_for_new_version(stack)
        results = by_task(stack.trigger("--run-id", "touched"))
    finally:
        code.write_text(before)
        _wait_for_new_version(stack)
    assert results["data"]["cache"]["hit"]
    assert results["checks"]["cache"]["hit"]
    assert not results["model"]["cache"]["hit"]
    why = stack.run("why", "touched", "model", "--against", "first").stdout
    assert "model.py" in why


def _wait_for_new_version(stack: Stack) -> None:
    """Give the bundle the seconds that it is allowed to take (3 s for an edit to show, as the docs promise)."""
    time.sleep(5)


def test_params_reach_the_function_typed(stack: Stack, first_run: dict[str, Any]) -> None:
    results = by_task(stack.trigger("--run-id", "alpha", "--param", "alpha=0.01"))
    request = json.loads((stack.home / "store/runs/bracelet/alpha/model/request.json").read_text())
    assert request["config"]["args"] == {"alpha": 0.01}
    assert not results["model"]["cache"]["hit"]


@pytest.mark.parametrize(("param", "message"), [("alpa=1", 'did you mean "alpha"'), ("alpha=x", "not a number")])
def test_a_wrong_param_is_refused(stack: Stack, param: str, message: str) -> None:
    done = stack.run("trigger", "bracelet", "--param", param, check=False)
    assert done.returncode == 1
    assert message in done.stderr


def test_an_unknown_dag_is_answered_with_those_that_there_are(stack: Stack) -> None:
    done = stack.run("trigger", "bracelt", check=False)
    assert done.returncode == 1
    assert 'did you mean "bracelet"' in done.stderr


def test_an_edit_shows_and_a_broken_file_is_its_own_import_error(stack: Stack, first_run: dict[str, Any]) -> None:
    folder = stack.dags / "fresh"
    folder.mkdir()
    place = folder / "pipeline.yaml"
    try:
        place.write_text("dag_id: fresh\nstart_date: 2026-01-01\ntasks:\n  - id: one\n")
        with stack.airflow() as client:
            assert _until(lambda: client.get("/api/v2/dags/fresh").status_code == 200, 20)
            place.write_text("dag_id: fresh\ntasks:\n  - id: one\n    uses: ingst\n")
            errors = _until(lambda: client.get("/api/v2/importErrors").json()["import_errors"], 20)
            assert 'did you mean "ingest"' in errors[0]["stack_trace"]
            assert errors[0]["filename"] == "fresh/pipeline.yaml.py"
            assert "the last good version is" in errors[0]["stack_trace"]
            assert "Traceback" not in errors[0]["stack_trace"]
            assert client.get("/api/v2/dags/bracelet").status_code == 200
    finally:
        place.unlink()
        folder.rmdir()


def _until(condition: Any, seconds: float) -> Any:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        found = condition()
        if found:
            return found
        time.sleep(0.3)
    return condition()


def test_everything_listens_on_loopback_only(stack: Stack) -> None:
    addresses = set()
    for part in stack.status["parts"]:
        leader = psutil.Process(part["pid"])
        for process in [leader, *leader.children(recursive=True)]:
            for connection in process.net_connections(kind="inet"):
                if connection.status == psutil.CONN_LISTEN:
                    addresses.add(connection.laddr.ip)
    assert addresses == {"127.0.0.1"}


def test_secrets_are_in_no_log_and_readable_by_their_owner_only(stack: Stack, first_run: dict[str, Any]) -> None:
    secrets = json.loads((stack.home / "secrets.json").read_text())
    hidden = [secrets["jwt"], secrets["fernet"], secrets["service_token"], *secrets["passwords"].values()]
    for place in (stack.home / "secrets.json", stack.home / "serving" / "token", Path(stack.status["login_file"])):
        assert place.stat().st_mode & 0o077 == 0, place
    logs = [*(stack.home / "logs").glob("*"), *(stack.home / "airflow" / "logs").rglob("*.log")]
    assert len(logs) > 6
    for log in logs:
        text = log.read_text(errors="replace")
        assert not [secret for secret in hidden if secret in text], log


def test_a_second_up_finds_the_first(stack: Stack) -> None:
    done = stack.run("up", "--dags", str(stack.dags))
    assert stack.urls["airflow"] in done.stdout


def test_doctor_finds_nothing_wrong(stack: Stack, first_run: dict[str, Any]) -> None:
    findings = json.loads(stack.run("doctor", "--json").stdout)
    assert {finding["verdict"] for finding in findings} <= {"ok"}, findings


def test_a_failed_gate_fails_the_run_and_nothing_after_it_runs(stack: Stack, first_run: dict[str, Any]) -> None:
    document = stack.dags / "bracelet" / "pipeline.yaml"
    before = document.read_text()
    try:
        document.write_text(before.replace('accuracy: ">= 0.75"', 'accuracy: ">= 0.99"'))
        _wait_for_new_version(stack)
        done = stack.run("trigger", "bracelet", "--run-id", "strict", "--wait", "--json", check=False)
    finally:
        document.write_text(before)
        _wait_for_new_version(stack)
    assert done.returncode == 1
    assert re.search(r"accuracy = 0\.85\d*, gate >= 0\.99: FAILED", done.stderr)
    states = {task["task_id"]: task["state"] for task in json.loads(done.stdout)["tasks"]}
    assert states["quality"] == "failed"
    assert {states[task] for task in ("int8", "release", "live")} == {"upstream_failed"}


def test_plan_compares_the_working_files_with_what_airflow_runs(
    stack: Stack, first_run: dict[str, Any], tmp_path: Path
) -> None:
    work = tmp_path / "dags"
    shutil.copytree(stack.dags, work, ignore=shutil.ignore_patterns("__pycache__"))
    assert stack.run("plan", str(work), "--against", "airflow").stdout == "= bracelet: same\n"
    document = work / "bracelet" / "pipeline.yaml"
    document.write_text(document.read_text().replace('"0 3 * * 0"', '"0 4 * * *"'))
    (work / "bracelet" / "model.py").write_text((work / "bracelet" / "model.py").read_text() + "\n# changed\n")
    done = stack.run("plan", str(work), "--against", "airflow", "--json", "--exit-code", check=False)
    assert done.returncode == 3, done.stderr
    (plan,) = json.loads(done.stdout)
    assert plan["dag"] == [{"place": "schedule", "old": "0 3 * * 0", "new": "0 4 * * *"}]
    assert all(moment.endswith("T04:00:00Z") for moment in plan["next_runs"]["after"])
    assert plan["misses"]["model"] == [{"part": "code", "text": "model.py changed"}]
    assert list(plan["misses"]) == ["model", "quality", "int8"]
