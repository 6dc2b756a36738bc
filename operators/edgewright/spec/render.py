"""A pipeline in other forms: Airflow 3.4's own YAML, a Python module, a Mermaid graph, a page for people."""

from __future__ import annotations

import datetime
import json
from collections.abc import Mapping
from typing import Any

import yaml

from edgewright.spec.markers import encode
from edgewright.spec.pipeline import Constant, Pipeline, Reference, Task, Template
from edgewright.spec.steps import STEPS

AIRFLOW_SCHEMA = "https://airflow.apache.org/schemas/dag/2026-10-30.json"
_OPERATORS = "edgewright.operators"


def operator_path(task: Task) -> str | None:
    """Return the dotted path of the operator that runs a task; ``None`` for an empty task."""
    if task.is_step and task.uses:
        return f"{_OPERATORS}.{task.uses.capitalize()}Operator"
    return task.uses


# -- Mermaid ---------------------------------------------------------------------------------------------------


def mermaid(pipeline: Pipeline) -> str:
    """Return the graph as Mermaid text, from left to right."""
    lines = ["flowchart LR"]
    names = {task.id: f"t{number}" for number, task in enumerate(pipeline.tasks)}
    for task in pipeline.tasks:
        label = task.id if task.uses is None else f"{task.id}<br/><i>{_short(task)}</i>"
        left, right = ("[", "]") if task.is_step else ("([", "])")
        lines.append(f'  {names[task.id]}{left}"{_escape(label)}"{right}')
    lines += [f"  {names[upstream]} --> {names[task.id]}" for task in pipeline.tasks for upstream in task.needs]
    return "\n".join(lines) + "\n"


def _short(task: Task) -> str:
    return (task.uses or "").rsplit(".", 1)[-1]


def _escape(text: str) -> str:
    return text.replace('"', "#quot;")


# -- Airflow 3.4 YAML ------------------------------------------------------------------------------------------


def airflow_yaml(pipeline: Pipeline) -> str:
    """Return the pipeline as a YAML Dag of Airflow 3.4: steps become their operators' dotted paths."""
    document: dict[str, Any] = {"$schema": AIRFLOW_SCHEMA, "dag_id": pipeline.dag_id}
    document.update({key: _plain(value) for key, value in pipeline.arguments.items()})
    document["schedule"] = pipeline.schedule
    if pipeline.params:
        document["params"] = {name: schema.get("default") for name, schema in pipeline.params.items()}
    document["tasks"] = [_airflow_task(task) for task in pipeline.tasks]
    return yaml.safe_dump(document, sort_keys=False, allow_unicode=True, width=120)


def _airflow_task(task: Task) -> dict[str, Any]:
    entry: dict[str, Any] = {"id": task.id}
    if task.uses is not None:
        entry["uses"] = operator_path(task)
    implied = {reference.task for reference in _references(task.config)}
    needs = [name for name in task.needs if name not in implied]
    if needs:
        entry["needs"] = needs
    entry.update({key: _plain(value) for key, value in task.arguments.items()})
    if task.config:
        config = encode(task.config)
        entry["with"] = {"config": config} if task.is_step else config
    return entry


def _references(value: Any) -> list[Reference]:
    if isinstance(value, Reference):
        return [value]
    items = value.values() if isinstance(value, Mapping) else value if isinstance(value, (list, tuple)) else ()
    return [reference for item in items for reference in _references(item)]


def _plain(value: Any) -> Any:
    """Return an argument as YAML has it: durations as ISO 8601, dates as text."""
    if isinstance(value, datetime.timedelta):
        return f"PT{int(value.total_seconds())}S"
    if isinstance(value, (datetime.datetime, datetime.date)):
        return value.isoformat()
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [_plain(item) for item in value]
    return value


# -- Python ----------------------------------------------------------------------------------------------------


def python(pipeline: Pipeline) -> str:
    """Return the pipeline as a hand-written Dag: what the YAML stands for, to read or to go on from."""
    steps = sorted({(operator_path(task) or "") for task in pipeline.tasks if task.is_step})
    others = sorted({task.uses for task in pipeline.tasks if task.uses and not task.is_step})
    empty = any(task.uses is None for task in pipeline.tasks)
    lines = [f'"""{pipeline.arguments.get("description") or pipeline.dag_id}."""', "", "import datetime", ""]
    lines.append("from airflow.sdk import DAG, Param")
    if empty:
        lines.append("from airflow.providers.standard.operators.empty import EmptyOperator")
    lines += [f"from {path.rpartition('.')[0]} import {path.rpartition('.')[2]}" for path in others]
    if steps:
        lines += ["", f"from {_OPERATORS} import {', '.join(path.rpartition('.')[2] for path in steps)}"]
    lines += ["", "with DAG(", *(f"    {line}" for line in _dag_arguments(pipeline)), "):"]
    names = {task.id: _identifier(task.id) for task in pipeline.tasks}
    for task in pipeline.tasks:
        lines += [f"    {line}" for line in _python_task(task, names, pipeline)]
    for task in pipeline.tasks:
        implied = {reference.task for reference in _references(task.config)}
        lines += [f"    {names[up]} >> {names[task.id]}" for up in task.needs if up not in implied]
    return "\n".join(lines) + "\n"


