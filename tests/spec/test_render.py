"""A pipeline in other forms, and what a change of it does."""

from __future__ import annotations

import ast
import datetime
from dataclasses import replace
from pathlib import Path

import yaml

from edgewright.spec.diff import compare
from edgewright.spec.pipeline import Constant, Pipeline, Reference, Task, Template
from edgewright.spec.render import airflow_yaml, mermaid, page, python

TASKS = (
    Task("data", "ingest", config={"source": "a.csv", "label": "y"}, is_step=True),
    Task(
        "model",
        "train",
        ("data",),
        {"data": Reference("data"), "entry": "model.py:fit", "args": {"alpha": Template("{{ params.alpha }}")}},
        {"retries": 3, "retry_delay": datetime.timedelta(minutes=5)},
        is_step=True,
    ),
    Task("quality", "evaluate", ("model", "data"),
         {"model": Reference("model"), "data": Reference("data"), "gates": {"accuracy": ">= 0.75"}}, is_step=True),
    Task("say", "airflow.providers.standard.operators.bash.BashOperator", ("quality",),
         {"bash_command": Constant("echo '{{ not a template }}'")}),
    Task("end", None, ("say",)),
)  # fmt: skip
PIPELINE = Pipeline(
    "heart",
    Path("heart/pipeline.yaml"),
    "",
    "0" * 64,
    "0 3 * * 0",
    {"alpha": {"type": "number", "default": 0.001, "description": "L2 penalty"}},
    TASKS,
    {"description": "Hearts", "start_date": datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)},
)


def test_mermaid_has_every_task_and_every_edge() -> None:
    text = mermaid(PIPELINE)
    assert text.startswith("flowchart LR\n")
    assert text.count(" --> ") == 5
    assert 't1["model<br/><i>train</i>"]' in text


def test_airflow_yaml_keeps_markers_and_names_our_operators() -> None:
    document = yaml.safe_load(airflow_yaml(PIPELINE))
    tasks = {task["id"]: task for task in document["tasks"]}
    assert document["$schema"].startswith("https://airflow.apache.org/schemas/dag/")
    assert tasks["model"]["uses"] == "edgewright.operators.TrainOperator"
    assert tasks["model"]["with"]["config"]["data"] == {"$x": "data"}
    assert tasks["model"]["retry_delay"] == "PT300S"
    assert "needs" not in tasks["model"]
    assert tasks["say"]["needs"] == ["quality"]
    assert tasks["say"]["with"] == {"bash_command": {"$const": "echo '{{ not a template }}'"}}


def test_python_is_valid_and_wires_outputs() -> None:
    text = python(PIPELINE)
    ast.parse(text)
    assert "from edgewright.operators import EvaluateOperator, IngestOperator, TrainOperator" in text
    assert "data=data.output" in text
    assert "say >> end" in text
    assert "retry_delay=datetime.timedelta(seconds=300)" in text


def test_page_shows_params_tasks_and_gates() -> None:
    text = page(PIPELINE)
    assert "| `alpha` | number | `0.001` | L2 penalty |" in text
    assert "- `quality`: accuracy >= 0.75" in text


def change(task_id: str, **fields: object) -> Pipeline:
    return replace(PIPELINE, tasks=tuple(replace(t, **fields) if t.id == task_id else t for t in PIPELINE.tasks))  # type: ignore[arg-type]


def test_nothing_changed() -> None:
    assert compare(PIPELINE, PIPELINE).state == "same"


def test_a_changed_argument_reruns_the_step_and_what_takes_from_it() -> None:
    plan = compare(PIPELINE, change("model", config={**TASKS[1].config, "args": {"alpha": 0.5}}))
    assert plan.state == "changed"
    assert plan.reruns == ["model", "quality"]
    assert [c.place for c in plan.changed["model"]] == ["with.args.alpha"]


def test_changed_code_reruns_the_steps_that_use_code() -> None:
    assert compare(PIPELINE, PIPELINE, {"model.py"}).reruns == ["model", "quality"]
    assert compare(PIPELINE, PIPELINE, {"a.csv"}).reruns == ["data", "model", "quality"]
    assert compare(PIPELINE, PIPELINE, {"notes.txt"}).state == "same"


def test_a_retry_more_reruns_nothing() -> None:
    plan = compare(PIPELINE, change("model", arguments={"retries": 4}))
    assert plan.state == "changed"
    assert plan.reruns == []


def test_added_removed_and_schedule() -> None:
    new = replace(PIPELINE, tasks=(*PIPELINE.tasks[:4], Task("later", None, ("say",))), schedule="@daily")
    plan = compare(PIPELINE, new)
    assert (plan.added, plan.removed) == (["later"], ["end"])
    assert str(plan.dag[0]) == "schedule: '0 3 * * 0' -> '@daily'"
    assert compare(None, PIPELINE).state == "added"
    assert compare(PIPELINE, None).state == "removed"
