"""The JSON Schema: as published, complete, and helpful in an editor."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from edgewright.spec import pipeline_schema
from edgewright.spec.arguments import DAG_ARGUMENTS, STEP_ARGUMENTS, TASK_ARGUMENTS
from edgewright.spec.steps import STEPS

ROOT = Path(__file__).resolve().parents[2]
SCHEMA = pipeline_schema()
VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)


def test_the_published_schema_is_this_one() -> None:
    published = json.loads((ROOT / "docs/schema/pipeline-v1.json").read_text())
    assert published == SCHEMA, "run: edgewright schema -o docs/schema/pipeline-v1.json"


def test_it_is_a_schema() -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)


def test_every_key_and_step_is_in_it_with_a_description() -> None:
    assert set(DAG_ARGUMENTS) < set(SCHEMA["properties"])
    task = SCHEMA["$defs"]["task"]["properties"]
    assert {*TASK_ARGUMENTS, *STEP_ARGUMENTS} < set(task)
    assert all(entry.get("description") for entry in (*SCHEMA["properties"].values(), *task.values()))
    assert {f"with_{name}" for name in STEPS} < set(SCHEMA["$defs"])


@pytest.mark.parametrize(
    "task",
    [
        {"id": "a", "uses": "ingest", "with": {"sourc": "x"}},
        {"id": "a", "uses": "ingest", "with": {"source": "x", "format": "cvs"}},
        {"id": "a", "uses": "ingest"},
        {"id": "a", "uses": "ingst"},
        {"id": "a", "uses": "train", "with": {"data": "b", "entry": "model.py:fit"}},
        {"id": "a", "uses": "evaluate", "with": {"data": {"$x": "b"}, "model": {"$x": "c"}, "gates": {"acc": ">= 1"}}},
        {"id": "a", "retires": 3},
        {"id": "a", "trigger_rule": "all_sucess"},
        {"uses": "ingest"},
    ],
)
def test_an_editor_underlines(task: dict[str, Any]) -> None:
    assert not VALIDATOR.is_valid({"dag_id": "d", "tasks": [task]})


def test_a_template_may_bring_what_a_task_lacks() -> None:
    document = {
        "dag_id": "d",
        "templates": {"base": {"uses": "ingest", "with": {"source": "x"}}},
        "tasks": [{"id": "a", "extends": "base", "uses": "ingest", "with": {"label": "y"}}],
    }
    assert VALIDATOR.is_valid(document)
    document["tasks"][0]["with"] = {"lable": "y"}  # type: ignore[index]
    assert not VALIDATOR.is_valid(document)


def test_the_examples_of_the_documentation_are_valid() -> None:
    text = (ROOT / "docs/language.md").read_text()
    blocks = [block.split("```")[0] for block in text.split("```yaml\n")[1:]]
    whole = [yaml.load(block, Loader=yaml.BaseLoader) for block in blocks if "dag_id:" in block]
    assert whole
    for document in whole:
        assert "tasks" in document
