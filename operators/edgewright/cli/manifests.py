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
    items = task.for_each.items if task.for_each is not None else None
    for item in items or (None,):
        names = {"params": params, "item": item}
        try:
            place = EdgePlace.model_validate(_filled(to["edge"], names))
        except ValidationError as error:
            raise ConfigError(f"cannot be shown: {error.errors()[0]['msg']}", where=f"tasks.{task.id}.with.to.edge",
                              hint="a template here needs what only a run knows") from error  # fmt: skip
        name, variant = _release(pipeline, task, names)
        yield build_workload(place, Release(name, VERSION, variant), f"{pipeline.dag_id}/{task.id}")


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
    """Return a value with its templates filled; one that needs a run stays as it is written."""
    from edgewright.cli.templates import environment, render

    if isinstance(value, Constant):
        return value.value
    if isinstance(value, Reference):
        return f"{{{{ {value.task} }}}}"
    if isinstance(value, Template):
        text = value.text.strip()
        typed = pure_param(text) is not None or pure_item(text) is not None
        found = environment().compile_expression(text[2:-2])(**names) if typed else None
        if found is not None:
            return found
        try:
            return render(value.text, names)
        except ConfigError:
            return value.text
    if isinstance(value, dict):
        return {key: _filled(one, names) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_filled(one, names) for one in value]
    return value
