"""What the Dag processor writes down of every example, the scheduler can read again."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from airflow.serialization.serialized_objects import DagSerialization

from edgewright.factory.dag import dags_of
from edgewright.spec import load_pipelines

EXAMPLES = sorted((Path(__file__).resolve().parents[2] / "dags").glob("*/pipeline.yaml"))


@pytest.mark.parametrize("file", EXAMPLES, ids=lambda file: file.parent.name)
def test_an_example_is_read_again_as_it_was_written(file: Path) -> None:
    for dag in dags_of(load_pipelines(file)):
        written = json.loads(json.dumps(DagSerialization.to_dict(dag)))
        read = DagSerialization.from_dict(written)
        assert sorted(read.task_dict) == sorted(dag.task_dict)
