"""Groups, mapping, setup and teardown, assets and notifiers as Airflow builds them."""

from __future__ import annotations

import json
import linecache
from pathlib import Path
from typing import Any

import pytest
from airflow.sdk import DAG, AssetAll, AssetAny, AssetOrTimeSchedule
from airflow.sdk.definitions.mappedoperator import MappedOperator
from airflow.sdk.definitions.taskgroup import MappedTaskGroup
from airflow.serialization.serialized_objects import DagSerialization

from edgewright.errors import ConfigError
from edgewright.factory import build_dag
from edgewright.operators.events import SETTLE
from edgewright.spec import load_pipeline
from edgewright.spec.render import airflow_yaml, python

GOOD = Path(__file__).parents[1] / "corpus" / "good"


def dag_of(name: str) -> DAG:
    return build_dag(load_pipeline(GOOD / f"{name}.yaml"))


def serialized(dag: DAG) -> str:
    text = json.dumps(DagSerialization.to_dict(dag), sort_keys=True)
    DagSerialization.from_dict(json.loads(text))
    return text


def test_groups_nest_and_edges_go_between_their_tasks() -> None:
    dag = dag_of("groups")
    group = dag.task_group.children["models"]
    assert set(group.children) == {"models.linear", "models.network"}
    assert group.tooltip == "Two ways to the same end"
    assert dag.get_task("models.network.model").upstream_task_ids == {
        "data", "models.linear.model", "models.linear.quality",
    }  # fmt: skip
    assert dag.get_task("models.network.quality").config["model"] == {"$x": "models.network.model"}
    assert dag.get_task("report").upstream_task_ids >= {"models.network.quality", "models.linear.quality"}


def test_a_sweep_is_a_mapped_group_and_the_best_is_chosen_after_all_are_measured() -> None:
    dag = dag_of("sweep")
    assert isinstance(dag.task_group.children["search"], MappedTaskGroup)
    lister = dag.get_task("search__items")
    assert list(lister.iter_mapped_dependants()) == [dag.task_group.children["search"]]
    assert dag.get_task("int8").upstream_task_ids == {"data", "search.model", "search.quality"}
    assert dag.get_task("int8").config["model"] == {
        "$x": {"task": "search.model", "best_of": {"metric": "roc_auc", "mode": "max", "task": "search.quality"}}
    }
    assert dag.get_task("search.quality").config["model"] == {"$x": {"task": "search.model", "items": "same"}}


def test_mapped_tasks_of_steps_and_of_any_operator() -> None:
    dag = dag_of("for_each")
    for name in ("data", "model", "seeds", "echo"):
        assert isinstance(dag.get_task(name), MappedOperator)
    assert dag.get_task("model").upstream_task_ids == {"data", "model__items"}
    assert dag.get_task("seeds").partial_kwargs["map_index_template"] == "{{ item.word }}"


@pytest.mark.parametrize("name", ["groups", "sweep", "for_each", "setup_teardown", "assets", "notify"])
def test_the_same_text_gives_the_same_serialized_dag(name: str) -> None:
    first, second = serialized(dag_of(name)), serialized(dag_of(name))
    assert first == second
    assert "0x" not in first


def test_setup_and_teardown() -> None:
    dag = dag_of("setup_teardown")
    assert dag.get_task("cluster").is_setup
    assert [name for name in ("remove", "clean") if dag.get_task(name).is_teardown] == ["remove", "clean"]
    assert dag.get_task("remove").upstream_task_ids == {"cluster", "work"}


def test_assets_start_a_dag_beside_a_time() -> None:
    dag = dag_of("assets")
    schedule: Any = dag.timetable
    assert isinstance(dag.schedule, AssetOrTimeSchedule)
    assert isinstance(schedule.asset_condition, AssetAny)
    assert [asset.name for asset in dag.get_task("work").inlets] == ["s3://raw/heart", "prices"]
    assert isinstance(dag_of("schedule_assets").timetable.asset_condition, AssetAll)


ALL = sorted(file.stem for file in GOOD.glob("*.yaml") if file.stem != "two_documents")


@pytest.mark.parametrize("name", ALL)
def test_the_python_form_is_the_same_dag_or_refused(name: str, tmp_path: Path) -> None:
    pipeline = load_pipeline(GOOD / f"{name}.yaml")
    mapped = any(entry.for_each for entry in (*pipeline.tasks, *pipeline.groups))
    if mapped:
        for form in (python, airflow_yaml):
            with pytest.raises(ConfigError, match="has no words for for_each: or search: of"):
                form(pipeline)
        return
    place = GOOD.parent / "rendered.py"  # beside the folder of the code, as its text says; never written
    text = python(pipeline)
    if "from callbacks import" in text:
        return  # that module is the documents' own
    # Airflow reads the source of a handler's empty function
    linecache.cache[str(place)] = (len(text), None, text.splitlines(keepends=True), str(place))
    names: dict[str, Any] = {"__file__": str(place)}
    exec(compile(text, str(place), "exec"), names)
    (made,) = {id(task.dag): task.dag for task in names.values() if hasattr(task, "task_id")}.values()
    if pipeline.profiles:
        return
    dag = build_dag(pipeline)
    ours = {t.task_id: t.upstream_task_ids for t in dag.tasks}
    if pipeline.takes_events:
        assert "the last task, which settles" in text
        del ours[SETTLE]
    assert {t.task_id: t.upstream_task_ids for t in made.tasks} == ours
    facts = ("is_setup", "is_teardown", "trigger_rule", "retries", "pool", "owner")
    for other in made.tasks:
        task = dag.get_task(other.task_id)
        assert [getattr(task, fact) for fact in facts] == [getattr(other, fact) for fact in facts]
    assert DagSerialization.to_dict(made)["dag"]["timetable"] == DagSerialization.to_dict(dag)["dag"]["timetable"]
