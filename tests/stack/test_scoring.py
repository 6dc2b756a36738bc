"""The example bracelet-scoring through a real scheduler: two mapped tasks share the files of one night."""

from __future__ import annotations

import json
import shutil
import time
from typing import Any

import pytest
from stack_support import ROOT, Stack

pytestmark = [pytest.mark.stack, pytest.mark.slow, pytest.mark.timeout(600)]


def test_the_champion_scores_every_file_in_airflow(stack: Stack, first_run: dict[str, Any]) -> None:
    assert first_run["state"] == "success"
    shutil.copytree(ROOT / "dags" / "bracelet-scoring", stack.dags / "bracelet-scoring")
    with stack.airflow() as client:
        limit = time.monotonic() + 120
        while client.get("/api/v2/dags/bracelet-scoring").status_code != 200:
            assert time.monotonic() < limit, "the pipeline did not appear"
            time.sleep(0.3)
    outcome = stack.trigger("--run-id", "night", dag_id="bracelet-scoring")
    assert outcome["state"] == "success"
    folder = stack.home / "store" / "scores" / "bracelet-scoring" / "predictions"
    latest = json.loads((folder / "latest.json").read_text())
    assert (latest["rows"], latest["rejected"], latest["complete"]) == (302, 1, True)
    assert len(list(folder.glob("*/*/_SUCCESS"))) == 2
    before = {path: path.stat().st_mtime_ns for path in folder.glob("*/*/part-*.parquet")}
    assert stack.trigger("--run-id", "again", dag_id="bracelet-scoring")["state"] == "success"
    assert {path: path.stat().st_mtime_ns for path in folder.glob("*/*/part-*.parquet")} == before
