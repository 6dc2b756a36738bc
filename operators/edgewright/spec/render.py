"""A pipeline in other forms: Airflow 3.4's own YAML, a Python module, a Mermaid graph, a page for people."""

from __future__ import annotations

import datetime
import json
import math
from collections.abc import Mapping
from typing import Any

import yaml

from edgewright.spec.arguments import STEP_DEFAULTS
from edgewright.spec.layout import reduced
from edgewright.spec.markers import encode
from edgewright.spec.notify import DEFAULT_MOMENTS, NOTICES
from edgewright.spec.pipeline import Group, Pipeline, Task, iter_references
from edgewright.spec.render_limits import left_out, refuse_mapping
from edgewright.spec.render_python import operator_path, python
from edgewright.spec.steps import STEPS

__all__ = ["airflow_yaml", "mermaid", "operator_path", "page", "python"]

AIRFLOW_SCHEMA = "https://airflow.apache.org/schemas/dag/2026-10-30.json"
#: Arguments of Dags and tasks that Airflow 3.4's YAML refuses.
_NOT_IN_AIRFLOW = frozenset(
    {"inlets", "outlets", *(f"on_{event}_callback" for event in ("execute", "failure", "success", "retry", "skipped"))}
)


# -- Mermaid ---------------------------------------------------------------------------------------------------


def mermaid(pipeline: Pipeline) -> str:
    """Return the graph as Mermaid text, from left to right; groups are frames, edges that others imply are left out."""
    names = {entry.id: f"t{number}" for number, entry in enumerate(pipeline.tasks)}
    lines = ["flowchart LR", *_level(pipeline, None, names, "  ")]
    edges = reduced((upstream, task.id) for task in pipeline.tasks for upstream in task.needs)
    lines += [f"  {names[upstream]} --> {names[task_id]}" for upstream, task_id in edges]
    return "\n".join(lines) + "\n"


def _level(pipeline: Pipeline, group: str | None, names: dict[str, str], indent: str) -> list[str]:
    lines = []
    for task in (task for task in pipeline.tasks if task.group == group):
        about = [_short(task)] if task.uses or task.is_handler else []
        about += [f"x {_times(task)}"] if task.for_each is not None else []
        label = task.id.rsplit(".", 1)[-1] + (f"<br/><i>{' '.join(about)}</i>" if about else "")
        left, right = ("[", "]") if task.is_step else ("([", "])")
        lines.append(f'{indent}{names[task.id]}{left}"{_escape(label)}"{right}')
    for number, inner in enumerate(pipeline.groups):
        if inner.parent == group:
            label = inner.id.rsplit(".", 1)[-1] + (f" x {_times(inner)}" if inner.for_each is not None else "")
            lines.append(f'{indent}subgraph g{number} ["{_escape(label)}"]')
            lines += [*_level(pipeline, inner.id, names, indent + "  "), f"{indent}end"]
    return lines


def _times(entry: Task | Group) -> str:
    """Return how often a mapped task or group runs; ``n`` where only a run knows."""
    items = entry.for_each.items if entry.for_each is not None else None
    return "n" if items is None else str(len(items))


def _short(task: Task) -> str:
    return task.does.rsplit(".", 1)[-1]


def _escape(text: str) -> str:
    return text.replace('"', "#quot;")


# -- Airflow 3.4 YAML ------------------------------------------------------------------------------------------


def airflow_yaml(pipeline: Pipeline) -> str:
    """Return the pipeline as a YAML Dag of Airflow 3.4: steps become their operators' dotted paths.

    What that language cannot say is left out, and named in a comment on top. The file belongs into the pipeline's
    folder, where its code and data are.
    """
    refuse_mapping(pipeline, "Airflow's YAML")
    arguments = {key: value for key, value in pipeline.arguments.items() if key not in _NOT_IN_AIRFLOW}
    document: dict[str, Any] = {"$schema": AIRFLOW_SCHEMA, "dag_id": pipeline.dag_id}
    document.update({key: _plain(value) for key, value in arguments.items()})
    document["schedule"] = None if "schedule.assets" in left_out(pipeline) else pipeline.schedule
    if pipeline.params:
        document["params"] = {name: schema.get("default") for name, schema in pipeline.params.items()}
    document["tasks"] = [_airflow_task(task) for task in pipeline.tasks]
    text = yaml.safe_dump(document, sort_keys=False, allow_unicode=True, width=120)
    return "".join(f"# {line}\n" for line in _left_out(pipeline)) + text


def _left_out(pipeline: Pipeline) -> list[str]:
    """Return what Airflow's YAML has no words for, a line each."""
    keys = left_out(pipeline)
    keys += [key for key in pipeline.arguments if key in _NOT_IN_AIRFLOW]
    keys += [f"{task.id}.{key}" for task in pipeline.tasks for key in task.arguments if key in _NOT_IN_AIRFLOW]
    lines = [f"left out, Airflow's YAML has no words for it: {key}" for key in keys]
    required = [name for name, schema in pipeline.params.items() if "default" not in schema]
    lines += [f"params.{name} must be given; here it is null" for name in required]
    if any(set(schema) - {"default"} for schema in pipeline.params.values()):
        lines.append("params have their defaults only; Airflow's YAML has no types for them")
    return lines


