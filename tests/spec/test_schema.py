"""The JSON Schema: as published, complete, and helpful in an editor."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from edgewright.spec import parse_pipeline, pipeline_schema
from edgewright.spec.arguments import DAG_ARGUMENTS, STEP_ARGUMENTS, TASK_ARGUMENTS
from edgewright.spec.faults import Faults
from edgewright.spec.nodes import read
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


def _examples() -> list[str]:
    text = (ROOT / "docs/language.md").read_text()
    return [block.split("```")[0] for block in text.split("```yaml\n")[1:]]


@pytest.mark.parametrize("number", range(len(_examples())))
def test_the_examples_of_the_documentation_work(number: int) -> None:
    example = _examples()[number]
    assert parse_pipeline(example, ROOT / "tests/corpus/good/example.yaml").tasks
    assert VALIDATOR.is_valid(read(example, Faults("example.yaml")))


def test_the_documentation_names_every_key_and_every_kind_of_fault() -> None:
    language, errors = (ROOT / "docs/language.md").read_text(), (ROOT / "docs/errors.md").read_text()
    keys = {*SCHEMA["properties"], *SCHEMA["$defs"]["task"]["properties"], *STEPS}
    assert [key for key in sorted(keys) if f"`{key}`" not in language] == []
    source = "".join(path.read_text() for path in (ROOT / "operators/edgewright/spec").glob("*.py"))
    codes = set(re.findall(r'code="([a-z-]+)"', source))
    assert [code for code in sorted(codes) if f"`{code}`" not in errors] == []
