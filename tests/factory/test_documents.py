"""The examples of docs/python-dags.md work as they stand there."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from support import airflow_env

ROOT = Path(__file__).parents[2]
BLOCKS = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "python-dags.md").read_text(), re.DOTALL)


@pytest.fixture
def dags(tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copytree(ROOT / "dags" / "bracelet", tmp_path / "dags" / "bracelet")
    monkeypatch.chdir(tmp_path)
    return tmp_path / "dags"


def load(dags: Path, source: str) -> Any:
    from airflow.dag_processing.dagbag import DagBag

    (dags / "example.py").write_text(source)
    found = DagBag(dags / "example.py", bundle_path=dags, bundle_name="docs", safe_mode=False)
    assert found.import_errors == {}
    return found.dags


@pytest.mark.airflow
def test_the_hand_written_dag_runs(dags: Path):
    dag = load(dags, BLOCKS[0])["bracelet_by_hand"]
    run = airflow_env.run(dag, run_conf={"alpha": 0.01})
    assert set(airflow_env.states(run).values()) == {"success"}


@pytest.mark.parametrize("block", BLOCKS[1:])
def test_each_other_example_becomes_a_dag(dags: Path, block: str):
    assert set(load(dags, block)) == {"bracelet"}
