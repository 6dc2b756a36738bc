"""Each way of starting a pipeline, through a real scheduler: by schedule with catch-up, backfill, form, command, REST,
an event, and a new version of a registered model. One pipeline has them all beside each other."""

from __future__ import annotations

import datetime
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from mlflow import MlflowClient
from stack_support import Stack

from edgewright.artifacts import ArtifactStore

pytestmark = [pytest.mark.stack, pytest.mark.airflow, pytest.mark.timeout(600)]
BASH = "airflow.providers.standard.operators.bash.BashOperator"
EVERY_WAY = f"""
dag_id: everyway
schedule: "0 6 * * *"
start_date: {{start}}
catchup: true
params:
  alpha: {{{{type: number, default: 0.5, minimum: 0, description: L2 penalty}}}}
  word: {{{{type: string, enum: [one, two], default: one}}}}
triggers:
  - objects: {{{{uri: "file://{{inbox}}/*.csv", every: 1s}}}}
tasks:
  - id: data
    uses: ingest
    with: {{{{source: data.csv, label: y, on_event: replace}}}}
  - id: said
    uses: {BASH}
    needs: [data]
    with: {{{{bash_command: {{{{$t: "echo {{{{{{{{ params.alpha }}}}}}}} {{{{{{{{ params.word }}}}}}}}"}}}}}}}}
"""
NEW_VERSION = f"""
dag_id: newversion
triggers:
  - registry: {{model: "starts-*", tag: {{prepare: vitis-ai}}, every: 1s}}
tasks:
  - id: said
    uses: {BASH}
    with:
      bash_command:
        $t: "echo {{{{ dag_run.conf['edgewright']['event']['model'] }}}} \\
          {{{{ dag_run.conf['edgewright']['event']['version'] }}}}"
"""


def wait_for(what: Callable[[], Any], reason: str, seconds: float = 180) -> Any:
    deadline = time.monotonic() + seconds
    while not (found := what()):
        assert time.monotonic() < deadline, reason
        time.sleep(0.5)
    return found


@pytest.fixture(scope="module")
def api(stack: Stack) -> httpx.Client:
    return stack.airflow()


def runs(api: httpx.Client, dag_id: str, kind: str) -> dict[str, dict[str, Any]]:
    """Return the runs of a type that ended, by id."""
    answer = api.get(f"/api/v2/dags/{dag_id}/dagRuns", params={"limit": 100, "run_type": kind}).json()
    return {run["dag_run_id"]: run for run in answer["dag_runs"] if run["state"] in ("success", "failed")}


def said(api: httpx.Client, dag_id: str, run_id: str) -> str:
    path = f"/api/v2/dags/{dag_id}/dagRuns/{run_id}/taskInstances/said/xcomEntries/return_value"
    return str(api.get(path).raise_for_status().json()["value"])


@pytest.fixture(scope="module")
def today() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC).replace(hour=0, minute=0, second=0, microsecond=0)


@pytest.fixture(scope="module")
def every_way(stack: Stack, api: httpx.Client, today: datetime.datetime) -> Path:
    """The pipeline, which began some days ago; returns the folder whose files start it."""
    inbox, pipeline = stack.home.parent / "starts", stack.dags / "everyway"
    inbox.mkdir()
    pipeline.mkdir()
    (pipeline / "data.csv").write_text("x,y\n1,0\n2,1\n")
    start = (today - datetime.timedelta(days=3)).date()
    (pipeline / "pipeline.yaml").write_text(EVERY_WAY.format(start=start, inbox=inbox))
    wait_for(lambda: api.get("/api/v2/dags/everyway__events").is_success, "there is no companion Dag")
    return inbox


def test_missed_moments_of_the_schedule_are_caught_up(
    every_way: Path, api: httpx.Client, today: datetime.datetime
) -> None:
    days = [today - datetime.timedelta(days=number) for number in (3, 2, 1)]
    wanted = {day.replace(hour=6).isoformat().replace("+00:00", "Z") for day in days}
    wait_for(
        lambda: wanted <= {run["logical_date"] for run in runs(api, "everyway", "scheduled").values()},
        "a day was not caught up",
    )
    found = runs(api, "everyway", "scheduled")
    assert {run["state"] for run in found.values()} == {"success"}
    assert {said(api, "everyway", name) for name in found} == {"0.5 one"}


