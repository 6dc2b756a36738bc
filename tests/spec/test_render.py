"""A pipeline in other forms, and what a change of it does."""

from __future__ import annotations

import ast
import datetime
from dataclasses import replace
from pathlib import Path

import yaml

from edgewright.spec.diff import Miss, compare
from edgewright.spec.pipeline import Constant, ForEach, Group, Pipeline, Reference, Task, Template
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


def test_mermaid_has_every_task_and_every_edge_that_is_not_implied() -> None:
    text = mermaid(PIPELINE)
    assert text.startswith("flowchart LR\n")
    assert text.count(" --> ") == 4  # data -> quality is implied
    assert 't1["model<br/><i>train</i>"]' in text


def test_mermaid_frames_groups() -> None:
    tasks = (Task("sweep.model", "train", (), is_step=True, group="sweep"), Task("one", None, ("sweep.model",),
             for_each=ForEach(items=(1, 2))))  # fmt: skip
    group = Group("sweep", for_each=ForEach(source=Template("{{ params.x }}")))
    assert mermaid(replace(PIPELINE, tasks=tasks, groups=(group,))).splitlines()[1:] == [
        '  t1(["one<br/><i>x 2</i>"])',
        '  subgraph g0 ["sweep x n"]',
        '    t0["model<br/><i>train</i>"]',
        "  end",
        "  t0 --> t1",
    ]


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
    assert "- Starts: by schedule `0 3 * * 0`, by hand" in text
    assert "| `alpha` | number | `0.001` |  | L2 penalty |" in text
    assert "- `quality`: accuracy >= 0.75" in text


def test_page_says_what_starts_it_and_what_params_allow() -> None:
    text = page(
        replace(
            PIPELINE,
            schedule={"assets": ["s3://b/a"], "time": "@daily"},
            triggers=({"kafka": {"topic": "labelled"}},),
            params={"kind": {"type": "string", "enum": ["a|b", "c"]}},
        )
    )
    starts = 'by schedule `@daily`, when assets are updated: `["s3://b/a"]`, by kafka `labelled`, by hand'
    assert f"- Starts: {starts}\n" in text
    assert '| `kind` | string | must be given | enum ["a\\|b", "c"] |  |' in text


def change(task_id: str, **fields: object) -> Pipeline:
    return replace(PIPELINE, tasks=tuple(replace(t, **fields) if t.id == task_id else t for t in PIPELINE.tasks))  # type: ignore[arg-type]


def test_nothing_changed() -> None:
    assert compare(PIPELINE, PIPELINE).state == "same"


def test_a_changed_argument_reruns_the_step_and_what_takes_from_it() -> None:
    plan = compare(PIPELINE, change("model", config={**TASKS[1].config, "args": {"alpha": 0.5}}))
    assert plan.state == "changed"
    assert {name: [miss.part for miss in misses] for name, misses in plan.misses.items()} == {
        "model": ["config"], "quality": ["inputs"],
    }  # fmt: skip
    assert [c.place for c in plan.changed["model"]] == ["with.args.alpha"]


def test_changed_code_reruns_the_steps_that_use_code() -> None:
    plan = compare(PIPELINE, PIPELINE, lambda task: [("code", "model.py")] if task.id == "model" else [])
    assert plan.state == "changed"
    assert plan.misses == {"model": [Miss("code", "model.py changed")], "quality": [Miss("inputs", "model runs again")]}


def test_a_new_default_reruns_the_steps_that_take_the_param() -> None:
    new = replace(PIPELINE, params={"alpha": {**PIPELINE.params["alpha"], "default": 0.01}})
    plan = compare(PIPELINE, new)
    assert plan.misses["model"] == [Miss("config", "the default of params.alpha changed")]
    assert "data" not in plan.misses


def test_what_is_not_cached_misses_nothing() -> None:
    old, new = (
        replace(change("model", arguments={"cache": "off"}), tasks=tuple(
            replace(t, config={**t.config, "entry": entry}, arguments={"cache": "off"}) if t.id == "model" else t
            for t in PIPELINE.tasks
        )) for entry in ("model.py:fit", "model.py:other")
    )  # fmt: skip
    assert list(compare(old, new).misses) == ["quality"]


