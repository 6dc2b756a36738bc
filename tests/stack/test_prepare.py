"""A version that is registered with a tag starts the example through a real Airflow, and has the variants then."""

from __future__ import annotations

import shutil
import time

import pytest
from stack_support import ROOT, Stack

from edgewright.registry import Registry

pytestmark = [pytest.mark.stack, pytest.mark.airflow, pytest.mark.slow]
DAG = "prepare-for-edge"
SECONDS = 600.0


def test_a_registered_version_is_compiled_for_the_targets_of_its_tag(stack: Stack) -> None:
    api = stack.airflow()
    shutil.copytree(ROOT / "dags" / DAG, stack.dags / DAG)
    registry = Registry(stack.urls["mlflow"])
    deadline = time.monotonic() + SECONDS
    store = stack.home / "store" / "events" / DAG
    while not list(store.rglob("start.json")):  # only what comes after the first look starts a run
        assert time.monotonic() < deadline, "the registry was never looked at"
        time.sleep(1)
    folder = stack.dags / "bracelet"
    text = (folder / "pipeline.yaml").read_text()
    wanted = text.replace("alias: champion}", 'alias: champion, tags: {prepare: "onnx-fp16"}}').replace(
        "dag_id: bracelet", "dag_id: bracelet-prepared"
    )
    shutil.copytree(folder, stack.dags / "bracelet-prepared", ignore=shutil.ignore_patterns("__pycache__"))
    document = wanted[: wanted.index("  - id: live")].replace("name: bracelet,", "name: bracelet-prepared,")
    (stack.dags / "bracelet-prepared" / "pipeline.yaml").write_text(document)
    while not api.get("/api/v2/dags/bracelet-prepared").is_success:
        assert time.monotonic() < deadline, "the pipeline was never read"
        time.sleep(1)
    stack.trigger(dag_id="bracelet-prepared")
    while "onnx-fp16" not in registry.version("bracelet-prepared", 1).added:
        assert time.monotonic() < deadline, api.get(f"/api/v2/dags/{DAG}/dagRuns").text
        time.sleep(2)
    while True:
        (run,) = api.get(f"/api/v2/dags/{DAG}/dagRuns").json()["dag_runs"]
        if run["state"] not in ("queued", "running"):
            break
        assert time.monotonic() < deadline, run
        time.sleep(1)
    assert (run["dag_run_id"], run["state"]) == ("event__bracelet-prepared-v1-new", "success")
    assert [version.version for version in registry.versions("bracelet-prepared")] == ["1"]
