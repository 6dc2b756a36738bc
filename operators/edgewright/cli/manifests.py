"""``edgewright render --format kubernetes``: what ``deploy`` would give a cluster, before any model is there."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import yaml

from edgewright.errors import ConfigError
from edgewright.spec.markers import pure_item, pure_param
from edgewright.spec.pipeline import Constant, Pipeline, Reference, Task, Template

#: Stands where only a run knows.
VERSION = "VERSION"


def manifests(pipeline: Pipeline) -> bytes:
    """Return the workloads of all tasks that deploy to nodes, as YAML documents.

    Raises:
        ConfigError: no task does, or what stands there only a run can say.
    """
    found = [document for task in pipeline.tasks for document in _of(pipeline, task)]
    if not found:
        raise ConfigError("no task deploys to nodes", where=pipeline.dag_id,
                          hint="deploy with to: {edge: {selector: ..., runtime: ..., source: ...}}")  # fmt: skip
    return yaml.safe_dump_all(found, sort_keys=False, width=120, explicit_start=True).encode()


def _of(pipeline: Pipeline, task: Task) -> Iterator[dict[str, Any]]:
    to = task.config.get("to") if task.uses == "deploy" else None
    if not isinstance(to, dict) or not to.get("edge"):
        return
    from pydantic import ValidationError

    from edgewright.spec.steps.edge_place import EdgePlace
    from edgewright.steps.edge_workload import Release, build_workload

    params = {name: schema.get("default") for name, schema in pipeline.params.items()}
    for item in _items(pipeline, task, params):
        names = {"params": params, "item": item}
        try:
            place = EdgePlace.model_validate(_filled(to["edge"], names))
        except ValidationError as error:
            raise ConfigError(f"cannot be shown: {error.errors()[0]['msg']}", where=f"tasks.{task.id}.with.to.edge",
                              hint="a template here needs what only a run knows") from error  # fmt: skip
        name, variant = _release(pipeline, task, names)
        yield build_workload(place, Release(name, VERSION, variant), f"{pipeline.dag_id}/{task.id}")


def _text(text: str, names: dict[str, Any]) -> Any:
    """Return what a template says; one that needs a run stays as it is written."""
    from edgewright.cli.templates import render

    name, parts = pure_param(text), pure_item(text)
    try:
        if name is not None:
            return names["params"][name]
        if parts is not None:
            found = names["item"]
            for part in parts:
                found = found[part]
            return found
        return render(text, names)
    except (ConfigError, KeyError, IndexError, TypeError):
        return text


def _items(pipeline: Pipeline, task: Task, params: dict[str, Any]) -> list[Any]:
    """Return what a task runs once for each of, by itself or with its group; one that only a run knows is nothing."""
    loop, around = task.for_each, task.group
    while loop is None and around is not None:
        group = next(one for one in pipeline.groups if one.id == around)
        loop, around = group.for_each, group.parent
    if loop is None:
        return [None]
    name = pure_param(loop.source.text) if isinstance(loop.source, Template) else None
    found = params.get(name) if name is not None else loop.items
    return list(found) if found else [None]


def _release(pipeline: Pipeline, task: Task, names: dict[str, Any]) -> tuple[str, str]:
    """Return the model's name and the variant, as far as the document says them."""
    release, variant = task.config.get("release"), _filled(task.config.get("variant"), names)
    upstream = release.task if isinstance(release, Reference) else None
    publish = next((one for one in pipeline.tasks if one.id == upstream and one.uses == "publish"), None)
    name = _filled(publish.config.get("name"), names) if publish is not None else None
    bundle = publish.config.get("bundle") if publish is not None else None
    targets = bundle.get("targets") if isinstance(bundle, dict) else None
    return str(name or "MODEL"), str(variant or (targets[-1] if targets else "VARIANT"))


def _filled(value: Any, names: dict[str, Any]) -> Any:
    """Return a value with its templates filled."""
    if isinstance(value, Constant):
        return value.value
    if isinstance(value, Reference):
        return f"{{{{ {value.task} }}}}"
    if isinstance(value, Template):
        return _text(value.text, names)
    if isinstance(value, dict):
        return {key: _filled(one, names) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_filled(one, names) for one in value]
    return value