def _airflow_task(task: Task) -> dict[str, Any]:
    entry: dict[str, Any] = {"id": task.id}
    if task.uses is not None:
        entry["uses"] = operator_path(task)
    implied = {reference.task for reference in iter_references(task.config)}
    needs = [name for name in task.needs if name not in implied]
    if needs:
        entry["needs"] = needs
    arguments = {**STEP_DEFAULTS, **task.arguments} if task.is_step else task.arguments
    entry.update({key: _plain(value) for key, value in arguments.items() if key not in _NOT_IN_AIRFLOW})
    config = encode(task.config)
    if task.is_step:
        places = {"profile": task.profile, "preferred": task.preferred}
        entry["with"] = {"config": config, **{key: value for key, value in places.items() if value is not None}}
    elif config or task.is_handler:
        entry["run" if task.is_handler else "with"] = config
    return entry


def _plain(value: Any) -> Any:
    """Return an argument as YAML has it: durations as ISO 8601, which Airflow reads in whole seconds; dates as text."""
    if isinstance(value, datetime.timedelta):
        return f"PT{math.ceil(value.total_seconds())}S"
    if isinstance(value, (datetime.datetime, datetime.date)):
        return value.isoformat()
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [_plain(item) for item in value]
    return value


# -- a page for people -----------------------------------------------------------------------------------------


def page(pipeline: Pipeline) -> str:
    """Return a Markdown page: what the pipeline does, what starts it, its graph, params, tasks and gates."""
    lines = [f"# {pipeline.dag_id}", ""]
    if pipeline.arguments.get("description"):
        lines += [str(pipeline.arguments["description"]), ""]
    lines += [f"- Starts: {starts(pipeline)}", f"- File: `{pipeline.file.name}` in `{pipeline.folder.resolve().name}/`"]
    for label, values in (("Owner", pipeline.arguments.get("owner")), ("Tags", pipeline.arguments.get("tags"))):
        if values:
            lines.append(f"- {label}: {values if isinstance(values, str) else ', '.join(map(str, values))}")
    if pipeline.notify:
        lines.append(f"- Tells: {', '.join(map(_tells, pipeline.notify))}")
    lines += ["", "```mermaid", mermaid(pipeline).rstrip(), "```", "", *_params(pipeline), "## Tasks", ""]
    lines += ["| task | uses | after | what it does |", "|---|---|---|---|"]
    for task in pipeline.tasks:
        summary = STEPS[task.uses].summary if task.is_step and task.uses else ""
        times = f" (x {_times(task)})" if task.for_each is not None else ""
        needs = ", ".join(task.needs) or "-"
        lines.append(f"| `{task.id}`{times} | `{task.does}` | {needs} | {_cell(summary)} |")
    lines += ["", "## Gates", ""]
    gates = [(task.id, m, limit) for task in pipeline.tasks for m, limit in (task.config.get("gates") or {}).items()]
    lines += [f"- `{task}`: {metric} {limit}" for task, metric, limit in gates] or ["None."]
    return "\n".join(lines) + "\n"


def _tells(entry: Mapping[str, Any]) -> str:
    """Return in words who is told what by one entry of ``notify:``."""
    way = str(entry["uses"]).rpartition(".")[2] if "uses" in entry else next(kind for kind in NOTICES if kind in entry)
    moments = entry.get("when") or DEFAULT_MOMENTS
    return f"{way} ({moments if isinstance(moments, str) else ', '.join(moments)})"


def starts(pipeline: Pipeline) -> str:
    """Return in words what starts a pipeline."""
    found = []
    schedule = pipeline.schedule
    if isinstance(schedule, Mapping) and "assets" in schedule:
        found.append(f"when assets are updated: `{json.dumps(schedule['assets'])}`")
        schedule = schedule.get("time")
    if isinstance(schedule, Mapping):
        schedule = schedule.get("uses")
    if schedule is not None:
        found.insert(0, f"by schedule `{schedule}`")
    for trigger in pipeline.triggers:
        for kind, about in trigger.items():
            place = next((about[key] for key in ("topic", "uri", "model") if key in about), "") \
                if isinstance(about, Mapping) else about  # fmt: skip
            found.append(f"by {kind} `{place}`" if place else f"by {kind}")
    return ", ".join([*found, "by hand"])


def _params(pipeline: Pipeline) -> list[str]:
    if not pipeline.params:
        return []
    lines = ["## Params", "", "| name | type | default | allowed | description |", "|---|---|---|---|---|"]
    for name, schema in pipeline.params.items():
        kinds = schema.get("type", "any")
        rest = {key: value for key, value in schema.items() if key not in ("type", "default", "description", "title")}
        allowed = ", ".join(f"{key} {json.dumps(value, ensure_ascii=False)}" for key, value in rest.items())
        default = f"`{json.dumps(schema['default'], ensure_ascii=False)}`" if "default" in schema else "must be given"
        kind = kinds if isinstance(kinds, str) else " or ".join(map(str, kinds))
        cells = (f"`{name}`", kind, default, allowed, schema.get("description", ""))
        lines.append(f"| {' | '.join(_cell(cell) for cell in cells)} |")
    return [*lines, ""]


def _cell(text: object) -> str:
    """Return a text as it can stand in a cell of a table."""
    return str(text).replace("|", "\\|").replace("\n", " ")
