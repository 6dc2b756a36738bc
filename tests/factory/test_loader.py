"""Pipelines in a plain Dags folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from airflow.sdk import DAG

from edgewright.factory import load_dags

GOOD = "dag_id: {name}\ntasks:\n  - {{id: t}}\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "pipeline.yaml").write_text(GOOD.format(name=name))
    (tmp_path / "loader.py").write_text(
        "# airflow dag\nfrom edgewright.factory import load_dags\n\nload_dags(globals(), __file__)\n"
    )
    return tmp_path


def bag(folder: Path) -> Any:
    from airflow.dag_processing.dagbag import DagBag

    return DagBag(folder, bundle_path=folder, bundle_name="plain")


def test_every_pipeline_is_loaded(folder: Path):
    found = bag(folder)
    assert set(found.dags) == {"a", "b"}
    assert found.dags["a"].relative_fileloc == "loader.py"


def test_a_broken_pipeline_hides_nobody_and_is_seen(folder: Path):
    (folder / "a" / "pipeline.yaml").write_text("dag_id: a\ntasks:\n  - {id: t, uses: trian}\n")
    found = bag(folder)
    assert set(found.dags) == {"b", "edgewright_broken_pipelines"}
    assert found.import_errors == {}
    broken = found.dags["edgewright_broken_pipelines"]
    assert 'did you mean "train"?' in broken.doc_md
    assert broken.tags == {"edgewright", "broken"}


def test_a_worker_builds_the_one_dag_that_it_runs(folder: Path, monkeypatch: pytest.MonkeyPatch):
    # how Airflow tells a Dag file what it is parsed for
    monkeypatch.setenv("_AIRFLOW_PARSING_CONTEXT_DAG_ID", "b")
    monkeypatch.setenv("_AIRFLOW_PARSING_CONTEXT_TASK_ID", "t")
    names: dict[str, Any] = {}
    load_dags(names, str(folder / "loader.py"))
    assert [dag.dag_id for dag in names.values() if isinstance(dag, DAG)] == ["b"]