def _dag_arguments(pipeline: Pipeline) -> list[str]:
    lines = [f"dag_id={pipeline.dag_id!r},", f"schedule={pipeline.schedule!r},"]
    lines += [f"{key}={_python_value(value, {})}," for key, value in pipeline.arguments.items()]
    if pipeline.params:
        lines.append("params={")
        lines += [f"    {name!r}: {_param(schema)}," for name, schema in pipeline.params.items()]
        lines.append("},")
    return lines


def _param(schema: Mapping[str, Any]) -> str:
    rest = {key: value for key, value in schema.items() if key != "default"}
    extra = "".join(f", {key}={value!r}" for key, value in rest.items() if key.isidentifier())
    return f"Param({schema.get('default')!r}{extra})"


def _python_task(task: Task, names: Mapping[str, str], pipeline: Pipeline) -> list[str]:
    path = operator_path(task)
    name = path.rpartition(".")[2] if path else "EmptyOperator"
    lines = [f"{names[task.id]} = {name}(", f"    task_id={task.id!r},"]
    lines += [f"    {key}={_python_value(value, names)}," for key, value in task.config.items()]
    lines += [f"    {key}={_python_value(value, names)}," for key, value in task.arguments.items()]
    if task.is_step:
        lines.append(f"    folder={pipeline.folder.name!r},")
    return [*lines, ")"]


def _python_value(value: Any, names: Mapping[str, str]) -> str:
    if isinstance(value, Reference):
        key = "" if value.key is None else f"[{value.key!r}]"
        return f"{names[value.task]}.output{key}"
    if isinstance(value, Template):
        return repr(value.text)
    if isinstance(value, Constant):
        return repr(value.value)
    if isinstance(value, datetime.timedelta):
        return f"datetime.timedelta(seconds={value.total_seconds():g})"
    if isinstance(value, datetime.datetime):
        return f"datetime.datetime.fromisoformat({value.isoformat()!r})"
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key!r}: {_python_value(item, names)}" for key, item in value.items()) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(_python_value(item, names) for item in value) + "]"
    return repr(value)


def _identifier(task_id: str) -> str:
    name = "".join(character if character.isalnum() else "_" for character in task_id)
    return f"t_{name}" if not name or name[0].isdigit() else name


# -- a page for people -----------------------------------------------------------------------------------------


def page(pipeline: Pipeline) -> str:
    """Return a Markdown page: what the pipeline does, its graph, params and tasks."""
    lines = [f"# {pipeline.dag_id}", ""]
    if pipeline.arguments.get("description"):
        lines += [str(pipeline.arguments["description"]), ""]
    lines += [f"Schedule: `{pipeline.schedule}`" if pipeline.schedule else "Started by hand or by an event.", ""]
    lines += ["```mermaid", mermaid(pipeline).rstrip(), "```", ""]
    if pipeline.params:
        lines += ["## Params", "", "| name | type | default | description |", "|---|---|---|---|"]
        for name, schema in pipeline.params.items():
            default = json.dumps(schema.get("default"))
            lines.append(f"| `{name}` | {schema.get('type', 'any')} | `{default}` | {schema.get('description', '')} |")
        lines.append("")
    lines += ["## Tasks", "", "| task | uses | after | what it does |", "|---|---|---|---|"]
    for task in pipeline.tasks:
        summary = STEPS[task.uses].summary if task.is_step and task.uses else ""
        lines.append(f"| `{task.id}` | `{task.uses or 'nothing'}` | {', '.join(task.needs) or '-'} | {summary} |")
    lines += ["", "## Gates", ""]
    gates = [(task.id, m, limit) for task in pipeline.tasks for m, limit in (task.config.get("gates") or {}).items()]
    lines += [f"- `{task}`: {metric} {limit}" for task, metric, limit in gates] or ["None."]
    return "\n".join(lines) + "\n"
