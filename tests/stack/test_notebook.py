"""The example bracelet-notebook through a real scheduler: a notebook and a script in Airflow's own workers."""

from __future__ import annotations

import shutil
import time

import pytest
from stack_support import ROOT, Stack

pytestmark = [pytest.mark.stack, pytest.mark.slow, pytest.mark.timeout(600)]


def test_a_notebook_and_a_script_train_in_airflow(stack: Stack) -> None:
    shutil.copytree(ROOT / "dags" / "bracelet-notebook", stack.dags / "bracelet-notebook")
    with stack.airflow() as client:
        limit = time.monotonic() + 120
        while client.get("/api/v2/dags/bracelet-notebook").status_code != 200:
            assert time.monotonic() < limit, "the pipeline did not appear"
            time.sleep(0.3)
    outcome = stack.trigger("--run-id", "adhoc", "--param", "trees=10", dag_id="bracelet-notebook")
    assert outcome["state"] == "success"
    results = {task["task_id"]: task["result"] for task in outcome["tasks"]}
    assert results["forest"]["outputs"]["report"]["meta"]["page"] == "report.html"
    assert 0.7 < results["forest"]["metrics"]["cv_roc_auc"] < 1
    assert 0.7 < results["baseline"]["metrics"]["cv_roc_auc"] < 1
