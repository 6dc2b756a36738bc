"""``run:``: what a worker of another language does, as Airflow takes it."""

from __future__ import annotations

from pathlib import Path

import pytest
from airflow.sdk.definitions.context import KNOWN_CONTEXT_KEYS
from airflow.serialization.serialized_objects import DagSerialization

from edgewright.errors import SpecError
from edgewright.factory.dag import build_dag
from edgewright.spec import handlers, load_pipeline
from edgewright.spec.compiled import dump, load
from edgewright.spec.diff import compare
from edgewright.spec.jinja import CONTEXT_NAMES

GOOD = Path(__file__).parents[1] / "corpus" / "good" / "run_handlers.yaml"
TEXT = """\
dag_id: handlers
tasks:
  - {id: extract, run: {}, queue: go}
  - {id: load, queue: java, run: {rows: {$x: extract}, limit: LIMIT, options: {$const: {$x: text}}}}
"""


def test_a_handler_is_a_task_for_the_workers_of_its_queue() -> None:
    dag = build_dag(load_pipeline(GOOD))
    assert DagSerialization.to_dict(dag)["dag"]["tasks"]
    extract, load_task = dag.get_task("extract"), dag.get_task("load")
    assert (extract.task_type, extract.queue, load_task.queue, load_task.retries) == ("_StubOperator", "go", "java", 2)
    assert load_task.upstream_task_ids == {"extract"}
    assert dag.get_task("around.report").upstream_task_ids == {"load"}
    assert dag.get_task("tell").upstream_task_ids == {"extract"}


def test_names_that_airflow_gives_every_task_are_known() -> None:
    assert CONTEXT_NAMES == KNOWN_CONTEXT_KEYS


@pytest.mark.parametrize("release", [None, "3.4.0b2", "4.0.0"])
def test_arguments_are_bound_where_airflow_does_it(
    release: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(handlers, "_release", lambda: release)
    file = tmp_path / "pipeline.yaml"
    file.write_text(TEXT.replace("LIMIT", "20"))
    task = load_pipeline(file)
    built = build_dag(task).get_task("load")
    assert built.upstream_task_ids == {"extract"}
    assert built.op_kwargs["limit"] == 20
    assert built.op_kwargs["options"] == {"$x": "text"}
    assert built.op_kwargs["rows"].operator.task_id == "extract"


def test_a_checked_pipeline_and_a_plan_keep_what_a_handler_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(handlers, "_release", lambda: None)
    file = tmp_path / "pipeline.yaml"
    before, after = TEXT.replace("LIMIT", "20"), TEXT.replace("LIMIT", "30")
    file.write_text(before)
    old = load_pipeline(file)
    assert load(*dump([old]), before, file) == [old]
    file.write_text(after)
    plan = compare(old, load_pipeline(file))
    assert [change.place for change in plan.changed["load"]] == ["run.limit"]


def test_airflow_33_is_told_of_before_it_drops_arguments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(handlers, "_release", lambda: "3.3.2")
    file = tmp_path / "pipeline.yaml"
    file.write_text(TEXT.replace("LIMIT", "20"))
    with pytest.raises(SpecError, match=r"Airflow 3\.3\.2 hands a handler no arguments"):
        load_pipeline(file)
