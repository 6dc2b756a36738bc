"""What only a real scheduler shows of the language: mapped groups, the best of them, teardown, notifiers, defaults."""

from __future__ import annotations

import shutil
import time
from typing import Any

import pytest
from stack_support import ROOT, Stack

pytestmark = [pytest.mark.stack, pytest.mark.timeout(600)]

BASH = "airflow.providers.standard.operators.bash.BashOperator"
SWEEP = f"""
dag_id: sweep
params:
  alphas: {{type: array, default: [0.001, 0.01]}}
  strict: {{type: number, default: 0}}
notify:
  - email: {{to: ops@example.org, subject: "{{{{ event }}}} {{{{ dag_id }}}}"}}
    when: [gate, publish, success]
tasks:
  - {{id: up, setup: true, uses: {BASH}, with: {{bash_command: echo up}}}}
  - id: data
    needs: [up]
    uses: ingest
    with: {{source: cleveland.csv, label: num, split: {{test: 0.25, seed: 7, stratify: true}}}}
  - id: search
    for_each: {{alpha: {{$t: "{{{{ params.alphas }}}}"}}, word: [a]}}
    best_of: roc_auc
    tasks:
      - id: model
        uses: train
        with: {{data: {{$x: data}}, entry: model.py:fit, args: {{alpha: {{$t: "{{{{ item.alpha }}}}"}}}}}}
      - {{id: quality, uses: evaluate, with: {{model: {{$x: model}}, data: {{$x: data}}}}}}
      - {{id: echo, uses: {BASH}, with: {{bash_command: {{$t: "echo {{{{ item.word }}}}{{{{ item.alpha }}}}"}}}}}}
  - id: gate
    uses: evaluate
    with:
      model: {{$x: search.model}}
      data: {{$x: data}}
      gates: {{accuracy: {{$t: ">= {{{{ params.strict }}}}"}}}}
  - {{id: release, needs: [gate], uses: publish, with: {{models: [{{$x: search.model}}], name: sweep}}}}
  - {{id: down, teardown: [up], needs: [release], uses: {BASH}, with: {{bash_command: echo down}}}}
"""


@pytest.fixture(scope="module")
def sweep(stack: Stack) -> Stack:
    """Put the pipeline beside the other one and wait until Airflow has it."""
    folder = stack.dags / "sweep"
    shutil.copytree(ROOT / "dags" / "bracelet", folder, ignore=shutil.ignore_patterns("__pycache__", "*.yaml"))
    (stack.dags / "defaults.yaml").write_text("task_defaults: {owner: cardio}\n")
    (folder / "pipeline.yaml").write_text(SWEEP)
    with stack.airflow() as client:
        for _ in range(100):
            if client.get("/api/v2/dags/sweep").status_code == 200:
                return stack
            time.sleep(0.3)
    pytest.fail("the new pipeline did not appear")


def instances(stack: Stack, run_id: str) -> list[dict[str, Any]]:
    with stack.airflow() as client:
        answer = client.get(f"/api/v2/dags/sweep/dagRuns/{run_id}/taskInstances", params={"limit": 100})
        answer.raise_for_status()
        found: list[dict[str, Any]] = answer.json()["task_instances"]
        return found


def subjects(stack: Stack, number: int) -> list[str]:
    """Wait for so many mails: what is sent at a run's end is sent after the run has its state."""
    limit = time.monotonic() + 60
    while len(stack.mails) < number and time.monotonic() < limit:
        time.sleep(0.2)
    return [mail["Subject"] for mail in stack.mails]


def test_a_sweep_maps_a_group_and_the_best_goes_on(sweep: Stack) -> None:
    sweep.mails.clear()
    outcome = sweep.trigger("--run-id", "three", "--param", "alphas=[0.001, 0.01, 1000000]", dag_id="sweep")
    assert outcome["state"] == "success"
    found = instances(sweep, "three")
    labels = {(one["task_id"], one["map_index"]): one["rendered_map_index"] for one in found}
    assert labels["search.model", 2] == "alpha=1000000, word=a"
    assert labels["search.echo", 0] == "alpha=0.001, word=a"
    assert {one["state"] for one in found} == {"success"}
    results = [task["result"] for task in outcome["tasks"] if task["task_id"] == "search.quality"]
    scores = {result["identity"]["map_index"]: result["metrics"]["roc_auc"] for result in results}
    best = min(scores, key=lambda index: (-scores[index], index))
    (gate,) = [task["result"] for task in outcome["tasks"] if task["task_id"] == "gate"]
    assert gate["metrics"]["roc_auc"] == scores[best]
    assert subjects(sweep, 2) == ["publish sweep", "success sweep"]
    with sweep.airflow() as client:
        assert client.get("/api/v2/dags/sweep").json()["owners"] == ["cardio"]


def test_a_refused_gate_is_told_and_the_teardown_runs(sweep: Stack) -> None:
    sweep.mails.clear()
    outcome = sweep.trigger("--run-id", "strict", "--param", "strict=0.999", dag_id="sweep", check=False)
    assert outcome["state"] == "failed"
    states = {one["task_id"]: one["state"] for one in instances(sweep, "strict")}
    assert (states["gate"], states["release"], states["down"]) == ("failed", "upstream_failed", "success")
    assert subjects(sweep, 1) == ["gate sweep"]