@pytest.mark.slow
def test_a_backfill_runs_past_days_again(every_way: Path, api: httpx.Client, today: datetime.datetime) -> None:
    first, last = (today - datetime.timedelta(days=number) for number in (3, 2))
    request = {
        "dag_id": "everyway", "from_date": first.isoformat(), "to_date": (last.replace(hour=7)).isoformat(),
        "dag_run_conf": {"alpha": 2.0}, "reprocess_behavior": "completed", "max_active_runs": 2,
    }  # fmt: skip
    wait_for(lambda: len(runs(api, "everyway", "scheduled")) >= 3, "a day was not caught up")
    # SQLite may be busy (503); one that was made all the same is a conflict
    made = (200, 409)
    wait_for(lambda: api.post("/api/v2/backfills", json=request).status_code in made, "no backfill was made")
    found = wait_for(lambda: len(f := runs(api, "everyway", "backfill")) == 2 and f, "the backfill did not end")
    assert {run["state"] for run in found.values()} == {"success"}
    assert {said(api, "everyway", name) for name in found} == {"2.0 one"}


def test_the_form_has_typed_fields_and_its_values_reach_the_tasks(every_way: Path, api: httpx.Client) -> None:
    fields = api.get("/api/v2/dags/everyway/details").json()["params"]
    assert fields["alpha"]["schema"]["minimum"] == 0
    assert fields["word"]["schema"]["enum"] == ["one", "two"]
    # what the form sends
    url = "/api/v2/dags/everyway/dagRuns"
    refused = api.post(url, json={"logical_date": None, "conf": {"word": "three"}})
    assert refused.status_code == 400
    assert "'three' is not one of" in refused.text
    made = api.post(url, json={"logical_date": None, "conf": {"alpha": 0.25, "word": "two"}}).raise_for_status().json()
    wait_for(lambda: made["dag_run_id"] in runs(api, "everyway", "manual"), "the run did not end")
    assert said(api, "everyway", made["dag_run_id"]) == "0.25 two"


@pytest.mark.slow
def test_the_command_starts_a_run_and_waits(every_way: Path, stack: Stack, api: httpx.Client) -> None:
    outcome = stack.trigger("--run-id", "typed", "--param", "alpha=1", dag_id="everyway")
    assert outcome["state"] == "success"
    assert said(api, "everyway", "typed") == "1 one"


@pytest.mark.slow
def test_an_event_starts_a_run_beside_them(every_way: Path, api: httpx.Client, stack: Stack) -> None:
    (every_way / "new.csv").write_text("x,y\n7,0\n8,1\n9,1\n")
    found = wait_for(lambda: runs(api, "everyway", "operator_triggered"), "no run was started")
    ((name, run),) = found.items()
    assert run["state"] == "success"
    assert name.startswith("event__new.csv")
    store = ArtifactStore(stack.home / "store")
    assert store.read_json(f"runs/everyway/{name}/data/result.json")["metrics"]["rows"] == 3


def test_a_new_version_of_a_model_starts_a_run_with_that_version(stack: Stack, api: httpx.Client) -> None:
    client = MlflowClient(stack.urls["mlflow"])
    client.create_registered_model("starts-heart")
    client.create_model_version("starts-heart", "s3://x/old", tags={"prepare": "vitis-ai"})
    (stack.dags / "newversion").mkdir()
    (stack.dags / "newversion" / "pipeline.yaml").write_text(NEW_VERSION)
    wait_for(lambda: api.get("/api/v2/dags/newversion__events").is_success, "there is no companion Dag")
    start = stack.home / "store" / "events" / "newversion" / "registry-starts" / "start.json"
    wait_for(start.is_file, "the registry was not looked at")
    client.create_model_version("starts-heart", "s3://x/untagged")
    client.create_model_version("starts-heart", "s3://x/new", tags={"prepare": "vitis-ai"})
    client.create_model_version("starts-heart", "s3://x/newer", tags={"prepare": "vitis-ai"})
    found = wait_for(
        lambda: len(f := runs(api, "newversion", "operator_triggered")) == 2 and f, "there are not two runs"
    )
    assert sorted(said(api, "newversion", name) for name in found) == ["starts-heart 3", "starts-heart 4"]
    assert {run["state"] for run in found.values()} == {"success"}