def test_groups_and_mappings_are_compared() -> None:
    def swept(items: tuple[int, ...]) -> Pipeline:
        model = replace(TASKS[1], id="sweep.model", group="sweep")
        group = Group("sweep", for_each=ForEach(items=items))
        return replace(PIPELINE, tasks=(TASKS[0], model), groups=(group,))

    plan = compare(swept((1, 2)), swept((1, 2, 3)))
    assert str(plan.dag[0]) == "groups.sweep.for_each: [1, 2] -> [1, 2, 3]"
    assert plan.misses["sweep.model"][0].part == "config"


def test_a_retry_more_reruns_nothing() -> None:
    plan = compare(PIPELINE, change("model", arguments={"retries": 4}))
    assert plan.state == "changed"
    assert plan.misses == {}


def test_added_removed_and_schedule() -> None:
    new = replace(PIPELINE, tasks=(*PIPELINE.tasks[:4], Task("later", None, ("say",))), schedule="@daily")
    plan = compare(PIPELINE, new)
    assert (plan.added, plan.removed) == (["later"], ["end"])
    assert str(plan.dag[0]) == "schedule: '0 3 * * 0' -> '@daily'"
    assert compare(None, PIPELINE).state == "added"
    assert compare(PIPELINE, None).state == "removed"


def test_airflow_yaml_names_what_it_cannot_say() -> None:
    text = airflow_yaml(
        replace(
            change("end", arguments={"on_failure_callback": "a.b.c", "retries": 1}),
            params={"must": {"type": "string"}},
            triggers=({"kafka": {"topic": "t"}},),
        )
    )
    assert [line for line in text.splitlines() if line.startswith("#")] == [
        "# left out, Airflow's YAML has no words for it: triggers",
        "# left out, Airflow's YAML has no words for it: the last task, which settles what a run took",
        "# left out, Airflow's YAML has no words for it: end.on_failure_callback",
        "# params.must must be given; here it is null",
        "# params have their defaults only; Airflow's YAML has no types for them",
    ]
    end = yaml.safe_load(text)["tasks"][-1]
    assert end == {"id": "end", "needs": ["say"], "retries": 1}


def test_python_gives_every_name_once_and_keeps_literals() -> None:
    tasks = (
        Task("a-b", "ingest", config={"source": "{{ kept }}.csv"}, is_step=True, profile="gpu"),
        Task("a_b", "one.Operator", ("a-b",), {"x": Constant(True), "sql": "query.sql"}),
        Task("class", "two.Operator", (), {"x": Reference("a_b", "k")}, {"on_failure_callback": ["m.f"]}),
        Task("DAG", None, (), {}, {"outlets": ["s3://bucket"]}),
    )
    schedule = {"uses": "my.Timetable", "with": {"cron": "0 0 * * *"}}
    text = python(replace(PIPELINE, tasks=tasks, schedule=schedule, params={"p": {"type": "string", "not": {}}}))
    ast.parse(text)
    for part in (
        "from one import Operator\n",
        "from two import Operator as Operator_\n",
        "schedule=Timetable(cron='0 0 * * *')",
        "Param(type='string', **{'not': {}})",
        "source=literal('{{ kept }}.csv')",
        "profile='gpu'",
        "a_b_ = Operator(",
        "x=True",
        "sql=literal('query.sql')",
        "t_class = Operator_(",
        "x=a_b_.output['k']",
        "on_failure_callback=[f]",
        "t_DAG = EmptyOperator(",
        "outlets=[Asset('s3://bucket')]",
    ):
        assert part in text


def test_page_says_who_is_told_what() -> None:
    notify = ({"email": {"to": "a@b.c"}}, {"uses": "package.Teams", "with": {"x": 1}, "when": ["publish", "success"]})
    assert "- Tells: email (failure, gate), Teams (publish, success)\n" in page(replace(PIPELINE, notify=notify))


def test_a_duration_is_never_rounded_to_nothing() -> None:
    task = Task("only", None, arguments={"retry_delay": datetime.timedelta(seconds=0.5)})
    assert "retry_delay: PT1S" in airflow_yaml(replace(PIPELINE, tasks=(task,)))
