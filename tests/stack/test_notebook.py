"""The example bracelet-notebook through a real scheduler: a notebook and a script in Airflow's own workers."""

from __future__ import annotations

import shutil
import time

import pytest
from stack_support import ROOT, Stack

import edgewright.sdk as ew
from edgewright.errors import ConfigError

pytestmark = [pytest.mark.stack, pytest.mark.slow, pytest.mark.timeout(600)]


def test_a_notebook_and_a_script_train_in_airflow(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
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
    # the same from a notebook, without Airflow's own libraries
    monkeypatch.setenv("EDGEWRIGHT_HOME", str(stack.home))
    started = ew.trigger("bracelet-notebook", {"trees": 12}, run_id="from-a-notebook", wait=True, timeout=240)
    assert started.state == "success"
    assert ew.dataset("bracelet-notebook/data@from-a-notebook").parts == {"train": 227, "test": 76}
    with pytest.raises(ConfigError, match='no such param: tres; did you mean "trees"'):
        ew.trigger("bracelet-notebook", {"tres": 12})
